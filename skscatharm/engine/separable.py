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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import product
from math import ceil, hypot, pi, sqrt
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.quadrature import (
    Grid,
    coarse_grid,
    coarse_points,
    fine_step,
    margin,
    principal_axes,
    tensor_grid,
)
from skscatharm.harmonics import solid_harmonics, wavelet_constant
from skscatharm.paths import Path

__all__ = ["gaussian_factors", "grid_memory", "harmonic_terms", "scattering"]

Array = Any  # of the array library that computes
Polynomial = tuple[tuple[tuple[int, int], float], ...]  # in x and y

# Fields are computed times this, from weights that add up to at most 1: their cubes
# just fit into float32, and where they decay to nothing they end before the subnormal
# numbers begin, which processors handle a hundred times slower than others.
_AMPLITUDE = 2.0**36
_AMPLIFIED = (0.5, 1, 2, 3)  # exponents of which this is true
_FLOOR = 1e-9
_CUT = 8.0  # widths beyond which a Gaussian factor counts as zero
_SMOOTHING = sqrt(3 / 8)  # width of the smoothing Gaussian, in scales of order 2
_SMOOTHING_CUT = 5.5
_BLOCK = 2**17  # values of a field worked on at a time, so that they stay in cache
_SIDE = 64  # points of a tile along an axis


def scattering(
    positions: NDArray[np.float64],
    weights: NDArray[np.float64],
    paths: Sequence[Path],
    *,
    Q: Sequence[float],
    sigma: float,
    tol: float,
    xp: Any,
    dtype: Any,
) -> NDArray[np.float64]:
    """Compute the coefficients of one molecule.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
        In the unit of `sigma`.
    weights : ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    paths : sequence of Path
        What to compute; paths that share their first wavelet share its field.
    Q, sigma, tol
        As in :class:`~skscatharm.SolidHarmonicScattering`.
    xp : module
        Namespace of the array library that computes.
    dtype : dtype
        Real floating-point type of `xp` to compute in.

    Returns
    -------
    ndarray of shape (n_paths, n_channels, n_exponents)
    """
    q = np.asarray(Q)
    unit = np.abs(weights).max(axis=1, keepdims=True) * weights.shape[1]
    unit[unit == 0] = 1.0
    molecule = _Molecule(principal_axes(positions), weights / unit, Q, tol, xp, dtype)
    amplitude = np.where(np.isin(q, _AMPLIFIED), _AMPLITUDE, 1.0)
    unit = unit * (2 * pi) ** -1.5 / amplitude

    found = {}
    if Path((), 0) in paths:
        moments, _ = molecule.atoms(0, sigma)
        found[Path((), 0)] = (unit * sigma**-3) ** q * moments
    for j1, degree in sorted({(p.scales[0], p.degree) for p in paths if p.scales}):
        scale1 = sigma * 2**j1
        width = hypot(sigma, scale1)
        following = {
            p.scales[1] for p in paths if p.degree == degree and p.scales[:-1] == (j1,)
        }
        moments, smooth = molecule.atoms(
            degree, width, 2 * scale1 if following else None
        )
        constant = (scale1 / width) ** degree * width**-3
        found[Path((j1,), degree)] = (unit * constant) ** q * moments
        if smooth is None:
            continue
        for j2 in following:
            scale2 = sigma * 2**j2
            rest = sqrt(scale2**2 - smooth.width**2)
            moments = molecule.convolution(smooth, degree, rest, hypot(width, scale2))
            constant2 = constant * (scale2 / rest) ** degree
            found[Path((j1, j2), degree)] = (unit * constant2) ** q * moments
    return np.stack([found[path] for path in paths])


def grid_memory(
    positions: NDArray[np.float64], n_channels: int, sigma: float, dtype: Any
) -> float:
    """Estimate the bytes of the largest array that `scattering` makes for a molecule.

    It is the one that holds the fields of order 1, at scale 0, on their way to order 2.
    """
    width, rest = _smooth_widths(sqrt(2) * sigma, 2 * sigma)
    n_points = coarse_points(principal_axes(positions), width, rest)
    return n_channels * n_points * np.dtype(dtype).itemsize


