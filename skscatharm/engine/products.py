"""Products of fields of atoms, computed and integrated in one compiled pass.

Some columns of a grid are worked on at a time: the moduli of all fields are computed
there, raised to powers and kept. The integrals of all products of two of them are then
one matrix product.
"""

from functools import cache
from math import pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.compiled import (
    CHUNK,
    add_squares,
    fill_atom_terms,
    fill_powers,
    gaussian_factors,
    monomials,
    other_exponents,
    square,
)
from skscatharm.engine.integrals import (
    as_matrix,
    axial_powers,
    blocks_of,
    fill_near,
    fill_weights,
)
from skscatharm.engine.tiles import Tile
from skscatharm.transform.harmonics import wavelet_constant

__all__ = ["integrate_products"]

Array = NDArray[Any]

_COLUMNS = 64  # along z, worked on at a time, and those to the end of a row
_LEAST = 1e-18  # products of two such powers are normal numbers in single precision


class _Tables(NamedTuple):
    """The terms of the solid harmonics of all degrees up to one.

    Attributes
    ----------
    monomials : ndarray of int of shape (n_monomials, 3)
        The term, and the powers of x and y.
    factors : ndarray of shape (n_monomials,)
    powers_of_z : ndarray of int of shape (n_terms,)
    starts : ndarray of int of shape (n_components + 1,)
        Where the terms of each component begin.
    constants : ndarray of shape (n_degrees,)
        Squares of the constants of the wavelets.
    """

    monomials: Array
    factors: Array
    powers_of_z: Array
    starts: Array
    constants: Array


@cache
def _tables(degree: int, dtype: Any) -> _Tables:
    of_terms, factors, powers, starts = [], [], [], [np.zeros(1, np.int64)]
    n_terms = 0
    for d in range(degree + 1):
        table, of_degree = monomials(d, dtype)
        axial, starts_of_degree = axial_powers(d)
        of_terms.append(table + np.array([n_terms, 0, 0]))
        factors.append(of_degree)
        powers.append(axial)
        starts.append(starts_of_degree[1:] + n_terms)
        n_terms += len(axial)
    constants = [
        ((2 * pi) ** 1.5 * wavelet_constant(d)) ** 2 for d in range(degree + 1)
    ]
    return _Tables(
        np.concatenate(of_terms),
        np.concatenate(factors),
        np.concatenate(powers),
        np.concatenate(starts),
        np.array(constants, dtype),
    )


def integrate_products(
    positions: Array,
    weights: Array,
    tile: Tile,
    widths: Array,
    degree: int,
    cut: float,
    exponents: Array,
    scales: Array,
    epsilon: Array,
    floor: float,
    joined: bool,
) -> tuple[Array, Array]:
    """Integrate powers of moduli, and products of those of two fields.

    The fields are those of all widths and of all degrees up to `degree`. One of two has
    the least width.

    Parameters
    ----------
    positions : ndarray of shape (3, n_atoms)
        Sorted along x.
    weights : ndarray of shape (n_channels, n_atoms)
        Their type is that of the fields.
    tile : Tile
        Where to integrate.
    widths : ndarray of shape (n_widths,)
        The least one first.
    degree : int
    cut : float
        Beyond it, in widths, factors of atoms are zero.
    exponents, scales : ndarray of shape (n_exponents,)
        The powers of the moduli, and their factors.
    epsilon : ndarray of shape (n_widths, degree + 1, n_channels)
        Softening of the moduli.
    floor : float
        Added to the squares of the moduli.
    joined : bool
        Whether the fields of all channels are multiplied with each other.

    Returns
    -------
    products : ndarray of shape (n_exponents, n_groups, n_narrow, n_fields)
        The first of two fields has the least width. Each channel is a group of its own;
        if `joined`, all are one group, and fields are listed channel by channel.
    powers : ndarray of shape (n_exponents, n_groups, n_narrow)
        The integrals of fields of the least width alone.
    """
    dtype = weights.dtype
    return _integrate_products(
        positions,
        weights,
        *(axis.points for axis in tile.axes),
        *(axis.weights.astype(dtype) for axis in tile.axes),
        tile.rows,
        tile.columns,
        blocks_of(tile, _COLUMNS),
        widths,
        degree + 1,
        cut,
        *_tables(degree, dtype),
        exponents,
        scales.astype(dtype),
        other_exponents(exponents),
        epsilon.astype(dtype),
        dtype.type(floor),
        joined,
    )


@compile_loops
def _along(points: Any, centres: Any, widths: Any, n_powers: int, cut: float) -> Any:
    """Evaluate the factors of atoms: (width, power, atom, point)."""
    found = np.empty((len(widths), n_powers, len(centres), len(points)))
    flat = found.reshape(len(widths), -1)
    for j in range(len(widths)):
        factors = gaussian_factors(centres, points, widths[j], n_powers - 1, cut)
        # An assignment of arrays would compile messages on shapes, for seconds.
        for k, value in enumerate(factors.flat):
            flat[j, k] = value
    return found


