"""A fitted pipeline that is saved and loaded predicts the same."""

import joblib
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import (
    CoefficientStore,
    KernelRegressor,
    MultilinearRegressor,
    SolidHarmonicScattering,
)

# Types of this package in a file of skops.
TRUSTED = [
    "skscatharm.regression.kernel.KernelRegressor",
    "skscatharm.regression.multilinear.MultilinearRegressor",
    "skscatharm.scattering.SolidHarmonicScattering",
    "skscatharm.store.files.CoefficientStore",
]


@pytest.fixture(params=["ridge", "kernel", "quadratic", "trained"])
def fitted(request, qm9, tmp_path):
    regression = {
        "ridge": make_pipeline(StandardScaler(), Ridge()),
        "kernel": KernelRegressor(random_state=0),
        "quadratic": MultilinearRegressor(random_state=0),
        "trained": MultilinearRegressor(
            3, n_components=4, max_epochs=2, warm_start=True, random_state=0
        ),
    }
    scattering = SolidHarmonicScattering(
        J=1, L=1, sigma=0.8, memory=CoefficientStore(tmp_path / "store")
    )
    pipeline = make_pipeline(scattering, regression[request.param])
    return pipeline.fit(qm9.data[:20], qm9.target[:20, 7])


def assert_predicts_the_same(copy, fitted, qm9) -> None:
    assert_array_equal(copy.predict(qm9.data[:30]), fitted.predict(qm9.data[:30]))
    # It can also be fitted again, from where training ended.
    for pipeline in (copy, fitted):
        pipeline.fit(qm9.data[:20], qm9.target[:20, 7])
    assert_array_equal(copy.predict(qm9.data[:30]), fitted.predict(qm9.data[:30]))


def test_joblib(fitted, qm9, tmp_path) -> None:
    joblib.dump(fitted, tmp_path / "model.joblib")
    assert_predicts_the_same(joblib.load(tmp_path / "model.joblib"), fitted, qm9)


def test_skops(fitted, qm9, tmp_path) -> None:
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    path = tmp_path / "model.skops"
    skops.dump(fitted, path)
    assert set(skops.get_untrusted_types(file=path)) <= set(TRUSTED)
    assert_predicts_the_same(skops.load(path, trusted=TRUSTED), fitted, qm9)
