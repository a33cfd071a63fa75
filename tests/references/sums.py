"""Coefficients that are finite sums."""

from collections import Counter
from itertools import combinations_with_replacement, product
from math import factorial, pi, prod

import numpy as np
from scipy.special import eval_genlaguerre, gamma

from references.formulas import attenuation, wavelet_constant, width


def pair_sum(positions, weights, path, degree, sigma, vectors=()):
    """Integral of the squared field, q = 2, of order 0 or 1: a sum over pairs.

    Softening does not change it. If the atoms repeat along vectors, the integral is one
    over a cell, and the sum has the pairs of an atom of the cell and any image.
    """
    t = width(path, sigma)
    shifts = _shifts(np.reshape(vectors, (-1, 3)), positions, 14 * t)
    gaps = positions[:, None] - positions + shifts[:, None, None]
    x = (gaps**2).sum(axis=-1) / (4 * t**2)
    laguerre = eval_genlaguerre(degree, 0.5, x) / eval_genlaguerre(degree, 0.5, 0.0)
    constant = wavelet_constant(degree) * attenuation(path, degree, sigma)
    constant = constant**2 * t**-3 * (2 * degree + 1) / 2 * gamma(degree + 1.5)
    return constant * weights @ (np.exp(-x) * laguerre).sum(axis=0) @ weights


def _shifts(vectors, positions, reach):
    """All sums of lattice vectors that may bring an atom to within a reach of one."""
    reach = reach + 2 * np.abs(positions - positions.mean(axis=0)).sum(axis=1).max()
    counts = np.ceil(reach * np.linalg.norm(np.linalg.pinv(vectors), axis=0))
    ranges = [np.arange(-n, n + 1) for n in counts]
    return np.array([np.dot(numbers, vectors) for numbers in product(*ranges)])


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
