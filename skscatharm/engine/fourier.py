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

from collections.abc import Callable, Iterator, Sequence
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
from skscatharm.engine.groups import compute_in_groups
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import SHIFT, kink_step
from skscatharm.transform.harmonics import wavelets_in_frequency
from skscatharm.transform.modulus import (
    KinkRounding,
    path_peak,
    power,
    power_derivative,
    soften,
)
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["FourierEngine"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

_ARRAYS = 7  # of the size of a field of all channels, that are held at a time
_BUSY = 4 * 2**30  # bytes that keep any device busy


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

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        found = [np.zeros(self._shape(atoms)) for atoms in batch]

        def compute(job: _Job, molecules: _Batch, part: NDArray[np.intp]) -> None:
            values = molecules.coefficients()
            for i, of_molecule in zip(part, values, strict=True):
                channels, rows = job.of(i)
                found[i][:, *np.ix_(channels, job.exponents)] = of_molecule[:, rows]

        self._run(batch, compute)
        return np.stack(found)

    def jacobian(self, batch: Sequence[Atoms]) -> list[_Array]:
        """Differentiate the coefficients of molecules.

        Returns
        -------
        list of ndarray of shape (n_paths, n_channels, n_exponents, n_atoms, 3)
        """
        found = [
            np.zeros((*self._shape(atoms), *atoms.positions.shape)) for atoms in batch
        ]

        def compute(job: _Job, molecules: _Batch, part: NDArray[np.intp]) -> None:
            values = molecules.jacobian()
            for i, of_molecule in zip(part, values, strict=True):
                channels, rows = job.of(i)
                n_atoms = found[i].shape[3]
                where = np.ix_(channels, job.exponents)
                found[i][:, *where] = of_molecule[:, rows, :, :n_atoms]

        self._run(batch, compute, derivatives=True)
        return found

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[_Array]
    ) -> list[_Array]:
        """Differentiate weighted sums of the coefficients of molecules.

        `weights` are of shape (n_paths, n_channels, n_exponents).

        Returns
        -------
        list of ndarray of shape (n_atoms, 3)
        """
        found = [np.zeros_like(atoms.positions) for atoms in batch]

        def compute(job: _Job, molecules: _Batch, part: NDArray[np.intp]) -> None:
            factors = np.stack(
                [weights[i][:, *np.ix_(job.channels, job.exponents)] for i in part]
            )
            factors *= job.belongs[np.ix_(part, job.channels)][
                :, np.newaxis, :, np.newaxis
            ]
            for i, of_molecule in zip(part, molecules.gradient(factors), strict=True):
                found[i] += of_molecule[: len(found[i])]

        self._run(batch, compute, derivatives=True)
        return found

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[_Array]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments and results are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        coefficients = self.coefficients(batch)
        return coefficients, self.gradient(batch, list(weigh(coefficients)))

    def _shape(self, atoms: Atoms) -> tuple[int, int, int]:
        transform = self.transform
        return len(transform.paths), len(atoms.weights), len(transform.exponents)

    def _run(
        self,
        batch: Sequence[Atoms],
        compute: "Callable[[_Job, _Batch, NDArray[np.intp]], None]",
        derivatives: bool = False,
    ) -> None:
        """Call a function with as many molecules at a time as there is memory for."""
        frames = [Frame(atoms.positions, atoms.charges) for atoms in batch]
        weights = [atoms.weights for atoms in batch]
        extents = np.stack([frame.half_lengths for frame in frames])
        for job in self._jobs(frames, weights):

            def memory(part: NDArray[np.intp], job: _Job = job) -> float:
                largest = extents[part].max(axis=0)
                return self._memory(job, largest, len(part), derivatives)

            def compute_part(part: NDArray[np.intp], job: _Job = job) -> None:
                molecules = _Batch(
                    [frames[i] for i in part],
                    [weights[i][job.channels] for i in part],
                    job,
                    self.transform,
                    self.library.namespace(),
                    self._dtype(job),
                    derivatives,
                )
                compute(job, molecules, part)

            compute_in_groups(
                compute_part, job.molecules, extents, memory, self.library, _BUSY
            )

    def _jobs(
        self, frames: Sequence[Frame], weights: Sequence[_Array]
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

    def _dtype(self, job: "_Job") -> str:
        """Choose the precision of the fields.

        The noise that FFTs leave in the empty parts of a box would add 1e-3 to
        coefficients of exponents below 1 in single precision.
        """
        low = self._exponents[job.exponents].min() < 1
        high = job.accuracy.exponent > DOUBLE
        return "float64" if low or high or job.accuracy.signed else self.transform.dtype

    def _memory(
        self,
        job: "_Job",
        half_lengths: _Array,
        n_molecules: int,
        derivatives: bool = False,
    ) -> float:
        sigma = self.transform.sigma
        n_points = max(
            prod(_shape(half_lengths, path, sigma, job.accuracy, job.spacing))
            for path in self.transform.paths
        )
        itemsize = np.dtype(self._dtype(job)).itemsize
        n_arrays = _ARRAYS
        if derivatives:  # all components are kept
            n_arrays += 2 * max(path.degree for path in self.transform.paths) + 4
        return n_arrays * n_molecules * len(job.channels) * n_points * itemsize


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

    def of(self, molecule: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the channels of a molecule, and their indices among all of the job."""
        channels = np.flatnonzero(self.belongs[molecule])
        return channels, np.searchsorted(self.channels, channels)


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

    cell: _Array
    shape: tuple[int, int, int]
    origin: _Array

    @property
    def volume(self) -> float:
        """Volume of a point."""
        return abs(float(np.linalg.det(self.cell))) / prod(self.shape)

    def fractional(self, positions: _Array) -> _Array:
        """Express positions, of shape (..., 3), in edges from the origin."""
        return (positions - self.origin) @ np.linalg.inv(self.cell)

    def points_in(self, other: "_Lattice") -> list[_Array]:
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

    def wavevectors(self) -> list[_Array]:
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
    lattice : _Lattice
    near : array
        1 where there are fields, and 0 in the empty parts of the boxes.
    components : list of array
        For derivatives, the components of the field. A density that changes sign has
        itself and the sum of the moduli of its atoms.
    powers : list of array or None
        Powers of a density that changes sign, with rounded kinks.
    """

    squared: Array
    root: Array
    modulus: Array
    epsilon: Array | float
    lattice: _Lattice
    near: Array
    components: list[Array]
    powers: list[Array] | None = None


class _Batch:
    """Molecules, and the array library that computes their fields.

    Fields come without what is common to all their points: a power of the scales and
    the units of the weights.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        weights: Sequence[_Array],
        job: _Job,
        transform: Transform,
        xp: Any,
        dtype: str,
        derivatives: bool,
    ) -> None:
        # Molecules are filled up with atoms that are absent.
        n_atoms = np.array([len(frame.positions) for frame in frames])
        self.positions = np.zeros((len(frames), n_atoms.max(), 3))
        self.weights = np.zeros((len(weights), len(weights[0]), n_atoms.max()))
        for i, (frame, w) in enumerate(zip(frames, weights, strict=True)):
            self.positions[i, : n_atoms[i]] = frame.positions
            self.weights[i, :, : n_atoms[i]] = w
        self.rotations = np.stack([frame.rotation for frame in frames])
        unit = np.abs(self.weights).max(axis=2) * n_atoms[:, np.newaxis]
        self.unit = np.where(unit > 0, unit, 1.0)[:, :, np.newaxis]
        self.weights /= self.unit
        self.accuracy = job.accuracy
        self.spacing = job.spacing
        self.transform = transform
        self.Q = np.asarray(transform.exponents)[job.exponents]
        self.rounding = KinkRounding(self.Q, job.accuracy.kink_kernel[0])
        self.xp = xp
        self.dtype = getattr(xp, dtype)
        self.derivatives = derivatives

    def coefficients(self) -> _Array:
        """Compute all paths, each field of order 1 once.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        found = {}
        for first, field, seconds in self._fields():
            found[first] = self._units(first) * self.moments(field)
            for path in seconds:
                last = self.convolution(field, path)
                found[path] = self._units(path) * self.moments(last)
        return np.stack([found[path] for path in self.transform.paths], axis=1)

    def jacobian(self) -> _Array:
        """Differentiate all paths.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents, n_atoms, 3)
        """
        found = {}
        each = np.broadcast_to(
            np.eye(len(self.Q))[:, np.newaxis, np.newaxis],
            (len(self.Q), *self.unit.shape[:2], len(self.Q)),
        )
        for first, field, seconds in self._fields():
            if first in self.transform.paths:
                found[first] = [self.atoms_back(first, field, e, None) for e in each]
            for path in seconds:
                last = self.convolution(field, path)
                onto = (self.convolution_back(field, path, last, e) for e in each)
                none = np.zeros_like(each[0])
                found[path] = [self.atoms_back(first, field, none, o) for o in onto]
        return np.stack(
            [np.stack(found[path], axis=2) for path in self.transform.paths], axis=1
        )

    def gradient(self, factors: _Array) -> _Array:
        """Differentiate the sums of all paths with factors.

        `factors` are of shape (n_molecules, n_paths, n_channels, n_exponents).

        Returns
        -------
        ndarray of shape (n_molecules, n_atoms, 3)
        """
        total = np.zeros_like(self.positions)
        of_path = dict(zip(self.transform.paths, factors.swapaxes(0, 1), strict=True))
        for first, field, seconds in self._fields():
            onto: Any = None
            for path in seconds:
                last = self.convolution(field, path)
                found = self.convolution_back(field, path, last, of_path[path])
                onto = found if onto is None else onto + found
            of_first = of_path.get(first, np.zeros_like(factors[:, 0]))
            total += self.atoms_back(first, field, of_first, onto).sum(axis=1)
        return total

    def _fields(self) -> Iterator[tuple[Path, _Field, list[Path]]]:
        """Compute each field of order 0 and 1 once; yield it with the paths of order 2
        that start from it.
        """
        paths = self.transform.paths
        for first in sorted({Path(path.scales[:1], path.degree) for path in paths}):
            seconds = [
                path
                for path in paths
                if (path.scales[:1], path.degree) == first and path != first
            ]
            yield first, self.atoms(first), seconds

    def _units(self, path: Path) -> _Array:
        """Units of moments, of shape (n_molecules, n_channels, n_exponents)."""
        units: _Array = (self.unit * self._constant(path)) ** self.Q
        return units

    def _constant(self, path: Path) -> float:
        """Return the factor that is common to all points of a field."""
        sigma = self.transform.sigma
        width = _width(Path(path.scales[:1], path.degree), sigma)
        ratio = sqrt(1 - (sigma / width) ** 2)  # of scale and width
        return ratio**path.degree * width**-3

    def _epsilon(self, path: Path) -> _Array | None:
        """Softening, of shape (n_molecules, n_channels, 1); None if there is none."""
        softening, sigma = self.transform.softening, self.transform.sigma
        if softening == 0 or path.degree == 0:
            return None
        epsilon: _Array = (
            softening * path_peak(path, sigma) / (self.unit * self._constant(path))
        )
        return epsilon

    def atoms(self, path: Path) -> _Field:
        """Compute the fields of the atoms, of order 0 or 1."""
        lattice = self._lattice(path)
        width = _width(path, self.transform.sigma)

        def spectrum(weights: _Array) -> Array:
            x, y, z = self._atom_phases(lattice)
            factors = self._atom_factors(path, weights)[..., np.newaxis]
            z = self.xp.expand_dims(z, axis=1)
            z = z * self.xp.asarray(factors, dtype=z.dtype)
            return _sum_over_atoms(x, y, z, self.xp)

        if not self._rounds(path):
            return self._modulus(spectrum(self.weights), path, width, lattice)
        near = self._near(path, lattice)
        values, envelope = (
            next(self._components(spectrum(w), path, width, lattice)) * near
            for w in (self.weights, np.abs(self.weights))
        )
        envelope = self.xp.abs(envelope)
        modulus, powers = self.rounding.powers(
            values, envelope, self._kink_width(width)
        )
        return _Field(
            values * values,
            modulus,
            modulus,
            0.0,
            lattice,
            near,
            [values, envelope] * self.derivatives,
            powers,
        )

    def atoms_back(
        self, path: Path, field: _Field, factors: _Array, onto: Array | None
    ) -> _Array:
        """Differentiate sums of moments with respect to the positions of the atoms.

        Parameters
        ----------
        path : Path
        field : _Field
            The fields of the atoms.
        factors : ndarray of shape (n_molecules, n_channels, n_exponents)
            Factors of the moments.
        onto : array or None
            Derivatives with respect to the moduli, which are added.

        Returns
        -------
        ndarray of shape (n_molecules, n_channels, n_atoms, 3)
        """
        width = _width(path, self.transform.sigma)
        derivatives = self._derivatives(path, field, factors, onto)
        sources = [(derivatives, self.weights)]
        if field.powers is not None:
            sources = [
                (iter([d]), w)
                for d, w in zip(
                    derivatives, (self.weights, np.abs(self.weights)), strict=True
                )
            ]
        total: Any = 0.0
        for of_components, weights in sources:
            spectrum = self._components_back(of_components, path, width, field.lattice)
            total = total + self._atoms_back(spectrum, path, weights, field.lattice)
        inverse = np.linalg.inv(field.lattice.cell)
        turned: _Array = total @ inverse.T @ self.rotations.mT[:, np.newaxis]
        return turned

    def _atoms_back(
        self, spectrum: Array, path: Path, weights: _Array, lattice: _Lattice
    ) -> _Array:
        """Differentiate with respect to fractional coordinates."""
        xp = self.xp
        phases = self._atom_phases(lattice)
        (x, dx), (y, dy), (z, dz) = (
            (p, p * xp.asarray(m, dtype=p.dtype))
            for p, m in zip(phases, lattice.indices(), strict=True)
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
        factors = -2j * np.pi * self._atom_factors(path, weights)[..., np.newaxis]
        return to_numpy(xp.real(found * xp.asarray(factors, dtype=found.dtype)))

    def _atom_phases(self, lattice: _Lattice) -> list[Array]:
        """Phases of the atoms along each axis: (n_molecules, n_atoms, n_indices)."""
        return [
            self._phases(coordinates, indices)
            for coordinates, indices in zip(
                np.moveaxis(lattice.fractional(self.positions), 2, 0),
                lattice.indices(),
                strict=True,
            )
        ]

    def _atom_factors(self, path: Path, weights: _Array) -> NDArray[np.complex128]:
        width = _width(path, self.transform.sigma)
        return np.asarray((-1j) ** path.degree * width**3 * weights, np.complex128)

    def _rounds(self, path: Path) -> bool:
        """Whether the kinks of densities that change sign are rounded on a path."""
        return self.accuracy.signed and path.degree == 0 and len(path.scales) < 2

    def convolution(self, field: _Field, path: Path) -> _Field:
        """Convolve fields with the last wavelets of a path."""
        xp = self.xp
        lattice = self._lattice(path)
        x, y, z = self._field_phases(field, path, lattice)
        batch, (n_x, n_y, n_z) = field.modulus.shape[:2], field.lattice.shape
        # The field is real: two real products are half of a complex one.
        values = xp.reshape(field.modulus, (-1, n_z))
        imaginary = xp.asarray(xp.matmul(values, xp.imag(z)), dtype=z.dtype)
        spectrum = xp.matmul(values, xp.real(z)) + 1j * imaginary
        spectrum = xp.matmul(y.T, xp.reshape(spectrum, (-1, n_y, z.shape[1])))
        spectrum = xp.matmul(x.T, xp.reshape(spectrum, (*batch, n_x, -1)))
        spectrum = xp.reshape(spectrum, (*batch, x.shape[1], y.shape[1], z.shape[1]))
        return self._modulus(spectrum, path, self._scale(path), lattice)

    def convolution_back(
        self, field: _Field, path: Path, result: _Field, factors: _Array
    ) -> Array:
        """Differentiate sums of moments of order 2 with respect to moduli of order 1.

        Parameters
        ----------
        field, path
            As for :meth:`convolution`.
        result : _Field
            What it has returned.
        factors : ndarray of shape (n_molecules, n_channels, n_exponents)
            Factors of the moments.

        Returns
        -------
        array of the shape of the fields
        """
        xp = self.xp
        derivatives = self._derivatives(path, result, factors, None)
        scale, lattice = self._scale(path), result.lattice
        spectrum = self._components_back(derivatives, path, scale, lattice)
        x, y, z = self._field_phases(field, path, lattice)
        batch, (n_x, n_y, n_z) = field.modulus.shape[:2], field.lattice.shape
        spectrum = xp.matmul(x, xp.reshape(spectrum, (*batch, x.shape[1], -1)))
        spectrum = xp.reshape(spectrum, (-1, y.shape[1], z.shape[1]))
        spectrum = xp.reshape(xp.matmul(y, spectrum), (-1, z.shape[1]))
        values = xp.matmul(xp.real(spectrum), xp.real(z).T)
        values = values - xp.matmul(xp.imag(spectrum), xp.imag(z).T)
        return xp.reshape(values, (*batch, n_x, n_y, n_z))

    def _field_phases(
        self, field: _Field, path: Path, lattice: _Lattice
    ) -> tuple[Array, Array, Array]:
        """Make the matrices from points of a field to wavevectors along each axis."""
        x, y, z = (
            self._phases(coordinates, indices)
            for coordinates, indices in zip(
                field.lattice.points_in(lattice), lattice.indices(), strict=True
            )
        )
        return x, y, (-1j) ** path.degree * field.lattice.volume * z

    def _scale(self, path: Path) -> float:
        """Return the last scale of a path."""
        return self.transform.sigma * 2 ** path.scales[-1]

    def moments(self, field: _Field) -> _Array:
        """Integrate powers of fields.

        Returns
        -------
        ndarray of shape (n_molecules, n_channels, n_exponents)
        """
        xp = self.xp
        powers = field.powers or (power(*field[:4], q) for q in self.Q.tolist())
        sums = [xp.sum(values, axis=(-3, -2, -1)) for values in powers]
        return field.lattice.volume * to_numpy(xp.stack(sums, axis=-1))

    def _modulus(
        self, spectrum: Array, path: Path, scale: float, lattice: _Lattice
    ) -> _Field:
        """Convolve with the wavelets of a scale, and take the modulus."""
        squared: Array = 0.0
        kept = []
        for values in self._components(spectrum, path, scale, lattice):
            if self.derivatives:
                kept.append(values)
                values = values * values
            else:
                values *= values
            squared += values
        near = self._near(path, lattice)
        squared *= near
        epsilon = self._epsilon(path)
        low: Array | float = 0.0
        if epsilon is not None:
            low = self._array(epsilon[..., np.newaxis, np.newaxis])
        return _Field(squared, *soften(squared, low), low, lattice, near, kept)

    def _derivatives(
        self, path: Path, field: _Field, factors: _Array, onto: Array | None
    ) -> Iterator[Array]:
        """Differentiate sums of moments with respect to the components of fields.

        Parameters
        ----------
        path : Path
        field : _Field
        factors : ndarray of shape (n_molecules, n_channels, n_exponents)
            Factors of the moments.
        onto : array or None
            Derivatives with respect to the moduli, which are added.
        """
        xp = self.xp
        factors = factors * self._units(path) * field.lattice.volume
        terms = [
            (e, q, self._array(factors[..., e, np.newaxis, np.newaxis, np.newaxis]))
            for e, q in enumerate(self.Q.tolist())
            if factors[..., e].any()
        ]
        if field.powers is not None:
            kinks = self._kink_width(_width(path, self.transform.sigma))
            density, envelope = field.components
            slopes = self.rounding.derivatives(density, envelope, kinks)
            for of_modulus, *of_powers in slopes:
                total: Any = 0.0 if onto is None else onto * of_modulus
                for e, _, factor in terms:
                    total = total + factor * of_powers[e]
                yield total * field.near
            return
        total = 0.0 if onto is None else onto / field.root
        for _, q, factor in terms:
            # Twice, as the derivative of a square is twice a component.
            total = total + 2 * factor * power_derivative(field.root, q)
        total = xp.where(field.near > 0, total, xp.zeros_like(field.root))
        for values in field.components:
            yield total * values

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

    def _components_back(
        self,
        derivatives: Iterator[Array],
        path: Path,
        scale: float,
        lattice: _Lattice,
    ) -> Array:
        r"""Take derivatives with respect to components back to the spectrum.

        The result D is that for which the derivative of the sum is the real part of
        the sum of :math:`D \, dS` over half of the wavevectors of a spectrum S.
        """
        xp, fft = self.xp, fft_namespace(self.xp)
        wavevectors = [xp.asarray(k, dtype=self.dtype) for k in lattice.wavevectors()]
        wavelets = wavelets_in_frequency(path.degree, scale, wavevectors, xp)
        total: Any = 0.0
        # A density that changes sign, of degree 0, has its components taken in turn.
        for wavelet, values in zip(wavelets, derivatives, strict=True):
            spectrum = xp.conj(fft.rfftn(values, axes=(-3, -2, -1)))
            total = total + spectrum * wavelet
        n_z = lattice.shape[2]
        # Most wavevectors stand for two.
        twice = np.full(n_z // 2 + 1, 2.0)
        twice[0] = 1.0
        if n_z % 2 == 0:
            twice[-1] = 1.0
        box = lattice.volume * prod(lattice.shape)
        return total * self._array(twice / box)

    def _near(self, path: Path, lattice: _Lattice) -> Array:
        """Return 1 where a channel has fields, and 0 in the empty parts of its boxes.

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
        present = self._array((self.weights != 0)[..., np.newaxis])
        gaussians = _sum_over_atoms(x, y, xp.expand_dims(z, axis=1) * present, xp)
        return self._array(gaussians > exp(-(reach**2) / 2))

    def _phases(self, coordinates: _Array, indices: NDArray[np.floating[Any]]) -> Array:
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
    half_lengths: _Array,
    path: Path,
    sigma: float,
    accuracy: Accuracy,
    spacing: float,
) -> tuple[int, int, int]:
    """Count the points of the grid of a box along its axes."""
    return _shape_of(half_lengths, *_step_and_reach(path, sigma, accuracy, spacing))


def _shape_of(half_lengths: _Array, step: float, reach: float) -> tuple[int, int, int]:
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
