import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import sph_harm_y

from skscatharm.transform.harmonics import (
    solid_harmonics,
    wavelet_constant,
    wavelets_in_frequency,
)

DEGREES = range(7)


def evaluate(degree: int, points: np.ndarray) -> np.ndarray:
    """Evaluate the solid harmonics of a degree, of shape (2 degree + 1, n_points)."""
    x, y, z = points.T
    return np.array(
        [
            sum(
                p * x**a * y**b * z**c
                for c, polynomial in harmonic.items()
                for (a, b), p in polynomial.items()
            )
            for harmonic in solid_harmonics(degree)
        ]
    )


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 3))


@pytest.mark.parametrize("degree", DEGREES)
def test_solid_harmonics_are_those_of_scipy(degree, points) -> None:
    r = np.linalg.norm(points, axis=1)
    theta, phi = np.arccos(points[:, 2] / r), np.arctan2(points[:, 1], points[:, 0])
    expected = []
    for m in range(-degree, degree + 1):
        y = sph_harm_y(degree, abs(m), theta, phi) * (-1) ** m
        part = y.real if m >= 0 else y.imag
        expected.append(r**degree * part * (np.sqrt(2) if m else 1))
    assert_allclose(evaluate(degree, points), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("degree", DEGREES)
def test_modulus_over_orders_is_radial(degree, points) -> None:
    r = np.linalg.norm(points, axis=1)
    assert_allclose(
        (evaluate(degree, points) ** 2).sum(axis=0),
        r ** (2 * degree) * (2 * degree + 1) / (4 * np.pi),
    )


@pytest.mark.parametrize("degree", DEGREES)
def test_polynomials_are_homogeneous(degree) -> None:
    for harmonic in solid_harmonics(degree):
        for c, polynomial in harmonic.items():
            assert all(a + b + c == degree for a, b in polynomial)


@pytest.mark.parametrize("degree", DEGREES)
def test_wavelet_modulus_integrates_to_one(degree) -> None:
    radial, _ = quad(
        lambda r: 4 * np.pi * r ** (2 + degree) * np.exp(-r * r / 2), 0, 20
    )
    modulus = wavelet_constant(degree) * np.sqrt((2 * degree + 1) / (4 * np.pi))
    assert_allclose(modulus * radial, 1, rtol=1e-9)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("scale", [0.5, 1.3])
def test_wavelets_in_frequency(degree, scale) -> None:
    axis = scale * np.linspace(-9, 9, 37)
    u = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    envelope = np.exp(-(u**2).sum(axis=1) / (2 * scale**2))
    wavelets = (
        wavelet_constant(degree) * scale**-3 * evaluate(degree, u / scale) * envelope
    )
    k = np.random.default_rng(0).normal(size=(3, 5)) / scale
    # The trapezoid rule is exact for them.
    expected = wavelets @ np.exp(-1j * u @ k) * (axis[1] - axis[0]) ** 3
    found = (-1j) ** degree * np.array([*wavelets_in_frequency(degree, scale, k, np)])
    assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())
