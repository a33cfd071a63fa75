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

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammainccinv

__all__ = [
    "Axis",
    "Grid",
    "coarse_grid",
    "coarse_points",
    "fine_step",
    "margin",
    "principal_axes",
    "tensor_grid",
]

_Array = NDArray[np.float64]

# Steps in widths of the field at the tolerance of reference, by order and degree; the
# last is for all higher degrees. Degree 0 has no zeros, and is smooth.
_REFERENCE = 2e-4
_STEPS = {1: (0.65, 0.37, 0.48, 0.43, 0.40), 2: (0.65, 0.42, 0.48, 0.48, 0.37)}
_LARGEST_STEP = 0.65
# Fields wider than this, in Å, overlap with those of the next atoms: where they cancel,
# there are more zeros. They are coarse, and so the remedy is cheap.
_OVERLAP = 0.4
_OVERLAP_FACTOR = 0.83
_OUTER_STEP = 0.85
_KNEE = 1.5  # widths beyond the outermost atoms where the grid begins to stretch
_SHARPNESS = 0.8  # of the stretch, in points
_COARSE_MARGIN = 6.6
_SHIFT = 0.25  # an atom at the centre is a zero: see to it that no point comes near


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


def fine_step(order: int, degree: int, width: float, tol: float) -> float:
    """Step among the atoms, in widths of the field."""
    step = _STEPS[order][min(degree, 4)]
    if degree > 0:
        step *= (tol / _REFERENCE) ** 0.25
        if order == 1 and width > _OVERLAP:
            step *= _OVERLAP_FACTOR
    return min(step, _LARGEST_STEP)


def margin(degree: int) -> float:
    r"""Distance from the outermost atoms, in widths, beyond which nothing is left.

    Of the field :math:`r^l e^{-r^2/2}` in a plane, to the least power q = 1/2, a share
    of 1.5e-5 lies outside.
    """
    q = 0.5
    return sqrt(2 / q * gammainccinv((2 + degree * q) / 2, 1.5e-5))


def tensor_grid(
    positions: _Array,
    width: float,
    step: float,
    margin: float,
    outer: float = _OUTER_STEP,
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
    step, margin, outer : float
        Step h among the atoms, reach beyond them and step H far from them, in widths.

    Returns
    -------
    Grid
    """
    x, y, z = np.abs(positions).max(axis=0) / width
    return (
        _axis(x, width, step, margin, outer),
        _axis(y, width, step, margin, outer),
        _axis(z, width, step, margin, outer),
    )


def coarse_grid(positions: _Array, width: float, scale: float) -> Grid:
    """Make the grid for a smooth field that meets wavelets of at least some scale."""
    step = _coarse_step(width, scale)
    return tensor_grid(positions, width, step, _COARSE_MARGIN, 1.15 * step)


def coarse_points(positions: _Array, width: float, scale: float) -> float:
    """Estimate the number of points of a coarse grid without making it."""
    extents = np.abs(positions).max(axis=0) / width
    return np.prod(2 * (extents + _COARSE_MARGIN) / _coarse_step(width, scale))


def _coarse_step(width: float, scale: float) -> float:
    # It leaves aliases of exp(-22) where the spectra of field and wavelet meet.
    return 0.94 / hypot(1, width / scale)


def _axis(
    extent: float, width: float, step: float, margin: float, outer: float
) -> Axis:
    outer = max(step, outer)
    knee = (extent + _KNEE) / step
    reach = ceil(knee + (extent + margin - knee * step) / outer)
    xi = np.arange(-reach, reach + 1) + _SHIFT
    right, left = (xi - knee) / _SHARPNESS, (-xi - knee) / _SHARPNESS
    stretch = _SHARPNESS * (np.logaddexp(0, right) - np.logaddexp(0, left))
    points = step * xi + (outer - step) * stretch
    weights = step + (outer - step) * (expit(right) + expit(left))
    inside = np.abs(points) <= extent + margin
    return Axis(width * points[inside], width * weights[inside])
