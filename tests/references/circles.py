"""Planar molecules in two dimensions: closed forms, and sums on fine grids with FFTs.

A coefficient is named as in the other references. Lengths are in the unit of `sigma`.
"""

from math import e, gamma, pi, sqrt

import numpy as np
from scipy.special import eval_laguerre


def constant(degree):
    """The constant c_l: the modulus of a wavelet integrates to one."""
    return 1 / (pi * 2 ** (degree / 2 + 1) * gamma(degree / 2 + 1))


def size(path, degree, sigma):
    """Width of a field, and factor of x^l exp(-x^2/2) in the modulus of an atom."""
    widths = [
        sigma * sqrt(1 + sum(4**i for i in path[:n])) for n in range(len(path) + 1)
    ]
    ratios = [2**j * sigma / t for j, t in zip(path, widths[1:], strict=True)]
    return widths[-1], constant(degree) * np.prod(ratios) ** degree * widths[-1] ** -2


def one_circle(weight, path, degree, q, sigma):
    """An atom, in order 0 or 1 without softening."""
    t, factor = size(path, degree, sigma)
    n = 1 + q * degree / 2
    return (abs(weight) * factor) ** q * pi * t**2 * (2 / q) ** n * gamma(n)


def pairs(positions, weights, path, degree, sigma):
    """Order 0 or 1 with q = 2: a sum over pairs of atoms."""
    t, factor = size(path, degree, sigma)
    squares = ((positions[:, None] - positions) ** 2).sum(axis=2) / (4 * t**2)
    overlaps = pi * t**2 * gamma(degree + 1) * np.exp(-squares)
    overlaps *= eval_laguerre(degree, squares)
    return factor**2 * weights @ overlaps @ weights


def plane_sums(
    positions, weights, paths, degree, exponents, sigma, softening, step, margin=9.0
):
    """All orders: sums over a periodic grid, of as many points as `step` demands.

    `step` is in units of sigma. Convolutions are products of FFTs.

    Returns
    -------
    dict
        For each path, the coefficients by exponent.
    """
    largest = max(size(path, degree, sigma)[0] for path in paths)
    h = step * sigma
    half = np.abs(positions).max() + margin * largest
    n = 2 * int(np.ceil(half / h))
    axis = h * (np.arange(n) - n // 2 + 0.3)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    k = 2 * pi * np.fft.fftfreq(n, h)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    k2 = kx**2 + ky**2

    def convolved(field, scale):
        wavelet = 2 * pi * constant(degree) * (scale * (kx + 1j * ky)) ** degree
        wavelet = wavelet * np.exp(-(scale**2) * k2 / 2)
        return np.fft.ifft2(np.fft.fft2(field) * wavelet)

    def epsilon(path):
        peak = size(path, degree, sigma)[1] * (degree / e) ** (degree / 2)
        return softening * peak if degree else 0.0

    density = sum(
        w * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2))
        for (a, b), w in zip(positions, weights, strict=True)
    ) / (2 * pi * sigma**2)
    found = {}
    for path in paths:
        field = density
        for i, j in enumerate(path):
            field = np.abs(convolved(field, sigma * 2**j))
            if i + 1 < len(path):
                eps = epsilon(path[: i + 1])
                field = np.sqrt(field**2 + eps**2) - eps
        eps = epsilon(path) if path else 0.0
        found[path] = np.array(
            [h**2 * ((field**2 + eps**2) ** (q / 2) - eps**q).sum() for q in exponents]
        )
    return found
