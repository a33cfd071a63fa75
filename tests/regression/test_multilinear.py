import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from synthetic import collinear, product_of_forms, relative_error
from threadpoolctl import threadpool_info, threadpool_limits

from skscatharm import MultilinearRegressor, SolidHarmonicScattering
from skscatharm.engine.arrays import to_numpy
from skscatharm.regression import multilinear, quadratic, uncertainty
from skscatharm.regression.descent import Stopped

# Trained for a short time, but long enough to differ from noise.
TRAINED = MultilinearRegressor(
    3, n_components=4, n_starts=2, max_epochs=5, random_state=0
)
MODELS = {
    "ridge": MultilinearRegressor(1, random_state=0),
    "quadratic": MultilinearRegressor(2, random_state=0),
    "bilinear": clone(TRAINED).set_params(degree=2, n_starts=1),
    "trilinear": TRAINED,
}


@pytest.fixture(params=MODELS)
def model(request):
    return clone(MODELS[request.param])


@pytest.fixture
def data(rng):
    """Collinear features, and a target with a product and with noise."""
    X, _ = collinear(rng, 100)
    y = product_of_forms(rng, X, 2)
    return X, y + 0.1 * y.std() * rng.normal(size=100)


@parametrize_with_checks(list(map(clone, MODELS.values())))
def test_scikit_learn(estimator, check) -> None:
    check(estimator)


# What is fitted


@pytest.mark.parametrize("several", [False, True])
def test_attributes_are_the_formula(model, data, several) -> None:
    X, y = data
    model.fit(X, np.column_stack([y, y**2, X[:, 0]]) if several else y)
    factors = np.einsum("rtd,nd->nrt", model.product_weights_, X)
    factors += model.product_offsets_
    targets = "k" if several else ""
    assert_allclose(
        model.intercept_
        + np.einsum(f"{targets}d,nd->n{targets}", model.coef_, X)
        + np.einsum(f"{targets}r,nr->n{targets}", model.product_coef_, factors.prod(2)),
        model.predict(X),
        atol=1e-10 * y.std(),
    )
    shape = (3,) if several else ()
    n_products = model.product_offsets_.shape[0]
    assert np.shape(model.intercept_) == np.shape(model.alpha_) == shape
    assert model.coef_.shape == (*shape, 12)
    assert model.product_coef_.shape == (*shape, n_products)
    assert model.product_weights_.shape == (n_products, model.degree, 12)
    assert model.product_offsets_.shape == (n_products, model.degree)
    if model.n_components:
        assert n_products == model.n_starts * model.n_components
    else:
        assert n_products == {1: 0, 2: 12 * (3 if several else 1)}[model.degree]


@pytest.mark.parametrize("name", ["quadratic", "bilinear", "trilinear"])
def test_factors_have_mean_square_1(rng, data, name) -> None:
    X, y = data
    weight = rng.uniform(0, 2, size=100)
    model = clone(MODELS[name]).fit(X, y, sample_weight=weight)
    factors = np.einsum("rtd,nd->nrt", model.product_weights_, X)
    factors += model.product_offsets_
    assert_allclose(np.average(factors**2, axis=0, weights=weight), 1, rtol=1e-6)


def test_curves(data) -> None:
    X, y = data
    model = clone(TRAINED).fit(X, np.column_stack([y, y]))
    assert model.loss_curve_.shape == model.validation_curve_.shape == (2, 5)
    # Each start has samples and products of its own.
    assert (model.loss_curve_[0] != model.loss_curve_[1]).all()
    for name in ("ridge", "quadratic"):
        model.set_params(**MODELS[name].get_params()).fit(X, y)
        assert model.loss_curve_ is None
        assert model.validation_curve_ is None


def test_more_products_for_more_targets(rng) -> None:
    X = rng.normal(size=(10, 4))
    model = MultilinearRegressor(3, n_starts=1, max_epochs=1)
    n_products = [model.fit(X, X[:, :k]).product_coef_.shape for k in (1, 2, 4)]
    assert n_products == [(1, 96), (2, 192), (4, 288)]
    model.set_params(n_components=5).fit(X, X)
    assert model.product_coef_.shape == (4, 5)


def test_starts_are_averaged(data) -> None:
    X, y = data
    model = clone(TRAINED).set_params(n_components=3, n_starts=4, max_epochs=20)
    model.fit(X, y)
    # The first is the same without the others.
    alone = clone(model).set_params(n_starts=1).fit(X, y)
    assert alone.product_coef_.all()
    assert_allclose(model.product_coef_[:3], alone.product_coef_ / 4)
    assert_allclose(model.product_weights_[:3], alone.product_weights_)
    assert_array_equal(model.loss_curve_[0], alone.loss_curve_[0])


