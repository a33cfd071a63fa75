"""Fit linear and quadratic forms to targets and derivatives: a convex problem."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

from skscatharm._threads import one_blas_thread
from skscatharm.regression.gaussian_process import (
    Errors,
    Problem,
    leave_one_out,
    left_out_errors,
    prior_variance,
    solve_dual,
    thinned,
)
from skscatharm.regression.kernel_selection import log_error, search, select_some
from skscatharm.regression.kernels import Kernel, expand, linear, square
from skscatharm.regression.polynomial import Polynomial
from skscatharm.regression.whitening import Array, scale_axes


class Prior(NamedTuple):
    """Scales and penalty of a form.

    Attributes
    ----------
    linear_decay, product_decay, curvature, alpha : float
        As in `quadratic.Prior`.
    gradient_weight : float
        As in `Problem.noise`.
    """

    linear_decay: float
    product_decay: float
    curvature: float
    alpha: float
    gradient_weight: float

    def kernels(self, problem: Problem) -> list[Kernel]:
        """Return the kernel of linear forms, and that of products unless it is zero."""
        factors, product_factors = (
            scale_axes(problem.points.positions[:0], problem.deviations, decay)[1]
            for decay in (self.linear_decay, self.product_decay)
        )
        kernels = [Kernel(linear, factors, False)]
        if self.curvature > 0:
            kernels.append(Kernel(square, product_factors, False, self.curvature))
        return kernels


# Number of targets and derivatives in the part of the samples that chooses a prior.
_SELECTION_ROWS = 2000
_START = Prior(0.5, 0.25, 0.003, 1e-7, 1.0)
_GRIDS: dict[str, Sequence[float]] = {
    "linear_decay": (0.2, 0.35, 0.5, 0.65, 0.8, 1.0),
    "product_decay": (0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0),
    "curvature": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "alpha": tuple(float(f"1e{k}") for k in range(-9, 4)),
    "gradient_weight": tuple(float(f"1e{k}") for k in range(-3, 4)),
}
_FOLDS = 5  # in which linear forms are cross-validated


def fit_form(
    problem: Problem,
    degree: int,
    alpha: float | None,
    gradient_weight: float | None,
    random_state: np.random.RandomState,
    references: NDArray[np.intp],
    progress: Callable[[], object] = lambda: None,
) -> tuple[Polynomial, Prior, Array]:
    """Fit a linear form, or one with all products of two coordinates.

    Linear forms are fitted in their coefficients, quadratic forms in dual coefficients,
    of which there are fewer.

    Parameters
    ----------
    problem : Problem
        Targets and derivatives.
    degree : int
        1 or 2.
    alpha, gradient_weight : float or None
        As in `Prior`. None chooses them.
    random_state : RandomState
        Draws the samples that choose the prior, or divides them into folds.
    references : ndarray of shape (n_references,)
        Samples whose leave-one-out errors are computed.
    progress : callable
        Called after each fit.

    Returns
    -------
    polynomial : Polynomial
        Polynomial of the white coordinates, in units of the problem.
    prior : Prior
    errors : ndarray of shape (n_references,)
        Errors of the targets of the references, each in a fit without the sample and
        its derivatives.

    Raises
    ------
    ValueError
        If `alpha` is 0, or there are too many targets for a quadratic form.
    """
    if alpha == 0:
        raise ValueError(
            "alpha=0 is too small to learn from derivatives. Choose a larger alpha, "
            "such as 1e-9, or None."
        )
    start, grids, kept = _START, dict(_GRIDS), problem
    if degree == 1:
        start = start._replace(curvature=0.0)
        del grids["product_decay"], grids["curvature"]
    else:
        kept = thinned(problem, random_state)
    for name, value in (("alpha", alpha), ("gradient_weight", gradient_weight)):
        if value is not None:
            start = start._replace(**{name: value})
            del grids[name]
    # The matrices are small: more threads would wait for each other.
    with one_blas_thread():
        if degree == 1:
            some = problem
            unseen = _cross_validation(problem, random_state, progress)
        else:
            some = select_some(problem, random_state, _SELECTION_ROWS)
            unseen = _leave_one_out(some, progress)
        prior: Prior = search(lambda p: log_error(unseen(p), some), start, grids)
    fit = _fit_linear if degree == 1 else _fit_quadratic
    polynomial, errors = fit(kept, prior, references, progress)
    return polynomial, prior, errors


def _leave_one_out(
    problem: Problem, progress: Callable[[], object]
) -> Callable[[Prior], Errors | None]:
    """Return a function that computes the leave-one-out errors of a prior."""

    def unseen(prior: Prior) -> Errors | None:
        kernels = prior.kernels(problem)
        errors = leave_one_out(kernels, problem, prior.alpha, prior.gradient_weight)
        progress()
        return errors

    return unseen


def _cross_validation(
    problem: Problem,
    random_state: np.random.RandomState,
    progress: Callable[[], object],
) -> Callable[[Prior], Errors | None]:
    """Return a function that computes the errors of linear forms on folds.

    All samples take part, as products of columns are computed once. Of a few crystals
    with many atoms, derivatives say more than targets: a choice on these would give too
    little weight to targets.
    """
    n_samples, n_axes = problem.points.positions.shape
    n_folds = min(_FOLDS, n_samples)
    places = random_state.permutation(n_samples) % n_folds
    folds = [np.flatnonzero(places == k) for k in range(n_folds)]
    parts = [problem.part(fold) for fold in folds]
    # The intercept, the axes, and the sides.
    by_value, by_slope = np.zeros((2, n_folds, n_axes + 2, n_axes + 2))
    for k, part in enumerate(parts):
        points = part.points
        rows = np.c_[np.ones(len(part.y)), points.positions, part.y]
        by_value[k] = (rows.T * part.weight) @ rows
        rows = np.c_[np.zeros(len(part.slopes)), points.directions, part.slopes]
        by_slope[k] = (rows.T * part.weight[points.owners]) @ rows
    by_slope /= problem.slope_unit**2
    # Of the samples that are not in a fold.
    by_value, by_slope = (
        by_value.sum(axis=0) - by_value,
        by_slope.sum(axis=0) - by_slope,
    )
    penalty = np.diag(np.r_[0.0, np.ones(n_axes)])

    def unseen(prior: Prior) -> Errors | None:
        kernels = prior.kernels(problem)
        noise = prior.alpha * prior_variance(kernels, problem.points)
        factors = np.r_[1.0, kernels[0].factors]
        errors = Errors(*np.empty((2, n_samples)))
        for k, part in enumerate(parts):
            products = by_value[k] + prior.gradient_weight * by_slope[k]
            products = products[:-1] * (factors[:, None] / noise)
            try:
                factor = cho_factor(products[:, :-1] * factors + penalty)
            except LinAlgError:
                return None
            solution = factors * cho_solve(factor, products[:, -1])
            residuals = part.slopes - part.points.directions @ solution[1:]
            errors.values[folds[k]] = (
                part.y - solution[0] - part.points.positions @ solution[1:]
            )
            errors.slopes[folds[k]] = np.sqrt(
                np.bincount(part.points.owners, residuals**2, len(part.y))
            )
        progress()
        return errors

    return unseen


def _fit_linear(
    problem: Problem,
    prior: Prior,
    references: NDArray[np.intp],
    progress: Callable[[], object],
) -> tuple[Polynomial, Array]:
    """Minimise over the coefficients and the intercept."""
    points = problem.points
    (kernel,) = prior.kernels(problem)
    n_samples, n_axes = points.positions.shape
    noise = problem.noise([kernel], prior.alpha, prior.gradient_weight)
    rows = np.zeros((len(noise) + n_axes, n_axes + 2))
    rows[:n_samples, 0] = 1
    rows[:n_samples, 1:-1] = points.positions * kernel.factors
    rows[n_samples : len(noise), 1:-1] = points.directions * kernel.factors
    rows[: len(noise), -1] = problem.sides
    rows[: len(noise)] /= np.sqrt(noise)[:, None]
    # The penalty.
    rows[len(noise) :, 1:-1] = np.eye(n_axes)
    triangle = np.array(np.linalg.qr(rows, mode="r"))
    corner = triangle[: n_axes + 1, :-1]
    solution = solve_triangular(corner, triangle[: n_axes + 1, -1])
    errors = np.empty(len(references))
    for k, own in enumerate(problem.own_rows(references)):
        seen = solve_triangular(corner, rows[own, :-1].T, trans=1)
        residuals = rows[own, -1] - rows[own, :-1] @ solution
        left = left_out_errors(np.eye(len(own)) - seen.T @ seen, residuals)
        errors[k] = left[0] * np.sqrt(noise[own[0]])
    progress()
    polynomial = Polynomial(
        solution[:1],
        (solution[1:] * kernel.factors)[None],
        np.zeros((1, 0)),
        np.zeros((0, 1, n_axes)),
        np.zeros((0, 1)),
    )
    return polynomial, errors


def _fit_quadratic(
    problem: Problem,
    prior: Prior,
    references: NDArray[np.intp],
    progress: Callable[[], object],
) -> tuple[Polynomial, Array]:
    """Solve for dual coefficients, and find the squares of the quadratic form."""
    kernels = prior.kernels(problem)
    dual, intercept, errors = solve_dual(
        kernels, problem, prior.alpha, prior.gradient_weight, references, progress
    )
    first, second = (expand(kernel, problem.points, dual) for kernel in kernels)
    slope = first.weights @ first.positions + first.slopes.sum(axis=0)
    half = (
        second.positions.T * second.weights / 2 + second.slopes.T
    ) @ second.positions
    coef, directions = np.linalg.eigh(second.kernel.amplitude * (half + half.T))
    order = np.argsort(-abs(coef))
    squares = directions.T[order] * second.kernel.factors
    polynomial = Polynomial(
        np.array([intercept]),
        (slope * first.kernel.factors)[None],
        coef[None, order],
        np.stack([squares, squares], axis=1),
        np.zeros((len(squares), 2)),
    )
    return polynomial, errors
