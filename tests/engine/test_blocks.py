"""Blocks of a tile hold each point near an atom once, and know the atoms near them."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skscatharm.engine.blocks import (
    CELL,
    HEIGHT,
    cut_into_blocks,
    fill_distances,
    near_atoms,
)
from skscatharm.engine.compiled import near_columns
from skscatharm.engine.product_fields import Basis
from skscatharm.engine.product_jacobians import differentiate_all_products
from skscatharm.engine.products import integrate_products
from skscatharm.engine.quadrature import Axis
from skscatharm.engine.tiles import Tile

REACH = 2.0


@pytest.fixture(params=[(40, 30, 20), (70, 110, 95), (3, 1, 1)])
def tile(request, rng) -> Tile:
    positions = rng.uniform(-6, 6, size=(5, 3))
    axes = [np.linspace(-9, 9, n + 2)[1:-1] for n in request.param]
    x, y, z = (Axis(points, np.ones(len(points))) for points in axes)
    columns = near_columns(x.points, y.points, positions, REACH)
    return Tile((x, y, z), np.arange(5), *columns)


@pytest.mark.parametrize("in_rows", [True, False])
def test_each_near_point_is_in_one_block(tile, in_rows) -> None:
    n_columns = 24
    blocks = cut_into_blocks(tile, n_columns, in_rows)
    shape = tuple(len(axis.points) for axis in tile.axes)
    counts = np.zeros(shape, dtype=int)
    for start, stop, bottom, top in blocks.bounds:
        assert 0 < stop - start <= min(n_columns, blocks.n_columns)
        assert 0 < top - bottom <= min(HEIGHT, blocks.height)
        rows, columns = blocks.rows[start:stop], blocks.columns[start:stop]
        assert np.ptp(columns) < CELL[1]
        assert in_rows or np.ptp(rows) < CELL[0]
        counts[rows, columns, bottom:top] += 1
    z = tile.axes[2].points
    near = np.zeros(shape, dtype=bool)
    low, high = tile.spans[:, :, np.newaxis]
    near[tile.rows, tile.columns] = (low <= z) & (z <= high)
    assert counts.max(initial=0) <= 1
    assert np.all(counts[near] == 1)


def test_rows_stay_together(tile) -> None:
    blocks = cut_into_blocks(tile, 24, in_rows=True)
    for start, stop, _, _ in blocks.bounds:
        rows, columns = blocks.rows[start:stop], blocks.columns[start:stop]
        assert_array_equal(np.lexsort((columns, rows)), np.arange(stop - start))


def test_near_atoms(tile, rng) -> None:
    positions = rng.uniform(-9, 9, size=(3, 50))
    points = tuple(axis.points for axis in tile.axes)
    blocks = cut_into_blocks(tile, 24, False)
    distances, found = np.empty(50), np.empty(50, np.int64)
    for start, stop, bottom, top in blocks.bounds:
        rows, columns = blocks.rows[start:stop], blocks.columns[start:stop]
        box = [points[0][rows], points[1][columns], points[2][bottom:top]]
        least, largest = (
            np.array([end(values) for values in box])[:, np.newaxis]
            for end in (np.min, np.max)
        )
        off = np.maximum(least - positions, positions - largest).max(axis=0)
        fill_distances(positions, points, rows, columns, bottom, top, distances)
        assert_array_equal(distances, off)
        for reach in (0.5, 3.0, 30.0):
            n = near_atoms(distances, reach, found)
            expected = np.flatnonzero(off < reach)
            assert_array_equal(found[:n], expected if len(expected) else [0])


def test_a_tile_without_points() -> None:
    x, y, z = (Axis(np.linspace(low, low + 3, 9), np.ones(9)) for low in (-1, -1, 5))
    columns = near_columns(x.points, y.points, np.zeros((1, 3)), REACH)
    tile = Tile((x, y, z), np.arange(1), *columns)
    assert len(tile.rows) > 0
    assert len(cut_into_blocks(tile, 10, in_rows=False).bounds) == 0
    atom, width, ones = np.zeros((3, 1)), np.ones(1), np.ones((1, 1))
    basis = Basis.of(ones, np.zeros(1, np.int64))
    products, powers = integrate_products(
        atom, basis, tile, width, 0, 5.0, width, width, ones[None], 0.0, True
    )
    derivatives = differentiate_all_products(
        atom, basis, tile, width, ones, 5.0, width, ones[None], True, "float64"
    )
    for found in (products, powers, derivatives):
        assert not found.any()
