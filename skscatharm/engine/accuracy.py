r"""Steps, margins and cuts of the grids, from the tolerance that a user states.

Several errors add up in a coefficient, and each has a rule here.

Step
    A sum over the points of a grid in place of an integral. With kinks, where an
    unsoftened modulus vanishes, the error is a power of the step :math:`h`. Without
    them, it falls like :math:`e^{-c / h}`.
Margin
    The part of the integral that lies outside of the grid.
Cut
    The distance beyond which a Gaussian factor is replaced by zero.
Aliases
    Fields of order 1 are sampled on a coarse grid on their way to order 2.
Kinks
    A density that changes sign has a modulus with kinks on whole surfaces.
Rounding
    Sums in single or double precision.

``benchmarks/tune.py`` measures the constants of the steps again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil, e, exp, hypot, inf, log, log2, log10, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.special import gamma, gammainccinv

from skscatharm.transform.harmonics import cancellation
from skscatharm.transform.transform import Transform

__all__ = [
    "CRYSTAL_SOFTNESS",
    "DOUBLE",
    "SMOOTHING",
    "SOFT",
    "Accuracy",
    "check_accuracy",
    "check_signs",
    "exponent_classes",
    "least_tol",
    "weight_classes",
]

_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]

#: The least exponent of coefficients.
LEAST_EXPONENT = 0.5
_SHARE = 0.05  # of the tolerance, that each cut may cost
# The same for products of a density and a wide field around one atom, where that rises
# from zero. In molecules, about a tenth of it is left out: there are other atoms.
_RISING = 1.2
_TAILS = 1.2  # how much farther grids reach whose sums are smooth
_ALIAS_SHARE = 0.5
_SQUARES = 0.06  # of the share, for squares
_DECAY = 0.65  # of order 2 with the degree
_LARGEST_STEP = 0.65

# All steps are in widths of the field. Degree 0 has no zeros.
_DEGREE_0 = (0.0165, 4.3)  # A and c of errors A exp(-c / h)
_ATOM = (2.3, 1.67)  # of one atom, for fourth powers: A exp(-(c / h)^2)
# Unsoftened moduli: steps for degrees 1, 2, 3 and more, by order, at a tolerance.
# Where fields of neighbouring atoms overlap much, there are more zeros.
_HARD_REFERENCE, _HARD_POWER = 2.1e-4, 0.27
_HARD = {1: (0.37, 0.48, 0.43, 0.40), 2: (0.46, 0.54, 0.52, 0.40)}
_HARD_CROWDED = {1: (0.31, 0.40, 0.32, 0.33), 2: (0.40, 0.46, 0.44, 0.37)}
_CROWDED = {1: 2.7, 2: 1.55}  # distance of neighbours in widths
# Softened moduli: errors are A exp(-c / h), with A and c by order and degree.
_SOFT = {
    1: ((0.0075, 2.08), (0.02, 2.8), (0.0031, 2.06), (0.008, 2.06)),
    2: ((0.013, 3.1), (0.15, 5.0), (0.15, 5.0), (0.9, 5.0)),
}
_SOFT_GROWTH = 0.5  # of A in order 2, for each degree beyond 4
_SOFT_SHARE = 0.5  # of the tolerance
# The same in a plane. The zeros of unsoftened moduli are points, and the field has two
# components: the error falls with a lower power of the step, or at a lower rate.
_PLANE_HARD_POWER = 0.4
_PLANE_HARD = {1: (0.25, 0.25, 0.25, 0.2), 2: (0.22, 0.22, 0.15, 0.12)}
_PLANE_SOFT = {
    1: ((0.13, 2.6), (0.035, 2.0), (0.14, 1.95), (0.14, 1.95)),
    2: ((0.16, 4.3), (0.16, 3.8), (1.1, 3.8), (3.0, 3.8)),
}
# Softening divided by the largest weight, from which this is true. Steps shrink with
# this power of less.
_SOFTNESS, _SOFTNESS_POWER = 0.4, {1: 0.25, 2: 0.5}
# Fields of neighbouring atoms add up, and are softened the less.
_OVERLAP = 1.7
# The same in crystals, where all of a softening helps: benchmarks/crystals/steps.py.
_OVERLAP_POWER = -1 / 3
CRYSTAL_SOFTNESS = 8 * _SOFTNESS
_HARD_OUTER_STEP, _SOFT_OUTER_STEP = 0.85, 1.7  # the latter in inner steps
# In order 1, steps far from the atoms may be so many times as large again: moduli have
# no zeros there. But where they fall to a small softening, they change steeply.
_FAR_STEP, _FAR_SOFTNESS = 2.4, 0.2

#: Width of the Gaussian that smooths fields of order 1 on their way to order 2, in
#: scales of the wavelets of order 2.
SMOOTHING = sqrt(3 / 8)

# Distance of neighbours whose windows change most steeply, in Å.
_WINDOW_DISTANCE = 2.0

# The kernel that rounds kinks on surfaces: its order and width, for small and large
# tolerances, where a density is as large as the sum of its moduli. It is smaller where
# there is cancellation; more than this is refused.
_FINE_KERNEL, _ROUGH_KERNEL, _ROUGH_TOL = (6, 0.16), (3, 0.2), 1e-4
_LEAST_BALANCE = 0.05

#: Exponents above this are computed in double precision.
DOUBLE = 4.0
#: Softness from which noise does not matter where a field vanishes.
SOFT = 0.05
# Limits of rounding.
_LEAST_TOL = {"float32": 2e-6, "float64": 1e-8}
_ROUNDING = {"float32": 3e-8, "float64": 1e-16}  # times what terms cancel
_LEAST_FOURIER_TOL = 1e-6


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of some coefficients, and the rules that follow from it.

    Attributes
    ----------
    tol : float
        Relative error that is allowed.
    softness : float
        Softening divided by the largest weight of an atom; 0 if there is none.
    exponent : float
        Largest exponent.
    signed : bool
        Whether there are weights of both signs.
    dimension : {2, 3}
        Dimension of the space.
    window : float
        Width of windows around atoms, in Å; infinite if there are none.
    smooth : bool
        Whether coefficients are to be smooth functions of positions. While atoms move,
        sums change by what grids cut off: these grids reach farther than `tol` needs.
    """

    tol: float
    softness: float = 0.0
    exponent: float = 4.0
    signed: bool = False
    dimension: int = 3
    window: float = inf
    smooth: bool = False

    def step(self, order: int, degree: int, crowding: _Array | float) -> Any:
        """Return the step among the atoms, in widths of the field.

        `crowding` is the distance of neighbouring atoms in widths; it may be an array
        for several molecules.
        """
        amplitude, rate = _DEGREE_0
        step: Any = rate / max(log(amplitude / self.tol), 0.1)
        if degree > 0:
            soft = self._soft(order, degree, crowding)
            step = np.maximum(self._hard(order, degree, crowding), soft)
            if order == 1:
                amplitude, rate = _ATOM
                step = np.minimum(step, rate / sqrt(log(amplitude / self.tol)))
        # The field to the power q is narrower than the field.
        return np.minimum(step, _LARGEST_STEP) * sqrt(4 / max(self.exponent, 4))

    def overlap(self, degree: int, density: float) -> float:
        """Return how much smaller steps are in a crystal, where many fields overlap.

        `density` is the number of atoms per cube of a width. Times the volume of the
        field of an atom, the integral of its square over the square of its maximum,
        it is the number of fields that overlap.
        """
        if degree == 0:
            return 1.0
        volume = 2 * pi * gamma(degree + 1.5) * (e / degree) ** degree
        hardness = 1 / sqrt(self.softness) if self.softness else 1.0
        return float((1 + density * volume * hardness) ** _OVERLAP_POWER)

    def spectral_step(self, degree: int, power: int = 1) -> float:
        r"""Return the step at which a grid holds the spectrum of a field, in widths.

        Beyond it, the spectrum is down to where the field is at the margin. That of the
        square is wider by :math:`\sqrt{2}`, and has twice the degree.
        """
        level = exp(-(self.margin(degree) ** 2) / 2)
        return pi / (sqrt(power) * _tail(power * degree, level))

    def outer_step(self, order: int, degree: int, crowding: _Array | float) -> Any:
        """Return the step far from the atoms, in widths."""
        step = self.step(order, degree, crowding)
        if degree == 0:
            return step
        far = 1.0
        is_steep = 0 < self.softness < _FAR_SOFTNESS
        if order == 1 and self.dimension == 3 and not (is_steep or self.signed):
            far = _FAR_STEP
        loose = _HARD_OUTER_STEP * (self.tol / _HARD_REFERENCE) ** _HARD_POWER
        hard = np.maximum(step, min(loose, _HARD_OUTER_STEP))
        soft = np.minimum(_SOFT_OUTER_STEP * step, _LARGEST_STEP)
        is_soft = step <= self._soft(order, degree, crowding)
        return far * np.where(is_soft, soft, hard)[()]

    @property
    def window_step(self) -> float:
        r"""Return the step that samples windows, in Å.

        Between two atoms at a distance d, a window of width w falls like
        :math:`1 / (1 + e^{x d / w^2})`. The error is :math:`e^{-2 \pi^2 w^2 / d h}`.
        """
        return 2 * pi**2 * self.window**2 / (_WINDOW_DISTANCE * -log(self.tol))

    @property
    def sharpness(self) -> float:
        """Number of points in which the step changes from the inner to the outer."""
        return 0.8 + 0.25 * max(log10(1e-5 / self.tol), 0.0)

    def _hard(self, order: int, degree: int, crowding: _Array | float) -> Any:
        table, power = _HARD, _HARD_POWER
        if self.dimension == 2:
            table, power = _PLANE_HARD, _PLANE_HARD_POWER
        step: Any = table[order][min(degree, 4) - 1]
        if self.dimension == 3:
            crowded = _HARD_CROWDED[order][min(degree, 4) - 1]
            step = np.where(crowding < _CROWDED[order], crowded, step)[()]
        return step * (self.tol / _HARD_REFERENCE) ** power

    def _soft(self, order: int, degree: int, crowding: _Array | float) -> Any:
        table = _PLANE_SOFT if self.dimension == 2 else _SOFT
        amplitude, rate = table[order][min(degree, 4) - 1]
        if order == 2:
            amplitude *= exp(_SOFT_GROWTH * max(degree - 4, 0))
        step = rate / max(log(amplitude / (_SOFT_SHARE * self.tol)), 0.1)
        # In a plane, fields of order 2 are as smooth where those of neighbours add up.
        overlap = 0.0 if self.dimension == 2 and order == 2 else _OVERLAP
        softness: Any = self.softness / (1 + overlap / crowding**3)
        softness = np.minimum(softness / _SOFTNESS, 1.0)
        return step * softness ** _SOFTNESS_POWER[order]

    def margin(self, degree: int) -> float:
        r"""Return how far the grid reaches beyond the atoms, in widths.

        The integral of :math:`r^{lq} e^{-q r^2 / 2}` beyond it is a small share of the
        whole, for the least exponent. All powers of a softened modulus decay like its
        square.
        """
        softness = self.softness if degree else 0.0
        margin = _margin(degree, _SHARE * self.tol, softness)
        return _TAILS * margin if self.smooth else margin

    def product_margin(self, degree: int, exponent: float, ratio: float) -> float:
        r"""Return how far products of two fields reach, in the least width.

        The narrow field is a density. It falls like :math:`e^{-q r^2 / 4}`, and the
        wide one, of a width :math:`\rho`, like :math:`e^{-q r^2 / 4 \rho^2}`, or if it
        is softened, like :math:`r^{2 l} e^{-r^2 / \rho^2}`.

        Parameters
        ----------
        degree : int
            Largest degree.
        exponent : float
            The least: the fields are raised to half of it.
        ratio : float
            The largest width divided by the least.
        """
        decay = exponent * (1 + ratio**-2) / 2
        far = sqrt(LEAST_EXPONENT / decay) * self.margin(0)
        if not self.softness or degree == 0:
            return far
        share = min(_RISING * self.tol, 0.5)
        decay = exponent / 4 + ratio**-2
        rising = sqrt(gammainccinv(1.5 + degree, share) / decay)
        return max(far, _TAILS * rising if self.smooth else rising)

    def cut(self, degree: int) -> float:
        """Return the distance, in widths, beyond which a factor of an atom is zero."""
        return self.margin(degree) + (0.5 if degree else 0.0)

    def product_cut(self, degree: int, margin: float) -> float:
        """Return the same for products of fields up to a degree.

        Their grids reach as far as `margin`, which may be less than a field does.
        """
        far = self.cut(degree) if degree else _tail(0, _SHARE * self.tol)
        return max(margin + 0.5, far)

    def wavelet_cut(self, degree: int) -> float:
        """Return the same for the wavelets of order 2, in scales.

        At the margin, fields of order 2 are made of the tails of the wavelets, of the
        Gaussians that smooth, and of the fields of order 1. These grow in proportion to
        their widths. The widths below are bounds for all pairs of scales.
        """
        far = 0.75 * self.margin(degree) + 1.5
        return max(_tail(degree, _SHARE * self.tol), far)

    def smoothing_cut(self, degree: int) -> float:
        """Return the same for the Gaussian that smooths fields of order 1, in widths.

        What is left of the wavelets amplifies errors.
        """
        amplification = (1 - SMOOTHING**2) ** (-degree / 2)
        far = 0.6 * self.margin(degree) + 1.7
        return max(_tail(0, 0.3 * _SHARE * self.tol / amplification), far)

    @property
    def kink_kernel(self) -> tuple[int, float]:
        """Order and width of the kernel that rounds kinks on surfaces."""
        return _FINE_KERNEL if self.tol < _ROUGH_TOL else _ROUGH_KERNEL

    def kink_width(self, positions: _Array, weights: _Array, width: float) -> float:
        """Return the width of that kernel for a density of atoms of a width.

        Where densities nearly cancel, it has to be small.
        """
        return self.kink_kernel[1] * _balance(positions, weights, width)

    def kink_step(self, rounding: float, distances: _Array) -> float:
        r"""Return the step that samples the rounded kinks of a density, in widths.

        Between atoms of opposite signs at a distance R, in widths, the density divided
        by the sum of its moduli is :math:`\tanh(R x / 2)`. Its kink is rounded with a
        kernel of width `rounding`. There, the density is down to :math:`e^{-R^2 / 8}`.
        """
        share = np.minimum(
            _SHARE * self.tol * np.exp(LEAST_EXPONENT * distances**2 / 8), 0.5
        )
        frequency = np.sqrt(2 * gammainccinv(self.kink_kernel[0], share))
        steps = 2 * pi * 2 * rounding / (distances * frequency)
        return float(steps.min(initial=_LARGEST_STEP))

    def coarse_step(self, degree: int, width: float, next_scale: float) -> float:
        """Return the step of smoothed fields, of a width before, for order 2.

        `next_scale` is the scale of the wavelets that they meet. All are lengths.
        """
        decay = 0.0
        if degree > 0:
            table = _PLANE_SOFT if self.dimension == 2 else _SOFT
            _, decay = table[1][min(degree, 4) - 1]
            decay *= min(self.softness / _SOFTNESS, 1.0) ** _SOFTNESS_POWER[1]
            decay /= 2 * pi
        share = _ALIAS_SHARE * self.tol
        step = _coarse_step(degree, width / next_scale, decay, share)
        return step * next_scale

    @property
    def coarse_stretch(self) -> float:
        """How much larger the step of the coarse grid is outside of the molecule."""
        return 1.15 if self.tol >= 1e-4 else 1.0

    def coarse_margin(self, degree: int, ratio: float) -> float:
        """Return how far the coarse grid reaches beyond the atoms, in widths.

        `ratio` is the width of the fields before they are smoothed, in scales of the
        wavelets that they meet. Of fields much smaller than the wavelets, all that is
        left is their integral.
        """
        far = 0.8 * self.margin(degree) + 1.0
        share = min(sqrt(self.tol), 1e-2) / 3 if ratio > 0.25 else _SHARE * self.tol
        return max(_tail(degree, share), far)


