"""The engines: everything that computes with arrays of fields."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from skscatharm.engine import fourier, separable
from skscatharm.engine.arrays import Library, keep_freed_memory
from skscatharm.structures import Structure
from skscatharm.transform.transform import Transform

__all__ = ["find_engine", "molecule_memory", "scattering_batch"]

# Bytes that keep any device busy. Larger batches only fill up more of smaller boxes.
_BUSY = 4 * 2**30


def find_engine(engine: str, library: Library) -> str:
    """Choose the engine: for "auto", the faster one where the library computes."""
    if engine == "auto":
        return "fourier" if library.on_device else "separable"
    return engine


def molecule_memory(
    positions: NDArray[np.float64],
    n_channels: int,
    transform: Transform,
    library: Library,
) -> float:
    """Estimate the bytes that `scattering_batch` takes at least for a molecule."""
    if transform.engine == "fourier":
        return fourier.field_memory(
            fourier.extent(positions),
            n_channels,
            transform.paths,
            **_options(transform, library),
        )
    if any(len(path.scales) > 1 for path in transform.paths):
        return separable.grid_memory(
            positions, n_channels, transform.sigma, transform.dtype
        )
    return 0.0


def _options(transform: Transform, library: Library) -> dict[str, Any]:
    xp = library.namespace()
    return {
        "Q": transform.exponents,
        "sigma": transform.sigma,
        "tol": transform.tol,
        "softening": transform.softening,
        "xp": xp,
        "dtype": getattr(xp, transform.dtype),
    }


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
    options = _options(transform, library)
    positions = [structure.positions for structure in structures]
    keep_freed_memory()
    # The matrices are small: more threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"), library.scope():
        if transform.engine == "fourier":
            return _fourier_scattering(
                positions, weights, transform.paths, library, options
            )
        return np.stack(
            [
                separable.scattering(r, w, transform.paths, **options)
                for r, w in zip(positions, weights, strict=True)
            ]
        )


def _fourier_scattering(
    positions: Sequence[NDArray[np.float64]],
    weights: Sequence[NDArray[np.float64]],
    paths: Sequence[Any],
    library: Library,
    options: dict[str, Any],
) -> NDArray[np.float64]:
    """Compute as many molecules at a time as the device has memory for."""
    extents = np.stack([fourier.extent(r) for r in positions])
    n_channels = len(weights[0])
    results = np.empty((len(positions), len(paths), n_channels, len(options["Q"])))

    def fits(batch: NDArray[np.int64]) -> bool:
        box = extents[batch].max(axis=0)
        memory = fourier.field_memory(box, n_channels, paths, **options)
        return len(batch) * memory < min(library.free_memory(), _BUSY)

    pending = [np.arange(len(positions))]
    while pending:
        batch = pending.pop()
        if len(batch) == 1 or fits(batch):
            try:
                results[batch] = fourier.scattering(
                    [positions[i] for i in batch.tolist()],
                    [weights[i] for i in batch.tolist()],
                    paths,
                    **options,
                )
                continue
            except library.out_of_memory():
                if len(batch) == 1:
                    raise
        # Molecules share their boxes: the halves are to be of similar ones.
        axis = np.ptp(extents[batch], axis=0).argmax()
        pending += np.array_split(batch[extents[batch, axis].argsort()], 2)
    return results
