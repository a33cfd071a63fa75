"""The regressors: sums of products of linear forms of the coefficients."""

import warnings
from collections.abc import Callable
from functools import cache
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state, gen_batches
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from threadpoolctl import threadpool_limits
from tqdm import tqdm

__all__ = ["MultilinearRegressor"]

Array = NDArray[np.float64]

# Principal axes with a smaller deviation, relative to the first, hold only rounding.
_RANK_TOLERANCE = 1e-8
# More samples than this add little to the choice of a prior.
_SELECTION_SIZE = 800
# More cubes than this do not predict better.
_MAX_CUBES = 500
# Up to this number of samples, factorising the kernel matrix is the fastest way.
_DIRECT_SIZE = 8000
# Samples in the preconditioner otherwise.
_PRECONDITIONER_SIZE = 1000
# Samples that are predicted at once.
_BATCH = 1000


class Axes(NamedTuple):
    """Principal axes of a weighted sample with standardised columns.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Weighted mean of the columns.
    whitening : ndarray of shape (n_features, n_axes)
        ``(X - mean) @ whitening`` has uncorrelated columns of variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations along the axes, in descending order.
    """

    mean: Array
    whitening: Array
    deviations: Array


class Prior(NamedTuple):
    """What a polynomial is expected to look like before any target is seen.

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

    @property
    def cubic_curvature(self) -> float:
        """Expected size of the cubes, as in the series of an exponential."""
        return 2 / 3 * self.curvature**2


class Polynomial(NamedTuple):
    """A sum of powers of linear forms of white coordinates.

    Attributes
    ----------
    intercept : float
        Constant term.
    coef : ndarray of shape (n_terms,)
        What the powers are multiplied by.
    forms : ndarray of shape (n_terms, n_axes)
        A linear form for each term.
    powers : ndarray of shape (n_terms,)
        The power that it is raised to.
    """

    intercept: float
    coef: Array
    forms: Array
    powers: NDArray[np.int64]


# What `select_prior` chooses from, and where it starts.
_CHOICES: dict[str, tuple[float, ...]] = {
    "linear_decay": (0.2, 0.35, 0.5, 1.0),
    "product_decay": (0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
    "curvature": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "alpha": tuple(10.0**k for k in range(-9, 4)),
}
_LINEAR_ALPHAS = 10.0 ** np.arange(4, -11, -1)
_START = Prior(0.35, 0.2, 0.01, 1e-6)


def distinct_rows(
    X: Array, Y: Array, sample_weight: Array
) -> tuple[Array, Array, Array]:
    """Merge equal samples, in an order that does not depend on the order given.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.
    Y : ndarray of shape (n_samples, n_targets)
        Targets.
    sample_weight : ndarray of shape (n_samples,)
        Weights. Samples without weight are left out.

    Returns
    -------
    X, Y, sample_weight : ndarrays
        Each different sample once, with the sum of its weights.
    """
    kept = sample_weight > 0
    # Adding 0 turns -0 into 0, so that equal rows have equal bytes.
    rows = np.ascontiguousarray(np.hstack([X, Y])[kept] + 0.0)
    raw = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
    weight = np.zeros(len(first))
    np.add.at(weight, inverse, sample_weight[kept])
    # Contiguous, so that rounding is the same whatever the number of targets.
    X, Y = (np.ascontiguousarray(a) for a in np.hsplit(rows[first], [X.shape[1]]))
    return X, Y, weight


def principal_axes(X: Array, sample_weight: Array) -> Axes:
    """Find the principal axes of the standardised columns.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features. Constant columns get no part in any axis.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.

    Returns
    -------
    axes : Axes
        Without those along which the sample does not vary.
    """
    share = sample_weight / sample_weight.sum()
    mean = share @ X
    centred = X - mean
    deviation = np.sqrt(share @ centred**2)
    varies = deviation > 1e-12 * np.abs(mean)
    scale = np.where(varies, deviation, 1.0)
    centred *= np.sqrt(share)[:, None]
    centred *= varies / scale
    # Squaring the columns into a covariance would lose the smaller half of the digits.
    triangle = np.linalg.qr(centred, mode="r")
    _, singular, directions = np.linalg.svd(triangle, full_matrices=False)
    n_axes = np.count_nonzero(singular > _RANK_TOLERANCE * singular.max(initial=0.0))
    singular = singular[:n_axes]
    whitening = directions[:n_axes].T / singular / scale[:, None]
    return Axes(mean, whitening, singular)


def scale_axes(white: Array, deviations: Array, decay: float) -> tuple[Array, Array]:
    """Scale white coordinates by a power of their deviations.

    Parameters
    ----------
    white : ndarray of shape (n_samples, n_axes)
        Coordinates of variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    decay : float
        The power.

    Returns
    -------
    coordinates : ndarray of shape (n_samples, n_axes)
        Scaled coordinates; the mean of their squared norm is 1.
    factors : ndarray of shape (n_axes,)
        What the columns were multiplied by.
    """
    factors = (deviations / deviations.max(initial=0.0)) ** decay
    factors /= np.linalg.norm(factors)
    return white * factors, factors


def fit_linear(
    white: Array, deviations: Array, y: Array, sample_weight: Array, alpha: ArrayLike
) -> tuple[Array, Array]:
    """Ridge regression on standardised columns, in their principal axes.

    Parameters
    ----------
    white : ndarray of shape (n_samples, n_axes)
        Coordinates along the axes, with weighted mean 0 and variance 1.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    y : ndarray of shape (n_samples,)
        Target, with weighted mean 0.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    alpha : float or array-like of shape (n_alphas,)
        Penalties.

    Returns
    -------
    coef : ndarray of shape (n_axes, n_alphas)
        Coefficients of the white coordinates, one column for each penalty.
    errors : ndarray of shape (n_samples, n_alphas)
        What the fit without a sample gets wrong there.
    """
    total = sample_weight.sum()
    shrunk = 1 / (total + np.atleast_1d(alpha) / deviations[:, None] ** 2)
    coef = shrunk * (white.T @ (sample_weight * y))[:, None]
    leverage = sample_weight[:, None] * (1 / total + white**2 @ shrunk)
    left = np.maximum(1 - leverage, np.finfo(float).eps)
    return coef, (y[:, None] - white @ coef) / left


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


def _penalty(alpha: float, trace: float) -> float:
    # Below it, rounding would make a matrix of this trace indefinite.
    return max(alpha, 1e-13 * trace, np.finfo(float).tiny)


def _factorise(
    kernel: Array, y: Array, sample_weight: Array, alpha: float
) -> tuple[Array, float, Array, Array]:
    root = np.sqrt(sample_weight)
    kernel *= root
    kernel *= root[:, None]
    kernel.flat[:: len(y) + 1] += _penalty(alpha, np.trace(kernel))
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
    alpha = _penalty(alpha, trace)

    def project(v: Array) -> Array:
        return v - unit * (unit @ v)

    def apply(v: Array) -> Array:
        return root * multiply(root * v) + alpha * v

    features = root[:, None] * landmark_features(columns[landmarks], columns)[0]
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


def landmark_features(corner: Array, columns: Array) -> tuple[Array, Array]:
    """Features whose scalar products are the part of a kernel that landmarks span.

    Parameters
    ----------
    corner : ndarray of shape (n_landmarks, n_landmarks)
        The kernel between the landmarks.
    columns : ndarray of shape (n_samples, n_landmarks)
        The kernel between all samples and the landmarks.

    Returns
    -------
    features : ndarray of shape (n_samples, n_landmarks)
        ``features @ triangle.T = columns``.
    triangle : ndarray of shape (n_landmarks, n_landmarks)
        Cholesky factor of `corner`, whose diagonal is raised a little.
    """
    lift = 1e-10 * np.trace(corner) / max(len(corner), 1) + np.finfo(float).tiny
    triangle = np.linalg.cholesky(corner + lift * np.eye(len(corner)))
    return solve_triangular(triangle, columns.T, lower=True).T, triangle


def fit_features(
    features: Array, y: Array, sample_weight: Array, alpha: float
) -> tuple[Array, float]:
    """Ridge regression, where features are few or the samples many.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Features.
    y, sample_weight, alpha
        As in `fit_kernel`, with the kernel ``features @ features.T``.

    Returns
    -------
    coef : ndarray of shape (n_features,)
        ``f = features @ coef``.
    intercept : float
        The intercept b.
    """
    share = sample_weight / sample_weight.sum()
    mean = share @ features
    centred = features - mean
    gram = (centred.T * sample_weight) @ centred
    gram.flat[:: len(gram) + 1] += _penalty(alpha, np.trace(gram))
    coef = cho_solve(cho_factor(gram), centred.T @ (sample_weight * y))
    return coef, float(share @ y - mean @ coef)


def select_prior(
    white: Array,
    deviations: Array,
    y: Array,
    sample_weight: Array,
    degree: int,
    alpha: float | None,
    progress: Callable[[], object] = lambda: None,
) -> Prior:
    """Choose a prior by the mean absolute leave-one-out error.

    One parameter after the other is set to the best of its values, until none changes.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `fit_linear`.
    degree : {2, 3}
        Degree of the polynomial.
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
        products = coordinates @ coordinates.T
        kernel = linear @ linear.T + prior.curvature * products**2
        if degree == 3:
            kernel += prior.cubic_curvature * products**3
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
    n_cubes: int,
    n_components: int | None,
    random_state: np.random.RandomState,
    progress: Callable[[], object] = lambda: None,
) -> Polynomial:
    """Fit a polynomial: a linear form plus squares and cubes of linear forms.

    All products of two coordinates together are one quadratic form, and that is a sum
    of as many squares as there are axes. The cubes are those of the scalar products
    with some of the samples.

    Parameters
    ----------
    white, deviations, y, sample_weight
        As in `fit_linear`.
    prior : Prior
        Scales and penalty.
    n_cubes : int
        Number of cubes before any is left out.
    n_components : int or None
        Number of squares and cubes to keep, the largest. The sum is then fitted again.
    random_state : RandomState
        Draws the samples for the cubes.
    progress : callable
        Called after each iteration of the fit.

    Returns
    -------
    polynomial : Polynomial
        The linear form comes first.
    """
    n_samples, n_axes = white.shape
    linear, linear_factors = scale_axes(white, deviations, prior.linear_decay)
    coordinates, factors = scale_axes(white, deviations, prior.product_decay)
    order = random_state.permutation(n_samples)
    cubes = coordinates[order[:n_cubes]]

    def cube_features(cubes: Array) -> tuple[Array, Array]:
        features, triangle = landmark_features(
            (cubes @ cubes.T) ** 3, (coordinates @ cubes.T) ** 3
        )
        return np.sqrt(prior.cubic_curvature) * features, triangle

    def cube_coef(triangle: Array, coef: Array) -> Array:
        coef = np.sqrt(prior.cubic_curvature) * coef
        return solve_triangular(triangle, coef, lower=True, trans=1)

    features, triangle = cube_features(cubes)

    def kernel_columns(which: slice | NDArray[np.int64]) -> Array:
        columns = coordinates @ coordinates[which].T
        columns **= 2
        columns *= prior.curvature
        columns += linear @ linear[which].T
        columns += features @ features[which].T
        return columns

    def multiply(v: Array) -> Array:
        form = coordinates.T @ (v[:, None] * coordinates)
        product = prior.curvature * np.einsum(
            "ij,ij->i", coordinates @ form, coordinates
        )
        product += linear @ (v @ linear)
        product += features @ (v @ features)
        return product

    if n_samples <= _DIRECT_SIZE:
        dual, intercept = fit_kernel(
            kernel_columns(slice(None)), y, sample_weight, prior.alpha
        )
        progress()
    else:
        landmarks = order[:_PRECONDITIONER_SIZE]
        diagonal = np.einsum("ij,ij->i", linear, linear)
        diagonal += np.einsum("ij,ij->i", features, features)
        squared_norm = np.einsum("ij,ij->i", coordinates, coordinates)
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
    slope = dual @ linear
    square_coef, directions = np.linalg.eigh(
        prior.curvature * (coordinates.T * dual) @ coordinates
    )
    squares = directions.T
    cubic_coef = cube_coef(triangle, dual @ features)

    if n_components is not None and n_components < n_axes + n_cubes:
        square_values = (coordinates @ squares.T) ** 2
        values = np.hstack([square_values, (coordinates @ cubes.T) ** 3])
        share = sample_weight / sample_weight.sum()
        variance = share @ (values - share @ values) ** 2
        size = np.append(square_coef, cubic_coef) ** 2 * variance
        kept = np.zeros(len(size), dtype=bool)
        kept[np.argsort(-size, kind="stable")[:n_components]] = True
        squares, cubes = squares[kept[:n_axes]], cubes[kept[n_axes:]]
        square_features = np.sqrt(prior.curvature) * square_values[:, kept[:n_axes]]
        features, triangle = cube_features(cubes)
        coef, intercept = fit_features(
            np.hstack([linear, square_features, features]),
            y,
            sample_weight,
            prior.alpha,
        )
        slope, square_coef, coef = np.split(coef, [n_axes, n_axes + len(squares)])
        square_coef = np.sqrt(prior.curvature) * square_coef
        cubic_coef = cube_coef(triangle, coef)

    return Polynomial(
        intercept,
        np.concatenate([[1.0], square_coef, cubic_coef]),
        np.vstack([slope * linear_factors, squares * factors, cubes * factors]),
        np.repeat([1, 2, 3], [1, len(squares), len(cubes)]),
    )


