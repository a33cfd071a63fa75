"""Molecules and crystals of any accepted form, checked."""

from collections.abc import Iterable, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.checks import check_atoms
from skscatharm.structures.plausibility import check_boxes, check_cells, check_units
from skscatharm.structures.readers import (
    CHARGES,
    POSITIONS,
    as_numbers,
    is_masked,
    read_molecules,
)
from skscatharm.structures.structure import Structure

__all__ = ["check_structures", "pad_structures"]


def check_structures(X: Any) -> list[Structure]:
    """Check molecules and bring them into the form that the package computes with.

    Crystals, slabs and wires are molecules with three, two or one periodic directions.

    Parameters
    ----------
    X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
        Molecules in one of these forms. They are never modified.

        - An array with columns Z, x, y, z (positions in Å), padded with rows of zeros
          after a molecule's last atom. In a masked array, masked rows are padding.
        - A sequence of arrays of shape (n_atoms, 4), one for each molecule.
        - A sequence of `ase.Atoms`, such as a list, a trajectory or a column of a
          DataFrame, or of rows of a database of ASE. Those with `pbc` are periodic
          along these vectors of their cell, with their atoms in any images.
        - A sequence of :class:`~skscatharm.structures.Structure`.

    Returns
    -------
    structures : list of Structure
        One for each molecule, without padding.

    Raises
    ------
    TypeError
        If `X` is of none of these forms, or mixes them.
    ValueError
        If `X` has a wrong shape or holds no molecules. If a molecule has no atoms,
        a NaN or infinite entry, a charge that is no element, an atom after padding, a
        row that is masked in part, a coordinate beyond 1e6 Å, an extent of more than
        1e4 Å, or two atoms closer than 0.15 Å, also across the boundary. If the cell of
        a periodic structure has NaN or infinite entries, no volume, or a vector of more
        than 1e4 Å. If an `ase.Atoms` is not periodic, and cut by its cell. If the
        coordinates look like bohr, nm or pm, and no molecule has a bond in Å; a
        :class:`~skscatharm.structures.Structure` is exempt from this.

    Warns
    -----
    StructureWarning
        If the coordinates of some molecules look like bohr, nm or pm. If a periodic
        `ase.Atoms` is separated from its images by 6 Å of vacuum in all directions.

    Examples
    --------
    >>> from skscatharm.structures import check_structures
    >>> hydrogen = [[1, 0, 0, 0], [1, 0, 0, 0.74], [0, 0, 0, 0]]
    >>> water = [[8, 0, 0, 0.12], [1, 0, 0.76, -0.48], [1, 0, -0.76, -0.48]]
    >>> structures = check_structures([hydrogen, water])
    >>> structures[0].charges
    array([1, 1])
    >>> structures[1].positions.shape
    (3, 3)

    A crystal:

    >>> from ase.build import bulk
    >>> [silicon] = check_structures([bulk("Si")])
    >>> silicon.cell.shape, silicon.pbc
    ((3, 3), (True, True, True))
    """
    atoms = read_molecules(X)
    distances, neighbours = check_atoms(atoms)
    check_cells(atoms)
    if not atoms.is_explicit:
        check_units(atoms, distances, neighbours)
        check_boxes(atoms)

    charges = atoms.charges.astype(np.int64)
    ends = np.cumsum(atoms.n_atoms)
    structures = [
        Structure(charges[start:end], atoms.positions[start:end])
        for start, end in zip(atoms.starts, ends, strict=True)
    ]
    for i in np.flatnonzero(atoms.pbc.any(axis=1)).tolist():
        a, b, c = atoms.pbc[i].tolist()
        structures[i] = structures[i]._replace(cell=atoms.cells[i], pbc=(a, b, c))
    for i, reference in atoms.references.items():
        structures[i] = structures[i]._replace(reference=reference)
    return structures


