r"""The separable engine: fields as sums of products of one-dimensional factors.

A solid harmonic times a Gaussian is a short sum of products of a function of x, one of
y and one of z. So the field of a molecule on a tensor grid is a matrix product, with
the atoms as the inner index; and the convolution of a field on a grid is three, one
along each axis. No density is put on a grid, and nothing is transformed.

The convolution of the Gaussian of an atom, of width :math:`\sigma`, with the wavelet
of scale s is :math:`(s / t)^l` times the wavelet of scale
:math:`t = (\sigma^2 + s^2)^{1/2}`, which gives the fields of order 1 at any point. And
the wavelet of scale s is :math:`(s / r)^l` times the wavelet of scale
:math:`r = (s^2 - \tau^2)^{1/2}` convolved with a Gaussian of width :math:`\tau`. With
this, order 2 goes from the fine grid that the modulus of order 1 needs to a coarse one,
which is enough for the convolution.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import product
from math import ceil, hypot, pi, prod, sqrt
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.quadrature import (
    Grid,
    coarse_grid,
    fine_step,
    margin,
    principal_axes,
    tensor_grid,
)
from skscatharm.harmonics import solid_harmonics, wavelet_constant

__all__ = ["gaussian_factors", "grid_memory", "scattering", "squared_modulus"]

Array = Any  # of the array library that computes

# Fields are computed times this, from weights that add up to at most 1: their cubes
# just fit into float32, and where they decay to nothing they end before the subnormal
# numbers begin, which processors handle a hundred times slower than others.
_AMPLITUDE = 2.0**36
_FLOOR = 1e-9
_CUT = 8.0  # widths beyond which a Gaussian factor counts as zero
_SMOOTHING = sqrt(3 / 8)  # width of the smoothing Gaussian, in scales of order 2
_SMOOTHING_CUT = 5.5
_BLOCK = 2**17  # values of a field worked on at a time, so that they stay in cache
_SIDE = 64  # points of a block along an axis


def scattering(
    positions: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    J: int,
    L: int,
    Q: Sequence[float],
    sigma: float,
    max_order: int,
    tol: float,
    xp: Any,
    dtype: Any,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the coefficients of one molecule.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
        In the unit of `sigma`.
    weights : ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    J, L, Q, sigma, max_order, tol
        As in :class:`~skscatharm.SolidHarmonicScattering`.
    xp : module
        Namespace of the array library that computes.
    dtype : dtype
        Real floating-point type of `xp` to compute in.

    Returns
    -------
    order0 : ndarray of shape (n_channels, n_exponents)
    order1 : ndarray of shape (n_channels, J + 1, L + 1, n_exponents)
        Empty if `max_order` is 0.
    order2 : ndarray of shape (n_channels, J * (J + 1) / 2, L + 1, n_exponents)
        With the pairs of scales in the order (0, 1), (0, 2), ..., (1, 2), ...; empty
        if `max_order` is less than 2.
    """
    q = np.asarray(Q)
    unit = np.abs(weights).max(axis=1, keepdims=True) * weights.shape[1]
    unit[unit == 0] = 1.0
    molecule = _Molecule(principal_axes(positions), weights / unit, Q, tol, xp, dtype)

    n_channels = len(weights)
    n_scales = J + 1 if max_order > 0 else 0
    n_pairs = J * (J + 1) // 2 if max_order > 1 else 0
    order1 = np.empty((n_channels, n_scales, L + 1, len(Q)))
    order2 = np.empty((n_channels, n_pairs, L + 1, len(Q)))

    moments, _ = molecule.atoms(0, sigma)
    order0 = (unit * wavelet_constant(0) * sigma**-3) ** q * moments
    for degree, j1 in product(range(L + 1), range(n_scales)):
        scale1 = sigma * 2**j1
        width = hypot(sigma, scale1)
        last = j1 == J or max_order < 2
        moments, smooth = molecule.atoms(degree, width, None if last else 2 * scale1)
        constant = wavelet_constant(degree) * (scale1 / width) ** degree * width**-3
        order1[:, j1, degree] = (unit * constant) ** q * moments
        if smooth is None:
            continue
        for j2 in range(j1 + 1, J + 1):
            scale2 = sigma * 2**j2
            rest = sqrt(scale2**2 - smooth.width**2)
            moments = molecule.convolution(smooth, degree, rest, hypot(width, scale2))
            constant2 = constant * wavelet_constant(degree) * (scale2 / rest) ** degree
            pair = j1 * J - j1 * (j1 - 1) // 2 + j2 - j1 - 1
            order2[:, pair, degree] = (unit * constant2) ** q * moments
    return order0, order1, order2


