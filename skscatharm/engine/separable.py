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

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, hypot, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine import compiled, portable
from skscatharm.engine.accuracy import (
    DOUBLE,
    SMOOTHING,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library
from skscatharm.engine.compiled import gaussian_factors, near_columns
from skscatharm.engine.frame import Frame
from skscatharm.engine.pooling import AMPLITUDE, FLOOR, Block, PowerIntegrals
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import (
    Axis,
    Grid,
    coarse_grid,
    coarse_points,
    fine_grid,
    kink_grid,
)
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant
from skscatharm.transform.modulus import KinkRounding, path_peak
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["SeparableEngine"]

Array = Any  # of the array library that computes

_BLOCK = 2**15  # values of a field worked on at a time, so that they stay in cache
_SIDE = 80  # points of a tile along an axis


class SeparableEngine:
    """Computes molecules one by one, each on grids of its own.

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

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes of the largest array that a molecule needs.

        It holds the fields of order 1, at scale 0, on their way to order 2.
        """
        transform = self.transform
        degrees = [p.degree for p in transform.paths if len(p.scales) == 2]
        if not degrees:
            return 0.0
        frame = Frame(atoms.positions, atoms.charges)
        sigma, accuracy = transform.sigma, Accuracy(transform.tol)
        n_points = coarse_points(
            frame, sqrt(2) * sigma, 2 * sigma, max(degrees), accuracy
        )
        return len(atoms.weights) * n_points * np.dtype(transform.dtype).itemsize

    def coefficients(self, batch: Sequence[Atoms]) -> NDArray[np.float64]:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        return np.stack([self._coefficients(atoms) for atoms in batch])

    def _coefficients(self, atoms: Atoms) -> NDArray[np.float64]:
        transform = self.transform
        Q = np.asarray(transform.exponents)
        frame = Frame(atoms.positions, atoms.charges)
        found = np.zeros((len(transform.paths), len(atoms.weights), len(Q)))
        for softness, signed, channels in weight_classes(
            atoms.weights, transform.softening
        ):
            # Without atoms in a channel, rounding would be all there is.
            channels = channels[atoms.weights[channels].any(axis=1)]
            if len(channels) == 0:
                continue
            for largest, exponents in exponent_classes(Q):
                # Densities of both signs may cancel.
                double = largest > DOUBLE or signed
                dtype = "float64" if double else transform.dtype
                molecule = _Molecule(
                    frame,
                    atoms.weights[channels],
                    Q[exponents],
                    Accuracy(transform.tol, softness, largest, signed),
                    self.library.namespace(),
                    dtype,
                )
                found[:, channels[:, np.newaxis], exponents] = molecule.coefficients(
                    transform.paths, transform.sigma, transform.softening
                )
        return found


class _Molecule:
    """A molecule, and the array library that computes its fields.

    Fields come without what is common to all their points: a power of the scales, the
    units of the weights and the amplitude.
    """

    def __init__(
        self,
        frame: Frame,
        weights: NDArray[np.float64],
        Q: NDArray[np.float64],
        accuracy: Accuracy,
        xp: Any,
        dtype: str,
    ) -> None:
        unit = np.abs(weights).max(axis=1, keepdims=True) * weights.shape[1]
        self.frame = frame
        self.weights = weights / unit * AMPLITUDE
        self.Q = Q
        self.scales = np.minimum(AMPLITUDE ** (3 / Q - 1), 1.0)
        # Of fields as they are computed, and of those that are raised to powers.
        self.field_unit = unit * (2 * pi) ** -1.5 / AMPLITUDE
        self.power_unit = self.field_unit / self.scales
        self.accuracy = accuracy
        self.xp = xp
        self.dtype = getattr(xp, dtype)
        self.kernels = compiled if is_numpy_namespace(xp) else portable
        self.rounding = KinkRounding(Q, accuracy.kink_kernel[0])

    def coefficients(
        self, paths: Sequence[Path], sigma: float, softening: float
    ) -> NDArray[np.float64]:
        """Compute all paths, each field of order 1 once.

        Returns
        -------
        ndarray of shape (n_paths, n_channels, n_exponents)
        """

        def epsilon(path: Path, constant: float) -> NDArray[np.float64]:
            if path.degree == 0:
                return np.zeros(len(self.weights))
            peak = path_peak(path, sigma)
            return softening * peak / (self.field_unit[:, 0] * constant)

        def scaled(moments: NDArray[np.float64], constant: float) -> Any:
            return (self.power_unit * constant) ** self.Q * moments

        found = {}
        density = Path((), 0)
        if density in paths:
            moments, _ = self.atoms(0, sigma, epsilon(density, 1.0))
            found[density] = scaled(moments, sigma**-3)
        for j1, degree in sorted({(p.scales[0], p.degree) for p in paths if p.scales}):
            scale1 = sigma * 2**j1
            width = hypot(sigma, scale1)
            second_scales = {
                p.scales[1]
                for p in paths
                if p.degree == degree and p.scales[:-1] == (j1,)
            }
            direct = degree == 0 and not self.accuracy.signed
            constant = (scale1 / width) ** degree * width**-3
            path = Path((j1,), degree)
            moments, smooth = self.atoms(
                degree,
                width,
                epsilon(path, constant),
                2 * scale1 if second_scales and not direct else None,
            )
            found[path] = scaled(moments, constant)
            for j2 in range(j1 + 1, max(second_scales, default=j1) + 1):
                path = Path((j1, j2), degree)
                scale2 = sigma * 2**j2
                width2 = hypot(width, scale2)
                if direct:
                    # Gaussians all the way, and nothing for the modulus to change.
                    if j2 in second_scales:
                        moments, _ = self.atoms(0, width2, epsilon(path, 1.0))
                        found[path] = scaled(moments, width2**-3)
                    continue
                assert smooth is not None
                if j2 > j1 + 1:
                    smooth = smooth.coarser()
                if j2 in second_scales:
                    rest = sqrt(scale2**2 - smooth.width**2)
                    constant2 = constant * (scale2 / rest) ** degree
                    moments = self.convolution(
                        smooth, degree, rest, width2, epsilon(path, constant2)
                    )
                    found[path] = scaled(moments, constant2)
        return np.stack([found[path] for path in paths])

    def atoms(
        self,
        degree: int,
        width: float,
        epsilon: NDArray[np.float64],
        next_scale: float | None = None,
    ) -> "tuple[NDArray[np.float64], _Smooth | None]":
        """Integrate the moduli of the fields of the atoms, and smooth them for order 2.

        Parameters
        ----------
        degree : int
        width : float
            Width t of the field of an atom.
        epsilon : ndarray of shape (n_channels,)
            Softening of the moduli.
        next_scale : float or None
            Smallest scale of the wavelets that the moduli will be convolved with.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
            Integrals of the powers of the moduli.
        smooth : _Smooth or None
            The moduli convolved with a Gaussian that those wavelets contain.
        """
        n_channels = len(self.weights)
        kinks = None
        if degree == 0 and self.accuracy.signed:
            (weights,) = self.weights
            kinks = self.accuracy.kink_width(self.frame.positions, weights, width)
            grid = kink_grid(self.frame, weights, width, kinks, self.accuracy)
        else:
            grid = fine_grid(self.frame, width, 1, degree, self.accuracy)
        smooth = (
            None if next_scale is None else _Smooth(self, width, next_scale, degree)
        )
        moments = np.zeros((n_channels, len(self.Q)))
        reach = self.accuracy.margin(degree) * width
        for tile in _tiles(grid, self.frame.positions, reach):
            part = None if smooth is None else _SmoothTile(smooth, tile)
            integrals = self._integrals(np.repeat(epsilon, len(tile.axes[2].points)))
            for block in self._atom_blocks(tile, degree, width, kinks):
                modulus = integrals.add(block)
                if part is not None:
                    part.add(modulus)
            moments += integrals.total(self.array(tile.axes[2].weights), n_channels)
            if part is not None:
                part.finish()
        return moments, smooth

    def _atom_blocks(
        self, tile: "_Tile", degree: int, width: float, kinks: float | None
    ) -> Iterator[Block]:
        """Compute the fields of the atoms on a tile: rows are channels and points in z,
        columns are points in x and y.
        """
        constant = (2 * pi) ** 1.5 * wavelet_constant(degree)
        x, y, z = (
            self.array(
                gaussian_factors(
                    r, axis.points, width, degree, self.accuracy.cut(degree)
                )
            )
            for axis, r in zip(
                tile.axes, self.frame.positions[tile.atoms].T, strict=True
            )
        )
        planar = self.kernels.atom_terms(x, y, tile.rows, tile.columns, degree)

        def components(weights: NDArray[np.float64]) -> list[tuple[Array, Array]]:
            xp = self.xp
            w = self.array(constant * weights.T[tile.atoms, :, np.newaxis])
            axial = [
                xp.reshape(w * z[c, ...][:, None, :], (len(tile.atoms), -1))
                for c in range(degree + 1)
            ]
            return [
                (_concat([axial[c] for c in harmonic], 0, xp).T, p)
                for harmonic, p in zip(solid_harmonics(degree), planar, strict=True)
            ]

        fields = components(self.weights)
        (envelope,) = components(np.abs(self.weights)) if kinks else (None,)
        wx, wy, _ = (axis.weights for axis in tile.axes)
        weights = self.array(wx[tile.rows] * wy[tile.columns])
        for part in _cut(weights.shape[0], _BLOCK // fields[0][0].shape[0]):
            if envelope is not None and kinks is not None:
                ((first, second),) = fields
                values = first @ second[:, part]
                around = envelope[0] @ envelope[1][:, part]
                kink = (values, around, kinks)
                yield Block(values * values, weights[part], kink)
            else:
                yield Block(
                    self.kernels.sum_of_squares(
                        [(a, p[:, part]) for a, p in fields], FLOOR**2
                    ),
                    weights[part],
                )

    def convolution(
        self,
        smooth: "_Smooth",
        degree: int,
        scale: float,
        width: float,
        epsilon: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Integrate the moduli of smooth fields convolved with the wavelets of a scale.

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
            Softening of the moduli.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
        """
        moments = np.zeros((len(self.weights), len(self.Q)))
        grid = fine_grid(self.frame, width, 2, degree, self.accuracy)
        reach = self.accuracy.margin(degree) * width
        for tile in _tiles(grid, self.frame.positions, reach):
            wx = tile.axes[0].weights
            for channel, blocks in self._convolved_blocks(smooth, tile, degree, scale):
                integrals = self._integrals(np.full(len(wx), epsilon[channel]))
                for block in blocks:
                    integrals.add(block)
                moments[channel] += integrals.total(self.array(wx), 1)[0]
        return moments

    def _convolved_blocks(
        self, smooth: "_Smooth", tile: "_Tile", degree: int, scale: float
    ) -> Iterator[tuple[int, Iterator[Block]]]:
        """Convolve smooth fields on a tile, channel by channel: rows are points in x,
        columns are points in y and z.
        """
        xp = self.xp
        cut = self.accuracy.wavelet_cut(degree)
        window = _window(smooth.grid, tile.axes, cut * scale)
        x, y, z = (
            self.array(
                gaussian_factors(to.points, axis.points[part], scale, degree, cut)
                * (axis.weights[part] / scale)
            )
            for to, axis, part in zip(tile.axes, smooth.grid, window, strict=True)
        )
        (_, _, n_x), (_, t_y, n_y), (_, t_z, n_z) = x.shape, y.shape, z.shape
        values = smooth.values[window[0], :, window[1], window[2]] + FLOOR
        # Even powers first: those of a harmonic then follow each other.
        powers = [*range(0, degree + 1, 2), *range(1, degree + 1, 2)]
        y = xp.reshape(xp.stack([y[b, ...] for b in powers], axis=1), (-1, n_y))
        along_y = xp.reshape(xp.matmul(y, values), (-1, (degree + 1) * n_z))
        # The last and longest matrix products are along x, the axis of the harmonics.
        components = []
        for harmonic in solid_harmonics(degree):
            planar = []
            for a, polynomial in harmonic.items():
                # Powers in between that do not occur have the factor zero.
                found = [powers.index(b) for b, _ in polynomial]
                first, last = min(found), max(found)
                terms = [
                    polynomial.get((b, degree - a - b), 0.0) * z[degree - a - b, ...].T
                    for b in powers[first : last + 1]
                ]
                plane = xp.matmul(
                    along_y[:, first * n_z : (last + 1) * n_z], _concat(terms, 0, xp)
                )
                planar.append(xp.reshape(plane, (n_x, -1)))
            constant = wavelet_constant(degree)
            axial = [constant * x[a, ...].T for a in harmonic]
            components.append((_concat(axial, 0, xp).T, _concat(planar, 0, xp)))
        _, wy, wz = (axis.weights for axis in tile.axes)
        weights = self.array(np.outer(wy, wz).ravel())
        n_columns = t_y * t_z

        def blocks(start: int) -> Iterator[Block]:
            for part in _cut(n_columns, _BLOCK // n_rows):
                columns = slice(start + part.start, start + part.stop)
                factors = [(a, p[:, columns]) for a, p in components]
                squared = self.kernels.sum_of_squares(factors, FLOOR**2)
                yield Block(squared, weights[part])

        n_rows = components[0][0].shape[0]
        for channel in range(len(self.weights)):
            yield channel, blocks(channel * n_columns)

    def _integrals(self, epsilon: NDArray[np.float64]) -> PowerIntegrals:
        """Make what integrates powers; `epsilon` is the softening of each row."""
        return PowerIntegrals(
            self.Q, self.scales, epsilon, self.rounding, self.kernels, self.xp
        )

    def array(self, values: NDArray[np.float64]) -> Array:
        """Move an array to where the fields are computed."""
        return self.xp.asarray(values, dtype=self.dtype)


class _Smooth:
    """Fields convolved with a Gaussian, on a coarse grid, for wavelets of a scale."""

    def __init__(
        self, molecule: _Molecule, width: float, scale: float, degree: int
    ) -> None:
        self.grid = coarse_grid(molecule.frame, width, scale, degree, molecule.accuracy)
        n_x, n_y, n_z = (len(axis.points) for axis in self.grid)
        self.values = molecule.xp.zeros(
            (n_x, len(molecule.weights), n_y, n_z), dtype=molecule.dtype
        )
        self.width = SMOOTHING * scale
        self._field_width = width
        self._scale = scale
        self._degree = degree
        self.molecule = molecule

    @property
    def cut(self) -> float:
        """Where Gaussians that smooth are cut, in their width."""
        return self.molecule.accuracy.smoothing_cut(self._degree)

    def coarser(self) -> "_Smooth":
        """Smooth the fields further, for wavelets of twice the scale."""
        xp = self.molecule.xp
        result = _Smooth(
            self.molecule, self._field_width, 2 * self._scale, self._degree
        )
        width = sqrt(result.width**2 - self.width**2)
        cuts = [_cut(len(axis.points), _SIDE) for axis in result.grid]
        for parts in product(*cuts):
            axes = tuple(
                Axis(axis.points[part], axis.weights[part])
                for axis, part in zip(result.grid, parts, strict=True)
            )
            window = _window(self.grid, axes, self.cut * width)
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
        factors = gaussian_factors(points, axis.points, width, 0, self.cut)
        return self.molecule.array(factors[0] * (axis.weights / (sqrt(2 * pi) * width)))


class _SmoothTile:
    """What the fields on a tile add to the smooth ones."""

    def __init__(self, smooth: _Smooth, tile: "_Tile") -> None:
        self._smooth = smooth
        self._tile = tile
        self._window = _window(smooth.grid, tile.axes, smooth.cut * smooth.width)
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
        field = molecule.kernels.spread(
            _concat(self._layers, 2, molecule.xp),
            tile.rows,
            tile.columns,
            self._x.shape[1],
            self._y.shape[1],
        )
        field = molecule.xp.matmul(molecule.xp.matmul(self._x, field), self._y.T)
        x, y, z = self._window
        self._smooth.values[x, :, y, z] += molecule.xp.permute_dims(field, (2, 0, 3, 1))


class _Tile(NamedTuple):
    """A part of a grid, without the columns along z that are far from every atom."""

    axes: Grid
    atoms: NDArray[np.int64]  # those within reach
    rows: NDArray[np.int64]  # indices of the columns in x
    columns: NDArray[np.int64]  # and in y


def _tiles(grid: Grid, positions: NDArray[np.float64], reach: float) -> Iterator[_Tile]:
    """Cut a grid into tiles of few atoms each, leaving out the empty ones."""

    def near(axis: int, atoms: NDArray[np.int64]) -> Iterator[tuple[Axis, Any]]:
        """Yield parts along an axis, with those of the atoms that are within reach."""
        r = positions[atoms, axis]
        for part in _parts(grid[axis]):
            first, last = part.points[[0, -1]]
            found = atoms[(r > first - reach) & (r < last + reach)]
            if len(found):
                yield part, found

    for x, near_x in near(0, np.arange(len(positions))):
        for y, near_xy in near(1, near_x):
            for z, atoms in near(2, near_xy):
                rows, columns = near_columns(
                    x.points, y.points, positions[atoms], reach
                )
                if len(rows):
                    yield _Tile((x, y, z), atoms, rows, columns)


def _parts(axis: Axis) -> list[Axis]:
    """Cut an axis into parts of some points."""
    return [
        Axis(axis.points[part], axis.weights[part])
        for part in _cut(len(axis.points), _SIDE)
    ]


def _cut(length: int, size: int) -> list[slice]:
    """Cut a length into pieces of nearly equal size."""
    n = ceil(length / max(size, 1))
    return [slice(i * length // n, (i + 1) * length // n) for i in range(n)]


def _window(grid: Grid, part: Sequence[Axis], reach: float) -> tuple[slice, ...]:
    """Find the part of a grid that is within reach of points."""
    return tuple(
        slice(*np.searchsorted(axis.points, (p[0] - reach, p[-1] + reach)).tolist())
        for axis, (p, _) in zip(grid, part, strict=True)
    )


def _concat(arrays: Sequence[Array], axis: int, xp: Any) -> Array:
    """Concatenate without a copy of what is one already."""
    return arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=axis)
