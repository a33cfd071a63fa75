r"""The separable engine for devices: many molecules in each product.

A device needs large products to be busy. Here, molecules of similar size are computed
together, as arrays with a leading axis for them. Each molecule keeps its own grids,
filled up to the size of the largest with points of weight zero. Fields are not cut into
tiles: molecules that are too large for this are computed one by one, as are densities
that change sign.
"""

from collections.abc import Sequence
from functools import cache, partial
from itertools import pairwise
from math import pi, sqrt
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_cupy_namespace
from numpy.typing import NDArray

from skscatharm.engine import batch_cuda, batch_portable
from skscatharm.engine.accuracy import (
    DOUBLE,
    SMOOTHING,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.frame import Frame
from skscatharm.engine.groups import compute_in_groups
from skscatharm.engine.pooling import AMPLITUDE, FLOOR
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import (
    body_centred_grids,
    body_centred_points,
    coarse_grids,
    coarse_points,
    fine_grids,
    fine_points,
)
from skscatharm.engine.separable import SeparableEngine, _First, _plan, _Second
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant
from skscatharm.transform.modulus import path_peak
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["BatchedEngine"]

Array = Any  # of the array library that computes
_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]


class _Axis(NamedTuple):
    """Points and weights along an axis, of shape (n_molecules, n).

    The points are in double precision.
    """

    points: Array
    weights: Array


_Grid = list[_Axis]

_GROUP = 256  # molecules; more have less in common
_BUSY = 16 * 2**30  # bytes of a group
_LARGE = 2**28  # bytes of a molecule that is computed in tiles


class BatchedEngine(SeparableEngine):
    """Computes molecules of similar size together.

    Parameters
    ----------
    transform : Transform
        What to compute.
    library : Library
        The array library that computes, and where.
    """

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        transform = self.transform
        sizes = _Sizes.of([Frame(atoms.positions, atoms.charges) for atoms in batch])
        found = np.zeros(self._shape(batch))
        classes: dict[tuple[float, tuple[int, ...]], list[int]] = {}
        alone: list[int] = []
        for i, atoms in enumerate(batch):
            parts = weight_classes(atoms.weights, transform.softening)
            if any(signed for _, signed, _ in parts):
                alone.append(i)
                continue
            for softness, _, channels in parts:
                # Without atoms in a channel, rounding would be all there is.
                channels = channels[atoms.weights[channels].any(axis=1)]
                if len(channels):
                    classes.setdefault((softness, tuple(channels)), []).append(i)
        for (softness, chosen), members in classes.items():
            for largest, exponents in exponent_classes(np.array(transform.exponents)):
                accuracy = Accuracy(transform.tol, softness, largest)
                job = _Job(accuracy, np.array(chosen), exponents)
                molecules = np.array(members)
                large = self._memory(job, sizes.take(molecules)) > _LARGE
                alone += molecules[large].tolist()
                if not large.all():
                    compute_in_groups(
                        partial(self._compute, job, batch, sizes, found),
                        molecules[~large],
                        sizes.extents,
                        partial(self._group_memory, job, sizes),
                        self.library,
                        _BUSY,
                        _GROUP,
                    )
        for i in set(alone):
            (found[i],) = super().coefficients([batch[i]])
        return found

    def _compute(
        self,
        job: "_Job",
        batch: Sequence[Atoms],
        sizes: "_Sizes",
        found: _Array,
        group: _Indices,
    ) -> None:
        transform = self.transform
        molecules = _Molecules(
            sizes.take(group),
            [batch[i].weights[job.channels] for i in group],
            np.asarray(transform.exponents)[job.exponents],
            job.accuracy,
            transform,
            self.library.namespace(),
            self._dtype(job),
        )
        paths = np.arange(len(transform.paths))
        where = np.ix_(group, paths, job.channels, job.exponents)
        found[where] = molecules.coefficients()

    def _dtype(self, job: "_Job") -> str:
        return "float64" if job.accuracy.exponent > DOUBLE else self.transform.dtype

    def _group_memory(self, job: "_Job", sizes: "_Sizes", group: _Indices) -> float:
        return len(group) * float(self._memory(job, sizes.take(group).largest())[0])

    def _memory(self, job: "_Job", sizes: "_Sizes") -> _Array:
        """Estimate the bytes that each molecule needs, at the smallest scale."""
        transform, extents, accuracy = self.transform, sizes.extents, job.accuracy
        fields = _kernels(self.library.namespace()).FIELDS * len(job.channels)
        most = np.zeros(len(extents))
        for first in _plan(transform.paths, transform.sigma, signed=False):
            degree, width = first.path.degree, first.width
            n_terms = len(_polynomials(degree))
            grid = extents, sizes.crowding(width), width, 1, degree, accuracy
            n_x, n_y, n_z = body_centred_points(*grid).T
            rows = fields * n_z + n_terms * sizes.n_atoms
            most = np.maximum(most, rows * n_x * n_y)
            for second in first.seconds:
                scale = transform.sigma * 2 ** second.path.scales[1]
                coarse = coarse_points(extents, width, scale, degree, accuracy)
                crowding = sizes.crowding(second.width)
                grid = extents, crowding, second.width, 2, degree, accuracy
                n_x, n_y, n_z = fine_points(*grid).T
                rows = fields * n_z + n_terms * len(job.channels) * coarse[:, 2]
                most = np.maximum(most, rows * n_x * n_y)
        return most * np.dtype(self._dtype(job)).itemsize


