r"""The separable engine for devices: many molecules in each product.

A device needs large products to be busy. Here, molecules of similar size are computed
together, as arrays with a leading axis for them. Each molecule keeps its own grids,
filled up to the size of the largest with points of weight zero. Fields are not cut into
tiles: molecules that are too large for this are computed one by one, as are densities
that change sign.
"""

from collections.abc import Sequence
from functools import cache, partial
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
from skscatharm.engine.fields import _concat
from skscatharm.engine.frame import Frame
from skscatharm.engine.groups import compute_in_groups
from skscatharm.engine.pooling import AMPLITUDE, FLOOR
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import (
    Axes,
    body_centred_axes,
    body_centred_points,
    coarse_axes,
    coarse_points,
    fine_axes,
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

    def mirrored(self) -> "_Axis":
        """Turn the axis about zero."""
        return _Axis(-self.points, self.weights)


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
        computed: list[_Computed] = []
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
                        partial(self._compute, job, batch, sizes, computed),
                        molecules[~large],
                        sizes.extents,
                        partial(self._group_memory, job, sizes),
                        self.library,
                        _BUSY,
                        _GROUP,
                    )
        # Up to here, the device may be busy while the host goes on.
        found = np.zeros(self._shape(batch))
        for where, moments, scales in computed:
            found[where] = to_numpy(moments) * scales
        for i in set(alone):
            (found[i],) = super().coefficients([batch[i]])
        return found

    def _compute(
        self,
        job: "_Job",
        batch: Sequence[Atoms],
        sizes: "_Sizes",
        computed: "list[_Computed]",
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
        computed.append(_Computed(where, *molecules.moments()))

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


class _Computed(NamedTuple):
    """Moments that a device computes, and their place among the coefficients.

    Attributes
    ----------
    where : tuple of ndarray of int
        Indices along each axis.
    moments : array
        Where they are computed.
    scales : ndarray
        Their factors, which may be too large or small for single precision.
    """

    where: tuple[_Indices, ...]
    moments: Array
    scales: _Array


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

    Fields are of shape (n_molecules, n_channels, n_z, n_y, n_x). They come without what
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
        self._inverse_unit = self.array(1 / self.field_unit)

    def moments(self) -> tuple[Array, _Array]:
        """Compute all paths.

        Returns
        -------
        moments : array of shape (n_molecules, n_paths, n_channels, n_exponents)
        scales : ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
            The coefficients are the products of both.
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
        constants = np.array([found[path][1] for path in paths])[:, None, None]
        scales = ((self.field_unit / self.scales)[:, None] * constants) ** self.Q
        return self.xp.stack([found[path][0] for path in paths], axis=1), scales

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
        extents, crowding = self.sizes.extents, self.sizes.crowding(width)
        x, y, z = self.grid(
            body_centred_axes(extents, crowding, width, 1, degree, self.accuracy)
        )
        grid = [_Axis(x.points, x.weights / 2), y, z]
        smooth = None
        if first.seconds:
            scale = self.transform.sigma * 2 ** (first.path.scales[0] + 1)
            smooth = _Smooth(self, width, scale, degree)
        moments = self._atoms_on(grid, first, smooth)
        mirrored = [axis.mirrored() for axis in grid]
        return moments + self._atoms_on(mirrored, first, smooth), smooth

    def _atoms_on(self, grid: _Grid, first: _First, smooth: "_Smooth | None") -> Array:
        """Integrate on one grid, and add the modulus to smooth fields."""
        factors = self._atom_factors(grid, first.path.degree, first.width)
        modulus, moments = self._integrate(factors, grid, first, smooth is not None)
        if smooth is not None:
            x, y, z = (axis.points.shape[1] for axis in grid)
            shape = (*modulus.shape[:2], z, y, x)
            smooth.add(self.xp.reshape(modulus, shape), grid)
        return moments

    def _atom_factors(self, grid: _Grid, degree: int, width: float) -> "_Factors":
        """Return matrices whose products are the components.

        Their inner index is a term and an atom. Rows are channels and points in z.
        """
        xp = self.xp
        cut = self.accuracy.cut(degree)
        along_x, along_y, along_z = (
            self.factors(self._positions[i, ...], axis.points, width, degree, cut)
            for i, axis in enumerate(grid)
        )
        polynomials = self.array(_polynomials(degree))
        planar = self.kernels.atom_factors(along_x, along_y, polynomials)
        # The powers of z with weights.
        constant = (2 * pi) ** 1.5 * wavelet_constant(degree)
        weights = xp.expand_dims(xp.matrix_transpose(self._weights), axis=1) * constant
        axial = xp.expand_dims(self._terms(along_z, degree), axis=3)
        axial = xp.expand_dims(weights, axis=4) * axial
        n_molecules, n_terms, n_atoms, _, _ = axial.shape
        axial = xp.reshape(axial, (n_molecules, n_terms * n_atoms, -1))
        return _Factors(axial, xp.expand_dims(planar, axis=1), n_atoms)

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
        extents, crowding = self.sizes.extents, self.sizes.crowding(second.width)
        grid = self.grid(
            fine_axes(extents, crowding, second.width, 2, degree, self.accuracy)
        )
        factors = self._convolution_factors(smooth, grid, degree, scale)
        _, moments = self._integrate(factors, grid, second, keep=False)
        return moments

    def _convolution_factors(
        self, smooth: "_Smooth", grid: _Grid, degree: int, scale: float
    ) -> "_Factors":
        """Return matrices whose products are the components.

        Their inner index is a term and a point in z of the smooth field. Rows are
        points in z.
        """
        xp = self.xp
        cut = self.accuracy.wavelet_cut(degree)
        n_molecules, n_channels, s_z, s_y, s_x = smooth.values.shape
        x, y, z = smooth.grid
        along_y = self.factors(grid[1].points, y.points, scale, degree, cut)
        along_y = along_y * xp.expand_dims(xp.expand_dims(y.weights, axis=1), axis=1)
        along_x, along_z = (
            self.factors(source.points, to.points, scale, degree, cut)
            * xp.expand_dims(xp.expand_dims(source.weights, axis=2), axis=3)
            for source, to in ((x, grid[0]), (z, grid[2]))
        )
        values = xp.reshape(smooth.values, (n_molecules, -1, s_y, s_x))
        planar = []
        polynomials = np.matrix_transpose(_polynomials(degree))
        # The powers of y in a term are all odd, for negative orders, or all even.
        odd = ~polynomials[:, ::2].any(axis=(1, 2))
        for parity, chosen in ((1, odd), (0, ~odd)):
            if not chosen.any():
                continue
            of_y = along_y[:, :, parity::2, :]
            _, t_y, n_powers, _ = of_y.shape
            of_y = xp.reshape(of_y, (n_molecules, 1, t_y * n_powers, s_y))
            plane = xp.matmul(of_y, values)
            plane = xp.reshape(
                plane, (n_molecules, n_channels, 1, s_z * t_y, n_powers * s_x)
            )
            # For each term and power of y, the powers of x.
            of_x = self.array(polynomials[chosen, parity::2].reshape(-1, degree + 1))
            of_x = xp.matmul(of_x, along_x)
            t_x = of_x.shape[-1]
            of_x = xp.reshape(of_x, (n_molecules, s_x, -1, n_powers, t_x))
            of_x = xp.permute_dims(of_x, (0, 2, 3, 1, 4))
            of_x = xp.reshape(of_x, (n_molecules, 1, -1, n_powers * s_x, t_x))
            plane = xp.matmul(plane, of_x)
            planar.append(xp.reshape(plane, (n_molecules, n_channels, -1, t_y * t_x)))
        axial = self._terms(along_z, degree) * (wavelet_constant(degree) * scale**-3)
        axial = xp.reshape(axial, (n_molecules, -1, axial.shape[-1]))
        return _Factors(axial, _concat(planar, 2, xp), s_z)

    def _terms(self, along_z: Array, degree: int) -> Array:
        """Choose the power of z in each term of the solid harmonics.

        Parameters
        ----------
        along_z : array of shape (n_molecules, n_sources, degree + 1, n_points)

        Returns
        -------
        array of shape (n_molecules, n_terms, n_sources, n_points)
        """
        powers = np.array([c for harmonic in solid_harmonics(degree) for c in harmonic])
        chosen = self.xp.take(along_z, self.xp.asarray(powers), axis=2)
        return self.xp.permute_dims(chosen, (0, 2, 1, 3))

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
        columns = xp.expand_dims(y, axis=2) * xp.expand_dims(x, axis=1)
        sizes = [len(harmonic) for harmonic in solid_harmonics(field.path.degree)]
        modulus, integrals = self.kernels.integrate_fields(
            factors.axial,
            factors.planar,
            tuple((np.cumsum(sizes) * factors.n_sources).tolist()),
            xp.reshape(columns, (columns.shape[0], -1)),
            self.Q,
            self.scales,
            self._epsilon(field),
            FLOOR**2,
            keep,
        )
        moments = xp.sum(integrals * xp.expand_dims(z, axis=1), axis=-1)
        return modulus, xp.permute_dims(moments, (1, 2, 0))

    def _epsilon(self, field: _First | _Second) -> Array:
        """Softening of the moduli, of shape (n_molecules, n_channels, 1)."""
        softening = 0.0
        if field.path.degree:
            peak = path_peak(field.path, self.transform.sigma)
            softening = self.transform.softening * peak / field.constant
        return self._inverse_unit * softening

    def grid(self, axes: Axes) -> _Grid:
        """Compute the points of grids, where the fields are computed."""
        points = self.kernels.grid_axes(axes, self.dtype, self._positions)
        return [_Axis(*axis) for axis in points]

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
    values : array of shape (n_molecules, n_channels, n_z, n_y, n_x)
    """

    def __init__(
        self, molecules: _Molecules, width: float, scale: float, degree: int
    ) -> None:
        self.width = SMOOTHING * scale
        self._parameters = (width, scale, degree)
        self._molecules = molecules
        extents = molecules.sizes.extents
        self.grid = molecules.grid(
            coarse_axes(extents, width, scale, degree, molecules.accuracy)
        )
        self.values: Any = 0.0

    def add(self, values: Array, grid: _Grid, smoothed: float = 0.0) -> None:
        """Add fields on a grid, or fields that are smooth already.

        Parameters
        ----------
        values : array of shape (n_molecules, n_channels, n_z, n_y, n_x)
        grid : list of _Axis
        smoothed : float
            Width of the Gaussian that the fields are convolved with already.
        """
        molecules, (_, _, degree) = self._molecules, self._parameters
        xp, rest = molecules.xp, sqrt(self.width**2 - smoothed**2)
        cut = molecules.accuracy.smoothing_cut(degree)

        def gaussian(to: Array, centres: Array) -> Array:
            factors = molecules.factors(to, centres, rest, 0, cut)[:, :, 0, :]
            return factors / (sqrt(2 * pi) * rest)

        x, y, z = zip(self.grid, grid, strict=True)
        along_x = gaussian(x[1].points, x[0].points)
        along_x = along_x * xp.expand_dims(x[1].weights, axis=2)
        along_y, along_z = (
            xp.expand_dims(
                gaussian(to.points, axis.points) * xp.expand_dims(axis.weights, axis=1),
                axis=1,
            )
            for to, axis in (y, z)
        )
        n_molecules, n_channels, n_z, n_y, n_x = values.shape
        values = xp.reshape(values, (n_molecules, n_channels, n_z, n_y * n_x))
        values = xp.matmul(along_z, values)
        values = xp.matmul(xp.reshape(values, (n_molecules, -1, n_x)), along_x)
        values = xp.reshape(values, (n_molecules, -1, n_y, values.shape[-1]))
        values = xp.matmul(along_y, values)
        shape = (n_molecules, n_channels, -1, *values.shape[2:])
        self.values = self.values + xp.reshape(values, shape)

    def coarser(self) -> "_Smooth":
        """Smooth the fields further, for wavelets of twice the scale."""
        width, scale, degree = self._parameters
        result = _Smooth(self._molecules, width, 2 * scale, degree)
        result.add(self.values, self.grid, self.width)
        return result
