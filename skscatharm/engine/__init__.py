"""The engines: everything that computes with arrays of fields."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skscatharm._threads import one_blas_thread
from skscatharm.engine.accuracy import check_accuracy, check_signs, least_tol
from skscatharm.engine.arrays import Library, keep_freed_memory
from skscatharm.engine.batched import BatchedEngine
from skscatharm.engine.dispatch import StructureEngine
from skscatharm.engine.fourier import FourierEngine
from skscatharm.engine.moments import with_moments
from skscatharm.engine.planar import PlanarEngine
from skscatharm.engine.points import Points
from skscatharm.engine.protocol import Atoms, Derivatives, Engine
from skscatharm.engine.radial import RadialEngine
from skscatharm.engine.separable import SeparableEngine
from skscatharm.structures import Structure
from skscatharm.structures.cells import images_within, periodic_vectors
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = [
    "check_accuracy",
    "check_molecules",
    "fields_at",
    "find_engine",
    "gradient_batch",
    "jacobian_batch",
    "least_tol",
    "linearize_batch",
    "make_engine",
    "scattering_batch",
    "windowed_batch",
]

_Array = NDArray[np.float64]

_MEMORY = 4 * 2**30  # bytes that a molecule may need

# Errors of fields at points are larger than those of integrals, in which they cancel:
# by a factor of up to 10, seen in softened fields of order 2.
_OF_FIELDS, _LEAST_OF_FIELDS = 0.03, 1e-9

_Maker = Callable[[Transform, Library], Engine]


def _with_moments(maker: _Maker) -> _Maker:
    """Let an engine that computes the paths of molecules compute their pairs too."""

    def make(transform: Transform, library: Library) -> Engine:
        return with_moments(lambda of_paths: maker(of_paths, library), transform)

    return make


# On the CPU, and on a device.
_ENGINES: dict[str, tuple[_Maker, _Maker]] = {
    "separable": (_with_moments(SeparableEngine), BatchedEngine),
    "fourier": (_with_moments(FourierEngine), _with_moments(FourierEngine)),
    "planar": (PlanarEngine, PlanarEngine),
}


def find_engine(engine: str) -> str:
    """Choose the engine: for "auto", the faster one, on any device."""
    return "separable" if engine == "auto" else engine


def make_engine(transform: Transform, library: Library) -> Engine:
    """Make the engine of molecules that a transform names, for where it computes."""
    return _ENGINES[transform.engine][library.on_device](transform, library)


def check_molecules(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> None:
    """Raise if a molecule is too large, or if its weights are not allowed.

    Raises
    ------
    ValueError
        The message names the molecule, and says what to change.
    """
    for i, (structure, rows) in enumerate(zip(structures, weights, strict=True)):
        if any(structure.pbc) and (np.any(rows < 0) or transform.signed):
            raise ValueError(
                f"Molecule {i} is periodic, and a channel has negative weights: "
                "crystals need weights of 0 or more in all channels."
            )
        if np.any(rows < 0):
            check_signs(i, structure.positions, rows, transform)
    engine = _engine(transform, library)
    periodic = np.array([any(s.pbc) for s in structures])
    sizes = np.array([_size(s) for s in structures])
    for kind in (np.flatnonzero(periodic), np.flatnonzero(~periodic)):
        # Few structures, if any, are so large that it takes a closer look.
        for i in kind[np.argsort(-sizes[kind], kind="stable")].tolist():
            (atoms,) = _atoms([structures[i]], [weights[i]])
            memory = engine.memory(atoms)
            if memory > _MEMORY:
                other = " or engine='separable'" * (transform.engine == "fourier")
                raise ValueError(
                    f"Molecule {i} extends over {sizes[i]:.3g} Å: with "
                    f"sigma={transform.sigma:g} its grid would take "
                    f"{memory / 2**30:.3g} GiB ({_MEMORY / 2**30:g} GiB are allowed). "
                    f"If the coordinates are in Å, choose a larger sigma{other}."
                )
            if memory < _MEMORY / 8:
                break


def _size(structure: Structure) -> float:
    """Largest extent of a molecule, or of a cell, in Å."""
    size = float(np.ptp(structure.positions, axis=0).max())
    if structure.cell is None:
        return size
    lengths = np.linalg.norm(periodic_vectors(structure), axis=1)
    return max(size, float(lengths.max()))


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
    with _computing(library):
        return _engine(transform, library).coefficients(_atoms(structures, weights))


def windowed_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    groups: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> list[_Array]:
    """Integrate with windows around the atoms of free molecules.

    Parameters
    ----------
    structures, weights, library
        As for :func:`scattering_batch`.
    groups : sequence of ndarray of shape (n_groups, n_atoms)
        For each molecule, shares of the windows of atoms in those that are asked for.
    transform : Transform
        With the width of the windows.

    Returns
    -------
    list of ndarray of shape (n_groups, n_paths, n_channels, n_exponents)
    """
    batch = _atoms(structures, weights)
    found: list[_Array] = []
    with _computing(library):
        for atoms, of_molecule in zip(batch, groups, strict=True):
            if len(atoms.positions) > 1:
                engine = SeparableEngine(transform, library)
                found += engine.windowed([atoms], [of_molecule])
            else:
                # The window of a single atom is one everywhere.
                (whole,) = RadialEngine(transform).coefficients([atoms])
                found.append(np.multiply.outer(of_molecule[:, 0], whole))
    return found


def jacobian_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> list[Derivatives]:
    """Differentiate the coefficients of a batch of molecules.

    The parameters are those of :func:`scattering_batch`.

    Returns
    -------
    list of Derivatives
        Of shapes (n_paths, n_channels, n_exponents, n_atoms, 3) and
        (n_paths, n_channels, n_exponents, 3, 3).
    """
    with _computing(library):
        return _engine(transform, library).jacobian(_atoms(structures, weights))


def gradient_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    factors: Sequence[_Array],
    transform: Transform,
    library: Library,
) -> list[Derivatives]:
    """Differentiate weighted sums of the coefficients of a batch of molecules.

    Parameters
    ----------
    structures, weights, transform, library
        As for :func:`scattering_batch`.
    factors : sequence of ndarray of shape (n_paths, n_channels, n_exponents)
        Weights of the coefficients of each molecule.

    Returns
    -------
    list of Derivatives
        Of shapes (n_atoms, 3) and (3, 3).
    """
    with _computing(library):
        engine = _engine(transform, library)
        return engine.gradient(_atoms(structures, weights), factors)


def linearize_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    weigh: Callable[[_Array], _Array],
    transform: Transform,
    library: Library,
) -> tuple[_Array, list[Derivatives]]:
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
    gradients : list of Derivatives
        Of shapes (n_atoms, 3) and (3, 3).
    """
    with _computing(library):
        engine = _engine(transform, library)
        return engine.linearize(_atoms(structures, weights), weigh)


