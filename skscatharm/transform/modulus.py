r"""The modulus of a field, its powers and their derivatives.

With a softening :math:`\epsilon > 0`, modulus and powers are

.. math:: (|U|^2 + \epsilon^2)^{1/2} - \epsilon \qquad \text{and} \qquad
    (|U|^2 + \epsilon^2)^{q/2} - \epsilon^q ,

with :math:`\epsilon` in proportion to the field of an atom of weight 1. They have no
kinks where a field vanishes. Without softening, they are :math:`|U|` and
:math:`|U|^q`.

The functions work with arrays of any library. :mod:`skscatharm.engine.compiled` has
the powers as loops for processors, which tests compare with these.
"""

from collections.abc import Callable, Iterator
from functools import cache
from math import factorial, hypot, pi, sqrt
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray
from scipy.special import gamma, hyp1f1

from skscatharm.transform.harmonics import wavelet_peak
from skscatharm.transform.paths import Path

__all__ = ["KinkRounding", "path_peak", "power", "power_derivative", "soften"]

_Array = NDArray[np.float64]
Array = Any

# Added to denominators, so that 0 / 0 is 0.
TINY = 1e-36


def path_peak(path: Path, sigma: float, dimension: int = 3) -> float:
    r"""Size of the field of an atom of weight 1 on a path.

    For order 1, it is the largest modulus. For order 2, the modulus of order 1 is
    replaced by a Gaussian of the same width and, if it is not softened, the same
    integral:

    .. math::

        t_2^{-3} \Big(\frac{s_{j_1} s_{j_2}}{t_1 t_2}\Big)^l
        \max_u \Big(\sum_m |\psi_{lm}(u)|^2\Big)^{1/2} ,

    with the widths t of the fields and wavelets of scale 1. In a plane, the first
    factor is :math:`t_2^{-2}`.
    """
    width, factor = sigma, 1.0
    for j in path.scales:
        scale = sigma * 2**j
        width = hypot(width, scale)
        factor *= (scale / width) ** path.degree
    return factor * width**-dimension * wavelet_peak(path.degree, dimension)


def soften(squared: Array, epsilon: Array | float) -> tuple[Array, Array]:
    r"""Return :math:`(|U|^2 + \epsilon^2)^{1/2}` and the modulus.

    Parameters
    ----------
    squared : array
        :math:`|U|^2`.
    epsilon : array or float
        Softening; 0 for none.
    """
    xp = array_namespace(squared)
    if _is_zero(epsilon):
        root = xp.sqrt(squared)
        return root, root
    root = xp.sqrt(squared + epsilon * epsilon)
    # Written so that nothing cancels.
    return root, squared / (root + epsilon + TINY)


def power(
    squared: Array, root: Array, modulus: Array, epsilon: Array | float, q: float
) -> Array:
    """Raise a modulus to a power; `root` and `modulus` come from :func:`soften`."""
    xp = array_namespace(squared)
    if q == 1:
        return modulus
    if q == 2:
        return squared
    if _is_zero(epsilon):
        return xp.sqrt(root) if q == 0.5 else squared * root if q == 3 else root**q
    if q == 0.5:
        return modulus / (xp.sqrt(root) + _scalar_sqrt(epsilon, xp) + TINY)
    if q == 3:
        return modulus * (root * (root + epsilon) + epsilon * epsilon)
    if q == 4:
        return squared * (squared + 2 * epsilon * epsilon)
    # The power of the root times a factor from 0 to 1: nothing overflows.
    ratio = squared / (epsilon * epsilon + TINY)
    return -(root ** float(q)) * xp.expm1(-q / 2 * xp.log1p(ratio))


def power_derivative(root: Array, q: float) -> Array:
    r"""Derivative of a softened power with respect to :math:`|U|^2`.

    Examples
    --------
    >>> import numpy as np
    >>> from skscatharm.transform.modulus import power, power_derivative, soften
    >>> U2, step = np.array([0.3, 2.0]), 1e-6
    >>> low, high = (power(u, *soften(u, 0.5), 0.5, 3) for u in (U2 - step, U2 + step))
    >>> derivative = power_derivative(soften(U2, 0.5)[0], 3)
    >>> bool(np.allclose(derivative, (high - low) / (2 * step)))
    True
    """
    return q / 2 * root ** float(q - 2)


def _is_zero(epsilon: Array | float) -> bool:
    """Whether there is no softening at all; of arrays, this is not looked up."""
    return isinstance(epsilon, float | int) and epsilon == 0


def _scalar_sqrt(value: Array | float, xp: Any) -> Any:
    return sqrt(value) if isinstance(value, float | int) else xp.sqrt(value)


