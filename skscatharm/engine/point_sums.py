"""Fields of atoms as sums at each point, with derivatives, in double precision.

Many products of fields share the Gaussians and harmonics of a point. Where fields
themselves are enough, matrix products are faster: :mod:`skscatharm.engine.products`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.transform.harmonics import solid_harmonics

__all__ = [
    "AtomWavelets",
    "components",
    "gradients",
    "monomials_of_harmonics",
    "squares",
]

_Array = NDArray[np.float64]

_LOWEST = -300.0  # exponent of Gaussians, above subnormal numbers


class AtomWavelets(NamedTuple):
    """Atoms, and the wavelets that make their fields.

    Attributes
    ----------
    positions : ndarray of shape (n_atoms, 3)
    weights : ndarray of shape (n_channels, n_kinds)
        Of each kind of atom.
    kinds : ndarray of int of shape (n_atoms,)
        Atoms of a kind have the same weights.
    widths : ndarray of shape (n_widths,)
        Of the fields of an atom, in ascending order.
    cut : float
        Beyond it, in widths along an axis, atoms have no effect.
    powers, coefficients, starts : ndarray
        The harmonics, from :func:`monomials_of_harmonics`.
    norms : ndarray of shape (n_widths, n_harmonics)
        Factors of harmonics times Gaussians.
    """

    positions: _Array
    weights: _Array
    kinds: Any
    widths: _Array
    cut: float
    powers: Any
    coefficients: _Array
    starts: Any
    norms: _Array


def monomials_of_harmonics(degree: int) -> tuple[Any, _Array, Any]:
    """List the monomials of the solid harmonics up to a degree.

    Returns
    -------
    powers : ndarray of int of shape (n_monomials, 3)
        Powers of x, y and z.
    coefficients : ndarray of shape (n_monomials,)
    starts : ndarray of int of shape (n_harmonics + 1,)
        Where the monomials of each harmonic begin.
    """
    powers, coefficients, starts = [], [], [0]
    for d in range(degree + 1):
        for harmonic in solid_harmonics(d):
            for c, polynomial in harmonic.items():
                for (a, b), coefficient in polynomial.items():
                    powers.append((a, b, c))
                    coefficients.append(coefficient)
            starts.append(len(powers))
    return np.array(powers), np.array(coefficients), np.array(starts)


@compile_loops
def _fill_offsets(
    points: Any, position: Any, power: Any, square: Any, largest: Any
) -> float:
    """Fill in powers of the offsets from an atom, (3, n_powers, n_points), squared
    distances, and the largest offset along an axis; return the least of the latter.
    """
    n_points = points.shape[1]
    square[:] = 0.0
    largest[:] = 0.0
    for k in range(3):
        for p in range(n_points):
            power[k, 0, p] = 1.0
            offset = points[k, p] - position[k]
            square[p] += offset * offset
            largest[p] = max(largest[p], abs(offset))
            power[k, 1, p] = offset
        for e in range(2, power.shape[1]):
            for p in range(n_points):
                power[k, e, p] = power[k, e - 1, p] * power[k, 1, p]
    nearest = np.inf
    for p in range(n_points):
        nearest = min(nearest, largest[p])
    return nearest


@compile_loops
def _fill_envelope(
    square: Any, largest: Any, width: float, cut: float, envelope: Any
) -> None:
    """Fill in a Gaussian. As in products, it is zero beyond the cut along an axis."""
    unit = -1 / (2 * width**2)
    for p in range(len(square)):
        envelope[p] = np.exp(max(unit * square[p], _LOWEST))
        if largest[p] >= cut * width:
            envelope[p] = 0.0


@compile_loops
def _fill_harmonics(power: Any, atoms: Any, values: Any) -> None:
    """Fill in the solid harmonics at some offsets."""
    values[:] = 0.0
    for m in range(len(values)):
        for t in range(atoms.starts[m], atoms.starts[m + 1]):
            a, b, c = atoms.powers[t]
            x, y, z, to = power[0, a], power[1, b], power[2, c], values[m]
            for p in range(len(to)):
                to[p] += atoms.coefficients[t] * x[p] * y[p] * z[p]


@compile_loops
def _fill_slopes(power: Any, atoms: Any, slopes: Any) -> None:
    """Fill in the gradients of the solid harmonics: (harmonic, axis, point)."""
    slopes[:] = 0.0
    for m in range(len(slopes)):
        for t in range(atoms.starts[m], atoms.starts[m + 1]):
            for k in range(3):
                n = atoms.powers[t, k]
                if n == 0:
                    continue
                i, j = (k + 1) % 3, (k + 2) % 3
                x, to = power[k, n - 1], slopes[m, k]
                y, z = power[i, atoms.powers[t, i]], power[j, atoms.powers[t, j]]
                factor = atoms.coefficients[t] * n
                for p in range(len(to)):
                    to[p] += factor * x[p] * y[p] * z[p]


@compile_loops
def components(
    points: Any,
    atoms: Any,
) -> Any:
    """Compute components of atoms of weight 1: (scale, harmonic, kind, point)."""
    n_points, n_kinds = points.shape[1], atoms.weights.shape[1]
    n_harmonics = len(atoms.starts) - 1
    found = np.zeros((len(atoms.widths), n_harmonics, n_kinds, n_points))
    power = np.empty((3, max(2, int(np.sqrt(n_harmonics))), n_points))
    values = np.empty((n_harmonics, n_points))
    square, largest = np.empty(n_points), np.empty(n_points)
    envelope = np.empty(n_points)
    for n in range(len(atoms.positions)):
        kind = atoms.kinds[n]
        nearest = _fill_offsets(points, atoms.positions[n], power, square, largest)
        if nearest >= atoms.cut * atoms.widths[-1]:
            continue
        _fill_harmonics(power, atoms, values)
        for j in range(len(atoms.widths)):
            if nearest >= atoms.cut * atoms.widths[j]:
                continue
            _fill_envelope(square, largest, atoms.widths[j], atoms.cut, envelope)
            for m in range(n_harmonics):
                norm, value, to = atoms.norms[j, m], values[m], found[j, m, kind]
                for p in range(n_points):
                    to[p] += norm * envelope[p] * value[p]
    return found


@compile_loops
def squares(of_kinds: Any, weights: Any, fields: Any) -> Any:
    """Compute squared moduli, of shape (n_fields * n_channels, n_points).

    `of_kinds` are from :func:`components`, and a field is (scale, degree).
    """
    n_channels, n_kinds = weights.shape
    found = np.zeros((len(fields) * n_channels, of_kinds.shape[-1]))
    component = np.empty(of_kinds.shape[-1])
    for i in range(len(fields)):
        j, degree = fields[i]
        for m in range(degree**2, (degree + 1) ** 2):
            for c in range(n_channels):
                component[:] = 0.0
                for k in range(n_kinds):
                    weight, of_kind = weights[c, k], of_kinds[j, m, k]
                    if weight != 0:
                        for p in range(len(component)):
                            component[p] += weight * of_kind[p]
                to = found[i * n_channels + c]
                for p in range(len(component)):
                    to[p] += component[p] * component[p]
    return found


@compile_loops
def gradients(
    points: Any,
    atoms: Any,
    components: Any,
    fields: Any,
) -> Any:
    """Differentiate half of the squared moduli of fields (scale, degree)."""
    n_points, n_channels = points.shape[1], len(atoms.weights)
    n_harmonics = len(atoms.starts) - 1
    found = np.zeros((len(fields) * n_channels, 3 * len(atoms.positions), n_points))
    power = np.empty((3, max(2, int(np.sqrt(n_harmonics))), n_points))
    values, slopes = (
        np.empty((n_harmonics, n_points)),
        np.empty((n_harmonics, 3, n_points)),
    )
    square, largest = np.empty(n_points), np.empty(n_points)
    radial = np.empty(n_points)
    envelopes = np.empty((len(atoms.widths), n_points))
    for n in range(len(atoms.positions)):
        kind = atoms.kinds[n]
        nearest = _fill_offsets(points, atoms.positions[n], power, square, largest)
        if nearest >= atoms.cut * atoms.widths[-1]:
            continue
        _fill_harmonics(power, atoms, values)
        _fill_slopes(power, atoms, slopes)
        for j in range(len(atoms.widths)):
            _fill_envelope(square, largest, atoms.widths[j], atoms.cut, envelopes[j])
        for i in range(len(fields)):
            j, degree = fields[i]
            if nearest >= atoms.cut * atoms.widths[j]:
                continue
            for c in range(n_channels):
                radial[:] = 0.0
                to = found[i * n_channels + c, 3 * n : 3 * n + 3]
                for m in range(degree**2, (degree + 1) ** 2):
                    component, value, slope = components[j, m, c], values[m], slopes[m]
                    norm = atoms.norms[j, m]
                    for p in range(n_points):
                        factor = norm * component[p]
                        radial[p] += factor * value[p]
                        to[0, p] += factor * slope[0, p]
                        to[1, p] += factor * slope[1, p]
                        to[2, p] += factor * slope[2, p]
                for k in range(3):
                    offset, unit = power[k, 1], atoms.widths[j] ** -2
                    for p in range(n_points):
                        to[k, p] -= unit * radial[p] * offset[p]
                        to[k, p] *= -atoms.weights[c, kind] * envelopes[j, p]
    return found