def grid_memory(
    positions: NDArray[np.float64], n_channels: int, sigma: float, dtype: Any
) -> int:
    """Bytes of the largest array that `scattering` makes for a molecule.

    It is the one that holds the fields of order 1, at scale 0, on their way to order 2.
    """
    grid = _smooth_grid(principal_axes(positions), sqrt(2) * sigma, 2 * sigma)
    n_points = prod(len(axis.points) for axis in grid)
    return n_channels * n_points * np.dtype(dtype).itemsize


class _Molecule:
    """A molecule, and the array library that computes its fields.

    Fields are in units of the constant of their wavelets. Their arrays have the shape
    (n_x, n_y, n_channels, n_z).
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        weights: NDArray[np.float64],
        Q: Sequence[float],
        tol: float,
        xp: Any,
        dtype: Any,
    ) -> None:
        self.positions = positions
        self.weights = weights * _AMPLITUDE
        self.Q = Q
        self.tol = tol
        self.xp = xp
        self.dtype = dtype

    def atoms(
        self, degree: int, width: float, next_scale: float | None = None
    ) -> "tuple[NDArray[np.float64], _Smooth | None]":
        """Pool the moduli of the fields of the atoms, and smooth them for order 2.

        Parameters
        ----------
        degree : int
        width : float
            Width t of the field of an atom.
        next_scale : float or None
            Smallest scale of the wavelets that the moduli will be convolved with.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
            Integrals of the powers of the moduli.
        smooth : _Smooth or None
            The moduli convolved with a Gaussian that those wavelets contain.
        """
        xp, n_channels = self.xp, len(self.weights)
        reach = margin(degree)
        grid = tensor_grid(self.positions, width, fine_step(1, degree, self.tol), reach)
        factors = [
            self.array(gaussian_factors(axis.points, r, width, degree))
            for axis, r in zip(grid, self.positions.T, strict=True)
        ]
        weights = self.array(self.weights.T[:, :, np.newaxis])
        smooth = None if next_scale is None else _Smooth(self, grid, width, next_scale)

        moments = np.zeros((n_channels, len(self.Q)))
        for block in _blocks(grid, self.positions, reach * width, n_channels):
            near = xp.asarray(block.atoms)
            x, y, z = (
                xp.take(factor[:, part, :], near, axis=2)
                for factor, part in zip(factors, block.parts, strict=True)
            )
            row, column = np.divmod(block.columns, len(block.points[1]))
            x = xp.take(x, xp.asarray(row), axis=1)
            y = xp.take(y, xp.asarray(column), axis=1)
            planar = {(a, b): x[a, ...] * y[b, ...] for a, b in _powers(degree)}
            w = xp.take(weights, near, axis=0)
            axial = [
                xp.reshape(w * z[c, ...].T[:, None, :], (len(block.atoms), -1))
                for c in range(degree + 1)
            ]
            squared = squared_modulus(planar, axial, degree, xp)
            modulus = xp.sqrt(squared)
            moments += self._pool(squared, modulus, block)
            if smooth is not None:
                smooth.add(modulus, block)
        return moments, smooth

    def convolution(
        self, smooth: "_Smooth", degree: int, scale: float, width: float
    ) -> NDArray[np.float64]:
        """Pool the moduli of smooth fields convolved with the wavelets of a scale.

        Parameters
        ----------
        smooth : _Smooth
            The fields, from `atoms`.
        degree : int
        scale : float
            Scale of the wavelets.
        width : float
            Width of the results.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
        """
        xp, n_channels = self.xp, len(self.weights)
        # The field and the wavelet both bring a solid harmonic of this degree.
        reach = margin(2 * degree)
        grid = tensor_grid(self.positions, width, fine_step(2, degree, self.tol), reach)

        moments = np.zeros((n_channels, len(self.Q)))
        for block in _blocks(grid, self.positions, reach * width, n_channels):
            window = _window(smooth.grid, block.points, _CUT * scale)
            x, y, z = (
                self.array(
                    gaussian_factors(p, axis.points[part], scale, degree)
                    * (axis.weights[part] / scale)
                )
                for p, axis, part in zip(block.points, smooth.grid, window, strict=True)
            )
            values = smooth.values[window[0], window[1], :, window[2]] + _FLOOR
            n_x, n_y, _, n_z = values.shape
            along_x = xp.reshape(
                xp.matmul(x, xp.reshape(values, (n_x, -1))),
                (degree + 1, -1, n_y, n_channels * n_z),
            )
            columns = xp.asarray(block.columns)
            planar = {}
            for a, b in _powers(degree):
                plane = xp.matmul(y[b, ...], along_x[a, ...])
                plane = xp.reshape(plane, (-1, n_channels * n_z))
                plane = xp.take(plane, columns, axis=0)
                planar[a, b] = xp.reshape(plane, (-1, n_z))
            axial = [z[c, ...].T for c in range(degree + 1)]
            squared = squared_modulus(planar, axial, degree, xp)
            squared = xp.reshape(squared, (len(block.columns), -1))
            moments += self._pool(squared, xp.sqrt(squared), block)
        return moments

    def _pool(
        self, squared: Array, modulus: Array, block: "_Block"
    ) -> NDArray[np.float64]:
        """Integrate powers of moduli, of shape (n_columns, n_channels * n_z)."""
        xp = self.xp
        planar, axial = (
            self.array(block.planar_weights),
            self.array(block.axial_weights),
        )
        moments = []
        for q in self.Q:
            # Without the amplitude, that high powers stay in range.
            unit = _AMPLITUDE if q in (0.5, 1, 2, 3) else 1.0
            if q == 0.5:
                power = xp.sqrt(modulus)
            elif q == 1:
                power = modulus
            elif q == 2:
                power = squared
            elif q == 3:
                power = squared * modulus
            else:
                power = (modulus / _AMPLITUDE) ** q
            profile = xp.reshape(xp.matmul(planar, power), (-1, axial.shape[0]))
            moments.append(to_numpy(xp.matmul(profile, axial)) / unit**q)
        return np.stack(moments, axis=1)

    def array(self, values: NDArray[np.float64]) -> Array:
        """Move an array to where the fields are computed."""
        return self.xp.asarray(values, dtype=self.dtype)


class _Smooth:
    """Fields convolved with a Gaussian, collected block by block on a coarse grid."""

    def __init__(
        self, molecule: _Molecule, fine: Grid, width: float, next_scale: float
    ) -> None:
        smoothing = _SMOOTHING * next_scale
        self.grid = _smooth_grid(molecule.positions, width, next_scale)
        n_x, n_y, n_z = (len(axis.points) for axis in self.grid)
        self.values = molecule.xp.zeros(
            (n_x, n_y, len(molecule.weights), n_z), dtype=molecule.dtype
        )
        self.width = smoothing
        self._xp = molecule.xp
        self._reach = _SMOOTHING_CUT * smoothing
        self._factors = [
            molecule.array(
                gaussian_factors(to.points, axis.points, smoothing, 0, _SMOOTHING_CUT)[
                    0
                ]
                * (axis.weights / (sqrt(2 * pi) * smoothing))
            )
            for to, axis in zip(self.grid, fine, strict=True)
        ]

    def add(self, field: Array, block: "_Block") -> None:
        """Add a block of fields, of shape (n_columns, n_channels * n_z)."""
        xp = self._xp
        window = _window(self.grid, block.points, self._reach)
        x, y, z = (
            factor[to, part]
            for factor, to, part in zip(self._factors, window, block.parts, strict=True)
        )
        n_columns = len(block.columns)
        along_z = xp.matmul(xp.reshape(field, (-1, z.shape[1])), z.T)
        along_z = xp.reshape(along_z, (n_columns, -1))
        # Columns that were left out are zero: they all take the row that is appended.
        along_z = xp.concat([along_z, xp.zeros_like(along_z[:1, ...])])
        rows = np.full(x.shape[1] * y.shape[1], n_columns)
        rows[block.columns] = np.arange(n_columns)
        along_z = xp.take(along_z, xp.asarray(rows), axis=0)
        along_z = xp.reshape(along_z, (x.shape[1], y.shape[1], -1))
        along_y = xp.reshape(xp.matmul(y, along_z), (x.shape[1], -1))
        self.values[window[0], window[1], :, window[2]] += xp.reshape(
            xp.matmul(x, along_y), (x.shape[0], y.shape[0], -1, z.shape[0])
        )


def _smooth_grid(
    positions: NDArray[np.float64], width: float, next_scale: float
) -> Grid:
    smooth_width = hypot(width, _SMOOTHING * next_scale)
    rest = next_scale * sqrt(1 - _SMOOTHING**2)
    return coarse_grid(positions, smooth_width, rest)


class _Block(NamedTuple):
    """A part of a grid, without the columns along z that are far from every atom."""

    parts: tuple[slice, ...]
    points: list[NDArray[np.float64]]
    atoms: NDArray[np.int64]  # those within reach
    columns: NDArray[np.int64]  # indices into the flattened x and y
    planar_weights: NDArray[np.float64]  # of the columns, as a quadrature rule
    axial_weights: NDArray[np.float64]  # of the points along z


def _blocks(
    grid: Grid, positions: NDArray[np.float64], reach: float, n_channels: int
) -> Iterator[_Block]:
    """Cut a grid into blocks that fit into the cache, leaving out the empty ones."""
    n_y, n_z = (min(len(axis.points), _SIDE) for axis in grid[1:])
    sides = max(1, _BLOCK // (n_y * n_z * n_channels)), _SIDE, _SIDE
    cuts = (_cut(len(a.points), side) for a, side in zip(grid, sides, strict=True))
    for parts in product(*cuts):
        points = [axis.points[part] for axis, part in zip(grid, parts, strict=True)]
        first, last = (np.array([p[i] for p in points]) for i in (0, -1))
        near = (positions > first - reach) & (positions < last + reach)
        atoms = np.flatnonzero(near.all(axis=1))
        x, y, _ = positions[atoms].T
        squares_x = (points[0][:, np.newaxis, np.newaxis] - x) ** 2
        squares_y = (points[1][:, np.newaxis] - y) ** 2
        columns = np.flatnonzero((squares_x + squares_y < reach**2).any(axis=2))
        if len(columns):
            wx, wy, wz = (a.weights[part] for a, part in zip(grid, parts, strict=True))
            weights = np.outer(wx, wy).ravel()[columns]
            yield _Block(parts, points, atoms, columns, weights, wz)


def _cut(length: int, size: int) -> list[slice]:
    """Cut a length into pieces of nearly equal size."""
    n = ceil(length / size)
    return [slice(i * length // n, (i + 1) * length // n) for i in range(n)]


def _window(
    grid: Grid, points: Sequence[NDArray[np.float64]], reach: float
) -> tuple[slice, ...]:
    """Find the part of a grid that is within reach of points."""
    return tuple(
        slice(*np.searchsorted(axis.points, (p[0] - reach, p[-1] + reach)).tolist())
        for axis, p in zip(grid, points, strict=True)
    )


def gaussian_factors(
    points: NDArray[np.float64],
    centres: NDArray[np.float64],
    width: float,
    degree: int,
    cut: float = _CUT,
) -> NDArray[np.float64]:
    r"""Evaluate :math:`d^a e^{-d^2/2}` for all powers a up to a degree.

    Here d is the distance from centre to point in widths; beyond `cut` the factor is
    zero.

    Returns
    -------
    ndarray of shape (degree + 1, n_points, n_centres)
    """
    d = (points[:, np.newaxis] - centres) / width
    factors = np.empty((degree + 1, *d.shape))
    factors[0] = np.exp(-d * d / 2) * (np.abs(d) < cut)
    for a in range(degree):
        factors[a + 1] = factors[a] * d
    return factors


def squared_modulus(
    planar: Mapping[tuple[int, int], Array],
    axial: Sequence[Array],
    degree: int,
    xp: Any,
) -> Array:
    r"""Sum the squares of the fields of all orders m of one degree.

    .. math::

        \sum_m \Big( \sum_{abc} p_{mabc} \sum_i
            P_{ab}(\cdot, i) \, A_c(i, \cdot) \Big)^2

    with p the coefficients of the solid harmonics.

    Parameters
    ----------
    planar : mapping from (a, b) to array of shape (n, n_inner)
        The factors of :math:`x^a y^b`.
    axial : sequence over c of array of shape (n_inner, n_z)
        The factors of :math:`z^c`.
    degree : int
    xp : module
        Namespace of the arrays.

    Returns
    -------
    array of shape (n, n_z)
    """
    # Orders share their polynomials in x and y up to a factor, which goes to z.
    combined: dict[tuple[tuple[tuple[int, int], float], ...], Array] = {}
    total = None
    for harmonic in _monic_harmonics(degree):
        left, right = [], []
        for c, factor, polynomial in harmonic:
            if polynomial not in combined:
                terms = (
                    planar[ab] if p == 1 else planar[ab] * p for ab, p in polynomial
                )
                combined[polynomial] = reduce(add, terms)
            left.append(combined[polynomial])
            right.append(axial[c] * factor)
        field = xp.matmul(
            left[0] if len(left) == 1 else xp.concat(left, axis=1),
            right[0] if len(right) == 1 else xp.concat(right, axis=0),
        )
        field *= field
        if total is None:
            total = field
        else:
            total += field
    return total


@cache
def _monic_harmonics(
    degree: int,
) -> list[list[tuple[int, float, tuple[tuple[tuple[int, int], float], ...]]]]:
    """Solid harmonics as sums of z^c times a factor times a monic polynomial."""
    harmonics = []
    for harmonic in solid_harmonics(degree):
        terms = []
        for c, polynomial in harmonic.items():
            factor = next(iter(polynomial.values()))
            monic = tuple((ab, round(p / factor, 9)) for ab, p in polynomial.items())
            terms.append((c, factor, monic))
        harmonics.append(terms)
    return harmonics


def _powers(degree: int) -> list[tuple[int, int]]:
    """Exponents of x and y that add up to at most a degree."""
    return [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
