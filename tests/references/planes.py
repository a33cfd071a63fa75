"""Degree 0 of atoms in a plane, with weights of any signs."""

from math import pi, sqrt

import numpy as np

from references.formulas import panels, tanh_sinh, width


def planar(positions, weights, path, q, sigma, n=80):
    """Coefficient of degree 0 of atoms in the plane z = 0, of order 0, 1 or 2.

    All Gaussians have the same factor in z, which is integrated first. In the plane,
    the zeros along each line of constant x are found, and the rule is split there.
    The lines of x are split where the number of zeros changes.
    """
    positions, weights = np.asarray(positions, float), np.asarray(weights, float)
    assert (positions[:, 2] == 0).all()
    t = width(path[:1], sigma)
    r = positions[:, :2] / t
    reach = sqrt(2 / min(q, 1) * 38)
    x_low, x_high = r[:, 0].min() - reach, r[:, 0].max() + reach
    y_low, y_high = r[:, 1].min() - reach, r[:, 1].max() + reach

    def field(x, y):
        squares = (x - r[:, 0, None]) ** 2 + (y - r[:, 1, None]) ** 2
        return weights @ np.exp(-squares / 2)

    def sign_changes(x):
        """The field along a line, up to a positive factor, and where it changes sign.

        What the Gaussians have in common is left out.
        """
        logs = -((x - r[:, 0]) ** 2) / 2 - r[:, 1] ** 2 / 2
        sizes = weights * np.exp(logs - logs.max())

        def signed(y):
            exponents = r[:, 1, None] * y
            return sizes @ np.exp(exponents - exponents.max(axis=0))

        y = np.linspace(y_low, y_high, 600)
        values = signed(y)
        changes = np.flatnonzero(values[:-1] * values[1:] < 0)
        return signed, values[0] > 0, y[changes], y[changes + 1]

    def zeros(x):
        """Zeros along a line, by bisection."""
        signed, _, low, high = sign_changes(x)
        if len(low) == 0:
            return low
        above = signed(low) > 0
        for _ in range(45):
            middle = (low + high) / 2
            before = (signed(middle) > 0) == above
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        return low

    def kind(x):
        """The sign at one end of a line, and the number of changes."""
        _, positive, found, _ = sign_changes(x)
        return positive, len(found)

    # Where zeros appear, meet, or all of a line changes its sign.
    xs = np.linspace(x_low, x_high, 200)
    kinds = [kind(x) for x in xs]
    breaks = [x_low, x_high]
    for i in range(len(xs) - 1):
        if kinds[i] == kinds[i + 1]:
            continue
        low, high = xs[i], xs[i + 1]
        for _ in range(45):
            middle = (low + high) / 2
            if kind(middle) == kinds[i]:
                low = middle
            else:
                high = middle
        breaks.append(low)
    x, x_weights = tanh_sinh(panels(breaks, 4.0), n)

    lines = []
    for xi in x:
        breaks = [y_low, y_high, *zeros(xi)]
        y, y_weights = tanh_sinh(panels(breaks, 4.0), n)
        lines.append((y, y_weights, np.abs(field(xi, y))))

    if len(path) < 2:
        total = sum(
            wx * (wy @ f**q) for wx, (_, wy, f) in zip(x_weights, lines, strict=True)
        )
        # One Gaussian of the plane is exp(-r^2/2); in three dimensions and with z:
        return total * t**2 * (2 * pi * t**2) ** (-1.5 * q) * t * sqrt(2 * pi / q)

    # The convolution with a Gaussian of width s on a grid: a smooth field, which
    # vanishes nowhere.
    s, t2 = 2 ** path[1] * sigma / t, width(path, sigma) / t
    reach = t2 * sqrt(2 / q * 26)
    h = t2 / 4
    grids = [
        np.arange(low - reach, high + reach, h)
        for low, high in zip(r.min(axis=0), r.max(axis=0), strict=True)
    ]
    inner = np.stack(
        [
            np.exp(-(((grids[1][:, None] - y) / s) ** 2) / 2) @ (wy * f)
            for y, wy, f in lines
        ]
    )
    outer = np.exp(-(((grids[0][:, None] - x) / s) ** 2) / 2) * x_weights
    u2 = outer @ inner / (2 * pi * s**2)
    # In z: a Gaussian of width 1 convolved with a normalised one of width s.
    u2 *= (2 * pi * t**2) ** -1.5 / t2
    return (u2**q).sum() * (h * t) ** 2 * sqrt(2 * pi / q) * t2 * t
