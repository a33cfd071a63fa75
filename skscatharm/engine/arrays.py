"""Array libraries: the one place that tells them apart."""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from array_api_compat import (
    array_namespace,
    device,
    is_numpy_namespace,
    is_torch_array,
)
from numpy.typing import NDArray

__all__ = [
    "Library",
    "differentiable",
    "fft_namespace",
    "find_library",
    "keep_freed_memory",
    "requires_gradient",
    "to_host",
    "to_library_of",
    "to_numpy",
]


class Library(NamedTuple):
    """An array library and a device of it, both by name, so that they can be sent.

    Attributes
    ----------
    name : {"numpy", "cupy", "torch"}
    device : str or int
        The number of a device of CuPy, the name of one of PyTorch, or "cpu".
    """

    name: str
    device: str | int

    @property
    def on_device(self) -> bool:
        """Whether arrays lie elsewhere than in the memory of the CPU."""
        return self.device != "cpu"

    def namespace(self) -> Any:
        """Return the functions of the library, as in the array API standard."""
        return np if self.name == "numpy" else _compatible(self.name)

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context in which new arrays go to the device."""
        if self.name == "cupy":
            return _compatible("cupy").cuda.Device(self.device)
        if self.name == "torch":
            return _compatible("torch").device(self.device)
        return nullcontext()

    def free_memory(self) -> int:
        """Ask for the bytes that arrays on the device may still take; 0 for a CPU."""
        if not self.on_device:
            return 0
        xp = _compatible(self.name)
        if self.name == "cupy":
            free, _ = xp.cuda.runtime.memGetInfo()
            return free + xp.get_default_memory_pool().free_bytes()
        free, _ = xp.cuda.mem_get_info(self.device)
        kept = xp.cuda.memory_reserved(self.device)
        return free + kept - xp.cuda.memory_allocated(self.device)

    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """Return what the library raises when memory runs out."""
        if self.name == "torch":
            return (_compatible("torch").OutOfMemoryError,)
        if self.name == "cupy":  # cuFFT has no error of its own for it
            return (MemoryError, import_module("cupy.cuda.cufft").CuFFTError)
        return (MemoryError,)


def _compatible(name: str) -> Any:
    return import_module(f"array_api_compat.{name}")


def find_library(backend: str, X: Any) -> Library:
    """Choose the array library that computes.

    Parameters
    ----------
    backend : {"auto", "numpy", "cupy", "torch"}
        "auto" is PyTorch if `X` is a tensor on a CUDA device, otherwise CuPy if it
        finds a device, and NumPy if it does not.
    X : object
        The molecules. If they are an array of the library, it computes on their device.

    Returns
    -------
    Library

    Raises
    ------
    ImportError
        If the library is not installed.
    RuntimeError
        If CuPy finds no device or does not work.

    Warns
    -----
    UserWarning
        If "auto" finds a CuPy that does not work.
    """
    if backend == "auto":
        backend = "torch" if is_torch_array(X) and X.is_cuda else _cupy_or_numpy()
    if backend == "cupy":
        _check_cupy()
        current = _compatible("cupy").cuda.Device()
        return Library("cupy", (X.device if _is_cupy_array(X) else current).id)
    if backend == "torch":
        try:
            torch = import_module("torch")
        except ImportError as error:
            raise ImportError(
                "backend='torch' needs PyTorch: install it with `pip install torch`."
            ) from error
        if is_torch_array(X):
            return Library("torch", str(X.device) if X.is_cuda else "cpu")
        return Library("torch", "cuda" if torch.cuda.is_available() else "cpu")
    return Library("numpy", "cpu")


def _cupy_or_numpy() -> str:
    """Choose CuPy if it can compute; warn if it is there but does not work."""
    if "cupy" not in sys.modules and not _is_installed("cupy"):
        return "numpy"
    try:
        _check_cupy()
    except ImportError:
        return "numpy"
    except RuntimeError as error:
        if error.__cause__ is not None:
            # The line that calls fit or transform, which scikit-learn wraps.
            warnings.warn(f"{error} NumPy computes now.", stacklevel=6)
        return "numpy"
    return "cupy"


@cache  # to look for a package that is missing takes as long as to read coefficients
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _check_cupy() -> None:
    """Raise if CuPy cannot compute."""
    extras = "`pip install '.[cuda12]'` or `'.[cuda13]'`"
    otherwise = "or choose backend='numpy'."
    try:
        found = import_module("cupy").cuda.is_available()
        if found:
            _compatible("cupy")  # fails with versions that lack functions
    except Exception as error:  # drivers and libraries that do not fit raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise ImportError(
                f"backend='cupy' needs CuPy: install it with {extras}, after the CUDA "
                f"driver, {otherwise}"
            ) from error
        raise RuntimeError(
            f"CuPy is installed but does not work ({error!r}): check the driver with "
            f"`nvidia-smi`, install CuPy again with {extras}, {otherwise}"
        ) from error
    if not found:
        raise RuntimeError(
            "backend='cupy' needs a CUDA device, and CuPy finds none: check the driver "
            f"with `nvidia-smi`, and CUDA_VISIBLE_DEVICES, {otherwise}"
        )


def _is_cupy_array(array: Any) -> bool:
    # A CuPy that does not work may lack even its type of arrays.
    cupy_array = getattr(sys.modules.get("cupy"), "ndarray", None)
    return isinstance(cupy_array, type) and isinstance(array, cupy_array)


def fft_namespace(xp: Any) -> Any:
    """Return the Fourier transforms of a library; for NumPy those of SciPy, faster."""
    return scipy.fft if is_numpy_namespace(xp) else xp.fft


def to_host(array: Any) -> Any:
    """Turn an array of CuPy or PyTorch into one of NumPy; leave any other object.

    Raises
    ------
    ValueError
        If PyTorch would expect a gradient.
    """
    if _is_cupy_array(array):
        return array.get()
    if is_torch_array(array):
        if requires_gradient(array):
            raise ValueError(
                "The tensor requires a gradient, which is available for the positions "
                "of SolidHarmonicScattering.transform only; pass its detach()."
            )
        array = array.detach().cpu()
        # NumPy lacks some types of floating-point numbers, such as bfloat16.
        return (array.double() if array.is_floating_point() else array).numpy()
    return array


def to_numpy(array: Any) -> NDArray[np.float64]:
    """Bring an array back from where it was computed, in double precision."""
    return np.asarray(to_host(array), dtype=np.float64)


def to_library_of(X: Any, array: NDArray[np.float64]) -> Any:
    """Turn an array into one of the library of `X`, on its device."""
    if _is_cupy_array(X) or is_torch_array(X):
        return array_namespace(X).asarray(array, device=device(X))
    return array


def requires_gradient(X: Any) -> bool:
    """Whether `X` is a tensor for which PyTorch expects a gradient now."""
    return (
        is_torch_array(X)
        and bool(X.requires_grad)
        and bool(import_module("torch").is_grad_enabled())
    )


def differentiable(
    X: Any, function: Callable[[Any], Any], gradient: Callable[[Any, Any], Any]
) -> Any:
    """Call a function of molecules such that PyTorch can differentiate it once.

    Parameters
    ----------
    X : tensor of shape (n_molecules, n_atoms, 4)
        The derivatives with respect to nuclear charges, its first column, are zero.
    function : callable
        Returns a tensor of shape (n_molecules, n).
    gradient : callable
        Returns, from `X` and weights of shape (n_molecules, n), the gradient of the sum
        with these weights, of shape (n_molecules, n_atoms, 3).
    """
    torch = import_module("torch")

    class Differentiable(torch.autograd.Function):  # type: ignore[name-defined]
        @staticmethod
        def forward(context: Any, X: Any) -> Any:
            context.save_for_backward(X)
            return function(X.detach())

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context: Any, weights: Any) -> Any:
            (X,) = context.saved_tensors
            found = torch.zeros_like(X)
            slopes = gradient(X, weights).to(X.dtype)
            found[:, : slopes.shape[1], 1:] = slopes
            return found

    return Differentiable.apply(X)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of arrays that are freed, to give it out again.

    glibc hands freed arrays of more than 128 KiB back to the system, and getting their
    pages anew can take as long as computing with them. It raises that limit to the size
    of the largest array freed so far, up to 32 MiB; it need not have been used.
    """
    np.empty(2**25 - 2**16, dtype=np.uint8)
