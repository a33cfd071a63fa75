"""Blocks of a tile, worked on at a time in compiled passes, and the atoms near them.

A block is some columns along z, close to each other, between two values of z. Its
arrays stay in the cache of the processor, and its fields are those of few atoms.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.tiles import Tile

__all__ = [
    "CELL",
    "HEIGHT",
    "Blocks",
    "as_matrix",
    "cut_into_blocks",
    "fill_distances",
    "fill_near",
    "fill_weights",
    "near_atoms",
]

Array = NDArray[Any]

# Points in x and y of the cells that columns of a block are from, and most in z.
CELL, HEIGHT = (8, 48), 40


class Blocks(NamedTuple):
    """Blocks of a tile.

    Attributes
    ----------
    rows, columns : ndarray of int of shape (n_columns,)
        Indices into x and y, of the columns along z.
    bounds : ndarray of int of shape (n_blocks, 4)
        Columns, from and to, and points in z, from and to.
    n_columns, height : int
        The most columns, and points in z, of a block.
    """

    rows: Array
    columns: Array
    bounds: Array
    n_columns: int
    height: int


def cut_into_blocks(tile: Tile, n_columns: int, in_rows: bool) -> Blocks:
    """Cut a tile into blocks.

    Parameters
    ----------
    tile : Tile
    n_columns : int
        The most columns of a block.
    in_rows : bool
        Whether columns of a row follow each other. Otherwise, columns of a block are of
        about the same length, so that there are fewer points.
    """
    x, y, z = (axis.points for axis in tile.axes)
    return Blocks(
        *_cut(
            tile.rows, tile.columns, tile.spans, len(x), len(y), z, n_columns, in_rows
        )
    )


@compile_loops
def _cut(
    rows: Any,
    columns: Any,
    spans: Any,
    n_x: int,
    n_y: int,
    z: Any,
    n_columns: int,
    in_rows: bool,
) -> Any:
    # Columns of a cell follow each other, by rows or by numbers of points.
    n_slabs = 1 if in_rows else (n_x + CELL[0] - 1) // CELL[0]
    n_strips = (n_y + CELL[1] - 1) // CELL[1]
    n_cells, n_keys = n_slabs * n_strips, n_x if in_rows else len(z) + 1
    of_row, of_column = np.empty(n_x, np.int64), np.empty(n_y, np.int64)
    for i in range(n_x):
        of_row[i] = i * n_slabs // n_x * (n_strips * n_keys)
    for i in range(n_y):
        of_column[i] = i * n_strips // n_y * n_keys
    starts = np.zeros(n_cells * n_keys + 1, np.int64)
    # Numba would compile functions once more for literals.
    keys, bottom, top = np.empty(len(rows), np.int64), np.int64(0), np.int64(0)
    for k in range(len(rows)):
        rank = rows[k]
        if not in_rows:
            bottom, top = _points_within(z, spans[0, k], spans[1, k], bottom, top)
            rank = max(top - bottom, 0)
        keys[k] = of_row[rows[k]] + of_column[columns[k]] + rank
        starts[keys[k] + 1] += 1
    for k in range(len(starts) - 1):
        starts[k + 1] += starts[k]
    ends, in_order = starts.copy(), np.empty((2, len(rows)), np.int64)
    spans_in_order = np.empty(spans.shape)
    for k in range(len(rows)):
        place = ends[keys[k]]
        in_order[0, place], in_order[1, place] = rows[k], columns[k]
        for i in range(2):
            spans_in_order[i, place] = spans[i, k]
        ends[keys[k]] = place + 1
    most = (n_cells + len(rows)) * (len(z) // HEIGHT + 1)
    bounds, n, widest, highest = np.empty((most, 4), np.int64), 0, 0, 0
    for cell in range(n_cells):
        first, last = starts[cell * n_keys], starts[(cell + 1) * n_keys]
        if not in_rows:
            first = starts[cell * n_keys + 1]  # without columns that have no points
        n_blocks = (last - first + n_columns - 1) // n_columns
        for block in range(n_blocks):
            start = first + (last - first) * block // n_blocks
            stop = first + (last - first) * (block + 1) // n_blocks
            least, largest = np.inf, -np.inf
            for k in range(start, stop):
                least = min(least, spans_in_order[0, k])
                largest = max(largest, spans_in_order[1, k])
            bottom, top = _points_within(z, least, largest, bottom, top)
            n_pieces = (max(top - bottom, 0) + HEIGHT - 1) // HEIGHT
            for piece in range(n_pieces):
                bounds[n, 0], bounds[n, 1] = start, stop
                bounds[n, 2] = bottom + (top - bottom) * piece // n_pieces
                bounds[n, 3] = bottom + (top - bottom) * (piece + 1) // n_pieces
                widest = max(widest, stop - start)
                highest = max(highest, bounds[n, 3] - bounds[n, 2])
                n += 1
    return in_order[0], in_order[1], bounds[:n].copy(), widest, highest


@compile_loops
def _points_within(
    points: Any, least: float, largest: float, bottom: int, top: int
) -> tuple[int, int]:
    """Find the points between two values, from and to, starting from a guess."""
    while bottom > 0 and points[bottom - 1] >= least:
        bottom -= 1
    while bottom < len(points) and points[bottom] < least:
        bottom += 1
    while top > 0 and points[top - 1] > largest:
        top -= 1
    while top < len(points) and points[top] <= largest:
        top += 1
    return bottom, top


@compile_loops
def as_matrix(buffer: Any, n_rows: int, n_columns: int) -> Any:
    """Take the first values of a buffer as a matrix."""
    return buffer[: n_rows * n_columns].reshape(n_rows, n_columns)


@compile_loops
def fill_distances(
    positions: Any,
    points: Any,
    rows: Any,
    columns: Any,
    bottom: int,
    top: int,
    distances: Any,
) -> None:
    """Compute the distance of each atom from the box around a block: the largest one
    along an axis, negative within the box.

    Parameters
    ----------
    positions : ndarray of shape (3, n_atoms)
    points : tuple of three ndarrays
        Of the axes.
    rows, columns : ndarray of int of shape (n_columns,)
        Indices into the first two.
    bottom, top : int
        Points in z, from and to.
    distances : ndarray of shape (n_atoms,)
        Is filled.
    """
    x, y, z = points
    x_0, x_1, y_0, y_1 = np.inf, -np.inf, np.inf, -np.inf
    for k in range(len(rows)):
        in_x, in_y = x[rows[k]], y[columns[k]]
        x_0, x_1 = min(x_0, in_x), max(x_1, in_x)
        y_0, y_1 = min(y_0, in_y), max(y_1, in_y)
    z_0, z_1 = z[bottom], z[top - 1]
    for i in range(len(distances)):
        off_x = max(x_0 - positions[0, i], positions[0, i] - x_1)
        off_y = max(y_0 - positions[1, i], positions[1, i] - y_1)
        off_z = max(z_0 - positions[2, i], positions[2, i] - z_1)
        distances[i] = max(off_x, off_y, off_z)


@compile_loops
def near_atoms(distances: Any, reach: float, found: Any) -> int:
    """Find the atoms within a distance: fill in their indices, and return their number.

    There is at least one, so that there are matrices to multiply.
    """
    n = 0
    for i in range(len(distances)):
        if distances[i] < reach:
            found[n] = i
            n += 1
    if n == 0:
        found[0] = 0
    return max(n, 1)


@compile_loops
def fill_weights(
    rows: Any, columns: Any, along_x: Any, along_y: Any, along_z: Any, weights: Any
) -> None:
    """Fill in the weights of points: those of one z after the other."""
    n = len(rows)
    planar = np.empty(n, weights.dtype)
    for k in range(n):
        planar[k] = along_x[rows[k]] * along_y[columns[k]]
    for j in range(len(along_z)):
        for k in range(n):
            weights[j * n + k] = along_z[j] * planar[k]


@compile_loops
def fill_near(
    axial: Any, powers_of_z: Any, atoms: Any, bottom: int, n_channels: int, near: Any
) -> None:
    """Choose factors along z of the terms: of some atoms, points from `bottom` on.

    In `axial` and `near`, rows are those of one channel after the other.
    """
    n_near = len(atoms)
    n, n_z = near.shape[1] // n_channels, axial.shape[2] // n_channels
    for p in range(len(powers_of_z)):
        for i in range(n_near):
            to, found = near[p * n_near + i], axial[powers_of_z[p], atoms[i]]
            for c in range(n_channels):
                to_points = to[c * n : (c + 1) * n]
                points = found[c * n_z + bottom : c * n_z + bottom + n]
                for k in range(n):
                    to_points[k] = points[k]