def fit_polynomial(
    white: Array,
    deviations: Array,
    y: Array,
    sample_weight: Array,
    degree: int,
    n_components: int | None,
    alpha: float | None,
    random_state: np.random.RandomState,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Polynomial, float]:
    """Fit a polynomial with a prior that suits the data.

    Parameters
    ----------
    white, deviations, sample_weight
        As in `fit_linear`.
    y : ndarray of shape (n_samples,)
        Target, in any units.
    degree, n_components, alpha
        As in `MultilinearRegressor`.
    random_state : RandomState
        Draws the samples for choosing the prior and for the cubes.
    progress : callable
        Called after each fit.

    Returns
    -------
    polynomial : Polynomial
        The polynomial.
    alpha : float
        Its penalty.
    """
    share = sample_weight / sample_weight.sum()
    mean = share @ y
    y = y - mean
    spread = np.sqrt(share @ y**2)
    scale = spread if spread > 1e-12 * abs(mean) else 1.0
    y = y / scale
    if degree == 1:
        alphas = _LINEAR_ALPHAS if alpha is None else np.array([alpha])
        coef, errors = fit_linear(white, deviations, y, sample_weight, alphas)
        best = np.argmin(share @ abs(errors))
        alpha = float(alphas[best])
        polynomial = Polynomial(0.0, np.ones(1), coef.T[[best]], np.ones(1, dtype=int))
    else:
        chosen = random_state.permutation(len(y))[:_SELECTION_SIZE]
        # The matrices are small: more threads would only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            prior = select_prior(
                white[chosen],
                deviations,
                y[chosen],
                sample_weight[chosen],
                degree,
                alpha,
                progress,
            )
        alpha = prior.alpha
        polynomial = fit_products(
            white,
            deviations,
            y,
            sample_weight,
            prior,
            min(_MAX_CUBES, len(y)) if degree == 3 else 0,
            n_components,
            random_state,
            progress,
        )
    intercept = mean + scale * polynomial.intercept
    return polynomial._replace(intercept=intercept, coef=scale * polynomial.coef), alpha


