"""Private functions of scikit-learn, imported here alone.

Seen in, and tested with, scikit-learn 1.6, 1.7, 1.8 and 1.9:

``sklearn.base._fit_context``
    In all of them.
``sklearn.utils._param_validation.Interval``, ``Options``, ``StrOptions``
    In all of them.
``sklearn.utils._array_api._convert_to_numpy``, ``get_namespace``
    In all of them; since 1.8, ``move_to`` calls the first.
``sklearn.utils._array_api.move_to``
    Since 1.8.
"""

from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj, is_numpy_array
from numpy.typing import NDArray
from sklearn.base import _fit_context
from sklearn.utils import _array_api
from sklearn.utils._param_validation import Interval, Options, StrOptions

__all__ = ["Interval", "Options", "StrOptions", "_fit_context", "to_numpy"]


def to_numpy(array: Any) -> NDArray[Any]:
    """Move an array of any library to the CPU, as an array of NumPy.

    Parameters
    ----------
    array : array-like
        Arrays on a device are moved only with ``array_api_dispatch=True``.

    Returns
    -------
    array : ndarray
        With numbers of the same type.
    """
    if is_numpy_array(array) or not is_array_api_obj(array):
        return np.asarray(array)
    if hasattr(_array_api, "move_to"):
        return _array_api.move_to(array, xp=np, device="cpu")
    xp, _ = _array_api.get_namespace(array)
    return _array_api._convert_to_numpy(array, xp)
