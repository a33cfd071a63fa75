"""Fit ridge regression, and choose its penalty."""

import numpy as np
from numpy.typing import ArrayLike

from skscatharm.regression.polynomial import Polynomial
from skscatharm.regression.whitening import Array, Sample

_ALPHAS = 10.0 ** np.arange(4, -11, -1)


def feasible_penalty(alpha: float, trace: float) -> float:
    """Raise a penalty that is too small to make a matrix of this trace definite."""
    if alpha == trace == 0:
        return 1.0  # the matrix is zero, so that the penalty has no effect
    return max(alpha, 1e-13 * trace, np.finfo(float).tiny)


def fit_linear(
    white: Array, deviations: Array, y: Array, sample_weight: Array, alpha: ArrayLike
) -> tuple[Array, Array]:
    """Fit ridge regression of standardised features, in white coordinates.

    Parameters
    ----------
    white : ndarray of shape (n_samples, n_axes)
        White coordinates: uncorrelated, with weighted mean 0 and variance 1.
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
        Coefficients of the white coordinates, for each penalty.
    residuals : ndarray of shape (n_samples, n_alphas)
        Leave-one-out residuals.
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
) -> tuple[float, Array, Array]:
    """Find the penalty with the least mean absolute leave-one-out error.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `fit_linear`.
    alpha : float or None
        Penalty. None chooses it.

    Returns
    -------
    alpha : float
        The penalty.
    coef : ndarray of shape (n_axes,)
        Coefficients with this penalty.
    residuals : ndarray of shape (n_samples,)
        Leave-one-out residuals.
    """
    alphas = _ALPHAS if alpha is None else np.array([alpha])
    coef, residuals = fit_linear(white, deviations, y, sample_weight, alphas)
    mean_errors = sample_weight @ abs(residuals) / sample_weight.sum()
    best = int(np.argmin(mean_errors))
    return float(alphas[best]), coef[:, best], residuals[:, best]


def fit_ridge(sample: Sample, alpha: float | None) -> tuple[Polynomial, Array, Array]:
    """Fit ridge regression of each target.

    Parameters
    ----------
    sample : Sample
        Coordinates and targets.
    alpha : float or None
        Penalty. None chooses it for each target.

    Returns
    -------
    polynomial : Polynomial
        Linear forms of the white coordinates.
    alphas : ndarray of shape (n_targets,)
        Penalties.
    residuals : ndarray of shape (n_samples, n_targets)
        Leave-one-out residuals.
    """
    white, deviations, targets, weight = sample
    alphas, coefs, residuals = zip(
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
    return linear, np.array(alphas), np.stack(residuals, axis=1)


def fit_part(
    features: Array, Y: Array, sample_weight: Array, alphas: ArrayLike
) -> tuple[Array, Array]:
    """Fit ridge regression of correlated features, such as those of some samples.

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
        Intercepts, without penalty.
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
