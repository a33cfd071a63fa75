"""Energies, forces and stresses: arrays, or results that `ase.Atoms` carry."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.readers import as_numbers, read_frames
from skscatharm.structures.structure import Structure

__all__ = [
    "Labels",
    "check_dipoles",
    "check_energies",
    "check_forces",
    "check_stresses",
    "check_targets",
    "read_labels",
    "to_voigt",
]

_Array = NDArray[np.float64]

_FORCES = (
    "forces of shape (n_molecules, n_atoms, 3), padded with zeros, or a list of arrays "
    "of shape (n_atoms, 3)"
)


_STRESSES = (
    "stresses of shape (n_molecules, 6), in the order xx, yy, zz, yz, xz, xy, or "
    "(n_molecules, 3, 3), with NaN for molecules that have none"
)
# Rows and columns of the components, in the order of Voigt that ASE uses.
_VOIGT = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
_ASYMMETRY = 0.01  # of a stress, relative to its largest component


class Labels(NamedTuple):
    """The results that `ase.Atoms` carry.

    Attributes
    ----------
    energies : list of float or None
        None if no molecule carries its energy.
    forces : list of ndarray of shape (n_atoms, 3) or None
        None if no molecule carries its forces.
    stresses : list of ndarray or None
        None if no crystal carries its stress. NaN for molecules, slabs and wires.
    """

    energies: list[Any] | None
    forces: list[Any] | None
    stresses: list[Any] | None


def read_labels(X: Any) -> Labels:
    """Read the energies, forces and stresses that `ase.Atoms` carry.

    They are the results of a calculator that has computed these positions; nothing is
    computed. Without such results they are ``info["energy"]``, ``arrays["forces"]`` and
    ``info["stress"]``.

    Parameters
    ----------
    X : sequence of ase.Atoms, or molecules of another form

    Returns
    -------
    Labels

    Raises
    ------
    ValueError
        If some molecules carry an energy or forces, and others do not; or if some
        crystals carry a stress, and others do not.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm.structures.labels import read_labels
    >>> water = molecule("H2O")
    >>> water.info["energy"] = -14.2
    >>> read_labels([water])
    Labels(energies=[-14.2], forces=None, stresses=None)
    """
    frames = read_frames(X)
    if frames is None:
        return Labels(None, None, None)
    energies = [_result(frame, "energy", frame.info) for frame in frames]
    forces = [_result(frame, "forces", frame.arrays) for frame in frames]
    stresses: list[Any] | None = None
    # The volume of slabs and wires, and so their stress, is a matter of convention.
    has_volume = [bool(np.all(frame.pbc)) for frame in frames]
    if any(has_volume):
        none = np.full(6, np.nan)
        stresses = [
            _result(frame, "stress", frame.info) if bulk else none
            for frame, bulk in zip(frames, has_volume, strict=True)
        ]
        if all(stress is None or stress is none for stress in stresses):
            stresses = None
    return Labels(
        _all_or_none(energies, "energy"),
        _all_or_none(forces, "forces"),
        stresses and _all_or_none(stresses, "stress"),
    )


def _result(frame: Any, name: str, stored: Any) -> Any:
    """Return a result that a frame carries, or None."""
    calculator = frame.calc
    if calculator is None or calculator.calculation_required(frame, [name]):
        return stored.get(name)
    return calculator.get_property(name, frame, allow_calculation=False)


def _all_or_none(results: list[Any], name: str) -> list[Any] | None:
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
    return _check_scalars(energies, n_molecules, "energies", "energy")


def check_targets(targets: Any, n_molecules: int) -> _Array:
    """Check targets of any kind, as :func:`check_energies`."""
    return _check_scalars(targets, n_molecules, "targets", "target")


def check_dipoles(dipoles: Any, n_molecules: int) -> _Array:
    """Check dipole moments.

    Parameters
    ----------
    dipoles : array-like of shape (n_molecules,) or (n_molecules, 3)
        Norms or vectors.
    n_molecules : int

    Returns
    -------
    ndarray of the same shape

    Raises
    ------
    ValueError
        If the shape is another, if an entry is not finite, or if a norm is negative.
    """
    wanted = "norms of shape (n_molecules,), or vectors of shape (n_molecules, 3)"
    array = _check_rows(
        dipoles, n_molecules, "dipole moments", "dipole moment", wanted, n_components=3
    )
    negative = np.flatnonzero(array < 0)
    if array.ndim == 1 and len(negative):
        raise ValueError(
            f"Molecule {negative[0]} has the dipole moment {array[negative[0]]}. Norms "
            f"are 0 or more; pass {wanted}."
        )
    return array


def _check_scalars(given: Any, n_molecules: int, plural: str, singular: str) -> _Array:
    wanted = f"one {singular} for each molecule, of shape (n_molecules,)"
    return _check_rows(given, n_molecules, plural, singular, wanted, n_components=1)


def _check_rows(
    given: Any,
    n_molecules: int,
    plural: str,
    singular: str,
    wanted: str,
    *,
    n_components: int,
) -> _Array:
    """Check that there is a finite number, or a vector, for each molecule."""
    array = as_numbers(given, plural, wanted)
    n = n_molecules
    if array.shape not in ((n,), (n, 1), (n, n_components)):
        raise ValueError(
            f"{plural} have shape {array.shape}, but there are {n} molecules; pass "
            f"{wanted}."
        )
    if array.shape == (n, 1):
        array = array.reshape(n)
    wrong = np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"Molecule {wrong[0]} has the {singular} {array[wrong[0]].tolist()}; give "
            "it a finite one, or leave the molecule out."
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


def check_stresses(stresses: Any, structures: Sequence[Structure]) -> _Array:
    """Check stresses.

    Parameters
    ----------
    stresses : array-like of shape (n_molecules, 6) or (n_molecules, 3, 3)
        Stresses in the unit of the energies per Å^3, positive if the cell pulls
        inwards: the derivatives of the energy with respect to strain, per volume.
    structures : sequence of Structure
        The molecules.

    Returns
    -------
    ndarray of shape (n_molecules, 3, 3)
        NaN for molecules that have none.

    Raises
    ------
    ValueError
        If a shape is another, if a stress is infinite, not symmetric or known in part,
        or belongs to a structure that has no volume.
    """
    if not hasattr(stresses, "__len__") or len(stresses) != len(structures):
        found = f"{len(stresses)}" if hasattr(stresses, "__len__") else "no sequence"
        raise ValueError(
            f"stresses are given for {found}, but there are {len(structures)} "
            f"molecules; pass {_STRESSES}."
        )
    checked = np.empty((len(structures), 3, 3))
    for i, (given, structure) in enumerate(zip(stresses, structures, strict=True)):
        values = as_numbers(given, f"Molecule {i}: stress", _STRESSES)
        if values.shape not in ((6,), (9,), (3, 3)):
            raise ValueError(
                f"Molecule {i} has a stress of shape {values.shape}; pass {_STRESSES}."
            )
        if values.shape == (6,):
            checked[i][_VOIGT] = checked[i][_VOIGT[::-1]] = values
        else:
            checked[i] = values.reshape(3, 3)
        if np.isnan(checked[i]).all():
            continue
        if not np.isfinite(checked[i]).all():
            raise ValueError(
                f"Molecule {i} has the stress {values.tolist()}; give it a finite one, "
                "or NaN for all components if it is not known."
            )
        if not all(structure.pbc):
            raise ValueError(
                f"Molecule {i} has a stress, but no volume: it is periodic along "
                f"{sum(structure.pbc)} of three vectors. Pass NaN as its stress."
            )
        asymmetry = np.abs(checked[i] - checked[i].T).max()
        if asymmetry > _ASYMMETRY * np.abs(checked[i]).max():
            raise ValueError(
                f"Molecule {i} has the stress {checked[i].tolist()}, which is not "
                f"symmetric; pass {_STRESSES}."
            )
    return (checked + checked.swapaxes(1, 2)) / 2


def to_voigt(stresses: _Array) -> _Array:
    """Return the components xx, yy, zz, yz, xz, xy of symmetric matrices.

    Parameters
    ----------
    stresses : ndarray of shape (..., 3, 3)

    Returns
    -------
    ndarray of shape (..., 6)
    """
    return stresses[..., _VOIGT[0], _VOIGT[1]]
