"""Translations and rotations of a molecule as a whole."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["remove_rigid_motions"]

# Rotations of a linear molecule around its axis are none.
_NONE = 1e-6


def remove_rigid_motions(
    derivatives: NDArray[np.float64], positions: NDArray[np.float64]
) -> None:
    """Project derivatives, in place, onto motions that change the shape of a molecule.

    Of an invariant, forces and torques add up to zero. Errors of the quadrature remain
    of both, which are removed here.

    Parameters
    ----------
    derivatives : ndarray of shape (..., n_atoms, 3)
    positions : ndarray of shape (n_atoms, 3)
    """
    axes = np.eye(3)
    centred = positions - positions.mean(axis=0)
    n_atoms = len(positions)
    motions = [np.broadcast_to(axis, (n_atoms, 3)) for axis in axes]
    motions += [np.cross(centred, axis) for axis in axes]
    _, sizes, directions = np.linalg.svd(
        np.reshape(motions, (6, 3 * n_atoms)), full_matrices=False
    )
    rigid = directions[sizes > _NONE * sizes[0]]
    flat = derivatives.reshape(-1, 3 * n_atoms)
    # Twice, as the first time leaves rounding errors.
    for _ in range(2):
        flat -= (flat @ rigid.T) @ rigid
