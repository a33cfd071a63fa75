"""Quadratic forms: all products of two coordinates, as a convex problem."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from skscatharm.regression.polynomial import Polynomial, rescale, stack
from skscatharm.regression.ridge import feasible_penalty
from skscatharm.regression.whitening import Array, Sample, scale_axes

# More samples than this add little to the choice of a prior.
_SELECTION_SIZE = 800
# Up to this number of samples, factorising the kernel matrix is the fastest way.
_DIRECT_SIZE = 8000
# Samples in the preconditioner otherwise.
_PRECONDITIONER_SIZE = 1000


class Prior(NamedTuple):
    """What a quadratic form is expected to look like before any target is seen.

    Attributes
    ----------
    linear_decay, product_decay : float
        Deviations of the principal axes are raised to this power to scale the
        coordinates in the linear term and in the products. 0 treats all axes alike,
        1 is a rotation of the standardised columns.
    curvature : float
        Expected size of the products, relative to the linear term.
    alpha : float
        Strength of the penalty, relative to the sum of squared errors.
    """

    linear_decay: float
    product_decay: float
    curvature: float
    alpha: float


# What `select_prior` chooses from, and where it starts.
_CHOICES: dict[str, tuple[float, ...]] = {
    "linear_decay": (0.2, 0.35, 0.5, 1.0),
    "product_decay": (0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
    "curvature": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "alpha": tuple(10.0**k for k in range(-9, 4)),
}
_START = Prior(0.35, 0.2, 0.01, 1e-6)


def fit_kernel(
    kernel: Array, y: Array, sample_weight: Array, alpha: float
) -> tuple[Array, float]:
    """Fit a penalised function and a free intercept.

    Minimises ``sum(sample_weight * (y - b - f)**2) + alpha * |f|**2``, where ``|f|``
    is the norm that belongs to the kernel.

    Parameters
    ----------
    kernel : ndarray of shape (n_samples, n_samples)
        Positive semidefinite. It is overwritten.
    y : ndarray of shape (n_samples,)
        Target.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    alpha : float
        Penalty. A value too small for the arithmetic is raised.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
        Coefficients of the function, ``f = kernel @ dual``.
    intercept : float
        The intercept b.
    """
    dual, intercept, _, _ = _factorise(kernel, y, sample_weight, alpha)
    return dual, intercept


def leave_one_out(kernel: Array, y: Array, sample_weight: Array, alpha: float) -> Array:
    """Give what `fit_kernel` without a sample gets wrong at this sample.

    Parameters
    ----------
    kernel, y, sample_weight, alpha
        As in `fit_kernel`.

    Returns
    -------
    errors : ndarray of shape (n_samples,)
        Target minus prediction.
    """
    dual, _, ones, factor = _factorise(kernel, y, sample_weight, alpha)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    precision = sample_weight * np.diag(inverse) - ones**2 / ones.sum()
    return dual / np.maximum(precision, np.finfo(float).tiny)


def _factorise(
    kernel: Array, y: Array, sample_weight: Array, alpha: float
) -> tuple[Array, float, Array, Array]:
    root = np.sqrt(sample_weight)
    kernel *= root
    kernel *= root[:, None]
    kernel.flat[:: len(y) + 1] += feasible_penalty(alpha, np.trace(kernel))
    # The transpose is in the order that LAPACK works on without a copy.
    factor, _ = cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    sides = root[:, None] * np.column_stack([y, np.ones(len(y))])
    dual, ones = (root[:, None] * cho_solve((factor, True), sides)).T
    intercept = float(dual.sum() / ones.sum())
    return dual - intercept * ones, intercept, ones, factor


def fit_kernel_iteratively(
    multiply: Callable[[Array], Array],
    columns: Array,
    landmarks: NDArray[np.int64],
    trace: float,
    y: Array,
    sample_weight: Array,
    alpha: float,
    *,
    tol: float = 1e-4,
    max_iter: int = 500,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Array, float]:
    """Fit what `fit_kernel` fits, without the kernel matrix.

    By conjugate gradients on the duals that sum to zero, so that the intercept drops
    out. The part of the kernel that some of the samples span preconditions them.

    Parameters
    ----------
    multiply : callable
        Multiplies the kernel matrix with a vector.
    columns : ndarray of shape (n_samples, n_landmarks)
        Columns of the kernel matrix.
    landmarks : ndarray of shape (n_landmarks,)
        Their indices.
    trace : float
        Trace of the kernel matrix, with the weights.
    y, sample_weight, alpha
        As in `fit_kernel`.
    tol : float
        Relative size of the residual at which to stop.
    max_iter : int
        Largest number of iterations.
    progress : callable
        Called after each iteration.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
        Coefficients of the function, ``f = kernel @ dual``.
    intercept : float
        The intercept b.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` iterations are not enough.
    """
    root = np.sqrt(sample_weight)
    unit = root / np.linalg.norm(root)
    alpha = feasible_penalty(alpha, trace)

    def project(v: Array) -> Array:
        return v - unit * (unit @ v)

    def apply(v: Array) -> Array:
        return root * multiply(root * v) + alpha * v

    corner = columns[landmarks]
    lift = 1e-10 * np.trace(corner) / len(corner) + np.finfo(float).tiny
    triangle = np.linalg.cholesky(corner + lift * np.eye(len(corner)))
    # Features whose scalar products are the part of the kernel that landmarks span.
    features = root[:, None] * solve_triangular(triangle, columns.T, lower=True).T
    spectrum, basis = np.linalg.eigh(features.T @ features)
    rest = alpha + max(trace - spectrum.sum(), 0.0) / len(y)
    shrunk = (basis / (spectrum + rest)) @ basis.T

    def precondition(v: Array) -> Array:
        v = project(v)
        return project(v - features @ (shrunk @ (features.T @ v))) / rest

    solution = np.zeros_like(y)
    residual = project(root * y)
    limit = tol * np.linalg.norm(residual)
    image = np.zeros_like(y)
    direction = step = precondition(residual)
    energy = residual @ step
    n_iter = 0
    while np.linalg.norm(residual) > limit:
        if n_iter == max_iter:
            warnings.warn(
                f"The residual is not below {tol:g} of the target after {max_iter} "
                "iterations. A larger alpha needs fewer.",
                ConvergenceWarning,
                stacklevel=2,
            )
            break
        n_iter += 1
        applied = apply(direction)
        length = energy / (direction @ applied)
        solution += length * direction
        image += length * applied
        residual -= length * project(applied)
        step = precondition(residual)
        previous, energy = energy, residual @ step
        direction = step + energy / previous * direction
        progress()
    intercept = unit @ (root * y - image) / np.linalg.norm(root)
    return root * solution, float(intercept)


def select_prior(
    white: Array,
    deviations: Array,
    y: Array,
    sample_weight: Array,
    alpha: float | None,
    progress: Callable[[], object] = lambda: None,
) -> Prior:
    """Choose a prior by the mean absolute leave-one-out error.

    One parameter after the other is set to the best of its values, until none changes.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `ridge.fit_linear`.
    alpha : float or None
        The penalty, where it is given.
    progress : callable
        Called after each fit.

    Returns
    -------
    prior : Prior
        The best one found.
    """

    @cache
    def score(prior: Prior) -> float:
        linear, _ = scale_axes(white, deviations, prior.linear_decay)
        coordinates, _ = scale_axes(white, deviations, prior.product_decay)
        kernel = linear @ linear.T
        kernel += prior.curvature * (coordinates @ coordinates.T) ** 2
        errors = leave_one_out(kernel, y, sample_weight, prior.alpha)
        progress()
        return float(sample_weight @ abs(errors))

    choices = dict(_CHOICES)
    best = _START
    if alpha is not None:
        choices["alpha"] = (alpha,)
        best = best._replace(alpha=alpha)
    previous = None
    while best != previous:
        previous = best
        for name, values in choices.items():
            best = min((best._replace(**{name: v}) for v in values), key=score)
    return best


def fit_products(
    white: Array,
    deviations: Array,
    y: Array,
    sample_weight: Array,
    prior: Prior,
    random_state: np.random.RandomState,
    progress: Callable[[], object] = lambda: None,
) -> Polynomial:
    """Fit a linear form plus all products of two coordinates.

    All products together are one quadratic form, and that is a sum of as many squares
    as there are axes.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `ridge.fit_linear`.
    prior : Prior
        Scales and penalty.
    random_state : RandomState
        Draws the samples of the preconditioner.
    progress : callable
        Called after each iteration of the fit.

    Returns
    -------
    polynomial : Polynomial
        The linear form, and the squares in descending order of size.
    """
    linear, linear_factors = scale_axes(white, deviations, prior.linear_decay)
    coordinates, factors = scale_axes(white, deviations, prior.product_decay)

    def kernel_columns(which: slice | NDArray[np.int64]) -> Array:
        columns = coordinates @ coordinates[which].T
        columns **= 2
        columns *= prior.curvature
        columns += linear @ linear[which].T
        return columns

    def multiply(v: Array) -> Array:
        form = coordinates.T @ (v[:, None] * coordinates)
        product = prior.curvature * np.einsum(
            "ij,ij->i", coordinates @ form, coordinates
        )
        product += linear @ (v @ linear)
        return product

    if len(y) <= _DIRECT_SIZE:
        dual, intercept = fit_kernel(
            kernel_columns(slice(None)), y, sample_weight, prior.alpha
        )
        progress()
    else:
        landmarks = random_state.permutation(len(y))[:_PRECONDITIONER_SIZE]
        squared_norm = np.einsum("ij,ij->i", coordinates, coordinates)
        diagonal = np.einsum("ij,ij->i", linear, linear)
        diagonal += prior.curvature * squared_norm**2
        dual, intercept = fit_kernel_iteratively(
            multiply,
            kernel_columns(landmarks),
            landmarks,
            float(sample_weight @ diagonal),
            y,
            sample_weight,
            prior.alpha,
            progress=progress,
        )
    coef, directions = np.linalg.eigh(
        prior.curvature * (coordinates.T * dual) @ coordinates
    )
    order = np.argsort(-abs(coef))
    squares = directions.T[order] * factors
    return Polynomial(
        np.array([intercept]),
        (dual @ linear * linear_factors)[None],
        coef[None, order],
        np.stack([squares, squares], axis=1),
        np.zeros((len(squares), 2)),
    )


def fit_quadratic(
    sample: Sample,
    alpha: float | None,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Polynomial, Array]:
    """Fit all products of two coordinates to each target, with a prior that suits it.

    Parameters
    ----------
    sample : Sample
        Coordinates and targets.
    alpha : float or None
        The penalty, where it is given.
    seed : int
        Draws the samples for choosing the prior.
    progress : callable
        Called after each fit.

    Returns
    -------
    polynomial : Polynomial
        The linear forms and the squares.
    alphas : ndarray of shape (n_targets,)
        The penalties.
    """
    white, deviations, targets, weight = sample
    scales = np.sqrt(weight @ targets**2 / weight.sum())
    scales[scales == 0] = 1.0
    fitted, alphas = [], []
    for y in (targets / scales).T.copy():
        # Each target as if it were the only one.
        random_state = np.random.RandomState(seed)
        chosen = random_state.permutation(len(y))[:_SELECTION_SIZE]
        # The matrices are small: more threads would only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            prior = select_prior(
                white[chosen], deviations, y[chosen], weight[chosen], alpha, progress
            )
        fitted.append(
            fit_products(white, deviations, y, weight, prior, random_state, progress)
        )
        alphas.append(prior.alpha)
    return rescale(stack(fitted), scales), np.array(alphas)
