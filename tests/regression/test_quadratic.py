import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synthetic import (
    brute_force_errors,
    collinear,
    product_of_forms,
    relative_error,
    white_sample,
)

from skscatharm.regression import MultilinearRegressor, quadratic
from skscatharm.regression.polynomial import evaluate
from skscatharm.regression.quadratic import (
    Prior,
    fit_kernel,
    fit_kernel_iteratively,
    fit_products,
    fit_quadratic,
    leave_one_out,
    select_prior,
)

NO_SAMPLES = np.arange(0)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_kernel_minimises_the_objective(rng, fit_intercept) -> None:
    features = rng.normal(size=(30, 8))
    y = rng.normal(size=30)
    weight = rng.uniform(0.5, 2, size=30)
    dual, intercept, _ = fit_kernel(
        features @ features.T, y, weight, 0.1, NO_SAMPLES, fit_intercept=fit_intercept
    )
    coef = dual @ features
    # There the gradient vanishes.
    residual = y - intercept - features @ coef
    assert_allclose(features.T @ (weight * residual), 0.1 * coef, atol=1e-12)
    if fit_intercept:
        assert weight @ residual == pytest.approx(0, abs=1e-12)
    else:
        assert intercept == 0


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_leave_one_out(rng, fit_intercept) -> None:
    free = {"fit_intercept": fit_intercept}
    Z = rng.normal(size=(15, 3))
    y = rng.normal(size=15)
    weight = rng.uniform(0.5, 2, size=15)
    kernel = (1 + Z @ Z.T) ** 2

    def fit(kept):
        part = kernel[np.ix_(kept, kept)].copy()
        dual, intercept, _ = fit_kernel(
            part, y[kept], weight[kept], 0.3, NO_SAMPLES, **free
        )
        return kernel[:, kept] @ dual + intercept

    expected = brute_force_errors(fit, y)
    assert_allclose(leave_one_out(kernel.copy(), y, weight, 0.3, **free), expected)
    some = np.array([2, 3, 11])
    _, _, errors = fit_kernel(kernel, y, weight, 0.3, some, **free)
    assert_allclose(errors, expected[some])


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_iterations_find_the_same(rng, fit_intercept) -> None:
    free = {"fit_intercept": fit_intercept}
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
        *problem, **free, tol=1e-12, progress=lambda: counts.append(1)
    )
    expected, expected_intercept, _ = fit_kernel(
        kernel.copy(), y, weight, 0.1, NO_SAMPLES, **free
    )
    assert_allclose(dual, expected, atol=1e-8)
    assert intercept == pytest.approx(expected_intercept)
    assert 0 < len(counts) < 120
    with pytest.warns(ConvergenceWarning, match="after 3 iterations"):
        fit_kernel_iteratively(*problem, max_iter=3)


def test_many_samples(rng, monkeypatch) -> None:
    X, _ = collinear(rng, 200)
    y = product_of_forms(rng, X, 3)
    white, deviations, targets, weight = white_sample(X, y / y.std())
    references, everything = np.arange(0, 200, 7), np.arange(200)

    def fit(rows=everything, left_out=references):
        polynomial, errors = fit_products(
            white[rows],
            deviations,
            targets[rows, 0],
            weight[rows],
            Prior(0.35, 0.2, 0.1, 1e-4),
            left_out,
            np.random.RandomState(0),
        )
        return evaluate(white, polynomial), errors

    direct, _ = fit()
    without, _ = fit(np.delete(everything, references), NO_SAMPLES)
    monkeypatch.setattr(quadratic, "_DIRECT_SIZE", 100)
    monkeypatch.setattr(quadratic, "_PRECONDITIONER_SIZE", 30)
    iterated, errors = fit()
    assert_allclose(iterated, direct, atol=1e-3)
    assert not np.array_equal(iterated, direct)
    assert_allclose(errors, (targets - without)[references, 0], atol=1e-3)
    assert not np.allclose(errors, (targets - direct)[references, 0], atol=1e-2)


