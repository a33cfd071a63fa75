"""A fitted pipeline comes back from a file, and predicts the same."""

import joblib
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import CoefficientStore, MultilinearRegressor, SolidHarmonicScattering

# What a file may hold of this package, when skops loads it.
TRUSTED = [
    "skscatharm.regression.multilinear.MultilinearRegressor",
    "skscatharm.scattering.SolidHarmonicScattering",
    "skscatharm.store.files.CoefficientStore",
]


@pytest.fixture(params=["ridge", "multilinear"])
def fitted(request, qm9, tmp_path):
    regression = {
        "ridge": make_pipeline(StandardScaler(), Ridge()),
        "multilinear": MultilinearRegressor(random_state=0),
    }
    scattering = SolidHarmonicScattering(
        J=1, L=1, sigma=0.8, memory=CoefficientStore(tmp_path / "store")
    )
    pipeline = make_pipeline(scattering, regression[request.param])
    return pipeline.fit(qm9.data[:20], qm9.target[:20, 7])


def test_joblib(fitted, qm9, tmp_path) -> None:
    joblib.dump(fitted, tmp_path / "model.joblib")
    copy = joblib.load(tmp_path / "model.joblib")
    assert_array_equal(copy.predict(qm9.data[:30]), fitted.predict(qm9.data[:30]))


def test_skops(fitted, qm9, tmp_path) -> None:
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    path = tmp_path / "model.skops"
    skops.dump(fitted, path)
    assert set(skops.get_untrusted_types(file=path)) <= set(TRUSTED)
    copy = skops.load(path, trusted=TRUSTED)
    assert_array_equal(copy.predict(qm9.data[:30]), fitted.predict(qm9.data[:30]))
