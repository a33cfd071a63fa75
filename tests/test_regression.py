import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skscatharm import regression
from skscatharm.regression import (
    MultilinearRegressor,
    Prior,
    distinct_rows,
    evaluate_multilinear,
    fit_features,
    fit_kernel,
    fit_kernel_iteratively,
    fit_linear,
    fit_products,
    leave_one_out,
    principal_axes,
    select_prior,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def collinear(rng, n_samples, n_features=12, n_sources=5):
    """Features that are smooth functions of a few sources, and the sources."""
    sources = rng.normal(size=(n_samples, n_sources))
    mixing = rng.normal(size=(n_sources, n_features))
    return np.sin(sources @ mixing / 3) + sources @ mixing, sources


def product_of_forms(rng, X, degree):
    """A target that is one product of `degree` linear forms plus a linear form."""
    forms = rng.normal(size=(X.shape[1], degree + 1)) / np.sqrt(X.shape[1])
    values = X @ forms
    return values[:, 0] + (values[:, 1:] + 0.5).prod(axis=1)


def wrong(model, X, y):
    """Mean absolute error, relative to the deviation of the target."""
    return np.abs(model.predict(X) - y).mean() / y.std()


@parametrize_with_checks(
    [
        MultilinearRegressor(degree=1),
        MultilinearRegressor(degree=2),
        MultilinearRegressor(degree=3),
        MultilinearRegressor(degree=2, n_components=3),
        MultilinearRegressor(degree=3, n_components=3, alpha=1e-3),
    ]
)
def test_scikit_learn(estimator, check):
    check(estimator)


# The formula


@pytest.mark.parametrize("n_components", [None, 4])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_attributes_are_the_formula(rng, degree, n_components):
    X, _ = collinear(rng, 150)
    y = product_of_forms(rng, X, 2)
    model = MultilinearRegressor(degree, n_components=n_components, random_state=0)
    model.fit(X, y)
    factors = np.einsum("rtd,nd->nrt", model.weights_, X) + model.offsets_
    assert_allclose(
        model.intercept_ + factors.prod(axis=2) @ model.coef_,
        model.predict(X),
        rtol=1e-10,
        atol=1e-10 * y.std(),
    )
    n_products = {1: 0, 2: 12, 3: 12 + 150}[degree]
    n_terms = 1 + (n_products if n_components is None else min(4, n_products))
    assert model.coef_.shape == (n_terms,)
    assert model.weights_.shape == (n_terms, degree, 12)
    assert model.offsets_.shape == (n_terms, degree)
    assert np.ndim(model.intercept_) == 0


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_forms_are_standardised(rng, degree):
    X, _ = collinear(rng, 150)
    model = MultilinearRegressor(degree).fit(X, product_of_forms(rng, X, 2))
    forms = X @ model.weights_[:, 0].T + model.offsets_[:, 0]
    assert_allclose(forms.mean(axis=0), 0, atol=1e-7)
    assert_allclose(forms.std(axis=0), 1, rtol=1e-7)
    # The linear form: all other factors are 1.
    assert not model.weights_[0, 1:].any()
    assert_array_equal(model.offsets_[0, 1:], 1)
    # The others: by their number of factors, then by size.
    powers = model.weights_.any(axis=2).sum(axis=1)
    assert_array_equal(np.lexsort([-np.abs(model.coef_), powers]), range(len(powers)))


def test_evaluate_in_batches(rng, monkeypatch):
    X = rng.normal(size=(25, 4))
    weights = rng.normal(size=(6, 3, 4))
    weights[2:, 2] = 0
    weights[4:, 1] = 0
    weights[5] = 0
    offsets = rng.normal(size=(6, 3))
    coef = rng.normal(size=6)
    expected = 2 + (np.einsum("rtd,nd->nrt", weights, X) + offsets).prod(2) @ coef
    assert_allclose(evaluate_multilinear(X, 2, coef, weights, offsets), expected)
    monkeypatch.setattr(regression, "_BATCH", 10)
    assert_allclose(evaluate_multilinear(X, 2, coef, weights, offsets), expected)


# Degree 1


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 10.0])
def test_degree_1_is_ridge(rng, alpha):
    X, _ = collinear(rng, 80)
    y = product_of_forms(rng, X, 2)
    weight = rng.uniform(0.5, 2, size=80)
    model = MultilinearRegressor(1, alpha=alpha).fit(X, y, sample_weight=weight)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha, solver="cholesky"))
    ridge.fit(X, y, standardscaler__sample_weight=weight, ridge__sample_weight=weight)
    assert_allclose(model.predict(X), ridge.predict(X), rtol=1e-7, atol=1e-8)
    slope = ridge[1].coef_ / ridge[0].scale_
    assert_allclose(model.coef_[0] * model.weights_[0, 0], slope, atol=1e-8)


