import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from synthetic import smooth_problem

from skscatharm.regression import gaussian_process as module
from skscatharm.regression.gaussian_process import (
    leave_one_out,
    pose_problem,
    prior_variance,
    solve_dual,
    thinned,
)
from skscatharm.regression.kernels import Kernel, gaussian, linear

KERNELS = [
    Kernel(gaussian, np.array([0.5, 0.7]), True),
    Kernel(linear, np.ones(2), False),
]


def system(problem, alpha, gradient_weight):
    """The dual problem with a free intercept, from the formulas of these kernels."""
    z, factors = problem.points.positions, KERNELS[0].factors
    n_samples = len(z)
    d = z[:, None] - z
    value = np.exp(-((d * factors) ** 2).sum(axis=2) / 2)
    metric = np.diag(factors**2)
    # The directions are the axes.
    slope = -(d @ metric) * value[:, :, None]
    both = metric - (d @ metric)[..., None] * (d @ metric)[..., None, :]
    both *= value[..., None, None]
    value = value + z @ z.T
    slope = slope + z
    both = both + np.eye(2)
    matrix = np.zeros((3 * n_samples + 1,) * 2)
    matrix[:n_samples, :n_samples] = value
    matrix[n_samples:-1, :n_samples] = slope.transpose(0, 2, 1).reshape(-1, n_samples)
    matrix[:n_samples, n_samples:-1] = matrix[n_samples:-1, :n_samples].T
    matrix[n_samples:-1, n_samples:-1] = both.transpose(0, 2, 1, 3).reshape(
        2 * n_samples, -1
    )
    centring = np.eye(n_samples) - 1 / n_samples
    noise = alpha * np.trace(centring @ value @ centring) / n_samples / problem.weight
    unit = problem.slope_unit**2 / gradient_weight
    places = np.arange(3 * n_samples)
    matrix[places, places] += np.r_[noise, unit * np.repeat(noise, 2)]
    matrix[:n_samples, -1] = matrix[-1, :n_samples] = 1
    return matrix


@pytest.fixture
def problem(rng):
    weight = rng.uniform(0.5, 2, size=8)
    return smooth_problem(rng, 8)._replace(weight=weight, slope_unit=3.0)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_solve_dual(problem, rows, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", rows)
    some = np.array([1, 4, 5])
    dual, intercept, errors = solve_dual(KERNELS, problem, 0.1, 2.0, some)
    expected = np.linalg.solve(system(problem, 0.1, 2.0), [*problem.sides, 0])
    assert_allclose(dual, expected[:-1])
    assert intercept == pytest.approx(expected[-1])
    everything = leave_one_out(KERNELS, problem, 0.1, 2.0)
    assert everything is not None
    assert_allclose(errors, everything.values[some])


def test_leave_one_out(problem) -> None:
    errors = leave_one_out(KERNELS, problem, 0.1, 2.0)
    assert errors is not None
    matrix = system(problem, 0.1, 2.0)
    samples = np.r_[np.arange(8), np.repeat(np.arange(8), 2), -1]
    sides = np.r_[problem.sides, 0]
    for i in range(8):
        left, kept = samples == i, samples != i
        across = matrix[np.ix_(left, kept)]
        part = matrix[np.ix_(kept, kept)]
        found = sides[left] - across @ np.linalg.solve(part, sides[kept])
        assert errors.values[i] == pytest.approx(found[0])
        assert errors.slopes[i] == pytest.approx(np.linalg.norm(found[1:]))


def test_not_definite(problem) -> None:
    kernels = [KERNELS[1]._replace(amplitude=-1.0)]
    assert leave_one_out(kernels, problem, 0.1, 1.0) is None
    with pytest.raises(ValueError, match=r"alpha=0\.1 is too small"):
        solve_dual(kernels, problem, 0.1, 1.0, np.arange(8))


def test_prior_variance(rng, monkeypatch) -> None:
    monkeypatch.setattr(module, "_VARIANCE_SIZE", 10)
    problem = smooth_problem(rng, 20)
    z = problem.points.positions[::2]
    matrix = np.exp(-((z[:, None] - z) ** 2).sum(axis=2) / 2)
    # The expected variance of samples drawn with this covariance.
    centring = np.eye(10) - 0.1
    expected = np.trace(centring @ matrix @ centring) / 10
    kernel = Kernel(gaussian, np.ones(2), True)
    assert prior_variance([kernel], problem.points) == pytest.approx(expected)


def test_derivatives_that_have_room(problem, monkeypatch) -> None:
    random_state = np.random.RandomState(0)
    monkeypatch.setattr(module, "_MAX_ROWS", 24)
    assert thinned(problem, random_state) is problem
    monkeypatch.setattr(module, "_MAX_ROWS", 18)
    with pytest.warns(UserWarning, match="8 samples have 24 targets .* room for 18"):
        kept = thinned(problem, random_state)
    assert len(kept.sides) == 18
    monkeypatch.setattr(module, "_MAX_ROWS", 7)
    with pytest.raises(ValueError, match=r"of 8 samples would need .* at most 7;"):
        thinned(problem, random_state)


def test_derivatives_along_random_directions(rng, monkeypatch) -> None:
    n, gradient = 4000, np.array([2.0, -1.0])
    problem = smooth_problem(rng, n)
    slopes = problem.points.directions @ gradient
    monkeypatch.setattr(module, "_MAX_ROWS", 2 * n)
    with pytest.warns(UserWarning, match="50% of the derivatives"):
        kept = thinned(problem._replace(slopes=slopes), np.random.RandomState(0))
    directions = kept.points.directions
    assert_array_equal(kept.points.owners, np.arange(n))
    assert_allclose(directions @ gradient, kept.slopes)
    # The axes were orthonormal, and no direction is preferred.
    assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert_allclose(directions.T @ directions / n, np.eye(2) / 2, atol=0.05)


def test_pose_problem(rng) -> None:
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    weight = rng.uniform(0.5, 2, size=30)
    jacobian, gradients = rng.normal(size=(30, 3, 4)), rng.normal(size=(30, 4))
    problem, whitening, mean, scale = pose_problem(X, y, weight, (jacobian, gradients))
    share = weight / weight.sum()
    assert_allclose(mean + scale * problem.y, y)
    assert share @ problem.y == pytest.approx(0)
    assert share @ problem.y**2 == pytest.approx(1)
    assert_allclose(problem.points.positions, (X - whitening.mean) @ whitening.matrix)
    total = np.zeros(30)
    np.add.at(total, problem.points.owners, problem.slopes**2)
    assert share @ total == pytest.approx(problem.slope_unit**2)
