import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import gamma

from skscatharm.engine.accuracy import Accuracy
from skscatharm.engine.frame import Frame
from skscatharm.engine.quadrature import (
    SHIFT,
    body_centred_grid,
    coarse_grid,
    coarse_points,
    fine_grid,
    kink_grid,
    kink_step,
    tensor_grid,
)

WIDTH = 0.31


@pytest.fixture
def frame() -> Frame:
    positions = np.random.default_rng(0).uniform(-3, 3, size=(12, 3))
    return Frame(positions, np.ones(12))


def integrate(values: np.ndarray, grid) -> float:
    return np.einsum("xyz,x,y,z->", values, *(axis.weights for axis in grid))


def gaussian(grid, centre, q: float, width: float = WIDTH) -> np.ndarray:
    x, y, z = (
        np.exp(-q * ((axis.points - r) / width) ** 2 / 2)
        for axis, r in zip(grid, centre, strict=True)
    )
    return np.einsum("x,y,z->xyz", x, y, z)


@pytest.mark.parametrize("step", [0.3, 0.65])
@pytest.mark.parametrize("q", [0.5, 1, 2, 3])
def test_gaussians_anywhere_are_integrated_exactly(q, step, frame) -> None:
    margin = Accuracy(2e-4).margin(0)
    grid = tensor_grid(frame, WIDTH, step, margin, 0.85, 1.5)
    for centre in frame.positions:
        integral = integrate(gaussian(grid, centre, q), grid)
        assert_allclose(integral, (2 * np.pi / q) ** 1.5 * WIDTH**3, rtol=1e-5)


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize(("largest", "q"), [(4, 0.5), (4, 4), (32, 17), (32, 32)])
def test_tolerance_is_kept_for_gaussians(largest, q, tol, frame) -> None:
    grid = fine_grid(frame, WIDTH, 1, 0, Accuracy(tol, exponent=largest))
    for centre in frame.positions[:4]:
        integral = integrate(gaussian(grid, centre, q), grid)
        assert_allclose(integral, (2 * np.pi / q) ** 1.5 * WIDTH**3, rtol=tol)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 3e-4, 1e-4, 1e-6])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_tolerance_is_kept_for_fourth_powers_of_one_field(degree, tol, frame) -> None:
    grids = body_centred_grid(frame, WIDTH, 1, degree, Accuracy(tol, softness=0.4))
    power = 4 * degree
    exact = 2 * np.pi * gamma(power / 2 + 1.5) / 2 ** (power / 2 + 1.5) * WIDTH**3
    for centre in frame.positions[:4]:
        integral = 0.0
        for grid in grids:
            x, y, z = (
                (axis.points - c) / WIDTH for axis, c in zip(grid, centre, strict=True)
            )
            square = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2
            integral += integrate(square ** (power / 2) * np.exp(-2 * square), grid)
        assert_allclose(integral, exact, rtol=tol)


@pytest.mark.parametrize("softness", [0.0, 0.4])
def test_a_body_centred_grid_has_fewer_points(softness, frame) -> None:
    accuracy = Accuracy(1e-5, softness)
    simple = fine_grid(frame, WIDTH, 1, 2, accuracy)
    parts = body_centred_grid(frame, WIDTH, 1, 2, accuracy)
    n, *of_parts = (np.prod([len(a.points) for a in g]) for g in (simple, *parts))
    assert 0.7 * n < sum(of_parts) < 0.85 * n
    for centre in frame.positions[:4]:
        for q in (2, 3):
            integral = sum(integrate(gaussian(g, centre, q), g) for g in parts)
            assert_allclose(integral, (2 * np.pi / q) ** 1.5 * WIDTH**3, rtol=2e-6)
    # Points of the second are in the middle of the cubes of the first.
    for first, second in zip(*parts, strict=True):
        middle = len(first.points) // 2
        cell = first.points[middle - 1 : middle + 1]
        assert np.abs(second.points - cell.mean()).min() < 1e-3 * np.ptp(cell)


def test_step_among_the_atoms_and_beyond(frame) -> None:
    for axis, extent in zip(
        tensor_grid(frame, WIDTH, 0.4, 7, 0.85, 1.5),
        frame.half_lengths,
        strict=True,
    ):
        steps = np.diff(axis.points) / WIDTH
        middle = np.abs(axis.points[:-1]) < extent
        assert_allclose(steps[middle], 0.4, rtol=0.05)
        assert_allclose(steps[[0, -1]], 0.85, rtol=0.05)
        assert extent + 6 * WIDTH < np.abs(axis.points).max() <= extent + 7 * WIDTH


def test_a_sharper_turn_of_the_step(frame) -> None:
    slow, sharp = (
        tensor_grid(frame, WIDTH, 0.4, 7, 0.85, 1.5, sharpness)
        for sharpness in (2.0, 0.5)
    )
    for a, b in zip(slow, sharp, strict=True):
        steps = [np.diff(axis.points) / WIDTH for axis in (a, b)]
        between = [np.count_nonzero((s > 0.45) & (s < 0.8)) for s in steps]
        assert between[0] > 2 * between[1]


