import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, PowerTransformer, StandardScaler

from skscatharm import KernelRegressor, MultilinearRegressor, SolidHarmonicScattering
from skscatharm.display.expansion import choose_target, expand, split_model


@pytest.fixture
def sample(rng):
    """Features of very different sizes, and two targets."""
    X = rng.normal(2, 1, (40, 6)) * 10.0 ** np.arange(-3, 3)
    signs = X / 10.0 ** np.arange(-3, 3) @ rng.normal(size=(6, 2))
    return X, signs + 0.1 * signs**2


def finite_differences(model, x, relative_step):
    steps = np.diag(np.abs(x) * relative_step)
    forward, backward = model.predict(x + steps), model.predict(x - steps)
    return ((forward - backward).T / (2 * np.diag(steps))).T


def test_coefficients_of_ridge_in_units_of_the_features(sample) -> None:
    X, Y = sample
    model = make_pipeline(StandardScaler(), Ridge()).fit(X, Y[:, 0])
    values, slopes = expand(model, X[:3])
    assert_allclose(values[:, 0], model.predict(X[:3]))
    assert slopes.shape == (1, 1, 6)
    assert_allclose(slopes[0, 0], model[-1].coef_ / model[0].scale_, rtol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), "passthrough", PCA(4), Ridge()),
        make_pipeline(make_pipeline(StandardScaler(), PCA(5)), Ridge()),
        make_pipeline(SelectKBest(f_regression, k=3), MultilinearRegressor(1)),
        make_pipeline(StandardScaler(), MultilinearRegressor(2)),
        make_pipeline(MultilinearRegressor(3, n_components=4, max_epochs=3)),
        make_pipeline(StandardScaler(), KernelRegressor()),
        TransformedTargetRegressor(
            make_pipeline(StandardScaler(), Ridge()), transformer=StandardScaler()
        ),
    ],
)
def test_slopes_against_finite_differences(sample, model) -> None:
    X, Y = sample
    model.fit(X, Y[:, 0])
    values, slopes = expand(model, X[:2])
    assert_allclose(values[:, 0], model.predict(X[:2]))
    for x, slope in zip(X, np.broadcast_to(slopes[:, 0], (2, 6)), strict=False):
        expected = finite_differences(model, x, 1e-4) * np.abs(x)
        assert_allclose(slope * np.abs(x), expected, atol=1e-5 * np.abs(expected).max())


def test_several_targets(sample) -> None:
    X, Y = sample
    slopes = expand(Ridge().fit(X, Y), X).slopes
    assert slopes.shape == (1, 2, 6)
    assert_allclose(choose_target(slopes, 1), Ridge().fit(X, Y[:, 1]).coef_[np.newaxis])
    with pytest.raises(ValueError, match=r"predicts 2 targets: choose.*target=0 to 1"):
        choose_target(slopes, None)
    with pytest.raises(ValueError, match=r"target=2 is out of range.*2 targets"):
        choose_target(slopes, 2)


def test_names_of_columns_stay(sample) -> None:
    pandas = pytest.importorskip("pandas")
    X, Y = sample
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, Ridge()).fit(frame, Y[:, 0])
    expected = expand(make_pipeline(StandardScaler(), Ridge()).fit(X, Y[:, 0]), X)
    assert_allclose(expand(model, frame).slopes, expected.slopes)  # and no warning


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([Normalizer(), Ridge()], r"'normalizer' \(Normalizer\)"),
        ([StandardScaler(), PowerTransformer(), Ridge()], "'powertransformer'"),
        ([StandardScaler(), RandomForestRegressor(3)], "'randomforestregressor'"),
        ([StandardScaler(), KNeighborsRegressor()], "'kneighborsregressor'"),
    ],
)
def test_steps_that_are_not_linear_are_named(sample, steps, name) -> None:
    X, Y = sample
    model = make_pipeline(*steps).fit(X, Y[:, 0])
    with pytest.raises(ValueError, match=rf"step {name}.* is not linear.*MultilinearR"):
        expand(model, X)


def scattering():
    return SolidHarmonicScattering(J=0, L=0, Q=(1, 2), sigma=0.6, channels=["nuclear"])


def test_split_into_scattering_and_model(molecules) -> None:
    y = np.arange(20.0)
    pipeline = make_pipeline(scattering(), StandardScaler(), Ridge()).fit(molecules, y)
    first, model = split_model(pipeline)
    assert first is pipeline[0]
    assert_allclose(
        model.predict(first.transform(molecules)), pipeline.predict(molecules)
    )
    around = TransformedTargetRegressor(pipeline, transformer=StandardScaler())
    first, model = split_model(around.fit(molecules, y))
    found = expand(model, first.transform(molecules)).values[:, 0]
    assert_allclose(found, around.predict(molecules))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Ridge(), "Ridge is no pipeline"),
        (make_pipeline(StandardScaler(), Ridge()), "'standardscaler', is Standard"),
        (make_pipeline(scattering(), StandardScaler()), "last step.*no regressor"),
        (make_pipeline(scattering(), LogisticRegression()), "last step.*no regressor"),
    ],
)
def test_other_estimators(molecules, estimator: BaseEstimator, message: str) -> None:
    is_pipeline_of_molecules = "last" in message
    X = molecules if is_pipeline_of_molecules else np.arange(40.0).reshape(20, 2)
    with pytest.raises(TypeError, match=f"{message}.*make_pipeline"):
        split_model(estimator.fit(X, np.arange(20) % 2))


def test_pipeline_that_is_not_fitted() -> None:
    with pytest.raises(NotFittedError):
        split_model(make_pipeline(scattering(), Ridge()))
