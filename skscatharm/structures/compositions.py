"""Numbers of atoms of each element, and targets of the isolated atoms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.elements import SYMBOLS
from skscatharm.structures.structure import Structure

__all__ = ["check_elements", "count_atoms", "fit_atomic_energies"]

_Array = NDArray[np.float64]


def count_atoms(structures: Sequence[Structure], elements: NDArray[Any]) -> _Array:
    """Count the atoms of each element: an array (n_molecules, n_elements)."""
    counts = [(s.charges[:, np.newaxis] == elements).sum(axis=0) for s in structures]
    return np.array(counts, dtype=np.float64)


def fit_atomic_energies(counts: _Array, energies: _Array, weight: _Array) -> _Array:
    """Fit energies of atoms; of all that fit best, those of the smallest norm."""
    root = np.sqrt(weight)
    solution, *_ = np.linalg.lstsq(counts * root[:, np.newaxis], energies * root)
    return np.asarray(solution, dtype=np.float64)


def check_elements(
    structures: Sequence[Structure], elements: NDArray[Any], model: str
) -> None:
    """Refuse molecules with other elements than those of the training set.

    Raises
    ------
    ValueError
        If there are any. The message names the `model`, such as "potential".
    """
    for i, structure in enumerate(structures):
        unknown = np.flatnonzero(~np.isin(structure.charges, elements))
        if len(unknown):
            raise ValueError(
                f"Molecule {i}, atom {unknown[0]} is "
                f"{SYMBOLS[structure.charges[unknown[0]]]}, but the {model} knows "
                f"{', '.join(SYMBOLS[z] for z in elements)} only. Add molecules with "
                "this element to the training set."
            )
