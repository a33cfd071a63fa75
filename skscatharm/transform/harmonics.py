r"""Solid and circular harmonics as polynomials, and the wavelets made of them.

Everything here is exact up to rounding. The engines compute the fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import comb, e, factorial, gamma, perm, pi, sqrt
from typing import Any

import numpy as np

__all__ = [
    "cancellation",
    "circular_harmonics",
    "harmonic_norm",
    "solid_harmonics",
    "wavelet_constant",
    "wavelet_gradients_in_frequency",
    "wavelet_peak",
    "wavelets_in_frequency",
]

Polynomial = Mapping[tuple[int, int], float]


@cache
def solid_harmonics(degree: int) -> tuple[Mapping[int, Polynomial], ...]:
    r"""Real solid harmonics of one degree, sorted by powers of z.

    .. math::

        r^l Y_{lm}(x, y, z) = \sum_c z^c \sum_{a + b = l - c} p_{mcab}\, x^a y^b

    with the orthonormal real spherical harmonics, so that
    :math:`\sum_m |r^l Y_{lm}|^2 = r^{2l} (2l + 1) / 4 \pi`. For each order ``m``
    at most one power of z in two occurs, and the polynomials in x and y are a
    power of :math:`x^2 + y^2` times the real (``m >= 0``) or imaginary
    (``m < 0``) part of :math:`(x + iy)^{|m|}`.

    Parameters
    ----------
    degree : int
        The degree l, 0 or more.

    Returns
    -------
    tuple of dict
        For m = -l, ..., l a mapping ``{c: {(a, b): p}}``.

    Examples
    --------
    >>> from skscatharm.transform.harmonics import solid_harmonics
    >>> [list(harmonic) for harmonic in solid_harmonics(2)]
    [[0], [1], [2, 0], [1], [0]]
    """
    return tuple(_solid_harmonic(degree, m) for m in range(-degree, degree + 1))


def circular_harmonics(degree: int) -> tuple[Polynomial, Polynomial]:
    r"""Real and imaginary part of the circular harmonic of a degree.

    .. math:: r^l e^{i l \theta} = (x + iy)^l = \sum_{a + b = l} p_{ab} \, x^a y^b

    Examples
    --------
    >>> from skscatharm.transform.harmonics import circular_harmonics
    >>> circular_harmonics(2)
    ({(2, 0): 1, (0, 2): -1}, {(1, 1): 2})
    """
    return _azimuthal(degree, negative=False), _azimuthal(degree, negative=True)


def _solid_harmonic(degree: int, m: int) -> Mapping[int, Polynomial]:
    order = abs(m)
    norm = sqrt((2 * degree + 1) / (4 * pi)) / 2**degree
    norm *= sqrt((2 if m else 1) * factorial(degree - order))
    norm /= sqrt(factorial(degree + order))
    # In whole numbers, so that terms cancel exactly.
    harmonic: dict[int, dict[tuple[int, int], int]] = {}
    for k in range((degree - order) // 2 + 1):
        # Coefficient of r^2k z^(l - 2k - |m|) in the associated Legendre function.
        legendre = (-1) ** k * comb(degree, k) * comb(2 * degree - 2 * k, degree)
        legendre *= perm(degree - 2 * k, order)
        # r^2k = sum over i of binom(k, i) (x^2 + y^2)^i z^(2k - 2i)
        for i in range(k + 1):
            terms = harmonic.setdefault(degree - order - 2 * i, {})
            for h in range(i + 1):
                for (a, b), part in _azimuthal(order, negative=m < 0).items():
                    power = (a + 2 * h, b + 2 * (i - h))
                    value = legendre * comb(k, i) * comb(i, h) * part
                    terms[power] = terms.get(power, 0) + value
    exact = {
        c: {power: norm * p for power, p in terms.items() if p}
        for c, terms in harmonic.items()
    }
    return {c: terms for c, terms in exact.items() if terms}


def _azimuthal(order: int, negative: bool) -> dict[tuple[int, int], int]:
    """Real part of (x + iy)^order as a polynomial, or the imaginary part."""
    return {
        (order - b, b): (-1) ** (b // 2) * comb(order, b)
        for b in range(int(negative), order + 1, 2)
    }


@cache
def cancellation(degree: int) -> float:
    """Return how much larger the terms of solid harmonics are than their sums.

    It is the largest sum of the moduli of all terms on the unit sphere, relative to
    the root mean square of the harmonics: rounding errors grow by this factor.

    Examples
    --------
    >>> from skscatharm.transform.harmonics import cancellation
    >>> [round(cancellation(degree)) for degree in (0, 1, 4, 12)]
    [1, 2, 4, 91]
    """
    t = np.linspace(0, pi / 2, 25)
    polar, azimuth = np.meshgrid(t, t, indexing="ij")
    z, rho = np.cos(polar), np.sin(polar)
    x, y = rho * np.cos(azimuth), rho * np.sin(azimuth)
    sums = [
        sum(
            abs(p) * x**a * y**b * z**c
            for c, terms in harmonic.items()
            for (a, b), p in terms.items()
        )
        for harmonic in solid_harmonics(degree)
    ]
    return float(np.max(sums)) * sqrt(4 * pi)


def wavelet_constant(degree: int, dimension: int = 3) -> float:
    r"""Constant :math:`c_l` of the harmonic wavelets.

    It makes the modulus of the wavelets of one degree integrate to one,
    whatever the scale s:

    .. math::

        \int \Big(\sum_m |\psi_{lms}(u)|^2\Big)^{1/2} du = 1, \qquad
        \psi_{lms}(u) = c_l\, s^{-3} \left(\frac{|u|}{s}\right)^l
        e^{-|u|^2 / 2 s^2}\, Y_{lm}\!\left(\frac{u}{|u|}\right).

    In a plane, there is one wavelet of a degree, with the factor :math:`s^{-2}` and
    :math:`e^{i l \theta}` in place of the spherical harmonic.

    Parameters
    ----------
    degree : int
        The degree l, 0 or more.
    dimension : {2, 3}, default=3

    Returns
    -------
    float

    Examples
    --------
    For degree 0 the wavelet is the normalised Gaussian:

    >>> from math import pi
    >>> from skscatharm.transform.harmonics import wavelet_constant
    >>> bool(abs(wavelet_constant(0) / (4 * pi) ** 0.5 - (2 * pi) ** -1.5) < 1e-15)
    True
    """
    if dimension == 2:
        return 1 / (2 * pi * 2 ** (degree / 2) * gamma(degree / 2 + 1))
    radial = 2 ** ((degree + 1) / 2) * gamma((degree + 3) / 2)
    return 1 / (sqrt((2 * degree + 1) * 4 * pi) * radial)


def harmonic_norm(degree: int, dimension: int = 3) -> float:
    r"""Modulus of the harmonics of a degree on the unit sphere or circle.

    Examples
    --------
    >>> from skscatharm.transform.harmonics import harmonic_norm
    >>> harmonic_norm(5, dimension=2)
    1.0
    """
    return 1.0 if dimension == 2 else sqrt((2 * degree + 1) / (4 * pi))


def wavelet_peak(degree: int, dimension: int = 3) -> float:
    r"""Largest modulus of the wavelets of a degree and scale 1.

    The modulus of the harmonics is constant, so it is at the distance
    :math:`l^{1/2}`.

    Examples
    --------
    >>> from math import pi
    >>> from skscatharm.transform.harmonics import wavelet_peak
    >>> bool(abs(wavelet_peak(0) - (2 * pi) ** -1.5) < 1e-15)
    True
    """
    radial = (degree / e) ** (degree / 2)
    norm = wavelet_constant(degree, dimension) * harmonic_norm(degree, dimension)
    return norm * radial


def wavelets_in_frequency(
    degree: int, scale: float, wavevectors: Sequence[Any], xp: Any, factor: Any = 1.0
) -> Iterator[Any]:
    r"""Evaluate the Fourier transforms of the wavelets of a degree and a scale.

    .. math::

        \int \psi_{lms}(u)\, e^{-i k \cdot u} du = (-i)^l\, (2 \pi)^{3/2} c_l\,
        (s |k|)^l e^{-s^2 |k|^2 / 2}\, Y_{lm}\!\left(\frac{k}{|k|}\right)

    Parameters
    ----------
    degree : int
        The degree l, 0 or more.
    scale : float
        The scale s.
    wavevectors : sequence of three arrays
        The components of k in x, y and z, arrays that broadcast to one shape, in
        radians for a unit of length.
    xp : module
        Namespace of their array library.
    factor : array or float, default=1
        They are multiplied by it.

    Yields
    ------
    array of that shape
        For m = -l, ..., l the transform without its factor :math:`(-i)^l`: real, times
        `factor`.
    """
    x, y, z = (scale * k for k in wavevectors)
    gaussian = factor * _gaussian_in_frequency(degree, x, y, z, xp)
    for harmonic in solid_harmonics(degree):
        yield gaussian * _evaluate(harmonic, x, y, z)


def wavelet_gradients_in_frequency(
    degree: int, scale: float, wavevectors: Sequence[Any], xp: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Differentiate the Fourier transforms of wavelets with respect to wavevectors.

    The parameters are those of :func:`wavelets_in_frequency`.

    Yields
    ------
    tuple of three arrays
        For m = -l, ..., l the derivatives of its values with respect to the components
        of k.
    """
    x, y, z = (scale * k for k in wavevectors)
    gaussian = scale * _gaussian_in_frequency(degree, x, y, z, xp)
    for harmonic in solid_harmonics(degree):
        value = _evaluate(harmonic, x, y, z)
        a, b, c = (
            gaussian * (_evaluate(slope, x, y, z) - k * value)
            for slope, k in zip(_gradient(harmonic), (x, y, z), strict=True)
        )
        yield a, b, c


