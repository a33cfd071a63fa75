"""Array libraries: the one place that tells them apart."""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from array_api_compat import (
    array_namespace,
    device,
    is_cupy_array,
    is_numpy_namespace,
    is_torch_array,
)
from numpy.typing import NDArray

__all__ = [
    "Library",
    "fft_namespace",
    "find_library",
    "keep_freed_memory",
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
        If CuPy finds no device.
    """
    if backend == "auto":
        if is_torch_array(X) and X.is_cuda:
            backend = "torch"
        else:
            backend = "numpy" if _cupy_is_missing() else "cupy"
    if backend == "cupy":
        if error := _cupy_is_missing():
            raise error
        current = _compatible("cupy").cuda.Device()
        return Library("cupy", (X.device if is_cupy_array(X) else current).id)
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


def _cupy_is_missing() -> Exception | None:
    """Say why CuPy cannot compute, or None if it can."""
    otherwise = "or choose backend='numpy'."
    try:
        cupy = import_module("cupy")
    except ImportError:
        return ImportError(
            "backend='cupy' needs CuPy: install it with `pip install "
            f"'skscatharm[cuda12]'` or `[cuda13]`, after the CUDA driver, {otherwise}"
        )
    if cupy.cuda.is_available():
        return None
    return RuntimeError(
        "backend='cupy' needs a CUDA device, and CuPy finds none: check the driver "
        f"with `nvidia-smi`, and CUDA_VISIBLE_DEVICES, {otherwise}"
    )


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
    if is_cupy_array(array):
        return array.get()
    if is_torch_array(array):
        if array.requires_grad and import_module("torch").is_grad_enabled():
            raise ValueError(
                "X is a tensor that requires a gradient, and gradients are not "
                "available yet; pass X.detach()."
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
    if is_cupy_array(X) or is_torch_array(X):
        return array_namespace(X).asarray(array, device=device(X))
    return array


def keep_freed_memory() -> None:
    """Let the C library keep the memory of arrays that are freed, to give it out again.

    glibc hands freed arrays of more than 128 KiB back to the system, and getting their
    pages anew can take as long as computing with them. It raises that limit to the size
    of the largest array freed so far, up to 32 MiB; it need not have been used.
    """
    np.empty(2**25 - 2**16, dtype=np.uint8)
