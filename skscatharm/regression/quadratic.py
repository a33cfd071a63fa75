"""Fit quadratic forms: a convex problem over all products of two coordinates."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular
from sklearn.exceptions import ConvergenceWarning

from skscatharm._threads import one_blas_thread
from skscatharm.regression.polynomial import Polynomial, rescale, stack
from skscatharm.regression.ridge import feasible_penalty
from skscatharm.regression.whitening import Array, Sample, root_mean_square, scale_axes

_Prior = TypeVar("_Prior", bound=Any)  # a NamedTuple

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
    kernel: Array,
    y: Array,
    sample_weight: Array,
    alpha: float,
    left_out: NDArray[np.intp],
    *,
    fit_intercept: bool = True,
) -> tuple[Array, float, Array]:
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
    left_out : ndarray of shape (n_left_out,)
        Samples whose leave-one-out residuals are computed.
    fit_intercept : bool
        Whether b is free. If not, it is 0.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
        Dual coefficients: ``f = kernel @ dual``.
    intercept : float
        The intercept b.
    residuals : ndarray of shape (n_left_out,)
        Target minus prediction of the fit without the sample.
    """
    dual, intercept, freed, factor = _factorise(
        kernel, y, sample_weight, alpha, fit_intercept
    )
    units = np.zeros((len(y), len(left_out)))
    units[left_out, np.arange(len(left_out))] = 1
    half = solve_triangular(factor, units, lower=True, overwrite_b=True)
    inverse = np.einsum("ij,ij->j", half, half)
    precision = sample_weight[left_out] * inverse - freed[left_out]
    return dual, intercept, _residuals(dual[left_out], precision)


def leave_one_out(
    kernel: Array,
    y: Array,
    sample_weight: Array,
    alpha: float,
    *,
    fit_intercept: bool = True,
) -> Array:
    """Compute the leave-one-out residuals of all samples, without the fit.

    Parameters
    ----------
    kernel, y, sample_weight, alpha, fit_intercept
        As in `fit_kernel`.

    Returns
    -------
    residuals : ndarray of shape (n_samples,)
        Target minus prediction of the fit without the sample.
    """
    dual, _, freed, factor = _factorise(kernel, y, sample_weight, alpha, fit_intercept)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return _residuals(dual, sample_weight * np.diag(inverse) - freed)


def _residuals(dual: Array, precision: Array) -> Array:
    """Divide dual coefficients by the diagonal of the inverse of the system."""
    return np.asarray(dual / np.maximum(precision, np.finfo(float).tiny))


def _factorise(
    kernel: Array, y: Array, sample_weight: Array, alpha: float, fit_intercept: bool
) -> tuple[Array, float, Array, Array]:
    """Solve for the dual coefficients by a Cholesky factorisation.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
    intercept : float
    freed : ndarray of shape (n_samples,)
        By how much the intercept reduces the diagonal of the inverse of the system.
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
    if not fit_intercept:
        return dual, 0.0, np.zeros(len(y)), factor
    intercept = float(dual.sum() / ones.sum())
    return dual - intercept * ones, intercept, ones**2 / ones.sum(), factor


def fit_kernel_iteratively(
    multiply: Callable[[Array], Array],
    columns: Array,
    landmarks: NDArray[np.int64],
    trace: float,
    y: Array,
    sample_weight: Array,
    alpha: float,
    *,
    fit_intercept: bool = True,
    tol: float = 1e-4,
    max_iter: int = 500,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Array, float]:
    """Solve the problem of `fit_kernel` without the kernel matrix.

    Conjugate gradients run on dual coefficients with sum 0, which removes a free
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
    y, sample_weight, alpha, fit_intercept
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
    unit = fit_intercept * root / np.linalg.norm(root)
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

    return search_prior(_START, _CHOICES, alpha, score)


def search_prior(
    start: _Prior,
    choices: Mapping[str, Sequence[float]],
    alpha: float | None,
    score: Callable[[_Prior], float],
) -> _Prior:
    """Set each parameter in turn to its best candidate, until none changes.

    Parameters
    ----------
    start : NamedTuple
        Where the search starts. One of its fields is `alpha`.
    choices : mapping
        Candidates of each field.
    alpha : float or None
        The only candidate for `alpha`. None searches it too.
    score : callable
        What to minimise.

    Returns
    -------
    best : NamedTuple
    """
    choices, best = dict(choices), start
    if alpha is not None:
        choices["alpha"] = (alpha,)
        best = best._replace(alpha=alpha)
    previous = None
    while best != previous:
        previous = best
        for name, values in choices.items():
            best = min((best._replace(**{name: v}) for v in values), key=score)
    return best


