"""The loops of the separable engine for processors: one pass where arrays take many.

The same functions for other array libraries are in :mod:`skscatharm.engine.portable`.
Each inner loop goes over contiguous numbers and writes to one array, which compilers
turn into vector instructions.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.transform.harmonics import solid_harmonics
from skscatharm.transform.modulus import TINY

__all__ = [
    "CHUNK",
    "Harmonics",
    "add_powers",
    "add_squares",
    "atom_terms",
    "end_of_run",
    "fill_powers",
    "fill_terms_of_rows",
    "gaussian_factors",
    "harmonics_of",
    "integrate_powers",
    "near_columns",
    "other_exponents",
    "power_derivatives",
    "products",
    "spread",
    "square",
    "sum_of_squares",
]

Array = NDArray[Any]

CHUNK = 512  # values whose powers are computed at a time
_FLOOR_OF_FOURTH = 1e-18  # added to squares, it keeps their squares normal numbers


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
    harmonics, n_atoms = harmonics_of((degree,), x.dtype), x.shape[1]
    terms = np.empty((len(harmonics.powers_of_z) * n_atoms, len(rows)), x.dtype)
    atoms = np.arange(n_atoms)
    fill_terms_of_rows(x, y, atoms, rows, columns, harmonics, terms)
    return np.split(terms, harmonics.starts[1:-1] * n_atoms)


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
    flat, size = squared.reshape(-1), squared.size
    square(flat, squared.dtype.type(floor), flat, size)
    component = np.empty_like(squared) if len(components) > 1 else squared
    for a, b in components[1:]:
        add_squares(np.matmul(a, b, out=component).reshape(-1), flat, size)
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
    modulus = np.empty_like(squared)
    integrals = np.zeros((len(squared), len(exponents)))
    _add_powers_of_rows(
        squared,
        weights,
        exponents,
        scales.astype(squared.dtype),
        other_exponents(exponents),
        epsilon.astype(squared.dtype),
        modulus,
        integrals,
    )
    return modulus, integrals.T


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
            for k in range(len(rows)):
                out[i, j, rows[k], columns[k]] = field[i, j, k]
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
    spans : ndarray of shape (2, n_columns)
        Least and largest z that are near.
    """
    found, size = 0, len(x) * len(y)
    rows, columns = np.empty(size, np.int64), np.empty(size, np.int64)
    spans = np.empty((2, size))
    lows, highs, halves = np.empty(len(y)), np.empty(len(y)), np.empty(len(y))
    for i in range(len(x)):
        lows[:] = np.inf
        highs[:] = -np.inf
        for n in range(len(positions)):
            square = reach**2 - (x[i] - positions[n, 0]) ** 2
            if square > 0:
                centre, height = positions[n, 1], positions[n, 2]
                for j in range(len(y)):
                    left = square - (y[j] - centre) ** 2
                    halves[j] = np.sqrt(left) if left > 0 else -np.inf
                for j in range(len(y)):
                    lows[j] = min(lows[j], height - halves[j])
                for j in range(len(y)):
                    highs[j] = max(highs[j], height + halves[j])
        first, last = 0, len(y) - 1
        while first <= last and highs[first] < lows[first]:
            first += 1
        while last >= first and highs[last] < lows[last]:
            last -= 1
        for j in range(first, last + 1):
            rows[found], columns[found] = i, j
            spans[0, found], spans[1, found] = lows[j], highs[j]
            found += 1
    return rows[:found], columns[:found], spans[:, :found].copy()


class Harmonics(NamedTuple):
    """The terms of the solid harmonics of some degrees: a polynomial in x and y times a
    power of z.

    Attributes
    ----------
    monomials : ndarray of int of shape (n_monomials, 3)
        The term, and the powers of x and y.
    factors : ndarray of shape (n_monomials,)
    powers_of_z : ndarray of int of shape (n_terms,)
    starts : ndarray of int of shape (n_components + 1,)
        Where the terms of each component begin.
    """

    monomials: Array
    factors: Array
    powers_of_z: Array
    starts: Array