@compile_loops
def _integrate_products(
    positions: Any,
    atom_weights: Any,
    points_x: Any,
    points_y: Any,
    points_z: Any,
    weights_x: Any,
    weights_y: Any,
    weights_z: Any,
    rows: Any,
    columns: Any,
    blocks: Any,
    widths: Any,
    n_powers: int,
    cut: float,
    table: Any,
    factors: Any,
    of_z: Any,
    starts: Any,
    constants: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    epsilon: Any,
    floor: Any,
    joined: bool,
) -> Any:
    dtype = atom_weights.dtype
    n_z = len(points_z)
    n_channels, n_atoms = atom_weights.shape
    n_widths, n_terms, n_exponents = len(widths), len(of_z), len(exponents)
    n_rows, n_fields = n_channels * n_z, n_widths * n_powers
    x = _along(points_x, positions[0], widths, n_powers, cut).astype(dtype)
    y = _along(points_y, positions[1], widths, n_powers, cut).astype(dtype)
    z = _along(points_z, positions[2], widths, n_powers, cut)
    axial = np.empty((n_widths, n_powers, n_atoms, n_rows), dtype)
    for j in range(n_widths):
        for a in range(n_powers):
            for n in range(n_atoms):
                for c in range(n_channels):
                    for k in range(n_z):
                        value = atom_weights[c, n] * z[j, a, n, k]
                        axial[j, a, n, c * n_z + k] = value
    n_groups = 1 if joined else n_channels
    in_group = n_channels // n_groups
    n_narrow = in_group * n_powers
    integrals = np.zeros((n_exponents, n_groups, n_narrow, in_group * n_fields))
    alone = np.zeros((n_exponents, n_groups, n_narrow))
    product = np.empty((n_narrow, in_group * n_fields), dtype)
    size, least = 0, dtype.type(_LEAST)
    for b in range(len(blocks)):
        size = max(size, blocks[b, 1] - blocks[b, 0])
    all_axial = np.empty(n_terms * n_atoms * n_rows, dtype)
    all_terms = np.empty(n_terms * n_atoms * size, dtype)
    squares = np.empty(n_rows * size, dtype)
    components = np.empty(n_rows * size, dtype)
    modulus = np.empty(CHUNK, dtype)
    powers = np.empty((n_exponents + 2, CHUNK), dtype)
    all_powers = np.empty((n_exponents, n_fields * n_rows * size), dtype)
    all_weighed = np.empty(n_narrow * n_z * size, dtype)
    weights = np.empty(n_z * size, dtype)
    units = np.ones(n_exponents, dtype)
    for b in range(len(blocks)):
        start, stop = blocks[b, 0], blocks[b, 1]
        bottom, top = blocks[b, 2], blocks[b, 3]
        n = stop - start
        block = (top - bottom) * n
        n_rows = n_channels * (top - bottom)
        fill_weights(
            rows[start:stop],
            columns[start:stop],
            weights_x,
            weights_y,
            weights_z[bottom:top],
            weights,
        )
        first, last = points_x[rows[start]], points_x[rows[stop - 1]]
        for j in range(n_widths):
            # The atoms from low to high are within reach.
            reach, low = cut * widths[j], 0
            while low < n_atoms - 1 and positions[0, low] < first - reach:
                low += 1
            high = low + 1
            while high < n_atoms and positions[0, high] < last + reach:
                high += 1
            n_near = high - low
            near = as_matrix(all_axial, n_terms * n_near, n_rows)
            fill_near(axial[j], of_z, low, bottom, n_channels, near)
            terms = as_matrix(all_terms, n_terms * n_near, n)
            fill_atom_terms(
                x[j],
                y[j],
                low,
                rows[start:stop],
                columns[start:stop],
                table,
                factors,
                terms,
            )
            component = as_matrix(components, n_rows, n)
            for d in range(n_powers):
                for m in range(d * d, (d + 1) * (d + 1)):
                    these = slice(starts[m] * n_near, starts[m + 1] * n_near)
                    np.dot(near[these].T, terms[these], component)
                    if m == d * d:
                        square(components, floor, squares, n_rows * n)
                    else:
                        add_squares(components, squares, n_rows * n)
                constant = constants[d]
                for k in range(n_rows * n):
                    squares[k] *= constant
                for c in range(n_channels):
                    field = (c * n_fields + j * n_powers + d) * block
                    for first_of in range(0, block, CHUNK):
                        last_of = min(first_of + CHUNK, block)
                        fill_powers(
                            squares[c * block + first_of : c * block + last_of],
                            exponents,
                            units,
                            others,
                            epsilon[j, d, c],
                            modulus,
                            powers,
                        )
                        for e in range(n_exponents):
                            to = all_powers[e, field + first_of : field + last_of]
                            found, scale = powers[e], scales[e]
                            for k in range(len(to)):
                                to[k] = scale * found[k] + least
        for e in range(n_exponents):
            of_fields = as_matrix(all_powers[e], n_channels * n_fields, block)
            weighed = as_matrix(all_weighed, n_narrow, block)
            for g in range(n_groups):
                of_group = of_fields[g * in_group * n_fields :]
                of_group = of_group[: in_group * n_fields]
                for c in range(in_group):
                    for d in range(n_powers):
                        to, found = (
                            weighed[c * n_powers + d],
                            of_group[c * n_fields + d],
                        )
                        total = dtype.type(0)
                        for k in range(block):
                            to[k] = weights[k] * found[k]
                            total += to[k]
                        alone[e, g, c * n_powers + d] += total
                np.dot(weighed, of_group.T, product)
                for i in range(product.shape[0]):
                    for k in range(product.shape[1]):
                        integrals[e, g, i, k] += product[i, k]
    return integrals, alone
