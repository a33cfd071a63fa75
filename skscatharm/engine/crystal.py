"""Crystals, slabs and wires as the source of periodic densities."""

from functools import cached_property
from itertools import product
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from skscatharm.engine.lattice import Lattice, cell_lattice
from skscatharm.engine.protocol import Atoms
from skscatharm.structures import Structure
from skscatharm.structures.cells import primitive_cell

__all__ = ["Crystal"]

_Array = NDArray[np.float64]


class Crystal:
    """A structure with periodic directions, in its primitive cell.

    Fields repeat from cell to cell, and integrals are taken over one of them. Along
    other directions, a box reaches as far beyond the atoms as the fields do.

    Parameters
    ----------
    atoms : Atoms
        Atoms of any cell, primitive or not.

    Attributes
    ----------
    positions : ndarray of shape (n_atoms, 3)
        Atoms of the primitive cell.
    members : ndarray of int of shape (n_copies, n_atoms)
        The atoms of the given cell that are images of each of them.
    rotation : ndarray of shape (3, 3)
        The identity: lattices may have any orientation.
    """

    def __init__(self, atoms: Atoms) -> None:
        vectors, self.positions, self.members = primitive_cell(
            Structure(atoms.charges, atoms.positions, atoms.cell, atoms.pbc)
        )
        self.rotation = np.eye(3)
        self._vectors = vectors
        self._others = _perpendicular_axes(vectors, self.positions)

    @cached_property
    def half_lengths(self) -> _Array:
        """Half of the lengths: of the cell, and of the atoms along other directions."""
        lengths = np.linalg.norm(self._vectors, axis=1)
        return np.concatenate([lengths, np.ptp(self._along_others, axis=0)]) / 2

    @cached_property
    def _along_others(self) -> _Array:
        """Coordinates of the atoms along the directions that are not periodic."""
        along: _Array = self.positions @ self._others.T
        return along

    @cached_property
    def spacing(self) -> float:
        """Median distance of neighbouring atoms, images among them."""
        shifts = list(product((-1, 0, 1), repeat=len(self._vectors)))
        images = self.positions[:, np.newaxis] + np.array(shifts) @ self._vectors
        distances, _ = KDTree(images.reshape(-1, 3)).query(self.positions, k=2)
        found = float(np.median(np.asarray(distances)[:, 1]))
        return found if found > 0 else inf

    def lattice(self, step: float, reach: float) -> Lattice:
        """Make the grid of a field.

        Parameters
        ----------
        step : float
            Distance of the points of a cubic grid that is fine enough.
        reach : float
            How far the field reaches beyond the atoms.
        """
        low = self._along_others.min(axis=0) - reach
        high = self._along_others.max(axis=0) + reach
        cell = np.concatenate(
            [self._vectors, (high - low)[:, np.newaxis] * self._others]
        )
        return cell_lattice(cell, low @ self._others, step)


def _perpendicular_axes(vectors: _Array, positions: _Array) -> _Array:
    """Return unit vectors at right angles to lattice vectors and to each other.

    Around a wire, they are principal axes of the atoms.
    """
    _, _, axes = np.linalg.svd(vectors)
    others: _Array = axes[len(vectors) :]
    if len(others) < 2:
        return others
    along = positions @ others.T
    _, _, turn = np.linalg.svd(along - along.mean(axis=0))
    return turn @ others
