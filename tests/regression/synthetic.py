"""Data and samples for the tests of regression."""

import numpy as np

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
