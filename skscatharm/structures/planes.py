"""Molecules whose atoms lie in a plane."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.molecules import check_structures
from skscatharm.structures.structure import Structure

__all__ = ["check_planar", "distances_from_plane"]


def distances_from_plane(X: Any) -> NDArray[np.float64]:
    """Measure how far the atoms of molecules are from a common plane.

    Parameters
    ----------
    X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
        Molecules, in any form that :func:`~skscatharm.structures.check_structures`
        accepts.

    Returns
    -------
    distances : ndarray of shape (n_molecules,)
        For each molecule, the root mean square distance of its atoms from the plane
        that fits them best, in Å.

    Raises
    ------
    TypeError, ValueError
        As :func:`~skscatharm.structures.check_structures`, or if a molecule is
        periodic.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm import distances_from_plane
    >>> distances_from_plane([molecule("C6H6"), molecule("NH3")]).round(3)
    array([0.   , 0.168])
    """
    return _distances(check_structures(X))


def check_planar(structures: Sequence[Structure], flatness: float) -> None:
    """Raise if a molecule is not planar.

    Parameters
    ----------
    structures : sequence of Structure
    flatness : float
        Largest root mean square distance of the atoms from a plane, in Å.

    Raises
    ------
    ValueError
        The message names the molecule, and its distance.
    """
    distances = _distances(structures)
    bent = np.flatnonzero(distances > flatness)
    if len(bent):
        others = f" (and {len(bent) - 1} more)" if len(bent) > 1 else ""
        raise ValueError(
            f"Molecule {bent[0]}{others} is not planar: its atoms have a root mean "
            f"square distance of {distances[bent[0]]:.3g} Å from a plane (at most "
            f"flatness={flatness:g} Å is allowed). Leave it out, choose a larger "
            "flatness, or use SolidHarmonicScattering. distances_from_plane(X) "
            "measures all molecules."
        )


def _distances(structures: Sequence[Structure]) -> NDArray[np.float64]:
    for i, structure in enumerate(structures):
        if structure.cell is not None:
            raise ValueError(
                f"Molecule {i} is periodic (pbc={list(structure.pbc)}), which planar "
                "molecules are not. Use SolidHarmonicScattering; or set atoms.pbc = "
                "False for a molecule in a box."
            )
    n_atoms = np.array([len(s.charges) for s in structures])
    starts = np.cumsum(n_atoms) - n_atoms
    positions = np.concatenate([s.positions for s in structures])
    means = np.add.reduceat(positions, starts) / n_atoms[:, np.newaxis]
    centred = positions - np.repeat(means, n_atoms, axis=0)
    squares = centred[:, :, np.newaxis] * centred[:, np.newaxis, :]
    moments = np.linalg.eigvalsh(np.add.reduceat(squares, starts))
    return np.sqrt(np.maximum(moments[:, 0], 0.0) / n_atoms)