class _Molecule:
    """A molecule, and the array library that computes its fields.

    Fields come without what is common to all their points: a power of the scales, the
    units of the weights and the amplitude.
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
        grid = tensor_grid(
            self.positions, width, fine_step(1, degree, width, self.tol), reach
        )
        factors = [
            self.array(gaussian_factors(axis.points, r, width, degree))
            for axis, r in zip(grid, self.positions.T, strict=True)
        ]
        constant = (2 * pi) ** 1.5 * wavelet_constant(degree)
        weights = self.array(constant * self.weights.T[:, :, np.newaxis])
        smooth = None if next_scale is None else _Smooth(self, grid, width, next_scale)

        moments = np.zeros((n_channels, len(self.Q)))
        for tile in _tiles(grid, self.positions, reach * width):
            near = xp.asarray(tile.atoms)
            x, y, z = (
                xp.take(factor[:, part, :], near, axis=2)
                for factor, part in zip(factors, tile.parts, strict=True)
            )
            row, column = np.divmod(tile.columns, y.shape[1])
            x = xp.take(x, xp.asarray(row), axis=1)
            y = xp.take(y, xp.asarray(column), axis=1)
            planar = {(a, b): x[a, ...] * y[b, ...] for a, b in _powers(degree)}
            w = xp.take(weights, near, axis=0)
            axial = [
                xp.reshape(w * z[c, ...].T[:, None, :], (len(tile.atoms), -1))
                for c in range(degree + 1)
            ]
            orders = [
                (_concat(p, 1, xp), _concat(a, 0, xp))
                for p, a in harmonic_terms(planar, axial, degree)
            ]
            planar_weights = self.array(tile.weights)
            moduli = []
            integrals = 0.0
            for rows in _cut(len(tile.columns), _BLOCK // axial[0].shape[1]):
                squared = _sum_of_squares(xp.matmul(p[rows, :], a) for p, a in orders)
                modulus = xp.sqrt(squared)
                integrals += self._integrate(squared, modulus, planar_weights[rows])
                moduli.append(modulus)
            axial_weights = self.array(grid[2].weights[tile.parts[2]])
            integrals = xp.reshape(integrals, (len(self.Q), n_channels, -1))
            moments += to_numpy(xp.matmul(integrals, axial_weights)).T
            if smooth is not None:
                smooth.add(_concat(moduli, 0, xp), tile)
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
        reach = margin(degree)
        grid = tensor_grid(
            self.positions, width, fine_step(2, degree, width, self.tol), reach
        )

        moments = np.zeros((n_channels, len(self.Q)))
        for tile in _tiles(grid, self.positions, reach * width):
            window = _window(smooth.grid, tile.points, _CUT * scale)
            x, y, z = (
                self.array(
                    gaussian_factors(p, axis.points[part], scale, degree)
                    * (axis.weights[part] / scale)
                )
                for p, axis, part in zip(tile.points, smooth.grid, window, strict=True)
            )
            values = smooth.values[window[0], window[1], :, window[2]] + _FLOOR
            (_, t_x, n_x), (_, t_y, n_y), (_, t_z, n_z) = x.shape, y.shape, z.shape
            # The matrix products are fast if their results are long: x comes last,
            # and is the axis of the harmonics.
            values = xp.reshape(values, (n_x, n_y, n_channels * n_z))
            planar = {}
            for b in range(degree + 1):
                along_y = xp.reshape(xp.matmul(y[b, ...], values), (-1, n_z))
                for c in range(degree + 1 - b):
                    plane = xp.matmul(along_y, z[c, ...].T)
                    planar[b, c] = xp.reshape(plane, (n_x, -1))
            constant = wavelet_constant(degree)
            axial = [constant * x[a, ...] for a in range(degree + 1)]
            orders = [
                (_concat(a, 1, xp), _concat(p, 0, xp))
                for p, a in harmonic_terms(planar, axial, degree)
            ]
            wx, wy, wz = (
                self.array(axis.weights[part])
                for axis, part in zip(grid, tile.parts, strict=True)
            )
            size = n_channels * t_z
            for rows in _cut(t_y, _BLOCK // (t_x * size)):
                part = slice(rows.start * size, rows.stop * size)
                squared = _sum_of_squares(xp.matmul(a, p[:, part]) for a, p in orders)
                integrals = self._integrate(squared, xp.sqrt(squared), wx)
                integrals = xp.reshape(integrals, (len(self.Q), -1, n_channels, t_z))
                integrals = xp.matmul(integrals, wz)
                moments += to_numpy(
                    xp.tensordot(integrals, wy[rows], axes=([1], [0]))
                ).T
        return moments

    def _integrate(self, squared: Array, modulus: Array, weights: Array) -> Array:
        """Integrate the powers of a modulus, of shape (n, ...), along its first axis.

        Returns
        -------
        array of shape (n_exponents, ...)
        """
        return self.xp.stack(
            [
                self.xp.matmul(weights, _power(squared, modulus, q, self.xp))
                for q in self.Q
            ]
        )

    def array(self, values: NDArray[np.float64]) -> Array:
        """Move an array to where the fields are computed."""
        return self.xp.asarray(values, dtype=self.dtype)


class _Smooth:
    """Fields convolved with a Gaussian, collected tile by tile on a coarse grid."""

    def __init__(
        self, molecule: _Molecule, fine: Grid, width: float, next_scale: float
    ) -> None:
        smoothing = _SMOOTHING * next_scale
        self.grid = coarse_grid(molecule.positions, *_smooth_widths(width, next_scale))
        n_x, n_y, n_z = (len(axis.points) for axis in self.grid)
        self.values = molecule.xp.zeros(
            (n_x, n_y, len(molecule.weights), n_z), dtype=molecule.dtype
        )
        self.width = smoothing
        self._xp = molecule.xp
        self._reach = _SMOOTHING_CUT * smoothing
        self._factors = [
            molecule.array(
                gaussian_factors(v.points, u.points, smoothing, 0, _SMOOTHING_CUT)[0]
                * (u.weights / (sqrt(2 * pi) * smoothing))
            )
            for v, u in zip(self.grid, fine, strict=True)
        ]

    def add(self, field: Array, tile: "_Tile") -> None:
        """Add fields, of shape (n_columns, n_channels * n_z)."""
        xp = self._xp
        window = _window(self.grid, tile.points, self._reach)
        x, y, z = (
            factor[to, part]
            for factor, to, part in zip(self._factors, window, tile.parts, strict=True)
        )
        (t_x, n_x), (t_y, n_y), (t_z, n_z) = x.shape, y.shape, z.shape
        # Columns that were left out are zero: they all take the row that is appended.
        rows = np.full(n_x * n_y, len(tile.columns))
        rows[tile.columns] = np.arange(len(tile.columns))
        field = xp.concat([field, xp.zeros_like(field[:1, ...])])
        field = xp.reshape(xp.take(field, xp.asarray(rows), axis=0), (n_x, n_y, -1))
        field = xp.matmul(y, field)
        field = xp.matmul(x, xp.reshape(field, (n_x, -1)))
        field = xp.matmul(xp.reshape(field, (-1, n_z)), z.T)
        self.values[window[0], window[1], :, window[2]] += xp.reshape(
            field, (t_x, t_y, -1, t_z)
        )


def _smooth_widths(width: float, next_scale: float) -> tuple[float, float]:
    """Width of a smoothed field, and what the smoothing leaves of the next scale."""
    return hypot(width, _SMOOTHING * next_scale), next_scale * sqrt(1 - _SMOOTHING**2)


class _Tile(NamedTuple):
    """A part of a grid, without the columns along z that are far from every atom."""

    parts: tuple[slice, ...]
    points: list[NDArray[np.float64]]
    atoms: NDArray[np.int64]  # those within reach
    columns: NDArray[np.int64]  # indices into the flattened x and y
    weights: NDArray[np.float64]  # of the columns, as a quadrature rule


def _tiles(grid: Grid, positions: NDArray[np.float64], reach: float) -> Iterator[_Tile]:
    """Cut a grid into tiles of few atoms each, leaving out the empty ones."""
    for parts in product(*(_cut(len(axis.points), _SIDE) for axis in grid)):
        points = [axis.points[part] for axis, part in zip(grid, parts, strict=True)]
        first, last = (np.array([p[i] for p in points]) for i in (0, -1))
        near = (positions > first - reach) & (positions < last + reach)
        atoms = np.flatnonzero(near.all(axis=1))
        x, y, _ = positions[atoms].T[:, :, np.newaxis]
        squares_x, squares_y = (points[0] - x) ** 2, (points[1] - y) ** 2
        squares = squares_x[:, :, np.newaxis] + squares_y[:, np.newaxis, :]
        columns = np.flatnonzero((squares < reach**2).any(axis=0))
        if len(columns):
            wx, wy, _ = (a.weights[part] for a, part in zip(grid, parts, strict=True))
            yield _Tile(
                parts, points, atoms, columns, np.outer(wx, wy).ravel()[columns]
            )


def _cut(length: int, size: int) -> list[slice]:
    """Cut a length into pieces of nearly equal size."""
    n = ceil(length / max(size, 1))
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


def harmonic_terms(
    planar: Mapping[tuple[int, int], Array], axial: Sequence[Array], degree: int
) -> Iterator[tuple[list[Array], list[Array]]]:
    r"""Arrange products of factors into solid harmonics.

    Parameters
    ----------
    planar : mapping from (a, b) to array
        The factors of :math:`x^a y^b`.
    axial : sequence over c of array
        The factors of :math:`z^c`.
    degree : int

    Yields
    ------
    planar_terms, axial_terms : list of array
        For each order m, such that the solid harmonic is the sum of the products of
        their members.
    """
    # Orders share their polynomials in x and y up to a constant, which goes to z.
    combined: dict[Polynomial, Array] = {}
    for harmonic in _monic_harmonics(degree):
        for _, _, polynomial in harmonic:
            if polynomial not in combined:
                combined[polynomial] = reduce(
                    add,
                    (planar[ab] if p == 1 else planar[ab] * p for ab, p in polynomial),
                )
        yield (
            [combined[polynomial] for _, _, polynomial in harmonic],
            [axial[c] * constant for c, constant, _ in harmonic],
        )


@cache
def _monic_harmonics(degree: int) -> list[list[tuple[int, float, Polynomial]]]:
    """Solid harmonics as sums of z^c times a constant times a monic polynomial."""
    harmonics = []
    for harmonic in solid_harmonics(degree):
        terms = []
        for c, polynomial in harmonic.items():
            constant = next(iter(polynomial.values()))
            monic = tuple((ab, round(p / constant, 9)) for ab, p in polynomial.items())
            terms.append((c, constant, monic))
        harmonics.append(terms)
    return harmonics


def _sum_of_squares(fields: Iterable[Array]) -> Array:
    """Add up squares in place: the fields are used up."""
    total = None
    for field in fields:
        field *= field
        if total is None:
            total = field
        else:
            total += field
    return total


def _power(squared: Array, modulus: Array, q: float, xp: Any) -> Array:
    """Raise a modulus to a power: those of `_AMPLIFIED` the cheap way."""
    if q == 0.5:
        return xp.sqrt(modulus)
    if q == 1:
        return modulus
    if q == 2:
        return squared
    if q == 3:
        return squared * modulus
    return (modulus / _AMPLITUDE) ** q


def _concat(arrays: Sequence[Array], axis: int, xp: Any) -> Array:
    """Concatenate without a copy of what is one already."""
    return arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=axis)


def _powers(degree: int) -> list[tuple[int, int]]:
    """Exponents of x and y that add up to at most a degree."""
    return [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
