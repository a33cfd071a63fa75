"""The loops of the batched engine as array functions, for any array library.

:mod:`skscatharm.engine.batch_cuda` has the same functions as CUDA kernels for CuPy.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from skscatharm.transform.modulus import power, soften

__all__ = ["gaussian_factors", "integrate_powers", "sum_of_squares"]

Array = Any


def gaussian_factors(
    points: Array, centres: Array, width: float, degree: int, cut: float, dtype: Any
) -> Array:
    r"""Evaluate :math:`d^a e^{-d^2/2}` for all powers a up to a degree.

    Here d is the distance from centre to point in widths; beyond `cut` the factor is
    zero.

    Parameters
    ----------
    points : array of shape (n_molecules, n_points)
    centres : array of shape (n_molecules, n_centres)
    width : float
    degree : int
    cut : float
    dtype : dtype
        Of the result.

    Returns
    -------
    array of shape (n_molecules, n_points, degree + 1, n_centres)
    """
    xp = array_namespace(points)
    d = (points[:, :, None, None] - centres[:, None, None, :]) / width
    powers = xp.asarray(np.arange(degree + 1.0)[:, np.newaxis])
    gaussian = xp.where(xp.abs(d) < cut, xp.exp(d * d * -0.5), xp.zeros_like(d))
    return xp.asarray(gaussian * d**powers, dtype=dtype)


def sum_of_squares(components: Iterable[tuple[Array, Array]], floor: float) -> Array:
    """Add up the squares of the components of fields, and a number.

    `components` are matrices whose products are the components, of any batch shape.
    """
    squared: Array = floor
    for a, b in components:
        component = a @ b
        component *= component
        component += squared
        squared = component
    return squared


def integrate_powers(
    squared: Array,
    weights: Array,
    exponents: Sequence[float],
    scales: Sequence[float],
    epsilon: Any,
) -> tuple[Array, Array]:
    """Compute moduli, and integrate their powers along the last axis.

    Parameters
    ----------
    squared : array of shape (n_molecules, n_channels, n_rows, n)
        Squares of the moduli, without softening.
    weights : array of shape (n_molecules, 1, n)
        Weights of the points along the last axis as a quadrature rule.
    exponents, scales : ndarray of shape (n_exponents,)
        The powers are those of the moduli times the scales.
    epsilon : ndarray of shape (n_molecules, n_channels, 1)
        Softening of the moduli.

    Returns
    -------
    moduli : array of the shape of `squared`
    integrals : array of shape (n_exponents, n_molecules, n_channels, n_rows)
    """
    xp = array_namespace(squared)
    low = xp.asarray(epsilon[..., np.newaxis], dtype=squared.dtype)
    weights = xp.expand_dims(weights, axis=-1)
    root, modulus = soften(squared, low)
    powers = (
        power(squared * s**2, root * s, modulus * s, low * s, float(q))
        if s != 1
        else power(squared, root, modulus, low, float(q))
        for q, s in zip(exponents, map(float, scales), strict=True)
    )
    return modulus, xp.stack([xp.squeeze(p @ weights, axis=-1) for p in powers])