def test_trained_products_beat_ridge(rng) -> None:
    X, sources = collinear(rng, 500)
    y = sources[:, 0] * sources[:, 1] * sources[:, 2] + sources[:, 3] ** 2
    errors = [
        relative_error(model.fit(X[:400], y[:400]), X[400:], y[400:])
        for model in (
            MultilinearRegressor(1),
            MultilinearRegressor(3, n_components=16, n_starts=2, random_state=0),
        )
    ]
    assert errors[1] < 0.3 * errors[0]


# Invariances


def test_weights_are_repetitions(rng, model, data) -> None:
    X, y = data
    weight = rng.integers(0, 4, size=100)
    weighted = clone(model).fit(X, y, sample_weight=weight).predict(X)
    repeated = np.repeat(np.arange(100), weight)
    # The order of the samples does not matter.
    rng.shuffle(repeated)
    expected = clone(model).fit(X[repeated], y[repeated]).predict(X)
    assert_allclose(weighted, expected, rtol=1e-6)
    unweighted = clone(model).fit(X, y).predict(X)
    assert not np.allclose(unweighted, expected, rtol=1e-3)


def test_samples_without_weight_do_not_matter(rng, model, data) -> None:
    X, y = data
    expected = clone(model).fit(X, y).predict(X)
    absurd = np.vstack([X, 1e9 * rng.normal(size=(5, 12))])
    weight = np.append(np.ones(100), np.zeros(5))
    model.fit(absurd, np.append(y, np.full(5, 1e9)), sample_weight=weight)
    assert_allclose(model.predict(X), expected, rtol=1e-6)


def test_units_do_not_matter(rng, model, data) -> None:
    X, y = data
    expected = clone(model).fit(X, y).predict(X)
    # Powers of two leave every digit, and thus the order in which samples are drawn.
    scale = 2.0 ** rng.integers(-20, 20, size=12)
    model.fit(scale * X, 1024 * y)
    assert_allclose(model.predict(scale * X) / 1024, expected, atol=1e-6 * y.std())


@pytest.mark.parametrize("name", ["ridge", "quadratic"])
def test_origin_does_not_matter(rng, data, name) -> None:
    X, y = data
    model = clone(MODELS[name])
    expected = clone(model).fit(X, y).predict(X)
    moved = 10.0 ** rng.uniform(-6, 6, size=12) * (X + rng.normal(size=12))
    model.fit(moved, 1e5 * y - 3e4)
    found = (model.predict(moved) + 3e4) / 1e5
    assert_allclose(found, expected, atol=1e-4 * y.std())


# Standard deviations


def noisy(rng, model, n_samples):
    """A target that the model learns, with more noise where a feature is larger."""
    X = rng.normal(size=(n_samples, 4))
    y = X[:, 0] + (X[:, 1] * X[:, 2] if model.degree > 1 else 0)
    noise = np.exp(X[:, 3])
    return X, y + 0.3 * noise * rng.normal(size=n_samples), 0.3 * noise


def test_standard_deviations_cover_the_errors(rng, model) -> None:
    if model.n_components:
        model.set_params(max_epochs=40, validation_fraction=0.3)
    X, y, noise = noisy(rng, model, 3600)
    model.fit(X[:1600], y[:1600])
    found, std = model.predict(X[1600:], return_std=True)
    assert_array_equal(found, model.predict(X[1600:]))
    covered = abs(found - y[1600:]) < std
    # The rest of the model's error is smaller than the noise.
    assert covered.mean() == pytest.approx(0.683, abs=0.05)
    order = np.argsort(noise[1600:])
    assert std[order[-500:]].mean() > 3 * std[order[:500]].mean()
    _, far = model.predict(X[1600:] + 10, return_std=True)
    assert far.min() > std.mean()


def test_standard_deviations_of_several_targets(rng, model) -> None:
    X, y, _ = noisy(rng, model, 300)
    y_new, std = model.fit(X, np.column_stack([y, 100 * y])).predict(X, return_std=True)
    assert y_new.shape == std.shape == (300, 2)
    assert_allclose(std[:, 1], 100 * std[:, 0], rtol=1 if model.n_components else 1e-6)
    _, alone = model.fit(X, y).predict(X, return_std=True)
    assert alone.shape == (300,)
    if not model.n_components:
        assert_allclose(alone, std[:, 0])


def test_standard_deviations_in_a_pipeline(rng, model) -> None:
    X, y, _ = noisy(rng, model, 200)
    pipeline = make_pipeline(StandardScaler(), model).fit(X, y)
    scaled = pipeline[0].transform(X)
    for found, expected in zip(
        pipeline.predict(X, return_std=True),
        model.predict(scaled, return_std=True),
        strict=True,
    ):
        assert_array_equal(found, expected)
    with config_context(enable_metadata_routing=True):
        model.set_predict_request(return_std=True)
        assert len(pipeline.predict(X, return_std=True)) == 2