@cache
def harmonics_of(degrees: tuple[int, ...], dtype: Any) -> Harmonics:
    """List the terms of the solid harmonics, component by component."""
    monomials: list[tuple[int, int, int]] = []
    factors: list[float] = []
    powers: list[int] = []
    starts = [0]
    for degree in degrees:
        for harmonic in solid_harmonics(degree):
            for c, polynomial in harmonic.items():
                monomials += [(len(powers), a, b) for a, b in polynomial]
                factors += polynomial.values()
                powers.append(c)
            starts.append(len(powers))
    return Harmonics(
        np.array(monomials),
        np.array(factors, dtype),
        np.array(powers),
        np.array(starts),
    )


@compile_loops
def fill_terms_of_rows(
    x: Any, y: Any, atoms: Any, rows: Any, columns: Any, harmonics: Any, terms: Any
) -> None:
    """Evaluate the polynomials in x and y of the harmonics around some atoms.

    It is fast where columns of a row follow each other.

    Parameters
    ----------
    x, y : ndarray of shape (n_powers, n_atoms, n)
        Powers along an axis.
    atoms : ndarray of int of shape (n_near,)
        Indices of the atoms.
    rows, columns : ndarray of int of shape (n_places,)
        Indices into x and y.
    harmonics : Harmonics
    terms : ndarray of shape (n_terms * n_near, n_places)
    """
    n_near, monomials, factors = len(atoms), harmonics.monomials, harmonics.factors
    terms[:] = 0
    start = np.int64(0)  # numba would compile once more for a literal
    while start < len(rows):
        i, first = rows[start], columns[start]
        stop = end_of_run(rows, columns, start)
        for t in range(len(factors)):
            term, a, b = monomials[t, 0], monomials[t, 1], monomials[t, 2]
            for n in range(n_near):
                factor = factors[t] * x[a, atoms[n], i]
                to = terms[term * n_near + n, start:stop]
                powers = y[b, atoms[n], first:]
                for j in range(stop - start):
                    to[j] += factor * powers[j]
        start = stop


@compile_loops
def end_of_run(rows: Any, columns: Any, start: int) -> int:
    """Find where columns of a row stop to follow each other."""
    stop = start + 1
    while (
        stop < len(rows)
        and rows[stop] == rows[start]
        and columns[stop] == columns[stop - 1] + 1
    ):
        stop += 1
    return stop


@compile_loops
def square(component: Any, floor: Any, squared: Any, n: int) -> None:
    """Square n values, and add a floor; the result may take their place."""
    for k in range(n):
        squared[k] = component[k] * component[k] + floor


@compile_loops
def add_squares(component: Any, squared: Any, n: int) -> None:
    """Add the squares of n values."""
    for k in range(n):
        squared[k] += component[k] * component[k]


@compile_loops
def _add_powers_of_rows(
    squared: Any,
    weights: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    epsilon: Any,
    moduli: Any,
    integrals: Any,
) -> None:
    for i in range(len(squared)):
        add_powers(
            squared[i],
            weights,
            exponents,
            scales,
            others,
            epsilon[i],
            moduli[i],
            integrals[i],
        )


