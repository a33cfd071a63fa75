"""What runs on one machine runs on a cluster as it is."""

import os
import signal
from collections.abc import Iterator
from threading import Thread
from time import sleep

import joblib
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import CoefficientStore, SolidHarmonicScattering

dask = pytest.importorskip("dask", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="dask is not installed")

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GRID = {
    "solidharmonicscattering__J": [0, 1],
    "solidharmonicscattering__L": [0, 1],
    "solidharmonicscattering__Q": [(1,), (0.5, 2)],
}


@pytest.fixture(scope="module")
def client() -> Iterator["distributed.Client"]:
    """A cluster of three worker processes."""
    # Workers may take long to start while other tests keep the processors busy.
    patience = dict.fromkeys(["connect", "tcp"], "300s")
    with (
        dask.config.set({"distributed.comm.timeouts": patience}),
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def pipeline(tmp_path):
    memory = CoefficientStore(tmp_path / "store", ahead=1)
    return make_pipeline(
        SolidHarmonicScattering(J=1, L=1, sigma=0.8, tol=5e-3, memory=memory),
        StandardScaler(),
        Ridge(),
    )


@pytest.fixture
def data(qm9):
    return qm9.data[:30], qm9.target[:30, qm9.target_names.index("U0")]


@pytest.mark.parametrize("with_store", [False, True])
def test_transform(with_store, client, molecules, pipeline) -> None:
    scattering = pipeline[0]
    if not with_store:
        scattering.set_params(memory=None)
    with joblib.parallel_config(backend="dask"):
        found = scattering.transform(molecules)
    assert_array_equal(found, scattering.set_params(memory=None).transform(molecules))


def test_cross_validation(client, data, pipeline) -> None:
    with joblib.parallel_config(backend="dask"):
        found = cross_val_score(pipeline, *data, cv=3)
    assert_array_equal(found, cross_val_score(pipeline, *data, cv=3))


def test_search_while_a_worker_is_killed(client, data, pipeline, tmp_path) -> None:
    X, y = data
    killed = []

    def kill_one() -> None:
        while not list((tmp_path / "store").rglob("*.segment")):
            sleep(0.01)
        pids = client.run(os.getpid)
        busy = [worker for worker, tasks in client.processing().items() if tasks]
        victim = (busy or list(pids))[0]
        os.kill(pids[victim], signal.SIGKILL)
        killed.append(victim)

    search = GridSearchCV(pipeline, GRID, cv=3)
    thread = Thread(target=kill_one)
    thread.start()
    with joblib.parallel_config(backend="dask", scatter=[X, y]):
        search.fit(X, y)
    thread.join()
    assert len(killed) == 1

    pipeline[0].set_params(memory=CoefficientStore(tmp_path / "local", ahead=1))
    local = GridSearchCV(pipeline, GRID, cv=3).fit(X, y)
    assert search.best_params_ == local.best_params_
    assert_array_equal(
        search.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"]
    )
    assert_array_equal(search.predict(X), local.predict(X))