def test_weights_and_standard_deviations(rng, model, data) -> None:
    X, y = data
    weight = rng.integers(0, 4, size=100)
    _, weighted = clone(model).fit(X, y, sample_weight=weight).predict(X, True)
    repeated = rng.permutation(np.repeat(np.arange(100), weight))
    _, expected = clone(model).fit(X[repeated], y[repeated]).predict(X, True)
    assert_allclose(weighted, expected, rtol=1e-4)


@pytest.mark.parametrize("degree", [1, 2])
def test_standard_deviations_with_derivatives(rng, degree) -> None:
    data, _ = quadratic_data(rng, 440)
    data["y"] += 0.1 * data["y"].std() * rng.normal(size=440)
    model = MultilinearRegressor(degree, random_state=0)
    model.fit(**{name: array[:40] for name, array in data.items()})
    found, std = model.predict(data["X"][40:], return_std=True)
    covered = abs(found - data["y"][40:]) < std
    # Of 40 samples.
    assert covered.mean() == pytest.approx(0.683, abs=0.2)


def test_number_of_references(model, data, monkeypatch) -> None:
    monkeypatch.setattr(uncertainty, "_REFERENCES", 3)
    monkeypatch.setattr(uncertainty, "_LEAST", 3)
    assert len(model.fit(*data).references_) == 3


def test_standard_deviations_need_samples_set_apart(data) -> None:
    X, y = data
    model = clone(TRAINED).set_params(validation_fraction=0).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    with pytest.raises(ValueError, match="validation_fraction above 0"):
        model.predict(X, return_std=True)


def test_random_state(data) -> None:
    X, y = data
    first, same, other = (
        clone(TRAINED).set_params(random_state=seed).fit(X, y).predict(X)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_threads_do_not_matter(data) -> None:
    X, y = data
    model = clone(TRAINED).set_params(n_starts=3)
    expected = clone(model).fit(X, y).predict(X)
    threads = clone(model).set_params(n_jobs=2).fit(X, y).predict(X)
    assert_array_equal(threads, expected)
    with parallel_config("loky", n_jobs=2):
        assert_array_equal(model.fit(X, y).predict(X), expected)


@pytest.mark.parametrize("name", ["quadratic", "trilinear"])
def test_overlapping_fits_leave_the_threads_of_blas(data, name) -> None:
    def fit(n_samples):
        X, y = (array[:n_samples] for array in data)
        return clone(MODELS[name]).fit(X, y).predict(X)

    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(3) as pool:
        sizes = [40, 100, 60, 100, 20, 80]
        found = list(pool.map(fit, sizes))
        threads = {
            library["num_threads"]
            for library in threadpool_info()
            if library["user_api"] == "blas"
        }
    assert threads == {2}
    for n_samples, prediction in zip(sizes, found, strict=True):
        assert_allclose(prediction, fit(n_samples), rtol=1e-5)


def test_one_column_of_targets(model, data) -> None:
    X, y = data
    column = clone(model).fit(X, y[:, None]).predict(X)
    assert column.shape == (100, 1)
    assert_allclose(column[:, 0], model.fit(X, y).predict(X))


# Warm start


def test_warm_start_continues(data) -> None:
    X, y = data
    model = clone(TRAINED).set_params(
        n_starts=1, max_epochs=10, validation_fraction=0.2, warm_start=True
    )
    first = clone(model).fit(X[:80], y[:80])
    assert first.product_coef_.all()
    model.fit(X[:80], y[:80])
    # The same samples are set apart.
    model.fit(X[:80], y[:80])
    assert model.validation_curve_.min() < first.validation_curve_.min()
    assert model.loss_curve_[0, 0] < first.loss_curve_[0, 0]
    # With more samples, and thus other axes.
    model.fit(X, y)
    assert model.loss_curve_[0, 0] < first.loss_curve_[0, 0]
    model.set_params(warm_start=False).fit(X[:80], y[:80])
    assert_array_equal(model.loss_curve_, first.loss_curve_)


def test_warm_start_of_several_starts(data) -> None:
    X, y = data
    Y = np.column_stack([y, 100 * y**2])
    model = clone(TRAINED).set_params(n_starts=3, warm_start=True).fit(X, Y)
    before = model.loss_curve_
    model.fit(X, Y)
    assert (model.loss_curve_[:, 0] < before[:, 0]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"n_components": 5},
        {"degree": 2},
        {"n_starts": 3},
        # As many products as before.
        {"n_components": 2, "n_starts": 4},
    ],
)
def test_warm_start_with_other_parameters(data, change) -> None:
    model = clone(TRAINED).set_params(warm_start=True).fit(*data)
    expected = model.predict(data[0])
    model.set_params(**change)
    with pytest.raises(ValueError, match=r"must be as before.*warm_start=False"):
        model.fit(*data)
    assert_array_equal(model.predict(data[0]), expected)
    model.set_params(**TRAINED.get_params()).set_params(warm_start=True).fit(*data)


