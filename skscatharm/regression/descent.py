"""Train products of linear forms by stochastic gradient descent."""

from collections.abc import Callable
from functools import reduce
from math import cos, pi, sqrt
from operator import mul
from threading import Event
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm.regression.inputs import to_doubles
from skscatharm.regression.polynomial import Polynomial
from skscatharm.regression.ridge import fit_part
from skscatharm.regression.whitening import Array, Sample, decayed

# Coordinates are scaled by this power of their standard deviations.
_DECAY = 0.35
# Axis k is damped where there are fewer than this number of samples times k, by this
# power of the ratio: other samples have larger coordinates there than those seen, the
# more so the smaller the deviation.
_SAMPLES_PER_AXIS, _FADING = 3, 3
# Standard deviation of the first factors, which have mean 1. Smaller ones stay near the
# linear solution, which is a saddle point.
_SPREAD = 0.25
# Unit of the targets, in mean absolute errors of ridge regression.
_UNIT = 4.0
# Errors well below this number of units are squared in the loss.
_KNEE = 0.02
_MAX_BATCH = 256
_BATCHES = 32  # smallest number in an epoch
# Largest learning rate for this number of steps. It falls with the root of their
# number: small steps find more exact minima, if there are enough to get there.
_STEP, _STEPS = 0.01, 4700
_MAX_STEP = 0.015
_WARM_UP = 0.1  # fraction of the steps in which the learning rate rises
_MOMENTUM, _SECOND_MOMENTUM = 0.9, 0.999


class Training(NamedTuple):
    """Result of one training.

    Attributes
    ----------
    polynomial : Polynomial
        The polynomial of the best epoch, by its error on the samples set apart.
    losses : ndarray of shape (max_epochs,)
        Mean absolute error in each epoch, divided by that of ridge regression.
    validation_errors : ndarray of shape (max_epochs,)
        The same on the samples set apart, after each epoch. NaN if there are none.
    apart : ndarray of shape (n_apart,)
        The samples set apart.
    """

    polynomial: Polynomial
    losses: Array
    validation_errors: Array
    apart: NDArray[np.intp]


class Stopped(Exception):
    """Training was stopped by another thread."""


