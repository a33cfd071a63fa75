"""The loops of the separable engine as array functions, for any array library.

:mod:`skscatharm.engine.compiled` has the same functions for processors, and documents
their parameters. `sum_of_squares` and `integrate_powers` also accept arrays with more
axes in front, such as those of the batched engine.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from skscatharm.transform.harmonics import solid_harmonics
from skscatharm.transform.modulus import power, power_derivative, soften

__all__ = [
    "atom_terms",
    "gaussian_factors",
    "integrate_powers",
    "power_derivatives",
    "products",
    "spread",
    "sum_of_squares",
]

Array = Any


def atom_terms(
    x: Array, y: Array, rows: Array, columns: Array, degree: int
) -> list[Array]:
    xp = array_namespace(x)
    x = xp.take(x, xp.asarray(rows), axis=2)
    y = xp.take(y, xp.asarray(columns), axis=2)
    return [
        xp.concat(
            [
                reduce(add, (p * x[a, ...] * y[b, ...] for (a, b), p in term.items()))
                for term in harmonic.values()
            ]
        )
        for harmonic in solid_harmonics(degree)
    ]


def gaussian_factors(
    points: Array, centres: Array, width: float, degree: int, cut: float
) -> Array:
    xp = array_namespace(points)
    d = (xp.expand_dims(points, axis=1) - centres) / width
    factor = xp.where(xp.abs(d) < cut, xp.exp(-d * d / 2), xp.zeros_like(d))
    factors = [factor]
    for _ in range(degree):
        factors.append(d * factors[-1])
    return xp.stack(factors)


def sum_of_squares(components: Iterable[tuple[Array, Array]], floor: float) -> Array:
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


def products(components: Sequence[tuple[Array, Array]]) -> list[Array]:
    return [a @ b for a, b in components]


def power_derivatives(
    components: Sequence[Array],
    weights: Array,
    exponents: Sequence[float],
    factors: Array,
    epsilon: Any,
    floor: float,
    peak: float,
    onto_modulus: Array | None,
) -> Array:
    xp = array_namespace(factors)
    low = xp.asarray(epsilon[:, np.newaxis], dtype=factors.dtype)
    squared = reduce(add, (values * values for values in components)) + floor
    root = soften(squared, low)[0] / peak
    total: Any = 0.0 if onto_modulus is None else onto_modulus / root
    for e, q in enumerate(exponents):
        # Twice the derivative, as that of a square is twice a component.
        power = 2 * power_derivative(root, float(q)) * weights
        total = total + factors[:, e, :, None] * power
    return total / peak


def spread(field: Array, rows: Array, columns: Array, n_x: int, n_y: int) -> Array:
    xp = array_namespace(field)
    # Columns that were left out take the zeros that are appended.
    index = np.full((n_x, n_y), len(rows))
    index[rows, columns] = np.arange(len(rows))
    field = xp.concat([field, xp.zeros_like(field[..., :1])], axis=2)
    field = xp.take(field, xp.asarray(index.ravel()), axis=2)
    return xp.reshape(field, (*field.shape[:2], n_x, n_y))
