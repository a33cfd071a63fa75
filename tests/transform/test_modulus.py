from math import factorial

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import two_atoms
from scipy.integrate import quad
from scipy.special import eval_hermitenorm

from skscatharm.engine.accuracy import Accuracy
from skscatharm.engine.frame import Frame
from skscatharm.engine.quadrature import kink_grid
from skscatharm.transform.harmonics import wavelet_constant
from skscatharm.transform.modulus import (
    KinkRounding,
    path_peak,
    power,
    power_derivative,
    soften,
)
from skscatharm.transform.paths import Path

SIGMA = 0.3
EXPONENTS = (0.5, 1, 1.5, 2, 2.5, 3, 4, 7, 32)


def largest_modulus(degree: int, width: float) -> float:
    """Largest modulus of a wavelet of a width, looked for on a fine grid."""
    r = np.linspace(0, 8, 80_001)
    field = r**degree * np.exp(-(r**2) / 2) * np.sqrt((2 * degree + 1) / (4 * np.pi))
    return wavelet_constant(degree) * field.max() / width**3


@pytest.mark.parametrize("degree", range(7))
@pytest.mark.parametrize("scales", [(0,), (2,), (0, 1), (1, 3)])
def test_peak_is_that_of_the_field_of_an_atom(scales, degree) -> None:
    # A Gaussian of a width convolved with a wavelet is a wavelet of a larger width.
    width, factor = SIGMA, 1.0
    for j in scales:
        scale = SIGMA * 2**j
        factor *= (scale**2 / (scale**2 + width**2)) ** (degree / 2)
        width = np.hypot(width, scale)
    expected = factor * largest_modulus(degree, width)
    assert_allclose(path_peak(Path(scales, degree), SIGMA), expected, rtol=1e-6)


def exact_power(squared: float, epsilon: float, q: float) -> float:
    """Softened power with sixty digits."""
    with mpmath.workdps(60):
        U2, eps, q = mpmath.mpf(squared), mpmath.mpf(epsilon), mpmath.mpf(q)
        return float((U2 + eps**2) ** (q / 2) - eps**q)


@pytest.mark.parametrize("q", EXPONENTS)
@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-3, 0.7, 1e4, 1e8])
def test_powers(epsilon, q) -> None:
    squared = 10.0 ** np.arange(-18, 9, 3)
    expected = [exact_power(u, epsilon, q) for u in squared]
    for low in (epsilon, np.full(len(squared), epsilon)):
        root, modulus = soften(squared, low)
        assert_allclose(root, np.sqrt(squared + epsilon**2), rtol=1e-15)
        modulus_of = [exact_power(u, epsilon, 1) for u in squared]
        assert_allclose(modulus, modulus_of, rtol=1e-14)
        assert_allclose(power(squared, root, modulus, low, q), expected, rtol=2e-13)


@pytest.mark.parametrize("q", EXPONENTS)
@pytest.mark.parametrize("epsilon", [0.0, 0.7])
def test_nothing_has_no_power(epsilon, q) -> None:
    zero = np.zeros(2)
    for low in (epsilon, np.full(2, epsilon)):
        root, modulus = soften(zero, low)
        assert_array_equal(modulus, 0)
        assert_array_equal(power(zero, root, modulus, low, q), 0)


@pytest.mark.parametrize("q", EXPONENTS[:-2])
def test_small_moduli_keep_their_digits_in_single_precision(q) -> None:
    squared, epsilon = np.float32([1e-12, 1e-20]), np.full(2, 2, np.float32)
    found = power(squared, *soften(squared, epsilon), epsilon, q)
    assert found.dtype == np.float32
    expected = q / 2 * squared.astype(float) * 2.0 ** (q - 2)
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("q", EXPONENTS)
@pytest.mark.parametrize("epsilon", [0.01, 0.7, 30.0])
def test_derivatives_of_powers(epsilon, q) -> None:
    for u in (1e-4, 0.3, 2.0):
        with mpmath.workdps(60):
            step = mpmath.mpf(10) ** -20
            low, high = (
                (mpmath.mpf(u) + d + mpmath.mpf(epsilon) ** 2) ** (mpmath.mpf(q) / 2)
                for d in (-step, step)
            )
            expected = float((high - low) / (2 * step))
        root, _ = soften(np.array([u]), epsilon)
        assert_allclose(power_derivative(root, q), expected, rtol=1e-13)


KINK_ORDER, KINK_WIDTH = 6, 0.16