def test_warm_start_with_other_data(data) -> None:
    X, y = data
    model = clone(TRAINED).set_params(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match=r"'targets': 1.*not.*'targets': 2"):
        model.fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match=r"'features': 12.*not.*'features': 11"):
        model.fit(X[:, 1:], y)


@pytest.mark.parametrize("name", ["ridge", "quadratic"])
def test_warm_start_where_nothing_is_trained(data, name) -> None:
    X, y = data
    model = clone(MODELS[name]).set_params(warm_start=True)
    expected = model.fit(X, y).predict(X)
    assert_array_equal(model.fit(X, y).predict(X), expected)
    with pytest.raises(ValueError, match="warm_start=False"):
        model.set_params(degree=3).fit(X, y)


# Fits that fail


def state(model):
    """Copies of all that a model knows, apart from its parameters."""
    return {
        name: np.array(value)
        for name, value in vars(model).items()
        if name.endswith("_")
    }


def assert_unchanged(model, before) -> None:
    after = state(model)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert_array_equal(after[name], value)


@pytest.fixture
def table(data):
    return pd.DataFrame(data[0], columns=[f"x{i}" for i in range(12)])


def test_refused_fit_leaves_the_model(model, data, table) -> None:
    _, y = data
    before = state(model.fit(table, y))
    few, infinite = table.iloc[:, :5], np.where(table > 1, np.inf, 0)[:, :5]
    for X, target, weight, message in [
        (infinite, y, None, "infinity"),
        (few, y[1:], None, "inconsistent numbers of samples"),
        (few, y, -1, "Negative"),
        (few.to_numpy(), y, np.ones(99), "sample_weight has shape"),
        (few, np.full(100, "y"), None, "could not convert"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(X, target, sample_weight=weight)
        assert_unchanged(model, before)
    with pytest.raises(ValueError, match="'alpha' parameter"):
        model.set_params(alpha=-1).fit(table.iloc[:, :5], y)
    assert_unchanged(model, before)


def test_refused_warm_start_leaves_the_model(data, table) -> None:
    X, y = data
    model = clone(TRAINED).set_params(warm_start=True).fit(table, y)
    before, expected = state(model), model.predict(table)
    with pytest.raises(ValueError, match="must be as before"):
        model.fit(X[:, :5], y)
    assert_unchanged(model, before)
    assert_array_equal(model.predict(table), expected)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table.iloc[:, :5])


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ridge", "fit_ridge"),
        ("quadratic", "fit_quadratic"),
        ("trilinear", "train_products"),
        ("trilinear", "in_features"),
    ],
)
def test_interrupted_fit_leaves_the_model(
    data, table, monkeypatch, name, function
) -> None:
    X, y = data
    model = clone(MODELS[name]).fit(table, y)
    before = state(model)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(multilinear, function, interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:, :5], y)
    assert_unchanged(model, before)


def test_quadratic_form_can_be_interrupted(data, monkeypatch) -> None:
    # Between the fits for choosing a prior, and between iterations.
    X, y = data
    model = clone(MODELS["quadratic"]).fit(X, y)
    before = state(model)
    monkeypatch.setattr(quadratic, "_DIRECT_SIZE", 50)
    monkeypatch.setattr(quadratic, "_PRECONDITIONER_SIZE", 10)
    for function in ("leave_one_out", "fit_kernel_iteratively"):
        counts = []

        def interrupt(*_, counts=counts, **__):
            counts.append(1)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(quadratic, function, interrupt)
            with pytest.raises(KeyboardInterrupt):
                model.fit(X[:, :5], y)
        assert len(counts) == 1
        assert_unchanged(model, before)


