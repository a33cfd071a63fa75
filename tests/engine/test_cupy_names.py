"""Every function and keyword that the engines use is in CuPy.

CuPy imports without a device, so this also runs where nothing can be computed. It reads
the source, so that no line has to run.
"""

import ast
import inspect
from pathlib import Path

import pytest

import skscatharm

PACKAGE = Path(skscatharm.__file__).parent
FILES = sorted([*PACKAGE.glob("engine/*.py"), *PACKAGE.glob("transform/*.py")])
# Names of the namespace in the source: as a variable or as the end of an attribute.
NAMESPACES = {"xp", "_xp", "cupy"}
# It calls CuPy itself, not by way of array_api_compat.
OF_CUPY = PACKAGE / "engine" / "batch_cuda.py"
# Reached in other ways: by name, or from a variable.
OTHERS = [
    "float32",
    "float64",
    "cuda.Device",
    "cuda.is_available",
    "cuda.runtime.memGetInfo",
    "get_default_memory_pool",
    "ndarray.get",
    "ndarray.device",
]
OF_TORCH = {  # in engine/arrays.py
    "cuda.mem_get_info",
    "cuda.memory_reserved",
    "cuda.memory_allocated",
}


def uses(source):
    """Yield each use of a namespace: a dotted name, and the call or None."""
    tree = ast.parse(source)
    calls = {
        id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)
    }
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            names, base = [], node
            while isinstance(base, ast.Attribute) and base.attr not in NAMESPACES:
                names.insert(0, base.attr)
                base = base.value
            end = getattr(base, "attr", getattr(base, "id", None))
            imported = "import_module('cupy')" in ast.unparse(base)
            if end == "fft":  # what fft_namespace returned
                names.insert(0, "fft")
            if names and (end in {*NAMESPACES, "fft"} or imported):
                yield ".".join(names), calls.get(id(node))


def check(name, call, namespace, original):
    """Raise unless a namespace has a name, and accepts the arguments of its call."""
    function = namespace
    for part in name.split("."):
        function = getattr(function, part)
    if call is None:
        return
    keywords = {keyword.arg for keyword in call.keywords}
    if isinstance(function, original.ufunc):
        assert len(call.args) == function.nin, name
        assert keywords <= {"out", "dtype"}, name
        return
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C
        assert all(word in function.__doc__ for word in keywords), name
        return
    signature.bind(*call.args, **dict.fromkeys(keywords))
    # A wrapper may pass on any keyword: the function itself has to accept it.
    if keywords - signature.parameters.keys():
        function = original
        for part in name.split("."):
            function = getattr(function, part)
        inspect.signature(function).bind(*call.args, **dict.fromkeys(keywords))


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip(
        "cupy", reason="cupy is not installed; its wheel needs no device for this test"
    )


@pytest.fixture(scope="module")
def namespace(cupy):
    import array_api_compat.cupy

    return array_api_compat.cupy


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_names_and_keywords(path, cupy, namespace) -> None:
    missing = []
    for name, call in uses(path.read_text()):
        if name in OF_TORCH:
            continue
        try:
            check(name, call, cupy if path == OF_CUPY else namespace, cupy)
        except (AttributeError, TypeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing


@pytest.mark.parametrize("name", OTHERS)
def test_other_names(name, cupy) -> None:
    value = cupy
    for part in name.split("."):
        value = getattr(value, part)


def test_error_of_fft(cupy) -> None:
    # The module needs cuFFT; its source comes with CuPy.
    source = Path(cupy.__file__).parent / "cuda" / "cufft.pyx"
    assert "class CuFFTError(RuntimeError)" in source.read_text()


def test_uses_are_found() -> None:
    """All of the functions that the engines need, whatever the namespace is called."""
    found = {name for path in FILES for name, _ in uses(path.read_text())}
    assert {"matmul", "permute_dims", "fft.irfft", "RawKernel", "exp"} <= found
    assert len(found) > 30
    snippet = "self.xp.no(1, a=2); fft.none(x, s=y); import_module('cupy').never(z)"
    assert [name for name, _ in uses(snippet)] == ["no", "fft.none", "never"]


@pytest.mark.parametrize(
    "snippet",
    [
        "xp.concatenated(x)",
        "xp.concat([x], axes=1)",
        "xp.sqrt(x, y)",
        "xp.sum(x, ax=1)",
    ],
)
def test_what_is_missing_is_noticed(snippet, cupy, namespace) -> None:
    ((name, call),) = uses(snippet)
    with pytest.raises((AttributeError, TypeError, AssertionError)):
        check(name, call, namespace, cupy)