def multilinear(
    polynomial: Polynomial, axes: Axes, degree: int
) -> tuple[float, Array, Array, Array]:
    """Write a polynomial of white coordinates as products of forms of the features.

    Parameters
    ----------
    polynomial : Polynomial
        The polynomial.
    axes : Axes
        The axes of the white coordinates.
    degree : int
        Number of factors in each product.

    Returns
    -------
    intercept : float
        Constant term.
    coef : ndarray of shape (n_terms,)
        Factors of the products.
    weights : ndarray of shape (n_terms, degree, n_features)
        Weights of the features in each factor; zeros where a factor is 1.
    offsets : ndarray of shape (n_terms, degree)
        Offsets of the factors.
    """
    intercept, coef, forms, powers = polynomial
    norms = np.linalg.norm(forms, axis=1)
    forms = forms / np.where(norms > 0, norms, 1.0)[:, None]
    coef = coef * norms**powers
    order = np.lexsort([-abs(coef), powers])
    coef, forms, powers = coef[order], forms[order], powers[order]
    used = powers[:, None] > np.arange(degree)
    features = forms @ axes.whitening.T
    weights = used[:, :, None] * features[:, None, :]
    offsets = np.where(used, -(features @ axes.mean)[:, None], 1.0)
    return intercept, coef, weights, offsets


