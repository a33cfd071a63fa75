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
# Number of targets and derivatives that choose a setting. More add little.
_SELECTION_ROWS = 2000
START = Setting(8.0, 1e-7, 0.25, 1.0)


def select_some(problem: Problem, random_state: np.random.RandomState) -> Problem:
    """Draw as many samples as choose a setting."""
    n_samples = len(problem.y)
    size = _SELECTION_ROWS * n_samples // len(problem.sides)
    return problem.part(np.sort(random_state.permutation(n_samples)[: max(size, 2)]))


def select_setting(
    profile: Profile,
    problem: Problem,
    fixed: Mapping[str, float],
    progress: Callable[[], object] = lambda: None,
) -> Setting:
    """Choose scales and penalty of a stationary kernel.

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

    def unseen(setting: Setting) -> Errors | None:
        errors = leave_one_out(
            [setting.kernel(profile, problem)],
            problem,
            setting.alpha,
            setting.gradient_weight,
        )
        progress()
        return errors

    grids = {name: grid for name, grid in _GRIDS.items() if name not in fixed}
    return search(unseen, problem, START._replace(**fixed), grids)


def search(
    unseen: Callable[[Any], Errors | None],
    problem: Problem,
    start: Any,
    grids: Mapping[str, Sequence[float]],
) -> Any:
    """Minimise errors of samples that fits do not see, over parameters on grids.

    Minimises the product of the mean absolute error of the targets and the mean norm
    of the errors of their derivatives. Each parameter in turn goes to the best place
    nearby on its grid, as long as that is better.

    Parameters
    ----------
    unseen : callable
        Maps a setting to the errors of all samples of the problem, each in a fit
        without the sample; to None if there is no such fit.
    problem : Problem
    start : NamedTuple
        First setting, on the grids.
    grids : mapping
        Ascending values of each parameter that is free.

    Returns
    -------
    setting : NamedTuple
        The best setting.
    """
    has_slopes = len(problem.slopes) > 0

    @cache
    def score(setting: Any) -> float:
        errors = unseen(setting)
        if errors is None:
            return np.inf
        result = np.log(problem.weight @ abs(errors.values))
        if has_slopes:
            result += np.log(problem.weight @ errors.slopes)
        return float(result)

    best, previous = start, None
    while best != previous:
        previous = best
        for name, grid in grids.items():
            if name == "gradient_weight" and not has_slopes:
                continue
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
