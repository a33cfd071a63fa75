"""Array libraries: the one place that tells them apart."""

from typing import Any

import numpy as np
from array_api_compat import is_cupy_array, is_torch_array
from numpy.typing import NDArray

__all__ = ["keep_freed_memory", "to_numpy"]


def to_numpy(array: Any) -> NDArray[np.float64]:
    """Bring an array back from where it was computed, in double precision."""
    if is_cupy_array(array):
        array = array.get()
    elif is_torch_array(array):
        array = array.cpu()
    return np.asarray(array, dtype=np.float64)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of arrays that are freed, to give it out again.

    glibc hands freed arrays of more than 128 KiB back to the system, and getting their
    pages anew can take as long as computing with them. It raises that limit to the size
    of the largest array freed so far, up to 32 MiB; it need not have been used.
    """
    np.empty(2**25 - 2**16, dtype=np.uint8)