def test_degree_1_with_more_features_than_samples(rng):
    X = rng.normal(size=(20, 50))
    y = rng.normal(size=20)
    model = MultilinearRegressor(1, alpha=0.1).fit(X, y)
    ridge = make_pipeline(StandardScaler(), Ridge(0.1)).fit(X, y)
    new = rng.normal(size=(10, 50))
    assert_allclose(model.predict(new), ridge.predict(new))


def test_degree_1_chooses_alpha_by_leaving_out(rng):
    X = StandardScaler().fit_transform(rng.normal(size=(40, 20)))
    y = X[:, 0] + rng.normal(size=40)
    model = MultilinearRegressor(1).fit(X, y)
    ridge = RidgeCV(10.0 ** np.arange(-10, 5), scoring="neg_mean_absolute_error")
    assert model.alpha_ == pytest.approx(ridge.fit(X, y).alpha_)


# The parts


def test_distinct_rows():
    X = np.array([[0.0, 1], [2, 3], [-0.0, 1], [0, 1], [2, 3], [9, 9]])
    Y = np.array([[1.0], [2], [1], [5], [2], [9]])
    weight = np.array([1.0, 2, 3, 4, 0.5, 0])
    X, Y, weight = distinct_rows(X, Y, weight)
    found = {(*x, *y): w for x, y, w in zip(X, Y, weight, strict=True)}
    assert found == {(0, 1, 1): 4, (2, 3, 2): 2.5, (0, 1, 5): 4}


def test_principal_axes(rng):
    X = np.hstack([rng.normal(size=(50, 4)), np.full((50, 1), 7.0)])
    X[:, 3] = X[:, 0] - X[:, 1]
    weight = rng.uniform(0.5, 2, size=50)
    mean, whitening, deviations = principal_axes(X, weight)
    assert whitening.shape == (5, 3)
    white = (X - mean) @ whitening
    share = weight / weight.sum()
    assert_allclose(share @ white, 0, atol=1e-12)
    assert_allclose((white.T * share) @ white, np.eye(3), atol=1e-12)
    standard = StandardScaler().fit_transform(X, sample_weight=weight)
    spectrum = np.linalg.eigvalsh((standard.T * share) @ standard)[::-1]
    assert_allclose(deviations**2, spectrum[:3])


def test_small_axes_are_not_lost(rng):
    # Their variance is smaller than the rounding of the largest one's.
    X = rng.normal(size=(60, 1)) + [0, 1e-7, 0] * rng.normal(size=(60, 3))
    _, _, deviations = principal_axes(X, np.ones(60))
    assert len(deviations) == 2
    assert deviations[1] == pytest.approx(1e-7, rel=0.5)


def brute_force_errors(fit, y):
    left_out = ~np.eye(len(y), dtype=bool)
    return np.array([y[i] - fit(left_out[i])[i] for i in range(len(y))])


def test_leave_one_out(rng):
    Z = rng.normal(size=(15, 3))
    y = rng.normal(size=15)
    weight = rng.uniform(0.5, 2, size=15)
    kernel = (1 + Z @ Z.T) ** 2

    def fit(kept):
        part = kernel[np.ix_(kept, kept)].copy()
        dual, intercept = fit_kernel(part, y[kept], weight[kept], 0.3)
        return kernel[:, kept] @ dual + intercept

    errors = leave_one_out(kernel.copy(), y, weight, 0.3)
    assert_allclose(errors, brute_force_errors(fit, y))


