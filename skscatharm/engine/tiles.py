"""Parts of a grid that are worked on at a time."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.compiled import near_columns
from skscatharm.engine.quadrature import Axis, Grid

__all__ = ["Tile", "cut", "cut_grid", "cut_into_tiles", "window"]

_SIDE = 80  # points of a tile along an axis


class Tile(NamedTuple):
    """A part of a grid, without the columns along z that are far from every atom."""

    axes: Grid
    atoms: NDArray[np.int64]  # those within reach
    rows: NDArray[np.int64]  # indices of the columns in x
    columns: NDArray[np.int64]  # and in y
    spans: NDArray[np.float64]  # least and largest z within reach: (2, n_columns)


def cut_into_tiles(
    grid: Grid,
    positions: NDArray[np.float64],
    reach: float,
    effect: float | None = None,
) -> Iterator[Tile]:
    """Cut a grid into tiles of few atoms each, leaving out the empty ones.

    Parameters
    ----------
    grid : Grid
    positions : ndarray of shape (n_atoms, 3)
    reach : float
        Distance from the nearest atom, from which on columns are left out.
    effect : float or None, default=None
        Distance up to which an atom has an effect. None means `reach`.

    Yields
    ------
    Tile
    """
    if effect is None:
        effect = reach
    every = np.arange(len(positions))
    if max(len(axis.points) for axis in grid) <= _SIDE:
        x, y, _ = grid
        yield Tile(grid, every, *near_columns(x.points, y.points, positions, reach))
        return

    def near(axis: int, atoms: NDArray[np.int64]) -> Iterator[tuple[Axis, Any]]:
        """Yield parts along an axis, with those of the atoms that are within reach."""
        r = positions[atoms, axis]
        for part in _parts(grid[axis]):
            axis_part = grid[axis].part(part)
            first, last = axis_part.points[[0, -1]]
            found = atoms[(r > first - effect) & (r < last + effect)]
            if len(found):
                yield axis_part, found

    for x, near_x in near(0, every):
        for y, near_xy in near(1, near_x):
            for z, atoms in near(2, near_xy):
                columns = near_columns(x.points, y.points, positions[atoms], reach)
                if len(columns[0]):
                    yield Tile((x, y, z), atoms, *columns)


def cut_grid(grid: Grid) -> Iterator[tuple[tuple[slice, ...], Grid]]:
    """Cut a grid into parts of some points: yield their slices and their axes."""
    for x in _parts(grid[0]):
        for y in _parts(grid[1]):
            for z in _parts(grid[2]):
                yield (x, y, z), (grid[0].part(x), grid[1].part(y), grid[2].part(z))


def _parts(axis: Axis) -> list[slice]:
    return cut(len(axis.points), _SIDE)


def cut(length: int, size: int) -> list[slice]:
    """Cut a length into pieces of nearly equal size."""
    n = ceil(length / max(size, 1))
    return [slice(i * length // n, (i + 1) * length // n) for i in range(n)]


def window(grid: Grid, part: Sequence[Axis], reach: float) -> tuple[slice, ...]:
    """Find the part of a grid that is within reach of points."""
    return tuple(
        slice(*np.searchsorted(axis.points, (p[0] - reach, p[-1] + reach)).tolist())
        for axis, (p, _) in zip(grid, part, strict=True)
    )
