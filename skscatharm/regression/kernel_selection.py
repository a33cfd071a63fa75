"""Choose scales and penalty of a kernel by leave-one-out errors."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve

from skscatharm.regression.kernels import (
    Kernel,
    Points,
    Profile,
    matern,
    without_directions,
)
from skscatharm.regression.whitening import Array, decayed

# Grids on which scales and penalties are searched, and where the search starts. Beyond
# their ends, rounding errors would be larger than the noise.
_GRIDS: dict[str, tuple[float, ...]] = {
    "length_scale": tuple(2.0 ** np.arange(-2, 7)),
    "alpha": tuple(10.0 ** np.arange(-8, 3)),
    "decay": (0.2, 0.35, 0.5, 0.65, 0.8, 1.0),
    "gradient_weight": tuple(10.0 ** np.arange(-3, 4)),
}


class Setting(NamedTuple):
    """Scales and penalty of a kernel.

    Attributes
    ----------
    length_scale : float
        Length over which the function varies, in root mean squared norms of the
        coordinates.
    alpha : float
        Variance of the noise of targets, relative to that of the function.
    decay : float
        Coordinates are scaled by this power of their standard deviations.
    gradient_weight : float
        Weight of squared errors of derivatives, relative to those of targets, in
        squared standard deviations of the targets per mean squared derivative.
    """

    length_scale: float
    alpha: float
    decay: float
    gradient_weight: float


START = Setting(16.0, 1e-6, 0.5, 1.0)

# The setting that compares targets and derivatives, which smooths more.
_COARSE = START._replace(alpha=1e-4)
# Samples from which the variance of a function is estimated.
_VARIANCE_SIZE = 1000
# Least correlation of a verdict, and largest ratio that is no other unit.
_CORRELATION, _RATIO = 0.5, 4.0


class Problem(NamedTuple):
    """Targets and derivatives to fit.

    Attributes
    ----------
    points : Points
        White coordinates and directions of the derivatives.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    y : ndarray of shape (n_samples,)
        Targets, with weighted mean 0 and mean square 1.
    slopes : ndarray of shape (n_directions,)
        Derivatives of the targets.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    slope_unit : float
        Root mean square of the derivatives of a sample.
    """

    points: Points
    deviations: Array
    y: Array
    slopes: Array
    weight: Array
    slope_unit: float

    def part(self, samples: NDArray[np.intp]) -> Self:
        """Return some samples."""
        rows, points = self.points.rows(samples)
        return self._replace(
            points=points,
            y=self.y[samples],
            slopes=self.slopes[rows],
            weight=self.weight[samples],
        )

    def values(self) -> Self:
        """Return the samples without derivatives."""
        points = without_directions(self.points.positions)
        return self._replace(points=points, slopes=self.slopes[:0])

    def kernel(self, profile: Profile, setting: Setting) -> Kernel:
        """Return the stationary kernel of a setting."""
        factors = decayed(self.deviations, setting.decay)
        size = np.linalg.norm(factors) or 1.0
        return Kernel(profile, factors / size / setting.length_scale, True)

    def noise(self, variance: float, setting: Setting) -> tuple[Array, Array]:
        """Return the variances of the noise of targets and derivatives.

        Parameters
        ----------
        variance : float
            Variance of the function over the samples.
        setting : Setting
        """
        values = setting.alpha * variance / self.weight
        slopes = self.slope_unit**2 / setting.gradient_weight * values
        return values, slopes[self.points.owners]


def prior_variance(kernel: Kernel, points: Points) -> float:
    """Compute the variance over the samples of functions drawn from the kernel."""
    step = -(-len(points.positions) // _VARIANCE_SIZE)
    values = without_directions(points.positions[::step])
    matrix = kernel.covariance(values, values)
    variance = np.trace(matrix) / len(matrix) - matrix.mean()
    return max(float(variance), np.finfo(float).eps)


def leave_one_out(
    matrix: Array, n_samples: int, owners: NDArray[np.intp], sides: Array
) -> tuple[Array, Array, Array] | None:
    """Compute the errors of each sample in a fit without it.

    Parameters
    ----------
    matrix : ndarray
        Kernel plus noise of values, then of derivatives. It is overwritten.
    n_samples : int
        Number of values.
    owners : ndarray of shape (n_directions,)
        Sample of each derivative, ascending.
    sides : ndarray of shape (n_samples + n_directions,)
        Targets and their derivatives.

    Returns
    -------
    errors : tuple of ndarrays or None
        Errors of the values, norms of the errors of the derivatives of each sample, and
        standard deviations of the errors of the values that a Gaussian process
        expects. None if the matrix is not positive definite.
    """
    factor, fault = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if fault:
        return None
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(inverse)
    inverse += np.tril(inverse, -1).T
    # The intercept is free.
    ones = inverse[:, :n_samples].sum(axis=1)
    inverse -= ones[:, None] * (ones / ones[:n_samples].sum())
    dual = inverse @ sides
    values, slopes = np.empty(n_samples), np.empty(n_samples)
    deviations = np.empty(n_samples)
    bounds = np.searchsorted(owners, np.arange(n_samples + 1)) + n_samples
    for i in range(n_samples):
        own = np.r_[i, bounds[i] : bounds[i + 1]]
        covariances = np.linalg.pinv(inverse[np.ix_(own, own)], hermitian=True)
        errors = covariances @ dual[own]
        values[i], slopes[i] = errors[0], np.linalg.norm(errors[1:])
        deviations[i] = np.sqrt(max(covariances[0, 0], 0.0))
    return values, slopes, deviations


def errors_of(
    profile: Profile, problem: Problem, setting: Setting
) -> tuple[Array, Array, Array] | None:
    """Compute the leave-one-out errors of a setting; see `leave_one_out`."""
    points = problem.points
    kernel = problem.kernel(profile, setting)
    matrix = kernel.covariance(points, points)
    noise = np.concatenate(problem.noise(prior_variance(kernel, points), setting))
    matrix.flat[:: len(matrix) + 1] += noise
    return leave_one_out(
        matrix,
        len(problem.y),
        points.owners,
        np.concatenate([problem.y, problem.slopes]),
    )


def warn_of_disagreement(problem: Problem) -> None:
    """Warn if the derivatives of the target are evidently not derivatives of it.

    A function is fitted to the derivatives alone, and compared with the targets.

    Parameters
    ----------
    problem : Problem
        Few samples.

    Warns
    -----
    UserWarning
        If the function has the opposite sign of the targets, or another scale.
    """
    points, n_samples = problem.points, len(problem.y)
    kernel = problem.kernel(matern, _COARSE)
    matrix = kernel.covariance(points, points)
    _, noise = problem.noise(prior_variance(kernel, points), _COARSE)
    slopes = matrix[n_samples:, n_samples:]
    slopes.flat[:: len(slopes) + 1] += noise
    dual = solve(slopes, problem.slopes, assume_a="pos", check_finite=False)
    found = matrix[:n_samples, n_samples:] @ dual
    share = problem.weight / problem.weight.sum()
    found -= share @ found
    deviation = np.sqrt(share @ found**2)
    if deviation == 0:
        return
    # The targets have mean 0 and mean square 1.
    correlation = share @ (found * problem.y) / deviation
    if correlation < -_CORRELATION:
        warnings.warn(
            "gradients point against the targets: a function fitted to the gradients "
            f"alone has a correlation of {correlation:.2f} with the targets. Gradients "
            "are minus the forces: check the sign.",
            UserWarning,
            stacklevel=3,
        )
    elif correlation > _CORRELATION and not 1 / _RATIO < deviation < _RATIO:
        warnings.warn(
            "Targets and gradients seem to be in different units: a function fitted to "
            f"the gradients alone varies {deviation:.3g} times as much as the targets. "
            "Give both in the same units, such as eV and eV/Å.",
            UserWarning,
            stacklevel=3,
        )


def select_setting(
    profile: Profile,
    problem: Problem,
    fixed: Mapping[str, float],
    progress: Callable[[], object] = lambda: None,
) -> Setting:
    """Choose scales and penalty by leave-one-out errors.

    Minimises the product of the mean absolute error of the targets and the mean norm
    of the errors of their derivatives. Each parameter in turn goes to the best place
    nearby on its grid, as long as that is better.

    Parameters
    ----------
    profile : callable
        Profile of the kernel.
    problem : Problem
        Few samples: the time grows with the cube of the number of rows.
    fixed : mapping
        Parameters that are given.
    progress : callable
        Called after each fit.

    Returns
    -------
    setting : Setting
    """
    has_slopes = len(problem.slopes) > 0

    @cache
    def score(setting: Setting) -> float:
        errors = errors_of(profile, problem, setting)
        progress()
        if errors is None:
            return np.inf
        values, slopes, _ = errors
        result = np.log(problem.weight @ abs(values))
        if has_slopes:
            result += np.log(problem.weight @ slopes)
        return float(result)

    best = START._replace(**fixed)
    free = [
        name
        for name in _GRIDS
        if name not in fixed and (has_slopes or name != "gradient_weight")
    ]
    previous = None
    while best != previous:
        previous = best
        for name in free:
            last = None
            while best != last:
                last = best
                best = min(_neighbours(best, name), key=score)
    return best


def _neighbours(setting: Setting, name: str) -> list[Setting]:
    """Return a setting and those up to two steps away on a grid."""
    grid = _GRIDS[name]
    # The start lies on the grids.
    place = grid.index(getattr(setting, name))
    return [setting] + [
        setting._replace(**{name: grid[other]})
        for step in (1, -1, 2, -2)
        if 0 <= (other := place + step) < len(grid)
    ]
