import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.regression import polynomial as module
from skscatharm.regression.polynomial import (
    Polynomial,
    average,
    divide,
    evaluate,
    in_axes,
    in_features,
    rescale,
    stack,
)
from skscatharm.regression.whitening import find_whitening


def draw(rng, n_targets=2, n_products=4, degree=3, n_columns=5):
    """Draw a polynomial."""
    return Polynomial(
        rng.normal(size=n_targets),
        rng.normal(size=(n_targets, n_columns)),
        rng.normal(size=(n_targets, n_products)),
        rng.normal(size=(n_products, degree, n_columns)),
        rng.normal(size=(n_products, degree)),
    )


@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("n_products", [0, 4])
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_evaluate(rng, monkeypatch, degree, n_products, n_targets) -> None:
    X = rng.normal(size=(25, 5))
    polynomial = draw(rng, n_targets, n_products, degree)
    intercept, slope, coef, weights, offsets = polynomial
    factors = np.einsum("rtd,nd->nrt", weights, X) + offsets
    expected = (
        intercept
        + np.einsum("kd,nd->nk", slope, X)
        + np.einsum("kr,nr->nk", coef, factors.prod(axis=2))
    )
    assert_allclose(evaluate(X, polynomial), expected)
    monkeypatch.setattr(module, "_BATCH", 10)
    assert_allclose(evaluate(X, polynomial), expected)


def test_evaluate_leaves_the_arguments(rng) -> None:
    X = rng.normal(size=(3, 5))
    polynomial = draw(rng)
    copies = [array.copy() for array in (X, *polynomial)]
    evaluate(X, polynomial)
    for array, copy in zip((X, *polynomial), copies, strict=True):
        assert_array_equal(array, copy)


@pytest.mark.parametrize("spread", [0, 6])
def test_in_features_and_back(rng, spread) -> None:
    # The coordinates along some axes are small, and units can be far apart.
    units = 10.0 ** rng.uniform(-spread, spread, size=5)
    X = rng.normal(size=(40, 5)) * np.logspace(0, -5, 5) @ rng.normal(size=(5, 5))
    X = np.hstack([units * (X + 1), np.full((40, 1), 3.0)])
    weight = rng.uniform(0.5, 2, size=40)
    axes = find_whitening(X, weight)
    assert len(axes.deviations) == 5
    polynomial = draw(rng)
    # A product with a factor that is zero.
    polynomial.weights[1, 0] = polynomial.offsets[1, 0] = 0
    white = (X - axes.mean) @ axes.matrix
    expected = evaluate(white, polynomial)

    of_features = in_features(polynomial, axes)
    assert_allclose(evaluate(X, of_features), expected, atol=1e-7)
    factors = np.einsum("rtd,nd->nrt", of_features.weights, X) + of_features.offsets
    squares = np.average(factors**2, axis=0, weights=weight)
    assert squares[1, 0] == 0
    squares[1, 0] = 1
    assert_allclose(squares, 1, rtol=1e-6)

    back = in_axes(of_features, axes)
    assert_allclose(back.intercept, polynomial.intercept, atol=1e-7)
    assert_allclose(back.slope, polynomial.slope, atol=1e-7)
    assert_allclose(evaluate(white, back), expected, atol=1e-6)


def test_rescale(rng) -> None:
    X = rng.normal(size=(10, 5))
    polynomial = draw(rng)
    scaled = rescale(polynomial, np.array([2.0, -3.0]))
    assert_allclose(evaluate(X, scaled), evaluate(X, polynomial) * [2, -3])


def test_average(rng) -> None:
    X = rng.normal(size=(10, 5))
    parts = [draw(rng) for _ in range(3)]
    expected = np.mean([evaluate(X, part) for part in parts], axis=0)
    assert_allclose(evaluate(X, average(parts)), expected)


def test_divide(rng) -> None:
    parts = [draw(rng) for _ in range(3)]
    whole = average(parts)
    divided = divide(whole, 3)
    for found, part in zip(divided, parts, strict=True):
        for name in ("coef", "weights", "offsets"):
            assert_allclose(getattr(found, name), getattr(part, name))
        assert_allclose(found.intercept, whole.intercept)
        assert_allclose(found.slope, whole.slope)
    for again, array in zip(average(divided), whole, strict=True):
        assert_allclose(again, array)


def test_stack(rng) -> None:
    X = rng.normal(size=(10, 5))
    parts = [draw(rng, 1, n_products) for n_products in (3, 0, 2)]
    stacked = stack(parts)
    assert stacked.coef.shape == (3, 5)
    expected = np.hstack([evaluate(X, part) for part in parts])
    assert_allclose(evaluate(X, stacked), expected)
