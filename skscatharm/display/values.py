"""Values of hyperparameters: which are the same, and how to label them."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

_MAX_LABEL = 28  # characters


class Values:
    """The different values of a parameter, as places along an axis.

    Parameters
    ----------
    values : sequence
        Value of each candidate.

    Attributes
    ----------
    places : list of int
        Index of the value of each candidate among the different ones.
    different : list
        The different values: numbers in increasing order, others in the order of the
        candidates.
    labels : list of str
        Labels of the different values.
    numeric : bool
        Whether all values are numbers.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        keys = [key_of(value) for value in values]
        different = dict(zip(keys, values, strict=True))
        self.numeric = all(map(_is_number, values))
        if self.numeric:
            different = dict(sorted(different.items()))
        place = {key: i for i, key in enumerate(different)}
        self.places = [place[key] for key in keys]
        self.different = [*different.values()]
        self.labels = label_values(self.different)

    def on_axis(self, scaled: bool) -> NDArray[np.float64]:
        """Return the numbers if the axis is `scaled`, and equal spaces otherwise."""
        values = self.different if scaled else range(len(self.different))
        return np.array(values, dtype=np.float64)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and isfinite(value)
    )


def key_of(value: Any) -> Any:
    """Return something hashable that is the same for equal values."""
    if _is_number(value):
        return value
    try:
        return joblib.hash(value)
    except Exception:  # a lambda, for instance, cannot be pickled
        return id(value)


def label_values(values: Sequence[Any]) -> list[str]:
    """Label different values differently, and briefly.

    Parameters
    ----------
    values : sequence
        Different values.

    Returns
    -------
    labels : list of str
        With the least detail that distinguishes the values. Values that no detail
        distinguishes are numbered.
    """
    for detail in range(4):
        labels = [_shorten(_describe(value, detail)) for value in values]
        if len(set(labels)) == len(labels):
            return labels
    labels = [_shorten(_describe(value, 0)) for value in values]
    return [
        f"{label} ({1 + labels[:i].count(label)})" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def _describe(value: Any, detail: int) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.{(6, 9, 12, 17)[detail]}g}"
    if hasattr(value, "get_params") and not isinstance(value, type):
        if hasattr(value, "steps"):
            return " + ".join(_describe(step, detail) for _, step in value.steps)
        return " ".join(repr(value).split()) if detail else type(value).__name__
    if callable(value):
        value = getattr(value, "func", value)  # of a functools.partial
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key}: {_describe(item, detail)}" if detail else str(key)
            for key, item in value.items()
        )
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return ", ".join(
            f"({_describe(item, detail)})"
            if isinstance(item, Sequence) and not isinstance(item, str)
            else _describe(item, detail)
            for item in value
        )
    return " ".join(str(value).split())


def _shorten(text: str) -> str:
    if len(text) <= _MAX_LABEL:
        return text
    return f"{text[: _MAX_LABEL // 2 + 1]}…{text[2 - _MAX_LABEL // 2 :]}"
