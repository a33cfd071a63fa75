"""Estimators made of other estimators, which have defaults."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator, clone


class EstimatorOfParts(BaseEstimator):
    """Base of estimators with parameters that are estimators, or None.

    Attributes
    ----------
    _default_parts : dict of str to callable
        For the name of each part, a function that makes its default.
    """

    _default_parts: ClassVar[dict[str, Callable[[], Any]]]

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator and of its parts.

        Parameters
        ----------
        **params : dict
            Such as ``scattering__J=1``. A part that is None becomes its default first.

        Returns
        -------
        self : estimator
        """
        for name, default in self._default_parts.items():
            is_nested = any(key.startswith(f"{name}__") for key in params)
            if is_nested and params.get(name, getattr(self, name)) is None:
                params[name] = default()
        super().set_params(**params)
        return self

    def _make_parts(self) -> list[Any]:
        """Return copies of the parts, not fitted."""
        return [
            default() if (part := getattr(self, name)) is None else clone(part)
            for name, default in self._default_parts.items()
        ]
