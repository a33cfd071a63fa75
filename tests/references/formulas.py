"""The formulas that all references need."""

from itertools import pairwise
from math import ceil, e, factorial, gamma, pi, sqrt

import numpy as np


def wavelet_constant(degree):
    """The constant c_l: the modulus of a wavelet integrates to one."""
    norm = sqrt(4 * pi * (2 * degree + 1)) * 2 ** ((degree + 1) / 2)
    return 1 / (norm * gamma((degree + 3) / 2))


def width(path, sigma):
    """Width of the field of a path."""
    return sigma * sqrt(1 + sum(4**j for j in path))


def attenuation(path, degree, sigma):
    """Product of (s/t)^l over the wavelets of a path."""
    return np.prod(
        [
            (2**j * sigma / width(path[: i + 1], sigma)) ** degree
            for i, j in enumerate(path)
        ]
    )


def amplitude(path, degree, sigma):
    """Factor of x^l exp(-x^2/2) in the modulus of an atom of weight 1, x = r/t.

    For order 2, U1 is replaced by a Gaussian of the same width and integral.
    """
    constant = wavelet_constant(degree) * sqrt((2 * degree + 1) / (4 * pi))
    return constant * attenuation(path, degree, sigma) * width(path, sigma) ** -3


def epsilon(path, degree, sigma, softening):
    """Softening of a path; 0 for degree 0, which is not softened."""
    if degree == 0:
        return 0.0
    peak = (degree / e) ** (degree / 2)
    return softening * amplitude(path, degree, sigma) * peak


def power(squared, q, eps):
    """Softened power of a modulus, given by its square, without cancellation."""
    if eps == 0:
        return squared ** (q / 2)
    return eps**q * np.expm1(q / 2 * np.log1p(squared / eps**2))


def harmonics(degree):
    """Complex solid harmonics of orders m >= 0, up to their signs.

    Returns
    -------
    list of list of (float, int, int)
        For each m the terms ``(factor, k, c)``: r^l Y_lm is (x + iy)^m times the sum
        of factor * (x^2 + y^2)^k * z^c. The sum of squares over all orders is that of
        m = 0 plus twice the others.
    """
    result = []
    for m in range(degree + 1):
        norm = (2 * degree + 1) / (4 * pi) * factorial(degree + m)
        norm = sqrt(norm * factorial(degree - m))
        terms = []
        for k in range((degree - m) // 2 + 1):
            c = degree - m - 2 * k
            sizes = factorial(m + k) * factorial(k) * factorial(c)
            terms.append((norm * (-1) ** k / 2 ** (m + 2 * k) / sizes, k, c))
        result.append(terms)
    return result


def panels(breaks, longest):
    """Sorted breaks, with others between them so that no panel is too long."""
    breaks = np.unique(breaks)
    breaks = breaks[np.diff(breaks, prepend=-np.inf) > 1e-12]
    parts = [
        np.linspace(start, stop, ceil((stop - start) / longest), endpoint=False)
        for start, stop in pairwise(breaks)
    ]
    return np.append(np.concatenate(parts), breaks[-1])


def tanh_sinh(breaks, n):
    """Nodes and weights of double exponential rules between breaks, n for each.

    Powers at the breaks, integers or not, do no harm.
    """
    t = np.linspace(-3.2, 3.2, n)
    u = np.pi / 2 * np.sinh(t)
    share = 1 / (1 + np.exp(-2 * u))
    weights = (t[1] - t[0]) * np.pi / 4 * np.cosh(t) / np.cosh(u) ** 2
    breaks = np.sort(breaks)
    starts, lengths = breaks[:-1, None], np.diff(breaks)[:, None]
    # Measured from the nearer end, so that no node rounds onto a break.
    nodes = np.where(
        t < 0, starts + lengths * share, breaks[1:, None] - lengths * share[::-1]
    )
    return nodes.ravel(), (lengths * weights).ravel()
