"""The references agree with each other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import (
    dense,
    gaussian_products,
    one_atom,
    pair_sum,
    planar,
    two_atoms,
)
from scipy.spatial.transform import Rotation

SIGMA = 0.5
SHIFT = (0.25, 0.4, 0.1)
Q = (0.5, 1, 2, 3)
BENT = np.array([[0, 0, 0], [0.9, 0.3, 0], [-0.4, 0.8, 0]])
TURN = Rotation.random(None, 1)


@pytest.mark.parametrize("degree", [1, 3])
def test_an_atom_with_softening(degree) -> None:
    paths = [(0,), (1,), (0, 1)]
    found = dense([[0.1, 0, 0.2]], [[6.0]], paths, degree, Q, SIGMA, 4.0, shift=SHIFT)
    for path in paths:
        expected = [one_atom(6.0, path, degree, q, SIGMA, 4.0) for q in Q]
        assert_allclose(found[path][0], expected, rtol=5e-9)


@pytest.mark.parametrize("degree", [2, 3])
def test_an_atom_without_softening(degree) -> None:
    paths = [(0,), (0, 1)]
    found = dense([[0, 0, 0]], [[-6.0]], paths, degree, Q, SIGMA, step=0.2, shift=SHIFT)
    for path in paths:
        # Of order 2 and degree 3, all of a sphere is zero.
        rtol = 3e-4 if (degree, path) == (3, (0, 1)) else 2e-6
        expected = [one_atom(-6.0, path, degree, q, SIGMA) for q in Q]
        assert_allclose(found[path][0], expected, rtol=rtol)


def test_little_softening_is_none() -> None:
    for path in [(0,), (0, 1)]:
        for q in (0.5, 1):
            found = one_atom(2.0, path, 2, q, SIGMA, 1e-9)
            assert_allclose(found, one_atom(2.0, path, 2, q, SIGMA), rtol=1e-3)


@pytest.mark.parametrize("weights", [(6.0, 1.0), (6.0, 6.0), (1.0, -0.5)])
@pytest.mark.parametrize("degree", [1, 2, 3, 8])
def test_two_atoms(degree, weights) -> None:
    distance = 1.1
    positions = TURN.apply([[0, 0, 0], [0, 0, distance]])
    for softening, rtol in ((0.0, 2e-5), (4.0, 5e-7)):
        found = dense(
            positions, weights, [(0,)], degree, Q, SIGMA, softening, 0.22, shift=SHIFT
        )
        options = {"sigma": SIGMA, "softening": softening}
        expected = [two_atoms(distance, weights, (0,), degree, q, **options) for q in Q]
        assert_allclose(found[0,][0], expected, rtol=rtol)
        pairs = pair_sum(positions, np.array(weights), (0,), degree, SIGMA)
        assert_allclose(expected[2], pairs, rtol=1e-11)


@pytest.mark.parametrize("q", [0.5, 1, 1.5, 4, 10])
@pytest.mark.parametrize("path", [(), (0,), (1,)])
def test_two_atoms_of_opposite_signs_in_degree_0(path, q) -> None:
    distance, weights = 0.7, (1.0, -0.5)
    expected = two_atoms(distance, weights, path, 0, q, SIGMA)
    angle = [[0, 0, 0], [0.6 * distance, 0.8 * distance, 0]]
    along = [[0, 0, 0], [distance, 0, 0]]
    for positions in (angle, along):
        assert_allclose(planar(positions, weights, path, q, SIGMA), expected, rtol=1e-9)


@pytest.mark.parametrize("weights", [(8.0, 1.0, 2.0), (1.0, -0.3, 0.2)])
@pytest.mark.parametrize("path", [(), (0,), (0, 1)])
def test_three_atoms_in_degree_0(path, weights) -> None:
    weights = np.array(weights)
    signed = weights.min() < 0
    for q in (2,) if signed else (1, 2, 3):
        found = planar(BENT, weights, path, q, SIGMA)
        if len(path) < 2 or not signed:
            expected = gaussian_products(BENT, weights, path, q, SIGMA)
            assert_allclose(found, expected, rtol=1e-11)
    # Sums over a grid do not see where the sign changes.
    step, rtol = (0.1, 2e-4) if signed else (0.45, 1e-9)
    positions = TURN.apply(BENT)
    found = dense(
        positions, weights, [path], 0, (1, 3), SIGMA, step=step, shift=SHIFT, margin=7
    )
    expected = [planar(BENT, weights, path, q, SIGMA) for q in (1, 3)]
    assert_allclose(found[path][0], expected, rtol=rtol)


def test_halving_the_step_of_a_molecule() -> None:
    rng = np.random.default_rng(0)
    positions, weights = rng.normal(size=(4, 3)), [[1.0, 8, 6, 1], [1, 2, 4, -1]]
    paths = [(0,), (0, 1)]
    for degree in (1, 3):
        fine, coarse = (
            dense(positions, weights, paths, degree, Q, SIGMA, 4.0, step=step)
            for step in (0.2, 0.3)
        )
        for path in paths:
            assert_allclose(coarse[path], fine[path], rtol=2e-5)
            assert np.abs(coarse[path] / fine[path] - 1).max() > 1e-12