def _balance(positions: _Array, weights: _Array, width: float) -> float:
    """Largest ratio of a density and the sum of its moduli, at the atoms."""
    squares = squareform(pdist(positions, "sqeuclidean"))
    gaussians = np.exp(-squares / (2 * width**2))
    ratio = np.abs(gaussians @ weights) / (gaussians @ np.abs(weights))
    return float(ratio.max())


def check_signs(
    molecule: int, positions: _Array, weights: _Array, transform: Transform
) -> None:
    """Raise if densities of both signs cannot be integrated.

    Parameters
    ----------
    molecule : int
        Index, for the message.
    positions : ndarray of shape (n_atoms, 3)
    weights : ndarray of shape (n_channels, n_atoms)
    transform : Transform

    Raises
    ------
    ValueError
        The message names the molecule, and says what to change.
    """
    scales = [path.scales[0] for path in transform.paths if path.scales]
    width = transform.sigma * (hypot(1, 2 ** max(scales)) if scales else 1)
    for channel in np.flatnonzero(
        (weights.min(axis=1) < 0) & (weights.max(axis=1) > 0)
    ):
        if transform.signed and transform.softening == 0:
            raise ValueError(
                f"Molecule {molecule} has weights of both signs in channel {channel}, "
                "and mixed moments of such a density need a softening. Choose "
                "softening > 0 or mixed_moments=False."
            )
        left = _balance(positions, weights[channel], width)
        if left < _LEAST_BALANCE:
            raise ValueError(
                f"Molecule {molecule}: in channel {channel}, weights of both signs "
                f"nearly cancel at the largest scale ({left:.1g} of their sum is left; "
                f"the least is {_LEAST_BALANCE:g}). Choose a smaller J or sigma, or "
                "other weights."
            )