class _QuadraticKernel(NamedTuple):
    """Samples in the coordinates of the linear term and of the products."""

    linear: Array
    coordinates: Array
    curvature: float

    def part(self, rows: NDArray[np.intp]) -> "_QuadraticKernel":
        """Return some samples."""
        return self._replace(
            linear=self.linear[rows], coordinates=self.coordinates[rows]
        )

    def matrix(self, others: "_QuadraticKernel") -> Array:
        """Return the kernel between these samples and others."""
        matrix = self.coordinates @ others.coordinates.T
        matrix **= 2
        matrix *= self.curvature
        matrix += self.linear @ others.linear.T
        return matrix

    def multiply(self, others: "_QuadraticKernel", v: Array) -> Array:
        """Multiply `matrix` by a vector, without the matrix."""
        form = others.coordinates.T @ (v[:, None] * others.coordinates)
        product = self.curvature * np.einsum(
            "ij,ij->i", self.coordinates @ form, self.coordinates
        )
        product += self.linear @ (v @ others.linear)
        return product

    def diagonal(self) -> Array:
        """Return the kernel of each sample with itself."""
        squared_norm = np.einsum("ij,ij->i", self.coordinates, self.coordinates)
        diagonal = np.einsum("ij,ij->i", self.linear, self.linear)
        diagonal += self.curvature * squared_norm**2
        return diagonal


def fit_products(
    white: Array,
    deviations: Array,
    y: Array,
    sample_weight: Array,
    prior: Prior,
    references: NDArray[np.intp],
    random_state: np.random.RandomState,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Polynomial, Array]:
    """Fit a linear form plus all products of two coordinates.

    All products together are one quadratic form. In the basis of its eigenvectors, it
    is a sum of squares, one for each axis.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `ridge.fit_linear`.
    prior : Prior
        Scales and penalty.
    references : ndarray of shape (n_references,)
        Samples whose errors are computed.
    random_state : RandomState
        Draws the samples of the preconditioner.
    progress : callable
        Called after each iteration of the fit.

    Returns
    -------
    polynomial : Polynomial
        Linear form, and squares in descending order of size.
    errors : ndarray of shape (n_references,)
        Errors of the references in a fit without each of them. In the iterative fit, in
        one fit without all of them.
    """
    linear, linear_factors = scale_axes(white, deviations, prior.linear_decay)
    coordinates, factors = scale_axes(white, deviations, prior.product_decay)
    kernel = _QuadraticKernel(linear, coordinates, prior.curvature)

    def iterate(
        kernel: _QuadraticKernel, rows: NDArray[np.intp]
    ) -> tuple[Array, float]:
        landmarks = random_state.permutation(len(rows))[:_PRECONDITIONER_SIZE]
        return fit_kernel_iteratively(
            lambda v: kernel.multiply(kernel, v),
            kernel.matrix(kernel.part(landmarks)),
            landmarks,
            float(sample_weight[rows] @ kernel.diagonal()),
            y[rows],
            sample_weight[rows],
            prior.alpha,
            progress=progress,
        )

    if len(y) <= _DIRECT_SIZE:
        dual, intercept, errors = fit_kernel(
            kernel.matrix(kernel), y, sample_weight, prior.alpha, references
        )
        progress()
    else:
        everything = np.arange(len(y))
        dual, intercept = iterate(kernel, everything)
        others = np.delete(everything, references)
        seen = kernel.part(others)
        own_dual, level = iterate(seen, others)
        unseen = kernel.part(references)
        errors = y[references] - level - unseen.multiply(seen, own_dual)
    coef, directions = np.linalg.eigh(
        prior.curvature * (coordinates.T * dual) @ coordinates
    )
    order = np.argsort(-abs(coef))
    squares = directions.T[order] * factors
    polynomial = Polynomial(
        np.array([intercept]),
        (dual @ linear * linear_factors)[None],
        coef[None, order],
        np.stack([squares, squares], axis=1),
        np.zeros((len(squares), 2)),
    )
    return polynomial, errors


def fit_quadratic(
    sample: Sample,
    alpha: float | None,
    seed: int,
    references: NDArray[np.intp],
    progress: Callable[[], object] = lambda: None,
) -> tuple[Polynomial, Array, Array]:
    """Fit all products of two coordinates to each target, with its own prior.

    Parameters
    ----------
    sample : Sample
        Coordinates and targets.
    alpha : float or None
        Penalty. None chooses it for each target.
    seed : int
        Draws the samples that choose the prior.
    references : ndarray of shape (n_references,)
        Samples whose errors are computed.
    progress : callable
        Called after each fit.

    Returns
    -------
    polynomial : Polynomial
        Linear forms and squares.
    alphas : ndarray of shape (n_targets,)
        The penalties.
    errors : ndarray of shape (n_references, n_targets)
        Errors of the references, in fits that did not see them.
    """
    white, deviations, targets, weight = sample
    share = weight / weight.sum()
    fitted, alphas, errors = [], [], []
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
        polynomial, found = fit_products(
            white, deviations, y, weight, prior, references, random_state, progress
        )
        fitted.append(rescale(polynomial, scale))
        alphas.append(prior.alpha)
        errors.append(scale * found)
    return stack(fitted), np.array(alphas), np.stack(errors, axis=1)
