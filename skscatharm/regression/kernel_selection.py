"""Choose scales and penalties by errors of samples that a fit does not see."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from skscatharm.regression.gaussian_process import Errors, Problem, leave_one_out
from skscatharm.regression.kernels import Kernel, Profile
from skscatharm.regression.whitening import decayed


class Setting(NamedTuple):
    """Scales and penalty of a stationary kernel.

    Attributes
    ----------
    length_scale : float
        Length over which the function varies, in root mean squared norms of the
        coordinates.
    alpha, gradient_weight : float
        As in `Problem.noise`.
    decay : float
        Coordinates are scaled by this power of their standard deviations.
    """

    length_scale: float
    alpha: float
    decay: float
    gradient_weight: float

    def kernel(self, profile: Profile, problem: Problem) -> Kernel:
        """Return the kernel."""
        factors = decayed(problem.deviations, self.decay)
        size = np.linalg.norm(factors) or 1.0
        return Kernel(profile, factors / size / self.length_scale, True)


# Grids on which scales and penalties are searched, and where the search starts. Beyond
# their ends, rounding errors would be larger than the noise.
_GRIDS: dict[str, tuple[float, ...]] = {
    "length_scale": tuple(2.0**k for k in range(-2, 6)),
    "alpha": tuple(float(f"1e{k}") for k in range(-8, 3)),
    "decay": (0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0),
    "gradient_weight": tuple(float(f"1e{k}") for k in range(-3, 4)),
}
# Number of targets and derivatives in a part of the samples that chooses a setting, and
# number of parts. One part alone may choose a decay that is wrong for the others.
_SELECTION_ROWS, _N_PARTS = 2000, 3
# Parts need more noise than all samples: errors within 2 % of the lowest are equal
# there, and the least noise wins.
_EQUAL = 0.02
START = Setting(8.0, 1e-7, 0.25, 1.0)


def select_some(problem: Problem, random_state: np.random.RandomState) -> Problem:
    """Draw as many samples as choose a setting."""
    n_samples = len(problem.y)
    size = _SELECTION_ROWS * n_samples // len(problem.sides)
    return problem.part(np.sort(random_state.permutation(n_samples)[: max(size, 2)]))


def select_parts(
    problem: Problem, random_state: np.random.RandomState
) -> list[Problem]:
    """Draw parts that choose a setting together; one if it has all samples."""
    parts = [select_some(problem, random_state)]
    if len(parts[0].y) < len(problem.y):
        parts += [select_some(problem, random_state) for _ in range(_N_PARTS - 1)]
    return parts


def select_setting(
    profile: Profile,
    parts: Sequence[Problem],
    fixed: Mapping[str, float],
    progress: Callable[[], object] = lambda: None,
) -> Setting:
    """Choose scales and penalty of a stationary kernel.

    Parameters
    ----------
    profile : callable
        Profile of the kernel.
    parts : sequence of Problem
        All samples, or several parts of them. Few samples each: the time grows with the
        cube of the number of rows.
    fixed : mapping
        Parameters that are given.
    progress : callable
        Called after each fit.

    Returns
    -------
    setting : Setting
    """

    @cache
    def score(setting: Setting) -> float:
        total = 0.0
        for part in parts:
            kernels = [setting.kernel(profile, part)]
            errors = leave_one_out(
                kernels, part, setting.alpha, setting.gradient_weight
            )
            total += log_error(errors, part)
        progress()
        return total / len(parts)

    grids = {name: grid for name, grid in _GRIDS.items() if name not in fixed}
    if len(parts[0].slopes) == 0:  # without derivatives, their weight has no effect
        grids.pop("gradient_weight", None)
    best: Setting = search(score, START._replace(**fixed), grids)
    if len(parts) > 1 and "alpha" in grids:
        limit = score(best) + _EQUAL
        noises = [best._replace(alpha=alpha) for alpha in grids["alpha"]]
        best = next(setting for setting in noises if score(setting) <= limit)
    return best


def log_error(errors: Errors | None, problem: Problem) -> float:
    """Return the logarithm of what a choice of parameters minimises.

    This is the product of the mean absolute error of the targets and the mean norm of
    the errors of their derivatives.

    Parameters
    ----------
    errors : Errors or None
        Of all samples, each in a fit without the sample. None if there is no such fit.
    problem : Problem
        Has the weights of the samples.
    """
    if errors is None:
        return np.inf
    result = np.log(problem.weight @ abs(errors.values))
    if len(problem.slopes):
        result += np.log(problem.weight @ errors.slopes)
    return float(result)


def search(
    score: Callable[[Any], float], start: Any, grids: Mapping[str, Sequence[float]]
) -> Any:
    """Minimise a score over parameters on grids.

    Each parameter in turn goes to the best place nearby on its grid, as long as that is
    better.

    Parameters
    ----------
    score : callable
        What to minimise, for a setting.
    start : NamedTuple
        First setting, on the grids.
    grids : mapping
        Ascending values of each parameter that is free.

    Returns
    -------
    setting : NamedTuple
        The best setting.
    """
    score = cache(score)
    best, previous = start, None
    while best != previous:
        previous = best
        for name, grid in grids.items():
            last = None
            while best != last:
                last = best
                best = min(_neighbours(best, name, grid), key=score)
    return best


def _neighbours(setting: Any, name: str, grid: Sequence[float]) -> list[Any]:
    """Return a setting and those up to two steps away on a grid."""
    place = grid.index(getattr(setting, name))
    return [setting] + [
        setting._replace(**{name: grid[other]})
        for step in (1, -1, 2, -2)
        if 0 <= (other := place + step) < len(grid)
    ]
