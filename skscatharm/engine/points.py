"""Fields at points that a user chooses, instead of those of a quadrature rule.

Points are scattered, or those of a tensor grid, on which fields are matrix products as
on the grids of the separable engine. Fields come for one part of the points at a time.
"""

from collections.abc import Iterator
from copy import copy
from math import pi

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.compiled import gaussian_factors
from skscatharm.engine.fields import AtomFields, ConvolvedFields, Densities, Smooth
from skscatharm.engine.quadrature import Axis, Grid
from skscatharm.engine.tiles import Tile, cut, cut_grid, window
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant

__all__ = ["Lattice", "Points", "Scattered"]

_Array = NDArray[np.float64]
#: Where the points are in the result, and the components of the fields there, of shape
#: (2 * degree + 1, n_channels, *shape of these points). Fields vanish where none comes.
Part = tuple[tuple[slice, ...], _Array]

_NUMBERS = 2**20  # of an array, so that it stays small


class Scattered:
    """Points anywhere.

    Parameters
    ----------
    points : ndarray of shape (n_points, 3)
    """

    def __init__(self, points: _Array) -> None:
        self.points = points
        self.shape: tuple[int, ...] = (len(points),)
        self.box = points.min(axis=0), points.max(axis=0)

    def seen_from(self, centre: _Array) -> "Scattered":
        """Move the origin to a centre."""
        return Scattered(self.points - centre)

    def atom_fields(
        self, densities: Densities, degree: int, width: float
    ) -> Iterator[Part]:
        """Yield the fields of atoms: wavelets of a degree and a width."""
        positions = densities.frame.positions
        weights = densities.weights * ((2 * pi) ** 1.5 * wavelet_constant(degree))
        for part in cut(
            len(self.points), _NUMBERS // ((degree + 1) * len(positions)) + 1
        ):
            x, y, z = (
                gaussian_factors(r, at, -width, degree, np.inf)
                for r, at in zip(positions.T, self.points[part].T, strict=True)
            )
            components = [
                sum(p * x[a] * y[b] * z[c] for (a, b, c), p in monomials)
                for monomials in _monomials(degree)
            ]
            yield (part,), np.stack([weights @ of_atoms for of_atoms in components])

    def convolved_fields(
        self, smooth: Smooth, degree: int, scale: float
    ) -> Iterator[Part]:
        """Yield smooth fields convolved with wavelets of a degree and a scale."""
        cut_at = smooth.densities.accuracy.wavelet_cut(degree)
        harmonics = np.zeros((2 * degree + 1, *[degree + 1] * 3))
        for m, monomials in enumerate(_monomials(degree)):
            for powers, p in monomials:
                harmonics[m, *powers] = p * wavelet_constant(degree)
        for i, point in enumerate(self.points):
            axes = [Axis(along, along) for along in point[:, np.newaxis]]
            within = window(smooth.grid, axes, cut_at * scale)
            x, y, z = (
                gaussian_factors(to, axis.part(w).points, scale, degree, cut_at)[:, 0]
                * (axis.part(w).weights / scale)
                for (to, _), axis, w in zip(axes, smooth.grid, within, strict=True)
            )
            values = smooth.values[within[0], :, within[1], within[2]]
            values = np.tensordot(x, values, (1, 0))  # (a, n_channels, n_y, n_z)
            values = np.matmul(y, np.matmul(values, z.T))  # (a, n_channels, b, c)
            components = np.einsum("mabc,akbc->mk", harmonics, values)
            yield (slice(i, i + 1),), components[..., np.newaxis]


class Lattice:
    """The points of a tensor grid.

    Parameters
    ----------
    axes : three ndarrays of shape (n_x,), (n_y,) and (n_z,)
        Coordinates, each in increasing order.
    """

    def __init__(self, axes: tuple[_Array, _Array, _Array]) -> None:
        x, y, z = (Axis(along, np.ones_like(along)) for along in axes)
        self.grid: Grid = (x, y, z)
        self.shape: tuple[int, ...] = tuple(map(len, axes))
        ends = np.array([along[[0, -1]] for along in axes])
        self.box = ends[:, 0], ends[:, 1]

    def seen_from(self, centre: _Array) -> "Lattice":
        """Move the origin to a centre."""
        x, y, z = (axis.points - at for axis, at in zip(self.grid, centre, strict=True))
        return Lattice((x, y, z))

    def atom_fields(
        self, densities: Densities, degree: int, width: float
    ) -> Iterator[Part]:
        """Yield the fields of atoms: wavelets of a degree and a width."""
        positions = densities.frame.positions
        reach = densities.accuracy.cut(degree) * width
        # The engine measures distances from the points to the atoms.
        sign = (-1) ** degree
        for part, tile in self._tiles():
            n_x, n_y, n_z = (len(axis.points) for axis in tile.axes)
            low, high = np.array([axis.points[[0, -1]] for axis in tile.axes]).T
            near = (positions > low - reach) & (positions < high + reach)
            atoms = np.flatnonzero(near.all(axis=1))
            if len(atoms) == 0:
                continue
            tile = tile._replace(atoms=atoms)
            fields = AtomFields(densities, tile, degree, width, None)
            (block,) = fields.blocks(n_x * n_y * n_z * len(densities.weights))
            components = np.stack([sign * (a @ b) for a, b in block.components])
            components = components.reshape(2 * degree + 1, -1, n_z, n_x, n_y)
            yield part, np.moveaxis(components, 2, 4)

    def convolved_fields(
        self, smooth: Smooth, degree: int, scale: float
    ) -> Iterator[Part]:
        """Yield smooth fields convolved with wavelets of a degree and a scale."""
        # ConvolvedFields has the axis of the harmonics first, which is z elsewhere.
        turned = copy(smooth)
        turned.grid = _z_first(smooth.grid)
        turned.values = np.transpose(smooth.values, (3, 1, 0, 2))
        reach = smooth.densities.accuracy.wavelet_cut(degree) * scale
        for part, tile in self._tiles():
            within = window(smooth.grid, tile.axes, reach)
            if any(w.start == w.stop for w in within):
                continue
            n_z, *n_xy = (len(axis.points) for axis in _z_first(tile.axes))
            tile = tile._replace(axes=_z_first(tile.axes))
            fields = ConvolvedFields(turned, tile, degree, scale)
            channels = [
                np.stack([a @ b for a, b in block.components])
                for _, blocks in fields.blocks(n_z * n_xy[0] * n_xy[1])
                for block in blocks
            ]
            components = np.stack(channels, axis=1)
            components = components.reshape(2 * degree + 1, -1, n_z, *n_xy)
            yield part, np.moveaxis(components, 2, 4)

    def _tiles(self) -> Iterator[tuple[tuple[slice, ...], Tile]]:
        for part, axes in cut_grid(self.grid):
            n_x, n_y = len(axes[0].points), len(axes[1].points)
            rows, columns = np.divmod(np.arange(n_x * n_y), n_y)
            spans = np.repeat([[-np.inf], [np.inf]], n_x * n_y, axis=1)
            yield part, Tile(axes, np.arange(0), rows, columns, spans)


Points = Scattered | Lattice


def _z_first(grid: Grid) -> Grid:
    x, y, z = grid
    return z, x, y


def _monomials(degree: int) -> list[list[tuple[tuple[int, int, int], float]]]:
    """List powers of x, y and z, with their factors, of each solid harmonic."""
    return [
        [((a, b, c), p) for c, terms in harmonic.items() for (a, b), p in terms.items()]
        for harmonic in solid_harmonics(degree)
    ]
