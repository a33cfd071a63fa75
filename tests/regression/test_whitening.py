import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from skscatharm.regression.whitening import distinct_rows, find_whitening, scale_axes


def test_distinct_rows() -> None:
    X = np.array([[0.0, 1], [2, 3], [-0.0, 1], [0, 1], [2, 3], [9, 9]])
    Y = np.array([[1.0], [2], [1], [5], [2], [9]])
    weight = np.array([1.0, 2, 3, 4, 0.5, 0])
    X, Y, weight = distinct_rows(X, Y, weight)
    found = {(*x, *y): w for x, y, w in zip(X, Y, weight, strict=True)}
    assert found == {(0, 1, 1): 4, (2, 3, 2): 2.5, (0, 1, 5): 4}


def test_distinct_rows_come_in_one_order(rng) -> None:
    X, Y, weight = rng.normal(size=(30, 3)), rng.normal(size=(30, 2)), np.arange(30.0)
    shuffled = rng.permutation(30)
    for a, b in zip(
        distinct_rows(X, Y, weight),
        distinct_rows(X[shuffled], Y[shuffled], weight[shuffled]),
        strict=True,
    ):
        assert_array_equal(a, b)
        assert a.flags.c_contiguous


def test_find_whitening(rng) -> None:
    X = np.hstack([rng.normal(size=(50, 4)), np.full((50, 1), 7.0)])
    X[:, 3] = X[:, 0] - X[:, 1]
    weight = rng.uniform(0.5, 2, size=50)
    mean, whitening, deviations = find_whitening(X, weight)
    assert whitening.shape == (5, 3)
    white = (X - mean) @ whitening
    share = weight / weight.sum()
    assert_allclose(share @ white, 0, atol=1e-12)
    assert_allclose((white.T * share) @ white, np.eye(3), atol=1e-12)
    standard = StandardScaler().fit_transform(X, sample_weight=weight)
    spectrum = np.linalg.eigvalsh((standard.T * share) @ standard)[::-1]
    assert_allclose(deviations**2, spectrum[:3])


def test_small_axes_are_not_lost(rng) -> None:
    # Their variance is smaller than the rounding of the largest one's.
    X = rng.normal(size=(60, 1)) + [0, 1e-7, 0] * rng.normal(size=(60, 3))
    _, _, deviations = find_whitening(X, np.ones(60))
    assert len(deviations) == 2
    assert deviations[1] == pytest.approx(1e-7, rel=0.5)


def test_no_axes() -> None:
    mean, whitening, deviations = find_whitening(np.full((3, 2), 0.1), np.ones(3))
    assert_allclose(mean, 0.1)
    assert whitening.shape == (2, 0)
    assert deviations.shape == (0,)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_scale_axes(rng, decay) -> None:
    X = rng.normal(size=(40, 5)) * [5, 4, 3, 2, 1] @ rng.normal(size=(5, 5))
    axes = find_whitening(X, np.ones(40))
    coordinates, factors = scale_axes(
        (X - axes.mean) @ axes.matrix, axes.deviations, decay
    )
    assert (coordinates**2).sum(axis=1).mean() == pytest.approx(1)
    expected = (axes.deviations / axes.deviations[0]) ** decay
    assert_allclose(factors / factors[0], expected)
    assert_allclose(coordinates.std(axis=0), factors)
