r"""Morlet wavelets of images, and the low-pass filter, as Fourier transforms.

With the vector :math:`x` of a pixel (row, column), the wavelet of scale j in the
direction :math:`e = (\cos \theta, \sin \theta)` is

.. math::

    \psi(x) = \frac{\lambda}{2 \pi \sigma_j^2}
    \big(e^{i \xi_j e \cdot x} - \kappa\big)
    e^{-[(e \cdot x)^2 + \lambda^2 |x - (e \cdot x) e|^2] / 2 \sigma_j^2} , \qquad
    \sigma_j = 0.8 \cdot 2^j , \quad \xi_j = \tfrac{3}{4} \pi \, 2^{-j} , \quad
    \lambda = 4 / L ,

with :math:`\kappa` such that its sum vanishes. The low-pass filter is a normalised
Gaussian of width :math:`0.8 \cdot 2^{J - 1}`. On an image, filters are periodic.
"""

from collections.abc import Sequence
from itertools import product
from math import cos, pi, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ImagePath",
    "image_paths",
    "low_pass_filter",
    "morlet_wavelet",
    "orientation",
    "padded_length",
]

_Array = NDArray[np.float64]

_WIDTH = 0.8  # of scale 0, in pixels
_FREQUENCY = 0.75 * pi  # of scale 0, in radians for a pixel
_SLANT = 4.0  # divided by L: width along the wave divided by that along the crests
_REACH = 6.7  # widths, beyond which a Gaussian is below 1e-9


class ImagePath(NamedTuple):
    """The scales and the orientations of the wavelets of a coefficient.

    Their number is the order. The scales increase.
    """

    scales: tuple[int, ...]
    orientations: tuple[int, ...]


def image_paths(J: int, L: int, max_order: int) -> list[ImagePath]:
    """List the paths in the order of the columns.

    Examples
    --------
    >>> from skscatharm.transform.morlet import image_paths
    >>> len(image_paths(J=2, L=8, max_order=2))
    81
    """
    wavelets = list(product(range(J), range(L)))
    paths = [ImagePath((), ())]
    if max_order > 0:
        paths += [ImagePath((j,), (t,)) for j, t in wavelets]
    if max_order > 1:
        paths += [
            ImagePath((j1, j2), (t1, t2))
            for j1, t1 in wavelets
            for j2, t2 in wavelets
            if j1 < j2
        ]
    return paths


def orientation(index: int, L: int) -> float:
    """Return the angle of a wavelet, in radians, from rows towards columns."""
    return pi * (max(L // 2 - 1, 0) - index) / L


def padded_length(length: int, J: int) -> int:
    """Return the number of pixels along an axis with borders on both sides."""
    return (length // 2**J + 2) * 2**J


def morlet_wavelet(shape: Sequence[int], j: int, theta: float, L: int) -> _Array:
    """Evaluate the Fourier transform of a wavelet, which is real.

    Parameters
    ----------
    shape : (int, int)
        Number of pixels along both axes, the period.
    j : int
        Scale.
    theta : float
        Angle in radians.
    L : int
        Number of orientations.

    Returns
    -------
    ndarray of shape `shape`
        At the frequencies of :func:`numpy.fft.fftfreq`.

    Examples
    --------
    >>> from skscatharm.transform.morlet import morlet_wavelet
    >>> wavelet = morlet_wavelet((32, 32), j=1, theta=0.0, L=8)
    >>> float(wavelet[0, 0]), float(wavelet[6, 0].round(2))  # 6 is its frequency
    (0.0, 0.97)
    """
    width, frequency = _WIDTH * 2**j, _FREQUENCY * 2.0**-j
    wave = _gaussian(shape, width, _SLANT / L, theta, frequency)
    envelope = _gaussian(shape, width, _SLANT / L, theta, 0.0)
    return wave - wave[0, 0] / envelope[0, 0] * envelope


def low_pass_filter(length: int, J: int) -> _Array:
    """Evaluate the Fourier transform of the low-pass filter along an axis."""
    width = _WIDTH * 2.0 ** (J - 1)
    frequencies = 2 * pi * np.fft.fftfreq(length)
    total = np.zeros(length)
    for alias in _aliases(width, 0.0):
        total += np.exp(-((width * (frequencies + alias)) ** 2) / 2)
    return total


def _gaussian(
    shape: Sequence[int], width: float, slant: float, theta: float, frequency: float
) -> _Array:
    """Evaluate the transform of a Gaussian times a wave, sampled on the pixels."""
    rows, columns = (2 * pi * np.fft.fftfreq(n) for n in shape)
    aliases = _aliases(width / max(slant, 1.0), frequency)
    total = np.zeros(tuple(shape))
    for a, b in product(aliases, aliases):
        y, x = rows[:, np.newaxis] + a, columns + b
        along = cos(theta) * y + sin(theta) * x - frequency
        across = cos(theta) * x - sin(theta) * y
        total += np.exp(-(width**2) * (along**2 + (across / slant) ** 2) / 2)
    return total


def _aliases(width: float, frequency: float) -> list[float]:
    """List the multiples of 2 pi at which a Gaussian adds to the first frequencies."""
    n = int((_REACH / width + pi + frequency) / (2 * pi))
    return [2 * pi * a for a in range(-n, n + 1)]
