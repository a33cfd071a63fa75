from types import SimpleNamespace

import numba
import pytest

from skscatharm.engine import _numba


@pytest.fixture
def no_cache(monkeypatch):
    """A computer where numba finds no folder for its cache."""
    njit = numba.njit

    def without(**options):
        compiler = njit(**options | {"cache": False})

        def compiled(function):
            if options.get("cache"):
                raise RuntimeError("cannot cache function: no locator available")
            return compiler(function)

        return compiled

    monkeypatch.setattr(_numba, "numba", SimpleNamespace(njit=without))


def add(x, y):
    return x + y


def test_loops_are_compiled_where_nothing_can_be_cached(no_cache) -> None:
    compiled = _numba.compile_loops(add)
    assert compiled(1, 2) == 3
    assert isinstance(compiled, numba.core.dispatcher.Dispatcher)
