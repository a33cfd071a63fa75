import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SearchDisplay


@pytest.fixture(autouse=True)
def _no_windows():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


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


def test_what_cannot_be_drawn(search) -> None:
    with pytest.raises(NotFittedError):
        SearchDisplay.from_search(GridSearchCV(Ridge(), {}))
    with pytest.raises(ValueError, match=r"shape \(2,\), but there are 7"):
        SearchDisplay.from_search(search, costs=[1, 2])
    with pytest.raises(ValueError, match="1 pairs take 2 axes; got 1"):
        SearchDisplay.from_search(search, axes=plt.gca())
    X, y = make_regression(20, 2, random_state=0)
    several = GridSearchCV(Ridge(), {"alpha": [1]}, scoring=["r2"], refit="r2")
    with pytest.raises(ValueError, match="several scores"):
        SearchDisplay.from_search(several.fit(X, y))