def pad_structures(structures: Any, positions: Any = None) -> NDArray[np.float64]:
    """Turn molecules into one array, padded with rows of zeros.

    The array can be stored in files and sent to other processes, and scikit-learn
    slices it faster than a list. It has no cells, so crystals are refused.

    Parameters
    ----------
    structures : sequence of molecules, or array-like of int
        Molecules in any form that :func:`~skscatharm.structures.check_structures`
        accepts, or an iterator over them, such as `ase.io.iread` returns.

        If `positions` are given, nuclear charges: of shape (n_atoms,) if they are the
        same in each frame, otherwise of shape (n_frames, n_atoms), with zeros after a
        molecule's last atom.
    positions : array-like of shape (n_frames, n_atoms, 3), default=None
        Positions of each frame, in Å. If the frames differ in size, lists of one array
        for each frame are accepted for both arguments.

    Returns
    -------
    X : ndarray of shape (n_molecules, n_atoms, 4)
        Columns Z, x, y, z; `n_atoms` is that of the largest molecule.

    Raises
    ------
    TypeError, ValueError
        As :func:`~skscatharm.structures.check_structures`, if nuclear charges and
        positions do not match, or if a molecule is periodic.

    Warns
    -----
    StructureWarning
        As :func:`~skscatharm.structures.check_structures`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm import pad_structures
    >>> X = pad_structures([molecule("H2"), molecule("CH4")])
    >>> X.shape
    (2, 5, 4)
    >>> X[:, :, 0]
    array([[1., 1., 0., 0., 0.],
           [6., 1., 1., 1., 1.]])

    Three frames of molecular dynamics:

    >>> numbers = [1, 1]
    >>> positions = [[[0, 0, 0], [0, 0, z]] for z in (0.72, 0.74, 0.76)]
    >>> pad_structures(numbers, positions).shape
    (3, 2, 4)
    """
    if positions is not None:
        structures = _join(_listed(structures), _listed(positions))
    checked = check_structures(_listed(structures))
    for i, structure in enumerate(checked):
        if structure.cell is not None:
            raise ValueError(
                f"Molecule {i} is periodic (pbc={list(structure.pbc)}), and an array "
                "has no cells: pass the list of ase.Atoms instead of an array. For a "
                "molecule in a box, set atoms.pbc = False first."
            )
    X = np.zeros((len(checked), max(len(s.charges) for s in checked), 4))
    for rows, structure in zip(X, checked, strict=True):
        n_atoms = len(structure.charges)
        rows[:n_atoms, 0] = structure.charges
        rows[:n_atoms, 1:] = structure.positions
    return X


def _listed(X: Any) -> Any:
    """Read an iterator to its end; return any other object as it is."""
    return list(X) if isinstance(X, Iterable) and not isinstance(X, Sized) else X


def _join(numbers: Any, positions: Any) -> Any:
    """Join nuclear charges and positions to arrays with columns Z, x, y, z."""
    if is_masked(numbers) or is_masked(positions):
        raise ValueError(
            "numbers or positions are masked; fill both with zeros where atoms are "
            "missing: numbers.filled(0), positions.filled(0)."
        )
    try:
        charges = as_numbers(numbers, "numbers", CHARGES)
        points = as_numbers(positions, "positions", POSITIONS)
    except ValueError:
        if not _is_list_of_arrays(numbers) or not _is_list_of_arrays(positions):
            raise
        return _join_each(numbers, positions)
    is_cloud = points.ndim == 3 and points.shape[2] == 3
    if not is_cloud or charges.shape not in (points.shape[1:2], points.shape[:2]):
        hint = " For a single frame, pass positions[np.newaxis]." * (points.ndim == 2)
        raise ValueError(
            f"numbers of shape {charges.shape} and positions of shape {points.shape} "
            "do not match; pass positions of shape (n_frames, n_atoms, 3), and numbers "
            f"of shape (n_atoms,) or (n_frames, n_atoms).{hint}"
        )
    return _table(charges, points)


def _is_list_of_arrays(X: Any) -> bool:
    return isinstance(X, Sequence | np.ndarray) and all(
        hasattr(x, "__len__") and not isinstance(x, str) for x in X
    )


def _join_each(numbers: Sequence[Any], positions: Sequence[Any]) -> list[Any]:
    """Join the frames of lists, as they may differ in size."""
    if len(numbers) != len(positions):
        raise ValueError(
            f"numbers are given for {len(numbers)} molecules, and positions for "
            f"{len(positions)}; pass one array of each for every molecule."
        )
    tables = []
    for i, (z, r) in enumerate(zip(numbers, positions, strict=True)):
        charges = as_numbers(z, f"Molecule {i}: numbers", CHARGES)
        points = as_numbers(r, f"Molecule {i}: positions", POSITIONS)
        if charges.ndim != 1 or points.shape != (len(charges), 3):
            raise ValueError(
                f"Molecule {i} has numbers of shape {charges.shape} and positions of "
                f"shape {points.shape}; pass shapes (n_atoms,) and (n_atoms, 3)."
            )
        tables.append(_table(charges, points))
    return tables


def _table(charges: Any, points: Any) -> NDArray[np.float64]:
    return np.concatenate(
        [np.broadcast_to(charges, points.shape[:-1])[..., np.newaxis], points], axis=-1
    )
