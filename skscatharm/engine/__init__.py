"""The engines: everything that computes with arrays of fields."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from skscatharm._threads import one_blas_thread
from skscatharm.engine.accuracy import check_accuracy, check_signs
from skscatharm.engine.arrays import Library, keep_freed_memory
from skscatharm.engine.batched import BatchedEngine
from skscatharm.engine.fourier import FourierEngine
from skscatharm.engine.planar import PlanarEngine
from skscatharm.engine.protocol import Atoms, DifferentiableEngine, Engine
from skscatharm.engine.radial import RadialEngine
from skscatharm.engine.rigid import remove_rigid_motions
from skscatharm.engine.separable import SeparableEngine
from skscatharm.structures import Structure
from skscatharm.transform.transform import Transform

__all__ = [
    "check_accuracy",
    "check_molecules",
    "find_engine",
    "gradient_batch",
    "jacobian_batch",
    "linearize_batch",
    "make_engine",
    "scattering_batch",
]

_Array = NDArray[np.float64]

_MEMORY = 4 * 2**30  # bytes that a molecule may need

_Maker = Callable[[Transform, Library], Engine]
# On the CPU, and on a device.
_ENGINES: dict[str, tuple[_Maker, _Maker]] = {
    "separable": (SeparableEngine, BatchedEngine),
    "fourier": (FourierEngine, FourierEngine),
    "planar": (PlanarEngine, PlanarEngine),
}


def find_engine(engine: str) -> str:
    """Choose the engine: for "auto", the faster one, on any device."""
    return "separable" if engine == "auto" else engine


def make_engine(transform: Transform, library: Library) -> Engine:
    """Make the engine that a transform names, for where the library computes."""
    return _ENGINES[transform.engine][library.on_device](transform, library)


def check_molecules(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
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
    weights: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> _Array:
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
    shape = (len(transform.paths), len(weights[0]), len(transform.exponents))
    coefficients = np.empty((len(batch), *shape))
    single = np.array([len(atoms.positions) == 1 for atoms in batch])
    with _computing(library):
        for engine, chosen in (
            (RadialEngine(transform), np.flatnonzero(single)),
            (make_engine(transform, library), np.flatnonzero(~single)),
        ):
            if len(chosen):
                coefficients[chosen] = engine.coefficients([batch[i] for i in chosen])
    return coefficients


def jacobian_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> list[_Array]:
    """Differentiate the coefficients of a batch of molecules.

    The parameters are those of :func:`scattering_batch`.

    Returns
    -------
    list of ndarray of shape (n_paths, n_channels, n_exponents, n_atoms, 3)
        Derivatives with respect to the positions.
    """
    batch = [_atoms(s, w) for s, w in zip(structures, weights, strict=True)]
    with _computing(library):
        found = _differentiable(transform, library).jacobian(batch)
    for atoms, derivatives in zip(batch, found, strict=True):
        derivatives[_constant(atoms, transform)] = 0
        remove_rigid_motions(derivatives, atoms.positions)
    return found


def gradient_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    factors: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> list[_Array]:
    """Differentiate weighted sums of the coefficients of a batch of molecules.

    Parameters
    ----------
    structures, weights, transform, library
        As for :func:`scattering_batch`.
    factors : sequence of ndarray of shape (n_paths, n_channels, n_exponents)
        Weights of the coefficients of each molecule.

    Returns
    -------
    list of ndarray of shape (n_atoms, 3)
        Derivatives with respect to the positions.
    """
    batch = [_atoms(s, w) for s, w in zip(structures, weights, strict=True)]
    of_varying = [
        np.where(_constant(atoms, transform), 0.0, f)
        for atoms, f in zip(batch, factors, strict=True)
    ]
    with _computing(library):
        found = _differentiable(transform, library).gradient(batch, of_varying)
    for atoms, derivatives in zip(batch, found, strict=True):
        remove_rigid_motions(derivatives, atoms.positions)
    return found


def linearize_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    weigh: Callable[[_Array], _Array],
    transform: Transform,
    library: Library,
) -> tuple[_Array, list[_Array]]:
    """Compute coefficients, and differentiate sums with weights that depend on them.

    It needs less time than :func:`scattering_batch` and :func:`gradient_batch`.

    Parameters
    ----------
    structures, weights, transform, library
        As for :func:`scattering_batch`.
    weigh : callable
        Turns coefficients, of shape (n_molecules, n_paths, n_channels, n_exponents),
        into their weights.

    Returns
    -------
    coefficients : ndarray of that shape
    gradients : list of ndarray of shape (n_atoms, 3)
        Derivatives with respect to the positions.
    """
    batch = [_atoms(s, w) for s, w in zip(structures, weights, strict=True)]
    constant = np.stack([_constant(atoms, transform) for atoms in batch])
    single = [i for i, atoms in enumerate(batch) if len(atoms.positions) == 1]

    def weigh_varying(coefficients: _Array) -> _Array:
        if single:
            coefficients[single] = RadialEngine(transform).coefficients(
                [batch[i] for i in single]
            )
        return np.where(constant, 0.0, weigh(coefficients))

    with _computing(library):
        coefficients, found = _differentiable(transform, library).linearize(
            batch, weigh_varying
        )
    for atoms, derivatives in zip(batch, found, strict=True):
        remove_rigid_motions(derivatives, atoms.positions)
    return coefficients, found


def _differentiable(transform: Transform, library: Library) -> DifferentiableEngine:
    engine = make_engine(transform, library)
    assert isinstance(engine, SeparableEngine | FourierEngine)
    return engine


@contextmanager
def _computing(library: Library) -> Iterator[None]:
    keep_freed_memory()
    # The matrices are small: more threads would only wait for each other. Fields end
    # in tails that are rounded to zero, whatever the user's settings make of that.
    with one_blas_thread(), library.scope(), np.errstate(all="ignore"):
        yield


def _constant(atoms: Atoms, transform: Transform) -> NDArray[np.bool_]:
    """Find the coefficients that do not change with the positions of the atoms.

    They are integrals of densities, and all of a single atom. Without this, rounding
    errors would be all there is of their derivatives.

    Returns
    -------
    ndarray of shape (n_paths, n_channels, n_exponents)
    """
    degrees = np.array([path.degree for path in transform.paths])
    signed = (atoms.weights.min(axis=1) < 0) & (atoms.weights.max(axis=1) > 0)
    densities = (degrees[:, np.newaxis] == 0) & ~signed
    linear = np.array(transform.exponents) == 1
    single = np.count_nonzero(atoms.weights, axis=1) < 2
    found: NDArray[np.bool_] = densities[..., np.newaxis] & linear
    return found | single[:, np.newaxis]


def _atoms(structure: Structure, weights: _Array) -> Atoms:
    return Atoms(structure.positions, structure.charges, weights)
