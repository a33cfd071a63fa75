"""Sources of densities, by their spectra.

A source is known by the spectrum of its point charges on the wavevectors of a lattice:
that of its density, without the Gaussian of an atom.
"""

from collections.abc import Callable, Hashable, Sequence
from math import exp
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.accuracy import Accuracy
from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.crystal import Crystal
from skscatharm.engine.frame import Frame
from skscatharm.engine.lattice import Lattice, Resolution, box_around
from skscatharm.engine.quadrature import kink_step

__all__ = ["AtomSource", "Source", "phases", "sum_over_points"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

_PRODUCTS = 2**19  # of factors of the atoms along two edges, held at a time


class Source(Protocol):
    """Densities of some samples, in boxes that they share.

    Attributes
    ----------
    unit : ndarray of shape (n_samples, n_channels, 1)
        Spectra are in units of it.
    is_periodic : bool
        Whether densities repeat along a direction.
    """

    unit: _Array
    is_periodic: bool

    def lattice(self, resolution: Resolution) -> Lattice:
        """Make the grid of a field."""
        ...

    def spectrum(self, lattice: Lattice, factor: complex) -> Array:
        r"""Return the spectrum of point charges, times a factor.

        Returns
        -------
        array of shape (n_samples, n_channels, *n_waves), half of them along z
            :math:`\int \rho(u) e^{-i k u} du` with u from the origin of the lattice.
        """
        ...

    def near(self, lattice: Lattice, width: float, reach: float) -> Array | None:
        """Return 1 where fields of a width may be, and 0 in the empty parts of boxes.

        None if there are no such parts.
        """
        ...


class AtomSource:
    """Atoms of molecules that share their boxes, or of one crystal.

    Parameters
    ----------
    places : sequence of Frame, or of one Crystal
    weights : sequence of ndarray of shape (n_channels, n_atoms)
        Weights of the atoms.
    xp : module
        Namespace of the array library.
    dtype : dtype
        Precision of the fields.

    Attributes
    ----------
    positions : ndarray of shape (n_molecules, n_atoms, 3)
    weights : ndarray of shape (n_molecules, n_channels, n_atoms)
        In units of `unit`.
    unit : ndarray of shape (n_molecules, n_channels, 1)
    is_periodic : bool
    """

    def __init__(
        self,
        places: Sequence[Frame | Crystal],
        weights: Sequence[_Array],
        xp: Any,
        dtype: Any,
    ) -> None:
        # Molecules are filled up with atoms that are absent.
        n_atoms = np.array([len(place.positions) for place in places])
        self.positions = np.zeros((len(places), n_atoms.max(), 3))
        self.weights = np.zeros((len(weights), len(weights[0]), n_atoms.max()))
        for i, (place, w) in enumerate(zip(places, weights, strict=True)):
            self.positions[i, : n_atoms[i]] = place.positions
            self.weights[i, :, : n_atoms[i]] = w
        self.rotations = np.stack([place.rotation for place in places])
        self.is_periodic = isinstance(places[0], Crystal)
        self._crystal = next((p for p in places if isinstance(p, Crystal)), None)
        unit = np.abs(self.weights).max(axis=2)
        if self._crystal is None:  # fields of a molecule may add up
            unit *= n_atoms[:, np.newaxis]
        self.unit = np.where(unit > 0, unit, 1.0)[:, :, np.newaxis]
        self.weights /= self.unit
        self._xp = xp
        self._dtype = dtype

    def lattice(self, resolution: Resolution) -> Lattice:
        """Make the grid of a field."""
        if self._crystal is not None:
            return self._crystal.lattice(resolution)
        half_lengths = np.abs(self.positions).max(axis=(0, 1))
        return box_around(half_lengths, resolution)

    def spectrum(
        self, lattice: Lattice, factor: complex, moduli: bool = False
    ) -> Array:
        """Compute the spectrum of the atoms; see :meth:`Source.spectrum`.

        With `moduli`, it is that of the moduli of their weights.
        """
        weights = np.abs(self.weights) if moduli else self.weights
        if self._crystal is None:
            return self._spectrum(lattice, factor * weights, self._dtype)
        # The paths of a crystal share its cell, and most waves come first. So do the
        # channels if all atoms are of one element. Both precisions share it too.
        key = "atoms", weights.tobytes()
        spectrum = self._crystal.spectrum(
            key,
            lattice,
            lambda: self._spectrum(lattice, weights, self._xp.float64),
            self._xp,
        )
        complex_of = self._xp.result_type(self._dtype, self._xp.complex64)
        return factor * self._xp.asarray(spectrum, dtype=complex_of)

    def shared(
        self, name: Hashable, lattice: Lattice, compute: Callable[[], Array]
    ) -> Array:
        """Compute a spectrum, or take one that crystals share by name and weights."""
        if self._crystal is None:
            return compute()
        key = name, self.weights.tobytes(), str(self._dtype)
        return self._crystal.spectrum(key, lattice, compute, self._xp)

    def _spectrum(self, lattice: Lattice, weights: NDArray[Any], dtype: Any) -> Array:
        xp = self._xp
        x, y, z = self._phases(lattice, dtype)
        weights = np.asarray(weights[..., np.newaxis], np.complex128)
        z = xp.expand_dims(z, axis=1) * xp.asarray(weights, dtype=z.dtype)
        return _sum_over_atoms(x, y, z, xp)

    def back(
        self, spectrum: Array, lattice: Lattice, factor: complex, moduli: bool = False
    ) -> _Array:
        """Take derivatives with respect to a spectrum back to the positions.

        Parameters
        ----------
        spectrum : array of the shape of a spectrum
            D, where the derivative of a sum S is the real part of the sum of D dS.
        lattice, factor, moduli
            Arguments of :meth:`spectrum`.

        Returns
        -------
        ndarray of shape (n_molecules, n_channels, n_atoms, 3)
        """
        xp = self._xp
        weights = np.abs(self.weights) if moduli else self.weights
        (x, dx), (y, dy), (z, dz) = (
            (p, p * xp.asarray(m, dtype=p.dtype))
            for p, m in zip(
                self._phases(lattice, self._dtype), lattice.indices(), strict=True
            )
        )
        batch, (n_x, n_y, n_z) = spectrum.shape[:2], spectrum.shape[2:]
        n_atoms = x.shape[1]
        along_z = xp.matrix_transpose(xp.concat([z, dz], axis=1))
        spectrum = xp.reshape(spectrum, (*batch, n_x * n_y, n_z))
        spectrum = xp.matmul(spectrum, xp.expand_dims(along_z, axis=1))
        spectrum = xp.reshape(spectrum, (*batch, n_x, n_y, 2, n_atoms))

        def total(a: Array, b: Array, c: Array) -> Array:
            b = xp.expand_dims(xp.matrix_transpose(b), axis=(1, 2))
            a = xp.expand_dims(xp.matrix_transpose(a), axis=1)
            return xp.sum(a * xp.sum(b * c, axis=3), axis=2)

        value, slope = spectrum[..., 0, :], spectrum[..., 1, :]
        found = xp.stack(
            [total(dx, y, value), total(x, dy, value), total(x, y, slope)], axis=-1
        )
        factors = np.asarray(
            -2j * np.pi * factor * weights[..., np.newaxis], np.complex128
        )
        real = to_numpy(xp.real(found * xp.asarray(factors, dtype=found.dtype)))
        turned: _Array = (
            real @ np.linalg.inv(lattice.cell).T @ self.rotations.mT[:, np.newaxis]
        )
        return turned

    def near(self, lattice: Lattice, width: float, reach: float) -> Array | None:
        """Return where fields are in the boxes of molecules; see :meth:`Source.near`.

        A point is near if Gaussians at the atoms reach the value at the margin.
        """
        if self._crystal is not None:
            return None
        xp = self._xp
        x, y, z = (
            self._array((points - coordinates[..., np.newaxis]) * (edge / width))
            for points, coordinates, edge in zip(
                lattice.points_in(lattice),
                np.moveaxis(lattice.fractional(self.positions), 2, 0),
                np.diag(lattice.cell),
                strict=True,
            )
        )
        x, y, z = (xp.exp(-d * d / 2) for d in (x, y, z))
        present = self._array((self.weights != 0)[..., np.newaxis])
        gaussians = _sum_over_atoms(x, y, xp.expand_dims(z, axis=1) * present, xp)
        return self._array(gaussians > exp(-(reach**2) / 2))

    def kinks(self, width: float, accuracy: Accuracy) -> tuple[float, float]:
        """Return the width of the kernel that rounds kinks, and the step it needs.

        Both are for a density that changes sign, which is alone here.
        """
        positions, weights = self.positions[0], self.weights[0, 0]
        kinks = accuracy.kink_width(positions, weights, width)
        return kinks, width * kink_step(positions, weights, width, kinks, accuracy)

    def _phases(self, lattice: Lattice, dtype: Any) -> list[Array]:
        """Phases of the atoms along each axis: (n_molecules, n_atoms, n_indices)."""
        return [
            phases(coordinates, indices, self._xp, dtype)
            for coordinates, indices in zip(
                np.moveaxis(lattice.fractional(self.positions), 2, 0),
                lattice.indices(),
                strict=True,
            )
        ]

    def _array(self, values: Any) -> Array:
        return self._xp.asarray(values, dtype=self._dtype)


def phases(
    coordinates: _Array, indices: NDArray[np.floating[Any]], xp: Any, dtype: Any
) -> Array:
    """Compute exp(-2 pi i x m) for all coordinates x and indices m.

    Returns
    -------
    array of shape (..., n_indices)
    """
    x = xp.asarray(coordinates[..., np.newaxis], dtype=xp.float64)
    m = xp.asarray(-2j * np.pi * indices, dtype=xp.complex128)
    return xp.asarray(xp.exp(x * m), dtype=xp.result_type(dtype, xp.complex64))


def sum_over_points(values: Array, x: Array, y: Array, z: Array, xp: Any) -> Array:
    """Sum real values on a grid times phases along each axis.

    Parameters
    ----------
    values : array of shape (n_samples, n_channels, n_x, n_y, n_z)
    x, y, z : array of shape (n_points, n_indices)
        The phases along each axis.

    Returns
    -------
    array of shape (n_samples, n_channels, n_indices_x, n_indices_y, n_indices_z)
    """
    batch, (n_x, n_y, n_z) = values.shape[:2], values.shape[2:]
    # The values are real: two real products are half of a complex one.
    values = xp.reshape(values, (-1, n_z))
    imaginary = xp.asarray(xp.matmul(values, xp.imag(z)), dtype=z.dtype)
    spectrum = xp.matmul(values, xp.real(z)) + 1j * imaginary
    spectrum = xp.matmul(y.T, xp.reshape(spectrum, (-1, n_y, z.shape[1])))
    spectrum = xp.matmul(x.T, xp.reshape(spectrum, (*batch, n_x, -1)))
    return xp.reshape(spectrum, (*batch, x.shape[1], y.shape[1], z.shape[1]))


def _sum_over_atoms(x: Array, y: Array, z: Array, xp: Any) -> Array:
    """Add up products of factors along the axes.

    Parameters
    ----------
    x, y : array of shape (n_molecules, n_atoms, n_x) and (n_molecules, n_atoms, n_y)
    z : array of shape (n_molecules, n_channels, n_atoms, n_z)

    Returns
    -------
    array of shape (n_molecules, n_channels, n_x, n_y, n_z)
    """
    (n_molecules, n_atoms, n_x), n_y = x.shape, y.shape[2]
    n_rows = max(_PRODUCTS // (n_molecules * n_atoms * n_y), 1)
    y = xp.expand_dims(y, axis=2)
    parts = []
    for start in range(0, n_x, n_rows):
        planar = xp.expand_dims(x[..., start : min(start + n_rows, n_x)], axis=3) * y
        planar = xp.matrix_transpose(xp.reshape(planar, (n_molecules, n_atoms, -1)))
        total = xp.matmul(xp.expand_dims(planar, axis=1), z)
        parts.append(xp.reshape(total, (*z.shape[:2], -1, n_y, z.shape[3])))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=2)
