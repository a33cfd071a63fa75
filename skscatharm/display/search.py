"""Pictures of hyperparameter searches."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skscatharm.display.figures import create_axes, take_axes
from skscatharm.display.values import Values, key_of

__all__ = ["SearchDisplay"]

_MAX_VALUES = 12  # numbers that are equally spaced; more have an axis to scale
_MAX_WRITTEN = 8  # columns of a map that shows errors as text


class SearchDisplay:
    """Picture of a hyperparameter search: errors against costs and parameters.

    Create one with :meth:`from_search`. Requires matplotlib.

    The first panel shows the error of each candidate against its cost. A line marks the
    least error up to each cost, and a ring marks the best candidate. Each further panel
    shows the least errors over a pair of parameters: as a map, or as points if their
    values were drawn from distributions. For a parameter that forms no pair, a panel
    shows the least error for each of its values.

    A candidate whose error is not finite has failed. It is drawn as a cross and is
    never the best one.

    Parameters
    ----------
    errors : ndarray of shape (n_candidates,)
        Errors of the candidates.
    costs : ndarray of shape (n_candidates,)
        Costs of the candidates.
    params : sequence of dict
        Parameters of the candidates.
    rounds : ndarray of shape (n_candidates,), dtype int, default=None
        Round of successive halving in which each candidate was evaluated. The best
        candidate is one of the last round, and panels show the last round of each
        value. None means a single round.
    error_label : str, default="Error"
        Name of the errors.
    cost_label : str, default="Cost"
        Name of the costs.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    axes_ : ndarray of matplotlib.axes.Axes
        The axes: first the errors against the costs, then one for each pair.

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
        rounds: NDArray[np.integer] | None = None,
        error_label: str = "Error",
        cost_label: str = "Cost",
    ) -> None:
        self.errors = errors
        self.costs = costs
        self.params = params
        self.rounds = rounds
        self.error_label = error_label
        self.cost_label = cost_label

    @classmethod
    def from_search(
        cls,
        search: Any,
        *,
        scoring: str | None = None,
        costs: ArrayLike | None = None,
        error_label: str | None = None,
        cost_label: str | None = None,
        pairs: Sequence[tuple[str, str] | str] | None = None,
        axes: Any = None,
    ) -> Self:
        """Draw a fitted search.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or a successive halving search
            A fitted search.
        scoring : str, default=None
            Name of the score to draw, if the search has several. None means the score
            that `refit` names.
        costs : array-like of shape (n_candidates,), default=None
            Cost of each candidate, in the order of ``search.cv_results_["params"]``.
            None means the mean time of scoring in seconds. With a coefficient store,
            this is little more than the time to read the coefficients.
        error_label : str, default=None
            Label of the errors. None means the name of the score.
        cost_label : str, default=None
            Label of the costs. None means "Cost", or "Scoring (s)" without `costs`.
        pairs : sequence of (str, str) or str, default=None
            Parameters to draw, as for :meth:`plot`.
        axes : array-like of matplotlib.axes.Axes, default=None
            Axes to draw on, as for :meth:`plot`.

        Returns
        -------
        display : SearchDisplay

        Raises
        ------
        NotFittedError
            If the search is not fitted.
        ValueError
            If the search has several scores and none is chosen, if the length of
            `costs` is not the number of candidates, or as for :meth:`plot`.
        """
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        scoring = _choose_score(search, scoring)
        if costs is None:
            costs, cost_label = results["mean_score_time"], cost_label or "Scoring (s)"
        costs = np.asarray(costs, dtype=np.float64)
        if costs.shape != (len(results["params"]),):
            raise ValueError(
                f"costs has shape {costs.shape}, but the search has "
                f"{len(results['params'])} candidates: pass one cost for each."
            )
        display = cls(
            -np.asarray(results[f"mean_test_{scoring}"], dtype=np.float64),
            costs,
            results["params"],
            rounds=results.get("iter"),
            error_label=error_label or _name_error(search, scoring),
            cost_label=cost_label or "Cost",
        )
        return display.plot(pairs=pairs, axes=axes)

    def plot(
        self,
        *,
        pairs: Sequence[tuple[str, str] | str] | None = None,
        axes: Any = None,
    ) -> Self:
        """Draw the picture.

        Parameters
        ----------
        pairs : sequence of (str, str) or str, default=None
            Parameters to draw. A pair names the parameter along x and the one along y.
            A single name draws the errors against this parameter. None means all pairs
            of parameters that vary together, and each further parameter that varies.
        axes : array-like of matplotlib.axes.Axes, default=None
            Axes to draw on: one more than there are pairs. None creates a figure.

        Returns
        -------
        display : SearchDisplay

        Raises
        ------
        ValueError
            If all candidates failed, if a successful candidate has no finite cost, if
            no candidate has the parameters of a pair, or if the number of axes is
            wrong.
        """
        errors = np.asarray(self.errors, dtype=np.float64)
        self._errors = np.where(np.isfinite(errors), errors, np.nan)
        succeeded = np.isfinite(errors)
        if not succeeded.any():
            raise ValueError(
                f"All {len(errors)} candidates failed: there is no finite error to "
                "draw. Fit the search with error_score='raise' to see why."
            )
        unknown = np.flatnonzero(succeeded & ~np.isfinite(self.costs))
        if len(unknown):
            raise ValueError(
                f"The cost of candidate {unknown[0]} is {self.costs[unknown[0]]}: pass "
                "a finite cost for each candidate that did not fail."
            )
        rounds = np.asarray([0] * len(errors) if self.rounds is None else self.rounds)
        # From the worst candidate to the best one, which is the first of equals.
        first = -np.arange(len(errors))
        self._order = np.lexsort((first, -self._errors, rounds, succeeded))

        if pairs is None:
            pairs = self._find_pairs()
        panels = [(pair,) if isinstance(pair, str) else tuple(pair) for pair in pairs]
        for panel in panels:
            if not self._having(panel):
                known = ", ".join(map(repr, self._names()))
                raise ValueError(
                    f"No candidate has {' and '.join(map(repr, panel))}; the "
                    f"parameters of the search are {known}."
                )
        n = 1 + len(panels)
        contents = f"one for the costs and one for each of {len(panels)} pairs"
        axes = create_axes(n) if axes is None else take_axes(axes, n, contents)
        self.figure_, self.axes_ = axes[0].figure, axes
        self._plot_costs(axes[0], rounds)
        for ax, panel in zip(axes[1:], panels, strict=True):
            if len(panel) == 1:
                self._plot_single(ax, *panel)
            else:
                self._plot_pair(ax, *panel)
        return self

    def _having(self, names: Sequence[str]) -> list[int]:
        """Find the candidates that have all of these parameters."""
        return [
            i for i, params in enumerate(self.params) if all(n in params for n in names)
        ]

    def _names(self) -> list[str]:
        """Return the names of all parameters."""
        return list(dict.fromkeys(name for params in self.params for name in params))

    def _vary(self, *names: str) -> bool:
        """Whether all of these parameters vary among the candidates that have them."""
        chosen = self._having(names)
        return all(
            len({key_of(self.params[i][name]) for i in chosen}) > 1 for name in names
        )

    def _find_pairs(self) -> list[tuple[str, str] | str]:
        varying = [name for name in self._names() if self._vary(name)]
        pairs: list[tuple[str, str] | str] = [
            (x, y) for y, x in combinations(varying, 2) if self._vary(x, y)
        ]
        paired = {name for pair in pairs for name in pair}
        return pairs + [name for name in varying if name not in paired]

    def _least(self, *names: str) -> tuple[list[Values], dict[tuple[int, ...], float]]:
        """Find the least error for each combination of values of parameters.

        Returns
        -------
        values : list of Values
            Values of each parameter.
        least : dict
            From the places of the values to the error, or to NaN if all such
            candidates failed.
        """
        chosen = self._having(names)
        values = [Values([self.params[i][name] for i in chosen]) for name in names]
        combinations = zip(*(v.places for v in values), strict=True)
        places = dict(zip(chosen, combinations, strict=True))
        # The best candidate comes last, and so its error is the one that stays.
        least = {places[i]: self._errors[i] for i in self._order if i in places}
        return values, least

    def _plot_costs(self, ax: Any, rounds: NDArray[np.integer]) -> None:
        costs, errors = np.asarray(self.costs, dtype=np.float64), self._errors
        succeeded = np.isfinite(errors)
        best = self._order[-1]
        final = np.flatnonzero(succeeded & (rounds == rounds[best]))
        final = final[np.lexsort((errors[final], costs[final]))]
        least = np.minimum.accumulate(errors[final])

        several = len(np.unique(rounds)) > 1
        points = ax.scatter(
            costs[succeeded],
            errors[succeeded],
            s=16,
            c=rounds[succeeded] if several else None,
            cmap="viridis_r" if several else None,
        )
        if several:
            ax.legend(*points.legend_elements(num=None), title="Round")
        ax.step(costs[final], least, where="post", color="gray", lw=1, zorder=0)
        ax.plot(costs[best], errors[best], "o", ms=12, mfc="none", color="black")
        _mark_failed(ax, costs[~succeeded & np.isfinite(costs)])
        n_failed = np.count_nonzero(~succeeded)
        ax.set(
            title=f"Candidates (×: {n_failed} failed)" if n_failed else "Candidates",
            xlabel=self.cost_label,
            ylabel=self.error_label,
            xscale=_scale(costs[np.isfinite(costs)]),
            yscale=_scale(errors[succeeded]),
        )
        if ax.get_xscale() == "linear":
            ax.locator_params(axis="x", nbins=4)

    def _plot_single(self, ax: Any, name: str) -> None:
        (values,), least = self._least(name)
        places = sorted(least)
        scaled = _many(values)
        x = values.on_axis(scaled)
        errors = np.array([least[place] for place in places])
        alone = not any(self._vary(name, n) for n in self._names() if n != name)
        ax.plot(
            x[np.isfinite(errors)],
            errors[np.isfinite(errors)],
            "o-" if values.numeric and (alone or not scaled) else "o",
        )
        _mark_failed(ax, x[np.isnan(errors)])
        ax.set(
            title=self._short(name),
            xlabel=self._short(name),
            ylabel=self.error_label,
            yscale=_scale(errors[np.isfinite(errors)]),
        )
        if scaled:
            ax.set_xscale(_scale(x))
        else:
            _label_x(ax, values.labels)

    def _plot_pair(self, ax: Any, x: str, y: str) -> None:
        (columns, rows), least = self._least(x, y)
        sparse = 3 * len(least) <= len(columns.labels) * len(rows.labels)
        drawn = _drawn(columns) or _drawn(rows)
        if _many(columns) or _many(rows) or (drawn and sparse):
            colored = self._plot_points(ax, columns, rows, least)
        else:
            colored = self._plot_map(ax, columns, rows, least)
        short = self._short(x), self._short(y)
        ax.set(title=" and ".join(short), xlabel=short[0], ylabel=short[1])
        if np.isfinite([*least.values()]).any():
            ax.figure.colorbar(colored, ax=ax, label=self.error_label)

    def _plot_map(
        self,
        ax: Any,
        columns: Values,
        rows: Values,
        least: Mapping[tuple[int, ...], float],
    ) -> Any:
        cells = np.full((len(rows.labels), len(columns.labels)), np.nan)
        for (column, row), error in least.items():
            cells[row, column] = error
        image = ax.imshow(
            np.ma.masked_invalid(cells),
            cmap="viridis",
            norm=_scale(cells[np.isfinite(cells)]),
            origin="lower",
            aspect="auto",
        )
        for (column, row), error in least.items():
            if np.isnan(error):
                text, color = "×", "black"
            elif len(columns.labels) <= _MAX_WRITTEN:
                text = f"{error:.3g}"
                color = "white" if image.norm(error) < 0.6 else "black"
            else:
                continue
            ax.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                color=color,
                fontsize="small" if len(columns.labels) <= 4 else "x-small",
            )
        _label_x(ax, columns.labels)
        _label_y(ax, rows.labels)
        return image

    def _plot_points(
        self,
        ax: Any,
        columns: Values,
        rows: Values,
        least: Mapping[tuple[int, ...], float],
    ) -> Any:
        places = np.array([*least])
        scaled_x, scaled_y = _drawn(columns), _drawn(rows)
        x, y = (
            columns.on_axis(scaled_x)[places[:, 0]],
            rows.on_axis(scaled_y)[places[:, 1]],
        )
        errors = np.array([*least.values()])
        succeeded = np.isfinite(errors)
        points = ax.scatter(
            x[succeeded],
            y[succeeded],
            c=errors[succeeded],
            cmap="viridis",
            norm=_scale(errors[succeeded]),
        )
        ax.scatter(x[~succeeded], y[~succeeded], marker="x", color="black")
        if scaled_x:
            ax.set_xscale(_scale(x))
        else:
            _label_x(ax, columns.labels)
        if scaled_y:
            ax.set_yscale(_scale(y))
        else:
            _label_y(ax, rows.labels)
        return points

    def _short(self, name: str) -> str:
        """Shorten the name of a parameter to its last part, if that is unique."""
        last = name.rpartition("__")[2]
        alike = [n for n in self._names() if n.rpartition("__")[2] == last]
        return last if len(alike) == 1 else name


