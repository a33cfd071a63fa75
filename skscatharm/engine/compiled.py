"""The loops of the separable engine for processors: one pass where arrays take many.

The same functions for other array libraries are in :mod:`skscatharm.engine.portable`.
Each inner loop goes over contiguous numbers and writes to one array, which compilers
turn into vector instructions.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.transform.harmonics import solid_harmonics
from skscatharm.transform.modulus import TINY

__all__ = [
    "atom_terms",
    "gaussian_factors",
    "integrate_powers",
    "near_columns",
    "power_derivatives",
    "products",
    "spread",
    "sum_of_squares",
]

Array = NDArray[Any]


def atom_terms(
    x: Array, y: Array, rows: Array, columns: Array, degree: int
) -> list[Array]:
    """Evaluate the polynomials in x and y of the solid harmonics around atoms.

    Parameters
    ----------
    x, y : ndarray of shape (degree + 1, n_atoms, n)
        Powers along an axis.
    rows, columns : ndarray of int of shape (n_points,)
        Indices into x and y: the points. Those of a row follow each other.
    degree : int

    Returns
    -------
    list of ndarray of shape (n_powers * n_atoms, n_points)
        For each order m, the factors of its powers of z.
    """
    return [
        _atom_terms(x, y, rows, columns, *_monomials(degree, m, x.dtype)).reshape(
            -1, len(rows)
        )
        for m in range(2 * degree + 1)
    ]


def sum_of_squares(components: Sequence[tuple[Array, Array]], floor: float) -> Array:
    """Add up the squares of the components of a field.

    Parameters
    ----------
    components : sequence of (array of shape (..., n_rows, k), array of (..., k, n))
        For each order m, matrices whose product is that component.
    floor : float
        Added to the sums.

    Returns
    -------
    array of shape (..., n_rows, n)
    """
    squared = np.matmul(*components[0])
    flat = squared.reshape(-1, squared.shape[-1])
    _square(flat, squared.dtype.type(floor))
    component = np.empty_like(squared) if len(components) > 1 else squared
    for a, b in components[1:]:
        _add_squares(flat, np.matmul(a, b, out=component).reshape(flat.shape))
    return squared


def products(components: Sequence[tuple[Array, Array]]) -> Array:
    """Compute the components of a field, as for `sum_of_squares`.

    Returns
    -------
    array of shape (n_components, n_rows, n)
    """
    first, second = components[0]
    shape = (len(components), len(first), second.shape[1])
    found = np.empty(shape, second.dtype)
    for out, (a, b) in zip(found, components, strict=True):
        np.matmul(a, b, out=out)
    return found


def power_derivatives(
    components: Array,
    weights: Array,
    exponents: Array,
    factors: Array,
    epsilon: Array,
    floor: float,
    peak: float,
    onto_modulus: Array | None,
) -> Array:
    """Differentiate powers of a modulus; times a component, it is the derivative with
    respect to that component.

    Parameters
    ----------
    components : array of shape (n_components, n_rows, n)
    weights : array of shape (n,)
        Weights of the points along the last axis as a quadrature rule.
    exponents : ndarray of shape (n_exponents,)
    factors : array of shape (n_sweeps, n_exponents, n_rows)
        Factors of the powers of the modulus in units of `peak`.
    epsilon : ndarray of shape (n_rows,)
        Softening of the modulus.
    floor : float
        Added to the square of the modulus.
    peak : float
    onto_modulus : array of shape (n_sweeps, n_rows, n) or None
        Factors of the modulus in units of `peak`, which include weights.

    Returns
    -------
    array of shape (n_sweeps, n_rows, n)
    """
    dtype = components.dtype
    if onto_modulus is None:
        onto_modulus = np.zeros((0, 0, 0), dtype)
    return _power_derivatives(
        components,
        weights,
        exponents,
        factors,
        epsilon.astype(dtype),
        dtype.type(floor),
        dtype.type(1 / peak),
        onto_modulus,
    )


def integrate_powers(
    squared: Array,
    weights: Array,
    exponents: Array,
    scales: Array,
    epsilon: Array,
) -> tuple[Array, Array]:
    """Compute a modulus, and integrate its powers along the last axis.

    Parameters
    ----------
    squared : array of shape (n_rows, n)
        The square of the modulus, without softening.
    weights : array of shape (n,)
        Weights of the points along the last axis as a quadrature rule.
    exponents, scales : ndarray of shape (n_exponents,)
        The powers are those of the modulus times the scale. It is 1 for exponents up to
        3.
    epsilon : ndarray of shape (n_rows,)
        Softening of the modulus.

    Returns
    -------
    modulus : array of shape (n_rows, n)
    integrals : array of shape (n_exponents, n_rows)
    """
    dtype = squared.dtype
    return _integrate_powers(
        squared,
        weights,
        exponents,
        scales.astype(dtype),
        epsilon.astype(dtype),
        dtype.type(TINY),
    )


@compile_loops
def gaussian_factors(
    points: Any, centres: Any, width: float, degree: int, cut: float
) -> Any:
    r"""Evaluate :math:`d^a e^{-d^2/2}` for all powers a up to a degree.

    Here d is the distance from centre to point in widths; beyond `cut` the factor is
    zero.

    Returns
    -------
    ndarray of shape (degree + 1, n_points, n_centres)
    """
    factors = np.zeros((degree + 1, len(points), len(centres)))
    for i in range(len(points)):
        for j in range(len(centres)):
            d = (points[i] - centres[j]) / width
            if abs(d) < cut:
                factor = np.exp(-d * d / 2)
                for a in range(degree + 1):
                    factors[a, i, j] = factor
                    factor *= d
    return factors


@compile_loops
def _end_of_row(rows: Any, start: int) -> Any:
    """Find the first entry that differs. NumPy's functions take longer to compile."""
    stop = start + 1
    while stop < len(rows) and rows[stop] == rows[start]:
        stop += 1
    return stop


