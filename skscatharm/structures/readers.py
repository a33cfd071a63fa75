"""Readers: every form of molecules that a user may pass becomes one table of atoms.

Readers check types and shapes. :mod:`~skscatharm.structures.checks` checks the values.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.structure import Structure

__all__ = [
    "CHARGES",
    "FORMS",
    "POSITIONS",
    "AtomTable",
    "as_numbers",
    "is_masked",
    "read_frames",
    "read_molecules",
]

#: The usual forms of molecules, for messages.
FORMS = (
    "an array of shape (n_molecules, n_atoms, 4) with columns Z, x, y, z in Å, padded "
    "with rows of zeros, or a sequence of ase.Atoms; skscatharm.pad_structures makes "
    "the array from nuclear charges and positions"
)

CHARGES = "nuclear charges, such as 6 for C"
POSITIONS = "positions in Å, with three coordinates for each atom"
_CELL = "the three vectors of the cell in the rows of an array of shape (3, 3), in Å"

_KINDS = {"c": "complex numbers", "U": "strings", "S": "bytes"}


class AtomTable(NamedTuple):
    """The atoms of all molecules, one molecule after the other.

    Attributes
    ----------
    charges : ndarray of shape (n_atoms_in_total,)
    positions : ndarray of shape (n_atoms_in_total, 3)
    n_atoms : ndarray of shape (n_molecules,)
        Number of atoms of each molecule.
    cells : dict of int to ndarray of shape (3, 3)
        Cells of the molecules that have one, by the number of the molecule. Those of
        molecules that are not periodic are finite and not zero.
    pbc : ndarray of shape (n_molecules, 3), dtype bool
        Cell vectors along which each molecule is periodic.
    is_explicit : bool
        Whether each molecule is a :class:`~skscatharm.structures.Structure`. These are
        not read from files, so unusual distances are intended.
    references : dict of int to ndarray of shape (n_atoms, 3)
        References of the molecules that have one, by the number of the molecule.
    """

    charges: NDArray[np.float64]
    positions: NDArray[np.float64]
    n_atoms: NDArray[np.int64]
    cells: dict[int, NDArray[np.float64]]
    pbc: NDArray[np.bool_]
    is_explicit: bool
    references: Mapping[int, NDArray[np.float64]] = MappingProxyType({})

    @property
    def starts(self) -> NDArray[np.int64]:
        """Row of the first atom of each molecule."""
        return np.cumsum(self.n_atoms) - self.n_atoms

    @property
    def molecules(self) -> NDArray[np.int64]:
        """Number of the molecule of each atom."""
        return np.repeat(np.arange(len(self.n_atoms)), self.n_atoms)

    def rows(self, molecule: int) -> slice:
        """Rows of the atoms of a molecule."""
        start = int(self.n_atoms[:molecule].sum())
        return slice(start, start + int(self.n_atoms[molecule]))


def read_molecules(X: Any) -> AtomTable:
    """Read molecules of any accepted form.

    Parameters
    ----------
    X : array-like of shape (n_molecules, n_atoms, 4) or sequence of molecules
        The forms that :func:`~skscatharm.structures.check_structures` accepts.

    Returns
    -------
    AtomTable

    Raises
    ------
    TypeError, ValueError
        If types or shapes are wrong.
    """
    molecules = _as_sequence(X)
    if len(molecules) == 0:
        raise ValueError(f"X holds no molecules; pass {FORMS}.")
    if not isinstance(molecules, np.ndarray):
        if any(isinstance(molecule, Structure) for molecule in molecules):
            return _read_structures(molecules)
        if any(_is_atoms(molecule) for molecule in molecules):
            return _read_atoms(molecules)
        if _is_of_pymatgen(molecules[0]):
            raise TypeError(
                f"Molecule 0 is a {type(molecules[0]).__name__} of pymatgen; pass "
                "ase.Atoms: [structure.to_ase_atoms() for structure in X]."
            )
        molecules = _stack(molecules)
    if molecules.dtype == object and molecules.size and _is_atom(molecules.flat[0]):
        return _read_atoms(_whole_atoms(molecules))
    return _read_array(molecules)


def read_frames(X: Any) -> list[Any] | None:
    """Return molecules as `ase.Atoms`, with all that these carry.

    Parameters
    ----------
    X : array-like of shape (n_molecules, n_atoms, 4) or sequence of molecules
        The forms that :func:`~skscatharm.structures.check_structures` accepts.

    Returns
    -------
    list of ase.Atoms or None
        None if the molecules are of another form.

    Raises
    ------
    TypeError
        As :func:`read_molecules`.
    """
    molecules = _as_sequence(X)
    if isinstance(molecules, np.ndarray):
        if not (molecules.size and _is_atom(molecules.flat[0])):
            return None
        molecules = _whole_atoms(molecules)
    if not all(map(_is_atoms, molecules)):
        return None
    return [_atoms_of(molecule) for molecule in molecules]


def as_numbers(array: Any, name: str, expected: str = FORMS) -> NDArray[np.float64]:
    """Convert to an array of real numbers in double precision.

    Parameters
    ----------
    array : array-like
    name : str
        Name of the argument, for messages.
    expected : str, default=FORMS
        The accepted forms, for messages.

    Returns
    -------
    ndarray of dtype float64

    Raises
    ------
    ValueError
        If `array` holds anything but real numbers, or is ragged.
    """
    try:
        array = np.asarray(array)
        dtype = array.dtype
        # Kind V are the types of other libraries, such as bfloat16, and structured
        # arrays, which are no numbers.
        if dtype.kind in "biufOV" and dtype.type is not np.void:
            return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name} is not an array of numbers ({reason}); pass {expected}."
        ) from error
    kind = _KINDS.get(dtype.kind, f"type {dtype}")
    raise ValueError(
        f"{name} is not an array of numbers but of {kind}; pass {expected}."
    )


def is_masked(X: Any) -> bool:
    """Whether an array, or one of a list of arrays, has masked entries."""
    if isinstance(X, list | tuple):
        return any(isinstance(x, np.ma.MaskedArray) and is_masked(x) for x in X)
    return bool(np.ma.is_masked(X))


def _as_sequence(X: Any) -> Any:
    """Return a sequence of molecules or an array, or raise."""
    if _is_atoms(X):
        raise TypeError(
            f"X is a single molecule, of type {type(X).__name__}; pass a list of "
            "molecules: [X]."
        )
    if isinstance(X, Structure):
        raise TypeError("X is a single Structure; pass a list of molecules: [X].")
    if _is_of_pymatgen(X):
        raise TypeError(
            f"X is a single {type(X).__name__} of pymatgen; pass a list of ase.Atoms: "
            "[X.to_ase_atoms()]."
        )
    if hasattr(X, "select") and hasattr(X, "get_atoms"):
        raise TypeError(
            f"X is a database of ASE ({type(X).__name__}); pass its molecules: "
            "[row.toatoms() for row in X.select()]."
        )
    if hasattr(X, "columns"):
        return _only_column(X)
    is_text_or_table = isinstance(X, str | bytes | bytearray | memoryview | Mapping)
    if hasattr(X, "__array__"):
        array = X if isinstance(X, np.ma.MaskedArray) else _as_array(X)
        if array.ndim > 0:
            return _unpack(array)
    elif isinstance(X, Sequence) and not is_text_or_table:
        return X
    elif isinstance(X, Sized) and hasattr(X, "__getitem__") and not is_text_or_table:
        return [X[i] for i in range(len(X))]  # such as a Trajectory
    elif isinstance(X, Iterable) and not is_text_or_table:
        raise TypeError(
            f"X is of type {type(X).__name__}, which has no order or can be read only "
            "once; pass list(X)."
        )
    raise TypeError(f"X is of type {type(X).__name__}; pass {FORMS}.")


def _as_array(X: Any) -> NDArray[Any]:
    try:
        return np.asarray(X)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TypeError(
            f"X is of type {type(X).__name__}, which NumPy cannot read ({reason}); "
            f"pass {FORMS}."
        ) from error


def _only_column(frame: Any) -> Any:
    """Return the column of a DataFrame, as a ColumnTransformer passes it."""
    array = _as_array(frame)
    if array.ndim == 2 and array.shape[1] == 1 and array.dtype == object:
        return list(array[:, 0])
    raise TypeError(
        f"X is a DataFrame of shape {array.shape}, not one column of molecules. Pass "
        "the column with the molecules as a Series, such as X['atoms'], or choose it "
        "by ColumnTransformer([('scattering', SolidHarmonicScattering(), 'atoms')])."
    )


def _unpack(array: NDArray[Any]) -> Any:
    """Make a list of an array of objects or a masked array."""
    if isinstance(array, np.ma.MaskedArray):
        # Masks are honoured molecule by molecule.
        return list(array) if is_masked(array) else array.data
    if array.dtype != object or array.size == 0 or _is_atom(array.flat[0]):
        return array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return list(array) if array.ndim == 1 else array


def _is_atoms(molecule: Any) -> bool:
    """Recognise `ase.Atoms`, or a row of `ase.db`, without importing ASE."""
    return hasattr(molecule, "pbc") and (
        hasattr(molecule, "get_atomic_numbers") or hasattr(molecule, "toatoms")
    )


def _atoms_of(molecule: Any) -> Any:
    """Return `ase.Atoms` as they are, and those of a row of `ase.db`."""
    return molecule.toatoms() if hasattr(molecule, "toatoms") else molecule


def _is_of_pymatgen(molecule: Any) -> bool:
    """Recognise structures and molecules of pymatgen, without importing it."""
    return hasattr(molecule, "to_ase_atoms")


def _is_atom(entry: Any) -> bool:
    """Recognise `ase.Atom`."""
    return hasattr(entry, "symbol") and hasattr(entry, "cut_reference_to_atoms")


def _whole_atoms(array: NDArray[Any]) -> list[Any]:
    """Find the `ase.Atoms` that NumPy has split into atoms.

    An `ase.Atoms` is a sequence, so ``np.array([atoms, atoms], dtype=object)`` is an
    array of `ase.Atom`. Each of them refers to the molecule that it comes from.
    """
    molecules = [row[0].atoms for row in array] if array.ndim == 2 else [None]
    if all(
        molecule is not None
        and len(molecule) == len(row)
        and all(row[i].atoms is molecule and row[i].index == i for i in range(len(row)))
        for row, molecule in zip(array, molecules, strict=False)
    ):
        return molecules
    raise TypeError(
        "X holds single ase.Atom, not ase.Atoms. Pass a list of ase.Atoms: [atoms, "
        "...]. NumPy takes ase.Atoms apart: np.array([atoms, ...], dtype=object) has "
        "entries of type ase.Atom."
    )


def _read_structures(molecules: Sequence[Any]) -> AtomTable:
    charges, positions, cells, pbc, references = [], [], {}, [], {}
    for i, molecule in enumerate(molecules):
        if not isinstance(molecule, Structure):
            raise TypeError(
                f"Molecule {i} is of type {type(molecule).__name__}, but others are "
                "Structure; pass molecules of one type."
            )
        charges.append(as_numbers(molecule.charges, f"Molecule {i}: charges", CHARGES))
        positions.append(
            as_numbers(molecule.positions, f"Molecule {i}: positions", POSITIONS)
        )
        n_atoms = charges[-1].shape
        if len(n_atoms) != 1 or positions[-1].shape != (*n_atoms, 3):
            raise ValueError(
                f"Molecule {i} has charges of shape {n_atoms} and positions of shape "
                f"{positions[-1].shape}; pass shapes (n_atoms,) and (n_atoms, 3)."
            )
        pbc.append(_read_pbc(molecule.pbc, i))
        if pbc[-1].any():
            cells[i] = _read_cell(molecule.cell, i)
        if molecule.reference is not None:
            references[i] = _read_reference(molecule.reference, len(charges[-1]), i)
    return AtomTable(
        np.concatenate(charges),
        np.concatenate(positions),
        np.array([len(c) for c in charges]),
        cells,
        np.array(pbc),
        is_explicit=True,
        references=references,
    )


def _read_reference(given: Any, n_atoms: int, i: int) -> NDArray[np.float64]:
    reference = as_numbers(given, f"Molecule {i}: reference", POSITIONS)
    if reference.shape != (n_atoms, 3) or not np.isfinite(reference).all():
        raise ValueError(
            f"Molecule {i} has a reference of shape {reference.shape}; pass finite "
            f"positions of shape ({n_atoms}, 3)."
        )
    return reference


def _read_pbc(pbc: Any, i: int) -> NDArray[np.bool_]:
    flags = np.asarray(pbc)
    if flags.shape != (3,) or flags.dtype != bool:
        raise ValueError(
            f"Molecule {i} has pbc={pbc!r}; pass three bools, one for each vector of "
            "the cell."
        )
    return flags


def _read_cell(cell: Any, i: int) -> NDArray[np.float64]:
    name = f"Molecule {i}: cell"
    vectors = as_numbers(np.nan if cell is None else cell, name, _CELL)
    if vectors.shape != (3, 3):
        found = "no cell" if cell is None else f"a cell of shape {vectors.shape}"
        raise ValueError(f"Molecule {i} is periodic and has {found}; pass {_CELL}.")
    return vectors


def _read_atoms(molecules: Sequence[Any]) -> AtomTable:
    charges, positions, cells, pbc = [], [], {}, []
    for i, molecule in enumerate(molecules):
        if not _is_atoms(molecule):
            raise TypeError(
                f"Molecule {i} is of type {type(molecule).__name__}, but others are "
                "ase.Atoms; pass ase.Atoms only, or an array of all molecules "
                "(skscatharm.pad_structures makes one)."
            )
        atoms = _atoms_of(molecule)
        charges.append(atoms.get_atomic_numbers())
        positions.append(atoms.get_positions())
        pbc.append(np.array(atoms.pbc))
        cell = np.array(atoms.cell)
        if pbc[-1].any() or (cell.any() and np.isfinite(cell).all()):
            cells[i] = cell
    return AtomTable(
        np.concatenate(charges).astype(np.float64),
        np.concatenate(positions),
        np.array([len(c) for c in charges]),
        cells,
        np.array(pbc),
        is_explicit=False,
    )


def _read_array(molecules: NDArray[Any]) -> AtomTable:
    X = as_numbers(molecules, "X")
    if X.ndim != 3 or X.shape[2] != 4:
        hint = ""
        if X.ndim == 2:
            hint = " For a single molecule, pass X[np.newaxis]."
        elif X.ndim == 3 and X.shape[2] == 3:
            hint = " For positions alone, pass pad_structures(numbers, X)."
        raise ValueError(f"X has shape {X.shape}; pass {FORMS}.{hint}")

    occupied = (X != 0).any(axis=2)
    late = np.argwhere(occupied[:, 1:] & ~occupied[:, :-1])
    if len(late):
        molecule, atom = late[0]
        raise ValueError(
            f"Molecule {molecule}: atom {atom + 1} follows a row of zeros. Rows of "
            "zeros are padding and belong after a molecule's last atom; move them to "
            "its end."
        )
    return AtomTable(
        X[occupied, 0],
        np.ascontiguousarray(X[occupied, 1:]),
        occupied.sum(axis=1),
        cells={},
        pbc=np.zeros((len(X), 3), dtype=np.bool_),
        is_explicit=False,
    )


def _stack(molecules: Sequence[Any]) -> NDArray[Any]:
    """Put molecules together in one array, padded if they differ in size."""
    for i, molecule in enumerate(molecules):
        if isinstance(molecule, list | tuple) and molecule and _is_atoms(molecule[0]):
            raise TypeError(
                f"Molecule {i} is itself a list of ase.Atoms; pass one list of all: "
                "[atoms for frames in X for atoms in frames]."
            )
    if not any(is_masked(molecule) for molecule in molecules):
        try:
            return np.asarray(molecules)
        except (TypeError, ValueError, RuntimeError):
            pass  # Ragged, or the fault of one molecule, which is found below.
    tables = [_read_rows(molecule, i) for i, molecule in enumerate(molecules)]
    X = np.zeros((len(tables), max(len(table) for table in tables), 4))
    for rows, table in zip(X, tables, strict=True):
        rows[: len(table)] = table
    return X


def _read_rows(molecule: Any, i: int) -> NDArray[np.float64]:
    """Read one molecule of shape (n_atoms, 4), without its masked rows."""
    table = as_numbers(molecule, f"Molecule {i}")
    if table.size == 0:
        return np.zeros((0, 4))
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(
            f"Molecule {i} has shape {table.shape}, not (n_atoms, 4); pass {FORMS}."
        )
    if not is_masked(molecule):
        return table
    if not isinstance(molecule, np.ma.MaskedArray):
        molecule = np.ma.stack([np.ma.asarray(row) for row in molecule])
    mask = np.ma.getmaskarray(molecule)
    partly = np.flatnonzero(mask.any(axis=1) & ~mask.all(axis=1))
    if len(partly):
        raise ValueError(
            f"Molecule {i}, atom {partly[0]} is masked in part; mask all four columns "
            "of its row to leave the atom out, or none, as by X.filled()."
        )
    return table[~mask.all(axis=1)]