@cache
def _margin(degree: int, share: float, softness: float) -> float:
    q = LEAST_EXPONENT
    margin = sqrt(2 / q * gammainccinv((3 + degree * q) / 2, share))
    if softness > 0:
        # Where the field is small, q / 2 eps^(q - 2) U^2 is left of U^q. Among the
        # atoms, where fields cancel, the squares are smaller than around them. In order
        # 2, a smooth modulus has little of a high degree, and the edge of a box more.
        share *= _SQUARES / max(q / 2 * softness ** (q - 2), 1.0) * _DECAY**degree
        margin = min(margin, sqrt(gammainccinv(1.5 + degree, share)))
    return margin


@cache
def _tail(degree: int, share: float) -> float:
    r"""Distance at which :math:`r^l e^{-r^2/2}` is down to a share of its maximum."""

    def drop(r: float) -> float:
        rise = degree / 2 * log(r * r * e / degree) if degree else 0.0
        return r * r / 2 - rise

    return _bisect(lambda r: drop(r) > -log(share), sqrt(degree) + 0.1, 40.0)


@cache
def _coarse_step(degree: int, width: float, decay: float, share: float) -> float:
    r"""Largest step at which aliases are a share of the signal, in scales of order 2.

    The spectrum of a field of order 1 falls like :math:`e^{-t^2 k^2 / 2}`; what is left
    of kinks adds about :math:`2 (k t)^{-4} e^{-d k t}`. It is multiplied with that of
    the smoothing Gaussian, of width :math:`\tau`. The spectrum of the wavelet falls
    like :math:`(b k)^l e^{-b^2 k^2 / 2}`. The sampled field has a copy at a distance of
    :math:`K = 2 \pi / h`; where both meet, it adds to the result.
    """
    tau2, b2 = SMOOTHING**2, 1 - SMOOTHING**2
    a2 = tau2 + width**2
    rise = degree / 2 * log(degree / e) if degree else 0.0
    signal = degree / 2 * log(b2 / (a2 + b2)) + rise
    least = -log(share) - signal

    def small(K: float) -> bool:
        k = np.linspace(0.05, 0.95, 60) * K
        wavelet = b2 * k**2 / 2 - degree / 2 * np.log(b2 * k**2)
        smooth = wavelet + a2 * (K - k) ** 2 / 2
        x = (K - k) * width
        kinks = wavelet + tau2 * (K - k) ** 2 / 2 + decay * x
        kinks += 4 * np.log(np.maximum(x, 1.0)) - log(2)
        return bool(min(smooth.min() + log(3), kinks.min()) > least)

    return 2 * pi / _bisect(small, 0.1, 100.0)


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Find where a condition that holds at `high` begins to hold."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def exponent_classes(exponents: NDArray[np.float64]) -> list[tuple[float, _Indices]]:
    """Group exponents that share a grid, whichever others are asked for.

    Returns
    -------
    list of (float, ndarray of int)
        The largest exponent of a class (4, 8, 16, ...), and indices of those in it.
    """
    largest = 2.0 ** np.maximum(np.ceil(np.log2(exponents)), 2)
    return [(float(q), np.flatnonzero(largest == q)) for q in np.unique(largest)]


