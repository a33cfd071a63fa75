"""Derivatives of products of fields of atoms, in one compiled pass.

Blocks of a grid are worked on as in :mod:`skscatharm.engine.products`. Factors of the
products lead to derivatives with respect to the components of the fields. The adjoint
of the matrix products that made these leads on to the positions.
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
from skscatharm.engine.compiled import other_exponents
from skscatharm.engine.product_fields import (
    Basis,
    along,
    blocks_of,
    fill_axial,
    fill_fields,
    fill_powers_of_fields,
    fill_terms,
    harmonics_up_to,
    products_back,
    slopes_along,
)
from skscatharm.engine.tiles import Tile

__all__ = ["differentiate_products"]

_Array = NDArray[np.float64]


def differentiate_products(
    positions: _Array,
    basis: Basis,
    tile: Tile,
    widths: _Array,
    constants: _Array,
    cut: float,
    exponents: _Array,
    epsilon: _Array,
    of_narrow: _Array,
    of_wide: _Array,
) -> _Array:
    """Differentiate a weighted sum of integrals of products of two fields.

    The fields are powers of softened moduli, without the power of the softening. They
    are listed by width, degree and channel.

    Parameters
    ----------
    positions : ndarray of shape (3, n_atoms)
    basis : Basis
        Of these atoms.
    tile : Tile
        Where to integrate.
    widths : ndarray of shape (n_widths,)
        The least one first.
    constants : ndarray of shape (n_widths, n_degrees)
        Factors of solid harmonics times Gaussians, both in widths.
    cut : float
        Beyond it, in widths, factors of atoms are zero.
    exponents : ndarray of shape (n_exponents,)
        Of the moduli.
    epsilon : ndarray of shape (n_widths, n_degrees, n_channels)
        Softening of the moduli.
    of_narrow : ndarray of shape (n_exponents, n_narrow, n_fields + 1)
        Derivatives of the sum with respect to fields of the least width: the factors of
        their partners, the last of which is one everywhere.
    of_wide : ndarray of shape (n_exponents, n_fields - n_narrow, n_narrow)
        The same for other fields. Their partners have the least width.

    Returns
    -------
    ndarray of shape (n_atoms, 3)
    """
    harmonics, _ = harmonics_up_to(constants.shape[1] - 1, positions.dtype)
    n_kept = epsilon.size * len(exponents)
    gradient: _Array = _differentiate_products(
        positions,
        *basis,
        tuple(axis.points for axis in tile.axes),
        tuple(axis.weights for axis in tile.axes),
        blocks_of(tile, n_kept),
        widths,
        cut,
        harmonics,
        constants**2,
        exponents,
        other_exponents(exponents),
        epsilon,
        of_narrow,
        of_wide,
    )
    return gradient


@compile_loops
def _differentiate_products(
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
    others: Any,
    epsilon: Any,
    of_narrow: Any,
    of_wide: Any,
) -> Any:
    points_x, points_y, points_z = points
    weights_x, weights_y, weights_z = axis_weights
    n_z = len(points_z)
    n_channels, n_sources, n_atoms = len(mixing), len(sources), sources.shape[1]
    n_widths, n_powers = constants.shape
    n_terms, n_exponents = len(harmonics.powers_of_z), len(exponents)
    n_narrow = n_powers * n_channels
    n_fields = n_widths * n_narrow
    x = along(points_x, positions[0], widths, n_powers + 1, cut)
    y = along(points_y, positions[1], widths, n_powers + 1, cut)
    z = along(points_z, positions[2], widths, n_powers + 1, cut)
    x_slopes, y_slopes = slopes_along(x, widths), slopes_along(y, widths)
    axial = np.empty((n_widths, n_powers, n_atoms, n_sources * n_z))
    axial_slopes = np.empty((n_widths, n_powers, n_atoms, n_sources * n_z))
    fill_axial(z, sources, axial)
    fill_axial(slopes_along(z, widths), sources, axial_slopes)
    size, most = blocks.n_columns, blocks.height * blocks.n_columns
    near = np.empty((n_widths, n_atoms), np.int64)
    n_near, distances = np.empty(n_widths, np.int64), np.empty(n_atoms)
    all_axial = np.empty(n_terms * n_atoms * n_sources * blocks.height)
    all_axial_slopes = np.empty_like(all_axial)
    all_terms = np.empty((3, n_terms * n_atoms * size))
    components = np.empty((n_widths, n_powers * n_powers, n_sources * most))
    onto_component = np.empty(n_sources * most)
    work = np.empty(max(len(pairs) * most, n_terms * n_atoms * size))
    all_squares, all_onto = np.empty(n_fields * most), np.empty(n_fields * most)
    all_powers = np.empty((n_exponents, (n_fields + 1) * most))
    all_partners = np.empty(n_fields * most)
    weights = np.empty(most)
    total = np.zeros((n_atoms, 3))
    for b in range(len(blocks.bounds)):
        start, stop, bottom, top = blocks.bounds[b]
        rows, columns = blocks.rows[start:stop], blocks.columns[start:stop]
        n, height = stop - start, top - bottom
        block = height * n
        fill_weights(
            rows, columns, weights_x, weights_y, weights_z[bottom:top], weights
        )
        fields = n_widths, n_powers, n_channels, block
        squares = all_squares[: n_fields * block].reshape(fields)
        onto = all_onto[: n_fields * block].reshape(fields)
        fill_distances(positions, points, rows, columns, bottom, top, distances)
        for j in range(n_widths):
            n_near[j] = near_atoms(distances, cut * widths[j], near[j])
        fill_fields(
            x,
            y,
            axial,
            near,
            n_near,
            rows,
            columns,
            bottom,
            harmonics,
            pairs,
            mixing,
            constants,
            n_sources,
            (all_axial, all_terms[0], work),
            components,
            squares,
        )
        fill_powers_of_fields(squares, exponents, others, epsilon, 1, all_powers)
        _fill_slopes_of_squares(
            squares,
            all_powers,
            exponents,
            epsilon,
            weights,
            of_narrow,
            of_wide,
            all_partners,
            onto,
        )
        for j in range(n_widths):
            atoms, n_rows = near[j, : n_near[j]], n_terms * n_near[j]
            along_axis = as_matrix(all_axial, n_rows, n_sources * height)
            axial_slope = as_matrix(all_axial_slopes, n_rows, n_sources * height)
            place = harmonics.powers_of_z, atoms, bottom, n_sources
            fill_near(axial[j], *place, along_axis)
            fill_near(axial_slopes[j], *place, axial_slope)
            # Derivatives of the terms along x and y, and the terms themselves.
            terms = (
                as_matrix(all_terms[0], n_rows, n),
                as_matrix(all_terms[1], n_rows, n),
                as_matrix(all_terms[2], n_rows, n),
            )
            points_of_terms = atoms, rows, columns, harmonics
            fill_terms(x_slopes[j], y[j], *points_of_terms, terms[0])
            fill_terms(x[j], y_slopes[j], *points_of_terms, terms[1])
            fill_terms(x[j], y[j], *points_of_terms, terms[2])
            for d in range(n_powers):
                sums = mixing.T @ (constants[j, d] * onto[j, d])
                for m in range(d * d, (d + 1) * (d + 1)):
                    products_back(components[j, m], pairs, sums, block, onto_component)
                    first = harmonics.starts[m] * len(atoms)
                    these = slice(first, harmonics.starts[m + 1] * len(atoms))
                    _add_gradient(
                        along_axis[these],
                        axial_slope[these],
                        (terms[0][these], terms[1][these], terms[2][these]),
                        as_matrix(onto_component, n_sources * height, n),
                        work,
                        atoms,
                        total,
                    )
    return total


@compile_loops
def _fill_slopes_of_squares(
    squares: Any,
    powers: Any,
    exponents: Any,
    epsilon: Any,
    weights: Any,
    of_narrow: Any,
    of_wide: Any,
    work: Any,
    onto: Any,
) -> None:
    """Differentiate the weighted sum with respect to halves of the squares."""
    n_widths, n_powers, n_channels, n = squares.shape
    n_narrow = n_powers * n_channels
    n_fields = n_widths * n_narrow
    partners = as_matrix(work, n_fields, n)
    onto[:] = 0
    for e in range(len(exponents)):
        of_fields = as_matrix(powers[e], n_fields + 1, n)
        np.dot(of_narrow[e], of_fields, partners[:n_narrow])
        if n_widths > 1:
            np.dot(of_wide[e], of_fields[:n_narrow], partners[n_narrow:])
        field, q = np.int64(0), exponents[e]
        for j in range(n_widths):
            for d in range(n_powers):
                for c in range(n_channels):
                    to, low = onto[j, d, c], epsilon[j, d, c] ** q
                    partner, power = partners[field], of_fields[field]
                    for p in range(n):
                        to[p] += partner[p] * (q * (power[p] + low))
                    field += 1
    for j in range(n_widths):
        for d in range(n_powers):
            for c in range(n_channels):
                to, square, low = onto[j, d, c], squares[j, d, c], epsilon[j, d, c]
                for p in range(n):
                    to[p] *= weights[p] / (square[p] + low * low)


@compile_loops
def _add_gradient(
    near: Any,
    near_slopes: Any,
    terms: Any,
    component: Any,
    work: Any,
    atoms: Any,
    total: Any,
) -> None:
    """Take derivatives with respect to a component back to the positions of atoms.

    Parameters
    ----------
    near, near_slopes : ndarray of shape (n_terms * n_near, n_sources * n_z)
        Factors along z, and their derivatives.
    terms : tuple of three ndarrays of shape (n_terms * n_near, n)
        Derivatives of the terms along x and y, and the terms.
    component : ndarray of shape (n_sources * n_z, n)
    work : ndarray of shape (n_terms * n_near * n or more,)
    atoms : ndarray of int of shape (n_near,)
    total : ndarray of shape (n_atoms, 3)
    """
    n_near, n = len(atoms), component.shape[1]
    back = as_matrix(work, len(near), n)
    for axis in range(3):
        if axis == 0:
            np.dot(near, component, back)
        elif axis == 2:
            np.dot(near_slopes, component, back)
        of_axis = terms[axis]
        for t in range(len(back)):
            one, other, along_axis = back[t], of_axis[t], 0.0
            for p in range(n):
                along_axis += one[p] * other[p]
            total[atoms[t % n_near], axis] += along_axis