def fields_at(
    structure: Structure,
    weights: _Array,
    points: Points,
    transform: Transform,
    components: bool = False,
) -> dict[Path, _Array]:
    """Compute the fields of a molecule at points, in double precision on the CPU.

    Fields do not depend on the engine. The separable one needs no grid between the
    atoms and the points. Of a crystal, it sees all atoms within reach of the points.

    Parameters
    ----------
    structure : Structure
    weights : ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    points : Points
    transform : Transform
        Its exponents have no effect.
    components : bool, default=False
        Whether to return the components in place of their softened modulus.

    Returns
    -------
    dict of ndarray
        As from :meth:`~skscatharm.engine.separable.SeparableEngine.fields`.
    """
    library = Library("numpy", "cpu")
    tol = transform.tol
    if transform.softening > 0:
        tol = max(_OF_FIELDS * tol, _LEAST_OF_FIELDS)
    transform = replace(transform, exponents=(1.0,), tol=tol, dtype="float64")
    with _computing(library):
        engine = SeparableEngine(transform, library)
        if any(structure.pbc):
            low, high = points.box
            reach = engine.reach()
            chosen, positions = images_within(structure, low - reach, high + reach)
            structure = Structure(structure.charges[chosen], positions)
            weights = weights[:, chosen]
        (atoms,) = _atoms([structure], [weights])
        return engine.fields(atoms, points, components)


def _engine(transform: Transform, library: Library) -> StructureEngine:
    return StructureEngine(transform, library, make_engine(transform, library))


@contextmanager
def _computing(library: Library) -> Iterator[None]:
    keep_freed_memory()
    # The matrices are small: more threads would only wait for each other. Fields end
    # in tails that are rounded to zero, whatever the user's settings make of that.
    with one_blas_thread(), library.scope(), np.errstate(all="ignore"):
        yield


def _atoms(structures: Sequence[Structure], weights: Sequence[_Array]) -> list[Atoms]:
    return [
        Atoms(s.positions, s.charges, rows, s.cell, s.pbc, s.reference)
        for s, rows in zip(structures, weights, strict=True)
    ]
