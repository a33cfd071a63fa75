"""Gaussian processes of targets and derivatives: the problem, its errors, its fit."""

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from sklearn.utils import gen_batches

from skscatharm.regression.cholesky import BlockCholesky
from skscatharm.regression.derivatives import reduce_derivatives
from skscatharm.regression.kernels import (
    Kernel,
    Points,
    covariance,
    without_directions,
)
from skscatharm.regression.whitening import (
    Array,
    Whitening,
    find_whitening,
    root_mean_square,
)

# Samples from which the variance of a function is estimated.
_VARIANCE_SIZE = 1000
# Rows of a block of the kernel matrix, and of the largest one, of 7 GB.
_BLOCK_ROWS, _MAX_ROWS = 1000, 42_000


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

    @property
    def sides(self) -> Array:
        """Targets, then their derivatives."""
        return np.concatenate([self.y, self.slopes])

    def part(self, samples: NDArray[np.intp]) -> Self:
        """Return some samples."""
        rows, points = self.points.rows(samples)
        return self._replace(
            points=points,
            y=self.y[samples],
            slopes=self.slopes[rows],
            weight=self.weight[samples],
        )

    def own_rows(self, samples: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Return the places of each sample in `sides`: its target, its derivatives."""
        n_samples = len(self.y)
        starts = n_samples + self.points.starts
        return [np.r_[i, starts[i] : starts[i + 1]] for i in samples]

    def values(self) -> Self:
        """Return the samples without derivatives."""
        points = without_directions(self.points.positions)
        return self._replace(points=points, slopes=self.slopes[:0])

    def noise(
        self, kernels: Sequence[Kernel], alpha: float, gradient_weight: float
    ) -> Array:
        """Return the variances of the noise of targets, then of derivatives.

        Parameters
        ----------
        kernels : sequence of Kernel
            Their sum is the covariance of the function.
        alpha : float
            Variance of the noise of a target of weight 1, relative to the variance of
            the function over the samples.
        gradient_weight : float
            Weight of squared errors of derivatives, relative to those of targets, in
            squared standard deviations of the targets per mean squared derivative.
        """
        values = alpha * prior_variance(kernels, self.points) / self.weight
        slopes = self.slope_unit**2 / gradient_weight * values
        return np.concatenate([values, slopes[self.points.owners]])


def pose_problem(
    features: Array,
    targets: Array,
    weight: Array,
    derivatives: tuple[Array, Array] | None,
    **whitening_options: float,
) -> tuple[Problem, Whitening, float, float]:
    """Whiten features, and scale targets.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
    targets : ndarray of shape (n_samples,)
    weight : ndarray of shape (n_samples,)
        Positive weights.
    derivatives : tuple of ndarrays or None
        Jacobian of the features, and gradients of the targets.
    **whitening_options
        Of `find_whitening`, with derivatives.

    Returns
    -------
    problem : Problem
    whitening : Whitening
        Map from features to white coordinates.
    mean, scale : float
        Weighted mean of the targets, and root mean square of their deviations from it.
    """
    share = weight / weight.sum()
    mean = float(share @ targets)
    centred = targets - mean
    scale = float(root_mean_square(centred[:, None], share)[0]) or 1.0
    slopes, unit = np.zeros(0), 1.0
    if derivatives is None:
        whitening = find_whitening(features, weight)
        points = without_directions(whitening.coordinates(features))
    else:
        jacobian, gradients = derivatives
        whitening = find_whitening(features, weight, jacobian, **whitening_options)
        reduced = reduce_derivatives(jacobian, gradients, whitening)
        points = Points(
            whitening.coordinates(features),
            reduced.features,
            reduced.owners,
        )
        slopes = reduced.targets / scale
        unit = float(np.sqrt(share[points.owners] @ slopes**2)) or 1.0
    problem = Problem(
        points, whitening.deviations, centred / scale, slopes, weight, unit
    )
    return problem, whitening, mean, scale


def thinned(problem: Problem, random_state: np.random.RandomState) -> Problem:
    """Keep as many derivatives as there is room for in the kernel matrix.

    Each sample keeps the same share of them: those along random directions in the space
    that its directions span.

    Raises
    ------
    ValueError
        If there are too many targets alone.

    Warns
    -----
    UserWarning
        If derivatives are left out.
    """
    n_rows, n_samples = len(problem.sides), len(problem.y)
    if n_rows <= _MAX_ROWS:
        return problem
    advice = "MultilinearRegressor(degree=1) has no such limit"
    if n_samples > _MAX_ROWS:
        raise ValueError(
            f"The kernel matrix of {n_samples} samples would need "
            f"{4e-9 * n_samples**2:.0f} GB. Fit at most {_MAX_ROWS}; {advice}."
        )
    share = (_MAX_ROWS - n_samples) / len(problem.slopes)
    warnings.warn(
        f"{n_samples} samples have {n_rows} targets and independent derivatives. The "
        f"kernel matrix has room for {_MAX_ROWS}, so {share:.0%} of the derivatives of "
        f"each sample are used, along random directions; {advice}.",
        stacklevel=5,
    )
    points = problem.points
    bounds = points.starts
    ends = (share * bounds).astype(np.intp)
    counts = ends[1:] - ends[:-1]
    directions, slopes = [], []
    for count, (first, last) in zip(counts, pairwise(bounds), strict=True):
        normal = random_state.normal(size=(last - first, count))
        mixing = np.linalg.qr(normal).Q.T
        directions.append(mixing @ points.directions[first:last])
        slopes.append(mixing @ problem.slopes[first:last])
    kept = points._replace(
        directions=np.concatenate(directions),
        owners=np.repeat(np.arange(n_samples), counts),
    )
    return problem._replace(points=kept, slopes=np.concatenate(slopes))


def prior_variance(kernels: Sequence[Kernel], points: Points) -> float:
    """Compute the variance over the samples of functions drawn from kernels."""
    step = -(-len(points.positions) // _VARIANCE_SIZE)
    values = without_directions(points.positions[::step])
    matrix = covariance(kernels, values, values)
    variance = np.trace(matrix) / len(matrix) - matrix.mean()
    return max(float(variance), np.finfo(float).eps)


class Errors(NamedTuple):
    """Leave-one-out errors.

    Attributes
    ----------
    values : ndarray of shape (n_samples,)
        Errors of the targets.
    slopes : ndarray of shape (n_samples,)
        Norms of the errors of the derivatives of each sample.
    """

    values: Array
    slopes: Array


def leave_one_out(
    kernels: Sequence[Kernel], problem: Problem, alpha: float, gradient_weight: float
) -> Errors | None:
    """Compute the errors of each sample in a fit without it and its derivatives.

    Parameters
    ----------
    kernels : sequence of Kernel
        Their sum is the covariance of the function.
    problem : Problem
        Few samples: the kernel matrix is inverted.
    alpha, gradient_weight : float
        As in `Problem.noise`.

    Returns
    -------
    errors : Errors or None
        None if the matrix is not positive definite.
    """
    points, n_samples = problem.points, len(problem.y)
    matrix = covariance(kernels, points, points)
    matrix.flat[:: len(matrix) + 1] += problem.noise(kernels, alpha, gradient_weight)
    factor, fault = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if fault:
        return None
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(inverse)
    inverse += np.tril(inverse, -1).T
    # The intercept is free.
    ones = inverse[:, :n_samples].sum(axis=1)
    inverse -= ones[:, None] * (ones / ones[:n_samples].sum())
    dual = inverse @ problem.sides
    errors = Errors(*np.empty((2, n_samples)))
    for i, own in enumerate(problem.own_rows(np.arange(n_samples))):
        left = left_out_errors(inverse[np.ix_(own, own)], dual[own])
        errors.values[i], errors.slopes[i] = left[0], np.linalg.norm(left[1:])
    return errors


def solve_dual(
    kernels: Sequence[Kernel],
    problem: Problem,
    alpha: float,
    gradient_weight: float,
    references: NDArray[np.intp],
    progress: Callable[[], object] = lambda: None,
) -> tuple[Array, float, Array]:
    """Solve for dual coefficients and a free intercept by a Cholesky factorisation.

    Parameters
    ----------
    kernels : sequence of Kernel
        Their sum is the covariance of the function.
    problem : Problem
    alpha, gradient_weight : float
        As in `Problem.noise`.
    references : ndarray of shape (n_references,)
        Samples whose leave-one-out errors are computed.
    progress : callable
        Called after each block row.

    Returns
    -------
    dual : ndarray of shape (n_samples + n_directions,)
        Coefficients of the values, then of the derivatives.
    intercept : float
    errors : ndarray of shape (n_references,)
        Errors of the targets of the references, each in a fit without the sample and
        its derivatives.

    Raises
    ------
    ValueError
        If alpha is too small for double precision.
    """
    points = problem.points
    n_samples = len(problem.y)
    per_sample = 1 + len(points.owners) // n_samples
    parts = list(gen_batches(n_samples, max(1, _BLOCK_ROWS // per_sample)))
    blocks = [points.part(part) for part in parts]
    noise = problem.noise(kernels, alpha, gradient_weight)
    starts = n_samples + points.starts
    # Rows of each block: its targets, then their derivatives.
    rows = [np.r_[part, starts[part.start] : starts[part.stop]] for part in parts]

    def block(i: int, j: int) -> Array:
        matrix = covariance(kernels, blocks[i], blocks[j])
        if i == j:
            matrix.flat[:: len(matrix) + 1] += noise[rows[i]]
        return matrix

    try:
        factor = BlockCholesky(len(parts), block, progress)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"alpha={alpha:g} is too small: the kernel matrix is not positive definite "
            "in double precision. Choose a larger alpha, or None."
        ) from error
    order = np.concatenate(rows)

    def solve(sides: Array) -> Array:
        solution = np.empty_like(sides)
        solution[order] = factor.solve(sides[order])
        return solution

    sides = np.zeros((len(noise), 2))
    sides[:, 0] = problem.sides
    sides[:n_samples, 1] = 1
    dual, ones = solve(sides).T
    total = ones[:n_samples].sum()
    intercept = dual[:n_samples].sum() / total
    dual = dual - intercept * ones
    errors: list[float] = []
    for part in gen_batches(len(references), max(1, _BLOCK_ROWS // per_sample)):
        groups = problem.own_rows(references[part])
        columns = np.concatenate(groups)
        units = np.zeros((len(noise), len(columns)))
        units[columns, np.arange(len(columns))] = 1
        ends = np.cumsum([len(own) for own in groups])
        for own, inverse in zip(
            groups, np.split(solve(units), ends[:-1], 1), strict=True
        ):
            precision = inverse[own] - np.outer(ones[own], ones[own] / total)
            errors.append(left_out_errors(precision, dual[own])[0])
    return dual, float(intercept), np.array(errors)


def left_out_errors(precision: Array, dual: Array) -> Array:
    """Compute the errors of a sample, from its part of the inverse of the system."""
    return np.asarray(np.linalg.pinv(precision, hermitian=True) @ dual)
