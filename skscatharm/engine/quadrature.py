r"""Where the fields are sampled: one grid for each molecule, width and degree.

The integrals of powers of a field are sums over the points of a tensor grid. A smooth
field needs few points: the trapezoid rule converges exponentially. What costs points
is the modulus where the field nearly vanishes, where its error falls like the fourth
power of the step. All of that happens among the atoms; outside, the field decays
smoothly, and the grid grows coarser there. The map that stretches it is itself smooth,
which keeps the exponential convergence, and one-dimensional, which keeps the fields
separable.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from math import ceil, hypot, inf, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.accuracy import SMOOTHING, Accuracy
from skscatharm.engine.frame import Frame
from skscatharm.transform.transform import COARSE

__all__ = [
    "FAR",
    "KNEE",
    "SHIFT",
    "Axes",
    "Axis",
    "Grid",
    "body_centred_axes",
    "body_centred_grid",
    "body_centred_points",
    "coarse_axes",
    "coarse_grid",
    "coarse_points",
    "coarse_rule",
    "fine_axes",
    "fine_grid",
    "fine_points",
    "kink_grid",
    "kink_step",
    "product_axes",
    "product_grid",
    "product_margin",
    "product_points",
    "stretched_axes",
    "stretched_axis",
    "tensor_grid",
]

_Array = NDArray[np.float64]

# The grid begins to stretch this many widths beyond the peaks of the outermost atoms.
KNEE = 0.5
SHIFT = 0.25  # an atom at the centre is a zero: see to it that no point comes near
_MIRRORED = 0.5  # with this shift, an axis mirrors itself about its origin
# Step of the grids that make a body-centred one, in those of a simple cubic one.
_BODY_CENTRED = 0.95 * sqrt(2)
# In a lattice, how much farther than for the reference the step is small, in Å. Where
# an atom is twice as far, it is small everywhere.
_ROOM = 0.5
# Products of softened moduli, raised to 1 or more, are smoother than low powers of one.
# Where neighbours are at least so many widths apart, steps may be larger, up to this.
_PRODUCT = (2.7, 1.2)
# Low powers of two softened moduli, and high ones at larger tolerances than the first,
# need the steps of a third of the tolerance, and of the second at most.
_PRODUCT_TOL, _PRODUCT_MOST = 2e-5, 3e-4
FAR = 1e6  # where points are that fill up


class Axis(NamedTuple):
    """Points of a grid along one axis, and their weights as a quadrature rule."""

    points: _Array
    weights: _Array

    def part(self, part: slice) -> "Axis":
        """Take a part of the axis."""
        return Axis(self.points[part], self.weights[part])

    def mirrored(self) -> "Axis":
        """Turn the axis about zero."""
        return Axis(-self.points[::-1], np.ascontiguousarray(self.weights[::-1]))


Grid = tuple[Axis, Axis, Axis]


class Axes(NamedTuple):
    """The axes of the grids of several molecules, before points are computed.

    Attributes
    ----------
    width : float
        Width of the fields.
    rules : ndarray of shape (3, n_molecules, 8)
        For each axis, the other arguments of :func:`stretched_axis`.
    n_points : tuple of three ints
        Number of points along each axis of the largest grid.
    """

    width: float
    rules: _Array
    n_points: tuple[int, ...]

    @classmethod
    def of(
        cls,
        extents: _Array,
        width: float,
        step: _Array | float,
        margin: float,
        outer: _Array | float,
        knee: float,
        sharpness: float,
        shift: float = SHIFT,
        origin: _Array | float = 0.0,
    ) -> "Axes":
        """Describe the grids of molecules of some extents, like :func:`tensor_grid`."""
        extents = extents.T / width
        rules = np.broadcast_arrays(
            extents, step, margin, outer, knee, sharpness, shift, origin
        )
        inner = extents + knee
        reach = inner / step + (extents + margin - inner) / np.maximum(step, outer)
        n_points = 2 * np.ceil(reach.max(axis=1)).astype(int)
        return cls(width, np.stack(rules, axis=-1), tuple(n_points.tolist()))


def fine_grid(
    frame: Frame, width: float, order: int, degree: int, accuracy: Accuracy
) -> Grid:
    """Make the grid on which the modulus of a field is integrated.

    Parameters
    ----------
    frame : Frame
        The molecule.
    width : float
        Width of the field, in the unit of the positions.
    order, degree : int
        Those of the field.
    accuracy : Accuracy

    Returns
    -------
    Grid
    """
    origin = _origin(frame.crowding(width), degree, accuracy)
    return _fine_grid(
        frame, width, order, degree, accuracy, shift=_MIRRORED, origin=origin
    )


def body_centred_grid(
    frame: Frame, width: float, order: int, degree: int, accuracy: Accuracy
) -> tuple[Grid, Grid]:
    r"""Make a grid of the same accuracy with fewer points.

    The spectrum of a field falls in all directions alike, and copies of it stand on
    the reciprocal lattice of the grid. In a body-centred one, they are as far as in a
    simple cubic one with :math:`\sqrt 2` times the points. Two simple grids make it:
    the second is the first, turned about the centre.

    The parameters are those of :func:`fine_grid`.

    Returns
    -------
    tuple of two Grids
        The integral is the sum of those over both.
    """
    return _with_mirror(
        _fine_grid(frame, width, order, degree, accuracy, _BODY_CENTRED)
    )


def product_grid(
    frame: Frame,
    widths: Sequence[float],
    degree: int,
    exponents: Sequence[float],
    accuracy: Accuracy,
) -> tuple[Grid, Grid]:
    """Make the grid on which products of two fields of order 1 are integrated.

    Parameters
    ----------
    frame : Frame
        The molecule.
    widths : sequence of float
        Widths of the fields, in ascending order. One of two has the least.
    degree : int
        Largest degree.
    exponents : sequence of float
        The fields are raised to half of them.
    accuracy : Accuracy

    Returns
    -------
    tuple of two Grids
        A body-centred grid, as :func:`body_centred_grid`.
    """
    rule = _product(frame.crowding(widths[0]), widths, degree, exponents, accuracy)
    step, margin, outer, *knee = rule
    return _with_mirror(tensor_grid(frame, widths[0], step, margin, outer, *knee))


def _with_mirror(grid: Grid) -> tuple[Grid, Grid]:
    """Give a grid half of its weight, and the other half to its mirror image."""
    x, y, z = grid
    x = Axis(x.points, x.weights / 2)
    return (x, y, z), (x.mirrored(), y.mirrored(), z.mirrored())


def product_axes(
    extents: _Array,
    crowding: _Array,
    widths: Sequence[float],
    degree: int,
    exponents: Sequence[float],
    accuracy: Accuracy,
) -> Axes:
    """Describe one of the two grids of :func:`product_grid` for several molecules.

    The first two parameters are those of :func:`fine_axes`.
    """
    rule = _product(crowding, widths, degree, exponents, accuracy)
    return Axes.of(extents, widths[0], *rule)


def product_points(
    extents: _Array,
    crowding: _Array,
    widths: Sequence[float],
    degree: int,
    exponents: Sequence[float],
    accuracy: Accuracy,
) -> _Array:
    """Estimate the numbers of points along each axis of :func:`product_axes`."""
    rule = _product(crowding, widths, degree, exponents, accuracy)
    return _n_points(extents / widths[0], *rule)


def product_margin(
    widths: Sequence[float],
    degree: int,
    exponents: Sequence[float],
    accuracy: Accuracy,
) -> float:
    """Return how far grids of products reach beyond the atoms, in the least width."""
    least, ratio = min(exponents), widths[-1] / widths[0]
    of_density = accuracy.product_margin(degree, least, ratio)
    # Other fields fall like their squares, and if they are not alone, faster.
    faster = 1.0
    if accuracy.softness and least >= COARSE:
        faster = sqrt(1 + least / 4 / ratio**2)
    others = (accuracy.margin(d) / faster for d in range(1, degree + 1))
    return max([of_density, *others])


def _product(
    crowding: _Array | float,
    widths: Sequence[float],
    degree: int,
    exponents: Sequence[float],
    accuracy: Accuracy,
) -> tuple[Any, float, Any, float, float]:
    """Step, margin, outer step, knee and sharpness of grids of products."""
    factor: Any = _BODY_CENTRED
    of_steps = accuracy
    if accuracy.softness:
        if min(exponents) < COARSE or accuracy.tol > _PRODUCT_TOL:
            of_steps = replace(accuracy, tol=min(accuracy.tol / 3, _PRODUCT_MOST))
        else:
            factor = factor * np.clip(crowding / _PRODUCT[0], 1, _PRODUCT[1])
    rules = [_fine(crowding, 1, d, of_steps) for d in range(degree + 1)]
    steps, _, outer, knees, _ = zip(*rules, strict=True)
    return (
        factor * reduce(np.minimum, steps),
        product_margin(widths, degree, exponents, accuracy),
        # Far away, densities are as smooth as other fields.
        factor * reduce(np.minimum, outer[min(degree, 1) :]),
        max(knees),
        accuracy.sharpness,
    )


def _fine_grid(
    frame: Frame,
    width: float,
    order: int,
    degree: int,
    accuracy: Accuracy,
    factor: float = 1.0,
    **place: Any,
) -> Grid:
    step, margin, outer, *knee = _fine(frame.crowding(width), order, degree, accuracy)
    largest = accuracy.window_step / width
    step, outer = (factor * min(h, largest) for h in (step, outer))
    return tensor_grid(frame, width, step, margin, outer, *knee, **place)


def _origin(crowding: _Array | float, degree: int, accuracy: Accuracy) -> Any:
    """Return where grids for a field of order 2 mirror themselves, in its width.

    It is a quarter of a step off the centre. In a molecule that mirrors itself about
    its centre, points that are images of each other have the same error.
    """
    return -SHIFT * accuracy.step(2, degree, crowding)


def fine_axes(
    extents: _Array,
    crowding: _Array,
    width: float,
    order: int,
    degree: int,
    accuracy: Accuracy,
) -> Axes:
    """Describe the fine grids of several molecules.

    Parameters
    ----------
    extents : ndarray of shape (n_molecules, 3)
        Half of the lengths of the molecules along the axes.
    crowding : ndarray of shape (n_molecules,)
        Distances of neighbouring atoms in widths.
    width : float
    order, degree : int
    accuracy : Accuracy

    Returns
    -------
    Axes
    """
    rules = _fine(crowding, order, degree, accuracy)
    origin = _origin(crowding, degree, accuracy)
    return Axes.of(extents, width, *rules, _MIRRORED, origin)


def body_centred_axes(
    extents: _Array,
    crowding: _Array,
    width: float,
    order: int,
    degree: int,
    accuracy: Accuracy,
) -> Axes:
    """Describe one of the two grids that make the body-centred ones.

    The other is the first, turned about the centre, and each has half of the weight;
    see :func:`body_centred_grid`. The parameters are those of :func:`fine_axes`.
    """
    step, margin, outer, *knee = _fine(crowding, order, degree, accuracy)
    steps = _BODY_CENTRED * step, margin, _BODY_CENTRED * outer
    return Axes.of(extents, width, *steps, *knee)


def body_centred_points(
    extents: _Array,
    crowding: _Array,
    width: float,
    order: int,
    degree: int,
    accuracy: Accuracy,
) -> _Array:
    """Estimate the numbers of points along each axis of one of the two grids."""
    points = fine_points(extents, crowding, width, order, degree, accuracy)
    return points / _BODY_CENTRED


def fine_points(
    extents: _Array,
    crowding: _Array,
    width: float,
    order: int,
    degree: int,
    accuracy: Accuracy,
) -> _Array:
    """Estimate the numbers of points along each axis of :func:`fine_axes`."""
    return _n_points(extents / width, *_fine(crowding, order, degree, accuracy))


def _n_points(
    extents: _Array,
    step: _Array | float,
    margin: float,
    outer: _Array | float,
    knee: float,
    sharpness: float,
) -> _Array:
    """Estimate the numbers of points along each axis of :func:`tensor_grid`.

    `extents` are those of several molecules, in widths.
    """
    inner = (extents + knee).T / step
    points: _Array = 2 * (inner + (margin - knee) / np.maximum(step, outer))
    return points.T


def _fine(
    crowding: _Array | float, order: int, degree: int, accuracy: Accuracy
) -> tuple[Any, float, Any, float, float]:
    """Step, margin, outer step, knee and sharpness of fine grids."""
    return (
        accuracy.step(order, degree, crowding),
        accuracy.margin(degree),
        accuracy.outer_step(order, degree, crowding),
        KNEE + sqrt(max(degree, 1)),
        accuracy.sharpness,
    )


def kink_grid(
    frame: Frame, weights: _Array, width: float, rounding: float, accuracy: Accuracy
) -> Grid:
    """Make the grid for a density that changes sign.

    `weights`, of shape (n_atoms,), are those of the atoms; `rounding` is the width of
    the kernel that rounds kinks.
    """
    step = kink_step(frame.positions, weights, width, rounding, accuracy)
    step = min(step, accuracy.window_step / width)
    return tensor_grid(frame, width, step, accuracy.margin(0), step, KNEE)


def kink_step(
    positions: _Array,
    weights: _Array,
    width: float,
    rounding: float,
    accuracy: Accuracy,
) -> float:
    """Return the step for a density that changes sign, in widths."""
    opposite = np.sign(weights)[:, np.newaxis] * np.sign(weights) < 0
    distances = squareform(pdist(positions))[opposite] / width
    return min(accuracy.step(1, 0, inf), accuracy.kink_step(rounding, distances))


def coarse_grid(
    frame: Frame, width: float, next_scale: float, degree: int, accuracy: Accuracy
) -> Grid:
    """Make the grid for fields of a width, smoothed for wavelets of some scale."""
    field = hypot(width, next_scale)
    origin = field * _origin(frame.crowding(field), degree, accuracy)
    step, margin, width = coarse_rule(width, next_scale, degree, accuracy)
    outer = accuracy.coarse_stretch * step
    place = {"shift": _MIRRORED, "origin": origin / width}
    return tensor_grid(frame, width, step, margin, outer, KNEE, **place)


def coarse_axes(
    extents: _Array,
    crowding: Callable[[float], _Array],
    width: float,
    next_scale: float,
    degree: int,
    accuracy: Accuracy,
) -> Axes:
    """Describe the coarse grids of several molecules; see :func:`fine_axes`.

    `crowding` is a function of the width of a field.
    """
    field = hypot(width, next_scale)
    origin = field * _origin(crowding(field), degree, accuracy)
    step, margin, width = coarse_rule(width, next_scale, degree, accuracy)
    outer = accuracy.coarse_stretch * step
    rules = step, margin, outer, KNEE, 1.0
    return Axes.of(extents, width, *rules, _MIRRORED, origin / width)


def coarse_points(
    half_lengths: _Array,
    width: float,
    next_scale: float,
    degree: int,
    accuracy: Accuracy,
) -> _Array:
    """Estimate the numbers of points along axes of a coarse grid.

    `half_lengths` are those of molecules along the axes.
    """
    step, margin, width = coarse_rule(width, next_scale, degree, accuracy)
    points: _Array = 2 * (half_lengths / width + margin) / step
    return points


def coarse_rule(
    width: float, next_scale: float, degree: int, accuracy: Accuracy
) -> tuple[float, float, float]:
    """Step and margin for smoothed fields, in their width, and their width."""
    smoothed = hypot(width, SMOOTHING * next_scale)
    step = accuracy.coarse_step(degree, width, next_scale) / smoothed
    return step, accuracy.coarse_margin(degree, width / next_scale), smoothed


def tensor_grid(
    frame: Frame,
    width: float,
    step: float,
    margin: float,
    outer: float,
    knee: float,
    sharpness: float = 1.0,
    shift: float = SHIFT,
    origin: float = 0.0,
) -> Grid:
    r"""Make the three axes of the grid of a molecule that is centred on the origin.

    With :math:`\xi` running over the integers plus a shift, the points are

    .. math::

        x(\xi) = h \xi + (H - h) \, \delta \,
            [s((\xi - \kappa) / \delta) - s((-\xi - \kappa) / \delta)]

    with s the softplus function: the step is h in the middle and turns to H at
    :math:`|\xi| = \kappa`. The weights are the derivatives. The map has poles at
    :math:`\pm i \pi \delta` from there, which add about :math:`e^{-2 \pi^2 \delta}`
    to the error. In a lattice, points stay where they are while atoms move: the
    step turns where it does for the reference.

    Parameters
    ----------
    frame : Frame
        The molecule.
    width : float
        Width of the field, in the unit of the positions.
    step, margin, outer, knee : float
        Step h among the atoms, reach beyond them, step H far from them, and where
        beyond them it begins to change, in widths.
    sharpness : float
        Number :math:`\delta` of points in which it changes.
    shift : float
        Of the points, in steps.
    origin : float
        Where the axes begin, in widths. With a shift of 0.5, they mirror themselves
        about it.

    Returns
    -------
    Grid
    """
    lengths = frame.half_lengths
    knees = np.full(3, knee)
    if frame.is_lattice:
        room = frame.reference_half_lengths + _ROOM - lengths
        knees += room / width
        if room.min() < -_ROOM:
            outer = step
    x, y, z = (
        Axis(
            *stretched_axis(
                extent, width, step, margin, outer, knee, sharpness, shift, origin
            )
        )
        for extent, knee in zip(lengths / width, knees, strict=True)
    )
    return x, y, z


@compile_loops
def stretched_axes(width: float, rules: _Array, n_points: int) -> _Array:
    """Make an axis of several molecules: points and weights.

    Parameters
    ----------
    width, rules, n_points
        Those of :class:`Axes`.

    Returns
    -------
    ndarray of shape (2, n_molecules, n_points)
        Points that fill up have weight zero and are far from everything.
    """
    axes = np.zeros((2, len(rules), n_points))
    axes[0] = FAR
    for i, rule in enumerate(rules):
        extent, step, margin, outer, knee, sharpness, shift, origin = rule
        points, weights = stretched_axis(
            extent, width, step, margin, outer, knee, sharpness, shift, origin
        )
        axes[0, i, : len(points)] = points
        axes[1, i, : len(weights)] = weights
    return axes


@compile_loops
def stretched_axis(
    extent: float,
    width: float,
    step: float,
    margin: float,
    outer: float,
    knee: float,
    sharpness: float,
    shift: float = SHIFT,
    origin: float = 0.0,
) -> tuple[_Array, _Array]:
    """Make an axis of :func:`tensor_grid`: points and weights.

    `extent` is half of the length of the molecule, in widths.
    """
    outer = max(step, outer)
    knee = (extent + knee) / step
    reach = ceil(knee + (extent + margin - knee * step) / outer)
    points, weights = np.empty(2 * reach + 1), np.empty(2 * reach + 1)
    n = 0
    for i in range(-reach, reach + 1):
        xi = i + shift
        right, right_slope = _softplus((xi - knee) / sharpness)
        left, left_slope = _softplus((-xi - knee) / sharpness)
        point = step * xi + (outer - step) * sharpness * (right - left)
        if abs(point) <= extent + margin:
            points[n] = width * (origin + point)
            weights[n] = width * (step + (outer - step) * (right_slope + left_slope))
            n += 1
    return points[:n], weights[:n]


@compile_loops
def _softplus(x: float) -> tuple[float, float]:
    """Return the softplus function and its derivative."""
    small = np.exp(-abs(x))
    share = 1 / (1 + small)
    return max(x, 0.0) + np.log(1 + small), share if x > 0 else small * share