@compile_loops
def add_powers(
    squares: Any,
    weights: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    low: Any,
    moduli: Any,
    integrals: Any,
) -> None:
    """Compute a modulus from its square, and add the integrals of its powers.

    `low` is the softening, `others` are the :func:`other_exponents`. Otherwise, as
    `integrate_powers` for one row.
    """
    # The formulas are those of skscatharm.transform.modulus.
    dtype = squares.dtype
    tiny, floor = dtype.type(TINY), dtype.type(_FLOOR_OF_FOURTH)
    area, low_root, unit = low * low, np.sqrt(low), dtype.type(0)
    for e in range(len(exponents)):
        if exponents[e] == 4:
            unit = scales[e] * scales[e]
    twice = (area + area) * unit
    for start in range(0, len(squares), CHUNK):
        part = slice(start, min(start + CHUNK, len(squares)))
        square, weight, modulus = squares[part], weights[part], moduli[part]
        half_sum = first_sum = second_sum = third_sum = fourth_sum = dtype.type(0)
        # All in one loop: roots and the division hide the rest.
        for k in range(len(square)):
            u, w = square[k], weight[k]
            root = np.sqrt(u + area)
            # One division for both: U^2 / (r + e) = (r^1/2 - e^1/2) (r^1/2 + e^1/2).
            both = np.sqrt(root) + low_root
            half = u / ((root + low) * both + tiny)
            first = half * both
            scaled = u * unit + floor
            modulus[k] = first
            half_sum += w * half
            first_sum += w * first
            second_sum += w * u
            third_sum += w * (first * (root * (root + low) + area))
            fourth_sum += w * (scaled * (scaled + twice))
        for e in range(len(exponents)):
            q = exponents[e]
            if q == 0.5:
                integrals[e] += half_sum
            elif q == 1:
                integrals[e] += first_sum
            elif q == 2:
                integrals[e] += second_sum
            elif q == 3:
                integrals[e] += third_sum
            elif q == 4:
                integrals[e] += fourth_sum
        # Numba compiles no other powers where there are none.
        if others is not None:
            powers = np.empty((len(others) + 2, CHUNK), dtype)
            fill_powers(
                square, exponents[others], scales[others], others, low, modulus, powers
            )
            for i in range(len(others)):
                total, power = dtype.type(0), powers[i]
                for k in range(len(weight)):
                    total += weight[k] * power[k]
                integrals[others[i]] += total


def other_exponents(exponents: Array) -> Array | None:
    """Return the indices of exponents whose powers are no roots and products."""
    usual = 0.5, 1, 2, 3, 4
    others = [e for e, q in enumerate(exponents.tolist()) if q not in usual]
    return np.array(others) if others else None


@compile_loops
def fill_powers(
    square: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    low: Any,
    modulus: Any,
    powers: Any,
) -> None:
    """Compute a modulus from its square, and its powers: a row for each exponent.

    There are at most `CHUNK` values. Two more rows of the powers are work space.
    `others` is None if there are no :func:`other_exponents`.
    """
    # The formulas are those of skscatharm.transform.modulus.
    dtype, n = square.dtype, len(square)
    tiny = dtype.type(TINY)
    root, half = powers[len(exponents)], powers[len(exponents) + 1]
    has_half = False
    for q in exponents:
        has_half = has_half or q == 0.5
    area, low_root = low * low, np.sqrt(low)
    if low == 0:
        for k in range(n):
            root[k] = np.sqrt(square[k])
            modulus[k] = root[k]
        if has_half:
            for k in range(n):
                half[k] = np.sqrt(root[k])
    elif has_half:
        # One division for both: U^2 / (r + e) = (r^1/2 - e^1/2) (r^1/2 + e^1/2).
        for k in range(n):
            root[k] = np.sqrt(square[k] + area)
            both = np.sqrt(root[k]) + low_root
            half[k] = square[k] / ((root[k] + low) * both + tiny)
            modulus[k] = half[k] * both
    else:
        for k in range(n):
            root[k] = np.sqrt(square[k] + area)
            modulus[k] = square[k] / (root[k] + low + tiny)
    for e in range(len(exponents)):
        q, scale, power = exponents[e], scales[e], powers[e]
        if q == 0.5:
            for k in range(n):
                power[k] = half[k]
        elif q == 1:
            for k in range(n):
                power[k] = modulus[k]
        elif q == 2:
            for k in range(n):
                power[k] = square[k]
        elif q == 3:
            for k in range(n):
                power[k] = modulus[k] * (root[k] * (root[k] + low) + area)
        elif q == 4:
            unit, twice = scale * scale, 2 * area * scale * scale
            floor = dtype.type(_FLOOR_OF_FOURTH)
            for k in range(n):
                s = square[k] * unit + floor
                power[k] = s * (s + twice)
        elif others is not None:
            if low == 0:
                for k in range(n):
                    power[k] = (root[k] * scale) ** q
            else:
                for k in range(n):
                    part = -np.expm1(-q / 2 * np.log1p(square[k] / area))
                    power[k] = (root[k] * scale) ** q * part


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
