"""Sums of products of linear forms: how they are written, moved and evaluated."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from sklearn.utils import gen_batches

from skscatharm.regression.whitening import Array, Whitening

# Samples that are evaluated at once, so that their products stay in the cache.
_BATCH = 1000


class Polynomial(NamedTuple):
    """Linear forms plus products of linear forms, for one or more targets.

    Target k of a sample x is ``intercept[k] + slope[k] @ x + coef[k] @ products``, with
    ``products = (weights @ x + offsets).prod(axis=1)``.

    Attributes
    ----------
    intercept : array of shape (n_targets,)
    slope : array of shape (n_targets, n_columns)
    coef : array of shape (n_targets, n_products)
    weights : array of shape (n_products, degree, n_columns)
    offsets : array of shape (n_products, degree)
    """

    intercept: Any
    slope: Any
    coef: Any
    weights: Any
    offsets: Any


def evaluate(X: Any, polynomial: Polynomial) -> Any:
    """Evaluate a polynomial.

    Parameters
    ----------
    X : array of shape (n_samples, n_columns)
        Samples, in the array library and on the device of the polynomial.
    polynomial : Polynomial
        The polynomial.

    Returns
    -------
    values : array of shape (n_samples, n_targets)
        In the same library, on the same device.
    """
    xp = array_namespace(X)
    intercept, slope, coef, weights, offsets = polynomial
    values = []
    for rows in gen_batches(X.shape[0], _BATCH):
        x = X[rows, :]
        products = x @ weights[:, 0, :].T + offsets[:, 0]
        for t in range(1, weights.shape[1]):
            products *= x @ weights[:, t, :].T + offsets[:, t]
        values.append(intercept + x @ slope.T + products @ coef.T)
    return xp.concat(values)


def in_features(polynomial: Polynomial, axes: Whitening) -> Polynomial:
    """Write a polynomial of white coordinates as one of the features.

    Parameters
    ----------
    polynomial : Polynomial
        The polynomial, whose columns are white coordinates.
    axes : Whitening
        Their axes.

    Returns
    -------
    polynomial : Polynomial
        The same, of the features. Each factor has mean square 1 on the sample of the
        axes, so that `coef` tells the size of the products.
    """
    intercept, slope, coef, weights, offsets = polynomial
    size = np.sqrt((weights**2).sum(axis=2) + offsets**2)
    size[size == 0] = 1.0
    slope = slope @ axes.matrix.T
    weights = weights / size[:, :, None] @ axes.matrix.T
    return Polynomial(
        intercept - slope @ axes.mean,
        slope,
        coef * size.prod(axis=1),
        weights,
        offsets / size - weights @ axes.mean,
    )


def in_axes(polynomial: Polynomial, axes: Whitening) -> Polynomial:
    """Undo `in_features`, up to the size of the factors.

    What the forms do across the axes is lost.
    """
    intercept, slope, coef, weights, offsets = polynomial
    # Units of the features may be so far apart that rounding would hide some of them.
    size = np.linalg.norm(axes.matrix, axis=1)
    size[size == 0] = 1.0
    unwhitening = np.linalg.pinv(axes.matrix / size[:, None]) / size
    return Polynomial(
        intercept + slope @ axes.mean,
        slope @ unwhitening.T,
        coef,
        weights @ unwhitening.T,
        offsets + weights @ axes.mean,
    )


def rescale(polynomial: Polynomial, scale: Array) -> Polynomial:
    """Multiply the targets by `scale`, of shape (n_targets,)."""
    return polynomial._replace(
        intercept=scale * polynomial.intercept,
        slope=scale[:, None] * polynomial.slope,
        coef=scale[:, None] * polynomial.coef,
    )


def average(polynomials: Sequence[Polynomial]) -> Polynomial:
    """Average polynomials of the same targets; their products stand in a row."""
    intercepts, slopes, coefs, weights, offsets = zip(*polynomials, strict=True)
    return Polynomial(
        np.mean(intercepts, axis=0),
        np.mean(slopes, axis=0),
        np.hstack(coefs) / len(polynomials),
        np.concatenate(weights),
        np.concatenate(offsets),
    )


def divide(polynomial: Polynomial, n_parts: int) -> list[Polynomial]:
    """Undo `average`, except that all parts get the same linear form."""
    intercept, slope, coef, weights, offsets = polynomial
    return [
        Polynomial(intercept, slope, n_parts * c, w, o)
        for c, w, o in zip(
            np.split(coef, n_parts, axis=1),
            np.split(weights, n_parts),
            np.split(offsets, n_parts),
            strict=True,
        )
    ]


def stack(polynomials: Sequence[Polynomial]) -> Polynomial:
    """Join polynomials of one target each into one of several targets."""
    intercepts, slopes, coefs, weights, offsets = zip(*polynomials, strict=True)
    n_products = [coef.shape[1] for coef in coefs]
    coef = np.zeros((len(polynomials), sum(n_products)))
    ends = np.cumsum(n_products)
    for k, (part, end) in enumerate(zip(coefs, ends, strict=True)):
        coef[k, end - part.shape[1] : end] = part[0]
    return Polynomial(
        np.concatenate(intercepts),
        np.concatenate(slopes),
        coef,
        np.concatenate(weights),
        np.concatenate(offsets),
    )
