r"""Where the fields are sampled: one grid for each molecule, width and degree.

The integrals of powers of a field are sums over the points of a tensor grid. A smooth
field needs few points: the trapezoid rule converges exponentially. What costs points
is the modulus where the field nearly vanishes, where its error falls like the fourth
power of the step. All of that happens among the atoms; outside, the field decays
smoothly, and the grid grows coarser there. The map that stretches it is itself smooth,
which keeps the exponential convergence, and one-dimensional, which keeps the fields
separable.
"""

from math import ceil, hypot, sqrt
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainccinv

__all__ = [
    "SHIFT",
    "Axis",
    "Grid",
    "coarse_grid",
    "coarse_points",
    "fine_grid",
    "fine_step",
    "margin",
    "principal_axes",
    "tensor_grid",
]

_Array = NDArray[np.float64]

# Steps in widths of the field at the tolerance of reference, by order and degree; the
# last is for all higher degrees. Degree 0 has no zeros, and is smooth. Wide fields
# overlap with those of the next atoms: where they cancel, there are more zeros. Their
# grids are small, and so the remedy is cheap.
_REFERENCE = 2.1e-4
_STEPS = {1: (0.65, 0.37, 0.48, 0.43, 0.40), 2: (0.65, 0.46, 0.54, 0.52, 0.40)}
_WIDE_STEPS = {1: (0.65, 0.31, 0.40, 0.32, 0.33), 2: (0.65, 0.40, 0.46, 0.44, 0.37)}
_WIDE = {1: 0.4, 2: 0.7}  # Å
_LARGEST_STEP = 0.65
_EXPONENT = 0.27  # of the tolerance in the step
_OUTER_STEP = 0.85  # at the tolerance of reference
# The same with softened moduli, which have no kinks: their sums converge exponentially.
_SOFT = 4.0  # softening from which this is true; with less, steps are smaller
_SOFT_REFERENCE = 1e-5
_SOFT_STEPS = {1: (0.65, 0.31, 0.31, 0.31, 0.28), 2: (0.65, 0.45, 0.45, 0.45, 0.40)}
_SOFT_EXPONENT = 0.15
_SOFT_OUTER_STEP = 0.6
# The grid begins to stretch this many widths beyond the peaks of the outermost atoms.
_KNEE = 0.5
_SHARPNESS = 0.8  # of the stretch, in points
_COARSE_MARGIN = 6.0
_COARSE_KNEE = 1.5
SHIFT = 0.25  # an atom at the centre is a zero: see to it that no point comes near


class Axis(NamedTuple):
    """Points of a grid along one axis, and their weights as a quadrature rule."""

    points: _Array
    weights: _Array


Grid = tuple[Axis, Axis, Axis]


def principal_axes(positions: _Array) -> _Array:
    """Rotate a molecule into its principal axes, the longest first, about its middle.

    The box around it becomes small, and copies in any orientation become equal up to
    rounding: the signs of the axes follow from the third moments.
    """
    centred = positions - positions.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    rotated = centred @ vectors[:, ::-1]
    rotated *= np.where((rotated**3).sum(axis=0) < 0, -1.0, 1.0)
    return rotated - (rotated.max(axis=0) + rotated.min(axis=0)) / 2


def fine_step(
    order: int, degree: int, width: float, tol: float, softening: float
) -> float:
    """Step among the atoms, in widths of the field."""
    steps = _WIDE_STEPS if width > _WIDE[order] else _STEPS
    step = steps[order][min(degree, 4)]
    if degree > 0:
        step = _scaled(step, _SOFT_STEPS[order][min(degree, 4)], tol, softening)
    return min(step, _LARGEST_STEP)


def _scaled(step: float, soft_step: float, tol: float, softening: float) -> float:
    """Scale steps from their references to a tolerance, and take the larger one."""
    step *= (tol / _REFERENCE) ** _EXPONENT
    soft_step *= (tol / _SOFT_REFERENCE) ** _SOFT_EXPONENT
    return max(step, soft_step * sqrt(min(softening / _SOFT, 1.0)))


