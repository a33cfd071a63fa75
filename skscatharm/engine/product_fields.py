r"""Fields of atoms on blocks of columns of a grid, for products of two of them.

Atoms of the same weights are of one kind. Where there are few kinds and many channels,
the fields of kinds are computed. The squared moduli of channels are sums over pairs:

.. math:: |U_c|^2 = \sum_{k, o} w_{ck} \, w_{co} \sum_m U_{km} U_{om} .
"""

from functools import cache
from math import pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.blocks import (
    HEIGHT,
    Blocks,
    as_matrix,
    cut_into_blocks,
    fill_near,
)
from skscatharm.engine.compiled import (
    CHUNK,
    Harmonics,
    fill_powers,
    gaussian_factors,
    harmonics_of,
)
from skscatharm.engine.tiles import Tile
from skscatharm.transform.harmonics import wavelet_constant

__all__ = [
    "Basis",
    "along",
    "blocks_of",
    "fill_axial",
    "fill_fields",
    "fill_powers_of_field",
    "fill_powers_of_fields",
    "fill_squares",
    "fill_terms",
    "harmonics_up_to",
    "products_back",
    "slopes_along",
]

Array = NDArray[Any]

# A block has as many columns along z as have so many values in all, within limits: its
# arrays stay in cache.
_KEPT, _LEAST_COLUMNS, _MOST_COLUMNS = 140_000, 24, 96
_LEAST = 1e-200  # least squared modulus: low powers have no derivative at zero


class Basis(NamedTuple):
    """Sources of fields, whose products make the squared moduli of channels.

    Attributes
    ----------
    weights : ndarray of shape (n_sources, n_atoms)
        Of the atoms in each field of the basis.
    pairs : ndarray of int of shape (n_pairs, 2)
        Pairs of sources.
    mixing : ndarray of shape (n_channels, n_pairs)
        Factors of their products in the squares of channels.
    """

    weights: Array
    pairs: Array
    mixing: Array

    @classmethod
    def of(cls, of_kinds: Array, kinds: Array) -> "Basis":
        """Choose the sources.

        Parameters
        ----------
        of_kinds : ndarray of shape (n_channels, n_kinds)
            Weights of kinds of atoms.
        kinds : ndarray of int of shape (n_atoms,)
        """
        n_channels, n_kinds = of_kinds.shape
        one, other = np.tril_indices(n_kinds)
        if n_kinds >= n_channels or len(one) > n_channels:
            alone = np.arange(n_channels)
            pairs = np.stack([alone, alone], axis=1)
            return cls(of_kinds[:, kinds], pairs, np.eye(n_channels))
        peak = np.abs(of_kinds).max() or 1.0
        shares = of_kinds / peak
        mixing = shares[:, one] * shares[:, other] * np.where(one == other, 1, 2)
        pairs = np.stack([one, other], axis=1)
        return cls(peak * np.eye(n_kinds)[:, kinds], pairs, mixing)

    def take(self, atoms: Array, dtype: Any) -> "Basis":
        """Take some of the atoms, in a type of numbers."""
        return Basis(
            self.weights[:, atoms].astype(dtype), self.pairs, self.mixing.astype(dtype)
        )


@cache
def harmonics_up_to(degree: int, dtype: Any) -> tuple[Harmonics, Array]:
    """List the terms of solid harmonics, and the squared constants of the wavelets."""
    degrees = tuple(range(degree + 1))
    constants = [((2 * pi) ** 1.5 * wavelet_constant(d)) ** 2 for d in degrees]
    return harmonics_of(degrees, dtype), np.array(constants)