class _Factors(NamedTuple):
    """Matrices whose products are the components of a field, for all orders m.

    Attributes
    ----------
    axial : array of shape (n_molecules, n_terms * n_sources, n_rows)
        Factors in z.
    planar : array of shape (n_molecules, n_shared, n_terms * n_sources, n_columns)
        Factors in x and y, the same for all rows, or for each channel.
    n_sources : int
        Number of atoms, or of points in z of a smooth field.
    """

    axial: Array
    planar: Array
    n_sources: int


class _Job(NamedTuple):
    """What is computed together.

    Attributes
    ----------
    accuracy : Accuracy
    channels, exponents : ndarray of int
        Indices.
    """

    accuracy: Accuracy
    channels: _Indices
    exponents: _Indices


class _Sizes(NamedTuple):
    """Molecules in their frames, with what their grids depend on as arrays.

    Attributes
    ----------
    frames : list of Frame
    extents : ndarray of shape (n_molecules, 3)
        Half of the lengths along the axes.
    spacing, least_crowding, n_atoms : ndarray of shape (n_molecules,)
    """

    frames: list[Frame]
    extents: _Array
    spacing: _Array
    least_crowding: _Array
    n_atoms: _Indices

    @classmethod
    def of(cls, frames: list[Frame]) -> "_Sizes":
        return cls(
            frames,
            np.stack([frame.half_lengths for frame in frames]),
            np.array([frame.spacing for frame in frames]),
            np.array([frame.least_crowding for frame in frames]),
            np.array([len(frame.positions) for frame in frames]),
        )

    def take(self, molecules: _Indices) -> "_Sizes":
        """Return some of the molecules."""
        return _Sizes(
            [self.frames[i] for i in molecules],
            self.extents[molecules],
            self.spacing[molecules],
            self.least_crowding[molecules],
            self.n_atoms[molecules],
        )

    def largest(self) -> "_Sizes":
        """Return one molecule that is as large and crowded as any of these."""
        return _Sizes(
            self.frames[:1],
            self.extents.max(axis=0, keepdims=True),
            self.spacing.min(keepdims=True),
            self.least_crowding.min(keepdims=True),
            self.n_atoms.max(keepdims=True),
        )

    def crowding(self, width: float) -> _Array:
        """Return distances of neighbouring atoms in widths of their fields."""
        crowding: _Array = np.maximum(self.spacing / width, self.least_crowding)
        return crowding


