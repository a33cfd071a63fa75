from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from skscatharm.engine.quadrature import (
    coarse_grid,
    fine_grid,
    fine_step,
    margin,
    principal_axes,
    tensor_grid,
)

WIDTH = 0.31


@pytest.fixture
def positions() -> np.ndarray:
    return principal_axes(np.random.default_rng(0).uniform(-3, 3, size=(12, 3)))


def integrate(values: np.ndarray, grid) -> float:
    return np.einsum("xyz,x,y,z->", values, *(axis.weights for axis in grid))


@pytest.mark.parametrize("step", [0.3, 0.65])
@pytest.mark.parametrize("q", [0.5, 1, 2, 3])
def test_gaussians_anywhere_are_integrated_exactly(q, step, positions) -> None:
    grid = tensor_grid(positions, WIDTH, step, margin(0, 2e-4, 0.0), 0.85, 1.5)
    for centre in positions:
        x, y, z = (
            np.exp(-q * ((axis.points - r) / WIDTH) ** 2 / 2)
            for axis, r in zip(grid, centre, strict=True)
        )
        integral = integrate(np.einsum("x,y,z->xyz", x, y, z), grid)
        assert_allclose(integral, (2 * np.pi / q) ** 1.5 * WIDTH**3, rtol=1e-5)


def test_step_among_the_atoms_and_beyond(positions) -> None:
    for axis, extent in zip(
        tensor_grid(positions, WIDTH, 0.4, 7, 0.85, 1.5),
        np.abs(positions).max(axis=0),
        strict=True,
    ):
        steps = np.diff(axis.points) / WIDTH
        middle = np.abs(axis.points[:-1]) < extent
        assert_allclose(steps[middle], 0.4, rtol=0.05)
        assert_allclose(steps[[0, -1]], 0.85, rtol=0.05)
        assert np.abs(axis.points).max() > extent + 6 * WIDTH


def test_coarse_grid_is_coarser_than_a_fine_one(positions) -> None:
    fine = fine_grid(positions, 1, 3, WIDTH, 2e-4, 0.0)
    coarse = coarse_grid(positions, 1.3 * WIDTH, 1.1 * WIDTH)
    for f, c in zip(fine, coarse, strict=True):
        assert len(c.points) < 0.75 * len(f.points)


def test_steps_shrink_with_the_tolerance() -> None:
    for order in (1, 2):
        for degree in (1, 2, 3, 4):
            assert_allclose(
                fine_step(order, degree, WIDTH, 2e-4, 0.0),
                fine_step(order, degree, WIDTH, 2e-5, 0.0) * 10**0.27,
            )
            assert_allclose(
                fine_step(order, degree, WIDTH, 5e-5, 4.0),
                fine_step(order, degree, WIDTH, 5e-6, 4.0) * 10**0.15,
            )


def test_softening_allows_larger_steps() -> None:
    for order, degree in product((1, 2), (1, 2, 3, 4)):
        softenings = (0.0, 0.1, 0.5, 1.0, 4.0, 20.0)
        steps = [fine_step(order, degree, WIDTH, 1e-5, s) for s in softenings]
        assert steps == sorted(steps)
        assert steps[-1] == steps[-2] > 1.2 * steps[0]
        assert steps[1] == steps[0]
    assert fine_step(1, 0, WIDTH, 1e-5, 4.0) == fine_step(1, 0, WIDTH, 1e-5, 0.0)


@pytest.mark.parametrize("softening", [1e-3, 0.5, 4.0])
def test_margin_leaves_nothing_of_softened_moduli(softening) -> None:
    # In units of the largest modulus of an atom of weight 1; this atom has 4.
    r = np.linspace(0, 12, 120_001)
    for degree in (1, 3, 6):
        field = r**degree * np.exp(-(r**2) / 2)
        squared = (4 * field / field.max()) ** 2
        ratio = squared / softening**2
        for q in (0.5, 1, 3):
            powers = r * np.expm1(q / 2 * np.log1p(ratio))
            outside = powers[r > margin(degree, 1e-5, softening)].sum() / powers.sum()
            assert outside < 1e-5


def test_margin_leaves_nothing_outside() -> None:
    r = np.linspace(0, 40, 400_001)
    for degree in (0, 1, 3, 6):
        field = r ** (1 + degree / 2) * np.exp(-(r**2) / 4)
        outside = field[r > margin(degree, 2e-4, 0.0)].sum() / field.sum()
        assert outside == pytest.approx(1.5e-5, rel=1e-2)


@pytest.mark.parametrize("mirror", [1, -1])
def test_principal_axes_do_not_depend_on_orientation(mirror, positions) -> None:
    turned = mirror * Rotation.random(None, 0).apply(positions) + [1, 2, 3]
    assert_allclose(principal_axes(turned), positions, atol=1e-9)


def test_principal_axes_make_the_box_small() -> None:
    rod = np.outer(np.linspace(-5, 5, 11), [1, 1, 1])
    extent = np.ptp(principal_axes(rod), axis=0)
    assert_allclose(extent, [10 * np.sqrt(3), 0, 0], atol=1e-9)
