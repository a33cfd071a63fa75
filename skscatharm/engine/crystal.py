"""Crystals, slabs and wires as the source of periodic densities."""

from collections.abc import Callable, Hashable
from functools import cached_property
from itertools import product
from math import pi, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from skscatharm.engine.fourier_transform import crop
from skscatharm.engine.lattice import Lattice, Resolution, cell_lattice
from skscatharm.engine.protocol import Atoms
from skscatharm.structures import Structure
from skscatharm.structures.cells import primitive_cell

__all__ = ["Crystal"]

_Array = NDArray[np.float64]

_SHELLS = 2.5  # distances of neighbours, within which atoms are counted
_KEPT = 2**26  # values of spectra, the oldest of which are dropped


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
        self._spectra: dict[Hashable, tuple[Lattice, Any]] = {}
        self._vectors = vectors
        self._others = _perpendicular_axes(vectors, self.positions)

    @cached_property
    def _along_others(self) -> _Array:
        """Coordinates of the atoms along the directions that are not periodic."""
        along: _Array = self.positions @ self._others.T
        return along

    @cached_property
    def spacing(self) -> float:
        """Median distance of neighbouring atoms, images among them."""
        distances, _ = self._images(1.0).query(self.positions, k=2)
        return float(np.median(np.asarray(distances)[:, 1]))

    @cached_property
    def density(self) -> float:
        """Median number of atoms per volume around an atom, whatever the vacuum."""
        radius = _SHELLS * self.spacing
        within = self._images(radius).query_ball_point(
            self.positions, radius, return_length=True
        )
        return float(np.median(within)) / (4 / 3 * pi * radius**3)

    def _images(self, radius: float) -> KDTree:
        """Return the atoms with all of their images within a radius, and others."""
        heights = 1 / np.linalg.norm(np.linalg.pinv(self._vectors), axis=0)
        # Positions are wrapped into one cell.
        counts = np.ceil(radius / heights).astype(int)
        shifts = np.array(list(product(*(range(-n, n + 1) for n in counts))))
        images = self.positions[:, np.newaxis] + shifts @ self._vectors
        return KDTree(images.reshape(-1, 3))

    def spectrum(
        self, key: Hashable, lattice: Lattice, compute: Callable[[], Any], xp: Any
    ) -> Any:
        """Compute a spectrum, or take it from one of more waves that was kept."""
        kept = self._spectra.pop(key, None)
        if kept is None or not kept[0].has_waves_of(lattice):
            kept = lattice, compute()
        self._spectra[key] = kept
        while sum(prod(array.shape) for _, array in self._spectra.values()) > _KEPT:
            self._spectra.pop(next(iter(self._spectra)))
        x, y, z = lattice.n_waves
        part = crop(kept[1][..., : z // 2 + 1], y, -2, xp)
        return crop(part, x, -3, xp)

    def lattice(self, resolution: Resolution) -> Lattice:
        """Make the grid of a field."""
        low = self._along_others.min(axis=0) - resolution.reach
        high = self._along_others.max(axis=0) + resolution.reach
        edges = (high - low)[:, np.newaxis] * self._others
        cell = np.concatenate([self._vectors, edges])
        return cell_lattice(cell, low @ self._others, resolution)


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
