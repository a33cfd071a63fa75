r"""Smooth fields convolved with wavelets and integrated in one compiled pass.

A convolution of a field on a grid is a matrix product along each axis. Axes that
mirror themselves about the same point halve it: sums and differences of values at
:math:`\pm q` from there give those of results at :math:`\pm p`, as factors of wavelets
are even or odd. Tiles of larger grids do not mirror themselves. Along y, halves would
be too short for fast products.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.blocks import as_matrix
from skscatharm.engine.compiled import (
    add_powers,
    add_squares,
    gaussian_factors,
    harmonics_of,
    square,
)
from skscatharm.engine.integrals import Powers
from skscatharm.engine.quadrature import Axis, Grid
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
    parities = [
        2 if _mirror_themselves(axis.points, sources.points) else 1
        for axis, sources in zip(tile.axes, coarse, strict=True)
    ]
    parities[1] = 1
    x, y, z = (
        _factors(axis, sources, scale, degree, cut, n)
        for axis, sources, n in zip(tile.axes, coarse, parities, strict=True)
    )
    harmonics = harmonics_of((degree,), dtype)
    z = z[:, harmonics.powers_of_z] * wavelet_constant(degree)
    # The weights of points that mirror others are those of the others.
    weights = [
        axis.weights[-len(axis.weights) // n :].astype(dtype)
        for axis, n in zip(tile.axes, parities, strict=True)
    ]
    return _integrate_convolutions(
        _folded(values, parities[0], parities[2]),
        x.transpose(0, 2, 1, 3).astype(dtype, order="C"),
        y[0].transpose(0, 2, 1).astype(dtype, order="C"),
        z.transpose(0, 1, 3, 2).astype(dtype, order="C"),
        *_bounds(tile, parities[0]),
        *weights,
        harmonics,
        *powers.of_dtype(dtype),
    )


def _mirror_themselves(*axes: Array) -> bool:
    """Whether axes mirror themselves about the same point."""
    # Those of whole grids do. Parts of them have ends that are no mirror images.
    first, second = (points[0] + points[-1] for points in axes)
    same: bool = abs(first - second) <= 1e-9 * abs(axes[0][0])
    return same and not any(len(points) % 2 for points in axes)


def _factors(
    axis: Axis, sources: Axis, scale: float, degree: int, cut: float, n_parities: int
) -> Array:
    """Evaluate the factors of wavelets along an axis.

    Returns
    -------
    ndarray of shape (n_parities, degree + 1, n_points, n_sources)
        With two parities, for sums and differences of sources: half of the points.
    """
    points = axis.points[-len(axis.points) // n_parities :]
    factors = gaussian_factors(points, sources.points, scale, degree, cut)
    factors *= sources.weights / (n_parities * scale)
    if n_parities == 1:
        return factors[np.newaxis]
    half = len(sources.points) // 2
    above, below = factors[..., half:], factors[..., half - 1 :: -1]
    found = np.empty((2, *above.shape))
    np.add(above, below, out=found[0])
    np.subtract(above, below, out=found[1])
    return found


def _bounds(tile: Tile, n_parities: int) -> tuple[Array, Array]:
    """Bound the columns of each row, and of the one that mirrors it, from and to."""
    n_rows = len(tile.axes[0].points)
    every = np.arange(n_rows)
    first = np.searchsorted(tile.rows, every)
    last = np.searchsorted(tile.rows, every, side="right") - 1
    none = first > last
    left = np.where(none, n_rows, tile.columns[np.minimum(first, last)])
    right = np.where(none, 0, tile.columns[last] + 1)
    if n_parities == 1:
        return left, right
    half = n_rows // 2
    return (
        np.minimum(left[half:], left[half - 1 :: -1]),
        np.maximum(right[half:], right[half - 1 :: -1]),
    )


@compile_loops
def _folded(values: Any, p_x: int, p_z: int) -> Any:
    """Replace values along x and z by sums and differences of those that mirror.

    Returns
    -------
    ndarray of shape (n_channels, p_x, n_x / p_x, n_z * n_y)
        Along z, sums come first.
    """
    n_channels, n_x, n_z, n_y = values.shape
    h_x, h_z = n_x // p_x, n_z // p_z
    found = np.empty((n_channels, p_x, h_x, n_z * n_y), values.dtype)
    for c in range(n_channels):
        for i in range(h_x):
            high, low = values[c, n_x - h_x + i], values[c, h_x - 1 - i]
            for p in range(p_x):
                to = found[c, p, i]
                sign = values.dtype.type(1 - 2 * p if p_x == 2 else 0)
                for k in range(h_z):
                    above, below = n_z - h_z + k, h_z - 1 - k
                    up, up_low = high[above], low[above]
                    down, down_low = high[below], low[below]
                    total = to[k * n_y : (k + 1) * n_y]
                    if p_z == 1:
                        for j in range(n_y):
                            total[j] = up[j] + sign * up_low[j]
                    else:
                        difference = to[(h_z + k) * n_y : (h_z + k + 1) * n_y]
                        for j in range(n_y):
                            first = up[j] + sign * up_low[j]
                            second = down[j] + sign * down_low[j]
                            total[j] = first + second
                            difference[j] = first - second
    return found


@compile_loops
def _integrate_convolutions(
    values: Any,
    along_x: Any,
    along_y: Any,
    along_z: Any,
    left: Any,
    right: Any,
    weights_x: Any,
    weights_y: Any,
    weights_z: Any,
    harmonics: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    epsilon: Any,
    floor: Any,
) -> Any:
    # Numbers of parities, of points, and of coarse points.
    p_x, t_x, n_powers, h_x = along_x.shape
    _, n_y, t_y = along_y.shape
    p_z, n_terms, h_z, t_z = along_z.shape
    dtype, n_channels, n_z = values.dtype, len(values), p_z * h_z
    starts, factors = harmonics.starts, harmonics.factors
    n_most = max(min(_COLUMNS // (p_x * t_y), t_x), 1)
    size = p_x * n_most * t_y  # columns worked on at a time
    in_x = np.empty((p_x, n_most * n_powers, n_z * n_y), dtype)
    all_x = np.empty((n_powers, p_x * n_most * n_z * n_y), dtype)
    all_y, here = np.empty(n_z * size, dtype), np.empty(along_y.size, dtype)
    polynomials = np.empty((p_z, n_terms * h_z * size), dtype)
    components = np.empty((p_z, t_z * size), dtype)
    squares, weights = np.empty((p_z, t_z * size), dtype), np.empty(t_z * size, dtype)
    integrals = np.zeros((n_channels, len(exponents)))
    for start in range(0, t_x, n_most):
        # Layers above zero, and those that mirror them.
        n = min(n_most, t_x - start)
        layers, low, high = p_x * n, t_y, 0
        for i in range(start, start + n):
            low, high = min(low, left[i]), max(high, right[i])
        in_row = high - low
        if in_row <= 0:
            continue
        n_columns, n_points = layers * in_row, t_z * layers * in_row
        _fill_weights(
            weights_x[start : start + n], weights_y[low:high], weights_z, p_x, weights
        )
        for i in range(n_powers * n_y):
            for j in range(in_row):
                here[i * in_row + j] = along_y[i // n_y, i % n_y, low + j]
        for channel in range(n_channels):
            for p in range(p_x):
                np.dot(
                    along_x[p, start : start + n].reshape(n * n_powers, h_x),
                    values[channel, p],
                    in_x[p, : n * n_powers],
                )
            _unfold_layers(in_x, n, n_y, all_x)
            for p in range(p_z):
                for k in range(n_terms * h_z * n_columns):
                    polynomials[p, k] = 0
            n_terms_here = h_z * n_columns
            for a in range(n_powers):
                for b in range(n_powers - a):
                    np.dot(
                        as_matrix(all_x[a], n_z * layers, n_y),
                        as_matrix(here[b * n_y * in_row :], n_y, in_row),
                        as_matrix(all_y, n_z * layers, in_row),
                    )
                    for t in range(len(factors)):
                        term, of_x, of_y = harmonics.monomials[t]
                        if of_x == a and of_y == b:
                            first = term * n_terms_here
                            for p in range(p_z):
                                _add_multiple(
                                    factors[t],
                                    all_y[p * n_terms_here :],
                                    n_terms_here,
                                    polynomials[p, first:],
                                )
            for m in range(len(starts) - 1):
                n_of_component = (starts[m + 1] - starts[m]) * h_z
                for p in range(p_z):
                    factors_z = along_z[p, starts[m] : starts[m + 1]]
                    np.dot(
                        factors_z.reshape(n_of_component, t_z).T,
                        as_matrix(
                            polynomials[p, starts[m] * n_terms_here :],
                            n_of_component,
                            n_columns,
                        ),
                        as_matrix(components[p], t_z, n_columns),
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
def _fill_weights(
    weights_x: Any, weights_y: Any, weights_z: Any, n_times: int, weights: Any
) -> None:
    """Fill in the weights of points; layers of x are repeated some times."""
    n_x, n_y = len(weights_x), len(weights_y)
    for k in range(len(weights_z)):
        for i in range(n_times * n_x):
            factor = weights_z[k] * weights_x[i % n_x]
            to = weights[(k * n_times * n_x + i) * n_y :]
            for j in range(n_y):
                to[j] = factor * weights_y[j]


@compile_loops
def _unfold_layers(parities: Any, n: int, n_y: int, layers: Any) -> None:
    """Turn parities along x into values at n layers and at those that mirror them.

    `parities` are of shape (n_parities, n * n_powers, n_z * n_y), `layers` is of shape
    (n_powers, n_z * n_layers * n_y).
    """
    n_parities, n_powers = len(parities), len(layers)
    n_z = parities.shape[2] // n_y
    for a in range(n_powers):
        sign = layers.dtype.type(1 - 2 * (a % 2))
        for k in range(n_z):
            for i in range(n):
                even = parities[0, i * n_powers + a, k * n_y : (k + 1) * n_y]
                to = layers[a, (k * n_parities * n + i) * n_y :]
                if n_parities == 1:
                    for j in range(n_y):
                        to[j] = even[j]
                    continue
                odd = parities[1, i * n_powers + a, k * n_y : (k + 1) * n_y]
                mirrored = layers[a, (k * n_parities * n + n + i) * n_y :]
                for j in range(n_y):
                    to[j] = even[j] + odd[j]
                for j in range(n_y):
                    mirrored[j] = sign * (even[j] - odd[j])


@compile_loops
def _add_multiple(factor: Any, values: Any, n: int, out: Any) -> None:
    """Add a factor times n values."""
    for k in range(n):
        out[k] += factor * values[k]


@compile_loops
def _unfold(even: Any, odd: Any, n: int) -> None:
    """Turn parities into values at n points and at those that mirror them.

    Signs are left out, as squares follow.
    """
    for k in range(n):
        total, difference = even[k] + odd[k], even[k] - odd[k]
        even[k] = total
        odd[k] = difference
