"""Any molecule: sums over uniform grids, in double precision."""

from math import ceil, comb, floor, sqrt

import numpy as np
from scipy.special import gammainccinv

from references.formulas import (
    attenuation,
    epsilon,
    harmonics,
    power,
    wavelet_constant,
    width,
)

_SLAB = 2**18  # numbers at a time, which stay in the cache


def resolution(degree, q, softening, weight=10.0, share=1e-10):
    """Step and margin, in widths of the field, for errors of about `share`.

    Without softening, the margin alone: the error at zeros of the field falls with the
    step as h^(3 + q), and the step returned is 0.1.

    Parameters
    ----------
    q : float
        The smallest exponent.
    weight : float
        Size of the weights. Softening well below it does little.
    """
    plain = sqrt(2 / q * gammainccinv((3 + q * degree) / 2, share))
    if degree == 0:
        return 0.45, plain
    if softening == 0:
        return 0.1, plain
    low = min(1.0, softening / weight)
    squares = sqrt(gammainccinv(degree + 1.5, share * low**2))
    margin = min(plain, squares) if q < 2 else max(plain, squares)
    return 0.2 * min(1.0, sqrt(low)), margin


def dense(
    positions,
    weights,
    paths,
    degree,
    Q,
    sigma,
    softening=0.0,
    step=None,
    margin=None,
    shift=(0.0, 0.0, 0.0),
):
    """Coefficients of a few paths of one degree, by sums over uniform grids.

    The field of order 1 is evaluated at each point from the atoms. It is convolved in
    real space, by sums over all points, so fields keep their relative accuracy far
    from the molecule.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
    weights : ndarray of shape (n_channels, n_atoms)
    paths : list of tuple of int
        Scale indices, for example ``[(), (0,), (0, 1)]``. Order 0 needs degree 0.
    degree : int
    Q : sequence of float
    sigma, softening : float
    step : float or dict of tuple to float, optional
        Step of the grid in widths of each field, for all paths or by path. The default
        is that of `resolution`. Where fields of many atoms add up, softening does
        less, and wide fields need smaller steps.
    margin : float, optional
        Reach beyond the atoms, in widths of each field.
    shift : sequence of three floats
        Shift of the grid, in steps. Averages over shifts bring down errors at zeros
        of a field.

    Returns
    -------
    dict of tuple to ndarray of shape (n_channels, n_exponents)
    """
    positions = np.asarray(positions, float)
    weights = np.atleast_2d(np.asarray(weights, float))
    best = resolution(degree, min(Q), softening, np.abs(weights).max())
    step, margin = step or best[0], margin or best[1]

    def grid_of(path):
        t, reach = width(path, sigma), margin * width(path, sigma)
        h = t * (step[path] if isinstance(step, dict) else step)
        if len(path) == 2:
            # U1 of an atom is a ring.
            reach += sqrt(degree) * width(path[:1], sigma)
        return [
            _axis(low - reach, high + reach, h, offset)
            for low, high, offset in zip(
                positions.min(axis=0), positions.max(axis=0), shift, strict=True
            )
        ]

    result = {}
    for first in sorted({path[:1] for path in paths}):
        grid = grid_of(first)
        following = [path for path in paths if len(path) == 2 and path[:1] == first]
        eps = epsilon(first, degree, sigma, softening)
        total = np.zeros((len(weights), len(Q)))
        parts = []
        for squared in _squares(positions, weights, first, degree, sigma, grid):
            if first in paths:
                total += _sums(squared, Q, eps)
            if following:
                parts.append(power(squared, 1, eps))
        if first in paths:
            result[first] = total * _volume(grid)
        if following:
            fields = np.concatenate(parts, axis=1)
            del parts
        for path in following:
            fine = grid_of(path)
            eps2, s = epsilon(path, degree, sigma, softening), 2 ** path[1] * sigma
            sums = [
                _sums(_convolved(field, grid, fine, degree, s)[None], Q, eps2)
                for field in fields
            ]
            result[path] = np.concatenate(sums) * _volume(fine)
    return result


def _axis(low, high, h, shift):
    return h * (np.arange(floor(low / h), ceil(high / h) + 1) + shift)


