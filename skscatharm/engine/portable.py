"""The loops of the separable engine as array functions, for any array library.

:mod:`skscatharm.engine.compiled` has `atom_terms`, `pool` and `spread` for processors,
compiled, and says what they take and return.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from skscatharm.transform.harmonics import solid_harmonics
from skscatharm.transform.modulus import soft_power

__all__ = ["atom_terms", "pool", "power", "spread"]

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


def pool(
    components: Sequence[tuple[Array, Array]],
    weights: Array,
    exponents: Sequence[float],
    amplitude: float,
    epsilon: Any,
) -> tuple[Array, Array]:
    xp = array_namespace(weights)
    squared = reduce(add, ((a @ b) ** 2 for a, b in components))
    if epsilon.any():
        epsilon = xp.asarray(epsilon[:, np.newaxis], dtype=squared.dtype)
        modulus = soft_power(squared, 1, epsilon)
        powers = [soft_power(squared, q, epsilon, amplitude) for q in exponents]
    else:
        modulus = xp.sqrt(squared)
        powers = [power(modulus, squared, q, amplitude) for q in exponents]
    return modulus, xp.stack([p @ weights for p in powers])


def power(modulus: Array, squared: Array, q: float, amplitude: float = 1.0) -> Array:
    """Raise a modulus to a power: the common ones the cheap way.

    Other exponents are those of the modulus divided by the amplitude.
    """
    if q == 0.5:
        return array_namespace(modulus).sqrt(modulus)
    if q == 1:
        return modulus
    if q == 2:
        return squared
    if q == 3:
        return squared * modulus
    return (modulus / amplitude) ** float(q)


def spread(field: Array, rows: Array, columns: Array, n_x: int, n_y: int) -> Array:
    xp = array_namespace(field)
    # Columns that were left out take the zeros that are appended.
    index = np.full((n_x, n_y), len(rows))
    index[rows, columns] = np.arange(len(rows))
    field = xp.concat([field, xp.zeros_like(field[..., :1])], axis=2)
    field = xp.take(field, xp.asarray(index.ravel()), axis=2)
    return xp.reshape(field, (*field.shape[:2], n_x, n_y))
