import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skscatharm.regression.kernel_selection import (
    START,
    Problem,
    Setting,
    errors_of,
    leave_one_out,
    prior_variance,
    select_setting,
    warn_of_disagreement,
)
from skscatharm.regression.kernels import Kernel, Points, gaussian, matern


def smooth(rng, n_samples=20, noise=0.0):
    """A smooth function of two coordinates, with its derivatives."""
    z = rng.normal(size=(n_samples, 2))
    y = np.sin(z[:, 0]) + z[:, 0] * z[:, 1]
    slopes = np.stack([np.cos(z[:, 0]) + z[:, 1], z[:, 0]], axis=1)
    y = y - y.mean()
    scale = y.std()
    y = y / scale + noise * rng.normal(size=n_samples)
    owners = np.repeat(np.arange(n_samples), 2)
    return Problem(
        Points(z, np.tile(np.eye(2), (n_samples, 1)), owners),
        np.ones(2),
        y,
        slopes.ravel() / scale,
        np.ones(n_samples),
        np.sqrt((slopes**2).sum(axis=1).mean()) / scale,
    )


def test_leave_one_out(rng) -> None:
    owners = np.array([0, 0, 2, 3, 3, 3])
    features = rng.normal(size=(10, 30))
    matrix = features @ features.T
    sides = rng.normal(size=10)
    ones = np.r_[np.ones(4), np.zeros(6)]
    values, slopes, deviations = leave_one_out(matrix.copy(), 4, owners, sides)
    samples = np.r_[np.arange(4), owners]
    for i in range(4):
        left, kept = samples == i, samples != i
        # The system with a free intercept, without the rows of the sample.
        system = np.block(
            [
                [matrix[np.ix_(kept, kept)], ones[kept, None]],
                [ones[None, kept], np.zeros((1, 1))],
            ]
        )
        across = np.c_[matrix[np.ix_(left, kept)], ones[left]]
        errors = sides[left] - across @ np.linalg.solve(system, np.r_[sides[kept], 0])
        assert values[i] == pytest.approx(errors[0])
        assert slopes[i] == pytest.approx(np.linalg.norm(errors[1:]))
        variance = matrix[i, i] - across[0] @ np.linalg.solve(system, across[0])
        assert deviations[i] == pytest.approx(np.sqrt(variance))


def test_not_definite() -> None:
    assert leave_one_out(-np.eye(3), 3, np.zeros(0, int), np.ones(3)) is None


def test_prior_variance(rng, monkeypatch) -> None:
    monkeypatch.setattr("skscatharm.regression.kernel_selection._VARIANCE_SIZE", 10)
    problem = smooth(rng, 20)
    kernel = Kernel(gaussian, np.ones(2), True)
    z = problem.points.positions[::2]
    matrix = np.exp(-((z[:, None] - z) ** 2).sum(axis=2) / 2)
    # The expected variance of samples drawn with this covariance.
    centring = np.eye(10) - 0.1
    expected = np.trace(centring @ matrix @ centring) / 10
    assert prior_variance(kernel, problem.points) == pytest.approx(expected)


def test_noise(rng) -> None:
    problem = smooth(rng, 3)._replace(weight=np.array([1.0, 2, 4]), slope_unit=3.0)
    values, slopes = problem.noise(0.5, Setting(1.0, 0.1, 1.0, 2.0))
    assert_allclose(values, [0.05, 0.025, 0.0125])
    assert_allclose(slopes, np.repeat(values * 9 / 2, 2))


def test_selection_finds_the_noise(rng) -> None:
    found = {}
    for noise in (0.0, 0.3):
        problem = smooth(rng, 30, noise).values()
        found[noise] = select_setting(gaussian, problem, {"length_scale": 4.0})
        scores = [
            abs(errors_of(gaussian, problem, setting)[0]).mean()
            for setting in (found[noise], START)
        ]
        assert scores[0] <= scores[1]
    assert found[0.0].alpha < found[0.3].alpha
    assert found[0.0].gradient_weight == START.gradient_weight


def test_selection_with_derivatives(rng) -> None:
    problem = smooth(rng)
    setting = select_setting(matern, problem, {"decay": 0.123})
    assert setting.decay == 0.123
    values, slopes, _ = errors_of(matern, problem, setting)
    assert abs(values).mean() < 0.05
    without, _, _ = errors_of(
        matern, problem.values(), select_setting(matern, problem.values(), {})
    )
    assert abs(values).mean() < abs(without).mean() / 2
    start_values, start_slopes, _ = errors_of(
        matern, problem, START._replace(decay=0.123)
    )
    assert abs(values).mean() * slopes.mean() <= (
        abs(start_values).mean() * start_slopes.mean()
    )


def test_no_warning(rng) -> None:
    problem = smooth(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_disagreement(problem)
        # Noise is no evidence.
        warn_of_disagreement(problem._replace(slopes=rng.normal(size=40)))
        warn_of_disagreement(problem._replace(slopes=np.zeros(40)))


@pytest.mark.parametrize(
    ("factor", "message"),
    [(-1, "check the sign"), (23, "different units"), (0.04, "different units")],
)
def test_disagreement(rng, factor, message) -> None:
    problem = smooth(rng)
    wrong = problem._replace(
        slopes=factor * problem.slopes, slope_unit=abs(factor) * problem.slope_unit
    )
    with pytest.warns(UserWarning, match=message):
        warn_of_disagreement(wrong)
