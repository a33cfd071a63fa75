"""The engines: everything that computes with arrays of fields."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from skscatharm.engine.arrays import keep_freed_memory
from skscatharm.engine.separable import scattering
from skscatharm.paths import Path
from skscatharm.structures import Structure

__all__ = ["NUMERICS_VERSION", "scattering_batch"]

# Raised with every change of the coefficients beyond rounding: those that stores hold
# are then computed again.
NUMERICS_VERSION = 1


def scattering_batch(
    structures: Sequence[Structure],
    weights: Sequence[NDArray[np.float64]],
    paths: Sequence[Path],
    **options: Any,
) -> NDArray[np.float64]:
    """Compute the coefficients of a batch of molecules.

    Parameters
    ----------
    structures : sequence of Structure
    weights : sequence of ndarray of shape (n_channels, n_atoms)
        For each molecule, the weights of its atoms in each channel.
    paths : sequence of Path
        What to compute.
    **options
        Q, sigma, tol and dtype, as in :class:`~skscatharm.SolidHarmonicScattering`.

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    """
    keep_freed_memory()
    # The matrices are small: more threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        return np.stack(
            [
                scattering(structure.positions, w, paths, xp=np, **options)
                for structure, w in zip(structures, weights, strict=True)
            ]
        )
