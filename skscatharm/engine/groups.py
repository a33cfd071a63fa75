"""Groups of molecules that a device computes together."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import Library

__all__ = ["compute_in_groups"]

_Indices = NDArray[np.intp]


def compute_in_groups(
    compute: Callable[[_Indices], None],
    molecules: _Indices,
    extents: NDArray[np.float64],
    memory: Callable[[_Indices], float],
    library: Library,
    most_bytes: float,
    most_molecules: float = np.inf,
) -> None:
    """Divide molecules into groups of similar size that fit into memory.

    Where memory runs out nevertheless, a group is halved.

    Parameters
    ----------
    compute : callable
        Called with the indices of the molecules of a group.
    molecules : ndarray of int
        Indices of all molecules.
    extents : ndarray of shape (n, 3)
        Half of the lengths along the axes of each molecule, at its index.
    memory : callable
        Estimates the bytes that a group needs.
    library : Library
    most_bytes, most_molecules : float
        Limits for a group. Larger ones only fill up more of smaller molecules.
    """
    pending = [molecules]
    while pending:
        group = pending.pop()
        free = min(library.free_memory(), most_bytes)
        fits = len(group) <= most_molecules and memory(group) < free
        if fits or len(group) == 1:
            try:
                compute(group)
            except library.out_of_memory():
                if len(group) == 1:
                    raise
            else:
                continue
        # Molecules share their boxes: the halves are to be of similar ones.
        axis = np.ptp(extents[group], axis=0).argmax()
        pending += np.array_split(group[extents[group, axis].argsort()], 2)
