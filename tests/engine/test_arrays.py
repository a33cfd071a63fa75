import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skscatharm.engine import arrays
from skscatharm.engine.arrays import Library, find_library, to_host, to_library_of

X = np.ones((2, 3, 4))


@pytest.fixture(autouse=True)
def _look_for_packages_again():
    """Forget which packages are installed: tests change it."""
    arrays._is_installed.cache_clear()
    yield
    arrays._is_installed.cache_clear()


@pytest.fixture(params=["missing", "no device"])
def no_cupy(request, monkeypatch):
    """A computer where CuPy cannot compute, and what is raised there."""
    if request.param == "missing":
        monkeypatch.setitem(sys.modules, "cupy", None)
        return ImportError, r"pip install '\.\[cuda12\]'"
    cuda = SimpleNamespace(is_available=lambda: False)
    cupy = SimpleNamespace(cuda=cuda, ndarray=type(None))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return RuntimeError, "no.*nvidia-smi"


def test_cupy_cannot_compute(no_cupy) -> None:
    error, message = no_cupy
    assert find_library("auto", X) == Library("numpy", "cpu")
    with pytest.raises(error, match=message):
        find_library("cupy", X)


BROKEN = {
    "AttributeError at import": "raise AttributeError('_ARRAY_API not found')",
    "RuntimeError at import": "raise RuntimeError('no libnvrtc')",
    "ImportError at import": "raise ImportError('libcuda.so.1: cannot open')",
    "dependency": "import fastrlock_that_is_missing",
    "driver": (
        "ndarray = type('ndarray', (), {})\n"
        "class cuda:\n"
        "    def is_available():\n"
        "        raise RuntimeError('cudaErrorInsufficientDriver')\n"
    ),
    "too old": "class cuda: pass",
    "too old to compute": "class cuda:\n    def is_available(): return True\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_cupy_does_not_work(name, tmp_path, monkeypatch) -> None:
    (tmp_path / "cupy.py").write_text(BROKEN[name])
    monkeypatch.syspath_prepend(tmp_path)
    for module in [m for m in sys.modules if m.partition(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "array_api_compat.cupy", raising=False)
    try:
        with pytest.warns(UserWarning, match="does not work .* NumPy computes now"):
            assert find_library("auto", X) == Library("numpy", "cpu")
        assert find_library("numpy", X) == Library("numpy", "cpu")
        with pytest.raises(RuntimeError, match=r"nvidia-smi.*numpy") as caught:
            find_library("cupy", X)
        assert caught.value.__cause__ is not None
        assert to_host(X) is X
        assert to_library_of(X, X) is X
    finally:
        sys.modules.pop("cupy", None)


def test_torch_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        find_library("torch", X)


def test_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.asarray(X)
    assert find_library("torch", tensor) == Library("torch", "cpu")
    assert find_library("numpy", tensor) == Library("numpy", "cpu")
    assert find_library("torch", X).on_device == torch.cuda.is_available()


def test_torch_on_a_device() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    tensor = torch.asarray(X, device="cuda:0")
    library = find_library("auto", tensor)
    assert library == find_library("torch", tensor) == Library("torch", "cuda:0")
    assert library.free_memory() > 0
    with library.scope():
        assert library.namespace().asarray(X).is_cuda
    with pytest.raises(library.out_of_memory()), library.scope():
        torch.empty(2**50)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_library_on_the_cpu(name) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    library = pickle.loads(pickle.dumps(Library(name, "cpu")))
    assert not library.on_device
    assert library.free_memory() == 0
    with library.scope():
        array = library.namespace().asarray(X)
    assert type(array).__module__.startswith(name)
    with pytest.raises(library.out_of_memory()):
        raise library.out_of_memory()[0]


def test_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no CUDA device")
    library = find_library("auto", X)
    assert library == find_library("auto", cupy.asarray(X)) == Library("cupy", 0)
    assert library.free_memory() > 0
    with library.scope():
        assert library.namespace().asarray(X).device.id == 0
    with pytest.raises(library.out_of_memory()):
        cupy.empty(2**50)


def test_arrays_of_other_libraries_there_and_back(xp) -> None:
    if "strict" in xp.__name__:
        pytest.skip("array_api_strict is no library that users bring arrays of")
    array = xp.asarray(X)
    assert_array_equal(to_host(array), X)
    back = to_library_of(array, X)
    assert type(back) is type(array)
    assert back.device == array.device


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_of_floating_type_become_arrays(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.asarray(X / 4, dtype=getattr(torch, dtype))
    array = to_host(tensor)
    assert type(array) is np.ndarray
    assert array.dtype == np.float64
    assert_array_equal(array, X / 4)


def test_tensors_of_integers_become_arrays() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert_array_equal(to_host(torch.asarray(X).to(torch.int32)), X)


def test_gradients_are_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.asarray(X).requires_grad_(True)
    with pytest.raises(ValueError, match=r"gradient.*detach\(\)"):
        to_host(tensor)
    assert_array_equal(to_host(tensor.detach()), X)
    with torch.no_grad():
        assert_array_equal(to_host(tensor), X)


def test_other_objects_stay_what_they_are() -> None:
    molecules = [object()]
    assert to_host(molecules) is molecules
    assert to_library_of(molecules, X) is X
