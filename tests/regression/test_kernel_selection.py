import numpy as np
import pytest
from synthetic import smooth_problem

from skscatharm.regression import kernel_selection
from skscatharm.regression.gaussian_process import leave_one_out
from skscatharm.regression.kernel_selection import START, select_parts, select_setting
from skscatharm.regression.kernels import gaussian, matern

DRAWS = np.random.RandomState(0)


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
        fixed = {"length_scale": 1.0}
        found[noise] = select_setting(gaussian, problem, fixed, DRAWS)
        assert (
            errors(gaussian, problem, found[noise])[0]
            <= errors(gaussian, problem, START._replace(length_scale=1.0))[0]
        )
    assert found[0.0].alpha < found[0.3].alpha
    assert found[0.0].gradient_weight == START.gradient_weight


def test_selection_with_derivatives(rng) -> None:
    problem = smooth_problem(rng, 20)
    setting = select_setting(matern, problem, {"decay": 0.123}, DRAWS)
    assert setting.decay == 0.123
    value, slope = errors(matern, problem, setting)
    start = START._replace(decay=0.123)
    start_value, start_slope = errors(matern, problem, start)
    assert value * slope <= start_value * start_slope
    alone = problem.values()
    alone_setting = select_setting(matern, alone, {}, DRAWS)
    assert value < 0.5 * errors(matern, alone, alone_setting)[0]


@pytest.mark.parametrize(
    ("name", "step", "fixed"),
    [("alpha", -1, {}), ("length_scale", 1, {"alpha": 1e-3, "gradient_weight": 1.0})],
)
def test_parts_choose_together(rng, monkeypatch, name, step, fixed) -> None:
    """The errors of the parts are averaged. Of equal ones, the least noise wins, or the
    largest length scale.
    """
    problem = smooth_problem(rng, 60, 0.1)
    rows = len(problem.sides) // 2
    monkeypatch.setattr(kernel_selection, "_STAGES", ((3, rows),))
    (parts,) = select_parts(problem, np.random.RandomState(0))
    assert [len(part.y) for part in parts] == [30] * 3
    assert not np.array_equal(parts[0].y, parts[1].y)

    def score(setting):
        return np.mean([np.log(errors(matern, part, setting)).sum() for part in parts])

    found = []
    for equal in ({}, {name: (step, 0.5)}):
        monkeypatch.setattr(kernel_selection, "_EQUAL", equal)
        draws = np.random.RandomState(0)
        found.append(select_setting(matern, problem, fixed, draws))
    best, preferred = found
    assert score(best) <= score(START._replace(**fixed))
    assert step * (getattr(preferred, name) - getattr(best, name)) > 0
    assert score(best) <= score(preferred) <= score(best) + 0.5


def test_the_largest_part_has_the_last_word(rng, monkeypatch) -> None:
    """A choice of small parts is where the search among more samples starts."""
    problem = smooth_problem(rng, 60, 0.1)
    rows = len(problem.sides)
    monkeypatch.setattr(kernel_selection, "_STAGES", ((2, rows // 5), (1, rows)))
    small, last = select_parts(problem, np.random.RandomState(0))
    assert [len(part.y) for part in small] == [12] * 2
    assert last == [problem]

    def score(setting):
        return np.log(errors(matern, problem, setting)).sum()

    chosen = select_setting(matern, problem, {}, np.random.RandomState(0))
    monkeypatch.setattr(kernel_selection, "_STAGES", ((2, rows // 5),))
    assert score(chosen) <= score(
        select_setting(matern, problem, {}, np.random.RandomState(0))
    )
    for name, grid in kernel_selection._GRIDS.items():
        place = grid.index(getattr(chosen, name))
        for other in grid[max(place - 1, 0) : place + 2]:
            assert score(chosen) <= score(chosen._replace(**{name: other})) + 1e-9
