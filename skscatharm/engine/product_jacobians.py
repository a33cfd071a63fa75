r"""All derivatives of integrals of products of fields of atoms, in one compiled pass.

Blocks of a grid are worked on as in :mod:`skscatharm.engine.product_gradients`. If a
field has components :math:`U_{am}` and a softened modulus :math:`M_a`, the derivative
of one factor of a product with respect to the position of an atom n is

.. math::

    \int \frac{\partial h(U_a)}{\partial r_n} \, h(U_b)
    = \int \frac{h'(M_a)}{M_a} \,
    \sum_m U_{am} \frac{\partial U_{am}}{\partial r_n} \, h(U_b) .

For each exponent and each field, the integrals of all atoms and all partners are a
matrix product, and these take most of the time.
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
    slopes_along,
)
from skscatharm.engine.tiles import Tile

__all__ = ["differentiate_all_products"]

_Array = NDArray[np.float64]

# Squared moduli that are as zero where numbers are in single precision.
_NEGLIGIBLE = 1e-24
# Libraries multiply matrices fastest whose products have at most so many entries.
_MOST_ENTRIES = 1000


def differentiate_all_products(
    positions: _Array,
    basis: Basis,
    tile: Tile,
    widths: _Array,
    constants: _Array,
    cut: float,
    exponents: _Array,
    epsilon: _Array,
    joined: bool,
    dtype: Any,
) -> _Array:
    """Differentiate the integrals of products of two fields with respect to one.

    The fields are powers of softened moduli, without the power of the softening. One of
    two has the least width.

    Parameters
    ----------
    positions, basis, tile, widths, constants, cut, exponents, epsilon
        Those of :func:`~skscatharm.engine.product_gradients.differentiate_products`.
    joined : bool
        Whether the fields of all channels are multiplied with each other.
    dtype : {"float32", "float64"}
        In which products are summed within a block. All else is in double precision.

    Returns
    -------
    ndarray of shape (n_groups, n_exponents, n_fields + 1, n_fields, n_atoms, 3)
        By group of channels, exponent, partner, and field that is differentiated. Each
        channel is a group of its own; if `joined`, all are one group. In a group,
        fields are listed by width, degree and channel. The last partner is one
        everywhere.
    """
    harmonics, _ = harmonics_up_to(constants.shape[1] - 1, positions.dtype)
    n_channels = epsilon.shape[2]
    n_groups = 1 if joined else n_channels
    n_fields = epsilon.size // n_groups
    total = np.zeros(
        (n_groups, len(exponents), n_fields + 1, n_fields, *positions.T.shape)
    )
    _differentiate_all(
        positions,
        *basis,
        tuple(axis.points for axis in tile.axes),
        tuple(axis.weights for axis in tile.axes),
        blocks_of(tile, epsilon.size * len(exponents)),
        widths,
        cut,
        harmonics,
        constants**2,
        exponents,
        other_exponents(exponents),
        epsilon,
        np.empty(0, dtype),
        _NEGLIGIBLE if dtype == "float32" else 0.0,
        total,
    )
    return total


@compile_loops
def _differentiate_all(
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
    of_type: Any,
    least: float,
    total: Any,
) -> None:
    dtype = of_type.dtype
    points_x, points_y, points_z = points
    weights_x, weights_y, weights_z = axis_weights
    powers_of_z, starts = harmonics.powers_of_z, harmonics.starts
    n_z, n_terms = len(points_z), len(powers_of_z)
    n_channels, n_sources, n_atoms = len(mixing), len(sources), sources.shape[1]
    n_widths, n_powers = constants.shape
    n_groups, n_exponents, n_fields = len(total), total.shape[1], total.shape[3]
    in_group, n_narrow = n_channels // n_groups, n_fields // n_widths
    x = along(points_x, positions[0], widths, n_powers + 1, cut)
    y = along(points_y, positions[1], widths, n_powers + 1, cut)
    z = along(points_z, positions[2], widths, n_powers + 1, cut)
    x_slopes, y_slopes = slopes_along(x, widths), slopes_along(y, widths)
    z_slopes = slopes_along(z, widths)
    axial = np.empty((n_widths, n_powers, n_atoms, n_sources * n_z))
    fill_axial(z, sources, axial)
    factors = _factors_of_atoms(sources, pairs, mixing)
    size, most = blocks.n_columns, blocks.height * blocks.n_columns
    near, n_near = np.empty((n_widths, n_atoms), np.int64), np.empty(n_widths, np.int64)
    distances = np.empty(n_atoms)
    all_axial = np.empty(n_terms * n_atoms * n_sources * blocks.height)
    all_z = np.empty((2, n_terms * n_atoms * blocks.height))
    all_terms = np.empty((3, n_terms * n_atoms * size))
    components = np.empty((n_widths, n_powers * n_powers, n_sources * most))
    work = np.empty(len(pairs) * most)
    all_squares = np.empty(n_widths * n_powers * n_channels * most)
    all_powers = np.empty((n_exponents, n_groups * (n_fields + 1) * most))
    all_partners = np.empty((n_exponents, n_groups * (n_fields + 1) * most), dtype)
    onto_sources, onto_channel = np.empty(n_sources * most), np.empty(most)
    all_gradients = np.empty((n_channels, 3 * n_atoms * most), dtype)
    weights, slope = np.empty(most), np.empty(most)
    weighed = np.empty(max(n_fields + 1, 3 * n_atoms) * most, dtype)
    found = np.empty((n_fields + 1) * 3 * n_atoms, dtype)
    for b in range(len(blocks.bounds)):
        start, stop, bottom, top = blocks.bounds[b]
        rows, columns = blocks.rows[start:stop], blocks.columns[start:stop]
        n, height = stop - start, top - bottom
        block = height * n
        fill_distances(positions, points, rows, columns, bottom, top, distances)
        fill_weights(
            rows, columns, weights_x, weights_y, weights_z[bottom:top], weights
        )
        fields = n_widths, n_powers, n_channels, block
        squares = all_squares[: n_widths * n_powers * n_channels * block]
        squares = squares.reshape(fields)
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
        fill_powers_of_fields(squares, exponents, others, epsilon, n_groups, all_powers)
        n_values = n_groups * (n_fields + 1) * block
        for e in range(n_exponents):
            power, partner = all_powers[e], all_partners[e]
            for p in range(n_values):
                partner[p] = power[p]
        for j in range(n_widths):
            atoms, n_rows = near[j, : n_near[j]], n_terms * n_near[j]
            n_partners = n_fields + 1 if j == 0 else n_narrow
            of_z = as_matrix(all_z[0], n_rows, height)
            of_z_slopes = as_matrix(all_z[1], n_rows, height)
            fill_near(z[j], powers_of_z, atoms, bottom, 1, of_z)
            fill_near(z_slopes[j], powers_of_z, atoms, bottom, 1, of_z_slopes)
            terms = as_matrix(all_terms[0], n_rows, n)
            x_terms = as_matrix(all_terms[1], n_rows, n)
            y_terms = as_matrix(all_terms[2], n_rows, n)
            fill_terms(x[j], y[j], atoms, rows, columns, harmonics, terms)
            fill_terms(x_slopes[j], y[j], atoms, rows, columns, harmonics, x_terms)
            fill_terms(x[j], y_slopes[j], atoms, rows, columns, harmonics, y_terms)
            n_onto = 3 * len(atoms)
            for d in range(n_powers):
                for i in range(len(atoms)):
                    for k in range(3):
                        _fill_onto_sources(
                            of_z_slopes if k == 2 else of_z,
                            x_terms if k == 0 else y_terms if k == 1 else terms,
                            i,
                            len(atoms),
                            starts,
                            d,
                            components[j],
                            onto_channel,
                            as_matrix(onto_sources, n_sources, block),
                        )
                        for c in range(n_channels):
                            to = all_gradients[c, (3 * i + k) * block :]
                            _fill_onto_channel(
                                as_matrix(onto_sources, n_sources, block),
                                factors[c, atoms[i]],
                                constants[j, d],
                                onto_channel,
                                to,
                            )
                for c in range(n_channels):
                    gradients = as_matrix(all_gradients[c], n_onto, block)
                    group, low = c // in_group, epsilon[j, d, c]
                    field = (j * n_powers + d) * in_group + c % in_group
                    first = group * (n_fields + 1) * block
                    for e in range(n_exponents):
                        q, power = exponents[e], all_powers[e, first + field * block :]
                        square, below = squares[j, d, c], low**q
                        for p in range(block):
                            high = max(square[p], least) + low * low
                            slope[p] = weights[p] * q * (power[p] + below) / high
                        partners = as_matrix(all_partners[e, first:], n_partners, block)
                        _multiply(partners, gradients, slope, weighed, found)
                        sums = as_matrix(found, n_partners, n_onto)
                        _add_to_atoms(sums, atoms, total[group, e, :, field])


@compile_loops
def _factors_of_atoms(sources: Any, pairs: Any, mixing: Any) -> Any:
    """Compute the factors of the components of sources in the derivative of half of the
    square of a channel with respect to a component of an atom: (channel, atom, source).
    """
    n_channels, (n_sources, n_atoms) = len(mixing), sources.shape
    factors = np.zeros((n_channels, n_atoms, n_sources))
    for c in range(n_channels):
        for i in range(len(pairs)):
            one, other, half = pairs[i, 0], pairs[i, 1], 0.5 * mixing[c, i]
            for n in range(n_atoms):
                factors[c, n, one] += half * sources[other, n]
                factors[c, n, other] += half * sources[one, n]
    return factors


@compile_loops
def _fill_onto_sources(
    of_z: Any,
    terms: Any,
    atom: int,
    n_near: int,
    starts: Any,
    degree: int,
    components: Any,
    work: Any,
    onto: Any,
) -> None:
    """Multiply the derivatives of the components of an atom with those of each source,
    and sum over the components of a degree.

    Parameters
    ----------
    of_z : ndarray of shape (n_terms * n_near, n_z)
        Factors along z, or their derivatives.
    terms : ndarray of shape (n_terms * n_near, n)
        The terms, or their derivatives.
    atom, n_near : int
        Which of the atoms.
    starts : ndarray of int of shape (n_components + 1,)
        Where the terms of each component begin.
    degree : int
    components : ndarray of shape (n_components, n_sources * n_z * n or more)
    work : ndarray of shape (n_z * n or more,)
    onto : ndarray of shape (n_sources, n_z * n)
        Is filled.
    """
    n_z, n = of_z.shape[1], terms.shape[1]
    onto[:] = 0
    for m in range(degree * degree, (degree + 1) * (degree + 1)):
        for t in range(starts[m], starts[m + 1]):
            along_z, term = of_z[t * n_near + atom], terms[t * n_near + atom]
            for i in range(n_z):
                value, to = along_z[i], work[i * n : (i + 1) * n]
                if t == starts[m]:
                    for p in range(n):
                        to[p] = value * term[p]
                else:
                    for p in range(n):
                        to[p] += value * term[p]
        for s in range(len(onto)):
            to, component = onto[s], components[m, s * n_z * n :]
            for p in range(n_z * n):
                to[p] += component[p] * work[p]


@compile_loops
def _fill_onto_channel(
    onto_sources: Any, factors: Any, constant: float, work: Any, to: Any
) -> None:
    """Sum over sources with factors."""
    n = onto_sources.shape[1]
    work[:n] = 0
    for s in range(len(factors)):
        if factors[s] != 0:
            factor, of_source = constant * factors[s], onto_sources[s]
            for p in range(n):
                work[p] += factor * of_source[p]
    for p in range(n):
        to[p] = work[p]


@compile_loops
def _multiply(
    partners: Any, gradients: Any, slope: Any, weighed: Any, found: Any
) -> None:
    """Sum products of partners and gradients over points, with factors `slope`.

    Parameters
    ----------
    partners : ndarray of shape (n_partners, n_points)
    gradients : ndarray of shape (n_gradients, n_points)
    slope : ndarray of shape (n_points or more,)
    weighed : ndarray of shape (n_partners * n_points or n_gradients * n_points or more)
        To work in.
    found : ndarray of shape (n_partners * n_gradients or more,)
        Is filled.
    """
    n, n_gradients = partners.shape[1], len(gradients)
    if len(partners) < n_gradients:
        _weigh(partners, slope, weighed)
        partners = as_matrix(weighed, len(partners), n)
    else:
        _weigh(gradients, slope, weighed)
        gradients = as_matrix(weighed, n_gradients, n)
    n_rows = max(_MOST_ENTRIES // n_gradients, 1)
    n_pieces = (len(partners) + n_rows - 1) // n_rows
    sums = as_matrix(found, len(partners), n_gradients)
    for piece in range(n_pieces):
        first = len(partners) * piece // n_pieces
        last = len(partners) * (piece + 1) // n_pieces
        np.dot(partners[first:last], gradients.T, sums[first:last])


@compile_loops
def _add_to_atoms(sums: Any, atoms: Any, total: Any) -> None:
    """Add sums, (n_partners, 3 * n_near), to those of all atoms, (..., n_atoms, 3)."""
    for f in range(len(sums)):
        for i in range(len(atoms)):
            for k in range(3):
                total[f, atoms[i], k] += sums[f, 3 * i + k]


@compile_loops
def _weigh(values: Any, factors: Any, weighed: Any) -> None:
    n = values.shape[1]
    for i in range(len(values)):
        value, to = values[i], weighed[i * n : (i + 1) * n]
        for p in range(n):
            to[p] = factors[p] * value[p]
