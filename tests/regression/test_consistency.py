"""Targets are compared with their derivatives."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skscatharm.regression.consistency import compare_with_gradients


@pytest.fixture
def sample(rng):
    """Features tanh(M t), a target that is curved in them, and all derivatives."""
    t, matrix = rng.normal(scale=0.3, size=(20, 4)), rng.normal(size=(12, 4))
    features = np.tanh(t @ matrix.T)
    jacobian = (1 - features**2)[:, :, np.newaxis] * matrix
    slopes, curvature = rng.normal(size=12), 0.1
    targets = features @ slopes + curvature * (features**2).sum(axis=1)
    gradients = np.einsum("nfc,nf->nc", jacobian, slopes + 2 * curvature * features)
    return features, targets, jacobian, gradients


@pytest.mark.parametrize("factor", [1, -1, 23.06, 1 / 51.4])
def test_sign_and_unit(factor, sample) -> None:
    features, targets, jacobian, gradients = sample
    slope, correlation = compare_with_gradients(
        features, targets, jacobian, factor * gradients
    )
    assert_allclose(slope * factor, 1, rtol=0.1)
    assert np.sign(factor) * correlation > 0.95


def test_constants_with_noise_and_padding_change_nothing(sample, rng) -> None:
    features, targets, jacobian, gradients = sample
    expected = compare_with_gradients(features, targets, jacobian, gradients)
    noise = rng.normal(scale=1e-7, size=(20, 5))
    features = np.column_stack([features, 1 + noise])
    jacobian = np.pad(jacobian, [(0, 0), (0, 5), (0, 2)])
    jacobian[:, 12:, :4] = rng.normal(scale=1e-7, size=(20, 5, 4))
    gradients = np.pad(gradients, [(0, 0), (0, 2)])
    found = compare_with_gradients(features, targets, jacobian, gradients)
    assert_allclose(found, expected)


def test_what_is_known_is_not_compared(sample, rng) -> None:
    features, targets, jacobian, gradients = sample
    volume = rng.normal(size=20)
    targets = targets - 30 * volume
    # A feature that hardly depends on these coordinates, and that targets depend on.
    features = np.column_stack([features, 2 * volume + features[:, 0]])
    jacobian = np.concatenate([jacobian, jacobian[:, :1]], axis=1)
    slope, correlation = compare_with_gradients(features, targets, jacobian, gradients)
    assert slope < 0
    slope, correlation = compare_with_gradients(
        features, targets, jacobian, gradients, volume[:, np.newaxis]
    )
    assert_allclose(slope, 1, rtol=0.15)
    assert correlation > 0.9
    # Columns that hardly vary explain nothing.
    alike = rng.normal(scale=1e-15, size=(20, 2))
    expected = compare_with_gradients(features, targets, jacobian, gradients)
    found = compare_with_gradients(features, targets, jacobian, gradients, alike)
    assert_allclose(found, expected)
    volume = np.column_stack([volume, targets])
    arguments = features, targets, jacobian, gradients, volume
    assert compare_with_gradients(*arguments) == (1, 0)


def test_nothing_to_compare(sample) -> None:
    features, targets, jacobian, gradients = sample
    for arguments in (
        (features, np.ones(20), jacobian, gradients),
        (features, targets, jacobian, 0 * gradients),
        (np.ones((20, 12)), targets, 0 * jacobian, gradients),
    ):
        assert compare_with_gradients(*arguments)[1] == 0
