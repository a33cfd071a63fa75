r"""The softened modulus: what takes the kinks from where a field vanishes.

In place of a modulus :math:`|U|` and its powers there are

.. math:: (|U|^2 + \epsilon^2)^{1/2} - \epsilon \qquad \text{and} \qquad
    (|U|^2 + \epsilon^2)^{q/2} - \epsilon^q ,

with :math:`\epsilon` in proportion to the field of an atom of weight 1. They are smooth
functions of a smooth field. Here they are array functions;
:mod:`skscatharm.engine.compiled` has them as a compiled loop.
"""

from math import hypot
from typing import Any

from array_api_compat import array_namespace

from skscatharm.transform.harmonics import wavelet_peak
from skscatharm.transform.paths import Path

__all__ = ["path_peak", "soft_power"]

Array = Any


def path_peak(path: Path, sigma: float) -> float:
    r"""Size of the field of an atom of weight 1 on a path.

    Of order 1, it is the largest modulus. For order 2, the modulus of order 1 is
    replaced by a Gaussian of the same width and, if it is not softened, the same
    integral:

    .. math:: t_2^{-3} \Big(\frac{s_{j_1} s_{j_2}}{t_1 t_2}\Big)^l
        \max_u \Big(\sum_m |\psi_{lm}(u)|^2\Big)^{1/2} ,

    with the widths t of the fields and wavelets of scale 1.
    """
    width, factor = sigma, 1.0
    for j in path.scales:
        scale = sigma * 2**j
        width = hypot(width, scale)
        factor *= (scale / width) ** path.degree
    return factor * width**-3 * wavelet_peak(path.degree)


def soft_power(
    squared: Array, q: float, epsilon: Array, amplitude: float = 1.0
) -> Array:
    """Raise a modulus, given by its square, to a softened power.

    Differences are written so that nothing cancels. Exponents other than the common
    ones are those of the modulus divided by the amplitude.
    """
    if q == 2:
        return squared
    xp = array_namespace(squared)
    if q in (0.5, 1, 3):
        root = xp.sqrt(squared + epsilon * epsilon)
        modulus = squared / (root + epsilon)
        if q == 0.5:
            return modulus / (xp.sqrt(root) + xp.sqrt(epsilon))
        if q == 3:
            return modulus * (root * (root + epsilon) + epsilon * epsilon)
        return modulus
    q = float(q)  # which does not change the type of an array
    ratio = squared / (epsilon * epsilon)
    return (epsilon / amplitude) ** q * xp.expm1(q / 2 * xp.log1p(ratio))
