"""Compiled passes against array functions on the same tiles."""

import numpy as np
import pytest
from engines import scatter
from numpy.testing import assert_allclose
from scipy.special import softmax

from skscatharm.engine.accuracy import Accuracy
from skscatharm.engine.fields import (
    AtomFields,
    ConvolvedFields,
    Densities,
    Smooth,
    SmoothTile,
)
from skscatharm.engine.frame import Frame
from skscatharm.engine.integrals import Powers
from skscatharm.engine.pooling import Windows
from skscatharm.engine.quadrature import fine_grid
from skscatharm.engine.separable import _Molecule
from skscatharm.engine.tiles import cut_into_tiles
from skscatharm.transform.modulus import power, soften
from skscatharm.transform.paths import scattering_paths

WIDTH, SCALE = 0.5, 0.9
EXPONENTS = np.array([0.5, 1, 2, 2.5, 3, 4])
SCALES = np.where(EXPONENTS > 3, 0.5, 1.0)
FLOOR = 1e-12


@pytest.fixture
def densities(rng) -> Densities:
    positions = rng.normal(size=(6, 3)) * (2, 1, 0.7)
    frame = Frame(positions, np.ones(6))
    weights = np.stack([np.ones(6), [1, 0, 2, 3, 0, 1]])
    return Densities(frame, weights, Accuracy(1e-4, 0.4), np, "float64")


def tiles(
    densities: Densities, degree: int, side: int, monkeypatch, reach: float = 3 * WIDTH
):
    """Tiles with all points of some columns."""
    monkeypatch.setattr("skscatharm.engine.tiles._SIDE", side)
    grid = fine_grid(densities.frame, WIDTH, 1, degree, densities.accuracy)
    found = []
    for tile in cut_into_tiles(grid, densities.frame.positions, reach):
        spans = np.repeat([[-np.inf], [np.inf]], len(tile.rows), axis=1)
        found.append(tile._replace(spans=spans))
    return found


def expected_powers(squared, epsilon):
    root, modulus = soften(squared + FLOOR, epsilon)
    powers = [
        power((squared + FLOOR) * s**2, root * s, modulus * s, epsilon * s, q)
        for q, s in zip(EXPONENTS.tolist(), SCALES.tolist(), strict=True)
    ]
    return modulus, np.stack(powers)


@pytest.mark.parametrize("epsilon", [[0.0, 0.0], [0.02, 0.5]])
@pytest.mark.parametrize("side", [80, 17])
@pytest.mark.parametrize("degree", [0, 1, 3, 5])
def test_atoms(degree, side, epsilon, densities, monkeypatch) -> None:
    epsilon = np.array(epsilon)
    fast, plain = (Smooth(densities, WIDTH, SCALE, degree) for _ in range(2))
    found = tiles(densities, degree, side, monkeypatch)
    assert (len(found) == 1) == (side > 17)
    for tile in found:
        fields = AtomFields(densities, tile, degree, WIDTH, None)
        part = SmoothTile(fast, tile)
        integrals = fields.integrate(Powers(EXPONENTS, SCALES, epsilon, FLOOR), part)
        (block,) = fields.blocks(10**9)
        squared = sum((a @ b) ** 2 for a, b in block.components)
        squared = squared.reshape(2, len(tile.axes[2].points), -1)
        modulus, powers = expected_powers(squared, epsilon[:, None, None])
        expected = np.einsum(
            "eczn,z,n->ce", powers, tile.axes[2].weights, block.weights
        )
        assert_allclose(integrals, expected, rtol=1e-10)
        part = SmoothTile(plain, tile)
        part.add_columns([part.along_z(modulus.reshape(-1, modulus.shape[2]))])
    assert np.abs(plain.values).max() > 1e-3
    assert_allclose(fast.values, plain.values, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("epsilon", [[0.0, 0.0], [0.02, 0.5]])
@pytest.mark.parametrize("side", [80, 17])
@pytest.mark.parametrize("degree", [1, 3, 5])
def test_convolutions(degree, side, epsilon, densities, monkeypatch, rng) -> None:
    smooth = Smooth(densities, WIDTH, SCALE, degree)
    smooth.values = rng.uniform(size=smooth.values.shape)
    for tile in tiles(densities, degree, side, monkeypatch, reach=np.inf):
        fields = ConvolvedFields(smooth, tile, degree, SCALE)
        integrals = fields.integrate(
            Powers(EXPONENTS, SCALES, np.array(epsilon), FLOOR)
        )
        for (_, blocks), low, row in zip(
            fields.blocks(10**9), epsilon, integrals, strict=True
        ):
            (block,) = blocks
            squared = sum((a @ b) ** 2 for a, b in block.components)
            _, powers = expected_powers(squared, low)
            expected = np.einsum(
                "exn,x,n->e", powers, tile.axes[0].weights, block.weights
            )
            assert_allclose(row, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "groups", [np.eye(6), [[1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 1]]]
)
def test_windows(groups, densities, monkeypatch) -> None:
    windows = Windows(densities.frame.positions, 0.7, np.asarray(groups, float))
    powers = Powers(EXPONENTS, SCALES, np.array([0.02, 0.5]), FLOOR)
    for tile in tiles(densities, 2, 80, monkeypatch):
        fields = AtomFields(densities, tile, 2, WIDTH, None)
        found = fields.integrate(powers, None, windows)
        assert_allclose(found.sum(axis=0), fields.integrate(powers, None), rtol=1e-9)
        (block,) = fields.blocks(10**9)
        squared = sum((a @ b) ** 2 for a, b in block.components)
        squared = squared.reshape(2, len(tile.axes[2].points), -1)
        _, values = expected_powers(squared, powers.epsilon[:, None, None])
        x, y, z = (axis.points for axis in tile.axes)
        at = np.stack(
            np.broadcast_arrays(x[tile.rows], y[tile.columns], z[:, None]), axis=-1
        )
        squares = ((at[..., None, :] - windows.positions) ** 2).sum(axis=-1)
        shares = softmax(-squares / (2 * 0.7**2), axis=-1)
        weights = shares * np.outer(tile.axes[2].weights, block.weights)[..., None]
        expected = np.einsum("ga,eczn,zna->gce", groups, values, weights)
        assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_points_out_of_reach_are_left_out(tol, softening, rng, monkeypatch) -> None:
    positions = rng.normal(size=(7, 3)) * (2, 1, 0.7)
    paths = scattering_paths(1, 2, 2)
    options = {"Q": (0.5, 1, 1.5, 2, 4), "tol": tol, "softening": softening}
    options |= {"dtype": "float64", "engine": "separable"}
    found = scatter(positions, np.ones((1, 7)), paths, **options)
    monkeypatch.setattr(_Molecule, "_in_one_pass", lambda self, field: False)
    expected = scatter(positions, np.ones((1, 7)), paths, **options)
    assert np.abs(found / expected - 1).max() > 1e-12
    assert_allclose(found, expected, rtol=0.05 * tol)