def weight_classes(
    weights: _Array, softening: float, most: float = _SOFTNESS
) -> list[tuple[float, bool, _Indices]]:
    """Group channels that share a grid, whichever others are asked for.

    Parameters
    ----------
    weights : ndarray of shape (n_channels, n_atoms)
    softening : float
    most : float
        Larger softness is of no use.

    Returns
    -------
    list of (float, bool, ndarray of int)
        The softness of a class, whether there are weights of both signs, and indices
        of the channels in it. Those with weights of both signs are alone.
    """
    groups: dict[tuple[float, int], list[int]] = {}
    extremes = weights.min(axis=1).tolist(), weights.max(axis=1).tolist()
    for channel, (least, largest) in enumerate(zip(*extremes, strict=True)):
        softness = 0.0
        if softening > 0:
            amplitude = max(-least, largest)
            halvings = ceil(log2(max(most * amplitude / softening, 1.0)))
            softness = most / 2**halvings
        alone = channel if least < 0 < largest else -1
        groups.setdefault((softness, alone), []).append(channel)
    return [
        (softness, alone >= 0, np.array(channels))
        for (softness, alone), channels in groups.items()
    ]


def least_tol(dtype: str, degree: int) -> float:
    """Return the least tolerance that rounding errors keep, up to a degree."""
    return max(_LEAST_TOL[dtype], _ROUNDING[dtype] * cancellation(degree))


def check_accuracy(transform: Transform) -> None:
    """Raise if the tolerance cannot be kept.

    Raises
    ------
    ValueError
        If rounding errors are larger. The message says what to change.
    """
    tol, dtype = transform.tol, transform.dtype
    degree = max(path.degree for path in transform.paths)
    least = least_tol(dtype, degree)
    if tol < least:
        ways = ["a larger tol"]
        ways += ["a smaller L"] * (least > _LEAST_TOL[dtype])
        ways += ["dtype='float64'"] * (dtype == "float32")
        raise ValueError(
            f"tol={tol:g} cannot be kept with dtype={dtype!r} and L={degree}: the "
            f"least is {least:.1g}. Choose {' or '.join(ways)}."
        )
    if transform.engine == "fourier" and tol < _LEAST_FOURIER_TOL:
        raise ValueError(
            f"tol={tol:g} cannot be kept with engine='fourier': the least is "
            f"{_LEAST_FOURIER_TOL:g}. Choose a larger tol, or engine='separable'."
        )
