"""The engines: everything that computes with arrays of fields."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from skscatharm._threads import one_blas_thread
from skscatharm.engine.accuracy import check_accuracy, check_signs
from skscatharm.engine.arrays import Library, keep_freed_memory
from skscatharm.engine.fourier import FourierEngine
from skscatharm.engine.planar import PlanarEngine
from skscatharm.engine.protocol import Atoms, Engine
from skscatharm.engine.radial import RadialEngine
from skscatharm.engine.separable import SeparableEngine
from skscatharm.structures import Structure
from skscatharm.transform.transform import Transform

__all__ = [
    "check_accuracy",
    "check_molecules",
    "find_engine",
    "make_engine",
    "scattering_batch",
]


_MEMORY = 4 * 2**30  # bytes that a molecule may need

_ENGINES: dict[str, Callable[[Transform, Library], Engine]] = {
    "separable": SeparableEngine,
    "fourier": FourierEngine,
    "planar": PlanarEngine,
}


def find_engine(engine: str, library: Library) -> str:
    """Choose the engine: for "auto", the faster one where the library computes."""
    if engine == "auto":
        return "fourier" if library.on_device else "separable"
    return engine


def make_engine(transform: Transform, library: Library) -> Engine:
    """Make the engine that a transform names."""
    return _ENGINES[transform.engine](transform, library)


def check_molecules(
    structures: Sequence[Structure],
    weights: Sequence[NDArray[np.float64]],
    transform: Transform,
    library: Library,
) -> None:
    """Raise if a molecule is too large, or its densities cancel.

    Raises
    ------
    ValueError
        The message names the molecule, and says what to change.
    """
    for i, (structure, rows) in enumerate(zip(structures, weights, strict=True)):
        if np.any(rows < 0):
            check_signs(i, structure.positions, rows, transform)
    engine = make_engine(transform, library)
    sizes = np.array([np.ptp(s.positions, axis=0).max() for s in structures])
    # Few molecules, if any, are so large that it takes a closer look.
    for i in np.argsort(-sizes, kind="stable").tolist():
        memory = engine.memory(_atoms(structures[i], weights[i]))
        if memory > _MEMORY:
            other = " or engine='separable'" * (transform.engine == "fourier")
            raise ValueError(
                f"Molecule {i} extends over {sizes[i]:.3g} Å: with "
                f"sigma={transform.sigma:g} its grid would take "
                f"{memory / 2**30:.3g} GiB ({_MEMORY / 2**30:g} GiB are allowed). If "
                f"the coordinates are in Å, choose a larger sigma{other}."
            )
        if memory < _MEMORY / 8:
            return


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
    with one_blas_thread(), library.scope(), np.errstate(all="ignore"):
        single = np.array([len(atoms.positions) == 1 for atoms in batch])
        n_paths, n_exponents = len(transform.paths), len(transform.exponents)
        shape = (len(batch), n_paths, len(weights[0]), n_exponents)
        coefficients = np.empty(shape)
        for engine, chosen in (
            (RadialEngine(transform), np.flatnonzero(single)),
            (make_engine(transform, library), np.flatnonzero(~single)),
        ):
            if len(chosen):
                coefficients[chosen] = engine.coefficients([batch[i] for i in chosen])
        return coefficients


def _atoms(structure: Structure, weights: NDArray[np.float64]) -> Atoms:
    return Atoms(structure.positions, structure.charges, weights)