def evaluate_multilinear(
    X: Array, intercept: float, coef: Array, weights: Array, offsets: Array
) -> Array:
    """Evaluate a sum of products of linear forms.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.
    intercept, coef, weights, offsets
        As `multilinear` returns them.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Values.
    """
    # Terms with few factors come first: what is constant before the first that is not.
    varies: NDArray[np.bool_] = np.any(weights, axis=2)
    starts = [int(v.argmax()) if v.any() else len(coef) for v in varies.T]
    scale = coef.copy()
    for t, start in enumerate(starts):
        scale[:start] *= offsets[:start, t]
    # A power needs its form only once.
    repeats = [
        start >= starts[0]
        and np.array_equal(weights[start:, t], weights[start:, 0])
        and np.array_equal(offsets[start:, t], offsets[start:, 0])
        for t, start in enumerate(starts)
    ]
    values = np.empty(len(X))
    for rows in gen_batches(len(X), _BATCH):
        first = X[rows] @ weights[:, 0].T + offsets[:, 0]
        products = np.tile(scale, (len(first), 1))
        for t, start in enumerate(starts):
            if repeats[t]:
                products[:, start:] *= first[:, start:]
            else:
                factor = X[rows] @ weights[start:, t].T
                products[:, start:] *= factor + offsets[start:, t]
        values[rows] = intercept + products.sum(axis=1)
    return values


