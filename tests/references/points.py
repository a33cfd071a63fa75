"""Fields at points: sums over atoms, with the spherical harmonics of SciPy."""

from math import sqrt

import numpy as np
from scipy.special import sph_harm_y

from references.formulas import attenuation, epsilon, power, wavelet_constant, width


def wavelets(offsets, scale, degree):
    """Real wavelets of a scale, from offsets of shape (..., 3)."""
    x, y, z = np.moveaxis(offsets, -1, 0)
    r = np.sqrt(x**2 + y**2 + z**2)
    radial = wavelet_constant(degree) * scale**-3 * (r / scale) ** degree
    radial = radial * np.exp(-((r / scale) ** 2) / 2)
    polar, azimuth = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    found = []
    for m in range(-degree, degree + 1):
        harmonic = sph_harm_y(degree, abs(m), polar, azimuth)
        sign = (-1) ** m * sqrt(2)
        part = harmonic.real if m == 0 else sign * (harmonic.real, harmonic.imag)[m < 0]
        found.append(radial * part)
    return np.array(found)


def first_order(points, positions, weights, path, degree, sigma):
    """Components of order 0 or 1: Gaussians convolved with wavelets are wider wavelets,
    times a factor.
    """
    sums = sum(
        w * wavelets(points - r, width(path, sigma), degree)
        for r, w in zip(positions, weights, strict=True)
    )
    return sums * attenuation(path, degree, sigma)


def modulus(components, path, degree, sigma, softening=4.0):
    """The modulus, softened in proportion to the field of an atom of weight 1."""
    squared = (components**2).sum(axis=0)
    return power(squared, 1, epsilon(path, degree, sigma, softening))
