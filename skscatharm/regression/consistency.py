"""Do targets and their derivatives belong together?"""

import numpy as np

from skscatharm.regression.whitening import Array

__all__ = ["compare_with_gradients"]

# Features that vary less than this share of their size are constants with noise.
_CONSTANT = 1e-5
_PENALTY = 1e-7  # of the mean square of the rows
_REST = 1e-3  # of the deviations of targets: less is not compared
_VARIES = 1e-9  # of the largest singular value


def compare_with_gradients(
    features: Array,
    targets: Array,
    jacobian: Array,
    gradients: Array,
    known: Array | None = None,
) -> tuple[float, float]:
    """Compare targets with those that a linear model of their gradients predicts.

    The model does not see the targets. 20 samples of an energy surface suffice to find
    gradients of the wrong sign or unit.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
    targets : ndarray of shape (n_samples,)
    jacobian : ndarray of shape (n_samples, n_features, n_coordinates)
        Derivatives of the features.
    gradients : ndarray of shape (n_samples, n_coordinates)
        Derivatives of the targets.
    known : ndarray of shape (n_samples, n_known) or None, default=None
        Columns on which targets may depend in a way that these gradients do not tell:
        what linear functions of them explain is not compared.

    Returns
    -------
    slope : float
        Slope of the targets over the predictions: 1 if both agree, otherwise about the
        quotient of their units.
    correlation : float
        Correlation of the targets and the predictions; 0 if either is constant, or
        explained by `known`.

    Examples
    --------
    >>> import numpy as np
    >>> from skscatharm.regression.consistency import compare_with_gradients
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> jacobian = np.tile(np.eye(3), (20, 1, 1))
    >>> y, gradients = X @ [1, 2, 3], np.tile([-1.0, -2, -3], (20, 1))
    >>> slope, correlation = compare_with_gradients(X, y, jacobian, gradients)
    >>> print(f"{slope:.3f}, {correlation:.3f}")
    -1.000, -1.000
    """
    deviations = features.std(axis=0)
    varies = deviations > _CONSTANT * np.abs(features).mean(axis=0)
    scale = deviations[varies]
    rows = np.concatenate(jacobian[:, varies].swapaxes(1, 2)) / scale
    gram = rows.T @ rows
    penalty = _PENALTY * np.trace(gram)
    columns = np.ones((len(targets), 1))
    if known is not None:
        columns = np.column_stack([columns, known])
    about_mean = targets - targets.mean()
    unexplained = _rest(about_mean, columns)
    share = _REST * np.linalg.norm(about_mean)
    if penalty == 0 or np.linalg.norm(unexplained) <= share:
        return 1.0, 0.0
    gram[np.diag_indices_from(gram)] += penalty
    slopes = np.linalg.solve(gram, rows.T @ gradients.ravel())
    predicted = (features - features.mean(axis=0))[:, varies] / scale @ slopes
    predicted = _rest(predicted, columns)
    square = float(predicted @ predicted)
    if square == 0:
        return 1.0, 0.0
    product = float(predicted @ unexplained)
    size = float(np.sqrt(square * (unexplained @ unexplained)))
    return product / square, product / size


def _rest(values: Array, columns: Array) -> Array:
    """Return what linear functions of columns do not explain."""
    # Columns that vary by rounding errors alone explain nothing.
    fitted = np.linalg.lstsq(columns, values, rcond=_VARIES)[0]
    rest: Array = values - columns @ fitted
    return rest