def _gaussian_in_frequency(degree: int, x: Any, y: Any, z: Any, xp: Any) -> Any:
    # Smaller values have no effect, but subnormal numbers would be slow.
    exponent = xp.clip((x * x + y * y + z * z) / 2, None, 60.0)
    return (2 * pi) ** 1.5 * wavelet_constant(degree) * xp.exp(-exponent)


def _evaluate(harmonic: Mapping[int, Polynomial], x: Any, y: Any, z: Any) -> Any:
    return sum(
        z**c * sum(p * x**a * y**b for (a, b), p in polynomial.items())
        for c, polynomial in harmonic.items()
    )


def _gradient(
    harmonic: Mapping[int, Polynomial],
) -> tuple[Mapping[int, Polynomial], ...]:
    """Differentiate a polynomial with respect to x, y and z."""
    along_x: dict[int, dict[tuple[int, int], float]] = {}
    along_y: dict[int, dict[tuple[int, int], float]] = {}
    along_z: dict[int, dict[tuple[int, int], float]] = {}
    for c, polynomial in harmonic.items():
        for (a, b), p in polynomial.items():
            if a:
                along_x.setdefault(c, {})[a - 1, b] = a * p
            if b:
                along_y.setdefault(c, {})[a, b - 1] = b * p
            if c:
                along_z.setdefault(c - 1, {})[a, b] = c * p
    return along_x, along_y, along_z
