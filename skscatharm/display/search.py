"""Pictures of searches."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

__all__ = ["SearchDisplay"]


class SearchDisplay:
    """Picture of a hyperparameter search: error against cost, and over pairs.

    Use :meth:`from_search` to make one. It needs matplotlib.

    Parameters
    ----------
    errors, costs : ndarray of shape (n_candidates,)
        What each candidate gets wrong, and what it takes.
    params : sequence of dict
        Parameters of the candidates.
    error_label, cost_label : str
        What to write at the axes.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    axes_ : ndarray of matplotlib.axes.Axes
        First that of error against cost, then one for each pair.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.svm import SVR
    >>> from skscatharm import SearchDisplay
    >>> X, y = make_regression(40, 5, random_state=0)
    >>> search = GridSearchCV(SVR(), {"C": [1, 10], "kernel": ["linear", "rbf"]}, cv=2)
    >>> display = SearchDisplay.from_search(search.fit(X, y))
    >>> [ax.get_title() for ax in display.axes_]
    ['Candidates', 'kernel and C']
    """

    def __init__(
        self,
        errors: NDArray[np.float64],
        costs: NDArray[np.float64],
        params: Sequence[Mapping[str, Any]],
        *,
        error_label: str = "Error",
        cost_label: str = "Cost",
    ) -> None:
        self.errors = errors
        self.costs = costs
        self.params = params
        self.error_label = error_label
        self.cost_label = cost_label

    @classmethod
    def from_search(
        cls,
        search: Any,
        *,
        costs: ArrayLike | None = None,
        error_label: str | None = None,
        cost_label: str | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
        axes: Any = None,
    ) -> Self:
        """Draw a search.

        Parameters
        ----------
        search : GridSearchCV or alike
            A search that is fitted, with a single score.
        costs : array-like of shape (n_candidates,), default=None
            What each candidate takes; None means the time in seconds that scoring took.
            With a store of coefficients, that is hardly more than the time to read.
        error_label, cost_label : str, default=None
            What to write at the axes; None names what is drawn.
        pairs, axes
            As for :meth:`plot`.

        Returns
        -------
        display : SearchDisplay

        Raises
        ------
        NotFittedError
            If the search is not fitted.
        ValueError
            If the search has several scores, or `costs` another length than the
            candidates.
        """
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        if "mean_test_score" not in results:
            raise ValueError("The search has several scores; draw one with a single.")
        if costs is None:
            costs, cost_label = results["mean_score_time"], cost_label or "Scoring (s)"
        costs = np.asarray(costs, dtype=np.float64)
        if costs.shape != (len(results["params"]),):
            raise ValueError(
                f"costs has shape {costs.shape}, but there are "
                f"{len(results['params'])} candidates."
            )
        if error_label is None:
            scoring = search.scoring
            known = isinstance(scoring, str) and scoring.startswith("neg_")
            error_label = (
                scoring.removeprefix("neg_").replace("_", " ").capitalize()
                if known
                else "Negative score"
            )
        display = cls(
            -results["mean_test_score"],
            costs,
            results["params"],
            error_label=error_label,
            cost_label=cost_label or "Cost",
        )
        return display.plot(pairs=pairs, axes=axes)

    def plot(
        self, *, pairs: Sequence[tuple[str, str]] | None = None, axes: Any = None
    ) -> Self:
        """Draw.

        Parameters
        ----------
        pairs : sequence of (str, str), default=None
            Names of parameters, for each pair the one along x and the one along y.
            None means all pairs of parameters that vary.
        axes : array-like of matplotlib.axes.Axes, default=None
            Where to draw, one more than there are pairs. None makes a new figure.

        Returns
        -------
        display : SearchDisplay

        Raises
        ------
        ValueError
            If the number of axes is not the one needed.
        """
        if pairs is None:
            names = dict.fromkeys(name for params in self.params for name in params)
            varying = [name for name in names if len(self._values(name)) > 1]
            pairs = [(x, y) for y, x in combinations(varying, 2)]
        if axes is None:
            from matplotlib import pyplot as plt

            n = 1 + len(pairs)
            n_columns = min(n, 3)
            figure, axes = plt.subplots(
                -(-n // n_columns),
                n_columns,
                squeeze=False,
                figsize=(4.5 * n_columns, 3.8 * -(-n // n_columns)),
                layout="constrained",
            )
            axes = axes.ravel()
            for ax in axes[n:]:
                figure.delaxes(ax)
            axes = axes[:n]
        axes = np.atleast_1d(np.asarray(axes, dtype=object))
        if len(axes) != 1 + len(pairs):
            raise ValueError(
                f"{len(pairs)} pairs take {1 + len(pairs)} axes; got {len(axes)}."
            )
        self.figure_, self.axes_ = axes[0].figure, axes
        self._plot_costs(axes[0])
        for ax, (x, y) in zip(axes[1:], pairs, strict=True):
            self._plot_pair(ax, x, y)
        return self

    def _plot_costs(self, ax: Any) -> None:
        order = np.lexsort((self.errors, self.costs))
        least = np.minimum.accumulate(self.errors[order])
        best = np.argmin(self.errors)
        ax.scatter(self.costs, self.errors, s=16)
        ax.step(self.costs[order], least, where="post", color="gray", lw=1, zorder=0)
        ax.plot(
            self.costs[best], self.errors[best], "o", ms=12, mfc="none", color="black"
        )
        ax.set(title="Candidates", xlabel=self.cost_label, ylabel=self.error_label)

    def _plot_pair(self, ax: Any, x: str, y: str) -> None:
        columns, rows = self._values(x), self._values(y)
        least = np.full((len(rows), len(columns)), np.nan)
        for error, params in zip(self.errors, self.params, strict=True):
            if x in params and y in params:
                where = rows.index(_label(params[y])), columns.index(_label(params[x]))
                least[where] = np.fmin(least[where], error)
        image = ax.imshow(least, cmap="YlOrRd", origin="lower", aspect="auto")
        dark = np.nanmean([np.nanmin(least), np.nanmax(least)])
        for (i, k), error in np.ndenumerate(least):
            if np.isfinite(error):
                color = "white" if error > dark else "black"
                ax.text(k, i, f"{error:.3g}", ha="center", va="center", color=color)
        ax.set(
            title=f"{_short(x)} and {_short(y)}",
            xlabel=_short(x),
            ylabel=_short(y),
            xticks=range(len(columns)),
            yticks=range(len(rows)),
            xticklabels=columns,
            yticklabels=rows,
        )
        ax.figure.colorbar(image, label=f"{self.error_label}, the least")

    def _values(self, name: str) -> list[str]:
        """Labels of the values that a parameter takes, in the order of the search."""
        return list(
            dict.fromkeys(
                _label(params[name]) for params in self.params if name in params
            )
        )


def _label(value: Any) -> str:
    if isinstance(value, Pipeline):
        value = value[-1]
    if hasattr(value, "get_params"):
        return type(value).__name__
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_label, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(name: str) -> str:
    return name.rpartition("__")[2]