def test_threads_stop_with_the_fit(data, monkeypatch) -> None:
    # The first start is interrupted, when the second has begun to train for ever.
    X, y = data
    train, begun, ended = multilinear.train_products, threading.Event(), []
    done = threading.Event()

    def first_is_interrupted(*arguments, random_state, **options):
        if np.array_equal(random_state.get_state()[1], first):
            assert begun.wait(30)
            raise KeyboardInterrupt
        options["max_epochs"] = 10**9
        options["progress"] = begun.set
        try:
            train(*arguments, random_state=random_state, **options)
        except Stopped as error:
            ended.append(error)
        finally:
            done.set()

    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    first = np.random.RandomState([seed, 0]).get_state()[1]
    monkeypatch.setattr(multilinear, "train_products", first_is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        clone(TRAINED).set_params(n_jobs=2).fit(X, y)
    assert done.wait(30)
    assert len(ended) == 1


# Awkward input


@pytest.fixture
def coefficients(qm9):
    """Scattering coefficients and energies of real molecules."""
    scattering = SolidHarmonicScattering(sigma=0.5, J=1, L=1)
    return scattering.fit_transform(qm9.data[:120]), qm9.target[:120, 7]


def test_floating_point_errors_that_raise(
    rng, model, coefficients, monkeypatch
) -> None:
    X, y = coefficients
    weight = rng.uniform(0, 2, size=len(y))
    expected = clone(model).fit(X, y, weight).predict(X)
    with np.errstate(all="raise"):
        assert_array_equal(model.fit(X, y, weight).predict(X), expected)
        model.set_params(n_jobs=2).fit(X, y, weight)
        model.set_params(alpha=0.0).fit(X, y, weight)
        monkeypatch.setattr(quadratic, "_DIRECT_SIZE", 50)
        monkeypatch.setattr(quadratic, "_PRECONDITIONER_SIZE", 20)
        monkeypatch.setattr(uncertainty, "_REFERENCES", 50)
        model.set_params(alpha=1e-3).fit(X, y, weight)


@pytest.mark.parametrize("exponent", [-1000, -600, -300, 300, 600, 1000])
def test_sizes_near_the_limits_of_floats(model, data, exponent) -> None:
    # Their squares are out of range.
    X, y = data
    expected = clone(model).fit(X, y).predict(X)
    with np.errstate(all="raise"):
        small = np.ldexp(X, exponent)
        found = clone(model).fit(small, y).predict(small)
        assert_allclose(found, expected, atol=1e-6 * y.std())
        found = model.fit(X, np.ldexp(y, exponent)).predict(X)
    assert_allclose(np.ldexp(found, -exponent), expected, atol=1e-6 * y.std())


def test_awkward_features(rng, model) -> None:
    X = rng.normal(size=(60, 4))
    X = np.hstack([X, X @ rng.normal(size=(4, 8)), np.ones((60, 2)), np.zeros((60, 1))])
    y = X[:, 0] + X[:, 1]
    assert relative_error(model.fit(X, y), X, y) < 1e-5
    assert np.isfinite(model.product_weights_).all()


def test_constant_input(rng, model) -> None:
    X = rng.normal(size=(30, 4))
    model.fit(X, np.full(30, 0.1))
    y, std = model.predict(X, return_std=True)
    assert_allclose(y, 0.1)
    assert_allclose(std, 0, atol=1e-8)
    model.fit(np.ones((30, 4)), X[:, 0])
    # Absolute errors, which training makes small, draw it from the mean to the median.
    atol = 0.3 if model.n_components else 0
    y, std = model.predict(X, return_std=True)
    assert_allclose(y, X[:, 0].mean(), atol=atol)
    assert_allclose(std, std[0])
    assert 0.3 < std[0] < 3


def test_one_of_the_targets_is_constant(rng, model) -> None:
    X = rng.normal(size=(30, 4))
    Y = np.column_stack([X[:, 0], np.full(30, 0.1)])
    predictions = model.fit(X, Y).predict(X)
    assert_allclose(predictions[:, 1], 0.1)
    assert abs(predictions[:, 0] - Y[:, 0]).mean() < 0.1


@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_few_samples(rng, model, n_samples) -> None:
    X = rng.normal(size=(5, 40))
    model.fit(X[:n_samples], X[:n_samples, 0])
    assert np.isfinite(model.predict(X)).all()
    n_left_out = len(model.references_)
    if n_left_out == 0:
        with pytest.raises(ValueError, match="more than one sample"):
            model.predict(X, return_std=True)
    else:
        _, std = model.predict(X, return_std=True)
        # A single sample has no neighbours.
        assert (np.isfinite(std) if n_left_out > 1 else np.isnan(std)).all()


@pytest.mark.parametrize("name", ["bilinear", "trilinear"])
def test_more_features_than_samples(rng, name) -> None:
    X = rng.normal(size=(60, 200))
    y = X[:, 0] + 0.1 * rng.normal(size=60)
    model = clone(MODELS[name]).fit(X, y)
    # In high dimensions, ridge regression is hard to beat.
    new = rng.normal(size=(200, 200))
    ridge = MultilinearRegressor(1).fit(X, y)
    assert relative_error(model, new, new[:, 0]) < 1.2 * relative_error(
        ridge, new, new[:, 0]
    )


def test_single_precision(model, data) -> None:
    X, y = (array.astype(np.float32) for array in data)
    expected = clone(model).fit(X.astype(float), y.astype(float)).predict(X)
    found = model.fit(X, y).predict(X)
    assert found.dtype == np.float64
    assert_array_equal(found, expected)


def test_data_frames(model, data) -> None:
    X, y = data
    expected = clone(model).fit(X, y).predict(X)
    table = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)])
    found = model.fit(table, pd.Series(y), sample_weight=pd.Series(np.ones(100)))
    assert_allclose(found.predict(table), expected)
    assert_array_equal(model.feature_names_in_, table.columns)


