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
from skscatharm.engine.compiled import gaussian_factors, monomials
from skscatharm.engine.integrals import as_matrix, axial_powers
from skscatharm.engine.tiles import Tile
from skscatharm.transform.harmonics import wavelet_constant

__all__ = [
    "Basis",
    "Harmonics",
    "along",
    "fill_axial",
    "fill_squares",
    "harmonics_up_to",
    "near_atoms",
    "points_of_blocks",
    "products_back",
    "span_blocks",
    "terms_at",
]

Array = NDArray[Any]

# A block has as many columns along z as have so many values in all, within limits: its
# arrays stay in cache.
_KEPT, _LEAST_COLUMNS, _MOST_COLUMNS = 140_000, 24, 96
_SLAB = 8  # points in x, of columns that are sorted by their lengths


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


class Harmonics(NamedTuple):
    """The terms of the solid harmonics of all degrees up to one.

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
def harmonics_up_to(degree: int, dtype: Any) -> tuple[Harmonics, Array]:
    """List the terms of solid harmonics, and the squared constants of the wavelets."""
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
    terms = Harmonics(
        np.concatenate(of_terms),
        np.concatenate(factors),
        np.concatenate(powers),
        np.concatenate(starts),
    )
    return terms, np.array(constants)


def span_blocks(tile: Tile, n_kept: int) -> tuple[Array, Array, Array]:
    """Cut the columns of a tile into blocks of columns of about the same length.

    Parameters
    ----------
    tile : Tile
    n_kept : int
        Number of values that are kept at a point.

    Returns
    -------
    rows, columns : ndarray of int of shape (n_columns,)
        Indices into x and y. In a block, x differs by few points.
    blocks : ndarray of int of shape (n_blocks, 4)
        Columns, from and to, and the points in z that are near in any of them, from and
        to.
    """
    z = tile.axes[2].points
    n_columns = min(max(_KEPT // (n_kept * len(z)), _LEAST_COLUMNS), _MOST_COLUMNS)
    bottom = np.searchsorted(z, tile.spans[0])
    top = np.searchsorted(z, tile.spans[1], side="right")
    slab = tile.rows // _SLAB
    # Columns that no point is in come first in their slab.
    height = np.maximum(top - bottom, 0)
    order = np.argsort(slab * (len(z) + 1) + height, kind="stable")
    order = order[height[order] > 0]
    bounds = []
    first = 0
    for count in np.bincount(slab[order]).tolist():
        n_blocks = -(-count // n_columns)
        bounds += [first + count * i // n_blocks for i in range(n_blocks)]
        first += count
    blocks = np.empty((len(bounds), 4), np.int64)
    blocks[:, 0], blocks[:, 1] = bounds, [*bounds[1:], first]
    blocks[:, 2] = np.minimum.reduceat(bottom[order], bounds)
    blocks[:, 3] = np.maximum.reduceat(top[order], bounds)
    return tile.rows[order], tile.columns[order], blocks


def points_of_blocks(tile: Tile, n_kept: int) -> tuple[Array, Array]:
    """List the points of :func:`span_blocks`, of shape (3, n_points), and weights."""
    rows, columns, blocks = span_blocks(tile, n_kept)
    x, y, z = tile.axes
    starts, stops, bottoms, tops = blocks.T
    heights = np.repeat(tops - bottoms, stops - starts)
    ends = np.cumsum(heights)
    of_points = np.repeat(np.arange(len(rows)), heights)
    first = np.repeat(bottoms, stops - starts) - (ends - heights)
    along_z = np.arange(len(of_points)) + first[of_points]
    places = rows[of_points], columns[of_points], along_z
    axes = list(zip((x, y, z), places, strict=True))
    points = np.stack([axis.points[of_axis] for axis, of_axis in axes])
    return points, np.prod([axis.weights[of_axis] for axis, of_axis in axes], axis=0)


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
def near_atoms(along_x: Any, points: Any, rows: Any, reach: float) -> tuple[int, int]:
    """Find the atoms, from and to, within reach of rows of points along x."""
    first, last, low = np.inf, -np.inf, 0
    for row in rows:
        first, last = min(first, points[row]), max(last, points[row])
    while low < len(along_x) - 1 and along_x[low] < first - reach:
        low += 1
    high = low + 1
    while high < len(along_x) and along_x[high] < last + reach:
        high += 1
    return low, high


@compile_loops
def terms_at(
    x: Any,
    y: Any,
    low: int,
    n_near: int,
    rows: Any,
    columns: Any,
    harmonics: Any,
    work: Any,
    terms: Any,
) -> Any:
    """Evaluate the polynomials in x and y of the harmonics around some atoms.

    Parameters
    ----------
    x, y : ndarray of shape (n_powers, n_atoms, n)
        Factors of the atoms along an axis.
    low, n_near : int
        The first of the atoms, and their number.
    rows, columns : ndarray of int of shape (n_places,)
        Indices into x and y.
    harmonics : Harmonics
    work : ndarray of shape (2 * n_powers * n_near * n_places or more,)
    terms : ndarray of shape (n_terms * n_near * n_places or more,)

    Returns
    -------
    ndarray of shape (n_terms * n_near, n_places)
        A view of `terms`.
    """
    n_powers, n = int(np.sqrt(len(harmonics.starts) - 1)), len(rows)
    size = n_powers * n_near * n
    of_x = work[:size].reshape(n_powers, n_near, n)
    of_y = work[size : 2 * size].reshape(n_powers, n_near, n)
    _gather(x, low, rows, of_x)
    _gather(y, low, columns, of_y)
    found = as_matrix(terms, len(harmonics.powers_of_z) * n_near, n)
    found[:] = 0
    for t in range(len(harmonics.factors)):
        term, a, b = harmonics.monomials[t]
        factor = harmonics.factors[t]
        for i in range(n_near):
            one, other, to = of_x[a, i], of_y[b, i], found[term * n_near + i]
            for p in range(n):
                to[p] += factor * one[p] * other[p]
    return found


@compile_loops
def _gather(factors: Any, low: int, places: Any, found: Any) -> None:
    """Take the factors of atoms from `low` on at some places."""
    for a in range(len(found)):
        for i in range(found.shape[1]):
            to, values = found[a, i], factors[a, low + i]
            for p in range(len(to)):
                to[p] = values[places[p]]


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
        From :func:`terms_at`.
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
