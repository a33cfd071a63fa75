from threading import Event

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from synthetic import product_of_forms, white_sample

from skscatharm.regression.descent import (
    _KNEE,
    _UNIT,
    Stopped,
    _gradients,
    _residual,
    _Scales,
    train_products,
)
from skscatharm.regression.polynomial import Polynomial, evaluate
from skscatharm.regression.ridge import fit_part, fit_ridge


def train(sample, start=None, *, alpha=None, seed=0, **options):
    """Train from ridge regression or from `start`; also return ridge's errors."""
    _, alphas, residuals = fit_ridge(sample, alpha)
    errors = sample.weight @ abs(residuals) / sample.weight.sum()
    options = {
        "degree": 2,
        "n_products": 4,
        "max_epochs": 10,
        "validation_fraction": 0.2,
    } | options
    training = train_products(
        sample,
        alphas,
        errors,
        start,
        random_state=np.random.RandomState(seed),
        xp=np,
        device=None,
        **options,
    )
    return training, alphas, errors


def parts(sample, validation_fraction=0.2, seed=0):
    """Samples that `train` sets apart, and those it trains on."""
    order = np.random.RandomState(seed).permutation(len(sample.white))
    n_apart = round(validation_fraction * len(order))
    return [
        sample._replace(
            white=sample.white[rows],
            targets=sample.targets[rows],
            weight=sample.weight[rows],
        )
        for rows in (order[:n_apart], order[n_apart:])
    ]


def ridge_regression(sample, alphas):
    """Ridge regression on some of the samples."""
    white, deviations, targets, weight = sample
    slope, intercept = fit_part(white * deviations, targets, weight, alphas)
    n_targets, n_axes = targets.shape[1], white.shape[1]
    return Polynomial(
        intercept,
        (deviations[:, None] * slope).T,
        np.zeros((n_targets, 1)),
        np.zeros((1, 1, n_axes)),
        np.zeros((1, 1)),
    )


def mean_error(polynomial, sample, errors):
    """Mean absolute error, relative to that of ridge regression."""
    found = abs(evaluate(sample.white, polynomial) - sample.targets) / errors
    return np.average(found.mean(axis=1), weights=sample.weight)


def noisy(rng, n_samples=100, noise=1.0):
    """Two targets of different size, with products in them and with noise."""
    X = rng.normal(size=(n_samples, 4)) @ rng.normal(size=(4, 4))
    Y = np.column_stack([product_of_forms(rng, X, 2) for _ in range(2)])
    Y /= Y.std(axis=0)
    Y += noise * rng.normal(size=Y.shape)
    return white_sample(X, Y * [1, 100], rng.uniform(0.5, 2, size=n_samples))


# Parameters and gradients


@pytest.fixture
def polynomial(rng):
    """Drawn, of 5 axes, with 3 targets and 4 products of 3 factors."""
    return Polynomial(
        rng.normal(size=3),
        rng.normal(size=(3, 5)),
        rng.normal(size=(3, 4)),
        rng.normal(size=(4, 3, 5)),
        rng.normal(size=(4, 3)),
    )


@pytest.fixture
def scales(rng):
    return _Scales(rng.uniform(0.1, 1, size=5), rng.uniform(0.1, 10, size=3))


def test_pack_and_unpack(scales, polynomial) -> None:
    found = scales.unpack(scales.pack(polynomial), 3)
    for array, expected in zip(found, polynomial, strict=True):
        assert_allclose(array, expected)


def test_packed_parameters_predict_the_same(rng, scales, polynomial) -> None:
    white = rng.normal(size=(10, 5))
    residual, _, _ = _residual(
        np, scales.pack(polynomial), white * scales.columns, np.zeros((10, 3)), 3
    )
    assert_allclose(residual * scales.units, evaluate(white, polynomial))


def test_first_products(scales) -> None:
    # Factors are near 1, and the products together of the size of the targets.
    coef, weights, offsets = scales.draw(500, 2, np.random.RandomState(0))
    factors = np.linalg.norm(weights, axis=2)
    assert np.sqrt((factors**2).mean()) == pytest.approx(0.25, rel=0.1)
    assert_array_equal(offsets, 1)
    assert_allclose(np.linalg.norm(coef, axis=1), scales.units)


@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("degree", [2, 3])
def test_gradients(rng, degree, n_targets) -> None:
    x = rng.normal(size=(6, 5))
    y = rng.normal(size=(6, n_targets))
    weight = rng.uniform(0.5, 2, size=6)
    shapes = [(5, degree * 4), (degree * 4,), (4, n_targets), (5, n_targets), n_targets]
    parameters = [rng.normal(size=shape) for shape in shapes]
    # A residual near zero, where the error is smoothed.
    unit = _Scales(np.ones(5), np.full(n_targets, 1 / _UNIT))

    def values():
        return evaluate(x, unit.unpack(parameters, degree))

    y[0, 0] = values()[0, 0] + _KNEE / 2

    def loss():
        smoothed = np.sqrt((values() - y) ** 2 + _KNEE**2)
        return weight @ smoothed.sum(axis=1) / len(x)

    gradients, absolute = _gradients(np, parameters, x, y, weight, degree)
    assert absolute == pytest.approx(weight @ abs(values() - y).mean(axis=1))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient.shape == parameter.shape
        flat = parameter.reshape(-1)
        for i in range(flat.size):
            here = flat[i]
            ends = []
            for flat[i] in (here + 1e-6, here - 1e-6):
                ends.append(loss())
            flat[i] = here
            slope = (ends[0] - ends[1]) / 2e-6
            assert gradient.flat[i] == pytest.approx(slope, rel=1e-5, abs=1e-7)


# Training


