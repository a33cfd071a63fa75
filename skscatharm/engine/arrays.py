"""Array libraries: the one place that tells them apart."""

from typing import Any

import numpy as np
from array_api_compat import to_device
from numpy.typing import NDArray

__all__ = ["to_numpy"]


def to_numpy(array: Any) -> NDArray[np.float64]:
    """Bring an array back from where it was computed, in double precision."""
    return np.asarray(to_device(array, "cpu"), dtype=np.float64)
