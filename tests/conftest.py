import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

# Read when SciPy is imported; without it, scikit-learn accepts NumPy arrays only.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray
from sklearn.utils import Bunch
from threadpoolctl import threadpool_limits

from skscatharm.datasets import load_qm9_sample
from skscatharm.engine.compiled import near_columns


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep BLAS to one thread: where tests run in parallel, more are in the way."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module", autouse=True)
def _stop_idle_workers() -> Iterator[None]:
    """Stop the processes of joblib after each file.

    They stop by themselves after five idle minutes, and a call at that moment may wait
    for them forever.
    """
    yield
    get_reusable_executor(reuse=True).shutdown()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def qm9() -> Bunch:
    """The sample of QM9 with all properties; shared, and so not to be written to."""
    sample = load_qm9_sample(target="all")
    sample.data.setflags(write=False)
    sample.target.setflags(write=False)
    return sample


@pytest.fixture(scope="session")
def molecules(qm9: Bunch) -> NDArray[np.float64]:
    """Twenty molecules of QM9, of different sizes."""
    return qm9.data[:20]


@pytest.fixture(
    params=[
        "array_api_strict",
        "torch",
        pytest.param("cupy", marks=pytest.mark.device),
    ]
)
def xp(request: pytest.FixtureRequest) -> Any:
    """Each array library other than NumPy."""
    if request.param == "array_api_strict":
        return import_module(request.param)
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    library = import_module(f"array_api_compat.{request.param}")
    if request.param == "cupy" and not library.cuda.is_available():
        pytest.skip("CuPy finds no CUDA device")
    return library


@pytest.fixture
def whole_grids(monkeypatch) -> None:
    """Integrate over all points of grids. Compiled passes leave out far ones."""
    monkeypatch.setattr(
        "skscatharm.engine.tiles.near_columns",
        lambda x, y, positions, reach: near_columns(x, y, positions, np.inf),
    )