def train_products(
    sample: Sample,
    alphas: Array,
    errors: Array,
    start: Polynomial | None,
    *,
    degree: int,
    n_products: int,
    max_epochs: int,
    validation_fraction: float,
    random_state: np.random.RandomState,
    xp: Any,
    device: Any,
    progress: Callable[[], object] = lambda: None,
    stop: Event | None = None,
) -> Training:
    """Train a linear form for each target, and products that all targets share.

    Minimises the sum of absolute errors, smoothed near zero. The optimiser is Adam,
    with a learning rate that rises and falls once.

    Parameters
    ----------
    sample : Sample
        Coordinates and targets.
    alphas, errors : ndarrays of shape (n_targets,)
        Penalty and mean absolute error of ridge regression.
    start : Polynomial or None
        First values. None means ridge regression and random products.
    degree : int
        Number of factors in each product.
    n_products : int
        Number of products.
    max_epochs : int
        Number of passes over the samples.
    validation_fraction : float
        Fraction of the samples that is set apart, to choose the best epoch.
    random_state : RandomState
        Draws the samples set apart, the first products and the order of samples.
    xp, device : module, device
        Array library and device for the training.
    progress : callable
        Called after each epoch.
    stop : Event or None
        Training stops after the batch in which another thread sets it.

    Returns
    -------
    training : Training

    Raises
    ------
    Stopped
        If `stop` is set.
    """
    white, deviations, targets, sample_weight = sample
    order = random_state.permutation(len(white))
    n_apart = min(int(np.ceil(validation_fraction * len(white))), len(white) - 1)
    apart, used = order[:n_apart], order[n_apart:]
    # Axes that few samples determine are damped.
    known = len(used) / (_SAMPLES_PER_AXIS * np.arange(1, len(deviations) + 1))
    columns = decayed(deviations, _DECAY) * np.minimum(known, 1.0) ** _FADING
    scales = _Scales(columns, errors)
    if start is not None:
        untrained = start
    else:
        slope, intercept = fit_part(
            white[used] * deviations, targets[used], sample_weight[used], alphas
        )
        start = Polynomial(
            intercept,
            (deviations[:, None] * slope).T,
            *scales.draw(n_products, degree, random_state),
        )
        # The fallback, if no epoch is better: no products.
        untrained = start._replace(coef=np.zeros_like(start.coef))

    def to_device(array: Any) -> Any:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return xp.asarray(array, device=device)

    x, y = to_device(white * scales.columns), to_device(targets / scales.units)
    weight = to_device(sample_weight / sample_weight[used].mean())
    parameters, best = (
        [to_device(p) for p in scales.pack(polynomial)]
        for polynomial in (start, untrained)
    )
    moments = [(xp.zeros_like(p), xp.zeros_like(p)) for p in parameters]

    def select(rows: Any) -> tuple[Any, Any, Any]:
        return xp.take(x, rows, axis=0), xp.take(y, rows, axis=0), xp.take(weight, rows)

    rows, aims, _ = select(to_device(apart))
    # Relative to each other: the weights of these samples may be small beside others.
    weights = to_device(n_apart * (sample_weight[apart] / sample_weight[apart].sum()))

    def validate(parameters: list[Any]) -> float:
        if n_apart == 0:
            return np.nan
        residual, _, _ = _residual(xp, parameters, rows, aims, degree)
        return _UNIT * float(_absolute(xp, residual, weights)) / n_apart

    size = max(1, min(_MAX_BATCH, len(used) // _BATCHES))
    batches = list(gen_batches(len(used), size))
    n_steps = max_epochs * len(batches)
    step = 0
    least = validate(best)
    losses, validation_errors = [], []
    for _ in range(max_epochs):
        shuffled = to_device(random_state.permutation(used))
        loss = 0.0
        for batch in batches:
            gradients, absolute = _gradients(
                xp, parameters, *select(shuffled[batch]), degree
            )
            loss += absolute
            step += 1
            _advance(xp, parameters, gradients, moments, step, n_steps)
            if stop is not None and stop.is_set():
                raise Stopped
        losses.append(_UNIT * float(loss) / len(used))
        validation_errors.append(validate(parameters))
        if n_apart == 0 or validation_errors[-1] <= least:
            least = validation_errors[-1]
            best = [xp.asarray(p, copy=True) for p in parameters]
        progress()
    return Training(
        scales.unpack([to_doubles(p) for p in best], degree),
        np.array(losses),
        np.array(validation_errors),
        apart,
    )


class _Scales:
    """Scale parameters to a size near 1, and arrange them for training.

    While they are trained, parameters are five arrays: the weights of all factors side
    by side, of shape (n_axes, degree * n_products), their offsets, and the transposes
    of `coef`, `slope` and `intercept`.
    """

    def __init__(self, columns: Array, errors: Array) -> None:
        self.columns = columns
        self.units = np.where(errors > 0, _UNIT * errors, 1.0)

    def draw(
        self, n_products: int, degree: int, random_state: np.random.RandomState
    ) -> tuple[Array, Array, Array]:
        """Draw `coef`, `weights` and `offsets` of the first products."""
        signs = random_state.choice([-1.0, 1.0], (len(self.units), n_products))
        weights = random_state.normal(size=(n_products, degree, len(self.columns)))
        # An empty norm is 0.
        size = np.linalg.norm(self.columns) or 1.0
        return (
            self.units[:, None] * signs / np.sqrt(n_products),
            _SPREAD / size * self.columns * weights,
            np.ones((n_products, degree)),
        )

    def pack(self, polynomial: Polynomial) -> list[Array]:
        """Convert a polynomial to the parameters that are trained."""
        intercept, slope, coef, weights, offsets = polynomial
        n_axes = len(self.columns)
        return [
            (weights / self.columns).transpose(2, 1, 0).reshape(n_axes, offsets.size),
            offsets.T.ravel(),
            coef.T / self.units,
            (slope / self.columns).T / self.units,
            intercept / self.units,
        ]

    def unpack(self, arrays: list[Array], degree: int) -> Polynomial:
        """Undo `pack`."""
        weights, offsets, coef, slope, intercept = arrays
        n_axes = len(self.columns)
        factors = weights.reshape(n_axes, degree, len(coef)).transpose(2, 1, 0)
        return Polynomial(
            self.units * intercept,
            (self.units * slope).T * self.columns,
            (self.units * coef).T,
            factors * self.columns,
            offsets.reshape(degree, -1).T,
        )


def _residual(
    xp: Any, parameters: list[Any], x: Any, y: Any, degree: int
) -> tuple[Any, Any, list[Any]]:
    """Return residuals, products, and for each factor the product of the others."""
    weights, offsets, coef, slope, intercept = parameters
    forms = xp.reshape(x @ weights + offsets, (x.shape[0], degree, -1))
    factors = [forms[:, t, :] for t in range(degree)]
    others = [reduce(mul, factors[:t] + factors[t + 1 :]) for t in range(degree)]
    products = factors[0] * others[0]
    return products @ coef + x @ slope + intercept - y, products, others


def _absolute(xp: Any, residual: Any, weight: Any) -> Any:
    """Sum the weighted absolute errors of all samples, averaged over targets."""
    return xp.sum(xp.mean(xp.abs(residual), axis=1) * weight)


def _gradients(
    xp: Any, parameters: list[Any], x: Any, y: Any, weight: Any, degree: int
) -> tuple[list[Any], Any]:
    """Return the gradient of the smoothed loss, and the sum of absolute errors."""
    residual, products, others = _residual(xp, parameters, x, y, degree)
    slopes = residual / xp.sqrt(residual * residual + _KNEE**2)
    slopes *= weight[:, None] / x.shape[0]
    by_product = slopes @ parameters[2].T
    by_factor = xp.concat([by_product * other for other in others], axis=1)
    gradients = [
        x.T @ by_factor,
        xp.sum(by_factor, axis=0),
        products.T @ slopes,
        x.T @ slopes,
        xp.sum(slopes, axis=0),
    ]
    return gradients, _absolute(xp, residual, weight)


def _advance(
    xp: Any,
    parameters: list[Any],
    gradients: list[Any],
    moments: list[tuple[Any, Any]],
    step: int,
    n_steps: int,
) -> None:
    """Update parameters and moments in place, by one step of Adam."""
    done = step / n_steps
    rate = min(_MAX_STEP, _STEP * sqrt(_STEPS / n_steps))
    if done < _WARM_UP:
        rate *= done / _WARM_UP
    else:
        rate *= (1 + cos(pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
    # Both moments start at zero.
    rate *= sqrt(1 - _SECOND_MOMENTUM**step) / (1 - _MOMENTUM**step)
    for p, gradient, (mean, square) in zip(parameters, gradients, moments, strict=True):
        mean *= _MOMENTUM
        mean += (1 - _MOMENTUM) * gradient
        gradient *= gradient
        gradient *= 1 - _SECOND_MOMENTUM
        square *= _SECOND_MOMENTUM
        square += gradient
        size = xp.sqrt(square)
        size += 1e-8
        p -= rate * mean / size
