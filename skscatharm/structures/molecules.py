"""Molecules: what a user may pass, and the one form that the package computes with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from sklearn.utils import check_array

__all__ = ["Structure", "check_structures", "pad_structures"]

_HEAVIEST = 118
_CLOSEST = 0.1  # Å; the shortest bond, in H2, is 0.74 Å long.
_FORMS = (
    "an array of shape (n_molecules, n_atoms, 4) with columns Z, x, y, z, padded "
    "with rows of zeros, or a sequence of ase.Atoms"
)


class Structure(NamedTuple):
    """A molecule.

    Attributes
    ----------
    charges : ndarray of shape (n_atoms,), dtype int64
        Nuclear charges.
    positions : ndarray of shape (n_atoms, 3), dtype float64
        Positions of the nuclei, in Å.
    """

    charges: NDArray[np.int64]
    positions: NDArray[np.float64]


def check_structures(X: Any) -> list[Structure]:
    """Check molecules and bring them into the form that the package computes with.

    Parameters
    ----------
    X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
        Either an array with columns Z, x, y, z (positions in Å), padded with rows
        of zeros after a molecule's last atom, or a list, tuple or one-dimensional
        object array of `ase.Atoms`. It is never modified.

    Returns
    -------
    structures : list of Structure
        One for each molecule, without padding.

    Raises
    ------
    TypeError
        If `X` is neither of the two forms, or mixes them.
    ValueError
        If `X` has a wrong shape or holds no molecules; if a molecule has no atoms,
        a NaN or infinite entry, a charge that is no element, an atom after padding
        or two atoms closer than 0.1 Å; if an `ase.Atoms` is periodic.

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
    """
    molecules = _as_sequence(X)
    if len(molecules) == 0:
        raise ValueError(f"X holds no molecules; pass {_FORMS}.")
    if any(_is_atoms(molecule) for molecule in molecules):
        charges, positions, n_atoms = _read_atoms(molecules)
    else:
        charges, positions, n_atoms = _read_array(molecules)
    _check_atoms(charges, positions, n_atoms)

    numbers = charges.astype(np.int64)
    ends = np.cumsum(n_atoms)
    return [
        Structure(numbers[start:end], positions[start:end])
        for start, end in zip(ends - n_atoms, ends, strict=True)
    ]


def pad_structures(structures: Any) -> NDArray[np.float64]:
    """Turn molecules into one array, padded with rows of zeros.

    Useful for molecules read by ASE: the array can be stored, and scikit-learn slices
    it faster than a list.

    Parameters
    ----------
    structures : sequence of ase.Atoms or of Structure
        Molecules, positions in Å.

    Returns
    -------
    X : ndarray of shape (n_molecules, n_atoms, 4)
        Columns Z, x, y, z; `n_atoms` is that of the largest molecule.

    Raises
    ------
    TypeError, ValueError
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
    """
    if len(structures) == 0 or not all(isinstance(s, Structure) for s in structures):
        structures = check_structures(structures)
    X = np.zeros((len(structures), max(len(s.charges) for s in structures), 4))
    for rows, (charges, positions) in zip(X, structures, strict=True):
        rows[: len(charges), 0] = charges
        rows[: len(charges), 1:] = positions
    return X


def _as_sequence(X: Any) -> Any:
    """Return `X` as something that has a length and can be indexed, or raise."""
    if _is_atoms(X):
        raise TypeError("X is a single ase.Atoms; pass a list of them: [atoms].")
    if isinstance(X, Sequence) and not isinstance(X, str | bytes):
        return X
    if hasattr(X, "__array__"):
        array = np.asarray(X)
        if array.ndim > 0:
            return array
    raise TypeError(f"X is of type {type(X).__name__}; pass {_FORMS}.")


def _is_atoms(molecule: Any) -> bool:
    """Tell an `ase.Atoms` by what it can do: ASE stays optional."""
    return hasattr(molecule, "get_atomic_numbers") and hasattr(molecule, "pbc")


# Both readers return all atoms of all molecules in a row, so that the checks that they
# share run over flat arrays: charges (n,), positions (n, 3), atoms of each molecule.
_Atoms = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def _read_atoms(molecules: Sequence[Any]) -> _Atoms:
    for i, atoms in enumerate(molecules):
        if not _is_atoms(atoms):
            raise TypeError(
                f"Molecule {i} is of type {type(atoms).__name__}, but others are "
                "ase.Atoms; pass ase.Atoms only, or an array of all molecules "
                "(skscatharm.pad_structures makes one)."
            )
        if np.any(atoms.pbc):
            raise ValueError(
                f"Molecule {i} is periodic (pbc={np.asarray(atoms.pbc).tolist()}); "
                "periodic structures are not supported yet. If it is a molecule in a "
                "box, set atoms.pbc = False."
            )
    charges = [atoms.get_atomic_numbers() for atoms in molecules]
    return (
        np.concatenate(charges).astype(np.float64),
        np.concatenate([atoms.get_positions() for atoms in molecules]),
        np.array([len(c) for c in charges]),
    )


def _read_array(molecules: Any) -> _Atoms:
    try:
        X = check_array(
            molecules,
            dtype=np.float64,
            ensure_all_finite=False,
            ensure_2d=False,
            allow_nd=True,
            input_name="X",
        )
    except ValueError as error:
        raise ValueError(
            f"X is not an array of numbers ({error}); pass {_FORMS}."
        ) from error
    if X.ndim != 3 or X.shape[2] != 4:
        hint = " For a single molecule, pass X[np.newaxis]." if X.ndim == 2 else ""
        raise ValueError(f"X has shape {X.shape}; pass {_FORMS}.{hint}")

    occupied = (X != 0).any(axis=2)
    late = np.argwhere(occupied[:, 1:] & ~occupied[:, :-1])
    if len(late):
        molecule, atom = late[0]
        raise ValueError(
            f"Molecule {molecule}: atom {atom + 1} follows a row of zeros. Rows of "
            "zeros are padding and belong after a molecule's last atom; move them to "
            "its end."
        )
    return X[occupied, 0], X[occupied, 1:], occupied.sum(axis=1)


def _check_atoms(
    charges: NDArray[np.float64],
    positions: NDArray[np.float64],
    n_atoms: NDArray[np.int64],
) -> None:
    molecule = np.repeat(np.arange(len(n_atoms)), n_atoms)
    first = np.cumsum(n_atoms) - n_atoms

    def name(row: Any) -> str:
        return f"Molecule {molecule[row]}, atom {row - first[molecule[row]]}"

    empty = np.flatnonzero(n_atoms == 0)
    if len(empty):
        raise ValueError(f"Molecule {empty[0]} has no atoms; leave it out.")

    infinite = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(infinite):
        row = infinite[0]
        raise ValueError(
            f"{name(row)} has NaN or infinite coordinates {positions[row].tolist()}; "
            "give it a position or leave the molecule out."
        )

    element = (charges == np.rint(charges)) & (charges >= 1) & (charges <= _HEAVIEST)
    if not element.all():
        row = np.flatnonzero(~element)[0]
        raise ValueError(
            f"{name(row)} has the charge {charges[row]:g}, which is no element: "
            f"nuclear charges are integers from 1 to {_HEAVIEST}. Are the columns Z, "
            "x, y, z? A row of padding holds zeros only."
        )

    # The fourth coordinate keeps the molecules apart: one tree, linear in memory,
    # finds the nearest neighbour of every atom within its own molecule.
    points = np.column_stack([positions, molecule])
    distances, neighbours = map(
        np.asarray, KDTree(points).query(points, k=2, distance_upper_bound=_CLOSEST)
    )
    close = np.flatnonzero(np.isfinite(distances[:, 1]))
    if len(close):
        row = close[0]
        # Of two atoms at one place, either may be listed first.
        other = neighbours[row][neighbours[row] != row][0]
        raise ValueError(
            f"{name(row)} and atom {other - first[molecule[row]]} are only "
            f"{distances[row, 1]:.3g} Å apart (the least allowed is {_CLOSEST} Å). "
            "Are the coordinates in Å, not in nm, and is no atom given twice?"
        )
