"""Coordinates to regress in: the principal axes of the features."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Principal axes with a smaller deviation, relative to the first, hold only rounding.
_RANK_TOLERANCE = 1e-8


class Sample(NamedTuple):
    """What is regressed, in white coordinates.

    Attributes
    ----------
    white : ndarray of shape (n_samples, n_axes)
        Coordinates along the principal axes, with weighted mean 0 and variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations along the axes before whitening.
    targets : ndarray of shape (n_samples, n_targets)
        Targets, with weighted mean 0.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    """

    white: Array
    deviations: Array
    targets: Array
    weight: Array


class Axes(NamedTuple):
    """Principal axes of a weighted sample with standardised columns.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Weighted mean of the columns.
    whitening : ndarray of shape (n_features, n_axes)
        ``(X - mean) @ whitening`` has uncorrelated columns of variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations along the axes, in descending order.
    """

    mean: Array
    whitening: Array
    deviations: Array


def distinct_rows(
    X: Array, Y: Array, sample_weight: Array
) -> tuple[Array, Array, Array]:
    """Merge equal samples, in an order that does not depend on the order given.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.
    Y : ndarray of shape (n_samples, n_targets)
        Targets.
    sample_weight : ndarray of shape (n_samples,)
        Weights. Samples without weight are left out.

    Returns
    -------
    X, Y, sample_weight : ndarrays
        Each different sample once, with the sum of its weights.
    """
    kept = sample_weight > 0
    # Adding 0 turns -0 into 0, so that equal rows have equal bytes.
    rows = np.ascontiguousarray(np.hstack([X, Y])[kept] + 0.0)
    raw = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
    weight = np.zeros(len(first))
    np.add.at(weight, inverse, sample_weight[kept])
    # Contiguous, so that rounding is the same whatever the number of targets.
    X, Y = (np.ascontiguousarray(a) for a in np.hsplit(rows[first], [X.shape[1]]))
    return X, Y, weight


def principal_axes(X: Array, sample_weight: Array) -> Axes:
    """Find the principal axes of the standardised columns.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features. Constant columns get no part in any axis.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.

    Returns
    -------
    axes : Axes
        Without those along which the sample does not vary.
    """
    share = sample_weight / sample_weight.sum()
    mean = share @ X
    centred = X - mean
    deviation = np.sqrt(share @ centred**2)
    varies = deviation > 1e-12 * np.abs(mean)
    scale = np.where(varies, deviation, 1.0)
    centred *= np.sqrt(share)[:, None]
    centred *= varies / scale
    # Squaring the columns into a covariance would lose the smaller half of the digits.
    triangle = np.linalg.qr(centred, mode="r")
    _, singular, directions = np.linalg.svd(triangle, full_matrices=False)
    n_axes = np.count_nonzero(singular > _RANK_TOLERANCE * singular.max(initial=0.0))
    singular = singular[:n_axes]
    whitening = directions[:n_axes].T / singular / scale[:, None]
    return Axes(mean, whitening, singular)


def decayed(deviations: Array, decay: float) -> Array:
    """Raise deviations, relative to the largest, to a power."""
    return (deviations / deviations.max(initial=0.0)) ** decay


def scale_axes(white: Array, deviations: Array, decay: float) -> tuple[Array, Array]:
    """Scale white coordinates by a power of their deviations.

    Parameters
    ----------
    white : ndarray of shape (n_samples, n_axes)
        Coordinates of variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    decay : float
        The power.

    Returns
    -------
    coordinates : ndarray of shape (n_samples, n_axes)
        Scaled coordinates; the mean of their squared norm is 1.
    factors : ndarray of shape (n_axes,)
        What the columns were multiplied by.
    """
    factors = decayed(deviations, decay)
    factors /= np.linalg.norm(factors)
    return white * factors, factors
