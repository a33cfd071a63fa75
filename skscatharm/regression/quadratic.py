"""Fit quadratic forms: a convex problem over all products of two coordinates."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular
from sklearn.exceptions import ConvergenceWarning

from skscatharm._threads import one_blas_thread
from skscatharm.regression.polynomial import Polynomial, rescale, stack
from skscatharm.regression.ridge import feasible_penalty
from skscatharm.regression.whitening import Array, Sample, root_mean_square, scale_axes

# Number of samples that choose the prior. More add little.
_SELECTION_SIZE = 800
# Largest number of samples for which factorising the kernel matrix is fastest.
_DIRECT_SIZE = 8000
# Number of samples in the preconditioner, if there are more.
_PRECONDITIONER_SIZE = 1000


class Prior(NamedTuple):
    """Scales and penalty of a quadratic form.

    Attributes
    ----------
    linear_decay, product_decay : float
        Coordinates are scaled by this power of their standard deviations, in the linear
        term and in the products. 0 keeps white coordinates. 1 gives principal
        components of the standardised features.
    curvature : float
        Expected size of the products, relative to the linear term.
    alpha : float
        Strength of the penalty, relative to the sum of squared errors.
    """

    linear_decay: float
    product_decay: float
    curvature: float
    alpha: float


# Candidates of `select_prior`, and where it starts.
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
    is the norm of the kernel's function space.

    Parameters
    ----------
    kernel : ndarray of shape (n_samples, n_samples)
        Positive semidefinite kernel matrix. It is overwritten.
    y : ndarray of shape (n_samples,)
        Target.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    alpha : float
        Penalty. Raised if it is too small for double precision.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
        Dual coefficients: ``f = kernel @ dual``.
    intercept : float
        The intercept b.
    """
    dual, intercept, _, _ = _factorise(kernel, y, sample_weight, alpha)
    return dual, intercept


def leave_one_out(kernel: Array, y: Array, sample_weight: Array, alpha: float) -> Array:
    """Compute the leave-one-out residuals of `fit_kernel`.

    Parameters
    ----------
    kernel, y, sample_weight, alpha
        As in `fit_kernel`.

    Returns
    -------
    residuals : ndarray of shape (n_samples,)
        Target minus prediction of the fit without the sample.
    """
    dual, _, ones, factor = _factorise(kernel, y, sample_weight, alpha)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    precision = sample_weight * np.diag(inverse) - ones**2 / ones.sum()
    return dual / np.maximum(precision, np.finfo(float).tiny)


def _factorise(
    kernel: Array, y: Array, sample_weight: Array, alpha: float
) -> tuple[Array, float, Array, Array]:
    """Solve for the dual coefficients by a Cholesky factorisation.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
    intercept : float
    ones : ndarray of shape (n_samples,)
        Dual coefficients of a target of ones, without an intercept.
    factor : ndarray of shape (n_samples, n_samples)
        Lower triangular Cholesky factor of the weighted kernel matrix plus penalty.
    """
    root = np.sqrt(sample_weight)
    kernel *= root
    kernel *= root[:, None]
    kernel.flat[:: len(y) + 1] += feasible_penalty(alpha, np.trace(kernel))
    # LAPACK works on the transpose without a copy.
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
    """Solve the problem of `fit_kernel` without the kernel matrix.

    Conjugate gradients run on dual coefficients with sum 0, which removes the
    intercept. The preconditioner is the Nyström approximation from some columns of the
    kernel matrix.

    Parameters
    ----------
    multiply : callable
        Multiplies the kernel matrix by a vector.
    columns : ndarray of shape (n_samples, n_landmarks)
        Some columns of the kernel matrix.
    landmarks : ndarray of shape (n_landmarks,)
        Indices of these columns.
    trace : float
        Trace of the weighted kernel matrix.
    y, sample_weight, alpha
        As in `fit_kernel`.
    tol : float
        Relative norm of the residual at which iterations stop.
    max_iter : int
        Largest number of iterations.
    progress : callable
        Called after each iteration.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
        Dual coefficients: ``f = kernel @ dual``.
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
    # Scalar products of these features are the Nyström approximation.
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
                f"The quadratic form did not converge: after {max_iter} iterations, "
                f"the residual is above {tol:g} of the target. Choose a larger alpha.",
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

    Coordinate search: sets each parameter in turn to its best candidate, until none
    changes.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `ridge.fit_linear`.
    alpha : float or None
        Penalty. None chooses it.
    progress : callable
        Called after each fit.

    Returns
    -------
    prior : Prior
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

    All products together are one quadratic form. In the basis of its eigenvectors, it
    is a sum of squares, one for each axis.

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
        Linear form, and squares in descending order of size.
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
    """Fit all products of two coordinates to each target, with its own prior.

    Parameters
    ----------
    sample : Sample
        Coordinates and targets.
    alpha : float or None
        Penalty. None chooses it for each target.
    seed : int
        Draws the samples that choose the prior.
    progress : callable
        Called after each fit.

    Returns
    -------
    polynomial : Polynomial
        Linear forms and squares.
    alphas : ndarray of shape (n_targets,)
        The penalties.
    """
    white, deviations, targets, weight = sample
    share = weight / weight.sum()
    fitted, alphas = [], []
    # Each target as if it were the only one, in a contiguous array.
    for target in targets.T.copy():
        scale = root_mean_square(target[:, None], share)
        scale[scale == 0] = 1.0
        y = target / scale
        random_state = np.random.RandomState(seed)
        chosen = random_state.permutation(len(y))[:_SELECTION_SIZE]
        # The matrices are small: more threads would wait for each other.
        with one_blas_thread():
            prior = select_prior(
                white[chosen], deviations, y[chosen], weight[chosen], alpha, progress
            )
        polynomial = fit_products(
            white, deviations, y, weight, prior, random_state, progress
        )
        fitted.append(rescale(polynomial, scale))
        alphas.append(prior.alpha)
    return stack(fitted), np.array(alphas)
