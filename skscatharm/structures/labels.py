"""Energies and forces of molecules: arrays, or results that `ase.Atoms` carry."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.readers import as_numbers, read_frames
from skscatharm.structures.structure import Structure

__all__ = ["check_energies", "check_forces", "read_labels"]

_Array = NDArray[np.float64]

_ENERGIES = "one energy for each molecule, of shape (n_molecules,)"
_FORCES = (
    "forces of shape (n_molecules, n_atoms, 3), padded with zeros, or a list of arrays "
    "of shape (n_atoms, 3)"
)


def read_labels(X: Any) -> tuple[list[Any] | None, list[Any] | None]:
    """Read the energies and forces that `ase.Atoms` carry.

    They are the results of a calculator that has computed these positions; nothing is
    computed. Without such results they are ``info["energy"]`` and ``arrays["forces"]``.

    Parameters
    ----------
    X : sequence of ase.Atoms, or molecules of another form

    Returns
    -------
    energies : list of float or None
        None if no molecule carries its energy.
    forces : list of ndarray of shape (n_atoms, 3) or None
        None if no molecule carries its forces.

    Raises
    ------
    ValueError
        If some molecules carry an energy or forces, and others do not.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm.structures.labels import read_labels
    >>> water = molecule("H2O")
    >>> water.info["energy"] = -14.2
    >>> read_labels([water])
    ([-14.2], None)
    """
    frames = read_frames(X)
    if frames is None:
        return None, None
    return (
        _all_or_none([_result(frame, "energy", frame.info) for frame in frames]),
        _all_or_none(
            [_result(frame, "forces", frame.arrays) for frame in frames], "forces"
        ),
    )


def _result(frame: Any, name: str, stored: Any) -> Any:
    """Return a result that a frame carries, or None."""
    calculator = frame.calc
    if calculator is None or calculator.calculation_required(frame, [name]):
        return stored.get(name)
    return calculator.get_property(name, frame, allow_calculation=False)


def _all_or_none(results: list[Any], name: str = "energy") -> list[Any] | None:
    missing = [i for i, result in enumerate(results) if result is None]
    if len(missing) == len(results):
        return None
    if missing:
        raise ValueError(
            f"Molecule {missing[0]} carries no {name} for its positions (nor do "
            f"{len(missing) - 1} more), but others do. Compute them, or leave these "
            "molecules out."
        )
    return results


def check_energies(energies: Any, n_molecules: int) -> _Array:
    """Check energies.

    Parameters
    ----------
    energies : array-like of shape (n_molecules,) or (n_molecules, 1)
    n_molecules : int

    Returns
    -------
    ndarray of shape (n_molecules,)

    Raises
    ------
    ValueError
        If the shape is another, or an energy is NaN or infinite.
    """
    array = as_numbers(energies, "energies", _ENERGIES)
    if array.shape not in ((n_molecules,), (n_molecules, 1)):
        raise ValueError(
            f"energies have shape {array.shape}, but there are {n_molecules} "
            f"molecules; pass {_ENERGIES}."
        )
    array = array.reshape(n_molecules)
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        raise ValueError(
            f"Molecule {wrong[0]} has the energy {array[wrong[0]]}; give it a finite "
            "one, or leave the molecule out."
        )
    return array


def check_forces(forces: Any, structures: Sequence[Structure]) -> _Array:
    """Check forces, and pad them as the longest molecule.

    Parameters
    ----------
    forces : array-like of shape (n_molecules, n_atoms, 3) or sequence of arrays
        One array of shape (n_atoms, 3) for each molecule, which zeros may follow.
    structures : sequence of Structure
        The molecules.

    Returns
    -------
    ndarray of shape (n_molecules, n_atoms, 3)
        `n_atoms` is that of the largest molecule.

    Raises
    ------
    ValueError
        If the shape is not that of the molecules, or a force is NaN or infinite.
    """
    if not hasattr(forces, "__len__") or len(forces) != len(structures):
        found = f"{len(forces)}" if hasattr(forces, "__len__") else "no sequence"
        raise ValueError(
            f"forces are given for {found}, but there are {len(structures)} "
            f"molecules; pass {_FORCES}."
        )
    padded = np.zeros((len(structures), max(len(s.charges) for s in structures), 3))
    for i, (given, structure) in enumerate(zip(forces, structures, strict=True)):
        n_atoms = len(structure.charges)
        rows = as_numbers(given, f"Molecule {i}: forces", _FORCES)
        if rows.ndim != 2 or rows.shape[1] != 3 or len(rows) < n_atoms:
            raise ValueError(
                f"Molecule {i} has {n_atoms} atoms and forces of shape {rows.shape}; "
                f"pass {_FORCES}."
            )
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(wrong):
            raise ValueError(
                f"Molecule {i}, atom {wrong[0]} has the force "
                f"{rows[wrong[0]].tolist()}; give it a finite one, or leave the "
                "molecule out."
            )
        if rows[n_atoms:].any():
            raise ValueError(
                f"Molecule {i} has {n_atoms} atoms, but forces on "
                f"{np.flatnonzero(rows.any(axis=1))[-1] + 1}. Are the forces in the "
                "order of the molecules?"
            )
        padded[i, :n_atoms] = rows[:n_atoms]
    return padded