def fine_grid(
    positions: _Array,
    order: int,
    degree: int,
    width: float,
    tol: float,
    softening: float,
) -> Grid:
    """Make the grid on which the modulus of a field is integrated.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
        Positions of the atoms, centred on the origin.
    order, degree : int
        Those of the field.
    width : float
        Its width, in the unit of the positions.
    tol, softening : float
        As in :class:`~skscatharm.SolidHarmonicScattering`.

    Returns
    -------
    Grid
    """
    softened = softening if degree > 0 else 0.0
    outer = min(_scaled(_OUTER_STEP, _SOFT_OUTER_STEP, tol, softened), _OUTER_STEP)
    step = fine_step(order, degree, width, tol, softening)
    knee = _KNEE + sqrt(max(degree, 1))
    reach = margin(degree, tol, softening)
    return tensor_grid(positions, width, step, reach, outer, knee)


def margin(degree: int, tol: float, softening: float) -> float:
    r"""Distance from the outermost atoms, in widths, beyond which nothing is left.

    Of the field :math:`r^l e^{-r^2/2}` in a plane, to the least power q = 1/2, a share
    of 1.5e-5 lies outside. All powers of a softened modulus decay like the square of
    the field.
    """
    q = 0.5
    reach = sqrt(2 / q * gammainccinv((2 + degree * q) / 2, 1.5e-5))
    if degree > 0 and softening > 0:
        share = 0.01 * tol * min(softening / _SOFT, 1.0) ** 1.5
        reach = min(reach, sqrt(gammainccinv(1 + degree, share)))
    return reach


def tensor_grid(
    positions: _Array,
    width: float,
    step: float,
    margin: float,
    outer: float,
    knee: float,
) -> Grid:
    r"""Make the three axes of the grid of a molecule that is centred on the origin.

    With :math:`\xi` running over the integers, the points are

    .. math::

        x(\xi) = h \xi + (H - h) \, \delta \,
            [s((\xi - \kappa) / \delta) - s((-\xi - \kappa) / \delta)]

    with s the softplus function: the step is h in the middle and turns to H at
    :math:`|\xi| = \kappa`. The weights are the derivatives.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
        Positions of the atoms.
    width : float
        Width of the field, in the unit of the positions.
    step, margin, outer, knee : float
        Step h among the atoms, reach beyond them, step H far from them, and where
        beyond them it begins to change, in widths.

    Returns
    -------
    Grid
    """
    x, y, z = (
        Axis(*_axis(extent, width, step, margin, outer, knee))
        for extent in np.abs(positions).max(axis=0) / width
    )
    return x, y, z


def coarse_grid(positions: _Array, width: float, scale: float) -> Grid:
    """Make the grid for a smooth field that meets wavelets of at least some scale."""
    step = _coarse_step(width, scale)
    return tensor_grid(
        positions, width, step, _COARSE_MARGIN, 1.15 * step, _COARSE_KNEE
    )


def coarse_points(positions: _Array, width: float, scale: float) -> float:
    """Estimate the number of points of a coarse grid without making it."""
    extents = np.abs(positions).max(axis=0) / width
    return np.prod(2 * (extents + _COARSE_MARGIN) / _coarse_step(width, scale))


def _coarse_step(width: float, scale: float) -> float:
    # It leaves aliases of exp(-22) where the spectra of field and wavelet meet.
    return 1.2 / hypot(1, width / scale)


@numba.njit(cache=True)
def _axis(
    extent: float, width: float, step: float, margin: float, outer: float, knee: float
) -> tuple[_Array, _Array]:
    outer = max(step, outer)
    knee = (extent + knee) / step
    reach = ceil(knee + (extent + margin - knee * step) / outer)
    xi = np.arange(-reach, reach + 1) + SHIFT
    right, left = np.exp((xi - knee) / _SHARPNESS), np.exp((-xi - knee) / _SHARPNESS)
    stretch = _SHARPNESS * (np.log1p(right) - np.log1p(left))
    points = step * xi + (outer - step) * stretch
    weights = step + (outer - step) * (right / (1 + right) + left / (1 + left))
    inside = np.abs(points) <= extent + margin
    return width * points[inside], width * weights[inside]
