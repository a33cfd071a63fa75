"""Translations and rotations of a molecule as a whole."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["remove_rigid_motions", "superpose"]

_Array = NDArray[np.float64]

# Rotations of a linear molecule around its axis are none.
_NONE = 1e-9


def superpose(reference: _Array, positions: _Array) -> _Array:
    r"""Find the rotation that brings a reference closest to a molecule.

    It minimises the sum of squared distances of the atoms, after both are centred [1]_.

    Parameters
    ----------
    reference, positions : ndarray of shape (n_atoms, 3)

    Returns
    -------
    ndarray of shape (3, 3)
        Matrix :math:`R` that turns positions :math:`r` of the reference to
        :math:`R r`.

    References
    ----------
    .. [1] W. Kabsch, "A solution for the best rotation to relate two sets of vectors",
       Acta Cryst. A32, 922 (1976). https://doi.org/10.1107/S0567739476001873
    """
    centred = positions - positions.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ (reference - reference.mean(axis=0)))
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ right)


def remove_rigid_motions(
    derivatives: _Array, positions: _Array, reference: _Array | None = None
) -> None:
    r"""Remove forces and torques from derivatives, in place.

    Those of an invariant add up to zero. Errors of the quadrature add to both, as its
    points stay where they are while atoms move. In axes that turn with the molecule,
    there are none. With centred positions :math:`a_n`, and :math:`b_n` of a reference
    that is superposed on them, the axes turn such that :math:`\sum_n b_n \times a_n`
    stays zero. So derivatives :math:`g_n` at frozen points become
    :math:`g_n - u \times b_n` less their mean, with

    .. math::

        \sum_n [(a_n \cdot b_n) \, u - b_n (a_n \cdot u)] = \sum_n a_n \times g_n .

    Parameters
    ----------
    derivatives : ndarray of shape (..., n_atoms, 3)
    positions : ndarray of shape (n_atoms, 3)
    reference : ndarray of shape (n_atoms, 3) or None, default=None
        None means the positions themselves: this projects derivatives onto motions that
        change the shape of a molecule.
    """
    a = b = positions - positions.mean(axis=0)
    if reference is not None:
        b = (reference - reference.mean(axis=0)) @ superpose(reference, positions).T
    overlap = a.T @ b
    inverse = np.linalg.pinv(np.trace(overlap) * np.eye(3) - overlap, rcond=_NONE)
    # Twice, as the first time leaves rounding errors.
    for _ in range(2):
        torques = np.cross(a, derivatives).sum(axis=-2)
        derivatives -= np.cross((torques @ inverse.T)[..., np.newaxis, :], b)
        derivatives -= derivatives.mean(axis=-2, keepdims=True)
