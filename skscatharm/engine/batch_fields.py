"""Fields of many molecules together, for devices.

Arrays have a leading axis for the molecules. Each molecule keeps its own grids, filled
up to the size of the largest with points of weight zero.

For mixed moments, all fields of a group of pairs are kept on the grid of the narrowest,
some layers at a time. The integrals of their products are then matrix products.
"""

from collections.abc import Sequence
from functools import cache
from math import pi, sqrt
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_cupy_namespace
from numpy.typing import NDArray

from skscatharm.engine import batch_cuda, batch_portable
from skscatharm.engine.accuracy import SMOOTHING, Accuracy
from skscatharm.engine.fields import _concat
from skscatharm.engine.frame import Frame
from skscatharm.engine.pooling import AMPLITUDE, FLOOR, power_scales
from skscatharm.engine.quadrature import (
    Axes,
    body_centred_axes,
    coarse_axes,
    fine_axes,
    product_axes,
    product_margin,
)
from skscatharm.engine.separable import _First, _plan, _Second
from skscatharm.engine.tiles import cut
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant
from skscatharm.transform.modulus import path_peak
from skscatharm.transform.paths import PairGroup, Path
from skscatharm.transform.transform import Transform

__all__ = [
    "LAYERS",
    "MoleculeBatch",
    "Product",
    "ProductFields",
    "Sizes",
    "choose_kernels",
    "planar_polynomials",
]

Array = Any  # of the array library that computes
_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]

LAYERS = 256  # of all channels, whose fields are kept to be multiplied


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


class Product(NamedTuple):
    """A product of two fields.

    Attributes
    ----------
    integrand : int
        Its index among those of the transform.
    first, second : tuple of int
        Index of the field in its group, and of the channel among those of the job.
    """

    integrand: int
    first: tuple[int, int]
    second: tuple[int, int]


class ProductFields(NamedTuple):
    """Fields of atoms that are multiplied with each other.

    Attributes
    ----------
    plan : list of _First
        Those of the least width come first.
    n_narrow : int
        How many have the least width.
    """

    plan: list[_First]
    n_narrow: int

    @classmethod
    def of(cls, pairs: PairGroup, sigma: float) -> "ProductFields":
        """Plan the fields of pairs."""
        plan = _plan(pairs.fields, sigma, signed=False)
        found = {first.path: first for first in plan}
        return cls([found[path] for path in pairs.fields], len(pairs.narrow))

    @property
    def widths(self) -> list[float]:
        """The widths, in ascending order."""
        return [first.width for first in self.plan]

    @property
    def degree(self) -> int:
        """The largest degree."""
        return max(first.path.degree for first in self.plan)


