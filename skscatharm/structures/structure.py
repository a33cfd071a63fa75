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
    reference : ndarray of shape (n_atoms, 3), dtype float64, or None
        Positions of the same atoms in another configuration of a molecule, for
        potentials. Engines lay their grids in axes that turn with the molecule as it is
        superposed on the reference. Then coefficients are smooth functions of the
        positions, with exact derivatives. None lays them in its principal axes: grids
        need fewer points, and coefficients are the same within their tolerance.
    """

    charges: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    reference: NDArray[np.float64] | None = None