def test_polynomial_minimises_the_objective(rng) -> None:
    # Written out with all products, at given scales.
    X = rng.normal(size=(40, 3))
    y = rng.normal(size=40)
    prior = Prior(1.0, 0.5, 0.3, 0.2)
    sample = white_sample(X, y, rng.uniform(0.5, 2, size=40))
    white, deviations, targets, weight = sample
    polynomial, _ = fit_products(
        white,
        deviations,
        targets[:, 0],
        weight,
        prior,
        NO_SAMPLES,
        np.random.RandomState(0),
    )
    scales = [deviations**p for p in (prior.linear_decay, prior.product_decay)]
    linear, z = (white * s / np.linalg.norm(s) for s in scales)
    pairs = np.einsum("ni,nj->nij", z, z).reshape(40, -1)
    features = np.hstack([linear, np.sqrt(prior.curvature) * pairs])
    ridge = Ridge(prior.alpha).fit(features, targets[:, 0], weight)
    assert_allclose(
        evaluate(white, polynomial)[:, 0], ridge.predict(features), atol=1e-10
    )


def test_squares(rng) -> None:
    X, _ = collinear(rng, 60, n_features=5)
    sample = white_sample(X, product_of_forms(rng, X, 2))
    polynomial, _, _ = fit_quadratic(sample, None, 0, NO_SAMPLES)
    # As many as there are axes, the largest first, each the square of a form.
    assert polynomial.coef.shape == (1, 5)
    assert (np.diff(abs(polynomial.coef)) <= 0).all()
    assert_array_equal(polynomial.weights[:, 0], polynomial.weights[:, 1])
    assert_array_equal(polynomial.offsets, 0)


def test_select_prior(rng) -> None:
    X = rng.normal(size=(100, 4))
    noise = rng.normal(size=100)
    white, deviations, _, weight = white_sample(X, noise)
    plane, bowl, given = (
        select_prior(white, deviations, y, weight, alpha)
        for y, alpha in [
            (white[:, 0] + noise, None),
            (white[:, 0] ** 2, None),
            (noise, 0.05),
        ]
    )
    assert plane.alpha > bowl.alpha
    assert plane.curvature < bowl.curvature
    assert given.alpha == 0.05


def test_targets_are_fitted_one_by_one(rng) -> None:
    X, _ = collinear(rng, 100)
    Y = np.column_stack([product_of_forms(rng, X, t) for t in (1, 2, 3)])
    Y *= [1, 100, 0.01]
    together = MultilinearRegressor(2, random_state=0).fit(X, Y)
    for k in range(3):
        alone = MultilinearRegressor(2, random_state=0).fit(X, Y[:, k])
        assert_allclose(together.predict(X)[:, k], alone.predict(X), rtol=1e-6)
        assert together.alpha_[k] == alone.alpha_
    # The products of one target count for no other.
    assert (np.count_nonzero(together.product_coef_, axis=0) <= 1).all()


def test_random_state(rng, monkeypatch) -> None:
    # The prior is chosen on some of the samples.
    monkeypatch.setattr(quadratic, "_SELECTION_SIZE", 30)
    X, _ = collinear(rng, 100)
    y = product_of_forms(rng, X, 3)
    first, same, other = (
        MultilinearRegressor(random_state=seed).fit(X, y).predict(X)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, same)
    assert not np.array_equal(first, other)


# What it learns


def test_recovers_a_product(rng) -> None:
    X = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 3
    y = product_of_forms(rng, X, 2)
    model = MultilinearRegressor(random_state=0).fit(X[:200], y[:200])
    assert relative_error(model, X[200:], y[200:]) < 1e-5


def test_beats_ridge_on_molecule_like_data(rng) -> None:
    X, sources = collinear(rng, 300, n_features=60, n_sources=8)
    y = sources @ np.arange(8) + 0.5 * (sources**2).sum(axis=1)
    ours = cross_val_score(
        MultilinearRegressor(), X, y, scoring="neg_mean_absolute_error", cv=3
    )
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-8, 3, 23)))
    ridges = cross_val_score(ridge, X, y, scoring="neg_mean_absolute_error", cv=3)
    assert ours.mean() > 0.5 * ridges.mean()


def test_is_not_much_worse_than_ridge_on_noise(rng) -> None:
    X = rng.normal(size=(300, 10))
    y = X[:, 0] + 5 * rng.normal(size=300)
    ours = cross_val_score(MultilinearRegressor(), X, y, scoring="r2", cv=3)
    ridges = cross_val_score(RidgeCV(np.logspace(-3, 4, 15)), X, y, scoring="r2", cv=3)
    assert ours.mean() > ridges.mean() - 0.05
