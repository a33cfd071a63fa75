from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import make_regression
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SearchDisplay


@pytest.fixture(scope="module")
def search() -> GridSearchCV:
    X, y = make_regression(40, 5, noise=1, random_state=0)
    grid = [
        {"model": [Ridge(), Lasso()], "model__alpha": [0.1, 1.0, 10.0]},
        {
            "model": [make_pipeline(StandardScaler(), Ridge())],
            "scaler": ["passthrough"],
        },
    ]
    pipeline = Pipeline([("scaler", StandardScaler()), ("model", Ridge())])
    return GridSearchCV(pipeline, grid, scoring="neg_mean_absolute_error", cv=2).fit(
        X, y
    )


def test_error_against_cost(search) -> None:
    display = SearchDisplay.from_search(search)
    ax = display.axes_[0]
    assert ax.figure is display.figure_
    points = ax.collections[0].get_offsets()
    results = search.cv_results_
    assert_array_equal(points[:, 0], results["mean_score_time"])
    assert_array_equal(points[:, 1], -results["mean_test_score"])
    assert ax.get_ylabel() == "Mean absolute error"
    assert ax.get_xlabel() == "Scoring (s)"
    front, best = ax.lines
    assert np.all(np.diff(front.get_ydata()) <= 0)
    assert_array_equal(best.get_ydata(), [-search.best_score_])


def test_pairs_show_the_least_error(search) -> None:
    _, ax = SearchDisplay.from_search(search).axes_
    assert ax.get_title() == "alpha and model"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.1", "1", "10"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Ridge", "Lasso"]
    shown = ax.images[0].get_array()
    expected = -search.cv_results_["mean_test_score"][:6].reshape(2, 3)
    assert_array_equal(shown, expected)
    assert len(ax.texts) == 6


def test_own_costs_and_axes(search) -> None:
    figure, axes = plt.subplots(2)
    display = SearchDisplay.from_search(
        search,
        costs=range(7),
        error_label="kcal/mol",
        cost_label="ms",
        pairs=[("model", "scaler")],
        axes=axes,
    )
    assert display.figure_ is figure
    assert axes[0].get_xlabel() == "ms"
    assert axes[0].get_ylabel() == "kcal/mol"
    assert_array_equal(axes[0].collections[0].get_offsets()[:, 0], range(7))
    assert axes[1].get_ylabel() == "scaler"


def draw(errors, params, **options) -> SearchDisplay:
    costs = np.arange(1.0, 1 + len(errors))
    return SearchDisplay(np.array(errors), costs, params, **options).plot()


def labels(ticks) -> list[str]:
    return [tick.get_text() for tick in ticks]


@pytest.mark.parametrize("failure", [np.nan, np.inf, -np.inf])
def test_failed_candidates_are_crosses_and_never_the_best(failure: float) -> None:
    params = [{"a": a, "b": b} for a in (1, 2) for b in (1, 2, 3)]
    display = draw([failure, 5.0, failure, 3.0, 4.0, failure], params)
    costs, pair = display.axes_
    assert costs.get_title() == "Candidates (×: 3 failed)"
    assert_array_equal(costs.collections[0].get_offsets(), [[2, 5], [4, 3], [5, 4]])
    assert_array_equal(costs.collections[1].get_offsets()[:, 0], [1, 3, 6])
    low, high = costs.get_xlim()
    assert low < 1
    assert high > 6
    front, best = costs.lines
    assert_array_equal(front.get_xydata(), [[2, 5], [4, 3], [5, 3]])
    assert_array_equal(best.get_xydata(), [[4, 3]])
    assert_array_equal(pair.images[0].get_array().filled(-1), [[-1, 5, -1], [3, 4, -1]])
    written = {text.get_position(): text.get_text() for text in pair.texts}
    assert written == {
        (0, 0): "×",
        (1, 0): "5",
        (2, 0): "×",
        (0, 1): "3",
        (1, 1): "4",
        (2, 1): "×",
    }


def test_all_candidates_failed() -> None:
    with pytest.raises(
        ValueError, match=r"All 2 candidates failed.*error_score='raise'"
    ):
        draw([np.nan, np.inf], [{"a": 1}, {"a": 2}])


def test_all_candidates_of_a_pair_failed() -> None:
    params = [{"a": 1, "b": 1}, {"a": 2, "b": 2}, {"c": 1}]
    _, ax = draw([np.nan, np.nan, 1.0], params).axes_
    assert labels(ax.texts) == ["×", "×"]


