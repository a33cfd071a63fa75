"""The loops of the batched engine as array functions, for any array library.

:mod:`skscatharm.engine.batch_cuda` has the same functions as CUDA kernels for CuPy. All
but the Gaussian factors are those of the separable engine. Arrays are of shapes:

- `squared` and moduli: (n_molecules, n_channels, n_rows, n);
- weights: (n_molecules, 1, n); softening: (n_molecules, n_channels, 1);
- integrals: (n_exponents, n_molecules, n_channels, n_rows).
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from skscatharm.engine.portable import integrate_powers, sum_of_squares

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