def test_leave_one_out_of_linear_fit(rng):
    Z = rng.normal(size=(15, 3))
    y = rng.normal(size=15)
    weight = rng.uniform(0.5, 2, size=15)
    axes = principal_axes(Z, weight)
    white = (Z - axes.mean) @ axes.whitening
    standard = white * axes.deviations
    alphas = [0.3, 3.0]
    y -= weight @ y / weight.sum()
    _, errors = fit_linear(white, axes.deviations, y, weight, alphas)
    for k, alpha in enumerate(alphas):

        def fit(kept, alpha=alpha):
            ridge = Ridge(alpha).fit(standard[kept], y[kept], weight[kept])
            return ridge.predict(standard)

        assert_allclose(errors[:, k], brute_force_errors(fit, y))


def test_kernel_and_features_agree(rng):
    features = rng.normal(size=(30, 8))
    y = rng.normal(size=30)
    weight = rng.uniform(0.5, 2, size=30)
    dual, intercept = fit_kernel(features @ features.T, y, weight, 0.1)
    coef, same_intercept = fit_features(features, y, weight, 0.1)
    assert_allclose(dual @ features, coef)
    assert intercept == pytest.approx(same_intercept)
    # The solution is where the gradient of the objective vanishes.
    residual = y - intercept - features @ coef
    assert_allclose(features.T @ (weight * residual), 0.1 * coef, atol=1e-12)
    assert weight @ residual == pytest.approx(0, abs=1e-12)


def test_iterations_find_the_same(rng):
    Z = rng.normal(size=(120, 6))
    kernel = (1 + Z @ Z.T / 6) ** 3
    y = rng.normal(size=120)
    weight = rng.uniform(0.5, 2, size=120)
    landmarks = np.arange(30)
    problem = (
        lambda v: kernel @ v,
        kernel[:, landmarks],
        landmarks,
        weight @ np.diag(kernel),
        y,
        weight,
        0.1,
    )
    counts = []
    dual, intercept = fit_kernel_iteratively(
        *problem, tol=1e-12, progress=lambda: counts.append(1)
    )
    expected, expected_intercept = fit_kernel(kernel.copy(), y, weight, 0.1)
    assert_allclose(dual, expected, atol=1e-8)
    assert intercept == pytest.approx(expected_intercept)
    assert 0 < len(counts) < 120
    with pytest.warns(ConvergenceWarning, match="after 3 iterations"):
        fit_kernel_iteratively(*problem, max_iter=3)


@pytest.mark.parametrize("n_components", [None, 5])
@pytest.mark.parametrize("n_cubes", [0, 20])
def test_many_samples(rng, monkeypatch, n_cubes, n_components):
    X, _ = collinear(rng, 200)
    y = StandardScaler().fit_transform(product_of_forms(rng, X, 3)[:, None])[:, 0]
    axes = principal_axes(X, np.ones(200))
    white = (X - axes.mean) @ axes.whitening

    def fit():
        polynomial = fit_products(
            white,
            axes.deviations,
            y,
            np.ones(200),
            Prior(0.35, 0.2, 0.1, 1e-4),
            n_cubes,
            n_components,
            np.random.RandomState(0),
        )
        values = (white @ polynomial.forms.T) ** polynomial.powers
        return polynomial.intercept + values @ polynomial.coef

    direct = fit()
    monkeypatch.setattr(regression, "_DIRECT_SIZE", 100)
    monkeypatch.setattr(regression, "_PRECONDITIONER_SIZE", 30)
    assert_allclose(fit(), direct, atol=1e-3)


@pytest.mark.parametrize("degree", [2, 3])
def test_polynomial_minimises_the_objective(rng, degree):
    # Written out with all products, at given scales.
    X = rng.normal(size=(40, 3))
    y = rng.normal(size=40)
    weight = rng.uniform(0.5, 2, size=40)
    prior = Prior(1.0, 0.5, 0.3, 0.2)
    axes = principal_axes(X, weight)
    white = (X - axes.mean) @ axes.whitening
    polynomial = fit_products(
        white,
        axes.deviations,
        y,
        weight,
        prior,
        40 if degree == 3 else 0,
        None,
        np.random.RandomState(0),
    )
    values = (white @ polynomial.forms.T) ** polynomial.powers

    scales = [axes.deviations**p for p in (prior.linear_decay, prior.product_decay)]
    linear, z = (white * s / np.linalg.norm(s) for s in scales)
    pairs = np.einsum("ni,nj->nij", z, z).reshape(40, -1)
    features = [linear, np.sqrt(0.3) * pairs]
    if degree == 3:
        triples = np.einsum("ni,nj,nk->nijk", z, z, z).reshape(40, -1)
        features.append(np.sqrt(2 / 3) * 0.3 * triples)
    ridge = Ridge(prior.alpha).fit(np.hstack(features), y, weight)
    assert_allclose(
        polynomial.intercept + values @ polynomial.coef,
        ridge.predict(np.hstack(features)),
        atol=1e-6,
    )


