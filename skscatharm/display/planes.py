"""Planes through molecules, and the marks of atoms in pictures of them."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures import Structure
from skscatharm.structures.elements import SYMBOLS

__all__ = ["View", "best_view", "mark_atoms", "side_views", "view_of_atoms"]

_Array = NDArray[np.float64]

_EQUAL = 1e-6  # share of the moments by which equally good planes differ
_IN_PLANE, _ON_PLANE = 0.3, 0.01  # Å, for pictures and for symmetry
_MOST_ATOMS = 60  # that suggest planes for symmetric molecules


class View(NamedTuple):
    """A molecule in the axes of a picture.

    Attributes
    ----------
    structure : Structure
        The molecule: x to the right, y upwards, the plane of the picture is z = 0.
    centre : ndarray of shape (3,)
        Origin of these axes, in the coordinates that were given.
    axes : ndarray of shape (3, 3)
        The axes, one a row: right-handed.
    """

    structure: Structure
    centre: _Array
    axes: _Array

    def to_given(self, points: _Array) -> _Array:
        """Bring points of shape (..., 3) to the coordinates that were given."""
        return self.centre + points @ self.axes

    def ranges(self, margin: float) -> _Array:
        """Range of the atoms along each axis, with a margin; of shape (3, 2)."""
        positions = self.structure.positions
        low, high = positions.min(axis=0) - margin, positions.max(axis=0) + margin
        return np.stack([low, high], axis=1)


def best_view(structure: Structure) -> View:
    """Look at a molecule from above the plane that fits its nuclei best.

    Squared distances from the plane are weighted with the nuclear charges. If the
    molecule has several planes that fit equally well, it is one with as many nuclei as
    possible.
    """
    charges, positions = structure.charges, structure.positions
    centre = charges @ positions / charges.sum()
    offsets = positions - centre
    moments = (offsets.T * charges) @ offsets
    normals = [np.linalg.eigh(moments)[1][:, 0]]
    for a, b in combinations(offsets[:_MOST_ATOMS], 2):
        normal = np.cross(a, b)
        length = np.linalg.norm(normal)
        if length > 1e-3 * np.linalg.norm(a) * np.linalg.norm(b):
            normals.append(normal / length)
    costs = np.einsum("pi,ij,pj->p", normals, moments, normals)
    equal = costs <= costs.min() + _EQUAL * max(np.trace(moments), 1e-12)
    near = (np.abs(np.array(normals) @ offsets.T) < _ON_PLANE).sum(axis=1)
    return _view(structure, centre, normals[np.argmax(np.where(equal, near, -1))])


def view_of_atoms(structure: Structure, atoms: Sequence[int]) -> View:
    """Look at a molecule from above the plane through three of its atoms.

    Raises
    ------
    ValueError
        If `atoms` are not three different indices, or these atoms are in a line.
    """
    n_atoms = len(structure.charges)
    chosen = np.asarray(atoms)
    if (
        chosen.shape != (3,)
        or chosen.dtype.kind not in "iu"
        or len(set(chosen.tolist())) < 3
        or not np.all((chosen >= 0) & (chosen < n_atoms))
    ):
        raise ValueError(
            f"plane={atoms!r} does not name a plane: pass the indices of three atoms, "
            f"each from 0 to {n_atoms - 1}, or None for the best plane."
        )
    corners = structure.positions[chosen]
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    length = float(np.linalg.norm(normal))
    if length < 1e-3:
        raise ValueError(
            f"The atoms {chosen.tolist()} are in a line, and have no plane: choose "
            "other atoms, or None for the best plane."
        )
    return _view(structure, corners.mean(axis=0), normal / length)


def side_views(view: View) -> list[View]:
    """Look along z, y and x: the axes of the pictures are x and y, x and z, y and z."""
    x, y, z = np.eye(3)
    views = []
    for axes in ([x, y, z], [x, z, -y], [y, z, x]):
        turn = np.array(axes)
        turned = _turn(view.structure, view.structure.positions @ turn.T, turn)
        views.append(View(turned, view.centre, turn @ view.axes))
    return views


def _view(structure: Structure, centre: _Array, normal: _Array) -> View:
    """Turn a molecule: its longest axis in the plane becomes x."""
    offsets = structure.positions - centre
    onto_plane = np.eye(3) - np.outer(normal, normal)
    # The last rows decide if there is a single atom, or none is off the normal.
    flat = np.vstack([offsets, 1e-9 * np.eye(3)]) @ onto_plane
    right = np.linalg.svd(flat)[2][0]
    up = np.cross(normal, right)
    axes = np.stack([right, up, normal])
    return View(_turn(structure, offsets @ axes.T, axes), centre, axes)


def _turn(structure: Structure, positions: _Array, axes: _Array) -> Structure:
    """Turn the cell of a structure, and give it the positions that are turned."""
    cell = None if structure.cell is None else structure.cell @ axes.T
    return structure._replace(positions=positions, cell=cell)


def mark_atoms(ax: Any, structure: Structure, offset: float | None) -> None:
    """Write the symbols of atoms near the plane z = `offset`; draw rings for others.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        With the axes x and y of the structure, in Å.
    structure : Structure
    offset : float or None
        None is for a projection: all atoms have symbols.
    """
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2, foreground="black")]
    z = structure.positions[:, 2]
    inside = np.abs(z - (z if offset is None else offset)) < _IN_PLANE
    others = structure.positions[~inside]
    ax.plot(
        others[:, 0],
        others[:, 1],
        "o",
        ms=5,
        mfc="none",
        color="white",
        path_effects=outline,
    )
    for Z, (x, y, _) in zip(
        structure.charges[inside], structure.positions[inside], strict=True
    ):
        ax.text(
            x,
            y,
            SYMBOLS[Z],
            color="white",
            ha="center",
            va="center",
            fontsize="small",
            path_effects=outline,
        )