class _Molecules:
    """Molecules that are computed together.

    Fields are of shape (n_molecules, n_channels, n_z, n_x, n_y). They come without what
    is common to all their points, as those of a molecule alone.
    """

    def __init__(
        self,
        sizes: _Sizes,
        weights: Sequence[_Array],
        Q: _Array,
        accuracy: Accuracy,
        transform: Transform,
        xp: Any,
        dtype: str,
    ) -> None:
        # Molecules are filled up with atoms of weight zero.
        n_atoms = sizes.n_atoms.max()
        positions = np.zeros((3, len(weights), n_atoms))
        filled = np.zeros((len(weights), len(weights[0]), n_atoms))
        for i, (frame, rows) in enumerate(zip(sizes.frames, weights, strict=True)):
            positions[:, i, : rows.shape[1]] = frame.positions.T
            filled[i, :, : rows.shape[1]] = rows
        unit = np.abs(filled).max(axis=2, keepdims=True) * n_atoms
        self.sizes = sizes
        self.accuracy = accuracy
        self.transform = transform
        self.xp = xp
        self.dtype = getattr(xp, dtype)
        self.kernels = _kernels(xp)
        self.Q = Q
        self.scales = np.minimum(AMPLITUDE ** (3 / Q - 1), 1.0)
        self.field_unit = unit * (2 * pi) ** -1.5 / AMPLITUDE
        self._positions = xp.asarray(positions)
        self._weights = self.array(filled / unit * AMPLITUDE)

    def coefficients(self) -> _Array:
        """Compute all paths.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        paths, sigma = self.transform.paths, self.transform.sigma
        found: dict[Path, tuple[Array, float]] = {}
        for first in _plan(paths, sigma, signed=False):
            moments, smooth = self._atoms(first)
            found[first.path] = moments, first.constant
            if smooth is not None:
                j = first.path.scales[0] + 1
                for second in first.seconds:
                    for _ in range(j, second.path.scales[1]):
                        smooth = smooth.coarser()
                    j = second.path.scales[1]
                    found[second.path] = (
                        self._convolution(smooth, second),
                        second.constant,
                    )
        # Up to here, the device may be busy while the host goes on.
        unit = self.field_unit / self.scales
        scaled = [
            (unit * constant) ** self.Q * to_numpy(moments)
            for moments, constant in (found[path] for path in paths)
        ]
        return np.stack(scaled, axis=1)

    def array(self, values: Any) -> Array:
        """Move an array to where the fields are computed, or change its type there."""
        return self.xp.asarray(values, dtype=self.dtype)

    def _atoms(self, first: _First) -> tuple[Array, "_Smooth | None"]:
        """Integrate the moduli of the fields of the atoms, and smooth them for order 2.

        Returns
        -------
        moments : array of shape (n_molecules, n_channels, n_exponents)
        smooth : _Smooth or None
            For the smallest wavelets of order 2.
        """
        degree, width = first.path.degree, first.width
        sizes = self.sizes.extents, self.sizes.crowding(width)
        both = body_centred_grids(*sizes, width, 1, degree, self.accuracy)
        smooth = None
        if first.seconds:
            scale = self.transform.sigma * 2 ** (first.path.scales[0] + 1)
            smooth = _Smooth(self, width, scale, degree)
        moments = [self._atoms_on(self.grid(axes), first, smooth) for axes in both]
        return moments[0] + moments[1], smooth

    def _atoms_on(self, grid: _Grid, first: _First, smooth: "_Smooth | None") -> Array:
        """Integrate on one grid, and add the modulus to smooth fields."""
        factors = self._atom_factors(grid, first.path.degree, first.width)
        modulus, moments = self._integrate(factors, grid, first, smooth is not None)
        if smooth is not None:
            x, y, z = (axis.points.shape[1] for axis in grid)
            shape = (*modulus.shape[:2], z, x, y)
            smooth.add(self.xp.reshape(modulus, shape), grid)
        return moments

    def _atom_factors(self, grid: _Grid, degree: int, width: float) -> "_Factors":
        """Return matrices whose products are the components.

        Their inner index is a term and an atom. Rows are channels and points in z,
        columns are points in x and y.
        """
        xp = self.xp
        x, y, z = grid
        cut = self.accuracy.cut(degree)
        along_x, along_y, along_z = (
            self.factors(self._positions[i, ...], axis.points, width, degree, cut)
            for i, axis in enumerate((x, y, z))
        )
        # The polynomials in x and y of all terms, and the powers of z with weights.
        polynomials = xp.expand_dims(self.array(_polynomials(degree)), axis=1)
        planar = xp.matmul(polynomials, xp.expand_dims(along_y, axis=1))
        planar = xp.matmul(xp.expand_dims(xp.matrix_transpose(along_x), axis=1), planar)
        n_molecules, n_terms, n_atoms, n_x, n_y = planar.shape
        planar = xp.reshape(planar, (n_molecules, 1, n_terms * n_atoms, n_x * n_y))
        along_z = xp.take(along_z, self._powers(degree), axis=2)
        along_z = xp.permute_dims(along_z, (0, 2, 1, 3))
        constant = (2 * pi) ** 1.5 * wavelet_constant(degree)
        weights = constant * xp.matrix_transpose(self._weights)
        axial = xp.expand_dims(along_z, axis=3) * weights[:, None, :, :, None]
        axial = xp.reshape(axial, (n_molecules, n_terms * n_atoms, -1))
        return _Factors(axial, planar, n_atoms)

    def _convolution(self, smooth: "_Smooth", second: _Second) -> Array:
        """Integrate the moduli of smooth fields convolved with wavelets.

        Returns
        -------
        moments : array of shape (n_molecules, n_channels, n_exponents)
        """
        degree = second.path.degree
        # The wavelet without the Gaussian that has smoothed the field.
        scale = self.transform.sigma * 2 ** second.path.scales[1]
        scale *= sqrt(1 - SMOOTHING**2)
        x, y, z = self._fine_grid(second.width, 2, degree)
        factors = self._convolution_factors(smooth, [x, y, z], degree, scale)
        _, moments = self._integrate(factors, [y, x, z], second, keep=False)
        return moments

    def _convolution_factors(
        self, smooth: "_Smooth", grid: _Grid, degree: int, scale: float
    ) -> "_Factors":
        """Return matrices whose products are the components.

        Their inner index is a term and a point in z of the smooth field. Rows are
        points in z, columns are points in y and x.
        """
        xp = self.xp
        cut = self.accuracy.wavelet_cut(degree)
        x, y, z = (
            self.factors(to.points, source.points, scale, degree, cut)
            * source.weights[:, None, None, :]
            for to, source in zip(grid, smooth.grid, strict=True)
        )
        z *= wavelet_constant(degree) * scale**-3
        axial = xp.permute_dims(xp.take(z, self._powers(degree), axis=2), (0, 2, 3, 1))
        n_molecules, n_channels, s_z, s_x, s_y = smooth.values.shape
        axial = xp.reshape(axial, (n_molecules, -1, axial.shape[-1]))
        values = xp.reshape(smooth.values, (n_molecules, -1, s_y))
        planes = []
        for parity in range(min(degree, 1) + 1):
            # The powers of y in a harmonic are all even or all odd.
            along_y = y[:, :, parity::2, :]
            _, t_y, n_powers, _ = along_y.shape
            along_y = xp.reshape(along_y, (n_molecules, -1, s_y))
            plane = xp.matmul(values, xp.matrix_transpose(along_y))
            shape = (n_molecules, n_channels * s_z, s_x, t_y, n_powers)
            plane = xp.permute_dims(xp.reshape(plane, shape), (0, 1, 3, 4, 2))
            planes.append(xp.reshape(plane, (n_molecules, -1, n_powers * s_x)))
        # For each term and power of y, the power of x.
        polynomials = [p.T for p in _polynomials(degree)]
        parities = [int(np.flatnonzero(p.any(axis=1))[0] % 2) for p in polynomials]
        rows = [p[parity::2] for p, parity in zip(polynomials, parities, strict=True)]
        along_x = xp.matmul(self.array(np.concatenate(rows)), x)
        shape = n_molecules, n_channels, len(rows), s_z, t_y * x.shape[1]
        planar = xp.empty(shape, dtype=self.dtype)
        start = 0
        for term, (parity, row) in enumerate(zip(parities, rows, strict=True)):
            stop = start + len(row)
            factors = xp.reshape(
                along_x[:, :, start:stop, :], (n_molecules, x.shape[1], -1)
            )
            plane = xp.matmul(planes[parity], xp.matrix_transpose(factors))
            planar[:, :, term, ...] = xp.reshape(plane, (*shape[:2], *shape[3:]))
            start = stop
        planar = xp.reshape(planar, (*shape[:2], -1, shape[4]))
        return _Factors(axial, planar, s_z)

    def _powers(self, degree: int) -> Array:
        """Return the power of z in each term of the solid harmonics."""
        powers = [c for harmonic in solid_harmonics(degree) for c in harmonic]
        return self.xp.asarray(np.array(powers))

    def _integrate(
        self, factors: "_Factors", grid: _Grid, field: _First | _Second, keep: bool
    ) -> tuple[Array, Array]:
        """Compute a modulus, and integrate its powers.

        Returns
        -------
        modulus : array of shape (n_molecules, n_channels, n_z, n_columns) or None
            Only if it is to be kept.
        moments : array of shape (n_molecules, n_channels, n_exponents)
        """
        xp = self.xp
        x, y, z = (axis.weights for axis in grid)
        columns = xp.expand_dims(x, axis=2) * xp.expand_dims(y, axis=1)
        degree = field.path.degree
        sizes = [len(harmonic) for harmonic in solid_harmonics(degree)]
        modulus, integrals = self.kernels.integrate_fields(
            factors.axial,
            factors.planar,
            (np.cumsum(sizes) * factors.n_sources).tolist(),
            xp.reshape(columns, (len(self.sizes.frames), -1)),
            self.Q,
            self.scales,
            self._epsilon(field),
            FLOOR**2,
            keep,
        )
        moments = xp.sum(integrals * xp.expand_dims(z, axis=1), axis=-1)
        return modulus, xp.permute_dims(moments, (1, 2, 0))

    def _epsilon(self, field: _First | _Second) -> _Array:
        """Softening of the moduli, of shape (n_molecules, n_channels, 1)."""
        if field.path.degree == 0:
            return np.zeros_like(self.field_unit)
        peak = path_peak(field.path, self.transform.sigma)
        softening: _Array = (
            self.transform.softening * peak / (self.field_unit * field.constant)
        )
        return softening

    def _fine_grid(self, width: float, order: int, degree: int) -> _Grid:
        extents, crowding = self.sizes.extents, self.sizes.crowding(width)
        return self.grid(
            fine_grids(extents, crowding, width, order, degree, self.accuracy)
        )

    def grid(self, axes: Sequence[_Array]) -> _Grid:
        """Move a grid to where the fields are computed, all at once."""
        ends = np.cumsum([0, *(axis.shape[-1] for axis in axes)]).tolist()
        points = self.xp.asarray(np.concatenate(axes, axis=-1))
        weights = self.array(points[1, ...])
        return [
            _Axis(points[0, :, start:stop], weights[:, start:stop])
            for start, stop in pairwise(ends)
        ]

    def factors(
        self, points: Array, centres: Array, width: float, degree: int, cut: float
    ) -> Array:
        """Evaluate Gaussian factors; see `portable.gaussian_factors`."""
        return self.kernels.gaussian_factors(
            points, centres, width, degree, cut, self.dtype
        )


def _kernels(xp: Any) -> ModuleType:
    """Choose the loops for an array library."""
    return batch_cuda if is_cupy_namespace(xp) else batch_portable


@cache
def _polynomials(degree: int) -> _Array:
    """Factors of x^a y^b in all terms of the solid harmonics, of shape (n_terms, a, b).

    A term is a power of z in a harmonic.
    """
    terms = [term for harmonic in solid_harmonics(degree) for term in harmonic.values()]
    polynomials = np.zeros((len(terms), degree + 1, degree + 1))
    for polynomial, term in zip(polynomials, terms, strict=True):
        for powers, factor in term.items():
            polynomial[powers] = factor
    return polynomials


class _Smooth:
    """Fields convolved with a Gaussian, on coarse grids, for wavelets of a scale.

    Parameters
    ----------
    molecules : _Molecules
    width : float
        Width of the fields before they are smoothed.
    scale : float
        Scale of the wavelets.
    degree : int

    Attributes
    ----------
    width : float
        Width of the Gaussian.
    grid : list of _Axis
    values : array of shape (n_molecules, n_channels, n_z, n_x, n_y)
    """

    def __init__(
        self, molecules: _Molecules, width: float, scale: float, degree: int
    ) -> None:
        self.width = SMOOTHING * scale
        self._parameters = (width, scale, degree)
        self._molecules = molecules
        extents = molecules.sizes.extents
        self.grid = molecules.grid(
            coarse_grids(extents, width, scale, degree, molecules.accuracy)
        )
        self.values: Any = 0.0

    def add(self, values: Array, grid: _Grid, smoothed: float = 0.0) -> None:
        """Add fields on a grid, or fields that are smooth already.

        Parameters
        ----------
        values : array of shape (n_molecules, n_channels, n_z, n_x, n_y)
        grid : list of _Axis
        smoothed : float
            Width of the Gaussian that the fields are convolved with already.
        """
        molecules, (_, _, degree) = self._molecules, self._parameters
        xp, rest = molecules.xp, sqrt(self.width**2 - smoothed**2)
        cut = molecules.accuracy.smoothing_cut(degree)
        x, y, z = (
            molecules.factors(to.points, axis.points, rest, 0, cut)[:, :, 0, :]
            * (axis.weights / (sqrt(2 * pi) * rest))[:, None, :]
            for to, axis in zip(self.grid, grid, strict=True)
        )
        # Along the last axis, which then becomes the first.
        for matrix in (y, x, z):
            shape = values.shape
            values = xp.reshape(values, (shape[0], -1, shape[-1]))
            values = xp.matmul(values, xp.matrix_transpose(matrix))
            values = xp.reshape(values, (*shape[:-1], -1))
            values = xp.permute_dims(values, (0, 1, 4, 2, 3))
        self.values = self.values + values

    def coarser(self) -> "_Smooth":
        """Smooth the fields further, for wavelets of twice the scale."""
        width, scale, degree = self._parameters
        result = _Smooth(self._molecules, width, 2 * scale, degree)
        result.add(self.values, self.grid, self.width)
        return result
