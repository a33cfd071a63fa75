"""Models as linear functions of the coefficients, at some molecules."""

from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skscatharm.scattering import MoleculeScattering

__all__ = [
    "Expansion",
    "choose_target",
    "expand",
    "split_model",
]

_Array = NDArray[np.float64]

_TOLERANCE = 1e-6  # of a step that is linear, relative to the sum of its terms
_N_TRIALS = 4  # points at which a step is compared with its linear form


class Expansion(NamedTuple):
    """Values of a function of features, and its derivatives.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_outputs)
    slopes : ndarray of shape (n_samples, n_outputs, n_features) or \
            (1, n_outputs, n_features)
        The second shape is that of a linear function.
    """

    values: _Array
    slopes: _Array


def split_model(estimator: Any) -> tuple[MoleculeScattering, Any]:
    """Split a fitted pipeline into its scattering step and the model that follows.

    Raises
    ------
    NotFittedError
        If the pipeline is not fitted.
    TypeError
        If its first step is no scattering of molecules, or its last is no regressor.
    """
    check_is_fitted(estimator)
    if isinstance(estimator, TransformedTargetRegressor):
        scattering, regressor = split_model(estimator.regressor_)
        model = copy(estimator)
        model.regressor_ = regressor
        return scattering, model
    advice = (
        "Pass a fitted Pipeline such as make_pipeline(SolidHarmonicScattering(), "
        "StandardScaler(), RidgeCV()), or the best_estimator_ of a search over one."
    )
    if not isinstance(estimator, Pipeline):
        raise TypeError(f"{type(estimator).__name__} is no pipeline. {advice}")
    name, scattering = estimator.steps[0]
    if not isinstance(scattering, MoleculeScattering):
        raise TypeError(
            f"The first step of the pipeline, {name!r}, is "
            f"{type(scattering).__name__}, not SolidHarmonicScattering. {advice}"
        )
    if not (len(estimator.steps) > 1 and is_regressor(estimator)):
        raise TypeError(f"The last step of the pipeline is no regressor. {advice}")
    return scattering, estimator[1:]


def expand(model: Any, X: Any, name: str = "model") -> Expansion:
    """Evaluate a model of features, and differentiate it.

    Parameters
    ----------
    model : estimator
        Pipeline, transformer or regressor. Each must be linear, or have
        ``predict_gradient``.
    X : array or DataFrame of shape (n_samples, n_features)
    name : str
        Name of the model, for messages.

    Returns
    -------
    Expansion

    Raises
    ------
    ValueError
        If a step is not linear.
    """
    if isinstance(model, Pipeline):
        slopes = np.eye(X.shape[1])[np.newaxis]
        steps = [(n, s) for n, s in model.steps if s not in (None, "passthrough")]
        for i, (step_name, step) in enumerate(steps):
            values, outer = expand(step, X, step_name)
            slopes = outer @ slopes
            if i < len(steps) - 1:
                X = step.transform(X)  # with names of columns, if the step gives them
        return Expansion(values, slopes)
    if isinstance(model, TransformedTargetRegressor):
        inner = expand(model.regressor_, X, name)
        transformer = model.transformer_
        after = _expand_linear(
            transformer.inverse_transform,
            inner.values,
            f"{name!r} (inverse transform of the target)",
        )
        return Expansion(after.values, after.slopes @ inner.slopes)
    if hasattr(model, "predict_gradient"):
        values, gradients = model.predict(X), model.predict_gradient(X)
        n, n_features = X.shape
        return Expansion(values.reshape(n, -1), gradients.reshape(n, -1, n_features))
    return _expand_linear(
        model.predict if is_regressor(model) else model.transform,
        X,
        f"{name!r} ({type(model).__name__})",
    )


def choose_target(array: _Array, target: int | None) -> _Array:
    """Choose a target along the second axis of an array.

    Raises
    ------
    ValueError
        If there are several and none is chosen, or `target` is no index.
    """
    n_targets = array.shape[1]
    if target is None and n_targets > 1:
        raise ValueError(
            f"The model predicts {n_targets} targets: choose one with target=0 to "
            f"{n_targets - 1}."
        )
    index = target or 0
    if not 0 <= index < n_targets:
        raise ValueError(
            f"target={target} is out of range: the model predicts {n_targets} "
            f"target{'s' * (n_targets > 1)}, counted from 0."
        )
    return array[:, index]


def _expand_linear(function: Callable[[Any], Any], X: Any, name: str) -> Expansion:
    """Find a linear function by its values, and check that it is one."""
    n_features = X.shape[1]

    def evaluate(points: _Array) -> _Array:
        values = function(_like(points, X))
        return np.asarray(values, dtype=np.float64).reshape(len(points), -1)

    given = np.asarray(X, dtype=np.float64)
    centre, reach = given.mean(axis=0), np.abs(given).max(axis=0)
    reach[reach == 0] = 1.0
    at_centre, *others = evaluate(np.vstack([centre, centre + np.diag(reach)]))
    slopes = ((np.array(others) - at_centre) / reach[:, np.newaxis]).T
    steps = np.random.default_rng(0).uniform(-1, 1, (_N_TRIALS, n_features)) * reach
    found = evaluate(centre + steps)
    error = np.abs(found - at_centre - steps @ slopes.T)
    if np.any(error > _TOLERANCE * (np.abs(at_centre) + reach @ np.abs(slopes.T))):
        raise ValueError(
            f"The step {name} is not linear, and has no predict_gradient. Use linear "
            "steps, such as StandardScaler and Ridge, or MultilinearRegressor or "
            "KernelRegressor."
        )
    return Expansion(evaluate(given), slopes[np.newaxis])


def _like(points: _Array, X: Any) -> Any:
    """Give points the names of the columns of X, if it has names."""
    return type(X)(points, columns=X.columns) if hasattr(X, "columns") else points