class MultilinearRegressor(RegressorMixin, BaseEstimator):
    r"""Regression by sums of products of linear forms.

    A target is predicted from features x by

    .. math::

        y = b + \sum_{r} \nu_r \prod_{t=1}^{T}
        \big( \langle w_{rt}, x \rangle + c_{rt} \big) ,

    which is linear for T = 1, bilinear for T = 2 and trilinear for T = 3 [1]_. One term
    is a linear form, multiplied by forms that are 1; the others are products of two
    linear forms and, with T = 3, of three.

    The features are standardised and turned to their principal axes. These are whitened
    in part, which brings out the small differences between strongly correlated
    features: the coordinate along axis k, with standard deviation
    :math:`\sigma_k`, is scaled to deviation :math:`\sigma_k^p`, where p is one number
    for the linear term and another one for the products. Then

    .. math:: \sum_i \omega_i \, (y_i - f(x_i))^2 / \sigma_y^2
        + \alpha \, |f|^2

    is minimised over *all* polynomials of degree T = 2, a convex problem, with a
    penalty on the squared coefficients of the linear term and, divided by an expected
    size, of all products of two coordinates. The solution is a quadratic form, and
    thus has at most as many products as there are features. The third
    degree adds cubes of linear forms. The powers p, the expected size and
    :math:`\alpha` are those with the least mean absolute leave-one-out error on some
    hundreds of samples.

    Parameters
    ----------
    degree : {1, 2, 3}, default=2
        Number T of factors in a product.
    n_components : int or None, default=None
        Largest number of products beside the linear form. The products that contribute
        most are kept, and their coefficients and the linear form fitted again. None
        keeps all: as many as features, and 500 more with ``degree=3``.
    alpha : float or None, default=None
        Strength of the penalty. None chooses it, for each target. With ``degree=1`` it
        is the one of :class:`~sklearn.linear_model.Ridge` after a
        :class:`~sklearn.preprocessing.StandardScaler`; otherwise coordinates are scaled
        to a mean squared norm of 1 and targets to variance 1.
    random_state : int, RandomState instance or None, default=None
        Draws the samples on which the powers and penalties are chosen, where there are
        more than 800, and those in the cubes. The rest is deterministic.
    verbose : int, default=0
        Show a progress bar if not 0.

    Attributes
    ----------
    intercept_ : float or ndarray of shape (n_targets,)
        The intercept b. An array where y is 2-D, like the following.
    coef_ : ndarray of shape (n_terms,) or (n_targets, n_terms)
        Factors :math:`\nu` of the products. The linear forms have mean 0 and variance 1
        on the training data, so the coefficients can be compared. The first belongs to
        the linear form; those of the products of two forms follow, and those of three,
        each in descending order of size.
    weights_ : ndarray of shape (n_terms, T, n_features)
        Weights w of the features; of shape (n_targets, n_terms, T, n_features) where y
        is 2-D.
    offsets_ : ndarray of shape (n_terms, T) or (n_targets, n_terms, T)
        Offsets c.
    alpha_ : float or ndarray of shape (n_targets,)
        The penalty that was used.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X has names that are all strings.

    Raises
    ------
    ValueError
        If X or y has NaN or infinite entries, or no sample has a positive weight.

    See Also
    --------
    SolidHarmonicScattering : Coefficients of molecules to predict from.

    Notes
    -----
    Several targets are fitted one by one, each as if it was the only one. A sample with
    weight 2 counts as two samples, and the order of samples does not matter.

    Up to 8,000 samples, a kernel matrix is factorised. With more, the same problem is
    solved by preconditioned conjugate gradients, in memory and time that grow in
    proportion to the number of samples.

    References
    ----------
    .. [1] M. Eickenberg, G. Exarchakis, M. Hirn, S. Mallat, L. Thiry, "Solid harmonic
       wavelet scattering for predictions of molecule properties", J. Chem. Phys. 148,
       241732 (2018). https://doi.org/10.1063/1.5023798

    Examples
    --------
    >>> import numpy as np
    >>> from skscatharm import MultilinearRegressor
    >>> X = np.random.default_rng(0).normal(size=(200, 5))
    >>> y = 3 + X[:, 0] + X[:, 1] * X[:, 2]
    >>> regressor = MultilinearRegressor(degree=2, n_components=2).fit(X, y)
    >>> regressor.predict([[1, 2, 3, 4, 5]]).round(3)
    array([10.])

    A product of two features is a difference of two squares:

    >>> regressor.weights_.shape
    (3, 2, 5)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "degree": [Interval(Integral, 1, 3, closed="both")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        degree: int = 2,
        *,
        n_components: int | None = None,
        alpha: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.degree = degree
        self.n_components = n_components
        self.alpha = alpha
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the polynomial.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples. None means 1 for each.

        Returns
        -------
        self : MultilinearRegressor
            The fitted regressor.
        """
        features, targets = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True
        )
        single = targets.ndim == 1
        targets = targets.reshape(len(features), -1).astype(np.float64)
        weight = _check_sample_weight(
            sample_weight, features, dtype=np.float64, ensure_non_negative=True
        )
        if not weight.any():
            raise ValueError("No sample has a positive weight.")
        features, targets, weight = distinct_rows(features, targets, weight)
        axes = principal_axes(features, weight)
        white = (features - axes.mean) @ axes.whitening
        random_state = check_random_state(self.random_state)
        seed = random_state.randint(np.iinfo(np.int32).max)

        fitted, alphas = [], []
        with tqdm(disable=not self.verbose, unit="fit") as bar:
            for k, target in enumerate(targets.T.copy()):
                bar.set_description(f"target {k + 1} of {targets.shape[1]}")
                polynomial, alpha = fit_polynomial(
                    white,
                    axes.deviations,
                    target,
                    weight,
                    self.degree,
                    self.n_components,
                    self.alpha,
                    np.random.RandomState(seed),
                    bar.update,
                )
                fitted.append(multilinear(polynomial, axes, self.degree))
                alphas.append(alpha)
        parameters = [np.stack(values) for values in zip(*fitted, strict=True)]
        if single:
            parameters = [values[0] for values in parameters]
        self.intercept_, self.coef_, self.weights_, self.offsets_ = parameters
        self.alpha_ = alphas[0] if single else np.array(alphas)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predictions.
        """
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=np.float64)
        parameters: tuple[Any, ...] = (
            self.intercept_,
            self.coef_,
            self.weights_,
            self.offsets_,
        )
        if self.coef_.ndim == 1:
            return evaluate_multilinear(features, *parameters)
        targets = zip(*parameters, strict=True)
        return np.column_stack([evaluate_multilinear(features, *p) for p in targets])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
