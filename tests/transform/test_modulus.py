import numpy as np
import pytest
from numpy.testing import assert_allclose

from skscatharm.transform.harmonics import wavelet_constant
from skscatharm.transform.modulus import path_peak, soft_power
from skscatharm.transform.paths import Path

SIGMA = 0.3


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


@pytest.mark.parametrize("q", [0.5, 1, 1.5, 2, 3, 4])
def test_powers(q, rng) -> None:
    squared, epsilon = rng.uniform(0, 10, size=50), 0.7
    expected = (squared + epsilon**2) ** (q / 2) - epsilon**q
    assert_allclose(soft_power(squared, q, np.asarray(epsilon)), expected, rtol=1e-12)
    scaled = soft_power(squared, q, np.asarray(epsilon), amplitude=3.0)
    amplitude = 3.0 if q in (1.5, 4) else 1.0
    assert_allclose(scaled, expected / amplitude**q, rtol=1e-12)


@pytest.mark.parametrize("q", [0.5, 1, 1.5, 3])
def test_small_moduli_keep_their_digits(q) -> None:
    squared, epsilon = np.float32([1e-12, 1e-20]), np.float32(2)
    expected = q / 2 * squared.astype(float) * 2.0 ** (q - 2)
    assert_allclose(soft_power(squared, q, epsilon), expected, rtol=1e-6)
