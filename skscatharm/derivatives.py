"""Derivatives of coefficients in columns, for batches of molecules.

These functions can be sent to other processes.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine import gradient_batch, jacobian_batch, linearize_batch
from skscatharm.engine.arrays import Library
from skscatharm.engine.protocol import Derivatives
from skscatharm.store import CoefficientStore
from skscatharm.store.recall import recall_arrays
from skscatharm.structures import Structure
from skscatharm.transform.columns import arrange, rearrange
from skscatharm.transform.transform import Transform

__all__ = ["check_size", "column_gradient", "column_jacobian", "linear_expansion"]

_Array = NDArray[np.float64]

_LARGEST = 4 * 2**30  # bytes of an array of Jacobians


def check_size(n_molecules: int, n_coefficients: int, n_atoms: int) -> None:
    """Raise if the Jacobians of all molecules would not fit into memory.

    Raises
    ------
    ValueError
    """
    size = 8.0 * n_molecules * n_coefficients * (n_atoms + 3) * 3
    if size > _LARGEST:
        raise ValueError(
            f"The Jacobians of {n_molecules} molecules, with {n_coefficients} "
            f"coefficients and up to {n_atoms} atoms, would take {size / 2**30:.3g} "
            f"GiB ({_LARGEST / 2**30:g} GiB are allowed). Use iter_jacobian, which "
            "yields them in batches, or pass fewer molecules."
        )


def column_jacobian(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    keys: Sequence[str],
    transform: Transform,
    library: Library,
    store: CoefficientStore | None,
) -> list[Derivatives]:
    """Differentiate coefficients, or read their derivatives from a store.

    Parameters
    ----------
    structures, weights, transform, library
        As for :func:`~skscatharm.engine.jacobian_batch`.
    keys : sequence of str
        Names of the molecules in the store.
    store : CoefficientStore or None

    Returns
    -------
    list of Derivatives
        Of shapes (n_coefficients, n_atoms, 3) and (n_coefficients, 3, 3).
    """

    def compute(lacking: list[int]) -> list[_Array]:
        computed = jacobian_batch(
            [structures[i] for i in lacking],
            [weights[i] for i in lacking],
            transform,
            library,
        )
        return [
            np.concatenate(
                [
                    arrange(a[np.newaxis], transform.integrands, transform.kept)[0]
                    for a in of_one
                ],
                1,
            )
            for of_one in computed
        ]

    arrays = recall_arrays(store, keys, transform.settings, compute)
    return [Derivatives(array[:, :-3], array[:, -3:]) for array in arrays]


def column_gradient(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    factors: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> list[Derivatives]:
    """Differentiate sums of coefficients with factors of shape (n_coefficients,).

    Returns
    -------
    list of Derivatives
        Of shapes (n_atoms, 3) and (3, 3).
    """
    layout = transform.layout(len(weights[0]))
    of_paths = rearrange(np.asarray(factors), *layout)
    return gradient_batch(structures, weights, list(of_paths), transform, library)


def linear_expansion(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    sizes: Sequence[float],
    weigh: Callable[[_Array], _Array],
    transform: Transform,
    library: Library,
) -> list[tuple[_Array, Derivatives]]:
    """Compute coefficients, and differentiate sums with factors that depend on them.

    Coefficients are divided by the sizes of the molecules. `weigh` turns those, of
    shape (n_molecules, n_coefficients), into factors.

    Returns
    -------
    list of (ndarray of shape (n_coefficients,), Derivatives)
        The derivatives are of shapes (n_atoms, 3) and (3, 3).
    """
    layout = transform.layout(len(weights[0]))
    divisors = np.asarray(sizes)[:, np.newaxis]

    def weigh_paths(coefficients: _Array) -> _Array:
        columns = arrange(coefficients, transform.integrands, transform.kept) / divisors
        factors = np.asarray(weigh(columns)) / divisors
        return rearrange(factors, *layout)

    coefficients, gradients = linearize_batch(
        structures, weights, weigh_paths, transform, library
    )
    columns = arrange(coefficients, transform.integrands, transform.kept) / divisors
    return list(zip(columns, gradients, strict=True))
