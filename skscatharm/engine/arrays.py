"""Array libraries: the one place that tells them apart."""

from typing import Any

import numpy as np
from array_api_compat import is_cupy_array, is_torch_array
from numpy.typing import NDArray

__all__ = ["to_numpy"]


def to_numpy(array: Any) -> NDArray[np.float64]:
    """Bring an array back from where it was computed, in double precision."""
    if is_cupy_array(array):
        array = array.get()
    elif is_torch_array(array):
        array = array.cpu()
    return np.asarray(array, dtype=np.float64)