def test_select_prior(rng):
    X = rng.normal(size=(100, 4))
    axes = principal_axes(X, np.ones(100))
    white = (X - axes.mean) @ axes.whitening
    args = white, axes.deviations
    noise = rng.normal(size=100)
    plane = select_prior(*args, white[:, 0] + noise, np.ones(100), 2, None)
    bowl = select_prior(*args, white[:, 0] ** 2, np.ones(100), 2, None)
    assert plane.alpha > bowl.alpha
    assert plane.curvature < bowl.curvature
    assert select_prior(*args, noise, np.ones(100), 2, 0.05).alpha == 0.05


# What it learns


@pytest.mark.parametrize("degree", [2, 3])
def test_recovers_a_product(rng, degree):
    X = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    y = product_of_forms(rng, X, degree)
    model = MultilinearRegressor(degree, random_state=0).fit(X[:400], y[:400])
    assert wrong(model, X[400:], y[400:]) < 1e-5


def test_recovers_a_product_with_few_components(rng):
    X = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    y = product_of_forms(rng, X, 2)
    model = MultilinearRegressor(2, n_components=2).fit(X[:400], y[:400])
    assert wrong(model, X[400:], y[400:]) < 1e-5


def test_higher_degrees_are_better_where_they_should(rng):
    X, sources = collinear(rng, 600, n_features=30)
    y = sources[:, 0] * sources[:, 1] * sources[:, 2] + sources[:, 3] ** 2
    errors = [
        wrong(MultilinearRegressor(d, random_state=0).fit(X[:400], y[:400]), *test)
        for d in (1, 2, 3)
        for test in [(X[400:], y[400:])]
    ]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_more_components_are_better(rng):
    X, sources = collinear(rng, 400, n_features=30)
    y = (sources**2 * [1, -2, 3, -4, 5]).sum(axis=1)
    errors = [
        wrong(
            MultilinearRegressor(2, n_components=r).fit(X[:300], y[:300]),
            X[300:],
            y[300:],
        )
        for r in (1, 3, 5)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_beats_ridge_on_molecule_like_data(rng):
    X, sources = collinear(rng, 300, n_features=60, n_sources=8)
    y = sources @ np.arange(8) + 0.5 * (sources**2).sum(axis=1)
    ours = cross_val_score(
        MultilinearRegressor(), X, y, scoring="neg_mean_absolute_error"
    )
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-8, 3, 23)))
    ridges = cross_val_score(ridge, X, y, scoring="neg_mean_absolute_error")
    assert ours.mean() > 0.5 * ridges.mean()


def test_is_not_much_worse_than_ridge_on_noise(rng):
    X = rng.normal(size=(300, 10))
    y = X[:, 0] + 5 * rng.normal(size=300)
    ours = cross_val_score(MultilinearRegressor(), X, y, scoring="r2")
    ridges = cross_val_score(RidgeCV(np.logspace(-3, 4, 15)), X, y, scoring="r2")
    assert ours.mean() > ridges.mean() - 0.05


# Invariances


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_units_do_not_matter(rng, degree):
    X, _ = collinear(rng, 150)
    y = product_of_forms(rng, X, 2)
    model = MultilinearRegressor(degree, random_state=0)
    expected = clone(model).fit(X, y).predict(X)
    scale = 10.0 ** rng.uniform(-6, 6, size=12)
    shift = scale * rng.normal(size=12)
    scaled = clone(model).fit(scale * X + shift, 1e5 * y - 3e4)
    assert_allclose(
        (scaled.predict(scale * X + shift) + 3e4) / 1e5,
        expected,
        atol=1e-4 * y.std(),
    )


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_weights_are_repetitions(rng, monkeypatch, degree):
    # The prior is chosen on some of the samples, and not all have a cube.
    monkeypatch.setattr(regression, "_SELECTION_SIZE", 100)
    monkeypatch.setattr(regression, "_MAX_CUBES", 50)
    X, _ = collinear(rng, 300)
    y = product_of_forms(rng, X, 3) + rng.normal(size=300)
    weight = rng.integers(0, 4, size=300)
    model = MultilinearRegressor(degree, random_state=0)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    repeated = np.repeat(np.arange(300), weight)
    rng.shuffle(repeated)
    expected = clone(model).fit(X[repeated], y[repeated]).predict(X)
    assert_allclose(weighted.predict(X), expected, rtol=1e-6)
    unweighted = clone(model).fit(X, y).predict(X)
    assert not np.allclose(unweighted, expected, rtol=1e-3)


