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

from collections.abc import Iterator, Sequence
from math import ceil, exp, floor, log, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from skscatharm.engine.accuracy import (
    DOUBLE,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library, fft_namespace, to_numpy
from skscatharm.engine.frame import Frame
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import SHIFT, kink_step
from skscatharm.transform.harmonics import wavelets_in_frequency
from skscatharm.transform.modulus import KinkRounding, path_peak, power, soften
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["FourierEngine"]

Array = Any  # of the array library that computes

_ARRAYS = 7  # of the size of a field of all channels, that are held at a time
# Bytes that keep any device busy. Larger batches only fill up more of smaller boxes.
_BUSY = 4 * 2**30


class FourierEngine:
    """Computes as many molecules at a time as the device has memory for.

    Parameters
    ----------
    transform : Transform
        What to compute.
    library : Library
        The array library that computes, and where.
    """

    def __init__(self, transform: Transform, library: Library) -> None:
        self.transform = transform
        self.library = library
        self._exponents = np.asarray(transform.exponents)

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a molecule needs."""
        frame = Frame(atoms.positions, atoms.charges)
        jobs = self._jobs([frame], [atoms.weights])
        return max(
            (self._memory(job, frame.half_lengths, 1) for job in jobs), default=0.0
        )

    def coefficients(self, batch: Sequence[Atoms]) -> NDArray[np.float64]:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        frames = [Frame(atoms.positions, atoms.charges) for atoms in batch]
        weights = [atoms.weights for atoms in batch]
        n_paths, n_exponents = len(self.transform.paths), len(self._exponents)
        found = np.zeros((len(batch), n_paths, len(weights[0]), n_exponents))
        for job in self._jobs(frames, weights):
            pending = [job.molecules]
            while pending:
                part = pending.pop()
                extents = np.stack([frames[i].half_lengths for i in part])
                memory = self._memory(job, extents.max(axis=0), len(part))
                if len(part) == 1 or memory < min(self.library.free_memory(), _BUSY):
                    try:
                        values = self._compute(job, frames, weights, part)
                    except self.library.out_of_memory():
                        if len(part) == 1:
                            raise
                    else:
                        for i, of_molecule in zip(part, values, strict=True):
                            channels = np.flatnonzero(job.belongs[i])
                            rows = np.searchsorted(job.channels, channels)
                            to = np.ix_(channels, job.exponents)
                            found[i][:, *to] = of_molecule[:, rows]
                        continue
                # Molecules share their boxes: the halves are to be of similar ones.
                axis = np.ptp(extents, axis=0).argmax()
                pending += np.array_split(part[extents[:, axis].argsort()], 2)
        return found

    def _jobs(
        self, frames: Sequence[Frame], weights: Sequence[NDArray[np.float64]]
    ) -> "Iterator[_Job]":
        """Group what can be computed together, whatever else is in the batch."""
        transform = self.transform
        classes: dict[tuple[float, bool, float, int, int], NDArray[np.bool_]] = {}
        for i, (frame, rows) in enumerate(zip(frames, weights, strict=True)):
            # In steps of a tenth, so that molecules can share their grids.
            spacing = min(frame.spacing / transform.sigma, 1e3)
            spacing = transform.sigma * 1.1 ** floor(log(spacing) / log(1.1))
            for softness, signed, channels in weight_classes(rows, transform.softening):
                # The grid of a density that changes sign depends on the molecule.
                alone = (i, int(channels[0])) if signed else (-1, -1)
                key = (softness, signed, spacing, *alone)
                none = np.zeros((len(weights), len(rows)), dtype=bool)
                belongs = classes.setdefault(key, none)
                belongs[i, channels] = rows[channels].any(axis=1)
        for (softness, signed, spacing, *_), belongs in classes.items():
            if not belongs.any():
                continue
            for largest, exponents in exponent_classes(self._exponents):
                yield _Job(
                    Accuracy(transform.tol, softness, largest, signed),
                    spacing,
                    np.flatnonzero(belongs.any(axis=1)),
                    np.flatnonzero(belongs.any(axis=0)),
                    exponents,
                    belongs,
                )

    def _compute(
        self,
        job: "_Job",
        frames: Sequence[Frame],
        weights: Sequence[NDArray[np.float64]],
        part: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        molecules = _Batch(
            [frames[i].positions for i in part],
            [weights[i][job.channels] for i in part],
            job.accuracy,
            job.spacing,
            self.transform,
            self.library.namespace(),
            self._dtype(job),
        )
        return molecules.coefficients(self._exponents[job.exponents])

    def _dtype(self, job: "_Job") -> str:
        """Choose the precision of the fields.

        The noise that FFTs leave in the empty parts of a box would add 1e-3 to
        coefficients of exponents below 1 in single precision.
        """
        low = self._exponents[job.exponents].min() < 1
        high = job.accuracy.exponent > DOUBLE
        return "float64" if low or high or job.accuracy.signed else self.transform.dtype

    def _memory(
        self, job: "_Job", half_lengths: NDArray[np.float64], n_molecules: int
    ) -> float:
        sigma = self.transform.sigma
        n_points = max(
            prod(_shape(half_lengths, path, sigma, job.accuracy, job.spacing))
            for path in self.transform.paths
        )
        itemsize = np.dtype(self._dtype(job)).itemsize
        return _ARRAYS * n_molecules * len(job.channels) * n_points * itemsize


class _Job(NamedTuple):
    """What is computed together.

    Attributes
    ----------
    accuracy : Accuracy
    spacing : float
        Distance of neighbouring atoms, or less.
    molecules, channels, exponents : ndarray of int
        Indices.
    belongs : ndarray of bool of shape (n_molecules, n_channels)
        Which channels of which molecules are asked for.
    """

    accuracy: Accuracy
    spacing: float
    molecules: NDArray[np.intp]
    channels: NDArray[np.intp]
    exponents: NDArray[np.intp]
    belongs: NDArray[np.bool_]


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
    """A modulus on a grid, of shape (n_molecules, n_channels, n_x, n_y, n_z).

    Attributes
    ----------
    squared, root, modulus : array
        The square of the field; see :func:`~skscatharm.transform.modulus.soften`.
    epsilon : array or float
        Softening.
    powers : list of array or None
        Powers of a density that changes sign, with rounded kinks.
    lattice : _Lattice
    """

    squared: Array
    root: Array
    modulus: Array
    epsilon: Array | float
    powers: list[Array] | None
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
        accuracy: Accuracy,
        spacing: float,
        transform: Transform,
        xp: Any,
        dtype: str,
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
        unit = np.abs(self.weights).max(axis=2) * self.present.sum(axis=2)
        self.unit = np.where(unit > 0, unit, 1.0)[:, :, np.newaxis]
        self.weights /= self.unit
        self.accuracy = accuracy
        self.spacing = spacing
        self.transform = transform
        self.xp = xp
        self.dtype = getattr(xp, dtype)

    def coefficients(self, Q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute all paths, each field of order 1 once.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        sigma, softening = self.transform.sigma, self.transform.softening
        paths = self.transform.paths
        rounding = KinkRounding(Q, self.accuracy.kink_kernel[0])

        def epsilon(path: Path, constant: float) -> NDArray[np.float64] | None:
            if softening == 0 or path.degree == 0:
                return None
            return softening * path_peak(path, sigma) / (self.unit * constant)

        found = {}
        for first in {Path(path.scales[:1], path.degree) for path in paths}:
            width = _width(first, sigma)
            ratio = sqrt(1 - (sigma / width) ** 2)  # of scale and width
            constant = ratio**first.degree * width**-3
            field = self.atoms(first, epsilon(first, constant), rounding)
            for path in paths:
                if (path.scales[:1], path.degree) == first:
                    last = field
                    if path != first:
                        last = self.convolution(field, path, epsilon(path, constant))
                    moments = self.moments(last, Q)
                    found[path] = (self.unit * constant) ** Q * moments
        return np.stack([found[path] for path in paths], axis=1)

    def atoms(
        self, path: Path, epsilon: NDArray[np.float64] | None, rounding: KinkRounding
    ) -> _Field:
        """Compute the fields of the atoms, of order 0 or 1.

        `epsilon`, of shape (n_molecules, n_channels, 1), softens the modulus.
        """
        lattice = self._lattice(path)
        width = _width(path, self.transform.sigma)

        def spectrum(weights: NDArray[np.float64]) -> Array:
            xp = self.xp
            x, y, z = (
                self._phases(coordinates, indices)
                for coordinates, indices in zip(
                    np.moveaxis(lattice.fractional(self.positions), 2, 0),
                    lattice.indices(),
                    strict=True,
                )
            )
            factors = (-1j) ** path.degree * width**3 * weights
            factors = xp.asarray(factors[..., np.newaxis], dtype=z.dtype)
            return _sum_over_atoms(x, y, xp.expand_dims(z, axis=1) * factors, xp)

        if path.degree == 0 and self.accuracy.signed:
            values, envelope = (
                next(self._components(spectrum(w), path, width, lattice))
                * self._near(path, lattice)
                for w in (self.weights, np.abs(self.weights))
            )
            kinks = self._kink_width(width)
            modulus, powers = rounding.powers(values, self.xp.abs(envelope), kinks)
            return _Field(values * values, modulus, modulus, 0.0, powers, lattice)
        return self._modulus(spectrum(self.weights), path, width, lattice, epsilon)

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
        scale = self.transform.sigma * 2 ** path.scales[-1]
        return self._modulus(spectrum, path, scale, lattice, epsilon)

    def moments(self, field: _Field, Q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Integrate powers of fields.

        Returns
        -------
        ndarray of shape (n_molecules, n_channels, n_exponents)
        """
        xp = self.xp
        powers = field.powers or (power(*field[:4], q) for q in Q.tolist())
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
        squared: Array = 0.0
        for values in self._components(spectrum, path, scale, lattice):
            values *= values
            squared += values
        squared *= self._near(path, lattice)
        low: Array | float = 0.0
        if epsilon is not None:
            low = self._array(epsilon[..., np.newaxis, np.newaxis])
        return _Field(squared, *soften(squared, low), low, None, lattice)

    def _components(
        self, spectrum: Array, path: Path, scale: float, lattice: _Lattice
    ) -> Iterator[Array]:
        """Convolve with each of the wavelets of a scale."""
        xp, fft = self.xp, fft_namespace(self.xp)
        wavevectors = [xp.asarray(k, dtype=self.dtype) for k in lattice.wavevectors()]
        for wavelet in wavelets_in_frequency(path.degree, scale, wavevectors, xp):
            yield fft.irfftn(
                spectrum * (wavelet / lattice.volume),
                s=lattice.shape,
                axes=(-3, -2, -1),
            )

    def _near(self, path: Path, lattice: _Lattice) -> Array:
        """Return 1 where there are fields, and 0 in the empty parts of the boxes.

        There, FFTs leave noise, of which low powers would add up to something. A point
        is near if Gaussians at the atoms reach what one has at the margin.
        """
        xp = self.xp
        width = _width(path, self.transform.sigma)
        reach = self.accuracy.margin(path.degree)
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

    def _kink_width(self, width: float) -> float:
        """Width of the kernel for a density that changes sign, which is alone here."""
        return self.accuracy.kink_width(self.positions[0], self.weights[0, 0], width)

    def _lattice(self, path: Path) -> _Lattice:
        """Make the box for a field of the molecules, centred on the origin."""
        sigma, accuracy = self.transform.sigma, self.accuracy
        half_lengths = np.abs(self.positions).max(axis=(0, 1))
        step, reach = _step_and_reach(path, sigma, accuracy, self.spacing)
        if path.degree == 0 and accuracy.signed and len(path.scales) < 2:
            width, weights = _width(path, sigma), self.weights[0, 0]
            kinks = self._kink_width(width)
            fine = kink_step(self.positions[0], weights, width, kinks, accuracy)
            step = min(step, width * fine)
        shape = _shape_of(half_lengths, step, reach)
        half = np.array([n // 2 for n in shape])
        return _Lattice(np.diag(shape) * step, shape, step * (SHIFT - half))

    def _array(self, values: Any) -> Array:
        """Move an array to where the fields are computed, or change its type there."""
        return self.xp.asarray(values, dtype=self.dtype)


def _width(path: Path, sigma: float) -> float:
    """Width of a field: that of an atom, and of all wavelets it has met."""
    return sigma * sqrt(1 + sum(4**j for j in path.scales))


def _shape(
    half_lengths: NDArray[np.float64],
    path: Path,
    sigma: float,
    accuracy: Accuracy,
    spacing: float,
) -> tuple[int, int, int]:
    """Count the points of the grid of a box along its axes."""
    return _shape_of(half_lengths, *_step_and_reach(path, sigma, accuracy, spacing))


def _shape_of(
    half_lengths: NDArray[np.float64], step: float, reach: float
) -> tuple[int, int, int]:
    x, y, z = (
        next_fast_len(ceil(2 * (length + reach) / step), real=True)
        for length in half_lengths.tolist()
    )
    return x, y, z


def _step_and_reach(
    path: Path, sigma: float, accuracy: Accuracy, spacing: float
) -> tuple[float, float]:
    """Step of the grid of a field, and how far the field reaches beyond the atoms."""
    width = _width(path, sigma)
    order, degree = max(1, len(path.scales)), path.degree
    step = accuracy.step(order, degree, spacing / width)
    step = min(step, accuracy.spectral_step(degree))
    return step * width, accuracy.margin(degree) * width


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
