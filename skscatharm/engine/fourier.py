r"""The Fourier engine: fields as Fourier series, convolutions as products.

A molecule stands in a periodic box, large enough that its images do not matter. The
spectrum of its point charges is a matrix product over the atoms, as exponentials
separate along the axes: no density is put on a grid. Times the spectrum of a wavelet,
it is the spectrum of a field of order 1, and a real FFT gives the values. The spectrum
of their modulus is a matrix product along each axis; it is taken only at the
wavevectors that the next wavelet leaves over, which are few, and those of another box.

Each field has a box and a grid of its own, as large and as fine as its width asks for.
Molecules of a batch share them. The points of a larger box are those of a smaller one
and some more, and so the results do not depend on the batch.
"""

from collections.abc import Sequence
from functools import cache
from math import ceil, exp, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from skscatharm.engine.arrays import fft_namespace, to_numpy
from skscatharm.engine.portable import power
from skscatharm.engine.quadrature import SHIFT, fine_step, margin, principal_axes
from skscatharm.transform.harmonics import wavelets_in_frequency
from skscatharm.transform.modulus import path_peak, soft_power
from skscatharm.transform.paths import Path

__all__ = ["extent", "field_memory", "scattering"]

Array = Any  # of the array library that computes

# The grid cuts off the spectrum of a field. In widths, this step leaves ripples of
# 1e-11 of the field, about what the field itself has come down to at the margin.
_LARGEST_STEP = 0.45
_ARRAYS = 7  # of the size of a field of all channels, that are held at a time


def scattering(
    positions: Sequence[NDArray[np.float64]],
    weights: Sequence[NDArray[np.float64]],
    paths: Sequence[Path],
    *,
    Q: Sequence[float],
    sigma: float,
    tol: float,
    softening: float,
    xp: Any,
    dtype: Any,
) -> NDArray[np.float64]:
    """Compute the coefficients of molecules, all at once.

    Parameters
    ----------
    positions : sequence of ndarray of shape (n_atoms, 3)
        In the unit of `sigma`.
    weights : sequence of ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    paths : sequence of Path
        What to compute; paths that share their first wavelet share its field.
    Q, sigma, tol, softening
        As in :class:`~skscatharm.SolidHarmonicScattering`.
    xp : module
        Namespace of the array library that computes.
    dtype : dtype
        Real floating-point type of `xp` to compute in. Exponents below one are always
        computed in double precision: the noise that FFTs leave in the empty parts of a
        box would add 1e-3 to them.

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    """
    unit = np.stack([np.abs(w).max(axis=1) * w.shape[1] for w in weights])
    unit[unit == 0] = 1.0
    unit = unit[:, :, np.newaxis]
    weights = [w / u for w, u in zip(weights, unit, strict=True)]
    positions = [principal_axes(r) for r in positions]
    batch = _Batch(
        positions, weights, sigma, tol, softening, xp, _precision(dtype, Q, xp)
    )

    def epsilon(path: Path, constant: float) -> NDArray[np.float64] | None:
        if softening == 0 or path.degree == 0:
            return None
        return softening * path_peak(path, sigma) / (unit * constant)

    found = {}
    for first in {Path(path.scales[:1], path.degree) for path in paths}:
        width = _width(first, sigma)
        ratio = sqrt(1 - (sigma / width) ** 2)  # of scale and width
        constant = ratio**first.degree * width**-3
        field = batch.atoms(first, epsilon(first, constant))
        for path in paths:
            if (path.scales[:1], path.degree) == first:
                last = field
                if path != first:
                    last = batch.convolution(field, path, epsilon(path, constant))
                moments = batch.moments(last, Q)
                found[path] = (unit * constant) ** np.asarray(Q) * moments
    return np.stack([found[path] for path in paths], axis=1)