def test_random_state(rng, monkeypatch):
    monkeypatch.setattr(regression, "_SELECTION_SIZE", 100)
    X, _ = collinear(rng, 200)
    y = product_of_forms(rng, X, 3)
    first, same, other = (
        MultilinearRegressor(3, random_state=seed).fit(X, y).predict(X)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_targets_are_fitted_one_by_one(rng, degree):
    X, _ = collinear(rng, 200)
    Y = np.column_stack([product_of_forms(rng, X, t) for t in (1, 2, 3)])
    Y *= [1, 100, 0.01]
    model = MultilinearRegressor(degree, random_state=0)
    together = clone(model).fit(X, Y)
    assert together.coef_.shape == (3, *together.weights_.shape[1:2])
    assert together.intercept_.shape == together.alpha_.shape == (3,)
    for k in range(3):
        alone = clone(model).fit(X, Y[:, k])
        assert_allclose(together.predict(X)[:, k], alone.predict(X), rtol=1e-6)
    column = clone(model).fit(X, Y[:, :1])
    assert column.predict(X).shape == (200, 1)


# Awkward input


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_awkward_features(rng, degree):
    X = rng.normal(size=(60, 4))
    X = np.hstack([X, X @ rng.normal(size=(4, 8)), np.ones((60, 2)), np.zeros((60, 1))])
    y = X[:, 0] + X[:, 1]
    model = MultilinearRegressor(degree).fit(X, y)
    assert wrong(model, X, y) < 1e-5
    assert np.isfinite(model.weights_).all()


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_constant_input(rng, degree):
    X = rng.normal(size=(30, 4))
    model = MultilinearRegressor(degree).fit(X, np.full(30, 0.1))
    assert_allclose(model.predict(X), 0.1)
    model.fit(np.ones((30, 4)), X[:, 0])
    assert_allclose(model.predict(X), X[:, 0].mean())


@pytest.mark.parametrize("degree", [2, 3])
def test_few_samples(rng, degree):
    X = rng.normal(size=(5, 40))
    for n in (1, 2, 5):
        model = MultilinearRegressor(degree).fit(X[:n], X[:n, 0])
        assert np.isfinite(model.predict(X)).all()


def test_errors(rng):
    X = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="weight"):
        MultilinearRegressor().fit(X, X[:, 0], sample_weight=np.zeros(10))
    with pytest.raises(ValueError, match="'degree' parameter"):
        MultilinearRegressor(degree=4).fit(X, X[:, 0])
    with pytest.raises(NotFittedError):
        MultilinearRegressor().predict(X)


# Within scikit-learn


def test_search(rng):
    X, _ = collinear(rng, 150)
    y = product_of_forms(rng, X, 2)
    pipeline = make_pipeline(StandardScaler(), MultilinearRegressor(random_state=0))
    grid = {
        "multilinearregressor__degree": [1, 2],
        "multilinearregressor__n_components": [2, None],
    }
    searches = [
        GridSearchCV(pipeline, grid, cv=3, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2)
    ]
    assert searches[0].best_params_["multilinearregressor__degree"] > 1
    assert searches[0].best_params_ == searches[1].best_params_
    assert_allclose(*(s.cv_results_["mean_test_score"] for s in searches))


def test_progress(rng, capsys):
    X = rng.normal(size=(30, 3))
    MultilinearRegressor().fit(X, X[:, 0])
    assert not capsys.readouterr().err
    MultilinearRegressor(verbose=1).fit(X, X[:, :2])
    assert "target 2 of 2" in capsys.readouterr().err