def test_one_weight_for_all(model, data) -> None:
    X, y = data
    expected = clone(model).fit(X, y, sample_weight=np.full(100, 2.5)).predict(X)
    assert_array_equal(model.fit(X, y, sample_weight=2.5).predict(X), expected)


def test_errors(rng) -> None:
    X = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="sample_weight is zero"):
        MultilinearRegressor().fit(X, X[:, 0], sample_weight=np.zeros(10))
    with pytest.raises(ValueError, match=r"[Nn]egative.*sample_weight"):
        MultilinearRegressor().fit(X, X[:, 0], sample_weight=-np.ones(10))
    with pytest.raises(ValueError, match="X has masked entries"):
        MultilinearRegressor().fit(np.ma.masked_less(X, 0), X[:, 0])
    with pytest.raises(ValueError, match="y has masked entries"):
        MultilinearRegressor().fit(X, np.ma.masked_less(X[:, 0], 0))
    with pytest.raises(NotFittedError):
        MultilinearRegressor().predict(X)
    with pytest.raises(ValueError, match="2 features"):
        MultilinearRegressor(1).fit(X, X[:, 0]).predict(X[:, :2])


@pytest.mark.parametrize(
    "parameters",
    [
        {"degree": 0},
        {"degree": 2.5},
        {"n_components": 0},
        {"alpha": -1.0},
        {"n_starts": 0},
        {"max_epochs": 0},
        {"validation_fraction": 1},
        {"warm_start": 1},
    ],
)
def test_invalid_parameters(parameters) -> None:
    (name,) = parameters
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        MultilinearRegressor(**parameters).fit(np.eye(3), np.ones(3))


# Within scikit-learn


def test_search(data) -> None:
    pipeline = make_pipeline(StandardScaler(), clone(TRAINED))
    grid = [
        {"multilinearregressor": [Ridge(1e6)]},
        {
            "multilinearregressor__degree": [1, 2],
            "multilinearregressor__n_components": [2, None],
        },
    ]
    searches = [
        GridSearchCV(pipeline, grid, cv=3, n_jobs=n_jobs).fit(*data)
        for n_jobs in (1, 2)
    ]
    assert searches[0].best_params_["multilinearregressor__degree"] == 2
    assert searches[0].best_params_ == searches[1].best_params_
    assert_allclose(*(s.cv_results_["mean_test_score"] for s in searches))


def test_pickle(model, data) -> None:
    X, y = data
    copy = pickle.loads(pickle.dumps(model.fit(X, y)))
    assert_array_equal(copy.predict(X, True), model.predict(X, True))
    assert_array_equal(copy.loss_curve_, model.loss_curve_)


def test_progress(data, capsys) -> None:
    for name, counted in [
        ("quadratic", r"\b[1-9]\d+fit \["),
        ("trilinear", r"10/10 \[.*epoch"),
    ]:
        model = clone(MODELS[name]).fit(*data)
        assert not capsys.readouterr().err
        model.set_params(verbose=1).fit(*data)
        assert re.search(counted, capsys.readouterr().err)


# Arrays of other libraries


# Training sums in single precision, in an order that depends on the library.
@pytest.fixture
def tolerance(model):
    return 1e-3 if model.n_components else 1e-8


def test_array_libraries_agree(xp, model, data, tolerance) -> None:
    X, y = data
    Y = np.column_stack([y, y**2])
    same = clone(model).fit(X, Y)
    expected, deviation = same.predict(X, return_std=True)
    with config_context(array_api_dispatch=True):
        model.fit(xp.asarray(X), xp.asarray(Y))
        found, std = model.predict(xp.asarray(X), return_std=True)
        score = model.score(xp.asarray(X), xp.asarray(Y))
    assert score == pytest.approx(same.score(X, Y), abs=tolerance)
    assert_array_of(xp, found)
    assert_array_of(xp, std)
    assert_allclose(to_numpy(std), deviation, rtol=max(100 * tolerance, 1e-6))
    fitted = [value for name, value in vars(model).items() if name.endswith("_")]
    for array in fitted:
        if array is not None and not isinstance(array, int):
            assert_array_of(xp, array)
    assert (abs(to_numpy(found) - expected) < tolerance * Y.std(axis=0)).all()


