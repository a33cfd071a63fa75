import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synthetic import brute_force_errors, collinear, product_of_forms, white_sample

from skscatharm.regression import MultilinearRegressor
from skscatharm.regression.polynomial import evaluate
from skscatharm.regression.ridge import (
    choose_penalty,
    fit_linear,
    fit_part,
    fit_ridge,
)


@pytest.fixture
def sample(rng):
    """Few samples with weights, and two targets of different noise."""
    X = rng.normal(size=(15, 3))
    Y = X[:, :1] + [0.1, 5] * rng.normal(size=(15, 2))
    return white_sample(X, Y, rng.uniform(0.5, 2, size=15))


def test_leave_one_out(sample) -> None:
    white, deviations, targets, weight = sample
    standard = white * deviations
    y = targets[:, 0]
    alphas = [0.3, 3.0]
    coef, errors = fit_linear(white, deviations, y, weight, alphas)
    for k, alpha in enumerate(alphas):

        def fit(kept, alpha=alpha):
            ridge = Ridge(alpha).fit(standard[kept], y[kept], weight[kept])
            return ridge.predict(standard)

        assert_allclose(errors[:, k], brute_force_errors(fit, y))
        ridge = Ridge(alpha).fit(standard, y, weight)
        assert_allclose(coef[:, k] / deviations, ridge.coef_)


def test_choose_penalty(sample) -> None:
    white, deviations, targets, weight = sample
    arguments = white, deviations, targets[:, 1], weight
    alpha, coef, residuals = choose_penalty(*arguments, None)
    expected, errors = fit_linear(*arguments, alpha)
    assert_allclose(coef, expected[:, 0])
    assert_allclose(residuals, errors[:, 0])
    for other in (alpha / 10, alpha * 10):
        given, _, larger = choose_penalty(*arguments, other)
        assert given == other
        assert weight @ abs(larger) > weight @ abs(residuals)


def test_targets_have_their_own_penalties(sample) -> None:
    polynomial, alphas, residuals = fit_ridge(sample, None)
    assert alphas[0] < alphas[1]
    white, deviations, targets, weight = sample
    predictions = evaluate(white, polynomial)
    for k, y in enumerate(targets.T):
        _, expected = fit_linear(white, deviations, y, weight, alphas[k])
        assert_allclose(residuals[:, k], expected[:, 0])
        ridge = Ridge(alphas[k]).fit(white * deviations, y, weight)
        assert_allclose(predictions[:, k], ridge.predict(white * deviations))
    _, given, _ = fit_ridge(sample, 0.7)
    assert_allclose(given, 0.7)


def test_part(rng) -> None:
    X = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)) + 5
    Y = rng.normal(size=(30, 2)) + 3
    weight = rng.uniform(0.5, 2, size=30)
    alphas = [0.1, 20.0]
    coef, intercept = fit_part(X, Y, weight, alphas)
    for k, alpha in enumerate(alphas):
        ridge = Ridge(alpha).fit(X, Y[:, k], weight)
        assert_allclose(coef[:, k], ridge.coef_)
        assert intercept[k] == pytest.approx(ridge.intercept_)


def test_part_without_penalty(rng) -> None:
    # The matrix is singular: there are fewer samples than features.
    X = rng.normal(size=(4, 6))
    Y = rng.normal(size=(4, 1))
    coef, intercept = fit_part(X, Y, np.ones(4), [0.0])
    assert_allclose(intercept + X @ coef, Y, atol=1e-6)
    same = LinearRegression().fit(X, Y[:, 0])
    assert_allclose(coef[:, 0], same.coef_, atol=1e-3)


# The regressor of degree 1


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 10.0])
def test_degree_1_is_ridge(rng, alpha) -> None:
    X, _ = collinear(rng, 80)
    y = product_of_forms(rng, X, 2)
    weight = rng.uniform(0.5, 2, size=80)
    model = MultilinearRegressor(1, alpha=alpha).fit(X, y, sample_weight=weight)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha, solver="cholesky"))
    ridge.fit(X, y, standardscaler__sample_weight=weight, ridge__sample_weight=weight)
    assert_allclose(model.predict(X), ridge.predict(X), rtol=1e-7, atol=1e-8)
    assert_allclose(model.coef_, ridge[1].coef_ / ridge[0].scale_, atol=1e-8)
    assert model.product_coef_.shape == (0,)
    assert model.product_weights_.shape == (0, 1, 12)
    assert model.alpha_ == alpha


def test_degree_1_with_more_features_than_samples(rng) -> None:
    X = rng.normal(size=(20, 50))
    y = rng.normal(size=20)
    model = MultilinearRegressor(1, alpha=0.1).fit(X, y)
    ridge = make_pipeline(StandardScaler(), Ridge(0.1)).fit(X, y)
    new = rng.normal(size=(10, 50))
    assert_allclose(model.predict(new), ridge.predict(new))


def test_degree_1_chooses_alpha_by_leaving_out(rng) -> None:
    X = StandardScaler().fit_transform(rng.normal(size=(40, 20)))
    y = X[:, 0] + rng.normal(size=40)
    model = MultilinearRegressor(1).fit(X, y)
    ridge = RidgeCV(10.0 ** np.arange(-10, 5), scoring="neg_mean_absolute_error")
    assert model.alpha_ == pytest.approx(ridge.fit(X, y).alpha_)