def blocks_of(tile: Tile, n_kept: int) -> Blocks:
    """Cut a tile into blocks, in which so many values are kept at a point."""
    height = min(len(tile.axes[2].points), HEIGHT)
    n_columns = min(max(_KEPT // (n_kept * height), _LEAST_COLUMNS), _MOST_COLUMNS)
    return cut_into_blocks(tile, n_columns, in_rows=False)


@compile_loops
def along(points: Any, centres: Any, widths: Any, n_powers: int, cut: float) -> Any:
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
def slopes_along(factors: Any, widths: Any) -> Any:
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
def fill_axial(along_z: Any, sources: Any, axial: Any) -> None:
    """Weigh the factors along z: (width, power, atom, point of a source), from those of
    :func:`along` and the weights of sources.
    """
    n_sources, n_z = len(sources), along_z.shape[3]
    for j in range(len(axial)):
        for a in range(axial.shape[1]):
            for n in range(axial.shape[2]):
                found, to = along_z[j, a, n], axial[j, a, n]
                for s in range(n_sources):
                    weight = sources[s, n]
                    for k in range(n_z):
                        to[s * n_z + k] = weight * found[k]


@compile_loops
def fill_terms(
    x: Any, y: Any, atoms: Any, rows: Any, columns: Any, harmonics: Any, terms: Any
) -> None:
    """Do what :func:`~skscatharm.engine.compiled.fill_terms_of_rows` does, for columns
    in any order.
    """
    n_powers, n_near, n = min(len(x), len(y)), len(atoms), len(rows)
    monomials, factors = harmonics.monomials, harmonics.factors
    of_x, of_y = np.empty((n_powers, n), x.dtype), np.empty((n_powers, n), x.dtype)
    terms[:] = 0
    for i in range(n_near):
        for a in range(n_powers):
            in_x, to_x, in_y, to_y = x[a, atoms[i]], of_x[a], y[a, atoms[i]], of_y[a]
            for p in range(n):
                to_x[p] = in_x[rows[p]]
            for p in range(n):
                to_y[p] = in_y[columns[p]]
        for t in range(len(factors)):
            term, a, b = monomials[t, 0], monomials[t, 1], monomials[t, 2]
            one, other, to = of_x[a], of_y[b], terms[term * n_near + i]
            factor = factors[t]
            for p in range(n):
                to[p] += factor * one[p] * other[p]


@compile_loops
def fill_squares(
    near: Any,
    terms: Any,
    harmonics: Any,
    pairs: Any,
    mixing: Any,
    components: Any,
    work: Any,
    squares: Any,
) -> None:
    """Compute the squared moduli of fields of a width.

    Parameters
    ----------
    near : ndarray of shape (n_terms * n_near, n_sources * n_z)
        Factors along z.
    terms : ndarray of shape (n_terms * n_near, n)
        From :func:`fill_terms`.
    harmonics : Harmonics
    pairs, mixing : ndarray
        Those of a :class:`Basis`.
    components : ndarray of shape (n_components or 1, n_sources * n_z * n or more)
        Is filled with the components of the sources. If it has one row, the next
        component takes the place of the last.
    work : ndarray of shape (n_pairs * n_z * n or more,)
    squares : ndarray of shape (n_degrees, n_channels, n_z * n)
    """
    n_terms, n_rows, n = len(harmonics.powers_of_z), near.shape[1], terms.shape[1]
    n_near, block = len(near) // n_terms, squares.shape[2]
    is_mixed = n_rows * n != len(mixing) * block  # or each source is a channel
    for d in range(len(squares)):
        sums = as_matrix(work, len(pairs), block) if is_mixed else squares[d]
        sums[:] = 0
        for m in range(d * d, (d + 1) * (d + 1)):
            component = components[m % len(components)]
            first = harmonics.starts[m] * n_near
            these = slice(first, harmonics.starts[m + 1] * n_near)
            np.dot(near[these].T, terms[these], as_matrix(component, n_rows, n))
            for i in range(len(pairs)):
                one, other, to = pairs[i, 0] * block, pairs[i, 1] * block, sums[i]
                values = component[one : one + block]
                partners = component[other : other + block]
                for p in range(block):
                    to[p] += values[p] * partners[p]
        if is_mixed:
            squares[d] = 0
            for c in range(len(mixing)):
                square = squares[d, c]
                for i in range(len(pairs)):
                    of_pair, factor = sums[i], mixing[c, i]
                    if factor != 0:
                        for p in range(block):
                            square[p] += factor * of_pair[p]


@compile_loops
def fill_fields(
    x: Any,
    y: Any,
    axial: Any,
    near: Any,
    n_near: Any,
    rows: Any,
    columns: Any,
    bottom: int,
    harmonics: Any,
    pairs: Any,
    mixing: Any,
    constants: Any,
    n_sources: int,
    buffers: Any,
    components: Any,
    squares: Any,
) -> None:
    """Compute the components of the sources on a block, and the squared moduli.

    Parameters
    ----------
    x, y : ndarray of shape (n_widths, n_powers or more, n_atoms, n)
        From :func:`along`.
    axial : ndarray of shape (n_widths, n_powers, n_atoms, n_sources * n_z)
        From :func:`fill_axial`.
    near : ndarray of int of shape (n_widths, n_atoms)
        Indices of the atoms near the block, by width.
    n_near : ndarray of int of shape (n_widths,)
        Their numbers.
    rows, columns : ndarray of int of shape (n_columns,)
        Indices into x and y.
    bottom : int
        First point in z.
    harmonics : Harmonics
    pairs, mixing : ndarray
        Those of a :class:`Basis`.
    constants : ndarray of shape (n_widths, n_degrees)
        Factors of the squares.
    n_sources : int
    buffers : tuple of three ndarrays
        Factors along z, terms and products of pairs, to be filled.
    components : ndarray of shape (n_widths, n_components, n_sources * n_points or more)
        Is filled.
    squares : ndarray of shape (n_widths, n_degrees, n_channels, n_points)
        Is filled, with positive numbers.
    """
    all_axial, all_terms, work = buffers
    powers_of_z, n = harmonics.powers_of_z, len(rows)
    n_terms, n_points = len(powers_of_z), squares.shape[3]
    for j in range(len(squares)):
        atoms, n_rows = near[j, : n_near[j]], n_terms * n_near[j]
        along_axis = as_matrix(all_axial, n_rows, n_sources * (n_points // n))
        fill_near(axial[j], powers_of_z, atoms, bottom, n_sources, along_axis)
        terms = as_matrix(all_terms, n_rows, n)
        fill_terms(x[j], y[j], atoms, rows, columns, harmonics, terms)
        of_width = squares[j]
        fill_squares(
            along_axis, terms, harmonics, pairs, mixing, components[j], work, of_width
        )
        for d in range(squares.shape[1]):
            for c in range(squares.shape[2]):
                square, constant = squares[j, d, c], constants[j, d]
                for p in range(n_points):
                    square[p] = max(constant * square[p], _LEAST)


@compile_loops
def fill_powers_of_fields(
    squares: Any, exponents: Any, others: Any, epsilon: Any, n_groups: int, powers: Any
) -> None:
    """Compute the powers of all fields from the squares of :func:`fill_fields`.

    `powers` are of shape (n_exponents, n_groups * (n_fields + 1) * n_points or more).
    The channels are in groups, one after the other. The last field of each is one.
    """
    n_widths, n_powers, n_channels, n = squares.shape
    n_exponents, in_group = len(exponents), n_channels // n_groups
    work, units = np.empty((n_exponents + 4, CHUNK)), np.ones(n_exponents)
    place = np.int64(0)
    for g in range(n_groups):
        for j in range(n_widths):
            for d in range(n_powers):
                for c in range(g * in_group, (g + 1) * in_group):
                    fill_powers_of_field(
                        squares[j, d, c],
                        exponents,
                        units,
                        others,
                        epsilon[j, d, c],
                        0.0,
                        work,
                        powers,
                        place,
                    )
                    place += n
        powers[:, place : place + n] = 1
        place += n


@compile_loops
def fill_powers_of_field(
    squares: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    low: Any,
    least: Any,
    work: Any,
    powers: Any,
    start: int,
) -> None:
    """Compute the powers of a softened modulus times their scales, plus `least`.

    Parameters
    ----------
    squares : ndarray of shape (n,)
        The square of the modulus, without softening.
    exponents, scales : ndarray of shape (n_exponents,)
    others : ndarray of int or None
        From :func:`~skscatharm.engine.compiled.other_exponents`.
    low : float
        The softening.
    least : float
    work : ndarray of shape (n_exponents + 4, CHUNK)
    powers : ndarray of shape (n_exponents, start + n or more)
        Is filled from `start` on.
    start : int
    """
    n_exponents, unscaled, modulus = len(exponents), work[-2], work[-1]
    for e in range(n_exponents):
        unscaled[e] = 1
    for first in range(0, len(squares), CHUNK):
        last = min(first + CHUNK, len(squares))
        part = squares[first:last]
        fill_powers(part, exponents, unscaled, others, low, modulus, work)
        for e in range(n_exponents):
            to, found, scale = powers[e, start + first :], work[e], scales[e]
            for k in range(last - first):
                to[k] = scale * found[k] + least


@compile_loops
def products_back(component: Any, pairs: Any, onto: Any, block: int, to: Any) -> None:
    """Take derivatives with respect to the products of pairs back to a component.

    Parameters
    ----------
    component : ndarray of shape (n_sources * block or more,)
    pairs : ndarray of int of shape (n_pairs, 2)
    onto : ndarray of shape (n_pairs, block)
        Halves of the derivatives.
    block : int
        Number of points.
    to : ndarray of shape (n_sources * block or more,)
    """
    to[:] = 0
    for i in range(len(pairs)):
        one, other, factor = pairs[i, 0] * block, pairs[i, 1] * block, onto[i]
        for _ in range(2):
            values, found = component[one : one + block], to[other : other + block]
            for p in range(block):
                found[p] += 0.5 * factor[p] * values[p]
            one, other = other, one
