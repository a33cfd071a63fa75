"""Data and samples for the tests of regression."""

import numpy as np

from skscatharm.regression.gaussian_process import Problem
from skscatharm.regression.kernels import Points
from skscatharm.regression.whitening import Sample, find_whitening


def collinear(rng, n_samples, n_features=12, n_sources=5):
    """Features that are smooth functions of a few sources, and the sources."""
    sources = rng.normal(size=(n_samples, n_sources))
    mixing = rng.normal(size=(n_sources, n_features))
    return np.sin(sources @ mixing / 3) + sources @ mixing, sources


def product_of_forms(rng, X, degree):
    """A target that is one product of `degree` linear forms plus a linear form."""
    forms = rng.normal(size=(X.shape[1], degree + 1)) / np.sqrt(X.shape[1])
    values = X @ forms
    return values[:, 0] + (values[:, 1:] + 0.5).prod(axis=1)


def relative_error(model, X, y):
    """Mean absolute error, relative to the standard deviation of the target."""
    return np.abs(model.predict(X) - y).mean() / y.std()


def white_sample(X, Y, weight=None):
    """Whiten features, and centre targets."""
    weight = np.ones(len(X)) if weight is None else weight
    targets = Y.reshape(len(X), -1)
    axes = find_whitening(X, weight)
    return Sample(
        (X - axes.mean) @ axes.matrix,
        axes.deviations,
        targets - weight @ targets / weight.sum(),
        weight,
    )


def brute_force_errors(fit, y):
    """Leave-one-out residuals, where `fit` fits the samples of a mask."""
    left_out = ~np.eye(len(y), dtype=bool)
    return np.array([y[i] - fit(left_out[i])[i] for i in range(len(y))])


def smooth_problem(rng, n_samples, noise=0.0):
    """A smooth function of two coordinates, with its derivatives along both."""
    z = rng.normal(size=(n_samples, 2))
    y = np.sin(z[:, 0]) + z[:, 0] * z[:, 1]
    slopes = np.stack([np.cos(z[:, 0]) + z[:, 1], z[:, 0]], axis=1)
    scale = y.std()
    return Problem(
        Points(
            z,
            np.tile(np.eye(2), (n_samples, 1)),
            np.repeat(np.arange(n_samples), 2),
        ),
        np.ones(2),
        (y - y.mean()) / scale + noise * rng.normal(size=n_samples),
        slopes.ravel() / scale,
        np.ones(n_samples),
        np.sqrt((slopes**2).sum(axis=1).mean()) / scale,
    )
