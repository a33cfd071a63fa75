"""Coefficients that are finite sums."""

from collections import Counter
from itertools import combinations_with_replacement
from math import factorial, pi, prod

import numpy as np
from scipy.special import eval_genlaguerre, gamma

from references.formulas import attenuation, wavelet_constant, width


def pair_sum(positions, weights, path, degree, sigma):
    """Integral of the squared field, q = 2, of order 0 or 1: a sum over pairs.

    Softening does not change it.
    """
    t = width(path, sigma)
    x = ((positions[:, None] - positions) ** 2).sum(axis=2) / (4 * t**2)
    laguerre = eval_genlaguerre(degree, 0.5, x) / eval_genlaguerre(degree, 0.5, 0.0)
    constant = wavelet_constant(degree) * attenuation(path, degree, sigma)
    constant = constant**2 * t**-3 * (2 * degree + 1) / 2 * gamma(degree + 1.5)
    return constant * weights @ (np.exp(-x) * laguerre) @ weights


def gaussian_products(positions, weights, path, q, sigma):
    """Integral of the q-th power of the field of degree 0, for an integer q.

    The power is a sum of products of q Gaussians. It is that of the modulus if q is
    even or no weight is negative. Of order 2, weights must not be negative.
    """
    weights = np.asarray(weights, float)
    assert q % 2 == 0 or (weights >= 0).all()
    assert len(path) < 2 or (weights >= 0).all()
    t = width(path, sigma)
    total = 0.0
    for atoms in combinations_with_replacement(range(len(weights)), q):
        counts = Counter(atoms)
        multiplicity = factorial(q) / prod(map(factorial, counts.values()))
        r = positions[list(atoms)]
        spread = ((r - r.mean(axis=0)) ** 2).sum()
        size = prod(weights[n] ** k for n, k in counts.items())
        total += multiplicity * size * np.exp(-spread / (2 * t**2))
    return total * (2 * pi * t**2) ** (-1.5 * q) * (2 * pi * t**2 / q) ** 1.5