def _volume(grid):
    return np.prod([axis[1] - axis[0] for axis in grid])


def _sums(squared, Q, eps):
    """Sums of powers of fields (n_channels, ...)."""
    flat = squared.reshape(len(squared), -1)
    if eps == 0:
        return np.stack([(flat ** (q / 2)).sum(axis=1) for q in Q], axis=1)
    logs = np.log1p(flat / eps**2)
    return np.stack(
        [
            flat.sum(axis=1) if q == 2 else eps**q * np.expm1(q / 2 * logs).sum(axis=1)
            for q in Q
        ],
        axis=1,
    )


def _squares(positions, weights, path, degree, sigma, grid):
    """Squared moduli of order 0 or 1, (n_channels, x, y, z), slab by slab of x."""
    t, (K, N) = width(path, sigma), weights.shape
    scale = wavelet_constant(degree) * attenuation(path, degree, sigma) * t**-3
    dx, dy, dz = (
        (axis - r[:, None]) / t for axis, r in zip(grid, positions.T, strict=True)
    )
    ex, ey, ez = (np.exp(-(d**2) / 2) for d in (dx, dy, dz))
    ny, nz = len(grid[1]), len(grid[2])
    n = max(1, _SLAB // (K * ny * nz))
    for start in range(0, len(grid[0]), n):
        x, y = dx[:, start : start + n, None], dy[:, None]
        gaussian = scale * ex[:, start : start + n, None] * ey[:, None]
        total = 0.0
        for m, terms in enumerate(harmonics(degree)):
            right = np.concatenate(
                [factor * dz**c * ez * weights[:, :, None] for factor, _, c in terms],
                axis=1,
            )
            for part in ((x + 1j * y) ** m).real, ((x + 1j * y) ** m).imag:
                if m == 0 and not part.any():
                    continue
                left = np.stack(
                    [gaussian * part * (x**2 + y**2) ** k for _, k, _ in terms]
                )
                left = np.moveaxis(left.reshape(len(terms) * N, -1), 0, 1)
                total = total + (2 if m else 1) * (left @ right) ** 2
        yield total.reshape(K, -1, ny, nz)


def _convolved(field, grid, fine, degree, s):
    """Squared modulus of a field convolved with the wavelets of scale s."""
    matrices = []
    for to, axis in zip(fine, grid, strict=True):
        d = (to[:, None] - axis) / s
        gaussian = np.exp(-(d**2) / 2) * (axis[1] - axis[0])
        matrices.append([d**a * gaussian for a in range(degree + 1)])
    shape = tuple(map(len, fine))
    components = np.zeros((degree + 1, 2, *shape))
    monomials = _monomials(degree)
    for c in range(degree + 1):
        along_z = field @ matrices[2][c].T
        for b in range(degree - c + 1):
            along_y = np.matmul(matrices[1][b], along_z)
            a = degree - b - c
            term = matrices[0][a] @ along_y.reshape(len(along_y), -1)
            term = term.reshape(shape)
            for m, part, factor in monomials[a, b, c]:
                components[m, part] += factor * term
    squared = (components**2).sum(axis=1)
    squared = squared[0] + 2 * squared[1:].sum(axis=0)
    return squared * (wavelet_constant(degree) * s**-3) ** 2


def _monomials(degree):
    """The components that a monomial x^a y^b z^c is in: (m, real or imaginary, factor).

    Parts are 0 for real and 1 for imaginary ones.
    """
    result = {
        (degree - b - c, b, c): []
        for c in range(degree + 1)
        for b in range(degree - c + 1)
    }
    for m, terms in enumerate(harmonics(degree)):
        found = {}
        for factor, k, c in terms:
            for i in range(m + 1):  # (x + iy)^m
                for j in range(k + 1):  # (x^2 + y^2)^k
                    b = i + 2 * j
                    sign = (1, 1, -1, -1)[i % 4]
                    key = (degree - b - c, b, c), i % 2
                    value = sign * factor * comb(m, i) * comb(k, j)
                    found[key] = found.get(key, 0) + value
        for (key, part), value in found.items():
            if value:
                result[key].append((m, part, value))
    return result
