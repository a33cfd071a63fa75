"""Derivatives of targets: their checks, and the directions in which they are known."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.regression.inputs import real_numbers, to_doubles
from skscatharm.regression.whitening import Array, Whitening

# Directions in which features vary less than this, relative to the largest variation of
# the sample, are rigid motions, padding or rounding errors.
_RANK_TOLERANCE = 1e-5


class Derivatives(NamedTuple):
    """Derivatives of features and targets along orthonormal directions.

    Each sample has as many directions as its features can vary independently.

    Attributes
    ----------
    features : ndarray of shape (n_directions, n_axes)
        Derivatives of the white coordinates.
    targets : ndarray of shape (n_directions,)
        Derivatives of the target.
    owners : ndarray of shape (n_directions,)
        Sample of each direction, ascending.
    """

    features: Array
    targets: Array
    owners: NDArray[np.intp]


def check_derivatives(
    jacobian: Any, gradients: Any, n_samples: int, n_features: int
) -> tuple[Array, Array] | None:
    """Check the derivatives of features and targets.

    Parameters
    ----------
    jacobian : array-like of shape (n_samples, n_features, ...) or None
        Derivatives of the features with respect to coordinates.
    gradients : array-like of shape (n_samples, ...) or None
        Derivatives of the target with respect to the same coordinates.
    n_samples, n_features : int
        Numbers of rows and columns of X.

    Returns
    -------
    derivatives : tuple of ndarrays or None
        The Jacobian, of shape (n_samples, n_features, n_coordinates), and the
        gradients, of shape (n_samples, n_coordinates). None if both are None.

    Raises
    ------
    ValueError
        If one of both is missing, if their shapes do not fit, or if they have entries
        that are not finite real numbers.
    """
    if jacobian is None and gradients is None:
        return None
    if jacobian is None or gradients is None:
        missing, given = (
            ("jacobian", "gradients") if jacobian is None else ("gradients", "jacobian")
        )
        raise ValueError(
            f"{given} needs {missing}: pass the derivatives of the features as jacobian"
            " and those of the target as gradients, or neither."
        )
    slopes, aims = (
        to_doubles(np.asarray(given) if isinstance(given, list | tuple) else given)
        for given in (
            real_numbers(jacobian, "jacobian"),
            real_numbers(gradients, "gradients"),
        )
    )
    if slopes.ndim < 3 or slopes.shape[:2] != (n_samples, n_features):
        raise ValueError(
            f"jacobian has shape {slopes.shape}, but X has shape "
            f"{(n_samples, n_features)}: pass an array of shape (n_samples, "
            "n_features, n_coordinates)."
        )
    if aims.shape != (n_samples, *slopes.shape[2:]):
        raise ValueError(
            f"gradients has shape {aims.shape}, but jacobian has shape {slopes.shape}: "
            f"pass gradients of shape {(n_samples, *slopes.shape[2:])}, with respect "
            "to the same coordinates."
        )
    slopes = slopes.reshape(n_samples, n_features, -1)
    aims = aims.reshape(n_samples, -1)
    for name, array in (("jacobian", slopes), ("gradients", aims)):
        # A sum is finite unless an entry is not, or entries are absurdly large.
        finite = np.isfinite(array.reshape(n_samples, -1).sum(axis=1))
        if not finite.all():
            raise ValueError(
                f"{name} has NaN or infinite entries for sample "
                f"{np.flatnonzero(~finite)[0]}. Remove this sample, or repair the "
                "entries."
            )
    return slopes, aims


def reduce_derivatives(
    jacobian: Array, gradients: Array, whitening: Whitening
) -> Derivatives:
    """Keep the directions along which features vary.

    Rigid motions of a molecule, and coordinates that are padding, change no feature.
    In their directions there is nothing to learn.

    Parameters
    ----------
    jacobian : ndarray of shape (n_samples, n_features, n_coordinates)
        Derivatives of the features.
    gradients : ndarray of shape (n_samples, n_coordinates)
        Derivatives of the target.
    whitening : Whitening
        Map from features to white coordinates.

    Returns
    -------
    derivatives : Derivatives
        Derivatives of the white coordinates and of the target.
    """
    features, targets, counts = [], [], []
    for slope, aim in zip(jacobian, gradients, strict=True):
        mapped = slope.T @ whitening.matrix
        # White coordinates would amplify rounding errors.
        _, size, basis = np.linalg.svd(
            whitening.deviations[:, None] * mapped.T, full_matrices=False
        )
        basis = basis[size > _RANK_TOLERANCE * size.max(initial=0.0)]
        features.append(basis @ mapped)
        targets.append(basis @ aim)
        counts.append(len(basis))
    return Derivatives(
        np.concatenate(features),
        np.concatenate(targets),
        np.repeat(np.arange(len(counts)), counts),
    )