def extent(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure a molecule: half of its length along each of its principal axes."""
    return np.abs(principal_axes(positions)).max(axis=0)


def field_memory(
    extent: NDArray[np.float64],
    n_channels: int,
    paths: Sequence[Path],
    *,
    Q: Sequence[float],
    sigma: float,
    tol: float,
    softening: float,
    xp: Any,
    dtype: Any,
) -> float:
    """Estimate the bytes that `scattering` takes for a molecule of an extent."""
    n_points = max(prod(_shape(extent, path, sigma, tol, softening)) for path in paths)
    itemsize = xp.finfo(_precision(dtype, Q, xp)).bits // 8
    return _ARRAYS * n_channels * n_points * itemsize


class _Lattice(NamedTuple):
    """A periodic box and the points of its grid.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        The edges of the box, one a row.
    shape : tuple of int
        Number of points along each of them.
    origin : ndarray of shape (3,)
        The first point.
    """

    cell: NDArray[np.float64]
    shape: tuple[int, int, int]
    origin: NDArray[np.float64]

    @property
    def volume(self) -> float:
        """Volume of a point."""
        return abs(float(np.linalg.det(self.cell))) / prod(self.shape)

    def fractional(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Express positions, of shape (..., 3), in edges from the origin."""
        return (positions - self.origin) @ np.linalg.inv(self.cell)

    def points_in(self, other: "_Lattice") -> list[NDArray[np.float64]]:
        """Express the points along each axis in parallel edges of another box."""
        ratios = np.diag(self.cell @ np.linalg.inv(other.cell))
        return [
            offset + ratio * np.arange(n) / n
            for offset, ratio, n in zip(
                other.fractional(self.origin), ratios, self.shape, strict=True
            )
        ]

    def indices(self) -> list[NDArray[np.floating[Any]]]:
        """Number the wavevectors along each axis, as real FFTs do."""
        x, y, z = self.shape
        return [
            np.fft.fftfreq(x, 1 / x),
            np.fft.fftfreq(y, 1 / y),
            np.arange(z // 2 + 1.0),
        ]

    def wavevectors(self) -> list[NDArray[np.float64]]:
        """Return their components, which broadcast to the shape of a spectrum."""
        reciprocal = 2 * np.pi * np.linalg.inv(self.cell)
        indices = np.meshgrid(*self.indices(), indexing="ij", sparse=True)
        return [
            sum(b * m for b, m in zip(row, indices, strict=True) if b != 0)
            for row in reciprocal
        ]


class _Field(NamedTuple):
    """A modulus on a grid, of shape (n_molecules, n_channels, n_x, n_y, n_z)."""

    modulus: Array
    squared: Array
    epsilon: Array | None  # what softens it
    lattice: _Lattice


class _Batch:
    """Molecules, and the array library that computes their fields.

    Fields come without what is common to all their points: a power of the scales and
    the units of the weights.
    """

    def __init__(
        self,
        positions: Sequence[NDArray[np.float64]],
        weights: Sequence[NDArray[np.float64]],
        sigma: float,
        tol: float,
        softening: float,
        xp: Any,
        dtype: Any,
    ) -> None:
        # Molecules are filled up with atoms that are absent.
        n_atoms = max(len(r) for r in positions)
        self.positions = np.zeros((len(positions), n_atoms, 3))
        self.weights = np.zeros((len(weights), len(weights[0]), n_atoms))
        self.present = np.zeros((len(positions), 1, n_atoms))
        for i, (r, w) in enumerate(zip(positions, weights, strict=True)):
            self.positions[i, : len(r)] = r
            self.weights[i, :, : len(r)] = w
            self.present[i, :, : len(r)] = 1
        self.sigma = sigma
        self.tol = tol
        self.softening = softening
        self.xp = xp
        self.dtype = dtype

    def atoms(self, path: Path, epsilon: NDArray[np.float64] | None) -> _Field:
        """Compute the fields of the atoms, of order 0 or 1.

        `epsilon`, of shape (n_molecules, n_channels, 1), softens the modulus.
        """
        xp = self.xp
        lattice = self._lattice(path)
        width = _width(path, self.sigma)
        x, y, z = (
            self._phases(coordinates, indices)
            for coordinates, indices in zip(
                np.moveaxis(lattice.fractional(self.positions), 2, 0),
                lattice.indices(),
                strict=True,
            )
        )
        weights = (-1j) ** path.degree * width**3 * self.weights
        weights = xp.asarray(weights[..., np.newaxis], dtype=z.dtype)
        spectrum = _sum_over_atoms(x, y, xp.expand_dims(z, axis=1) * weights, xp)
        return self._modulus(spectrum, path, width, lattice, epsilon)

    def convolution(
        self, field: _Field, path: Path, epsilon: NDArray[np.float64] | None
    ) -> _Field:
        """Convolve fields with the last wavelets of a path."""
        xp = self.xp
        lattice = self._lattice(path)
        x, y, z = (
            self._phases(coordinates, indices)
            for coordinates, indices in zip(
                field.lattice.points_in(lattice), lattice.indices(), strict=True
            )
        )
        z = (-1j) ** path.degree * field.lattice.volume * z
        batch, (n_x, n_y, n_z) = field.modulus.shape[:2], field.lattice.shape
        # The field is real: two real products are half of a complex one.
        values = xp.reshape(field.modulus, (-1, n_z))
        imaginary = xp.asarray(xp.matmul(values, xp.imag(z)), dtype=z.dtype)
        spectrum = xp.matmul(values, xp.real(z)) + 1j * imaginary
        spectrum = xp.matmul(y.T, xp.reshape(spectrum, (-1, n_y, z.shape[1])))
        spectrum = xp.matmul(x.T, xp.reshape(spectrum, (*batch, n_x, -1)))
        spectrum = xp.reshape(spectrum, (*batch, x.shape[1], y.shape[1], z.shape[1]))
        scale = self.sigma * 2 ** path.scales[-1]
        return self._modulus(spectrum, path, scale, lattice, epsilon)

    def moments(self, field: _Field, Q: Sequence[float]) -> NDArray[np.float64]:
        """Integrate powers of fields.

        Returns
        -------
        ndarray of shape (n_molecules, n_channels, n_exponents)
        """
        xp = self.xp
        powers = (
            power(field.modulus, field.squared, q)
            if field.epsilon is None
            else soft_power(field.squared, q, field.epsilon)
            for q in Q
        )
        sums = [xp.sum(values, axis=(-3, -2, -1)) for values in powers]
        return field.lattice.volume * to_numpy(xp.stack(sums, axis=-1))

    def _modulus(
        self,
        spectrum: Array,
        path: Path,
        scale: float,
        lattice: _Lattice,
        epsilon: NDArray[np.float64] | None,
    ) -> _Field:
        """Convolve with the wavelets of a scale, and take the modulus."""
        xp, fft = self.xp, fft_namespace(self.xp)
        wavevectors = [xp.asarray(k, dtype=self.dtype) for k in lattice.wavevectors()]
        squared = None
        for wavelet in wavelets_in_frequency(path.degree, scale, wavevectors, xp):
            values = fft.irfftn(
                spectrum * (wavelet / lattice.volume),
                s=lattice.shape,
                axes=(-3, -2, -1),
            )
            values *= values
            if squared is None:
                squared = values
            else:
                squared += values
        squared *= self._near(path, lattice)
        if epsilon is None:
            return _Field(xp.sqrt(squared), squared, None, lattice)
        softly = self._array(epsilon[..., np.newaxis, np.newaxis])
        return _Field(soft_power(squared, 1, softly), squared, softly, lattice)

    def _near(self, path: Path, lattice: _Lattice) -> Array:
        """Return 1 where there are fields, and 0 in the empty parts of the boxes.

        There, FFTs leave noise, of which low powers would add up to something. A point
        is near if Gaussians at the atoms reach what one has at the margin.
        """
        xp = self.xp
        width = _width(path, self.sigma)
        reach = margin(path.degree, self.tol, self.softening)
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
        present = self._array(self.present[..., np.newaxis])
        gaussians = _sum_over_atoms(x, y, xp.expand_dims(z, axis=1) * present, xp)
        return self._array(gaussians > exp(-(reach**2) / 2))

    def _phases(
        self, coordinates: NDArray[np.float64], indices: NDArray[np.floating[Any]]
    ) -> Array:
        """Compute exp(-2 pi i x m) for all coordinates x and indices m.

        Returns
        -------
        array of shape (..., n_indices)
        """
        xp = self.xp
        x = xp.asarray(coordinates[..., np.newaxis], dtype=xp.float64)
        m = xp.asarray(-2j * np.pi * indices, dtype=xp.complex128)
        return xp.asarray(xp.exp(x * m), dtype=xp.result_type(self.dtype, xp.complex64))

    def _lattice(self, path: Path) -> _Lattice:
        extent = np.abs(self.positions).max(axis=(0, 1))
        return _lattice(extent, path, self.sigma, self.tol, self.softening)

    def _array(self, values: Any) -> Array:
        """Move an array to where the fields are computed, or change its type there."""
        return self.xp.asarray(values, dtype=self.dtype)


def _width(path: Path, sigma: float) -> float:
    """Width of a field: that of an atom, and of all wavelets it has met."""
    return sigma * sqrt(1 + sum(4**j for j in path.scales))


def _lattice(
    extent: NDArray[np.float64],
    path: Path,
    sigma: float,
    tol: float,
    softening: float,
) -> _Lattice:
    """Make the box for a field of molecules of an extent, centred on the origin."""
    step, _ = _step_and_reach(path, sigma, tol, softening)
    shape = _shape(extent, path, sigma, tol, softening)
    half = np.array([n // 2 for n in shape])
    return _Lattice(np.diag(shape) * step, shape, step * (SHIFT - half))


def _shape(
    extent: NDArray[np.float64],
    path: Path,
    sigma: float,
    tol: float,
    softening: float,
) -> tuple[int, int, int]:
    """Count the points of the grid of a box along its axes."""
    step, reach = _step_and_reach(path, sigma, tol, softening)
    x, y, z = (
        next_fast_len(ceil(2 * (length + reach) / step), real=True)
        for length in extent.tolist()
    )
    return x, y, z


@cache
def _step_and_reach(
    path: Path, sigma: float, tol: float, softening: float
) -> tuple[float, float]:
    """Step of the grid of a field, and how far the field reaches beyond the atoms."""
    width = _width(path, sigma)
    order = max(1, len(path.scales))
    step = fine_step(order, path.degree, width, tol, softening)
    reach = margin(path.degree, tol, softening)
    return min(step, _LARGEST_STEP) * width, reach * width


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
    planar = xp.expand_dims(x, axis=3) * xp.expand_dims(y, axis=2)
    planar = xp.matrix_transpose(xp.reshape(planar, (*x.shape[:2], -1)))
    total = xp.matmul(xp.expand_dims(planar, axis=1), z)
    return xp.reshape(total, (*z.shape[:2], x.shape[2], y.shape[2], z.shape[3]))


def _precision(dtype: Any, Q: Sequence[float], xp: Any) -> Any:
    """Choose the type to compute in; `scattering` says why it may not be `dtype`."""
    return xp.float64 if min(Q) < 1 else dtype