class KinkRounding:
    r"""Powers of a density that changes sign, with its kinks rounded.

    Where a density :math:`\rho` changes sign, :math:`|\rho|^q` has a kink on a whole
    surface, and sums over the points of a grid converge slowly. Here

    .. math::

        \phi = \rho / E , \quad E = \sum_n |w_n| g(u - r_n) , \quad
        |\rho|^q \approx E^q \int |\phi - \delta t|^q K(t) \, dt ,

    with a kernel K whose moments 1, 2, ..., 2p - 1 vanish: a Gaussian times a
    polynomial. The integral over space changes by a term of order
    :math:`\delta^{2p}`, and the result is smooth.

    Parameters
    ----------
    exponents : sequence of float
    order : int
        The order p.
    """

    _LARGEST = 14.0  # beyond, the power is not rounded
    _N = 2**16

    def __init__(self, exponents: NDArray[np.float64], order: int) -> None:
        self.exponents = exponents
        self.order = order

    def powers(
        self,
        field: Array,
        envelope: Array,
        width: float,
        scales: NDArray[np.float64] | None = None,
    ) -> tuple[Array, list[Array]]:
        r"""Return the rounded modulus, and the rounded powers.

        Parameters
        ----------
        field, envelope : array
            The densities :math:`\rho` and E.
        width : float
            The width :math:`\delta`.
        scales : ndarray of shape (n_exponents,) or None
            The powers are those of the modulus times the scale.
        """
        xp = array_namespace(field)
        scales = np.ones(len(self.exponents)) if scales is None else scales
        unit = width * envelope + TINY
        t = xp.abs(field) / unit
        modulus = self._power(t, unit, 1.0, xp)
        return modulus, [
            self._power(t, unit * s, q, xp)
            for q, s in zip(self.exponents.tolist(), scales.tolist(), strict=True)
        ]

    def derivatives(
        self, field: Array, envelope: Array, width: float
    ) -> tuple[list[Array], list[Array]]:
        """Return derivatives of the rounded modulus, and of the rounded powers.

        The first list has those with respect to the field, the second those with
        respect to the envelope.
        """
        xp = array_namespace(field)
        unit = width * envelope + TINY
        t = xp.abs(field) / unit
        by_field, by_envelope = [], []
        for q in (1.0, *self.exponents.tolist()):
            factor, slope = unit ** (q - 1), self._slope(t, q, xp)
            by_field.append(xp.sign(field) * factor * slope)
            by_envelope.append(
                width * factor * (q * self._power(t, 1.0, q, xp) - t * slope)
            )
        return by_field, by_envelope

    def _power(self, t: Array, unit: Array | float, q: float, xp: Any) -> Array:
        if q % 2 == 0:
            return (t * unit) ** q
        rounded = self._look_up(_rounded_power, t, q, xp)
        return unit**q * xp.where(t < self._LARGEST, rounded, t**q)

    def _slope(self, t: Array, q: float, xp: Any) -> Array:
        if q % 2 == 0:
            return q * t ** (q - 1)
        rounded = self._look_up(_rounded_slope, t, q, xp)
        return xp.where(t < self._LARGEST, rounded, q * t ** (q - 1))

    def _look_up(
        self, function: Callable[..., _Array], t: Array, q: float, xp: Any
    ) -> Array:
        """Interpolate a table of a function."""
        table = _tabulate(function, q, self.order, self._LARGEST, self._N)
        table = xp.asarray(table, dtype=t.dtype)
        where = xp.reshape(t * (self._N / self._LARGEST), (-1,))
        where = xp.clip(where, 0.0, float(self._N - 1))
        index = xp.astype(where, xp.int64)
        low, high = xp.take(table, index), xp.take(table, index + 1)
        values = low + (high - low) * (where - xp.astype(index, t.dtype))
        return xp.reshape(values, t.shape)


@cache
def _tabulate(
    function: Callable[..., _Array], q: float, order: int, largest: float, n: int
) -> _Array:
    return function(np.linspace(0, largest, n + 1), q, order)


def _rounded_power(t: _Array, q: float, order: int) -> _Array:
    r"""Convolve :math:`|t|^q` with the kernel of width 1.

    The kernel is :math:`\sum_{j<p} (-1)^j / (2^j j!) \, He_{2j}(t)` times the normal
    density. The derivatives of :math:`|t|^q` convolved with a Gaussian are confluent
    hypergeometric functions.
    """
    total = np.zeros_like(t)
    for j, c in _kernel_terms(q, order):
        total += c * hyp1f1(j - q / 2, 0.5, -t * t / 2)
    return total


def _rounded_slope(t: _Array, q: float, order: int) -> _Array:
    """Differentiate the rounded power."""
    total = np.zeros_like(t)
    for j, c in _kernel_terms(q, order):
        total += c * (q - 2 * j) * t * hyp1f1(j + 1 - q / 2, 1.5, -t * t / 2)
    return total


def _kernel_terms(q: float, order: int) -> Iterator[tuple[int, float]]:
    factor = 2 ** (q / 2) * gamma((q + 1) / 2) / sqrt(pi)
    for j in range(order):
        yield j, factor * (-1) ** j / (2**j * factorial(j))
        factor *= q - 2 * j