@compile_loops
def spread(field: Any, rows: Any, columns: Any, n_x: int, n_y: int) -> Any:
    """Put columns back to where they were in x and y, with zeros between them.

    Parameters
    ----------
    field : ndarray of shape (n, n_z, n_columns)
    rows, columns : ndarray of int of shape (n_columns,)
        Indices into x and y.
    n_x, n_y : int

    Returns
    -------
    ndarray of shape (n, n_z, n_x, n_y)
    """
    out = np.zeros((field.shape[0], field.shape[1], n_x, n_y), field.dtype)
    for i in range(field.shape[0]):
        for j in range(field.shape[1]):
            start = 0
            while start < len(rows):
                row, first = rows[start], columns[start]
                stop = _end_of_row(rows, start)
                for k in range(stop - start):
                    out[i, j, row, first + k] = field[i, j, start + k]
                start = stop
    return out


@compile_loops
def near_columns(x: Any, y: Any, positions: Any, reach: float) -> Any:
    """Find the columns along z that come near an atom, and those between them in a row.

    Parameters
    ----------
    x : ndarray of shape (n_x,)
    y : ndarray of shape (n_y,)
    positions : ndarray of shape (n_atoms, 3)
    reach : float
        What is near.

    Returns
    -------
    rows, columns : ndarray of int of shape (n_columns,)
        Indices into x and y.
    """
    rows = np.empty(len(x) * len(y), np.int64)
    columns = np.empty(len(x) * len(y), np.int64)
    found = 0
    for i in range(len(x)):
        low, high = np.inf, -np.inf
        for n in range(len(positions)):
            square = reach**2 - (x[i] - positions[n, 0]) ** 2
            if square > 0:
                low = min(low, positions[n, 1] - np.sqrt(square))
                high = max(high, positions[n, 1] + np.sqrt(square))
        for j in range(len(y)):
            if low < y[j] < high:
                rows[found], columns[found] = i, j
                found += 1
    return rows[:found], columns[:found]


@cache
def _monomials(degree: int, m: int, dtype: Any) -> tuple[Array, Array]:
    """List the monomials of a solid harmonic: its term, powers of x and y; a factor."""
    terms = solid_harmonics(degree)[m].values()
    table = [(t, a, b) for t, term in enumerate(terms) for a, b in term]
    factors = [p for term in terms for p in term.values()]
    return np.array(table), np.array(factors, dtype)


@compile_loops
def _atom_terms(
    x: Any, y: Any, rows: Any, columns: Any, monomials: Any, factors: Any
) -> Any:
    n_atoms, n_points = x.shape[1], len(rows)
    terms = np.zeros((monomials[-1, 0] + 1, n_atoms, n_points), x.dtype)
    start = 0
    while start < n_points:
        i, first = rows[start], columns[start]
        stop = _end_of_row(rows, start)
        for k in range(len(factors)):
            t, a, b = monomials[k]
            for n in range(n_atoms):
                factor = factors[k] * x[a, n, i]
                term, powers = terms[t, n, start:stop], y[b, n, first:]
                for j in range(stop - start):
                    term[j] += factor * powers[j]
        start = stop
    return terms


