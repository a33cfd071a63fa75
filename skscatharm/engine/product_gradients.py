"""Derivatives of products of fields of atoms, in one compiled pass.

Blocks of a grid are worked on as in :mod:`skscatharm.engine.products`. Factors of the
products lead to derivatives with respect to the components of the fields. The adjoint
of the matrix products that made these leads on to the positions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.compiled import CHUNK, fill_powers, other_exponents
from skscatharm.engine.integrals import as_matrix, fill_near, fill_weights
from skscatharm.engine.product_fields import (
    Basis,
    add_products,
    along,
    fill_axial,
    harmonics_up_to,
    mix,
    near_atoms,
    products_back,
    span_blocks,
    terms_at,
)
from skscatharm.engine.tiles import Tile

__all__ = ["differentiate_products"]

_Array = NDArray[np.float64]

_LEAST = 1e-200  # least squared modulus: low powers have no derivative at zero


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
        Sorted along x.
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
    rows, columns, blocks = span_blocks(tile, n_kept)
    gradient: _Array = _differentiate_products(
        positions,
        *basis,
        *(axis.points for axis in tile.axes),
        *(axis.weights for axis in tile.axes),
        rows,
        columns,
        blocks,
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
def _slopes(factors: Any, widths: Any) -> Any:
    """Differentiate the factors of atoms with respect to their positions.

    The result has one power less.
    """
    n_widths, n_powers, n_atoms, n_points = factors.shape
    slopes = np.empty((n_widths, n_powers - 1, n_atoms, n_points))
    for j in range(n_widths):
        for a in range(n_powers - 1):
            for n in range(n_atoms):
                to, above = slopes[j, a, n], factors[j, a + 1, n]
                below = factors[j, max(a - 1, 0), n]
                for k in range(n_points):
                    to[k] = (a * below[k] - above[k]) / widths[j]
    return slopes


@compile_loops
def _differentiate_products(
    positions: Any,
    sources: Any,
    pairs: Any,
    mixing: Any,
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
    cut: float,
    harmonics: Any,
    constants: Any,
    exponents: Any,
    others: Any,
    epsilon: Any,
    of_narrow: Any,
    of_wide: Any,
) -> Any:
    n_z = len(points_z)
    n_channels, n_sources, n_atoms = len(mixing), len(sources), sources.shape[1]
    n_widths, n_powers = constants.shape
    n_terms, n_exponents = len(harmonics.powers_of_z), len(exponents)
    n_components, n_narrow = n_powers * n_powers, n_powers * n_channels
    n_fields = n_widths * n_narrow
    x = along(points_x, positions[0], widths, n_powers + 1, cut)
    y = along(points_y, positions[1], widths, n_powers + 1, cut)
    z = along(points_z, positions[2], widths, n_powers + 1, cut)
    x_slopes, y_slopes = _slopes(x, widths), _slopes(y, widths)
    axial = np.empty((n_widths, n_powers, n_atoms, n_sources * n_z))
    axial_slopes = np.empty((n_widths, n_powers, n_atoms, n_sources * n_z))
    fill_axial(z, sources, axial)
    fill_axial(_slopes(z, widths), sources, axial_slopes)
    size = 0
    for b in range(len(blocks)):
        size = max(size, blocks[b, 1] - blocks[b, 0])
    most = n_z * size
    all_near = np.empty(n_terms * n_atoms * n_sources * n_z)
    all_slopes = np.empty_like(all_near)
    factors = np.empty(2 * n_powers * n_atoms * size)
    all_terms = np.empty((3, n_terms * n_atoms * size))
    all_back = np.empty(n_terms * n_atoms * size)
    components = np.empty((n_widths, n_components, n_sources * most))
    onto_component = np.empty(n_sources * most)
    all_sums = np.empty(len(pairs) * most)
    square = np.empty(most)
    all_powers = np.empty((n_exponents, (n_fields + 1) * most))
    all_onto, all_inverse = np.empty(n_fields * most), np.empty(n_fields * most)
    all_partners = np.empty(n_fields * most)
    weights = np.empty(most)
    modulus = np.empty(CHUNK)
    work = np.empty((n_exponents + 2, CHUNK))
    units = np.ones(n_exponents)
    total = np.zeros((n_atoms, 3))
    for b in range(len(blocks)):
        start, stop = blocks[b, 0], blocks[b, 1]
        bottom, top = blocks[b, 2], blocks[b, 3]
        of_rows, of_columns = rows[start:stop], columns[start:stop]
        n, height = stop - start, top - bottom
        block = height * n
        fill_weights(
            of_rows, of_columns, weights_x, weights_y, weights_z[bottom:top], weights
        )
        sums = as_matrix(all_sums, len(pairs), block)
        for j in range(n_widths):
            low, high = near_atoms(positions[0], points_x[of_rows], cut * widths[j])
            n_near = high - low
            near = as_matrix(all_near, n_terms * n_near, n_sources * height)
            fill_near(axial[j], harmonics.powers_of_z, low, bottom, n_sources, near)
            place = low, n_near, of_rows, of_columns, harmonics, factors
            terms = terms_at(x[j], y[j], *place, all_terms[0])
            for d in range(n_powers):
                sums[:] = 0
                for m in range(d * d, (d + 1) * (d + 1)):
                    first_term = harmonics.starts[m] * n_near
                    these = slice(first_term, harmonics.starts[m + 1] * n_near)
                    component = as_matrix(components[j, m], n_sources * height, n)
                    np.dot(near[these].T, terms[these], component)
                    add_products(components[j, m], pairs, block, sums)
                for c in range(n_channels):
                    mix(sums, mixing[c], square[:block])
                    constant = constants[j, d]
                    field = ((j * n_powers + d) * n_channels + c) * block
                    inverse, low_power = all_inverse[field:], epsilon[j, d, c]
                    for p in range(block):
                        square[p] = max(constant * square[p], _LEAST)
                        inverse[p] = weights[p] / (square[p] + low_power * low_power)
                    for first in range(0, block, CHUNK):
                        last = min(first + CHUNK, block)
                        fill_powers(
                            square[first:last],
                            exponents,
                            units,
                            others,
                            low_power,
                            modulus,
                            work,
                        )
                        for e in range(n_exponents):
                            to = all_powers[e, field + first : field + last]
                            found = work[e]
                            for p in range(len(to)):
                                to[p] = found[p]
        all_onto[: n_fields * block] = 0
        for e in range(n_exponents):
            all_powers[e, n_fields * block : (n_fields + 1) * block] = 1
            powers = as_matrix(all_powers[e], n_fields + 1, block)
            partners = as_matrix(all_partners, n_fields, block)
            np.dot(of_narrow[e], powers, partners[:n_narrow])
            if n_fields > n_narrow:
                np.dot(of_wide[e], powers[:n_narrow], partners[n_narrow:])
            for f in range(n_fields):
                j, of_width = f // n_narrow, f % n_narrow
                low_power = (
                    epsilon[j, of_width // n_channels, of_width % n_channels]
                    ** exponents[e]
                )
                partner, power = partners[f], powers[f]
                to, exponent = all_onto[f * block : (f + 1) * block], exponents[e]
                for p in range(block):
                    to[p] += partner[p] * (exponent * (power[p] + low_power))
        for p in range(n_fields * block):
            all_onto[p] *= all_inverse[p]
        for j in range(n_widths):
            low, high = near_atoms(positions[0], points_x[of_rows], cut * widths[j])
            n_near = high - low
            place = low, n_near, of_rows, of_columns, harmonics, factors
            shape = n_terms * n_near, n_sources * height
            near, near_slopes = (
                as_matrix(all_near, *shape),
                as_matrix(all_slopes, *shape),
            )
            fill_near(axial[j], harmonics.powers_of_z, low, bottom, n_sources, near)
            fill_near(
                axial_slopes[j],
                harmonics.powers_of_z,
                low,
                bottom,
                n_sources,
                near_slopes,
            )
            # Derivatives of the terms along x and y, and the terms themselves.
            terms = (
                terms_at(x_slopes[j], y[j], *place, all_terms[0]),
                terms_at(x[j], y_slopes[j], *place, all_terms[1]),
                terms_at(x[j], y[j], *place, all_terms[2]),
            )
            gradient = total[low:high]
            for d in range(n_powers):
                field = (j * n_powers + d) * n_channels * block
                onto = as_matrix(all_onto[field:], n_channels, block)
                np.dot(mixing.T, onto, sums)
                of_component = as_matrix(onto_component, n_sources * height, n)
                for m in range(d * d, (d + 1) * (d + 1)):
                    products_back(components[j, m], pairs, sums, block, onto_component)
                    first_term = harmonics.starts[m] * n_near
                    these = slice(first_term, harmonics.starts[m + 1] * n_near)
                    back = as_matrix(all_back, these.stop - first_term, n)
                    np.dot(near[these], of_component, back)
                    _add_sums(back, terms[0][these], constants[j, d], gradient[:, 0])
                    _add_sums(back, terms[1][these], constants[j, d], gradient[:, 1])
                    np.dot(near_slopes[these], of_component, back)
                    _add_sums(back, terms[2][these], constants[j, d], gradient[:, 2])
    return total


@compile_loops
def _add_sums(of_terms: Any, terms: Any, factor: float, of_atoms: Any) -> None:
    """Add the sums of products of two rows to the atoms whose terms they are."""
    for t in range(len(of_terms)):
        one, other, total = of_terms[t], terms[t], 0.0
        for p in range(len(one)):
            total += one[p] * other[p]
        of_atoms[t % len(of_atoms)] += factor * total