class TestKinkRounding:
    def test_moments_of_the_kernel_vanish(self) -> None:
        def kernel(t):
            hermite = (
                (-1) ** j / (2**j * factorial(j)) * eval_hermitenorm(2 * j, t)
                for j in range(KINK_ORDER)
            )
            return sum(hermite) * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)

        t = np.linspace(-14, 14, 20_001)
        moments = [
            (t**n * kernel(t)).sum() * (t[1] - t[0]) for n in range(2 * KINK_ORDER + 1)
        ]
        size = np.sqrt([factorial(n) for n in range(2 * KINK_ORDER + 1)])
        assert_allclose(moments[:-1], [1, *np.zeros(11)], atol=1e-8 * size[:-1].max())
        assert abs(moments[-1]) > 100
        # The rounded powers are convolutions with this kernel.
        envelope = np.ones(3)
        field = np.array([0.0, 0.1, 0.35])
        Q = np.array([0.5, 1, 3, 7])
        _, rounded = KinkRounding(Q, KINK_ORDER).powers(field, envelope, KINK_WIDTH)
        for q, found in zip(Q, rounded, strict=True):
            for phi, value in zip(field, found, strict=True):
                expected, _ = quad(
                    lambda t, q=q, phi=phi: abs(phi - KINK_WIDTH * t) ** q * kernel(t),
                    -14,
                    14,
                    points=[phi / KINK_WIDTH],
                    limit=500,
                )
                assert_allclose(value, expected, rtol=2e-6, atol=1e-12)

    @pytest.mark.parametrize("order", [1, 3])
    def test_polynomials_of_an_even_power_stay(self, order, rng) -> None:
        field = rng.normal(size=20)
        envelope = np.abs(field) + rng.uniform(size=20)
        modulus, (second, fourth) = KinkRounding(np.array([2.0, 4]), order).powers(
            field, envelope, 0.1
        )
        assert_allclose(second, field**2, rtol=1e-12)
        assert_allclose(fourth, field**4, rtol=1e-12)
        assert np.all(modulus > 0) or order > 1

    def test_far_from_kinks_nothing_changes(self) -> None:
        Q = np.array([0.5, 1, 2, 3, 8.5])
        envelope = np.array([1e-3, 1.0, 1e3])
        field = np.array([0.9, -2.5, 3.0]) * envelope
        modulus, powers = KinkRounding(Q, KINK_ORDER).powers(
            field, envelope, KINK_WIDTH
        )
        assert_allclose(modulus, np.abs(field), rtol=1e-4)
        for q, found in zip(Q, powers, strict=True):
            assert_allclose(found, np.abs(field) ** q, rtol=1e-3)

    def test_scales(self, rng) -> None:
        Q, scales = np.array([0.5, 2, 3]), np.array([1.0, 0.1, 1e-3])
        field, envelope = rng.normal(size=9), np.full(9, 3.0)
        rounding = KinkRounding(Q, KINK_ORDER)
        modulus, plain = rounding.powers(field, envelope, KINK_WIDTH)
        same, scaled = rounding.powers(field, envelope, KINK_WIDTH, scales)
        assert_array_equal(same, modulus)
        for a, b, factor in zip(scaled, plain, scales**Q, strict=True):
            assert_allclose(a, factor * b, rtol=1e-12)

    def test_nothing_has_no_power(self) -> None:
        zero = np.zeros(3)
        modulus, powers = KinkRounding(np.array([0.5, 3]), KINK_ORDER).powers(
            zero, zero, KINK_WIDTH
        )
        assert_allclose(modulus, 0, atol=1e-30)
        assert_allclose(powers, 0, atol=1e-15)

    @pytest.mark.parametrize(
        ("distance", "ratio"),
        [(0.5, -0.2), (1.0, -1.0), (1.0, -0.7), (2.5, -1.0), (2.5, -0.2)],
    )
    @pytest.mark.parametrize("tol", [1e-3, 1e-4])
    def test_two_gaussians_of_opposite_signs(self, tol, ratio, distance) -> None:
        Q, weights = (0.5, 1.0, 1.5, 3.0), np.array([1.0, ratio])
        frame = Frame(np.array([[0, 0, 0], [0, 0, distance]]), np.array([1, 2]))
        accuracy = Accuracy(tol, signed=True)
        width = accuracy.kink_width(frame.positions, weights, 1.0)
        grid = kink_grid(frame, weights, 1.0, width, accuracy)
        x, y, z = (
            np.exp(-((axis.points - r[:, np.newaxis]) ** 2) / 2)
            for axis, r in zip(grid, frame.positions.T, strict=True)
        )
        field, envelope = (
            np.einsum("n,nx,ny,nz->xyz", w, x, y, z) for w in (weights, abs(weights))
        )
        order, _ = accuracy.kink_kernel
        _, powers = KinkRounding(np.array(Q), order).powers(field, envelope, width)
        volume = np.prod([axis.weights[0] for axis in grid])
        for q, values in zip(Q, powers, strict=True):
            # It has Gaussians that are normalised.
            expected = two_atoms(distance, weights, (), 0, q, 1.0)
            expected *= (2 * np.pi) ** (1.5 * q)
            assert_allclose(values.sum() * volume, expected, rtol=tol)
