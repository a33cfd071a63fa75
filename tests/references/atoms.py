"""One and two atoms: integrals in one and two dimensions."""

from functools import cache
from math import pi, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.special import eval_legendre, gamma

from references.formulas import (
    amplitude,
    epsilon,
    panels,
    power,
    tanh_sinh,
    wavelet_constant,
    width,
)


def one_atom(weight, path, degree, q, sigma, softening=0.0):
    """Coefficient of one atom, of order 0, 1 or 2.

    Order 0, order 1 without softening and degree 0 are closed forms. Other
    coefficients of order 1 are integrals over the distance from the atom. For order 2,
    U1 is a function of the distance, and its convolution with a wavelet is a function
    g of the distance times Y_lm. Exponents are 1/2 or more.
    """
    t, size = width(path, sigma), abs(weight) * amplitude(path, degree, sigma)
    eps = epsilon(path, degree, sigma, softening)
    if degree == 0 or (eps == 0 and len(path) < 2):
        n = (3 + q * degree) / 2
        return size**q * 2 * pi * t**3 * (2 / q) ** n * gamma(n)
    if len(path) < 2:
        # The trapezoid rule in log r: smooth, and decaying at both ends.
        s = np.arange(-20, 4, 0.002)
        x = np.exp(s)
        squared = size**2 * x ** (2 * degree) * np.exp(-(x**2))
        return 4 * pi * t**3 * 0.002 * (x**3 * power(squared, q, eps)).sum()

    r, r_weights, squared = _second_squares(weight, path, degree, sigma, softening)
    return 4 * pi * r_weights @ (r**2 * power(squared, q, eps))


@cache
def _second_squares(weight, path, degree, sigma, softening):
    """Distances, weights of a rule for exponents from 1/2, and squared fields there."""
    options = {
        "weight": weight,
        "path": path,
        "degree": degree,
        "sigma": sigma,
        "softening": softening,
    }
    t = width(path, sigma)
    reach = t * sqrt(4 * (40 + 2 * degree))
    # The field may change sign, where its modulus has a kink.
    r = np.linspace(0, reach, 300)[1:]
    g = _second_field(r, **options)
    seen = np.abs(g) > 1e-14 * np.abs(g).max()
    roots = [
        brentq(
            lambda x: _second_field(np.array([x]), **options)[0],
            r[i],
            r[i + 1],
            xtol=1e-15,
            rtol=1e-15,
        )
        for i in np.flatnonzero((g[:-1] * g[1:] < 0) & seen[:-1])
    ]
    r, weights = tanh_sinh(panels([0, *roots, reach], 4 * t), 100)
    g = _second_field(r, **options)
    return r, weights, g**2 * (2 * degree + 1) / (4 * pi)


def _second_field(r, weight, path, degree, sigma, softening):
    """Radial part of U1 of an atom convolved with the next wavelet.

    An integral over the distance a and the cosine c of a point seen from the atom,
    along the direction of r. All terms are local: where the field is small, so is its
    error.
    """
    first, t1 = path[:1], width(path[:1], sigma)
    s = 2 ** path[1] * sigma
    reach = t1 * sqrt(4 * (40 + 2 * degree))
    a, a_weights = _gauss(np.linspace(0, reach, 25), 16)
    # Towards c = 1, where all of the integrand is for large distances.
    c, c_weights = _gauss(1 - np.array([2, 1, 0.4, 0.1, 0]), 24)
    x = a / t1
    size = weight * amplitude(first, degree, sigma)
    squared = (size * x**degree) ** 2 * np.exp(-(x**2))
    u1 = power(squared, 1, epsilon(first, degree, sigma, softening))
    g = np.empty(len(r))
    for i, ri in enumerate(r):
        along = ri - a[:, None] * c
        d = np.sqrt(along**2 + a[:, None] ** 2 * (1 - c**2))
        kernel = (d / s) ** degree * np.exp(-((d / s) ** 2) / 2)
        kernel *= eval_legendre(degree, along / d)
        g[i] = (a_weights * a**2 * u1) @ kernel @ c_weights
    return 2 * pi * wavelet_constant(degree) * s**-3 * g


def _gauss(breaks, n):
    """Composite Gauss rule."""
    x, w = np.polynomial.legendre.leggauss(n)
    starts, lengths = breaks[:-1, None], np.diff(breaks)[:, None]
    return (starts + lengths * (x + 1) / 2).ravel(), (lengths * w / 2).ravel()


def two_atoms(distance, weights, path, degree, q, sigma, softening=0.0, n=90):
    """Coefficient of order 0 or 1 of two atoms of any weights.

    An integral over a half-plane through the atoms. A modulus vanishes on the axis
    alone, and a field of degree 0 in a plane across it: there, the rule is split.
    """
    t = width(path, sigma)
    size = amplitude(path, degree, sigma)
    eps = epsilon(path, degree, sigma, softening)
    exponent = q if eps == 0 else min(q, 2)
    reach = sqrt(2 / exponent * (36 + 2 * degree))
    (w1, w2), d = weights, distance / t

    def ratio(z):
        """Logarithm of the ratio of the moduli of the atoms on the axis."""
        logs = [
            np.log(abs(w)) + degree * np.log(abs(x)) - x**2 / 2
            for w, x in ((w1, z), (w2, z - d))
        ]
        return logs[0] - logs[1]

    roots = []
    if w1 != 0 and w2 != 0 and d > 0:
        tiny = 1e-13 * (1 + d)
        for start, stop in ((-reach, 0), (0, d), (d, d + reach)):
            z = np.linspace(start + tiny, stop - tiny, 1001)
            values = ratio(z)
            roots += z[values == 0].tolist()
            roots += [
                brentq(ratio, z[i], z[i + 1], xtol=1e-15)
                for i in np.flatnonzero(values[:-1] * values[1:] < 0)
            ]
    breaks = [-reach, 0, d, d + reach, *roots]
    z, z_weights = tanh_sinh(panels(breaks, 2.0), n)
    p, p_weights = tanh_sinh(panels([0, 1, reach], 2.0), n)
    total = 0.0
    for zs, ws in zip(
        np.array_split(z, 20), np.array_split(z_weights, 20), strict=True
    ):
        x1, x2 = zs[:, None], zs[:, None] - d
        r1, r2 = np.hypot(x1, p), np.hypot(x2, p)
        f1 = w1 * r1**degree * np.exp(-(r1**2) / 2)
        f2 = w2 * r2**degree * np.exp(-(r2**2) / 2)
        cosine = (x1 * x2 + p**2) / (r1 * r2)
        # 1 - P_l(cos) is all that keeps a sum of opposite fields from vanishing.
        squared = (f1 + f2) ** 2 - 2 * f1 * f2 * (1 - eval_legendre(degree, cosine))
        squared = size**2 * np.clip(squared, 0, None)
        total += ws @ power(squared, q, eps) @ (p * p_weights)
    return 2 * pi * t**3 * total