@pytest.mark.parametrize("degree", [2, 3])
def test_recovers_a_product(rng, degree) -> None:
    X = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5)) + 3
    y = product_of_forms(rng, X, degree)
    training, _, _ = train(
        white_sample(X, y),
        degree=degree,
        n_products=8,
        max_epochs=60,
        validation_fraction=0.1,
    )
    apart, _ = parts(white_sample(X, y), 0.1)
    deviation = apart.targets.std()
    assert mean_error(training.polynomial, apart, deviation) < 0.01


def test_targets_share_products(rng) -> None:
    X = rng.normal(size=(400, 4))
    product = (X[:, 0] + 0.5) * (X[:, 1] - 0.5)
    Y = np.outer(product, [1, -3, 1e4]) + X @ rng.normal(size=(4, 3))
    sample = white_sample(X, Y)
    training, _, _ = train(sample, n_products=3, max_epochs=60)
    assert training.polynomial.weights.shape == (3, 2, 4)
    assert training.polynomial.coef.shape == (3, 3)
    assert mean_error(training.polynomial, sample, Y.std(axis=0)) < 0.02


def test_best_epoch_is_taken(rng) -> None:
    # Three samples for a parameter: the last epochs overfit.
    sample = noisy(rng)
    training, _, errors = train(sample, n_products=16, max_epochs=30)
    assert training.losses.shape == training.validation_errors.shape == (30,)
    least = training.validation_errors.min()
    assert least < training.validation_errors[-1]
    apart, _ = parts(sample)
    assert mean_error(training.polynomial, apart, errors) == pytest.approx(
        least, rel=1e-4
    )


def test_last_epoch_is_taken_if_none_is_set_apart(rng) -> None:
    sample = noisy(rng)
    training, _, errors = train(
        sample, n_products=16, max_epochs=30, validation_fraction=0
    )
    assert training.losses[-1] < 0.9 * training.losses[0]
    # In the last epoch, steps are too small to change much.
    assert mean_error(training.polynomial, sample, errors) == pytest.approx(
        training.losses[-1], rel=0.02
    )


def test_products_are_not_used_where_they_do_not_help(rng) -> None:
    X = rng.normal(size=(60, 5))
    sample = white_sample(X, X[:, 0] + 0.01 * rng.normal(size=60))
    # The products that are drawn do not vanish so soon.
    training, alphas, _ = train(sample, max_epochs=2)
    _, used = parts(sample)
    linear = ridge_regression(used, alphas)
    assert_array_equal(training.polynomial.coef, 0)
    assert_allclose(training.polynomial.slope, linear.slope, atol=1e-5)
    assert_allclose(training.polynomial.intercept, linear.intercept, atol=1e-5)


def test_no_worse_than_ridge_on_noise(rng) -> None:
    X = rng.normal(size=(80, 10))
    sample = white_sample(X, rng.normal(size=80))
    training, alphas, errors = train(sample)
    apart, used = parts(sample)
    ridge = mean_error(ridge_regression(used, alphas), apart, errors)
    assert mean_error(training.polynomial, apart, errors) <= ridge * (1 + 1e-5)


def test_a_start_is_improved_or_kept(rng) -> None:
    sample = noisy(rng)
    first, _, errors = train(sample, max_epochs=5)
    again, _, _ = train(sample, first.polynomial, max_epochs=20)
    apart, _ = parts(sample)
    before, after = (
        mean_error(training.polynomial, apart, errors) for training in (first, again)
    )
    assert after < before
    # The best of 20 epochs cannot be beaten by a step or two.
    kept, _, _ = train(sample, again.polynomial, max_epochs=1)
    assert mean_error(kept.polynomial, apart, errors) <= after * (1 + 1e-5)


def test_random_state(rng) -> None:
    sample = noisy(rng)
    first, same, other = (
        train(sample, seed=seed, max_epochs=2)[0] for seed in (0, 0, 1)
    )
    for array, equal in zip(first.polynomial, same.polynomial, strict=True):
        assert_array_equal(array, equal)
    assert not np.array_equal(first.losses, other.losses)


def test_units_of_the_targets_do_not_matter(rng) -> None:
    sample = noisy(rng)
    # Powers of two leave every digit.
    units = np.array([2.0**-30, 2.0**40])
    first, _, _ = train(sample, max_epochs=3)
    scaled, _, _ = train(sample._replace(targets=sample.targets * units), max_epochs=3)
    assert_allclose(scaled.losses, first.losses, rtol=1e-5)
    assert_allclose(scaled.polynomial.coef / units[:, None], first.polynomial.coef)
    assert_allclose(scaled.polynomial.weights, first.polynomial.weights)


def test_progress(rng) -> None:
    calls = []
    train(noisy(rng), max_epochs=3, progress=lambda: calls.append(1))
    assert len(calls) == 3


def test_stop(rng) -> None:
    stop = Event()
    calls = []

    def progress():
        calls.append(1)
        if len(calls) == 2:
            stop.set()

    with pytest.raises(Stopped):
        train(noisy(rng), max_epochs=10**9, progress=progress, stop=stop)
    # Not even the next epoch ends.
    assert len(calls) == 2


def test_negligible_weights_of_samples_set_apart(rng) -> None:
    sample = noisy(rng)
    order = np.random.RandomState(0).permutation(len(sample.white))
    weight = sample.weight.copy()
    # In single precision, these are zero.
    weight[order[:20]] *= 2.0**-300
    found, _, same = train(sample._replace(weight=weight), alpha=1.0, max_epochs=3)
    apart, _ = parts(sample)
    assert np.isfinite(found.validation_errors).all()
    error = mean_error(found.polynomial, apart, same)
    assert error <= found.validation_errors.min() * (1 + 1e-4)
