import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from skscatharm.regression import whitening as module
from skscatharm.regression.whitening import (
    distinct_rows,
    distinct_samples,
    find_whitening,
    root_mean_square,
    scale_axes,
)


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


def test_distinct_rows_leave_the_arguments(rng) -> None:
    X, Y = rng.normal(size=(5, 3)), np.full((5, 1), -0.0)
    copies = X.copy(), Y.copy()
    distinct_rows(X, Y, np.ones(5))
    assert_array_equal(X, copies[0])
    assert np.signbit(Y).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_distinct_jacobians(order, rng) -> None:
    X = np.zeros((4, 2))
    jacobian = np.asarray(np.tile(rng.normal(size=(2, 3)), (4, 1, 1)), order=order)
    jacobian[:, 0, 0] = [0, 1, -0.0, 2]
    rows, weight = distinct_samples([X, jacobian], np.array([1.0, 1, 2, 0]))
    assert dict(zip(rows.tolist(), weight, strict=True)) == {0: 3, 1: 1}


def test_many_rows(rng, monkeypatch) -> None:
    # Compared with those of NumPy, in batches of which the last is shorter.
    monkeypatch.setattr(module, "_COMPARED", 7)
    X = rng.integers(0, 3, size=(100, 3)).astype(float)
    Y = rng.integers(0, 2, size=(100, 1)).astype(float)
    found = np.hstack(distinct_rows(X, Y, np.ones(100))[:2])
    weight = distinct_rows(X, Y, np.ones(100))[2]
    expected, counts = np.unique(np.hstack([X, Y]), axis=0, return_counts=True)
    order = np.lexsort(found.T[::-1])
    assert_array_equal(found[order], expected)
    assert_array_equal(weight[order], counts)


def test_memory_of_distinct_rows(rng) -> None:
    X, Y = rng.normal(size=(2000, 100)), rng.normal(size=(2000, 1))
    tracemalloc.start()
    try:
        result = distinct_rows(X, Y, np.ones(2000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(result[0]) == 2000
    # One copy to sort, and one that is sorted.
    assert peak < 2.3 * X.nbytes + 2 * module._COMPARED * X[0].nbytes


@pytest.mark.parametrize("exponent", [-1000, -550, 0, 550, 1000])
def test_root_mean_square(rng, exponent) -> None:
    columns = rng.normal(size=(20, 3)) * [1, 0, 2.0**-20]
    share = rng.uniform(size=20)
    share /= share.sum()
    expected = np.sqrt(share @ columns**2)
    found = root_mean_square(np.ldexp(columns, exponent), share)
    assert_array_equal(found, np.ldexp(expected, exponent))


def test_find_whitening(rng) -> None:
    X = np.hstack([rng.normal(size=(50, 4)), np.full((50, 1), 7.0)])
    X[:, 3] = X[:, 0] - X[:, 1]
    weight = rng.uniform(0.5, 2, size=50)
    mean, matrix, deviations = find_whitening(X, weight)
    assert matrix.shape == (5, 3)
    white = (X - mean) @ matrix
    share = weight / weight.sum()
    assert_allclose(share @ white, 0, atol=1e-12)
    assert_allclose((white.T * share) @ white, np.eye(3), atol=1e-12)
    standard = StandardScaler().fit_transform(X, sample_weight=weight)
    spectrum = np.linalg.eigvalsh((standard.T * share) @ standard)[::-1]
    assert_allclose(deviations**2, spectrum[:3])


def test_small_axes_are_not_lost(rng) -> None:
    # Its variance is below the rounding error of the largest one.
    X = rng.normal(size=(60, 1)) + [0, 1e-7, 0] * rng.normal(size=(60, 3))
    _, _, deviations = find_whitening(X, np.ones(60))
    assert len(deviations) == 2
    assert deviations[1] == pytest.approx(1e-7, rel=0.5)


def test_axes_of_derivatives(rng) -> None:
    # Two samples vary along one axis, their features along two more.
    X = np.array([[1.0, 0, 5, 7], [3, 0, 5, 7]]) + 100
    jacobian = rng.normal(size=(2, 4, 3))
    jacobian[:, [0, 3]] = 0
    mean, matrix, deviations = find_whitening(X, np.ones(2), jacobian)
    assert_allclose(mean, X.mean(axis=0))
    # A feature that is equal in all samples has no weight.
    assert len(deviations) == 1
    X[1, [1, 2]] += [0.1, 0.2]
    mean, matrix, deviations = find_whitening(X, np.array([1.0, 3.0]), jacobian)
    assert len(deviations) == 3
    assert_allclose(matrix[3], 0)
    # The covariance, in which a factor makes the traces proportional.
    share = np.array([0.25, 0.75])
    scale = np.hypot(np.sqrt(share @ (X - mean)[:, :3] ** 2), module._FLOOR * mean[:3])
    first = np.cov(((X - mean)[:, :3] / scale).T, aweights=share, bias=True)
    slopes = jacobian[:, :3] / scale[:, None]
    second = np.einsum("n,npc,nqc->pq", share, slopes, slopes)
    second *= module._SHARE**2 * np.trace(first) / np.trace(second)
    assert_allclose(
        matrix[:3].T
        @ np.diag(scale)
        @ (first + second)
        @ (np.diag(scale) @ matrix[:3]),
        np.eye(3),
        atol=1e-9,
    )


def test_batches_of_derivatives(rng, monkeypatch) -> None:
    X, jacobian = rng.normal(size=(10, 3)), rng.normal(size=(10, 3, 4))
    expected = find_whitening(X, np.ones(10), jacobian)
    monkeypatch.setattr(module, "_JACOBIANS", 3)
    found = find_whitening(X, np.ones(10), jacobian)
    assert_allclose(found.deviations, expected.deviations)


def test_no_axes() -> None:
    mean, matrix, deviations = find_whitening(np.full((3, 2), 0.1), np.ones(3))
    assert_allclose(mean, 0.1)
    assert matrix.shape == (2, 0)
    assert deviations.shape == (0,)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_scale_axes(rng, decay) -> None:
    X = rng.normal(size=(40, 5)) * [5, 4, 3, 2, 1] @ rng.normal(size=(5, 5))
    whitening = find_whitening(X, np.ones(40))
    coordinates, factors = scale_axes(
        (X - whitening.mean) @ whitening.matrix, whitening.deviations, decay
    )
    assert (coordinates**2).sum(axis=1).mean() == pytest.approx(1)
    expected = (whitening.deviations / whitening.deviations[0]) ** decay
    assert_allclose(factors / factors[0], expected)
    assert_allclose(coordinates.std(axis=0), factors)


def test_rank_tolerance(rng) -> None:
    """Axes of smaller relative deviations are left out, with a Jacobian too."""
    X = rng.normal(size=(40, 5)) @ np.linalg.qr(rng.normal(size=(5, 5))).Q
    jacobian = rng.normal(size=(40, 5, 3))
    every = find_whitening(X, np.ones(40), jacobian).deviations
    middle = float(np.sqrt(every[1] * every[2]) / every[0])
    kept = find_whitening(X, np.ones(40), jacobian, rank_tolerance=middle)
    assert_allclose(kept.deviations, every[:2])
    assert kept.matrix.shape == (5, 2)