def assert_array_of(xp, array) -> None:
    assert type(array) is type(xp.asarray(0.0))


def test_devices(model, data) -> None:
    # As if it were a GPU: only on request do arrays leave it.
    strict = pytest.importorskip("array_api_strict", reason="it is not installed")
    device = strict.Device("device1")
    X, y = (strict.asarray(array, device=device) for array in data)
    with config_context(array_api_dispatch=True):
        model.set_params(n_jobs=2).fit(X, y)
        assert model.predict(X).device == model.coef_.device == device
        with pytest.raises(ValueError, match="same namespace and device"):
            model.predict(strict.asarray(data[0]))


def test_other_libraries_for_targets_and_weights(
    rng, xp, model, data, tolerance
) -> None:
    X, y = data
    weight = rng.uniform(0.5, 2, size=100)
    expected = clone(model).fit(X, y, sample_weight=weight).predict(X)
    there, y_there, weight_there = map(xp.asarray, (X, y, weight))
    with config_context(array_api_dispatch=True):
        for data_and_weight in [
            (X, y_there, weight_there),
            (X, y_there, weight),
            (there, y, weight_there),
            (there, list(y), pd.Series(weight)),
        ]:
            found = clone(model).fit(*data_and_weight).predict(data_and_weight[0])
            assert type(found) is type(data_and_weight[0])
            difference = abs(to_numpy(found) - expected)
            assert (difference < tolerance * y.std()).all()


def test_prediction_with_another_library(xp, model, data) -> None:
    X, y = data
    with config_context(array_api_dispatch=True):
        model.fit(X, y)
        with pytest.raises(ValueError, match="same namespace and device"):
            model.predict(xp.asarray(X))
        model.fit(xp.asarray(X), xp.asarray(y))
        with pytest.raises(ValueError, match="same namespace and device"):
            model.predict(X)


def test_as_many_features_as_molecules(qm9) -> None:
    # White coordinates of other molecules are far larger then, along weak axes.
    scattering = SolidHarmonicScattering(J=1, L=2, sigma=0.5)
    X, y = scattering.transform(qm9.data[:500]), qm9.target[:500, 7]
    n = X.shape[1]
    ridge, trained = (
        relative_error(
            MultilinearRegressor(degree, random_state=0).fit(X[:n], y[:n]), X[n:], y[n:]
        )
        for degree in (1, 3)
    )
    assert trained < 1.15 * ridge


def test_prediction_without_dispatch_after_fit_with_it(xp, data) -> None:
    X, y = data
    with config_context(array_api_dispatch=True):
        model = clone(TRAINED).fit(xp.asarray(X), xp.asarray(y))
    with pytest.raises(ValueError, match="array_api_dispatch=True"):
        model.predict(X)


def test_warm_start_of_other_libraries(xp, data, rng) -> None:
    X, y = map(xp.asarray, data)
    model = clone(TRAINED).set_params(warm_start=True)
    with config_context(array_api_dispatch=True):
        before = model.fit(X, y).loss_curve_
        assert bool(xp.all(model.fit(X, y).loss_curve_[:, 0] < before[:, 0]))


def test_tensors_of_any_type(model, data, tolerance) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    X, y = (torch.tensor(array).to(torch.bfloat16) for array in data)
    expected = clone(model).fit(*map(to_numpy, (X.float(), y.float())))
    expected = expected.predict(to_numpy(X.float()))
    for dispatch in (True, False):
        with config_context(array_api_dispatch=dispatch):
            found = clone(model).fit(X, y, sample_weight=torch.ones(100).half())
            difference = abs(to_numpy(found.predict(X)) - expected)
            assert (difference < tolerance * data[1].std()).all()
            with pytest.raises(ValueError, match=r"X has type torch\.complex64"):
                found.predict(X.to(torch.complex64))


def test_gradient_of_predictions(model, data) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    X, y = map(torch.tensor, data)
    with config_context(array_api_dispatch=True):
        model.fit(X.clone().requires_grad_(), y)
        assert not model.coef_.requires_grad
        direction = torch.zeros_like(X)
        direction[:, 3] = 1e-5
        ends = [model.predict(X + sign * direction) for sign in (1, -1)]
        X.requires_grad_()
        model.predict(X).sum().backward()
    slopes = (ends[0] - ends[1]) / 2e-5
    assert_allclose(X.grad[:, 3], slopes, rtol=1e-6, atol=1e-8 * y.std())


