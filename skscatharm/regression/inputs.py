"""Inputs of the regressor, from any array library, as real numbers."""

from typing import Any

import numpy as np
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_array_api_strict_namespace,
    is_cupy_array,
    is_torch_array,
)
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.utils import check_array
from sklearn.utils.validation import check_non_negative

from skscatharm.regression.whitening import Array

__all__ = ["check_weight", "has_double_precision", "real_numbers", "to_doubles"]


def real_numbers(array: Any, name: str) -> Any:
    """Refuse masked and complex entries, and widen floats of less than 32 bits.

    Parameters
    ----------
    array : object
        Sequences and tables are returned unchanged, for scikit-learn to check.
    name : str
        Name of the argument, for messages.

    Returns
    -------
    array : object
        Tensors are detached from their graph. Those of float16, bfloat16 and the like
        become float32: NumPy or scikit-learn refuse some of these types.

    Raises
    ------
    ValueError
        If there are masked or complex entries.
    """
    if np.ma.is_masked(array):
        raise ValueError(
            f"{name} has masked entries. Remove these samples, or fill the entries "
            f"with {name}.filled(value)."
        )
    if isinstance(array, list | tuple) and get_config()["array_api_dispatch"]:
        # Before 1.9, scikit-learn refuses lists then.
        array = np.asarray(array)
    if not is_array_api_obj(array):
        return array
    xp = array_namespace(array)
    if xp.isdtype(array.dtype, "complex floating"):
        raise ValueError(
            f"Complex data not supported: {name} has type {array.dtype}. Pass real "
            "numbers."
        )
    if is_torch_array(array):
        array = array.detach()
        if array.is_floating_point() and xp.finfo(array.dtype).bits < 32:
            array = array.float()
    return array


def to_doubles(array: Any) -> Array:
    """Move an array of any library to the CPU, in double precision.

    This does not depend on the configuration of scikit-learn, which threads do not
    inherit.
    """
    if is_torch_array(array):
        array = array.cpu()
    elif is_cupy_array(array):
        array = array.get()
    elif is_array_api_obj(array):
        xp = array_namespace(array)
        if is_array_api_strict_namespace(xp):
            array = xp.asarray(array, device=xp.Device("CPU_DEVICE"))
    return np.asarray(array, dtype=np.float64)


def check_weight(sample_weight: ArrayLike | None, n_samples: int) -> Array:
    """Check the weights of the samples.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        A number is the weight of each sample. None means 1.
    n_samples : int
        Number of samples.

    Returns
    -------
    weight : ndarray of shape (n_samples,)
        Finite weights, 0 or more, not all 0.

    Raises
    ------
    ValueError
        If there are no such weights.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    if not is_array_api_obj(sample_weight):
        sample_weight = np.asarray(sample_weight, dtype=object)
    given = real_numbers(sample_weight, "sample_weight")
    try:
        weight = to_doubles(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must hold real numbers: {error}") from error
    if weight.ndim == 0:
        weight = np.full(n_samples, weight)
    weight = check_array(weight, ensure_2d=False, input_name="sample_weight")
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}. Pass one weight for each of the "
            f"{n_samples} samples, or one number for all."
        )
    check_non_negative(weight, "sample_weight")
    if not weight.any():
        raise ValueError("sample_weight is zero for all samples; none would be used.")
    return weight


def has_double_precision(xp: Any, device: Any) -> bool:
    """Find out whether a device computes in double precision."""
    return "float64" in xp.__array_namespace_info__().dtypes(device=device)
