"""One grid on which the fields of all paths of a molecule can be integrated.

The engines make a grid for each path. Where fields of all paths are added at the same
points, as in a map of a prediction, there is one grid for all: fine enough among the
atoms for the narrowest fields, and coarser where the widest ones alone are left.
"""

from collections.abc import Sequence
from math import ceil, hypot, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from skscatharm.engine.accuracy import Accuracy
from skscatharm.engine.frame import Frame
from skscatharm.engine.quadrature import KNEE, SHIFT, Axis, Grid
from skscatharm.structures import Structure
from skscatharm.transform.transform import Transform

__all__ = ["shared_grid"]

_Array = NDArray[np.float64]


def shared_grid(structure: Structure, weights: _Array, transform: Transform) -> Grid:
    """Make a grid for the fields of all paths.

    Parameters
    ----------
    structure : Structure
        A molecule. The box around its atoms is centred on the origin.
    weights : ndarray of shape (n_channels, n_atoms)
        Weights of its atoms.
    transform : Transform
        Its paths, exponents and accuracy.

    Returns
    -------
    Grid
    """
    frame = Frame(structure.positions, structure.charges)
    largest = np.abs(weights).max()
    accuracy = Accuracy(
        tol=transform.tol,
        softness=transform.softening / largest if largest else 0.0,
        exponent=max(transform.exponents),
    )
    rules = np.array(
        [
            _rules(path.scales, path.degree, frame, accuracy, transform.sigma)
            for path in transform.paths
        ]
    )
    starts, steps = _levels(rules)
    x, y, z = (
        _axis(extent, starts, steps, rules[:, 3].max(), accuracy.sharpness)
        for extent in np.abs(structure.positions).max(axis=0)
    )
    return x, y, z


def _rules(
    scales: Sequence[int],
    degree: int,
    frame: Frame,
    accuracy: Accuracy,
    sigma: float,
) -> tuple[float, float, float, float]:
    """Return the step of a path, knee, outer step and margin, in Å.

    The field of the path needs the step up to the distance of the knee from the atoms,
    and the outer step up to the margin.
    """
    width = hypot(sigma, *(sigma * 2**j for j in scales))
    order, crowding = max(len(scales), 1), frame.crowding(width)
    return (
        width * float(accuracy.step(order, degree, crowding)),
        width * (KNEE + sqrt(max(degree, 1))),
        width * float(accuracy.outer_step(order, degree, crowding)),
        width * accuracy.margin(degree),
    )


def _levels(rules: _Array) -> tuple[_Array, _Array]:
    """Find the step that all paths allow, by the distance from the atoms.

    Returns
    -------
    starts, steps : ndarray of shape (n_levels,)
        The distances where the steps begin. Both increase.
    """
    inner, knees, outer, margins = rules.T
    starts = np.unique([0.0, *knees, *margins])[:-1]
    at = starts[:, np.newaxis]
    needed = np.where(at < knees, inner, np.where(at < margins, outer, np.inf))
    steps = needed.min(axis=1)
    grows = np.diff(steps, prepend=0.0) > 0
    return starts[grows], steps[grows]


def _axis(
    extent: float, starts: _Array, steps: _Array, margin: float, sharpness: float
) -> Axis:
    r"""Make an axis with steps that grow in levels.

    It is that of :func:`~skscatharm.engine.quadrature.tensor_grid`, with a softplus
    function for each level. `extent` is half of the length of the molecule.
    """
    lengths = np.diff(starts, append=margin)
    lengths[0] += extent
    counts = lengths / steps
    knees = np.cumsum(counts)[:-1, np.newaxis]
    reach = ceil(counts.sum())
    xi = np.arange(-reach, reach + 1) + SHIFT
    right, left = (xi - knees) / sharpness, (-xi - knees) / sharpness
    rise = np.diff(steps)
    points = steps[0] * xi + sharpness * (
        rise @ (np.logaddexp(0, right) - np.logaddexp(0, left))
    )
    weights = steps[0] + rise @ (expit(right) + expit(left))
    inside = np.abs(points) <= extent + margin
    return Axis(points[inside], weights[inside])
