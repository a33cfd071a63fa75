"""A molecule, in the form that the package computes with."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Structure"]


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
