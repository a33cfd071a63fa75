"""The frame in which a molecule stands on its grid, whatever its orientation was."""

from collections.abc import Iterator
from functools import cached_property
from itertools import product
from math import inf, sqrt
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from skscatharm.engine.rigid import superpose

__all__ = ["Frame"]

_Array = NDArray[np.float64]

# Moments of inertia, and distances, that differ by less than this share are equal.
_EQUAL = 1e-6
_SIGNS = np.array(list(product((1.0, -1.0), repeat=3)))
# Any direction that no symmetry of a molecule would choose, with all signs.
_DIRECTIONS = (_SIGNS * [0.8, 1.9, 3.1]).T
_FEW = 100  # atoms whose distances are all computed


class Frame:
    """A molecule in its own axes.

    The axes are principal axes of the positions, the longest first: the box around the
    molecule becomes small, and copies in any orientation become equal up to rounding.
    Symmetric molecules have equal moments, which leave a choice. Each choice that
    their atoms suggest gets a score, and the highest wins; choices of the same score
    are equivalent by symmetry.

    Principal axes of a molecule that moves may turn fast, and the box changes. Where
    grids must not, a reference is given: the axes are its principal axes, turned with
    the molecule, and the origin is the mean of the positions.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
        Positions of the atoms, in any unit.
    charges : ndarray of shape (n_atoms,)
        Nuclear charges, or other numbers that tell the atoms apart.
    turn : bool, default=True
        Whether the axes are its own, or those of the positions as they are.
    reference : ndarray of shape (n_atoms, 3) or None, default=None
        Positions of the atoms in another configuration; without `turn`, they have no
        effect.

    Attributes
    ----------
    positions : ndarray of shape (n_atoms, 3)
        The positions in these axes. Without a reference, the box around them is centred
        on the origin.
    is_lattice : bool
        Whether points of grids keep their places in these axes.
    reference_half_lengths : ndarray of shape (3,)
        In a lattice, half of the length of the reference along each axis.
    rotation : ndarray of shape (3, 3)
        The axes, one a column: orthonormal, of either handedness.
    centre : ndarray of shape (3,)
        The origin, in the coordinates that were given:
        ``(given - centre) @ rotation`` are the positions.
    """

    def __init__(
        self,
        positions: _Array,
        charges: NDArray[Any],
        turn: bool = True,
        reference: _Array | None = None,
    ) -> None:
        self._charges = np.abs(charges)
        self.is_lattice = turn and reference is not None
        mean = positions.mean(axis=0)
        if turn and reference is not None:
            axes = _best_axes(reference - reference.mean(axis=0), charges)
            self.rotation = superpose(reference, positions) @ axes
            self.centre = mean
            self.positions = (positions - mean) @ self.rotation
            in_axes = (reference - reference.mean(axis=0)) @ axes
            self.reference_half_lengths = np.abs(in_axes).max(axis=0)
            self._neighbours = reference
            return
        self.rotation = _best_axes(positions - mean, charges) if turn else np.eye(3)
        turned = (positions - mean) @ self.rotation
        middle = (turned.max(axis=0) + turned.min(axis=0)) / 2
        self.positions = turned - middle
        self.centre = mean + self.rotation @ middle
        self._neighbours = positions

    @cached_property
    def half_lengths(self) -> _Array:
        """Half of the length of the molecule along each axis."""
        return np.abs(self.positions).max(axis=0)

    @cached_property
    def spacing(self) -> float:
        """Median distance of neighbouring atoms; infinity for one atom."""
        if len(self._neighbours) == 1:
            return inf
        if len(self._neighbours) <= _FEW:
            distances = cdist(self._neighbours, self._neighbours)
            np.fill_diagonal(distances, inf)
            return median(distances.min(axis=0).tolist())
        tree = KDTree(self._neighbours, compact_nodes=False, balanced_tree=False)
        nearest, _ = tree.query(self._neighbours, k=2)
        return median(np.asarray(nearest)[:, 1].tolist())

    def crowding(self, width: float) -> float:
        """Return the distance of neighbouring atoms in widths of their fields.

        It is bounded from below: fields of few atoms cannot add up to more than all.
        """
        return max(self.spacing / width, self.least_crowding)

    @cached_property
    def least_crowding(self) -> float:
        """The bound of the crowding."""
        others = self._charges.sum() / self._charges.max() - 1
        return float(others ** (-1 / 3)) if others > 0 else inf


def _best_axes(centred: _Array, charges: NDArray[Any]) -> _Array:
    choices = np.stack(list(_possible_axes(centred)))
    size = max(sqrt(np.square(centred).sum(axis=1).max()), 1e-12)
    # Of each choice, the axes in both directions.
    phases = (centred / size @ choices) @ _DIRECTIONS
    scores = (charges @ np.sin(phases + 0.4)).ravel()
    # Equivalent choices differ by rounding; take the first of them.
    best = np.flatnonzero(scores > scores.max() - 1e-9 * np.abs(charges).sum())[0]
    axes: _Array = choices[best // len(_SIGNS)] * _SIGNS[best % len(_SIGNS)]
    return axes


def _possible_axes(centred: _Array) -> Iterator[_Array]:
    """Yield all axes that the positions suggest, in one direction each."""
    moments, vectors = np.linalg.eigh(centred.T @ centred)
    moments, vectors = moments[::-1], vectors[:, ::-1]
    equal = np.diff(moments) > -_EQUAL * max(moments[0], 1e-12)
    if equal.all():
        yield from _pairs_of_atoms(centred)
    elif equal.any():
        yield from _turned(centred, vectors, [0, 1] if equal[0] else [1, 2])
    else:
        yield vectors


def _turned(centred: _Array, vectors: _Array, pair: list[int]) -> Iterator[_Array]:
    """Yield principal axes of which two, of equal moments, point to atoms."""
    plane = vectors[:, pair]
    across = centred @ plane
    found = False
    for direction in _outermost(across):
        found = True
        turn = np.array([[direction[0], -direction[1]], [direction[1], direction[0]]])
        choice = vectors.copy()
        choice[:, pair] = plane @ turn
        yield choice
    if not found:  # a linear molecule
        yield vectors


def _pairs_of_atoms(centred: _Array) -> Iterator[_Array]:
    """Yield axes of which the first points to an atom, and the second near another."""
    found = False
    for first in _outermost(centred):
        across = centred - np.outer(centred @ first, first)
        for second in _outermost(across):
            found = True
            yield np.column_stack([first, second, np.cross(first, second)])
    if not found:  # one atom
        yield np.eye(3)


def _outermost(vectors: _Array) -> _Array:
    """Return the directions of the longest vectors."""
    lengths = np.linalg.norm(vectors, axis=1)
    longest = lengths.max()
    if longest < 1e-6:
        return vectors[:0]
    chosen = lengths > (1 - _EQUAL) * longest
    return vectors[chosen] / lengths[chosen, np.newaxis]
