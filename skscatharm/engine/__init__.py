"""The engines: everything that computes with arrays of fields."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from skscatharm.engine.accuracy import check_accuracy
from skscatharm.engine.arrays import Library, keep_freed_memory
from skscatharm.engine.fourier import FourierEngine
from skscatharm.engine.protocol import Atoms, Engine
from skscatharm.engine.separable import SeparableEngine
from skscatharm.structures import Structure
from skscatharm.transform.transform import Transform

__all__ = [
    "check_accuracy",
    "find_engine",
    "make_engine",
    "molecule_memory",
    "scattering_batch",
]


_ENGINES: dict[str, Callable[[Transform, Library], Engine]] = {
    "separable": SeparableEngine,
    "fourier": FourierEngine,
}


def find_engine(engine: str, library: Library) -> str:
    """Choose the engine: for "auto", the faster one where the library computes."""
    if engine == "auto":
        return "fourier" if library.on_device else "separable"
    return engine


def make_engine(transform: Transform, library: Library) -> Engine:
    """Make the engine that a transform names."""
    return _ENGINES[transform.engine](transform, library)


def molecule_memory(
    structure: Structure,
    weights: NDArray[np.float64],
    transform: Transform,
    library: Library,
) -> float:
    """Estimate the bytes that `scattering_batch` needs at least for a molecule."""
    return make_engine(transform, library).memory(_atoms(structure, weights))


def scattering_batch(
    structures: Sequence[Structure],
    weights: Sequence[NDArray[np.float64]],
    transform: Transform,
    library: Library,
) -> NDArray[np.float64]:
    """Compute the coefficients of a batch of molecules.

    Parameters
    ----------
    structures : sequence of Structure
    weights : sequence of ndarray of shape (n_channels, n_atoms)
        For each molecule, the weights of its atoms in each channel.
    transform : Transform
        What to compute.
    library : Library
        The array library that computes, and where.

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    """
    batch = [_atoms(s, w) for s, w in zip(structures, weights, strict=True)]
    keep_freed_memory()
    # The matrices are small: more threads would only wait for each other. Fields end
    # in tails that are rounded to zero, whatever the user's settings make of that.
    with (
        threadpool_limits(1, user_api="blas"),
        library.scope(),
        np.errstate(all="ignore"),
    ):
        return make_engine(transform, library).coefficients(batch)


def _atoms(structure: Structure, weights: NDArray[np.float64]) -> Atoms:
    return Atoms(structure.positions, structure.charges, weights)