class Sizes(NamedTuple):
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
    def of(cls, frames: list[Frame]) -> "Sizes":
        return cls(
            frames,
            np.stack([frame.half_lengths for frame in frames]),
            np.array([frame.spacing for frame in frames]),
            np.array([frame.least_crowding for frame in frames]),
            np.array([len(frame.positions) for frame in frames]),
        )

    def take(self, molecules: _Indices) -> "Sizes":
        """Return some of the molecules."""
        return Sizes(
            [self.frames[i] for i in molecules],
            self.extents[molecules],
            self.spacing[molecules],
            self.least_crowding[molecules],
            self.n_atoms[molecules],
        )

    def largest(self) -> "Sizes":
        """Return one molecule that is as large and crowded as any of these."""
        return Sizes(
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


class MoleculeBatch:
    """Molecules that are computed together.

    Fields are of shape (n_molecules, n_channels, n_z, n_y, n_x). They come without what
    is common to all their points, as those of a molecule alone.
    """

    def __init__(
        self,
        sizes: Sizes,
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
        self.kernels = choose_kernels(xp)
        self.Q = Q
        self.scales = power_scales(Q)
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

    def mixed_moments(
        self, pairs: PairGroup, products: Sequence[Product]
    ) -> tuple[Array, _Array]:
        """Integrate products of fields.

        Parameters
        ----------
        pairs : PairGroup
            Which fields.
        products : sequence of Product

        Returns
        -------
        moments : array of shape (n_molecules, n_products, n_exponents)
        scales : ndarray of shape (n_molecules, n_products, n_exponents)
            The coefficients are the products of both.
        """
        xp, transform = self.xp, self.transform
        fields = ProductFields.of(pairs, transform.sigma)
        rule = fields.widths, fields.degree, self.Q.tolist(), self.accuracy
        crowding = self.sizes.crowding(fields.widths[0])
        axes = product_axes(self.sizes.extents, crowding, *rule)
        reach = self.accuracy.product_cut(fields.degree, product_margin(*rule))
        one, mirrored = (
            self._products_on(grid, fields, reach) for grid in self._body_centred(axes)
        )
        integrals = one + mirrored
        # A product stands where the row is that of any field, and the column that of
        # a narrow one. Fields come in order of their widths.
        n_joined = self.field_unit.shape[1] if transform.joins_channels else 1
        both = np.array([sorted((p.first, p.second)) for p in products])
        (narrow, of_narrow), (other, of_other) = both.transpose(1, 2, 0)
        place = (
            of_narrow // n_joined,
            other * n_joined + of_other % n_joined,
            narrow * n_joined + of_narrow % n_joined,
        )
        indices = xp.asarray(np.ravel_multi_index(place, integrals.shape[2:]))
        integrals = xp.reshape(integrals, (*integrals.shape[:2], -1))
        moments = xp.permute_dims(xp.take(integrals, indices, axis=2), (1, 2, 0))
        units = self.field_unit * [first.constant for first in fields.plan]
        units = units[:, of_narrow, narrow] * units[:, of_other, other]
        return moments, (units[..., np.newaxis] / self.scales**2) ** (self.Q / 2)

    def _products_on(self, grid: _Grid, fields: ProductFields, reach: float) -> Array:
        """Integrate the products of fields on one grid.

        Returns
        -------
        array of shape (n_exponents, n_molecules, n_groups, n_fields, n_narrow)
            Each channel is a group of its own. If fields of different channels are
            multiplied, there is one group, with all channels of each field.
        """
        x, y, z = grid
        planar = [
            self._planar_factors(x, y, first.path.degree, first.width, reach)
            for first in fields.plan
        ]
        integrals: Any = 0.0
        for part in cut(z.points.shape[1], LAYERS // self.field_unit.shape[1]):
            layers = [x, y, _Axis(z.points[:, part], z.weights[:, part])]
            found = self._products_of_layers(layers, fields, planar, reach)
            integrals = integrals + found
        return integrals

    def _products_of_layers(
        self, grid: _Grid, fields: ProductFields, planar: Sequence[Array], reach: float
    ) -> Array:
        """Integrate the products of fields on some layers of a grid."""
        xp = self.xp
        moduli = []
        for first, of_plane in zip(fields.plan, planar, strict=True):
            degree, width = first.path.degree, first.width
            axial = self._axial_factors(grid[2], degree, width, reach)
            factors = _Factors(axial, of_plane, self._positions.shape[2])
            moduli.append(self._integrate(factors, grid, first, keep=True)[0])
        return self.kernels.integrate_products(
            moduli,
            _columns(grid, xp),
            grid[2].weights,
            self.Q.tolist(),
            self.scales.tolist(),
            xp.stack([self._epsilon(first) for first in fields.plan]),
            fields.n_narrow,
            self.transform.joins_channels,
        )

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
        axes = body_centred_axes(extents, crowding, width, 1, degree, self.accuracy)
        smooth = None
        if first.seconds:
            scale = self.transform.sigma * 2 ** (first.path.scales[0] + 1)
            smooth = _Smooth(self, width, scale, degree)
        one, mirrored = (
            self._atoms_on(grid, first, smooth) for grid in self._body_centred(axes)
        )
        return one + mirrored, smooth

    def _atoms_on(self, grid: _Grid, first: _First, smooth: "_Smooth | None") -> Array:
        """Integrate on one grid, and add the modulus to smooth fields."""
        degree = first.path.degree
        cut = self.accuracy.cut(degree)
        factors = self._atom_factors(grid, degree, first.width, cut)
        modulus, moments = self._integrate(factors, grid, first, smooth is not None)
        if smooth is not None:
            x, y, z = (axis.points.shape[1] for axis in grid)
            shape = (*modulus.shape[:2], z, y, x)
            smooth.add(self.xp.reshape(modulus, shape), grid)
        return moments

    def _atom_factors(
        self, grid: _Grid, degree: int, width: float, cut: float
    ) -> "_Factors":
        """Return matrices whose products are the components.

        Their inner index is a term and an atom. Rows are channels and points in z.
        """
        x, y, z = grid
        return _Factors(
            self._axial_factors(z, degree, width, cut),
            self._planar_factors(x, y, degree, width, cut),
            self._positions.shape[2],
        )

    def _planar_factors(
        self, x: _Axis, y: _Axis, degree: int, width: float, cut: float
    ) -> Array:
        along_x, along_y = (
            self.factors(self._positions[i, ...], axis.points, width, degree, cut)
            for i, axis in enumerate((x, y))
        )
        polynomials = self.array(planar_polynomials(degree))
        planar = self.kernels.atom_factors(along_x, along_y, polynomials)
        return self.xp.expand_dims(planar, axis=1)

    def _axial_factors(self, z: _Axis, degree: int, width: float, cut: float) -> Array:
        xp = self.xp
        along_z = self.factors(self._positions[2, ...], z.points, width, degree, cut)
        # The powers of z with weights.
        constant = (2 * pi) ** 1.5 * wavelet_constant(degree)
        weights = xp.expand_dims(xp.matrix_transpose(self._weights), axis=1) * constant
        axial = xp.expand_dims(self._terms(along_z, degree), axis=3)
        axial = xp.expand_dims(weights, axis=4) * axial
        n_molecules, n_terms, n_atoms, _, _ = axial.shape
        return xp.reshape(axial, (n_molecules, n_terms * n_atoms, -1))

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
        polynomials = np.matrix_transpose(planar_polynomials(degree))
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
        sizes = [len(harmonic) for harmonic in solid_harmonics(field.path.degree)]
        modulus, integrals = self.kernels.integrate_fields(
            factors.axial,
            factors.planar,
            tuple((np.cumsum(sizes) * factors.n_sources).tolist()),
            _columns(grid, xp),
            self.Q,
            self.scales,
            self._epsilon(field),
            FLOOR**2,
            keep,
        )
        of_rows = xp.expand_dims(grid[2].weights, axis=1)
        moments = xp.sum(integrals * of_rows, axis=-1)
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

    def _body_centred(self, axes: Axes) -> tuple[_Grid, _Grid]:
        """Compute the points of two grids, mirror images with half of the weight."""
        x, y, z = self.grid(axes)
        grid = [_Axis(x.points, x.weights / 2), y, z]
        return grid, [axis.mirrored() for axis in grid]

    def factors(
        self, points: Array, centres: Array, width: float, degree: int, cut: float
    ) -> Array:
        """Evaluate Gaussian factors; see `portable.gaussian_factors`."""
        return self.kernels.gaussian_factors(
            points, centres, width, degree, cut, self.dtype
        )


def _columns(grid: _Grid, xp: Any) -> Array:
    """Return the weights of points in x and y, of shape (n_molecules, n_columns)."""
    x, y, _ = (axis.weights for axis in grid)
    columns = xp.expand_dims(y, axis=2) * xp.expand_dims(x, axis=1)
    return xp.reshape(columns, (columns.shape[0], -1))


def choose_kernels(xp: Any) -> ModuleType:
    """Choose the loops for an array library."""
    return batch_cuda if is_cupy_namespace(xp) else batch_portable


@cache
def planar_polynomials(degree: int) -> _Array:
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
    molecules : MoleculeBatch
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
        self, molecules: MoleculeBatch, width: float, scale: float, degree: int
    ) -> None:
        self.width = SMOOTHING * scale
        self._parameters = (width, scale, degree)
        self._molecules = molecules
        sizes, accuracy = molecules.sizes, molecules.accuracy
        self.grid = molecules.grid(
            coarse_axes(sizes.extents, sizes.crowding, width, scale, degree, accuracy)
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
