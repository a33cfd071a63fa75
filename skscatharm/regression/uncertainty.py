"""Standard deviations of predictions, from errors on samples that a fit did not see.

The error of a prediction is expected to be that of similar samples, and to grow with
the distance from them.
"""

from math import erf, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import gen_batches

from skscatharm.regression.whitening import Array

# ``benchmarks/qm9/uncertainty.py --constants`` varies these constants.

# White coordinates are scaled by this power of their standard deviations. From 0.1 to
# 0.25, errors are ranked alike; 0.35 and more are worse.
DECAY = 0.2
# Share of normal errors within one standard deviation.
_SHARE = erf(sqrt(0.5))
# Number of samples whose errors are kept. With half of them, ranks are a little worse.
# With derivatives, each sample has many rows to solve for, and there are fewer samples.
_REFERENCES, _LEAST = 1000, 50
# Number of neighbours, and the largest part of the references. 20 to 80 are as good.
_NEIGHBOURS, _PART = 40, 0.5
# This number of neighbours with the mean error is added, since errors of few neighbours
# vary. From 3 to 30, errors of ten and of a thousand samples are ranked as well.
_ADDED = 10
# Added to distances, in units of the root mean squared norm: neighbours are never
# perfect. From 0 to 1, errors are ranked alike.
_NEAR = 0.2
# Number of predictions whose neighbours are found together.
_BATCH = 1000


class Unseen(NamedTuple):
    """Samples that a fit did not see, and its errors there.

    Attributes
    ----------
    white : ndarray of shape (n_references, n_axes)
        White coordinates.
    errors : ndarray of shape (n_references, n_targets)
        Targets minus predictions.
    weight : ndarray of shape (n_references,)
        Positive weights.
    """

    white: Array
    errors: Array
    weight: Array


def choose_references(n_samples: int, n_rows: int) -> NDArray[np.intp]:
    """Choose samples whose errors are computed, always the same ones.

    Parameters
    ----------
    n_samples : int
    n_rows : int
        Number of targets and derivatives of all samples.

    Returns
    -------
    references : ndarray of shape (n_references,)
        Indices in ascending order.
    """
    size = max(_REFERENCES * n_samples // n_rows, _LEAST)
    return np.sort(np.random.RandomState(0).permutation(n_samples)[:size])


def error_rates(references: Array, errors: Array, weight: Array) -> Array:
    """Divide errors by distances, so that `deviations` covers the right share of them.

    The standard deviation at a sample is the mean error of its neighbours, times the
    mean distance from them, times one number for each target. With this number, 68.3 %
    of the errors are within one standard deviation.

    Parameters
    ----------
    references : ndarray of shape (n_references, n_axes)
        Coordinates of samples, with a mean squared norm near 1.
    errors : ndarray of shape (n_references, n_targets)
        Errors of predictions for them, by fits that did not see them.
    weight : ndarray of shape (n_references,)
        Positive weights.

    Returns
    -------
    rates : ndarray of shape (n_references, n_targets)
        Absolute errors, multiplied by that number. NaN for less than two references.
    """
    if len(references) < 2:
        return np.full_like(errors, np.nan)
    distances = _distances(references, references)
    np.fill_diagonal(distances, np.inf)
    mean_distance, rows = _nearest(distances)
    largest = abs(errors).max(axis=0)
    absolute = abs(errors) / np.where(largest > 0, largest, 1)
    rates = absolute + _ADDED / rows.shape[1] * absolute.mean(axis=0)
    expected = _spread(mean_distance, rates[rows])
    # Errors are zero where the expected ones are.
    ratios = absolute / np.where(expected > 0, expected, 1)
    factor = np.quantile(ratios, _SHARE, axis=0, weights=weight, method="inverted_cdf")
    return np.asarray(factor * rates * largest)


def deviations(coordinates: Array, references: Array, rates: Array) -> Array:
    """Estimate standard deviations of predictions.

    Parameters
    ----------
    coordinates : ndarray of shape (n_samples, n_axes)
    references, rates
        As in `error_rates`.

    Returns
    -------
    deviations : ndarray of shape (n_samples, n_targets)
    """
    found = np.empty((len(coordinates), rates.shape[1]))
    for part in gen_batches(len(coordinates), _BATCH):
        distance, rows = _nearest(_distances(coordinates[part], references))
        found[part] = _spread(distance, rates[rows])
    return found


def _distances(coordinates: Array, references: Array) -> Array:
    """Compute distances; they are 0 without axes, where all features are constant."""
    # Not NearestNeighbors, which sets the number of threads of BLAS: in fits that
    # overlap, it would restore the wrong one.
    if references.shape[1] == 0:
        return np.zeros((len(coordinates), len(references)))
    return np.asarray(euclidean_distances(coordinates, references))


def _nearest(distances: Array) -> tuple[Array, NDArray[np.intp]]:
    """Find the nearest references of each sample, and their mean distance."""
    n_neighbours = int(np.clip(_PART * distances.shape[1], 1, _NEIGHBOURS))
    rows = np.argpartition(distances, n_neighbours - 1, axis=1)[:, :n_neighbours]
    return np.take_along_axis(distances, rows, axis=1).mean(axis=1), rows


def _spread(distance: Array, rates: Array) -> Array:
    """Multiply the mean distance of neighbours by their mean rate."""
    return np.asarray((distance + _NEAR)[:, None] * rates.mean(axis=1))
