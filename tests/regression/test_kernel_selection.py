from synthetic import smooth_problem

from skscatharm.regression.gaussian_process import leave_one_out
from skscatharm.regression.kernel_selection import START, select_setting
from skscatharm.regression.kernels import gaussian, matern


def errors(profile, problem, setting):
    """Mean absolute leave-one-out errors of targets and derivatives."""
    found = leave_one_out(
        [setting.kernel(profile, problem)],
        problem,
        setting.alpha,
        setting.gradient_weight,
    )
    return abs(found.values).mean(), found.slopes.mean()


def test_selection_finds_the_noise(rng) -> None:
    found = {}
    for noise in (0.0, 0.3):
        problem = smooth_problem(rng, 30, noise).values()
        found[noise] = select_setting(gaussian, problem, {"length_scale": 1.0})
        assert (
            errors(gaussian, problem, found[noise])[0]
            <= errors(gaussian, problem, START._replace(length_scale=1.0))[0]
        )
    assert found[0.0].alpha < found[0.3].alpha
    assert found[0.0].gradient_weight == START.gradient_weight


def test_selection_with_derivatives(rng) -> None:
    problem = smooth_problem(rng, 20)
    setting = select_setting(matern, problem, {"decay": 0.123})
    assert setting.decay == 0.123
    value, slope = errors(matern, problem, setting)
    start = START._replace(decay=0.123)
    start_value, start_slope = errors(matern, problem, start)
    assert value * slope <= start_value * start_slope
    alone = problem.values()
    assert value < 0.5 * errors(matern, alone, select_setting(matern, alone, {}))[0]
