"""Plausibility of molecules: units of length, and cells that do not fit molecules.

The distances of nearest neighbours are compared with the lengths of bonds, estimated by
the sums of covalent radii. An error is raised only if a whole set of molecules is wrong
beyond doubt. Otherwise a warning is issued, as dissociation curves, clusters and ions
have unusual distances on purpose.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from skscatharm.structures.elements import COVALENT_RADII, NOBLE_GASES
from skscatharm.structures.readers import AtomTable

__all__ = ["StructureWarning", "check_boxes", "check_cells", "check_units"]

Array = NDArray[np.float64]

# The lengths of bonds, divided by the sums of covalent radii: from Cr2 to beyond F2; in
# most molecules, from N2 to F2; and the median of a molecule, from N2O to NF3.
_BONDS = (0.6, 1.3)
_USUAL_BONDS = (0.75, 1.25)
_MEDIAN_BONDS = (0.8, 1.1)
_H2 = 0.74  # Å, the bond of H2, which the radius of H does not fit

# An empty layer from which on the images of a molecule are far away, in Å.
_EMPTY = 6.0

# Other units of length, in Å.
_UNITS = {"bohr": 0.529177, "nm": 10.0, "pm": 0.01}


class StructureWarning(UserWarning):
    """A molecule can be computed, but looks wrong."""


def check_units(
    atoms: AtomTable, distances: Array, neighbours: NDArray[np.int64]
) -> None:
    """Find molecules whose coordinates are in another unit than Å.

    A molecule looks like another unit if the nearest neighbours of all of its atoms
    would be bonded in that unit.

    Parameters
    ----------
    atoms : AtomTable
    distances, neighbours : ndarray of shape (n_atoms_in_total,)
        From :func:`~skscatharm.structures.checks.check_atoms`.

    Raises
    ------
    ValueError
        If at least half of the molecules look like the same unit, no atom of any is
        bonded in Å, and the median of all bonds is that of molecules. For bohr and pm,
        pairs of atoms do not suffice, and for bohr neither do molecules of one element.

    Warns
    -----
    StructureWarning
        If other molecules look like another unit.
    """
    ratios = _bond_ratios(atoms, distances, neighbours)
    n_known = _sum(~np.isnan(ratios), atoms)
    any_bond = _is_within(ratios, _BONDS).any()
    # Pairs of atoms, chains and clusters of one element are often stretched on purpose.
    is_pair = (atoms.n_atoms == 2) & ~atoms.pbc.any(axis=1)
    is_one_element = np.maximum.reduceat(
        atoms.charges, atoms.starts
    ) == np.minimum.reduceat(atoms.charges, atoms.starts)
    for unit, length in _UNITS.items():
        fits = _is_within(ratios * length, _USUAL_BONDS)
        suspects = (n_known > 0) & (_sum(fits, atoms) == n_known)
        may_be_stretched = (is_pair & (length < 1)) | (
            is_one_element & (unit == "bohr")
        )
        if any_bond:
            suspects &= ~may_be_stretched
        if not suspects.any():
            continue
        is_sure = (
            not any_bond
            and not may_be_stretched[suspects].all()
            and 2 * np.count_nonzero(suspects) >= np.count_nonzero(n_known)
            and _is_within(np.nanmedian(ratios * length), _MEDIAN_BONDS)
        )
        first, *others = np.flatnonzero(suspects).tolist()
        ratio = np.nanmedian(ratios[atoms.rows(first)])
        message = (
            f"Molecule {first}{f' (and {len(others)} more)' if others else ''}: the "
            f"coordinates look like {unit}, not Å: neighbours are {ratio:.3g} times as "
            f"far apart as bonded atoms. If they are in {unit}, multiply them by "
            f"{length:g}."
        )
        if is_sure:
            raise ValueError(
                f"{message} If these distances are intended, pass each molecule as a "
                "skscatharm.structures.Structure(charges, positions)."
            )
        _warn(message)


def _is_within(values: Any, limits: tuple[float, float]) -> Any:
    return (values >= limits[0]) & (values <= limits[1])


def _sum(flags: NDArray[np.bool_], atoms: AtomTable) -> NDArray[np.int64]:
    """Count the flags that are set for the atoms of each molecule."""
    return np.add.reduceat(flags, atoms.starts, dtype=np.int64)


def _bond_ratios(
    atoms: AtomTable, distances: Array, neighbours: NDArray[np.int64]
) -> Array:
    """Divide the distances of nearest neighbours by the lengths of bonds.

    The ratios are NaN for single atoms, noble gases and the heaviest elements.
    """
    own = atoms.charges.astype(np.int64)
    has_neighbour = np.isfinite(distances)
    other = own[np.where(has_neighbour, neighbours, 0)]
    radii = COVALENT_RADII.copy()
    radii[list(NOBLE_GASES)] = np.nan
    bonds = np.where((own == 1) & (other == 1), _H2, radii[own] + radii[other])
    ratios = np.full(len(own), np.nan)
    np.divide(distances, bonds, out=ratios, where=has_neighbour)
    return ratios


def check_cells(atoms: AtomTable) -> None:
    """Find molecules that their cell cuts in pieces.

    Parameters
    ----------
    atoms : AtomTable

    Raises
    ------
    ValueError
        If fragments of a molecule that is not periodic are bonded through the faces of
        its cell.
    """
    given = [i for i in atoms.cells if not atoms.pbc[i].any()]
    if not given:
        return
    radii = np.nan_to_num(COVALENT_RADII[atoms.charges.astype(np.int64)])
    reach = 2 * _BONDS[1] * np.maximum.reduceat(radii, atoms.starts)
    cells = np.zeros((len(atoms.n_atoms), 3, 3))
    cells[given] = [atoms.cells[i] for i in given]
    inverses = np.linalg.pinv(cells)
    fractional = np.einsum("ni,nij->nj", atoms.positions, inverses[atoms.molecules])
    spans = np.maximum.reduceat(fractional, atoms.starts)
    spans -= np.minimum.reduceat(fractional, atoms.starts)
    # A cut molecule reaches from face to face of its cell, up to the length of a bond.
    # It may have moved out of the cell by about 1 Å since it was wrapped.
    per_angstrom = np.linalg.norm(inverses, axis=1)
    is_across = spans >= 1 - reach[:, np.newaxis] * per_angstrom
    is_across &= (spans <= 1 + per_angstrom) & (per_angstrom > 0)
    for i in np.flatnonzero(is_across.any(axis=1)).tolist():
        rows = atoms.rows(i)
        n_fragments = _n_cut_fragments(
            atoms.positions[rows], radii[rows], reach[i], cells[i, is_across[i]]
        )
        if n_fragments:
            raise ValueError(
                f"Molecule {i} is cut by its cell into {n_fragments} fragments. Unwrap "
                "it; if it is smaller than half of the cell, by atoms.positions = "
                "ase.geometry.find_mic(atoms.positions - atoms.positions[0], "
                "atoms.cell)[0]. If the fragments are intended, set atoms.cell = None. "
                "If it is a crystal, set atoms.pbc = True."
            )


def check_boxes(atoms: AtomTable) -> None:
    """Find molecules that are periodic, in boxes so large that this changes little.

    Parameters
    ----------
    atoms : AtomTable

    Warns
    -----
    StructureWarning
        If there is an empty layer across each periodic direction.
    """
    alone = [
        i
        for i in np.flatnonzero(atoms.pbc.any(axis=1)).tolist()
        if _is_alone(atoms.positions[atoms.rows(i)], atoms.cells[i][atoms.pbc[i]])
    ]
    if alone:
        others = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        _warn(
            f"Molecule {alone[0]}{others} is periodic, but has {_EMPTY:g} Å of vacuum "
            "or more across each periodic direction. For a single molecule in a box, "
            "atoms.pbc = False is faster."
        )


def _is_alone(positions: Array, vectors: Array) -> bool:
    """Whether a layer without atoms separates a structure from its images."""
    inverse = np.linalg.pinv(vectors)
    fractions = np.sort(positions @ inverse % 1, axis=0)
    gaps = np.diff(fractions, axis=0, append=fractions[:1] + 1).max(axis=0)
    return bool((gaps >= _EMPTY * np.linalg.norm(inverse, axis=0)).all())


def _n_cut_fragments(
    positions: Array, radii: Array, reach: float, vectors: Array
) -> int:
    """Count the fragments of a molecule, or 0 if no bond crosses a face of its cell."""
    n_fragments = _n_fragments(positions, radii, reach, [np.zeros(3)])
    if n_fragments == 1:
        return 0
    shifts = [np.array(n) @ vectors for n in product((-1, 0, 1), repeat=len(vectors))]
    is_joined = _n_fragments(positions, radii, reach, shifts) < n_fragments
    return n_fragments if is_joined else 0


def _n_fragments(
    positions: Array, radii: Array, reach: float, shifts: Sequence[Array]
) -> int:
    """Count the fragments that bonds to shifted images of the atoms connect."""
    rows, columns = [], []
    for shift in shifts:
        pairs = KDTree(positions).sparse_distance_matrix(
            KDTree(positions + shift), reach, output_type="coo_matrix"
        )
        is_bond = pairs.data <= _BONDS[1] * (radii[pairs.row] + radii[pairs.col])
        rows.append(pairs.row[is_bond])
        columns.append(pairs.col[is_bond])
    ends = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(ends[0])), ends), (len(positions), len(positions)))
    return int(connected_components(graph, directed=False)[0])


def _warn(message: str) -> None:
    """Warn at the line of the user's code that the call comes from."""
    libraries = tuple(
        str(Path(file).parent) + os.sep
        for file in (Path(__file__).parent, sklearn.__file__, joblib.__file__)
    )
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(libraries):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, StructureWarning, stacklevel=level)
