"""Polynomials as sums of products of linear forms."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device
from sklearn.utils import gen_batches

from skscatharm.regression.whitening import Array, Whitening

# Number of samples evaluated together. Their products fit in the cache.
_BATCH = 1000


class Polynomial(NamedTuple):
    """Linear form of each target, plus products of linear forms.

    The value for target k and sample x is
    ``intercept[k] + slope[k] @ x + coef[k] @ products``, with
    ``products = (weights @ x + offsets).prod(axis=1)``.

    Attributes
    ----------
    intercept : array of shape (n_targets,)
        Constant term.
    slope : array of shape (n_targets, n_columns)
        Coefficients of the linear term.
    coef : array of shape (n_targets, n_products)
        Coefficients of the products.
    weights : array of shape (n_products, degree, n_columns)
        Coefficients of the factors.
    offsets : array of shape (n_products, degree)
        Constant terms of the factors.
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
        Samples, of the same array library and on the same device as the polynomial.
    polynomial : Polynomial

    Returns
    -------
    values : array of shape (n_samples, n_targets)
    """
    xp = array_namespace(X)
    intercept, slope, coef, weights, offsets = polynomial
    values = []
    for rows in gen_batches(max(X.shape[0], 1), _BATCH):
        x = X[rows, :]
        products = x @ weights[:, 0, :].T + offsets[:, 0]
        for t in range(1, weights.shape[1]):
            # Not in place, so that PyTorch can differentiate it.
            products = products * (x @ weights[:, t, :].T + offsets[:, t])
        values.append(intercept + x @ slope.T + products @ coef.T)
    return xp.concat(values)


def differentiate(X: Any, polynomial: Polynomial) -> Any:
    """Differentiate a polynomial with respect to the columns of X.

    Parameters
    ----------
    X, polynomial
        As in `evaluate`.

    Returns
    -------
    gradients : array of shape (n_samples, n_targets, n_columns)
    """
    xp = array_namespace(X)
    _, slope, coef, weights, offsets = polynomial
    gradients = []
    for rows in gen_batches(X.shape[0], _BATCH):
        x = X[rows, :]
        n_factors = weights.shape[1]
        factors = [x @ weights[:, t, :].T + offsets[:, t] for t in range(n_factors)]
        found = xp.zeros(
            (x.shape[0], *slope.shape), dtype=slope.dtype, device=device(slope)
        )
        found += slope
        for t in range(n_factors):
            others = coef[None, :, :]
            for factor in factors[:t] + factors[t + 1 :]:
                others = others * factor[:, None, :]
            found += others @ weights[:, t, :]
        gradients.append(found)
    return xp.concat(gradients)


def in_features(polynomial: Polynomial, whitening: Whitening) -> Polynomial:
    """Convert a polynomial of white coordinates to one of the features.

    Parameters
    ----------
    polynomial : Polynomial
        Polynomial of white coordinates.
    whitening : Whitening
        Map from the features to these coordinates.

    Returns
    -------
    polynomial : Polynomial
        Polynomial of the features. Each factor has mean square 1 on the sample from
        which the whitening was found, so that `coef` can be compared.
    """
    intercept, slope, coef, weights, offsets = polynomial
    size = np.sqrt((weights**2).sum(axis=2) + offsets**2)
    size[size == 0] = 1.0
    slope = slope @ whitening.matrix.T
    weights = weights / size[:, :, None] @ whitening.matrix.T
    return Polynomial(
        intercept - slope @ whitening.mean,
        slope,
        coef * size.prod(axis=1),
        weights,
        offsets / size - weights @ whitening.mean,
    )


def in_axes(polynomial: Polynomial, whitening: Whitening) -> Polynomial:
    """Undo `in_features`, except for the scale of the factors.

    Directions without an axis are lost.
    """
    intercept, slope, coef, weights, offsets = polynomial
    # Units of the features may differ so much that rounding would hide some of them.
    size = np.abs(whitening.matrix).max(axis=1, initial=0.0)
    size[size == 0] = 1.0
    unwhitening = np.linalg.pinv(whitening.matrix / size[:, None]) / size
    return Polynomial(
        intercept + slope @ whitening.mean,
        slope @ unwhitening.T,
        coef,
        weights @ unwhitening.T,
        offsets + weights @ whitening.mean,
    )


def rescale(polynomial: Polynomial, scale: Array) -> Polynomial:
    """Multiply the targets by `scale`, of shape (n_targets,)."""
    return polynomial._replace(
        intercept=scale * polynomial.intercept,
        slope=scale[:, None] * polynomial.slope,
        coef=scale[:, None] * polynomial.coef,
    )


def average(polynomials: Sequence[Polynomial]) -> Polynomial:
    """Average polynomials of the same targets, by concatenating their products."""
    intercepts, slopes, coefs, weights, offsets = zip(*polynomials, strict=True)
    return Polynomial(
        np.mean(intercepts, axis=0),
        np.mean(slopes, axis=0),
        np.hstack(coefs) / len(polynomials),
        np.concatenate(weights),
        np.concatenate(offsets),
    )


def divide(polynomial: Polynomial, n_parts: int) -> list[Polynomial]:
    """Undo `average`, except that all parts have the same linear form."""
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
    """Combine polynomials of one target each into one of several targets."""
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
