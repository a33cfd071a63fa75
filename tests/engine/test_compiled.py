import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist

from skscatharm.engine import compiled, portable
from skscatharm.engine.compiled import gaussian_factors, near_columns


def test_gaussian_factors(rng) -> None:
    points, centres = rng.normal(size=9), rng.normal(size=4)
    d = (points[:, None] - centres) / 0.3
    found = gaussian_factors(points, centres, 0.3, 3, 2.0)
    for a in range(4):
        expected = np.where(np.abs(d) < 2, d**a * np.exp(-(d**2) / 2), 0)
        assert_allclose(found[a], expected, rtol=1e-12)


def test_near_columns_fill_the_rows_between_atoms(rng) -> None:
    x, y = np.linspace(-3, 3, 40), np.linspace(-2, 2, 30)
    positions = rng.uniform(-2, 2, size=(5, 3))
    rows, columns, spans = near_columns(x, y, positions, 0.8)
    squares = (x[:, None, None] - positions[:, 0]) ** 2
    near = (squares + (y[:, None] - positions[:, 1]) ** 2 < 0.8**2).any(axis=2)
    assert near.any()
    expected = [
        (i, j)
        for i, row in enumerate(near)
        if row.any()
        for j in range(np.flatnonzero(row)[0], np.flatnonzero(row)[-1] + 1)
    ]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    z = np.linspace(-4, 4, 400)
    for i, j, (low, high) in zip(rows, columns, spans.T, strict=True):
        at = np.stack(np.broadcast_arrays(x[i], y[j], z), axis=1)
        within = z[(cdist(at, positions) < 0.8).any(axis=1)]
        if len(within):
            assert_allclose((low, high), within[[0, -1]], atol=z[1] - z[0])
        else:
            assert low > high or high - low < z[1] - z[0]


def test_no_column_is_near() -> None:
    axis = np.arange(4.0)
    rows, columns, spans = near_columns(axis, axis, -np.ones((1, 3)), 0.5)
    assert len(rows) == len(columns) == spans.shape[1] == 0


@pytest.mark.parametrize("degree", range(7))
def test_atom_terms(degree, rng) -> None:
    x, y = rng.normal(size=(2, degree + 1, 3, 6))
    rows = np.array([1, 1, 1, 4, 4, 5])
    columns = np.array([2, 3, 4, 0, 1, 5])
    fast = compiled.atom_terms(x, y, rows, columns, degree)
    plain = portable.atom_terms(x, y, rows, columns, degree)
    assert len(fast) == 2 * degree + 1
    for a, b in zip(fast, plain, strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_sum_of_squares(dtype, rtol, rng) -> None:
    components = [
        (rng.normal(size=(7, k)).astype(dtype), rng.normal(size=(k, 50)).astype(dtype))
        for k in (3, 6, 3)
    ]
    field = np.stack([a.astype(float) @ b.astype(float) for a, b in components])
    expected = (field**2).sum(axis=0) + 0.25
    for module in (compiled, portable):
        found = module.sum_of_squares(components, 0.25)
        assert found.dtype == dtype
        assert_allclose(found, expected, rtol=rtol)


EXPONENTS = np.array([0.5, 1, 1.5, 2, 2.5, 3, 4, 7, 32])


class TestIntegratePowers:
    """Of moduli over many orders of magnitude."""

    @staticmethod
    def expected(squared, weights, scales, epsilon):
        root = np.sqrt(squared + epsilon[:, None] ** 2)
        with np.errstate(divide="ignore"):  # log1p(infinity) where nothing is soft
            ratio = np.log1p(squared / epsilon[:, None] ** 2)
        powers = [
            (root * s) ** q * -np.expm1(-q / 2 * ratio) @ weights
            for q, s in zip(EXPONENTS, scales, strict=True)
        ]
        return squared / (root + epsilon[:, None]), np.stack(powers)

    @pytest.mark.parametrize("low", [0.0, 1e-4, 0.8, 1e3])
    @pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])
    def test_compiled_and_portable(self, dtype, rtol, low, rng) -> None:
        squared = (10 ** rng.uniform(-6, 2, size=(7, 50))).astype(dtype)
        weights = rng.uniform(size=50).astype(dtype)
        epsilon = low * np.arange(1.0, 8)
        scales = np.where(EXPONENTS > 3, 0.1, 1.0)
        modulus, integrals = self.expected(
            squared.astype(float), weights.astype(float), scales, epsilon
        )
        largest = np.finfo(dtype).max
        held = np.isfinite(integrals) & (integrals < largest) & (integrals > 1e-30)
        assert held.sum() > 50
        for module in (compiled, portable):
            with np.errstate(over="ignore"):
                found, sums = module.integrate_powers(
                    squared, weights, EXPONENTS, scales, epsilon
                )
            assert found.dtype == dtype
            assert_allclose(found, modulus, rtol=rtol)
            assert_allclose(sums[held], integrals[held], rtol=5 * rtol)

    def test_zeros(self) -> None:
        squared, weights = np.zeros((2, 5)), np.ones(5)
        for epsilon in (np.zeros(2), np.ones(2)):
            for module in (compiled, portable):
                found, sums = module.integrate_powers(
                    squared, weights, EXPONENTS, np.ones(len(EXPONENTS)), epsilon
                )
                assert_array_equal(found, 0)
                assert_allclose(sums, 0, atol=1e-16)


def test_spread(rng) -> None:
    rows, columns = np.array([0, 0, 2, 2, 2]), np.array([1, 2, 0, 1, 2])
    field = rng.normal(size=(2, 3, 5))
    expected = np.zeros((2, 3, 4, 3))
    expected[:, :, rows, columns] = field
    for module in (compiled, portable):
        assert_array_equal(module.spread(field, rows, columns, 4, 3), expected)
