"""A molecule or crystal, in the form that the package computes with."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Structure"]


class Structure(NamedTuple):
    """A molecule, or a cell of a crystal, slab or wire.

    Attributes
    ----------
    charges : ndarray of shape (n_atoms,), dtype int64
        Nuclear charges.
    positions : ndarray of shape (n_atoms, 3), dtype float64
        Positions of the nuclei, in Å. In a cell, they may be those of any images.
    cell : ndarray of shape (3, 3), dtype float64, or None
        The vectors of the cell in its rows, in Å. None for a molecule. Vectors of
        directions that are not periodic have no meaning.
    pbc : tuple of three bool
        Which of the vectors the structure repeats along.
    """

    charges: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
