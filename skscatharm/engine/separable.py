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

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, hypot, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine import compiled, portable
from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.compiled import gaussian_factors, near_columns
from skscatharm.engine.quadrature import (
    Axis,
    Grid,
    coarse_grid,
    coarse_points,
    fine_grid,
    margin,
    principal_axes,
)
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant
from skscatharm.transform.modulus import path_peak
from skscatharm.transform.paths import Path

__all__ = ["grid_memory", "scattering"]

Array = Any  # of the array library that computes

# Fields are computed times this, from weights that add up to at most 1: their cubes
# just fit into float32, and where they decay to nothing they end before the subnormal
# numbers begin, which processors handle a hundred times slower than others.
_AMPLITUDE = 2.0**36
_AMPLIFIED = (0.5, 1, 2, 3)  # exponents of which this is true
_FLOOR = 1e-9
_CUT = 7.0  # widths beyond which a Gaussian factor counts as zero
_SMOOTHING = sqrt(3 / 8)  # width of the smoothing Gaussian, in scales of order 2
_SMOOTHING_CUT = 5.5
_BLOCK = 2**15  # values of a field worked on at a time, so that they stay in cache
_SIDE = 80  # points of a tile along an axis


def scattering(
    positions: NDArray[np.float64],
    weights: NDArray[np.float64],
    paths: Sequence[Path],
    *,
    Q: Sequence[float],
    sigma: float,
    tol: float,
    softening: float,
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
    Q, sigma, tol, softening
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
    molecule = _Molecule(
        principal_axes(positions), weights / unit, Q, tol, softening, xp, dtype
    )
    amplitude = np.where(np.isin(q, _AMPLIFIED), _AMPLITUDE, 1.0)
    field_unit = unit * (2 * pi) ** -1.5 / _AMPLITUDE
    unit = unit * (2 * pi) ** -1.5 / amplitude

    none = np.zeros(len(weights))

    def epsilon(path: Path, constant: float) -> NDArray[np.float64]:
        if path.degree == 0:
            return none
        return softening * path_peak(path, sigma) / (field_unit[:, 0] * constant)

    found = {}
    if Path((), 0) in paths:
        moments, _ = molecule.atoms(0, sigma, none)
        found[Path((), 0)] = (unit * sigma**-3) ** q * moments
    for j1, degree in sorted({(p.scales[0], p.degree) for p in paths if p.scales}):
        scale1 = sigma * 2**j1
        width = hypot(sigma, scale1)
        following = {
            p.scales[1] for p in paths if p.degree == degree and p.scales[:-1] == (j1,)
        }
        direct = degree == 0 and np.all(weights >= 0)
        constant = (scale1 / width) ** degree * width**-3
        path = Path((j1,), degree)
        moments, smooth = molecule.atoms(
            degree,
            width,
            epsilon(path, constant),
            2 * scale1 if following and not direct else None,
        )
        found[path] = (unit * constant) ** q * moments
        for j2 in range(j1 + 1, max(following, default=j1) + 1):
            scale2 = sigma * 2**j2
            width2 = hypot(width, scale2)
            if smooth is None:
                # Gaussians all the way, and nothing for the modulus to change.
                moments, _ = molecule.atoms(0, width2, none)
                found[Path((j1, j2), 0)] = (unit * width2**-3) ** q * moments
                continue
            if j2 > j1 + 1:
                smooth = smooth.coarser()
            if j2 in following:
                rest = sqrt(scale2**2 - smooth.width**2)
                constant2 = constant * (scale2 / rest) ** degree
                path = Path((j1, j2), degree)
                moments = molecule.convolution(
                    smooth, degree, rest, width2, epsilon(path, constant2)
                )
                found[path] = (unit * constant2) ** q * moments
    coefficients = np.stack([found[path] for path in paths])
    # Without atoms in a channel, rounding and the floor are all there is.
    coefficients[:, ~weights.any(axis=1)] = 0.0
    return coefficients


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
        softening: float,
        xp: Any,
        dtype: Any,
    ) -> None:
        self.positions = positions
        self.weights = weights * _AMPLITUDE
        self.Q = np.asarray(Q, dtype=np.float64)
        self.tol = tol
        self.softening = softening
        self.xp = xp
        self.dtype = dtype
        self.loops = compiled if is_numpy_namespace(xp) else portable

    def atoms(
        self,
        degree: int,
        width: float,
        epsilon: NDArray[np.float64],
        next_scale: float | None = None,
    ) -> "tuple[NDArray[np.float64], _Smooth | None]":
        """Pool the moduli of the fields of the atoms, and smooth them for order 2.

        Parameters
        ----------
        degree : int
        width : float
            Width t of the field of an atom.
        epsilon : ndarray of shape (n_channels,)
            What softens the moduli; for degree 0 they never are.
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
        reach = margin(degree, self.tol, self.softening) * width
        grid = fine_grid(self.positions, 1, degree, width, self.tol, self.softening)
        constant = (2 * pi) ** 1.5 * wavelet_constant(degree)
        weights = constant * self.weights.T[:, :, np.newaxis]
        smooth = None if next_scale is None else _Smooth(self, width, next_scale)

        moments = np.zeros((n_channels, len(self.Q)))
        for tile in _tiles(grid, self.positions, reach):
            x, y, z = (
                self.array(gaussian_factors(r, axis.points, width, degree, _CUT))
                for axis, r in zip(tile.axes, self.positions[tile.atoms].T, strict=True)
            )
            w = self.array(weights[tile.atoms])
            axial = [
                xp.reshape(w * z[c, ...][:, None, :], (len(tile.atoms), -1))
                for c in range(degree + 1)
            ]
            planar = self.loops.atom_terms(x, y, tile.rows, tile.columns, degree)
            components = [
                (_concat([axial[c] for c in harmonic], 0, xp).T, p)
                for harmonic, p in zip(solid_harmonics(degree), planar, strict=True)
            ]
            wx, wy, wz = (axis.weights for axis in tile.axes)
            planar_weights = self.array(wx[tile.rows] * wy[tile.columns])
            part = None if smooth is None else _SmoothTile(smooth, tile)
            integrals = self._pool(
                components,
                planar_weights,
                np.repeat(epsilon, len(wz)),
                None if part is None else part.add,
            )
            integrals = xp.reshape(integrals, (len(self.Q), n_channels, -1))
            moments += to_numpy(xp.matmul(integrals, self.array(wz))).T
            if part is not None:
                part.finish()
        return moments, smooth

    def convolution(
        self,
        smooth: "_Smooth",
        degree: int,
        scale: float,
        width: float,
        epsilon: NDArray[np.float64],
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
        epsilon : ndarray of shape (n_channels,)
            What softens the moduli.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
        """
        xp, n_channels = self.xp, len(self.weights)
        reach = margin(degree, self.tol, self.softening) * width
        grid = fine_grid(self.positions, 2, degree, width, self.tol, self.softening)

        moments = np.zeros((n_channels, len(self.Q)))
        for tile in _tiles(grid, self.positions, reach):
            window = _window(smooth.grid, tile.axes, _CUT * scale)
            x, y, z = (
                self.array(
                    gaussian_factors(to.points, axis.points[part], scale, degree, _CUT)
                    * (axis.weights[part] / scale)
                )
                for to, axis, part in zip(tile.axes, smooth.grid, window, strict=True)
            )
            (_, _, n_x), (_, t_y, n_y), (_, t_z, n_z) = x.shape, y.shape, z.shape
            values = smooth.values[window[0], :, window[1], window[2]] + _FLOOR
            # Even powers first: those of a harmonic then follow each other.
            powers = [*range(0, degree + 1, 2), *range(1, degree + 1, 2)]
            y = xp.reshape(xp.stack([y[b, ...] for b in powers], axis=1), (-1, n_y))
            along_y = xp.reshape(xp.matmul(y, values), (-1, (degree + 1) * n_z))
            # The last and longest matrix products are along x, the axis of the
            # harmonics.
            components = []
            for harmonic in solid_harmonics(degree):
                planar = []
                for a, polynomial in harmonic.items():
                    # Powers in between that do not occur have the factor zero.
                    found = [powers.index(b) for b, _ in polynomial]
                    first, last = min(found), max(found)
                    terms = [
                        polynomial.get((b, degree - a - b), 0.0)
                        * z[degree - a - b, ...].T
                        for b in powers[first : last + 1]
                    ]
                    plane = xp.matmul(
                        along_y[:, first * n_z : (last + 1) * n_z],
                        _concat(terms, 0, xp),
                    )
                    planar.append(xp.reshape(plane, (n_x, -1)))
                constant = wavelet_constant(degree)
                axial = [constant * x[a, ...].T for a in harmonic]
                components.append((_concat(axial, 0, xp).T, _concat(planar, 0, xp)))
            wx, wy, wz = (axis.weights for axis in tile.axes)
            planar_weights = self.array(np.outer(wy, wz).ravel())
            for channel in range(n_channels):
                part = slice(channel * t_y * t_z, (channel + 1) * t_y * t_z)
                integrals = self._pool(
                    [(a, p[:, part]) for a, p in components],
                    planar_weights,
                    np.repeat(epsilon[channel], len(wx)),
                )
                moments[channel] += to_numpy(xp.matmul(integrals, self.array(wx)))
        return moments

    def _pool(
        self,
        components: Sequence[tuple[Array, Array]],
        weights: Array,
        epsilon: NDArray[np.float64],
        use: Callable[[Array], None] | None = None,
    ) -> Array:
        """Integrate the powers of a modulus along its columns.

        Parameters
        ----------
        components : list of (array of shape (n_rows, k), array of shape (k, n_columns))
            For each order m, matrices whose product is that component of the field.
        weights : array of shape (n_columns,)
            Weights of the columns as a quadrature rule.
        epsilon : ndarray of shape (n_rows,)
            What softens the moduli.
        use : callable or None
            Is given the moduli, some columns after others.

        Returns
        -------
        array of shape (n_exponents, n_rows)
        """
        integrals = 0.0
        for part in _cut(weights.shape[0], _BLOCK // components[0][0].shape[0]):
            moduli, integral = self.loops.pool(
                [(a, p[:, part]) for a, p in components],
                weights[part],
                self.Q,
                _AMPLITUDE,
                epsilon,
            )
            integrals += integral
            if use is not None:
                use(moduli)
        return integrals

    def array(self, values: NDArray[np.float64]) -> Array:
        """Move an array to where the fields are computed."""
        return self.xp.asarray(values, dtype=self.dtype)


class _Smooth:
    """Fields convolved with a Gaussian, on a coarse grid, for wavelets of a scale."""

    def __init__(self, molecule: _Molecule, width: float, scale: float) -> None:
        self.grid = coarse_grid(molecule.positions, *_smooth_widths(width, scale))
        n_x, n_y, n_z = (len(axis.points) for axis in self.grid)
        self.values = molecule.xp.zeros(
            (n_x, len(molecule.weights), n_y, n_z), dtype=molecule.dtype
        )
        self.width = _SMOOTHING * scale
        self._field_width = width
        self._scale = scale
        self.molecule = molecule

    def coarser(self) -> "_Smooth":
        """Smooth the fields further, for wavelets of twice the scale."""
        xp = self.molecule.xp
        result = _Smooth(self.molecule, self._field_width, 2 * self._scale)
        width = sqrt(result.width**2 - self.width**2)
        for parts, axes in _parts(result.grid):
            window = _window(self.grid, axes, _SMOOTHING_CUT * width)
            x, y, z = (
                self.factors(
                    to.points, Axis(axis.points[part], axis.weights[part]), width
                )
                for to, axis, part in zip(axes, self.grid, window, strict=True)
            )
            values = self.values[window[0], :, window[1], window[2]]
            values = xp.matmul(y, xp.matmul(values, z.T))
            shape = (x.shape[0], *values.shape[1:])
            values = xp.matmul(x, xp.reshape(values, (x.shape[1], -1)))
            result.values[parts[0], :, parts[1], parts[2]] = xp.reshape(values, shape)
        return result

    def factors(self, points: NDArray[np.float64], axis: Axis, width: float) -> Array:
        """Make the matrix that convolves with a Gaussian along an axis."""
        factors = gaussian_factors(points, axis.points, width, 0, _SMOOTHING_CUT)
        return self.molecule.array(factors[0] * (axis.weights / (sqrt(2 * pi) * width)))


class _SmoothTile:
    """What the fields on a tile add to the smooth ones."""

    def __init__(self, smooth: _Smooth, tile: "_Tile") -> None:
        self._smooth = smooth
        self._tile = tile
        self._window = _window(smooth.grid, tile.axes, _SMOOTHING_CUT * smooth.width)
        self._x, self._y, self._z = (
            smooth.factors(to.points[part], axis, smooth.width)
            for to, part, axis in zip(smooth.grid, self._window, tile.axes, strict=True)
        )
        self._layers: list[Array] = []

    def add(self, fields: Array) -> None:
        """Take fields, of shape (n_channels * n_z, n), on the next n columns."""
        shape = (-1, self._z.shape[1], fields.shape[1])
        xp = self._smooth.molecule.xp
        self._layers.append(xp.matmul(self._z, xp.reshape(fields, shape)))

    def finish(self) -> None:
        """Add everything."""
        molecule, tile = self._smooth.molecule, self._tile
        field = molecule.loops.spread(
            _concat(self._layers, 2, molecule.xp),
            tile.rows,
            tile.columns,
            self._x.shape[1],
            self._y.shape[1],
        )
        field = molecule.xp.matmul(molecule.xp.matmul(self._x, field), self._y.T)
        x, y, z = self._window
        self._smooth.values[x, :, y, z] += molecule.xp.permute_dims(field, (2, 0, 3, 1))


def _smooth_widths(width: float, next_scale: float) -> tuple[float, float]:
    """Width of a smoothed field, and what the smoothing leaves of the next scale."""
    return hypot(width, _SMOOTHING * next_scale), next_scale * sqrt(1 - _SMOOTHING**2)


class _Tile(NamedTuple):
    """A part of a grid, without the columns along z that are far from every atom."""

    axes: Grid
    atoms: NDArray[np.int64]  # those within reach
    rows: NDArray[np.int64]  # indices of the columns in x
    columns: NDArray[np.int64]  # and in y


def _tiles(grid: Grid, positions: NDArray[np.float64], reach: float) -> Iterator[_Tile]:
    """Cut a grid into tiles of few atoms each, leaving out the empty ones."""
    for _, (x, y, z) in _parts(grid):
        atoms = np.arange(len(positions))
        for axis, r in zip((x, y, z), positions.T, strict=True):
            first, last = axis.points[[0, -1]]
            atoms = atoms[(r[atoms] > first - reach) & (r[atoms] < last + reach)]
        rows, columns = near_columns(x.points, y.points, positions[atoms], reach)
        if len(rows):
            yield _Tile((x, y, z), atoms, rows, columns)


def _parts(grid: Grid) -> Iterator[tuple[tuple[slice, ...], Grid]]:
    """Cut a grid into parts of some points along each axis."""
    for parts in product(*(_cut(len(axis.points), _SIDE) for axis in grid)):
        x, y, z = (
            Axis(axis.points[part], axis.weights[part])
            for axis, part in zip(grid, parts, strict=True)
        )
        yield parts, (x, y, z)


def _cut(length: int, size: int) -> list[slice]:
    """Cut a length into pieces of nearly equal size."""
    n = ceil(length / max(size, 1))
    return [slice(i * length // n, (i + 1) * length // n) for i in range(n)]


def _window(grid: Grid, part: Grid, reach: float) -> tuple[slice, ...]:
    """Find the part of a grid that is within reach of points."""
    return tuple(
        slice(*np.searchsorted(axis.points, (p[0] - reach, p[-1] + reach)).tolist())
        for axis, (p, _) in zip(grid, part, strict=True)
    )


def _concat(arrays: Sequence[Array], axis: int, xp: Any) -> Array:
    """Concatenate without a copy of what is one already."""
    return arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=axis)