def test_points_of_a_lattice_stay_while_atoms_move(rng) -> None:
    charges, reference = np.ones(12), rng.uniform(-3, 3, size=(12, 3))
    reference -= reference.mean(axis=0)

    def axes_of(positions):
        lattice = Frame(positions, charges, reference=reference)
        grid = tensor_grid(lattice, WIDTH, 0.4, 6.0, 0.8, 0.5)
        return [axis.points for axis in grid]

    rest, steps = axes_of(reference), []
    moved = axes_of(reference + 0.2 * rng.normal(size=reference.shape))
    for points, of_moved in zip(rest, moved, strict=True):
        shared = min(len(points), len(of_moved)) // 2 - 1
        middles = [np.argmin(np.abs(axis)) for axis in (points, of_moved)]
        around = [
            axis[middle - shared : middle + shared]
            for axis, middle in zip((points, of_moved), middles, strict=True)
        ]
        assert_allclose(*around, rtol=1e-12)
        steps.append(np.diff(points) / WIDTH)
    assert min(of_axis.min() for of_axis in steps) == pytest.approx(0.4)
    assert max(of_axis.max() for of_axis in steps) == pytest.approx(0.8, rel=1e-2)
    # An atom that moves far away is among small steps.
    away = reference + np.outer(np.eye(12)[0], 3.0 * np.sign(reference[0]))
    assert_allclose([np.ptp(np.diff(axis)) for axis in axes_of(away)], 0, atol=1e-12)


def test_no_point_comes_near_the_centre() -> None:
    frame = Frame(np.zeros((1, 3)), np.ones(1))
    accuracy = Accuracy(1e-4)
    grids = [*body_centred_grid(frame, WIDTH, 1, 2, accuracy)]
    grids.append(fine_grid(frame, WIDTH, 2, 2, accuracy))
    for grid in grids:
        for axis in grid:
            step = np.diff(axis.points).min()
            assert_allclose(np.abs(axis.points).min(), SHIFT * step, rtol=1e-2)


def test_grids_of_order_2_mirror_themselves(frame) -> None:
    accuracy = Accuracy(1e-4, 0.4)
    fine = fine_grid(frame, np.hypot(WIDTH, 2 * WIDTH), 2, 2, accuracy)
    coarse = coarse_grid(frame, WIDTH, 2 * WIDTH, 2, accuracy)
    for axes in zip(fine, coarse, strict=True):
        # About the same point, off the centre.
        origin = sum(axes[0].points[[0, -1]]) / 2
        assert abs(origin) > 0.05 * WIDTH
        for points, weights in axes:
            assert len(points) % 2 == 0
            assert_allclose(points - origin, (origin - points)[::-1], rtol=1e-9)
            assert_allclose(weights, weights[::-1], rtol=1e-12)


def test_coarse_grid_is_coarser_than_a_fine_one(frame) -> None:
    accuracy = Accuracy(1e-5, 0.4)
    fine = fine_grid(frame, WIDTH, 1, 3, accuracy)
    coarse = coarse_grid(frame, WIDTH, 2 * WIDTH, 3, accuracy)
    coarser = coarse_grid(frame, WIDTH, 4 * WIDTH, 3, accuracy)
    for f, c, cc in zip(fine, coarse, coarser, strict=True):
        assert len(cc.points) < len(c.points) < len(f.points)
        assert np.diff(cc.points).max() > 1.5 * np.diff(c.points).max()


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_points_of_a_coarse_grid_are_estimated(tol, degree, frame) -> None:
    accuracy = Accuracy(tol)
    grid = coarse_grid(frame, WIDTH, 2 * WIDTH, degree, accuracy)
    n = np.prod([float(len(axis.points)) for axis in grid])
    lengths = frame.half_lengths
    estimate = np.prod(coarse_points(lengths, WIDTH, 2 * WIDTH, degree, accuracy))
    assert 0.7 * estimate < n < 1.1 * estimate


class TestKinks:
    def test_atoms_of_the_same_sign_have_none(self, frame) -> None:
        accuracy = Accuracy(1e-5, signed=True)
        weights = -np.ones(12)
        weights[3] = 0
        step = kink_step(frame.positions, weights, WIDTH, 0.16, accuracy)
        assert step == accuracy.step(1, 0, np.inf)

    def test_the_pair_that_needs_the_smallest_step_decides(self, frame) -> None:
        accuracy = Accuracy(1e-5, signed=True)
        weights = np.zeros(12)
        weights[[1, 5, 7]] = 1, -1, -1
        r = frame.positions
        distances = np.linalg.norm(r[[5, 7]] - r[1], axis=1) / WIDTH
        step = kink_step(r, weights, WIDTH, 0.02, accuracy)
        assert step == accuracy.kink_step(0.02, distances)
        assert step < accuracy.step(1, 0, np.inf)

    def test_the_grid_is_uniform(self) -> None:
        frame = Frame(np.array([[0, 0, 0], [0, 0, 0.8]]), np.array([1, 2]))
        weights = np.array([1.0, -1.0])
        accuracy = Accuracy(1e-5, signed=True)
        step = kink_step(frame.positions, weights, WIDTH, 0.16, accuracy)
        for axis in kink_grid(frame, weights, WIDTH, 0.16, accuracy):
            assert_allclose(np.diff(axis.points), step * WIDTH)
            assert_allclose(axis.weights, step * WIDTH)