def _many(values: Values) -> bool:
    """Whether there are too many numbers for equal spaces."""
    return values.numeric and len(values.labels) > _MAX_VALUES


def _drawn(values: Values) -> bool:
    """Whether numbers hardly repeat, as if drawn from a distribution."""
    rare = 2 * len(values.labels) > len(values.places)
    return _many(values) or (values.numeric and rare)


def _scale(numbers: NDArray[np.float64]) -> str:
    """Choose a logarithmic scale for positive numbers over two decades or more."""
    wide = len(numbers) > 0 and 0 < 100 * numbers.min() <= numbers.max()
    return "log" if wide else "linear"


def _label_x(ax: Any, labels: Sequence[str]) -> None:
    tilted = sum(map(len, labels)) > 30
    ax.set_xticks(
        range(len(labels)),
        labels,
        rotation=20 if tilted else 0,
        ha="right" if tilted else "center",
        rotation_mode="anchor",
        parse_math=False,
    )
    ax.set_xlim(-0.5, len(labels) - 0.5)


def _label_y(ax: Any, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), labels, parse_math=False)
    ax.set_ylim(-0.5, len(labels) - 0.5)


def _mark_failed(ax: Any, x: NDArray[np.float64]) -> None:
    """Draw crosses at the upper edge."""
    heights = np.full(len(x), 0.97)
    ax.scatter(
        x, heights, marker="x", color="black", transform=ax.get_xaxis_transform()
    )
    ax.update_datalim(np.column_stack([x, heights]), updatey=False)


def _choose_score(search: Any, scoring: str | None) -> str:
    """Find the name of the score to draw."""
    prefix = "mean_test_"
    names = [
        key.removeprefix(prefix) for key in search.cv_results_ if key.startswith(prefix)
    ]
    known = ", ".join(map(repr, names))
    if scoring is None:
        scoring = names[0] if len(names) == 1 else search.refit
        if not isinstance(scoring, str):
            raise ValueError(
                f"The search has several scores: pass one as scoring, out of {known}."
            )
    if scoring not in names:
        raise ValueError(
            f"scoring={scoring!r} is not a score of the search: choose one of {known}."
        )
    return scoring


def _name_error(search: Any, scoring: str) -> str:
    """Name the negative of a score, such as "Mean absolute error"."""
    scorer = getattr(search, "scoring", None)
    if isinstance(scorer, Mapping):
        scorer = scorer[scoring]
    if not isinstance(scorer, str):
        scorer = scoring
    if scorer.startswith("neg_"):
        return scorer.removeprefix("neg_").replace("_", " ").capitalize()
    return f"Negative {scorer.replace('_', ' ')}"
