"""Choose scales and penalties by errors of samples that a fit does not see."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from skscatharm._threads import one_blas_thread
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
# Number of parts of the samples that choose a setting together, and number of targets
# and derivatives in each. Small parts find where to search. They prefer larger decays
# than all samples do, so a large part has the last word.
_STAGES = ((3, 1000), (1, 5000))
# With so few rows, more threads would wait for each other, and a wide search is cheap.
_FEW_ROWS = 2000
# Parts need more noise and smaller length scales than all samples. The least noise and
# the largest length scale win among settings whose errors exceed the lowest by at most
# such a part.
_EQUAL = {"alpha": (-1, 0.02), "length_scale": (1, 0.04)}
START = Setting(8.0, 1e-8, 0.35, 1.0)


def select_some(
    problem: Problem, random_state: np.random.RandomState, n_rows: int
) -> Problem:
    """Draw samples with so many targets and derivatives, or two samples at least."""
    n_samples = len(problem.y)
    size = n_rows * n_samples // len(problem.sides)
    return problem.part(np.sort(random_state.permutation(n_samples)[: max(size, 2)]))


def select_parts(
    problem: Problem, random_state: np.random.RandomState
) -> list[list[Problem]]:
    """Draw the parts of each stage of the choice; the last may have all samples."""
    stages: list[list[Problem]] = []
    for n_parts, n_rows in _STAGES:
        if n_rows >= len(problem.sides):
            return [*stages, [problem]]
        stages.append(
            [select_some(problem, random_state, n_rows) for _ in range(n_parts)]
        )
    return stages


def select_setting(
    profile: Profile,
    problem: Problem,
    fixed: Mapping[str, float],
    random_state: np.random.RandomState,
    progress: Callable[[], object] = lambda: None,
) -> Setting:
    """Choose scales and penalty of a stationary kernel.

    Parameters
    ----------
    profile : callable
        Profile of the kernel.
    problem : Problem
        The samples. Parts of them choose if they are many, as the time grows with the
        cube of the number of rows.
    fixed : mapping
        Parameters that are given.
    random_state : RandomState
        Draws the parts.
    progress : callable
        Called after each fit.

    Returns
    -------
    setting : Setting
    """
    grids = {name: grid for name, grid in _GRIDS.items() if name not in fixed}
    if len(problem.slopes) == 0:  # without derivatives, their weight has no effect
        grids.pop("gradient_weight", None)
    start = START._replace(**fixed)
    best = start
    for parts in select_parts(problem, random_state):
        score = cache(partial(_score, profile, parts, progress))
        is_small = len(parts[0].sides) <= _FEW_ROWS
        with one_blas_thread() if is_small else nullcontext():
            # Small parts prefer larger decays, and length scales that go with them. The
            # search changes one parameter at a time, so it might not return from there.
            best = min(start, best, key=score)
            best = search(score, best, grids, 2 if is_small else 1)
    if parts[0] is not problem:
        for name, (step, margin) in _EQUAL.items():
            if name in grids:
                limit = score(best) + margin
                best = _farthest(score, limit, best, name, grids[name], step)
    return best


def _score(
    profile: Profile,
    parts: Sequence[Problem],
    progress: Callable[[], object],
    setting: Setting,
) -> float:
    """Compute the mean over parts of what a choice of a setting minimises."""
    noise = setting.alpha, setting.gradient_weight
    errors = [
        log_error(leave_one_out([setting.kernel(profile, part)], part, *noise), part)
        for part in parts
    ]
    progress()
    return float(np.mean(errors))


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
    score: Callable[[Any], float],
    start: Any,
    grids: Mapping[str, Sequence[float]],
    reach: int = 2,
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
    reach : int
        Number of values on either side that are tried at once.

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
                best = min(_neighbours(best, name, grid, reach), key=score)
    return best


def _neighbours(
    setting: Any, name: str, grid: Sequence[float], reach: int
) -> list[Any]:
    """Return a setting and those up to `reach` steps away on a grid."""
    place = grid.index(getattr(setting, name))
    steps = [sign * step for step in range(1, reach + 1) for sign in (1, -1)]
    return [setting] + [
        setting._replace(**{name: grid[place + step]})
        for step in steps
        if 0 <= place + step < len(grid)
    ]


def _farthest(
    score: Callable[[Any], float],
    limit: float,
    setting: Any,
    name: str,
    grid: Sequence[float],
    step: int,
) -> Any:
    """Change a parameter in steps on its grid, as far as the score has room."""
    place = grid.index(getattr(setting, name)) + step
    while 0 <= place < len(grid):
        other = setting._replace(**{name: grid[place]})
        if score(other) > limit:
            break
        setting, place = other, place + step
    return setting