@compile_loops
def _square(values: Any, floor: Any) -> None:
    for i in range(len(values)):
        for k in range(values.shape[1]):
            values[i, k] = values[i, k] * values[i, k] + floor


@compile_loops
def _add_squares(squared: Any, component: Any) -> None:
    for i in range(len(squared)):
        for k in range(squared.shape[1]):
            squared[i, k] += component[i, k] * component[i, k]


@compile_loops
def _integrate_powers(
    squared: Any, weights: Any, exponents: Any, scales: Any, epsilon: Any, tiny: Any
) -> Any:
    # The formulas are those of skscatharm.transform.modulus.
    n_rows, n = squared.shape
    moduli = np.empty_like(squared)
    root = np.empty(n, squared.dtype)
    integrals = np.empty((len(exponents), n_rows), np.float64)
    for i in range(n_rows):
        square, modulus, low = squared[i], moduli[i], epsilon[i]
        for k in range(n):
            root[k] = np.sqrt(square[k] + low * low)
        for k in range(n):
            modulus[k] = square[k] / (root[k] + low + tiny)
        for e in range(len(exponents)):
            q, scale = exponents[e], scales[e]
            total = weights.dtype.type(0)
            if q == 0.5:
                low_root = np.sqrt(low) + tiny
                for k in range(n):
                    total += weights[k] * modulus[k] / (np.sqrt(root[k]) + low_root)
            elif q == 1:
                for k in range(n):
                    total += weights[k] * modulus[k]
            elif q == 2:
                for k in range(n):
                    total += weights[k] * square[k]
            elif q == 3:
                for k in range(n):
                    cubic_factor = root[k] * (root[k] + low) + low * low
                    total += weights[k] * (modulus[k] * cubic_factor)
            elif q == 4:
                area, twice = scale * scale, 2 * low * low * scale * scale
                floor = squared.dtype.type(1e-18)
                for k in range(n):
                    s = square[k] * area + floor  # keeps s * s a normal number
                    total += weights[k] * (s * (s + twice))
            elif low == 0:
                for k in range(n):
                    total += weights[k] * (root[k] * scale) ** q
            else:
                for k in range(n):
                    part = -np.expm1(-q / 2 * np.log1p(square[k] / (low * low)))
                    total += weights[k] * (root[k] * scale) ** q * part
            integrals[e, i] = total
    return moduli, integrals


@compile_loops
def _power_derivatives(
    components: Any,
    weights: Any,
    exponents: Any,
    factors: Any,
    epsilon: Any,
    floor: Any,
    unit: Any,
    onto_modulus: Any,
) -> Any:
    # The formulas are those of skscatharm.transform.modulus.
    n_sweeps, n_exponents, n_rows = factors.shape
    n_components, _, n = components.shape
    total = np.zeros((n_sweeps, n_rows, n), components.dtype)
    root = np.empty(n, components.dtype)
    power = np.empty(n, components.dtype)
    for i in range(n_rows):
        low = epsilon[i] * epsilon[i] + floor
        for k in range(n):
            root[k] = low
        for m in range(n_components):
            component = components[m, i]
            for k in range(n):
                root[k] += component[k] * component[k]
        for k in range(n):
            root[k] = np.sqrt(root[k]) * unit
        for e in range(n_exponents):
            if not np.any(factors[:, e, i] != 0):
                continue
            q = exponents[e]
            if q == 0.5:
                for k in range(n):
                    power[k] = weights[k] / (root[k] * np.sqrt(root[k]))
            elif q == 1:
                for k in range(n):
                    power[k] = weights[k] / root[k]
            elif q == 2:
                for k in range(n):
                    power[k] = weights[k]
            elif q == 3:
                for k in range(n):
                    power[k] = weights[k] * root[k]
            elif q == 4:
                for k in range(n):
                    power[k] = weights[k] * (root[k] * root[k])
            else:
                for k in range(n):
                    power[k] = weights[k] * root[k] ** (q - 2)
            for s in range(n_sweeps):
                factor, row = factors[s, e, i] * components.dtype.type(q), total[s, i]
                if factor != 0:
                    for k in range(n):
                        row[k] += factor * power[k]
        for s in range(len(onto_modulus)):
            row, onto = total[s, i], onto_modulus[s, i]
            for k in range(n):
                row[k] += onto[k] / root[k]
        for s in range(n_sweeps):
            row = total[s, i]
            for k in range(n):
                row[k] *= unit
    return total
