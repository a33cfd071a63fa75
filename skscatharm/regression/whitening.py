"""Whitening: uncorrelated coordinates of variance 1 along the principal axes."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

# In this room: real numbers in double precision, as an array of NumPy.
Array = NDArray[np.float64]

# Axes with a smaller standard deviation, relative to the largest, are rounding errors.
_RANK_TOLERANCE = 1e-8
# With a Jacobian, features are scaled as if they varied by this part of their mean at
# least; and the variation along coordinates is this number of times that over samples.
# From 3 to 15, errors of forces hardly change; 1 and 100 are worse.
_FLOOR, _SHARE = 0.1, 5.0
# Rows that are compared at once, and samples with derivatives, to bound memory.
_COMPARED, _JACOBIANS = 1000, 50


class Sample(NamedTuple):
    """Weighted samples in white coordinates, with their targets.

    Attributes
    ----------
    white : ndarray of shape (n_samples, n_axes)
        White coordinates: uncorrelated, with weighted mean 0 and variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations along the principal axes before whitening.
    targets : ndarray of shape (n_samples, n_targets)
        Targets, with weighted mean 0.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    """

    white: Array
    deviations: Array
    targets: Array
    weight: Array


class Whitening(NamedTuple):
    """Affine map from features to white coordinates, ``(X - mean) @ matrix``.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Weighted mean of the features.
    matrix : ndarray of shape (n_features, n_axes)
        Standardises the features, rotates them to their principal axes, and divides
        each coordinate by its standard deviation.
    deviations : ndarray of shape (n_axes,)
        Standard deviations along the axes, in descending order.
    """

    mean: Array
    matrix: Array
    deviations: Array

    def coordinates(self, features: Array) -> Array:
        """Compute the white coordinates of rows of features."""
        return np.asarray((features - self.mean) @ self.matrix)


def distinct_rows(
    X: Array, Y: Array, sample_weight: Array
) -> tuple[Array, Array, Array]:
    """Merge equal samples, and sort them.

    The result does not depend on the order of the samples, and a sample of weight 2
    has the same effect as two samples.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.
    Y : ndarray of shape (n_samples, n_targets)
        Targets.
    sample_weight : ndarray of shape (n_samples,)
        Weights, 0 or more. Samples of weight 0 are removed.

    Returns
    -------
    X, Y, sample_weight : ndarrays
        The distinct samples, with the sums of their weights.
    """
    rows, weight = distinct_samples([X, Y], sample_weight)
    # Adding 0 turns -0 into 0.
    return X[rows] + 0.0, Y[rows] + 0.0, weight


def distinct_samples(
    arrays: Sequence[Array], sample_weight: Array
) -> tuple[NDArray[np.intp], Array]:
    """Find samples that differ in any of several arrays, and sort them.

    Parameters
    ----------
    arrays : sequence of ndarrays of shape (n_samples, n_columns)
        Data of the samples. Jacobians, of shape (n_samples, n_columns, n_coordinates),
        are compared by digests, as copies of them would need much memory.
    sample_weight : ndarray of shape (n_samples,)
        Weights, 0 or more. Samples of weight 0 are removed.

    Returns
    -------
    rows : ndarray of shape (n_distinct,)
        The first of each group of equal samples, in an order that depends on the data
        alone.
    weight : ndarray of shape (n_distinct,)
        Sums of the weights of equal samples.
    """
    kept = np.flatnonzero(sample_weight > 0)
    keys = [_row_bytes(array, kept) for array in arrays]
    order = np.lexsort(keys[::-1])
    starts = np.ones(len(order), dtype=bool)
    for pairs in gen_batches(len(order) - 1, _COMPARED):
        before, after = order[:-1][pairs], order[1:][pairs]
        starts[1:][pairs] = np.logical_or.reduce(
            [key[before] != key[after] for key in keys]
        )
    weight = np.zeros(np.count_nonzero(starts))
    np.add.at(weight, np.cumsum(starts) - 1, sample_weight[kept[order]])
    return kept[order[starts]], weight


def _row_bytes(array: Array, kept: NDArray[np.intp]) -> NDArray[np.void]:
    """Turn some rows of an array into one item each: their bytes, or a digest."""
    # A copy. Adding 0 turns -0 into 0, so that equal rows have equal bytes.
    if array.ndim > 2:
        rows = (np.add(array[i], 0.0, order="C").data for i in kept)
        digests = [blake2b(row, digest_size=16).digest() for row in rows]
        return np.array(digests, dtype="V16")
    row = np.dtype((np.void, array.itemsize * array.shape[1]))
    return (np.take(array, kept, axis=0) + 0.0).view(row).ravel()


def find_whitening(
    X: Array,
    sample_weight: Array,
    jacobian: Array | None = None,
    rank_tolerance: float = _RANK_TOLERANCE,
) -> Whitening:
    """Find the principal axes of the standardised features.

    With a Jacobian, the axes are those of the variation over the samples plus that
    along the coordinates. A few samples alone span few axes, and features may vary
    along others next to each sample.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features. Constant ones have no weight in any axis.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    jacobian : ndarray of shape (n_samples, n_features, n_coordinates) or None
        Derivatives of the features with respect to coordinates.
    rank_tolerance : float
        Least standard deviation of an axis, relative to the largest.

    Returns
    -------
    whitening : Whitening
        Only axes along which the samples vary.
    """
    share = sample_weight / sample_weight.sum()
    mean = share @ X
    centred = X - mean
    deviation = root_mean_square(centred, share)
    varies = deviation > 1e-12 * np.abs(mean)
    scale = deviation
    if jacobian is not None:
        # The samples are close to each other, so that some features may vary by their
        # errors alone.
        scale = np.hypot(scale, _FLOOR * mean)
    scale = np.where(varies, scale, 1.0)
    root = np.sqrt(share)
    centred *= root[:, None]
    centred *= varies / scale
    # A covariance matrix would lose half of the digits: its entries are squares.
    triangle = np.array(np.linalg.qr(centred, mode="r"))
    if jacobian is not None:
        slopes: Array = np.zeros((0, len(scale)))
        for rows in gen_batches(len(X), _JACOBIANS):
            found = jacobian[rows].transpose(0, 2, 1) * root[rows, None, None]
            found *= varies / scale
            stacked = np.concatenate([slopes, found.reshape(-1, len(scale))])
            slopes = np.array(np.linalg.qr(stacked, mode="r"))
        size = np.linalg.norm(slopes) or 1.0
        slopes *= _SHARE * np.linalg.norm(triangle) / size
        triangle = np.concatenate([triangle, slopes])
    _, singular, directions = np.linalg.svd(triangle, full_matrices=False)
    n_axes = np.count_nonzero(singular > rank_tolerance * singular.max(initial=0.0))
    singular = singular[:n_axes]
    matrix = directions[:n_axes].T / singular / scale[:, None]
    return Whitening(mean, matrix, singular)


def root_mean_square(columns: Array, share: Array) -> Array:
    """Compute the root mean square of each column, whatever its unit.

    Parameters
    ----------
    columns : ndarray of shape (n_samples, n_columns)
    share : ndarray of shape (n_samples,)
        Weights with sum 1.

    Returns
    -------
    ndarray of shape (n_columns,)
    """
    # Squares of very small or large numbers are out of range. Powers of two are exact.
    largest = np.maximum(columns.max(axis=0), -columns.min(axis=0))
    _, exponent = np.frexp(largest)
    squares = np.ldexp(columns, -exponent)
    squares *= squares
    return np.ldexp(np.sqrt(share @ squares), exponent)


def decayed(deviations: Array, decay: float) -> Array:
    """Raise deviations, relative to the largest one, to the power `decay`."""
    return (deviations / deviations.max(initial=0.0)) ** decay


def axis_factors(deviations: Array, decay: float) -> Array:
    """Return factors of white coordinates that make their mean squared norm 1."""
    factors = decayed(deviations, decay)
    return factors / (np.linalg.norm(factors) or 1.0)


def scale_axes(white: Array, deviations: Array, decay: float) -> tuple[Array, Array]:
    """Scale white coordinates by a power of their standard deviations.

    Parameters
    ----------
    white : ndarray of shape (n_samples, n_axes)
        White coordinates.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    decay : float
        The power.

    Returns
    -------
    coordinates : ndarray of shape (n_samples, n_axes)
        Scaled coordinates. Their mean squared norm is 1.
    factors : ndarray of shape (n_axes,)
        The factor of each coordinate.
    """
    factors = axis_factors(deviations, decay)
    return white * factors, factors
