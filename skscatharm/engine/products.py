"""Products of fields of atoms, computed and integrated in one compiled pass.

Some columns of a grid are worked on at a time: the moduli of all fields are computed
there, raised to powers and kept. The integrals of all products of two of them are then
one matrix product.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.blocks import (
    as_matrix,
    fill_distances,
    fill_near,
    fill_weights,
    near_atoms,
)
from skscatharm.engine.compiled import CHUNK, other_exponents
from skscatharm.engine.product_fields import (
    Basis,
    along,
    blocks_of,
    fill_axial,
    fill_powers_of_field,
    fill_squares,
    fill_terms,
    harmonics_up_to,
)
from skscatharm.engine.tiles import Tile

__all__ = ["integrate_products"]

Array = NDArray[Any]

_LEAST = 1e-18  # products of two such powers are normal numbers in single precision


def integrate_products(
    positions: Array,
    basis: Basis,
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
    basis : Basis
        Of these atoms. The type of its numbers is that of the fields.
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
    dtype = basis.weights.dtype
    harmonics, constants = harmonics_up_to(degree, dtype)
    n_kept = epsilon.size * len(exponents)
    return _integrate_products(
        positions,
        *basis,
        tuple(axis.points for axis in tile.axes),
        tuple(axis.weights.astype(dtype) for axis in tile.axes),
        blocks_of(tile, n_kept),
        widths,
        cut,
        harmonics,
        constants.astype(dtype),
        exponents,
        scales.astype(dtype),
        other_exponents(exponents),
        epsilon.astype(dtype),
        dtype.type(floor),
        joined,
    )


@compile_loops
def _integrate_products(
    positions: Any,
    sources: Any,
    pairs: Any,
    mixing: Any,
    points: Any,
    axis_weights: Any,
    blocks: Any,
    widths: Any,
    cut: float,
    harmonics: Any,
    constants: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    epsilon: Any,
    floor: Any,
    joined: bool,
) -> Any:
    dtype = sources.dtype
    points_x, points_y, points_z = points
    weights_x, weights_y, weights_z = axis_weights
    n_z = len(points_z)
    n_channels, n_sources, n_atoms = len(mixing), len(sources), sources.shape[1]
    n_powers, n_terms = len(constants), len(harmonics.powers_of_z)
    n_widths, n_exponents = len(widths), len(exponents)
    n_fields = n_widths * n_powers
    x = along(points_x, positions[0], widths, n_powers, cut).astype(dtype)
    y = along(points_y, positions[1], widths, n_powers, cut).astype(dtype)
    z = along(points_z, positions[2], widths, n_powers, cut)
    axial = np.empty((n_widths, n_powers, n_atoms, n_sources * n_z), dtype)
    fill_axial(z, sources, axial)
    n_groups = 1 if joined else n_channels
    in_group = n_channels // n_groups
    n_narrow = in_group * n_powers
    integrals = np.zeros((n_exponents, n_groups, n_narrow, in_group * n_fields))
    alone = np.zeros((n_exponents, n_groups, n_narrow))
    product = np.empty((n_narrow, in_group * n_fields), dtype)
    least = dtype.type(_LEAST)
    size, n_most = blocks.n_columns, blocks.height * blocks.n_columns
    near, distances = np.empty(n_atoms, np.int64), np.empty(n_atoms)
    all_axial = np.empty(n_terms * n_atoms * n_sources * blocks.height, dtype)
    all_terms = np.empty(n_terms * n_atoms * size, dtype)
    component = np.empty((1, n_sources * n_most), dtype)
    work = np.empty(len(pairs) * n_most, dtype)
    all_squares = np.empty(n_powers * n_channels * n_most, dtype)
    work_of_powers = np.empty((n_exponents + 4, CHUNK), dtype)
    all_powers = np.empty((n_exponents, n_channels * n_fields * n_most), dtype)
    all_weighed = np.empty(n_narrow * n_most, dtype)
    weights = np.empty(n_most, dtype)
    for b in range(len(blocks.bounds)):
        start, stop, bottom, top = blocks.bounds[b]
        rows, columns = blocks.rows[start:stop], blocks.columns[start:stop]
        n = stop - start
        block = (top - bottom) * n
        fill_weights(
            rows, columns, weights_x, weights_y, weights_z[bottom:top], weights
        )
        squares = all_squares[: n_powers * n_channels * block]
        squares = squares.reshape(n_powers, n_channels, block)
        fill_distances(positions, points, rows, columns, bottom, top, distances)
        for j in range(n_widths):
            n_near = near_atoms(distances, cut * widths[j], near)
            along_axis = as_matrix(
                all_axial, n_terms * n_near, n_sources * (top - bottom)
            )
            fill_near(
                axial[j],
                harmonics.powers_of_z,
                near[:n_near],
                bottom,
                n_sources,
                along_axis,
            )
            terms = as_matrix(all_terms, n_terms * n_near, n)
            fill_terms(x[j], y[j], near[:n_near], rows, columns, harmonics, terms)
            fill_squares(
                along_axis, terms, harmonics, pairs, mixing, component, work, squares
            )
            for d in range(n_powers):
                for c in range(n_channels):
                    square, constant = squares[d, c], constants[d]
                    for k in range(block):
                        square[k] = constant * (square[k] + floor)
                    field = (c * n_fields + j * n_powers + d) * block
                    fill_powers_of_field(
                        square,
                        exponents,
                        scales,
                        others,
                        epsilon[j, d, c],
                        least,
                        work_of_powers,
                        all_powers,
                        field,
                    )
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