def test_search_with_failed_fits() -> None:
    X, y = make_regression(20, 2, random_state=0)
    search = GridSearchCV(Ridge(), {"alpha": [-1, 1, 10]}, cv=2)
    with pytest.warns((FitFailedWarning, UserWarning)):
        search.fit(X, y)
    costs, curve = SearchDisplay.from_search(search).axes_
    assert_array_equal(costs.lines[-1].get_ydata(), [-search.best_score_])
    assert_array_equal(
        curve.lines[0].get_ydata(), -search.cv_results_["mean_test_score"][1:]
    )


def test_parameters_that_never_meet_have_panels_of_their_own() -> None:
    params = [
        {"a": 1, "kind": "x"},
        {"a": 2, "kind": "x"},
        {"b": "u"},
        {"b": "v"},
        {"b": "w"},
        {"c": 1, "d": 1},
        {"c": 1, "d": 2},
        {"c": 2, "d": 1},
        {"c": 2, "d": 2},
    ]
    axes = draw(np.arange(9.0), params).axes_
    assert [ax.get_title() for ax in axes] == ["Candidates", "d and c", "a", "b"]
    _, pair, numbers, names = axes
    assert_array_equal(pair.images[0].get_array(), [[5, 6], [7, 8]])
    assert_array_equal(numbers.lines[0].get_ydata(), [0, 1])
    assert_array_equal(names.lines[0].get_ydata(), [2, 3, 4])
    assert labels(names.get_xticklabels()) == ["u", "v", "w"]


def test_values_are_those_of_candidates_with_both_parameters() -> None:
    params = [
        {"model": model, "alpha": alpha} for model in "ab" for alpha in (10.0, 0.1)
    ]
    _, ax = draw([1.0, 2.0, 3.0, 4.0, 5.0], [*params, {"model": "c"}]).axes_
    assert labels(ax.get_yticklabels()) == ["a", "b"]
    assert labels(ax.get_xticklabels()) == ["0.1", "10"]  # in increasing order
    assert_array_equal(ax.images[0].get_array(), [[2, 1], [4, 3]])


def test_many_numbers_become_points(rng: np.random.Generator) -> None:
    params = [
        {"C": 10 ** rng.uniform(-3, 3), "kind": kind}
        for kind in "uvw"
        for _ in "123456"
    ]
    errors = rng.uniform(size=18)
    _, ax = draw(errors, params).axes_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("kind", "C")
    assert ax.get_yscale() == "log"
    assert labels(ax.get_xticklabels()) == ["u", "v", "w"]
    points = ax.collections[0]
    shown = {
        (*xy, error)
        for xy, error in zip(points.get_offsets(), points.get_array(), strict=True)
    }
    assert shown == {
        ("uvw".index(p["kind"]), p["C"], error)
        for p, error in zip(params, errors, strict=True)
    }


def test_few_numbers_from_distributions_become_points() -> None:
    params = [{"x": 0.1, "y": 1e-3}, {"x": 0.7, "y": 10.0}, {"x": 0.2, "y": 0.3}]
    _, ax = draw([3.0, 1.0, 2.0], params).axes_
    points = ax.collections[0]
    # The first parameter is along y.
    assert {
        (*p, e) for p, e in zip(points.get_offsets(), points.get_array(), strict=True)
    } == {(1e-3, 0.1, 3.0), (10.0, 0.7, 1.0), (0.3, 0.2, 2.0)}
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")


def test_points_show_the_least_error_on_top(rng: np.random.Generator) -> None:
    values = np.arange(1.0, 14)
    params = [{"x": x, "y": 1 + x % 2, "z": z} for z in (1, 2) for x in values]
    errors = rng.uniform(size=26)
    display = SearchDisplay(errors, np.ones(26), params).plot(pairs=[("x", "y")])
    points = display.axes_[1].collections[0]
    order = np.argsort(points.get_offsets()[:, 0])
    assert_array_equal(points.get_array()[order], errors.reshape(2, 13).min(axis=0))


def test_single_parameter_with_many_values() -> None:
    alphas = np.logspace(4, -3, 15)
    _, ax = draw(np.arange(15.0), [{"alpha": a} for a in alphas]).axes_
    assert_array_equal(ax.lines[0].get_xdata(), alphas[::-1])
    assert_array_equal(ax.lines[0].get_ydata(), np.arange(15)[::-1])
    assert ax.get_xscale() == "log"


