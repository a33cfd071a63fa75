"""Loops compiled by numba, with a cache on disk where there is a place for one."""

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compile_loops"]


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile a function for processors when it is first called.

    The compiled code is kept in numba's cache. Where no folder can be written to, it
    is compiled anew in each process, which takes some seconds.
    """
    options: dict[str, Any] = {
        # Sums may be taken in any order, and products and sums at once.
        "fastmath": {"reassoc", "contract"},
        "nogil": True,
        "error_model": "numpy",
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return numba.njit(**options)(function)
