"""Ridge regression, and the choice of its penalty."""

import numpy as np
from numpy.typing import ArrayLike

from skscatharm.regression.polynomial import Polynomial
from skscatharm.regression.whitening import Array, Sample

_ALPHAS = 10.0 ** np.arange(4, -11, -1)


def feasible_penalty(alpha: float, trace: float) -> float:
    """Raise a penalty below which rounding makes a matrix of this trace indefinite."""
    return max(alpha, 1e-13 * trace, np.finfo(float).tiny)


def fit_linear(
    white: Array, deviations: Array, y: Array, sample_weight: Array, alpha: ArrayLike
) -> tuple[Array, Array]:
    """Ridge regression on standardised columns, in their principal axes.

    Parameters
    ----------
    white : ndarray of shape (n_samples, n_axes)
        Coordinates along the axes, with weighted mean 0 and variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    y : ndarray of shape (n_samples,)
        Target, with weighted mean 0.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    alpha : float or array-like of shape (n_alphas,)
        Penalties.

    Returns
    -------
    coef : ndarray of shape (n_axes, n_alphas)
        Coefficients of the white coordinates, one column for each penalty.
    errors : ndarray of shape (n_samples, n_alphas)
        What the fit without a sample gets wrong there.
    """
    total = sample_weight.sum()
    shrunk = 1 / (total + np.atleast_1d(alpha) / deviations[:, None] ** 2)
    coef = shrunk * (white.T @ (sample_weight * y))[:, None]
    leverage = sample_weight[:, None] * (1 / total + white**2 @ shrunk)
    left = np.maximum(1 - leverage, np.finfo(float).eps)
    return coef, (y[:, None] - white @ coef) / left


def choose_penalty(
    white: Array,
    deviations: Array,
    y: Array,
    sample_weight: Array,
    alpha: float | None,
) -> tuple[float, Array, float]:
    """Find the penalty with the least mean absolute leave-one-out error.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `fit_linear`.
    alpha : float or None
        The penalty, where it is given.

    Returns
    -------
    alpha : float
        The penalty.
    coef : ndarray of shape (n_axes,)
        Coefficients with this penalty.
    error : float
        Mean absolute leave-one-out error.
    """
    alphas = _ALPHAS if alpha is None else np.array([alpha])
    coef, errors = fit_linear(white, deviations, y, sample_weight, alphas)
    mean_errors = sample_weight @ abs(errors) / sample_weight.sum()
    best = int(np.argmin(mean_errors))
    return float(alphas[best]), coef[:, best], float(mean_errors[best])


def fit_ridge(sample: Sample, alpha: float | None) -> tuple[Polynomial, Array, Array]:
    """Ridge regression of each target, on standardised columns.

    Parameters
    ----------
    sample : Sample
        Coordinates and targets.
    alpha : float or None
        The penalty. None chooses it, for each target.

    Returns
    -------
    polynomial : Polynomial
        The linear forms.
    alphas : ndarray of shape (n_targets,)
        Their penalties.
    errors : ndarray of shape (n_targets,)
        Mean absolute leave-one-out errors.
    """
    white, deviations, targets, weight = sample
    alphas, coefs, errors = zip(
        *(
            choose_penalty(white, deviations, y, weight, alpha)
            for y in targets.T.copy()
        ),
        strict=True,
    )
    n_targets, n_axes = targets.shape[1], len(deviations)
    linear = Polynomial(
        np.zeros(n_targets),
        np.stack(coefs),
        np.zeros((n_targets, 0)),
        np.zeros((0, 1, n_axes)),
        np.zeros((0, 1)),
    )
    return linear, np.array(alphas), np.array(errors)


def fit_part(
    features: Array, Y: Array, sample_weight: Array, alphas: ArrayLike
) -> tuple[Array, Array]:
    """Ridge regression on a part of a sample, whose axes are not principal ones.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Features.
    Y : ndarray of shape (n_samples, n_targets)
        Targets.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    alphas : array-like of shape (n_targets,)
        Penalties.

    Returns
    -------
    coef : ndarray of shape (n_features, n_targets)
        The fit is ``intercept + features @ coef``.
    intercept : ndarray of shape (n_targets,)
        The intercepts, without penalty.
    """
    share = sample_weight / sample_weight.sum()
    mean, mean_target = share @ features, share @ Y
    centred = features - mean
    gram = (centred.T * sample_weight) @ centred
    moments = centred.T @ (sample_weight[:, None] * Y)
    coef = np.empty_like(moments)
    for k, alpha in enumerate(np.asarray(alphas)):
        lift = feasible_penalty(alpha, np.trace(gram))
        coef[:, k] = np.linalg.solve(gram + lift * np.eye(len(gram)), moments[:, k])
    return coef, mean_target - mean @ coef
