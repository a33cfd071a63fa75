r"""Smooth fields convolved with wavelets and integrated in one compiled pass.

A convolution of a field on a grid is a matrix product along each axis. Axes that
mirror themselves about the centre of the molecule halve it: sums and differences of
values at :math:`\pm q` give those of results at :math:`\pm p`, as factors of wavelets
are even or odd. Tiles of larger grids do not mirror themselves. Along y, halves would
be too short for fast products.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.compiled import (
    add_powers,
    add_squares,
    gaussian_factors,
    monomials,
    square,
)
from skscatharm.engine.integrals import Powers, as_matrix, axial_powers
from skscatharm.engine.quadrature import Grid
from skscatharm.engine.tiles import Tile
from skscatharm.transform.harmonics import wavelet_constant

__all__ = ["integrate_convolutions"]

Array = NDArray[Any]

_COLUMNS = 240  # along z, worked on at a time


def integrate_convolutions(
    values: Array,
    coarse: Grid,
    tile: Tile,
    scale: float,
    degree: int,
    cut: float,
    powers: Powers,
) -> Array:
    """Integrate powers of the modulus of smooth fields convolved with wavelets.

    Parameters
    ----------
    values : ndarray of shape (n_channels, n_x, n_z, n_y)
        Smooth fields.
    coarse : Grid
        Where they are.
    tile : Tile
        Where to integrate.
    scale : float
        Scale of the wavelets.
    degree : int
    cut : float
        Beyond it, in scales, factors of wavelets are zero.
    powers : Powers

    Returns
    -------
    ndarray of shape (n_channels, n_exponents)
    """
    dtype = values.dtype
    return _integrate_convolutions(
        values,
        *(axis.points for axis in coarse),
        *(axis.weights / scale for axis in coarse),
        *(axis.points for axis in tile.axes),
        *(axis.weights.astype(dtype) for axis in tile.axes),
        tile.rows,
        tile.columns,
        tile.spans,
        scale,
        degree + 1,
        cut,
        *axial_powers(degree),
        *monomials(degree, dtype),
        wavelet_constant(degree),
        *powers.of_dtype(dtype),
    )


@compile_loops
def _mirrors_itself(points: Any) -> bool:
    n = len(points)
    for i in range(n):
        if abs(points[i] + points[n - 1 - i]) > 1e-9 * abs(points[0]):
            return False
    return n % 2 == 0


@compile_loops
def _n_parities(points: Any, sources: Any) -> int:
    """Count the parities of values along an axis: one unless it mirrors itself."""
    return 2 if _mirrors_itself(points) and _mirrors_itself(sources) else 1


@compile_loops
def _factors(
    points: Any,
    sources: Any,
    weights: Any,
    scale: float,
    n_powers: int,
    cut: float,
    n_parities: int,
) -> Any:
    """Evaluate the factors of wavelets along an axis.

    Returns
    -------
    ndarray of shape (n_parities, n_powers, n_points, n_sources)
        With two parities, for sums and differences of sources: half of the points.
    """
    n, n_all = len(points) // n_parities, len(sources)
    half = n_all // n_parities
    # The points above zero, if there are others.
    factors = gaussian_factors(
        points[len(points) - n :], sources, scale, n_powers - 1, cut
    )
    found = np.empty((n_parities, n_powers, n, half))
    for a in range(n_powers):
        for i in range(n):
            for j in range(half):
                k = n_all - half + j
                factor = weights[k] * factors[a, i, k]
                if n_parities == 1:
                    found[0, a, i, j] = factor
                else:
                    mirrored = weights[k] * factors[a, i, half - 1 - j]
                    found[0, a, i, j] = (factor + mirrored) / 2
                    found[1, a, i, j] = (factor - mirrored) / 2
    return found


@compile_loops
def _bounds(rows: Any, columns: Any, spans: Any, start: int, stop: int) -> Any:
    """Bound the columns of some rows, and what they have within reach.

    Returns
    -------
    int, int
        Columns, from and to.
    float, float
        Least and largest z.
    """
    left, right, least, largest = len(rows), 0, np.inf, -np.inf
    for k in range(len(rows)):
        if start <= rows[k] < stop:
            left, right = min(left, columns[k]), max(right, columns[k] + 1)
            least, largest = min(least, spans[0, k]), max(largest, spans[1, k])
    return left, right, least, largest


@compile_loops
def _fold(values: Any, n_parities: int, n: int) -> None:
    """Replace values along an axis by sums and differences of those that mirror.

    `values` are of shape (..., n, ...), given as (n_before, n * n_after).
    """
    if n_parities == 1:
        return
    half, n_after = n // 2, values.shape[1] // n
    kept = np.empty(values.shape[1], values.dtype)
    for o in range(len(values)):
        row = values[o]
        for k in range(len(row)):
            kept[k] = row[k]
        for i in range(half):
            high = kept[(half + i) * n_after : (half + i + 1) * n_after]
            low = kept[(half - 1 - i) * n_after : (half - i) * n_after]
            total = row[i * n_after : (i + 1) * n_after]
            difference = row[(half + i) * n_after : (half + i + 1) * n_after]
            for k in range(n_after):
                total[k] = high[k] + low[k]
                difference[k] = high[k] - low[k]


@compile_loops
def _integrate_convolutions(
    values: Any,
    coarse_x: Any,
    coarse_y: Any,
    coarse_z: Any,
    coarse_weights_x: Any,
    coarse_weights_y: Any,
    coarse_weights_z: Any,
    points_x: Any,
    points_y: Any,
    points_z: Any,
    weights_x: Any,
    weights_y: Any,
    weights_z: Any,
    rows: Any,
    columns: Any,
    spans: Any,
    scale: float,
    n_powers: int,
    cut: float,
    powers_of_z: Any,
    starts: Any,
    table: Any,
    factors: Any,
    constant: float,
    exponents: Any,
    scales: Any,
    others: Any,
    epsilon: Any,
    floor: Any,
) -> Any:
    n_channels, n_x, n_z, n_y = values.shape
    dtype, n_terms = values.dtype, len(powers_of_z)
    p_x = _n_parities(points_x, coarse_x)
    p_z = _n_parities(points_z, coarse_z)
    x = _factors(points_x, coarse_x, coarse_weights_x, scale, n_powers, cut, p_x)
    y = _factors(points_y, coarse_y, coarse_weights_y, scale, n_powers, cut, 1)
    z = _factors(points_z, coarse_z, coarse_weights_z, scale, n_powers, cut, p_z)
    # Numbers of points, and of coarse ones, of one parity.
    _, _, t_x, h_x = x.shape
    _, _, t_z, h_z = z.shape
    t_y = len(points_y)
    along_x = np.empty((p_x, t_x, n_powers, h_x), dtype)
    for p in range(p_x):
        for i in range(t_x):
            for a in range(n_powers):
                for j in range(h_x):
                    along_x[p, i, a, j] = x[p, a, i, j]
    along_y = np.empty((n_powers, n_y, t_y), dtype)
    for b in range(n_powers):
        for i in range(t_y):
            for j in range(n_y):
                along_y[b, j, i] = y[0, b, i, j]
    # For each component, rows of all of its powers.
    along_z = np.empty((p_z, n_terms * h_z * t_z), dtype)
    for p in range(p_z):
        for m in range(len(starts) - 1):
            n = (starts[m + 1] - starts[m]) * h_z
            of_component = along_z[p, starts[m] * h_z * t_z : starts[m + 1] * h_z * t_z]
            of_component = of_component.reshape(t_z, n)
            for term in range(starts[m], starts[m + 1]):
                for i in range(t_z):
                    for j in range(h_z):
                        to = (term - starts[m]) * h_z + j
                        factor = z[p, powers_of_z[term], i, j]
                        of_component[i, to] = constant * factor
    folded = values.copy()
    _fold(folded.reshape(n_channels, n_x * n_z * n_y), p_x, n_x)
    _fold(folded.reshape(n_channels * n_x, n_z * n_y), p_z, n_z)
    folded = folded.reshape(n_channels, p_x, h_x, n_z * n_y)
    n_most = max(min(_COLUMNS // (p_x * t_y), t_x), 1)
    size = p_x * n_most * t_y  # columns worked on at a time
    in_x = np.empty((p_x, n_most * n_powers, n_z * n_y), dtype)
    all_x = np.empty((n_powers, p_x * n_most * n_z * n_y), dtype)
    all_y = np.empty(n_z * size, dtype)
    along_y_here = np.empty(along_y.size, dtype)
    polynomials = np.empty((p_z, n_terms * h_z * size), dtype)
    components = np.empty((p_z, t_z * size), dtype)
    squares, weights = np.empty_like(components), np.empty(t_z * size, dtype)
    integrals = np.zeros((n_channels, len(exponents)))
    for start in range(0, t_x, n_most):
        # Layers above zero, and those that mirror them.
        n = min(n_most, t_x - start)
        layers = p_x * n
        above = (p_x - 1) * t_x + start
        left, right, least, largest = _bounds(rows, columns, spans, above, above + n)
        if p_x == 2:
            mirrored = t_x - start
            bounds = _bounds(rows, columns, spans, mirrored - n, mirrored)
            left, right = min(left, bounds[0]), max(right, bounds[1])
            least, largest = min(least, bounds[2]), max(largest, bounds[3])
        if p_z == 2:
            least, largest = 0.0, max(-least, largest)
        bottom, top = 0, t_z
        points_here = points_z[(p_z - 1) * t_z :]
        while bottom < top and points_here[bottom] < least:
            bottom += 1
        while top > bottom and points_here[top - 1] > largest:
            top -= 1
        in_row = right - left
        n_columns, n_points = layers * in_row, (top - bottom) * layers * in_row
        if n_points <= 0:
            continue
        for k in range(top - bottom):
            for i in range(layers):
                factor = weights_z[(p_z - 1) * t_z + bottom + k]
                factor *= weights_x[above + i % n]
                to = weights[k * n_columns + i * in_row :]
                for j in range(in_row):
                    to[j] = factor * weights_y[left + j]
        for i in range(n_powers * n_y):
            to, found = along_y_here[i * in_row :], along_y.reshape(-1)[i * t_y + left :]
            for j in range(in_row):
                to[j] = found[j]
        for channel in range(n_channels):
            for p in range(p_x):
                np.dot(
                    along_x[p, start : start + n].reshape(n * n_powers, h_x),
                    folded[channel, p],
                    in_x[p, : n * n_powers],
                )
            for a in range(n_powers):
                sign = dtype.type(1 - 2 * (a % 2))
                for k in range(n_z):
                    for i in range(n):
                        even = in_x[0, i * n_powers + a, k * n_y : (k + 1) * n_y]
                        to = all_x[a, (k * layers + i) * n_y :]
                        if p_x == 1:
                            for j in range(n_y):
                                to[j] = even[j]
                        else:
                            odd = in_x[1, i * n_powers + a, k * n_y : (k + 1) * n_y]
                            other = all_x[a, (k * layers + n + i) * n_y :]
                            for j in range(n_y):
                                to[j] = even[j] + odd[j]
                            for j in range(n_y):
                                other[j] = sign * (even[j] - odd[j])
            for p in range(p_z):
                to = polynomials[p, : n_terms * h_z * n_columns]
                for k in range(len(to)):
                    to[k] = 0
            for a in range(n_powers):
                for b in range(n_powers - a):
                    np.dot(
                        as_matrix(all_x[a], n_z * layers, n_y),
                        as_matrix(along_y_here[b * n_y * in_row :], n_y, in_row),
                        as_matrix(all_y, n_z * layers, in_row),
                    )
                    n_here = h_z * n_columns
                    for t in range(len(factors)):
                        if table[t, 1] != a or table[t, 2] != b:
                            continue
                        first, factor = table[t, 0] * n_here, factors[t]
                        for p in range(p_z):
                            to = polynomials[p, first : first + n_here]
                            found = all_y[p * n_here : (p + 1) * n_here]
                            for j in range(n_here):
                                to[j] += factor * found[j]
            for m in range(len(starts) - 1):
                first, last = starts[m] * h_z, starts[m + 1] * h_z
                for p in range(p_z):
                    of_component = along_z[p, first * t_z : last * t_z]
                    np.dot(
                        of_component.reshape(t_z, last - first)[bottom:top],
                        as_matrix(
                            polynomials[p, first * n_columns :],
                            last - first,
                            n_columns,
                        ),
                        as_matrix(components[p], top - bottom, n_columns),
                    )
                if p_z == 2:
                    _unfold(components[0], components[1], n_points)
                for p in range(p_z):
                    if m == 0:
                        square(components[p], floor, squares[p], n_points)
                    else:
                        add_squares(components[p], squares[p], n_points)
            for p in range(p_z):
                add_powers(
                    squares[p, :n_points],
                    weights[:n_points],
                    exponents,
                    scales,
                    others,
                    epsilon[channel],
                    components[p],
                    integrals[channel],
                )
    return integrals


@compile_loops
def _unfold(even: Any, odd: Any, n: int) -> None:
    """Turn parities into values at points and at those that mirror them.

    Signs are left out, as squares follow.
    """
    for k in range(n):
        total, difference = even[k] + odd[k], even[k] - odd[k]
        even[k] = total
        odd[k] = difference
