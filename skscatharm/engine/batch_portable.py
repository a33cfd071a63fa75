"""The loops of the batched engine as array functions, for any array library.

:mod:`skscatharm.engine.batch_cuda` has the same functions as CUDA kernels for CuPy.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from skscatharm.engine.portable import integrate_powers, sum_of_squares
from skscatharm.engine.quadrature import Axes, stretched_axes
from skscatharm.transform.modulus import power

__all__ = [
    "atom_factors",
    "gaussian_factors",
    "grid_axes",
    "integrate_fields",
    "integrate_products",
]

Array = Any

# Arrays of the size of a field of all channels, that are held at a time; and of the
# size of all fields that are multiplied: moduli, powers twice as they are joined, and
# those with weights.
FIELDS, PRODUCTS = 8, 4


def grid_axes(axes: Axes, dtype: Any, like: Array) -> list[tuple[Array, Array]]:
    """Compute points and weights of the grids of several molecules.

    Parameters
    ----------
    axes : Axes
    dtype : dtype
        Of the weights. Points are in double precision.
    like : array
        Of the library that computes, where it does.

    Returns
    -------
    list of three tuples of arrays of shape (n_molecules, n_points)
    """
    xp, where = array_namespace(like), device(like)
    return [
        (
            xp.asarray(points, device=where),
            xp.asarray(weights, dtype=dtype, device=where),
        )
        for points, weights in (
            stretched_axes(axes.width, rules, n)
            for rules, n in zip(axes.rules, axes.n_points, strict=True)
        )
    ]


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


def atom_factors(along_x: Array, along_y: Array, polynomials: Array) -> Array:
    """Evaluate the factors in x and y of all terms of solid harmonics, around atoms.

    Parameters
    ----------
    along_x, along_y : array of shape (n_molecules, n_atoms, degree + 1, n_points)
        Gaussian factors.
    polynomials : array of shape (n_terms, degree + 1, degree + 1)

    Returns
    -------
    array of shape (n_molecules, n_terms * n_atoms, n_y * n_x)
    """
    xp = array_namespace(along_x)
    polynomials = xp.expand_dims(xp.matrix_transpose(polynomials), axis=1)
    planar = xp.matmul(polynomials, xp.expand_dims(along_x, axis=1))
    along_y = xp.matrix_transpose(xp.expand_dims(along_y, axis=1))
    planar = xp.matmul(along_y, planar)
    n_molecules, n_terms, n_atoms, n_y, n_x = planar.shape
    return xp.reshape(planar, (n_molecules, n_terms * n_atoms, n_y * n_x))


def integrate_fields(
    left: Array,
    right: Array,
    ends: tuple[int, ...],
    weights: Array,
    exponents: Sequence[float],
    scales: Sequence[float],
    epsilon: Any,
    floor: float,
    keep: bool,
) -> tuple[Array, Array]:
    r"""Compute moduli of fields, and integrate their powers over x and y.

    The component of each order m is a product of two matrices: a range of `left`,
    transposed, and the same range of `right`.

    Parameters
    ----------
    left : array of shape (n_molecules, n_inner, n_rows)
    right : array of shape (n_molecules, n_shared, n_inner, n_columns)
        The rows of a product are those of one channel, with one such matrix for each;
        or those of all channels, with one matrix for all.
    ends : tuple of int
        Where the range of each order ends, along the axis `n_inner`.
    weights : array of shape (n_molecules, n_columns)
        Weights of the points in x and y.
    exponents, scales : sequence of float
        Powers, and factors of the moduli before they are raised.
    epsilon : array of shape (n_molecules, n_channels, 1)
        Softening.
    floor : float
        Added to the sum of squares.
    keep : bool
        Whether the moduli are needed.

    Returns
    -------
    moduli : array of shape (n_molecules, n_channels, n_z, n_columns) or None
    integrals : array of shape (n_exponents, n_molecules, n_channels, n_z)
    """
    xp = array_namespace(left)
    left = xp.expand_dims(xp.matrix_transpose(left), axis=1)
    squared = sum_of_squares(
        (
            (left[..., start:stop], right[:, :, start:stop, :])
            for start, stop in pairwise([0, *ends])
        ),
        floor,
    )
    fields = (*epsilon.shape[:2], -1, squared.shape[-1])
    modulus, integrals = integrate_powers(
        xp.reshape(squared, fields),
        xp.expand_dims(weights, axis=1),
        exponents,
        scales,
        epsilon,
    )
    return modulus if keep else None, integrals


def integrate_products(
    moduli: Sequence[Array],
    columns: Array,
    layers: Array,
    exponents: Sequence[float],
    scales: Sequence[float],
    epsilon: Array,
    n_narrow: int,
    joined: bool,
) -> Array:
    """Integrate powers of the products of two fields.

    Parameters
    ----------
    moduli : sequence of array of shape (n_molecules, n_channels, n_z, n_columns)
        Of each field.
    columns : array of shape (n_molecules, n_columns)
        Weights of the points in x and y.
    layers : array of shape (n_molecules, n_z)
        Weights of the points in z.
    exponents, scales : sequence of float
        Powers, and factors of the moduli before they are raised to half of them.
    epsilon : array of shape (n_fields, n_molecules, n_channels, 1)
        Softening.
    n_narrow : int
        One of the two fields is one of the first `n_narrow`.
    joined : bool
        Whether fields of different channels are multiplied.

    Returns
    -------
    array of shape (n_exponents, n_molecules, n_groups, n_fields, n_narrow)
        Each channel is a group of its own. If `joined`, there is one group, with all
        channels of each field.
    """
    xp = array_namespace(columns)
    n_molecules, n_channels, n_z, _ = moduli[0].shape
    columns = xp.reshape(columns, (n_molecules, 1, 1, 1, -1))
    layers = xp.reshape(layers, (n_molecules, 1, n_z, 1, 1))
    integrals = []
    for q, scale in zip(exponents, scales, strict=True):
        powers = [
            _power_of_modulus(modulus, epsilon[i, ..., None], float(q) / 2, scale)
            for i, modulus in enumerate(moduli)
        ]
        if joined:
            powers = [xp.permute_dims(p, (0, 2, 1, 3)) for p in powers]
        axis = 1 if joined else 3
        rows = xp.concat([xp.expand_dims(p, axis=axis) for p in powers], axis=3)
        narrow = rows[..., : n_narrow * (n_channels if joined else 1), :] * columns
        # A layer at a time, as longer sums lose digits in single precision.
        sums = xp.matmul(rows, xp.matrix_transpose(narrow))
        integrals.append(xp.sum(sums * layers, axis=2))
    return xp.stack(integrals)


def _power_of_modulus(modulus: Array, epsilon: Array, q: float, scale: float) -> Array:
    """Raise a softened modulus times a scale to a power."""
    if q == 1 and scale == 1:
        return modulus
    modulus, epsilon = modulus * scale, epsilon * scale
    squared = modulus * (modulus + 2 * epsilon)
    return power(squared, modulus + epsilon, modulus, epsilon, q)