def test_device_without_double_precision(model, data) -> None:
    strict = pytest.importorskip("array_api_strict", reason="it is not installed")
    try:
        device = strict.Device("no_float64")
    except ValueError:
        pytest.skip("this version of array_api_strict has no such device")
    X, y = (array.astype(np.float32) for array in data)
    expected = clone(model).fit(X, y).predict(X)
    with config_context(array_api_dispatch=True):
        X, y = (strict.asarray(array, device=device) for array in (X, y))
        found = model.fit(X, y).predict(X)
    assert found.dtype == model.coef_.dtype == strict.float32
    found = np.asarray(strict.asarray(found, device=strict.Device("CPU_DEVICE")))
    assert_allclose(found, expected, atol=1e-3 * data[1].std())


# Derivatives


def quadratic_data(rng, n_samples):
    """A quadratic form of features of five coordinates, one of which is padding."""
    positions = rng.normal(size=(n_samples, 4))
    mixing = rng.normal(size=(4, 6))
    X = positions @ mixing + 0.1 * (positions @ mixing) ** 2
    jacobian = mixing.T * (1 + 0.2 * positions @ mixing)[:, :, None]
    form = rng.normal(size=(6, 6)) / 6
    slopes = 1 + X @ (form + form.T)
    return {
        "X": X,
        "y": 5 + X.sum(axis=1) + np.einsum("ni,ij,nj->n", X, form, X),
        "jacobian": np.pad(jacobian, [(0, 0), (0, 0), (0, 1)]),
        "gradients": np.pad(
            np.einsum("npc,np->nc", jacobian, slopes), [(0, 0), (0, 1)]
        ),
    }, slopes


def test_derivatives_teach_a_quadratic_form(rng) -> None:
    data, slopes = quadratic_data(rng, 60)
    few = {name: array[:15] for name, array in data.items()}
    model = MultilinearRegressor(2, random_state=0).fit(**few)
    alone = MultilinearRegressor(2, random_state=0).fit(few["X"], few["y"])
    left = {name: array[15:] for name, array in data.items()}
    assert model.gradient_weight_ > 0
    assert alone.gradient_weight_ is None
    error = abs(model.predict(left["X"]) - left["y"]).mean()
    assert error < 0.01 * left["y"].std()
    assert error < abs(alone.predict(left["X"]) - left["y"]).mean() / 10
    found = model.predict_gradient(left["X"])
    assert abs(found - slopes[15:]).mean() < 0.05 * slopes.std()


def test_derivatives_teach_a_linear_form(rng) -> None:
    data, _ = quadratic_data(rng, 5)
    coef = rng.normal(size=6)
    data["y"] = 3 + data["X"] @ coef
    data["gradients"] = np.einsum("npc,p->nc", data["jacobian"], coef)
    model = MultilinearRegressor(1, random_state=0).fit(**data)
    assert_allclose(model.coef_, coef, atol=1e-3)
    assert model.intercept_ == pytest.approx(3, abs=1e-2)
    assert len(model.product_coef_) == 0


def test_gradients_of_predictions(model, data) -> None:
    X, y = data
    for targets in (y, np.stack([y, 2 * y + X[:, 0]], axis=1)):
        fitted = model.fit(X, targets)
        step = 1e-5
        expected = np.stack(
            [
                (fitted.predict(X + shift) - fitted.predict(X - shift)) / (2 * step)
                for shift in step * np.eye(X.shape[1])
            ],
            axis=-1,
        )
        found = fitted.predict_gradient(X)
        assert found.shape == expected.shape
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(
    ("parameters", "columns", "message"),
    [
        ({"degree": 1}, 2, "y has 2 targets"),
        ({"degree": 3}, 1, "Trained products do not learn from gradients"),
        ({"degree": 2, "n_components": 4}, 1, "Trained products do not learn"),
    ],
)
def test_derivatives_that_are_refused(rng, parameters, columns, message) -> None:
    data, _ = quadratic_data(rng, 10)
    data["y"] = np.squeeze(np.repeat(data["y"][:, None], columns, axis=1))
    with pytest.raises(ValueError, match=message):
        MultilinearRegressor(**parameters).fit(**data)


def test_order_and_weights_with_derivatives(rng) -> None:
    data, _ = quadratic_data(rng, 20)
    weight = rng.integers(0, 3, size=20)
    order = rng.permutation(np.repeat(np.arange(20), weight))
    model = MultilinearRegressor(2, random_state=0)
    expected = model.fit(**data, sample_weight=weight).predict(data["X"])
    copies = {name: array[order] for name, array in data.items()}
    assert_allclose(model.fit(**copies).predict(data["X"]), expected, rtol=1e-7)