def test_nothing_varies() -> None:
    assert len(draw([1.0], [{}]).axes_) == 1


def test_rounds_of_successive_halving() -> None:
    params = [{"a": a, "b": b} for a in (1, 2) for b in (1, 2)]
    # Errors of the first round are lower, as it used fewer samples.
    errors = [0.1, 0.2, 0.3, 0.4, 2.0, 1.0]
    rounds = np.array([0, 0, 0, 0, 1, 1])
    costs, pair = draw(errors, params + params[:2], rounds=rounds).axes_
    front, best = costs.lines
    assert_array_equal(front.get_xydata(), [[5, 2], [6, 1]])
    assert_array_equal(best.get_xydata(), [[6, 1]])
    assert labels(costs.get_legend().get_texts()) == [
        "$\\mathdefault{0}$",
        "$\\mathdefault{1}$",
    ]
    assert_array_equal(pair.images[0].get_array(), [[2, 1], [0.3, 0.4]])


@pytest.mark.parametrize("kind", [HalvingGridSearchCV, RandomizedSearchCV])
def test_other_searches(kind: Any) -> None:
    X, y = make_regression(60, 3, noise=1, random_state=0)
    space = {"alpha": [0.1, 1, 10], "fit_intercept": [True, False]}
    options = {"n_iter": 4} if kind is RandomizedSearchCV else {}
    search = kind(Ridge(), space, cv=2, random_state=0, **options).fit(X, y)
    costs, _ = SearchDisplay.from_search(search).axes_
    assert_array_equal(costs.lines[-1].get_ydata(), [-search.best_score_])


def test_several_scores() -> None:
    X, y = make_regression(20, 2, random_state=0)
    scoring = {"mae": "neg_mean_absolute_error", "r2": "r2"}
    search = GridSearchCV(Ridge(), {"alpha": [1, 2]}, scoring=scoring, refit="r2", cv=2)
    search.fit(X, y)
    for score, label in ((None, "Negative r2"), ("mae", "Mean absolute error")):
        ax, _ = SearchDisplay.from_search(search, scoring=score).axes_
        errors = -search.cv_results_[f"mean_test_{score or 'r2'}"]
        assert_array_equal(ax.collections[0].get_offsets()[:, 1], errors)
        assert ax.get_ylabel() == label
    with pytest.raises(ValueError, match=r"'mse' is not a score .* 'mae', 'r2'"):
        SearchDisplay.from_search(search, scoring="mse")
    search.set_params(refit=False).fit(X, y)
    with pytest.raises(ValueError, match=r"several scores: .* 'mae', 'r2'"):
        SearchDisplay.from_search(search)


def test_parameters_of_the_same_short_name() -> None:
    params = [{"a__alpha": a, "b__alpha": b} for a in (1, 2) for b in (1, 2)]
    _, ax = draw([1.0, 2.0, 3.0, 4.0], params).axes_
    assert ax.get_title() == "b__alpha and a__alpha"


def test_errors_over_decades() -> None:
    params = [{"a": a, "b": b} for a in (1, 2) for b in (1, 2)]
    costs, pair = draw([1.0, 1e9, 2.0, 3.0], params).axes_
    assert costs.get_yscale() == "log"
    assert pair.images[0].norm(1e3) == pytest.approx(1 / 3)


def test_dollars_in_labels() -> None:
    display = draw([1.0, 2.0], [{"pattern": "$a$"}, {"pattern": r"\b$^_$"}])
    display.figure_.canvas.draw()
    assert labels(display.axes_[1].get_xticklabels()) == ["$a$", r"\b$^_$"]


def test_what_cannot_be_drawn(search) -> None:
    with pytest.raises(NotFittedError):
        SearchDisplay.from_search(GridSearchCV(Ridge(), {}))
    with pytest.raises(ValueError, match=r"shape \(2,\), .* 7 candidates"):
        SearchDisplay.from_search(search, costs=[1, 2])
    with pytest.raises(ValueError, match=r"cost of candidate 3 is nan"):
        SearchDisplay.from_search(search, costs=[1, 2, 3, np.nan, 5, 6, 7])
    with pytest.raises(ValueError, match=r"must hold 2 axes, .* got 1"):
        SearchDisplay.from_search(search, axes=plt.gca())
    for pair in (("scaler", "model__alpha"), "alpha"):
        with pytest.raises(
            ValueError, match=r"No candidate has .*'model', 'model__alpha'"
        ):
            SearchDisplay.from_search(search, pairs=[pair])
