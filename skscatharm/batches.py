"""Molecules in batches: parallel, with a progress bar."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm._progress import progress_bar
from skscatharm._threads import one_blas_thread

__all__ = ["each_batch", "in_batches"]

_DEVICE_BATCH = 8192  # molecules, that the engine divides by size and memory


def in_batches(
    function: Callable[..., NDArray[np.float64]], *columns: Any, **options: Any
) -> NDArray[np.float64]:
    """Call a function with batches of molecules in parallel, and join the results.

    The parameters are those of :func:`each_batch`.

    Returns
    -------
    ndarray of shape (n_molecules, ...)
    """
    return np.concatenate(list(each_batch(function, *columns, **options)))


def each_batch(
    function: Callable[..., Any],
    *columns: Any,
    on_device: bool,
    n_jobs: int | None,
    verbose: int,
    largest: int = 32,
    unit: str = "molecule",
) -> Iterator[Any]:
    """Call a function with batches of molecules in parallel, and yield the results.

    Parameters
    ----------
    function : callable
        Returns one entry for each molecule.
    *columns : sequence
        Each has one entry for each molecule.
    on_device : bool
        Whether a device computes: one process fills it with large batches.
    n_jobs : int or None
    verbose : int
        Show a progress bar if not 0.
    largest : int, default=32
        Molecules that a process computes at a time, or fewer.
    unit : str, default="molecule"
        Name of an entry, in the progress bar.
    """
    n_molecules = len(columns[0])
    options: dict[str, Any] = {}
    if on_device:
        # The engine divides the batch. While the device computes one, another thread
        # prepares the next.
        n_jobs, size = min(2, -(-n_molecules // _DEVICE_BATCH)), _DEVICE_BATCH
        options["backend"] = "threading"
    else:
        # Several batches for each worker, so that none waits long for the last.
        size = int(np.clip(n_molecules // (8 * effective_n_jobs(n_jobs)), 1, largest))
        if n_molecules <= size:  # other processes would only wait for the function
            n_jobs = 1
    # The backends of clusters have no generators.
    backend, _ = get_active_backend()
    results = Parallel(
        n_jobs,
        return_as="generator" if backend.supports_return_generator else "list",
        **options,
    )(
        delayed(function)(*(column[batch] for column in columns))
        for batch in gen_batches(n_molecules, size)
    )
    # The limit is for this process and its threads; other processes set their own.
    with one_blas_thread(), progress_bar(verbose, unit, n_molecules) as update:
        for result in results:
            update(len(result))
            yield result
