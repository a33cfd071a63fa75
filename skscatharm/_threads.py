"""One BLAS thread for the whole process while small matrices are multiplied."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import threadpoolctl

__all__ = ["one_blas_thread"]

_lock = Lock()
_n_users = 0
_limit: Any = None

# A process that is forked while another thread holds the lock could never enter.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> Any:
    """Find the BLAS libraries, again only if modules were imported meanwhile.

    The search needs 1.7 ms, a limit of the libraries it found 0.02 ms.
    """
    return threadpoolctl.ThreadpoolController()


def _set_threads(set_threads: Callable[[], Any]) -> Any:
    """Set numbers of threads, whichever thread of the process set them before.

    Since version 3.8 of threadpoolctl, one thread alone can set those of OpenBLAS:
    calls of others do nothing. The first to enter and the last to leave may differ.
    """
    openblas = threadpoolctl.OpenBLASController
    release = getattr(openblas, "clear_controlling_thread", lambda force: None)
    release(force=True)
    result = set_threads()
    release(force=True)
    return result


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread, since more would wait for each other.

    The number of threads belongs to the process. The first to enter saves and limits
    it, and the last to leave restores it. The order of the others does not matter.
    Entering again, in the same or in another thread, needs a microsecond.

    Examples
    --------
    >>> import numpy as np
    >>> from skscatharm._threads import one_blas_thread
    >>> with one_blas_thread():
    ...     product = np.eye(3) @ np.eye(3)
    """
    global _n_users, _limit
    entered = False
    # Inside of `try` from the start: Ctrl-C can come anywhere.
    try:
        with _lock:
            if _n_users == 0:
                libraries = _libraries(len(sys.modules))
                _limit = _set_threads(
                    partial(libraries.limit, limits=1, user_api="blas")
                )
            _n_users += 1
            entered = True
        yield
    finally:
        if entered:
            with _lock:
                _n_users -= 1
                if _n_users == 0:
                    _set_threads(_limit.restore_original_limits)
