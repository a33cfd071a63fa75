"""The estimator that fits a function to targets and their derivatives."""

from collections.abc import Callable
from copy import copy
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from skscatharm._compat import Interval, StrOptions, _fit_context
from skscatharm._progress import progress_bar
from skscatharm.regression.derivatives import check_derivatives
from skscatharm.regression.gaussian_process import (
    Problem,
    pose_problem,
    solve_dual,
    thinned,
)
from skscatharm.regression.inputs import check_weight, real_numbers, to_doubles
from skscatharm.regression.kernel_selection import (
    START,
    Setting,
    select_setting,
)
from skscatharm.regression.kernels import (
    Expansion,
    Kernel,
    Profile,
    expand,
    gaussian,
    matern,
)
from skscatharm.regression.uncertainty import (
    choose_references,
    deviations,
    error_rates,
)
from skscatharm.regression.whitening import Array, distinct_samples

_PROFILES: dict[str, Profile] = {"matern": matern, "gaussian": gaussian}
# Axes of smaller standard deviations than other models use matter with derivatives.
# With a few hundred frames, errors of energies and forces are up to 4 % larger at 1e-8,
# and up to 7 % at 1e-10. Those of linear forms are far larger at 1e-9 than at 1e-8.
_RANK_TOLERANCE = 1e-9


class KernelRegressor(RegressorMixin, BaseEstimator):
    r"""Gaussian process regression of targets and their derivatives.

    The prediction for a sample x is the mean of a Gaussian process,

    .. math::

        f(x) = b + \sum_i \alpha_i \, k(x, x_i)
        + \sum_i \beta_i \cdot \nabla_{x_i} k(x, x_i) ,

    where the second sum is there if derivatives were given to `fit` [1]_ [2]_. The
    kernel k depends on the distance r of two samples: Matérn of smoothness 5/2,
    :math:`(1 + \sqrt5 r + 5 r^2 / 3) e^{-\sqrt5 r}`, or Gaussian,
    :math:`e^{-r^2 / 2}`. The coefficients minimise

    .. math::

        \sum_i \omega_i \big( (y_i - f(x_i))^2
        + \gamma \, |g_i - J_i^T \nabla f(x_i)|^2 \big) + \lambda \, |f - b|_k^2

    with sample weights :math:`\omega_i`, Jacobians :math:`J_i` of the features,
    derivatives :math:`g_i` of the targets, and the norm of the kernel's function space.
    In molecules, :math:`g_i` is minus the forces.

    Features are standardised and rotated to their principal axes. The coordinate along
    axis k, which has standard deviation :math:`\sigma_k`, is scaled to standard
    deviation :math:`\sigma_k^p`. All coordinates are then divided by the length scale
    times their root mean squared norm.

    Parameters that are None are chosen by leave-one-out errors: they minimise the
    product of the mean absolute error of the targets and the mean norm of the errors of
    their derivatives. If there are more than 5,000 targets and derivatives, a random
    part of the samples chooses them. All samples need less noise and larger length
    scales than a part: the smallest `alpha` whose errors are within 2 % of the lowest
    is used, and the largest `length_scale` within 4 %. Nothing has to be tuned.

    Parameters
    ----------
    kernel : {"matern", "gaussian"}, default="matern"
        Kernel.
    length_scale : float or None, default=None
        Distance over which the function varies, relative to the root mean squared
        distance of the samples from their mean.
    alpha : float or None, default=None
        Variance of the noise of a target with weight 1, relative to the variance of the
        function.
    decay : float or None, default=None
        Power p of the standard deviations. 0 keeps white coordinates, 1 the principal
        components of the standardised features.
    gradient_weight : float or None, default=1.0
        Weight :math:`\gamma` of squared errors of the derivatives, relative to those of
        the targets. The unit is the variance of the targets divided by the mean squared
        norm of their gradients. Ignored without derivatives.
    random_state : int, RandomState instance or None, default=None
        Draws the samples that choose the parameters, if there are more than needed.
        Pass an int for reproducible results.
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    intercept_ : float
        The intercept b.
    mean_ : ndarray of shape (n_features,)
        Means of the features.
    matrix_ : ndarray of shape (n_features, n_axes)
        Map from centred features to scaled coordinates.
    positions_ : ndarray of shape (n_samples, n_axes)
        Scaled coordinates of the training samples.
    weights_ : ndarray of shape (n_samples,)
        Coefficients :math:`\alpha_i`.
    slopes_ : ndarray of shape (n_samples, n_axes)
        Coefficients :math:`\beta_i`, with respect to scaled coordinates.
    kernel_ : str
        The kernel.
    length_scale_, alpha_, decay_, gradient_weight_ : float
        The parameters that were used.
    references_ : ndarray of shape (n_references, n_axes)
        Coordinates, multiplied by the length scale, of the training samples from which
        standard deviations are estimated.
    error_rates_ : ndarray of shape (n_references, 1)
        Standard deviations at these samples, by distance from them.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features. Defined only if all names in X are strings.

    See Also
    --------
    MultilinearRegressor : Linear, bilinear and trilinear models.

    Notes
    -----
    Directions in which no feature varies, such as rigid motions of a molecule, are
    projected out. A molecule of n atoms has one target and up to 3 n - 6 derivatives.

    Standard deviations have the formula of :class:`MultilinearRegressor`, with the
    leave-one-out errors of the fit. The prior of the Gaussian process has no part in
    them.

    The kernel matrix is factorised: with m targets and derivatives, this needs
    :math:`4 m^2` bytes and :math:`m^3 / 3` multiplications. It has room for m = 42,000.
    Of more derivatives, each sample uses the same share, along random directions.

    References
    ----------
    .. [1] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine
       Learning", MIT Press (2006), section 9.4. http://gaussianprocess.org/gpml
    .. [2] S. Chmiela, A. Tkatchenko, H. E. Sauceda, I. Poltavsky, K. T. Schütt,
       K.-R. Müller, "Machine learning of accurate energy-conserving molecular force
       fields", Science Advances 3, e1603015 (2017).
       https://doi.org/10.1126/sciadv.1603015

    Examples
    --------
    >>> import numpy as np
    >>> from skscatharm import KernelRegressor
    >>> X = np.random.default_rng(0).normal(size=(30, 2))
    >>> y = np.sin(X[:, 0]) * X[:, 1]
    >>> gradients = np.stack([np.cos(X[:, 0]) * X[:, 1], np.sin(X[:, 0])], axis=1)

    The coordinates of this example are the features themselves:

    >>> jacobian = np.tile(np.eye(2), (30, 1, 1))
    >>> regressor = KernelRegressor().fit(X, y, jacobian=jacobian, gradients=gradients)
    >>> regressor.predict([[0.5, 1]]).round(2)
    array([0.48])
    >>> regressor.predict_gradient([[0.5, 1]]).round(2)
    array([[0.88, 0.48]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "kernel": [StrOptions(set(_PROFILES))],
        "length_scale": [Interval(Real, 0, None, closed="neither"), None],
        "alpha": [Interval(Real, 0, None, closed="neither"), None],
        "decay": [Interval(Real, 0, 1, closed="both"), None],
        "gradient_weight": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        kernel: str = "matern",
        *,
        length_scale: float | None = None,
        alpha: float | None = None,
        decay: float | None = None,
        gradient_weight: float | None = 1.0,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.kernel = kernel
        self.length_scale = length_scale
        self.alpha = alpha
        self.decay = decay
        self.gradient_weight = gradient_weight
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    @np.errstate(under="ignore")
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | float | None = None,
        *,
        jacobian: Any = None,
        gradients: Any = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,)
            Targets.
        sample_weight : float or array-like of shape (n_samples,), default=None
            Weight of each sample, 0 or more. A number is the weight of all samples.
            None means 1.
        jacobian : array-like of shape (n_samples, n_features, ...), default=None
            Derivatives of the features with respect to coordinates, such as the
            positions of atoms. Coordinates that a sample lacks are zero.
        gradients : array-like of shape (n_samples, ...), default=None
            Derivatives of the targets with respect to the same coordinates.

        Returns
        -------
        self : KernelRegressor
            The fitted regressor.

        Raises
        ------
        ValueError
            If an array has NaN, infinite, complex or masked entries, if shapes do not
            fit, if one of `jacobian` and `gradients` is missing, if sample_weight is
            negative, or 0 for all samples, if there are more than 42,000 targets, or
            if `alpha` is too small for double precision.

        Warns
        -----
        UserWarning
            If derivatives are left out, as targets and derivatives are more than
            42,000.
        """
        # Fit a copy, and adopt its attributes at the end: an error leaves the last fit.
        fitted = copy(self)
        X, y = validate_data(
            fitted, real_numbers(X, "X"), real_numbers(y, "y"), y_numeric=True
        )
        features, targets = to_doubles(X), to_doubles(y)
        weight = check_weight(sample_weight, len(features))
        derivatives = check_derivatives(jacobian, gradients, *features.shape)
        arrays = [features, targets[:, None]]
        if derivatives is not None:
            slopes, aims = derivatives
            arrays += [aims, slopes]
        rows, weight = distinct_samples(arrays, weight)
        if derivatives is not None:
            derivatives = slopes[rows], aims[rows]
        problem, whitening, mean, scale = pose_problem(
            features[rows],
            targets[rows],
            weight,
            derivatives,
            rank_tolerance=_RANK_TOLERANCE,
        )
        random_state = check_random_state(self.random_state)
        kept = thinned(problem, random_state)
        profile = _PROFILES[self.kernel]
        with progress_bar(self.verbose, "step") as advance:
            setting = self._choose(problem, random_state, advance)
            kernel = setting.kernel(profile, problem)
            references = choose_references(len(kept.y), len(kept.sides))
            dual, intercept, errors = solve_dual(
                [kernel],
                kept,
                setting.alpha,
                setting.gradient_weight,
                references,
                advance,
            )
        expansion = expand(kernel, kept.points, dual)
        fitted.kernel_ = self.kernel
        fitted.mean_ = whitening.mean
        fitted.matrix_ = whitening.matrix * kernel.factors
        fitted.positions_ = expansion.positions
        fitted.weights_ = scale * expansion.weights
        fitted.slopes_ = scale * expansion.slopes
        fitted._half_norms = expansion.half_norms
        fitted._overlaps = scale * expansion.overlaps
        fitted.intercept_ = mean + scale * intercept
        for name, value in setting._asdict().items():
            setattr(fitted, f"{name}_", float(value))
        positions = problem.points.positions[references] * kernel.factors
        # In units of the root mean squared norm.
        fitted.references_ = setting.length_scale * positions
        fitted.error_rates_ = scale * error_rates(
            fitted.references_, errors[:, None], weight[references]
        )
        self.__dict__ = fitted.__dict__
        return self

    def _choose(
        self,
        problem: Problem,
        random_state: np.random.RandomState,
        progress: Callable[[], object],
    ) -> Setting:
        """Choose the setting."""
        fixed = {
            name: getattr(self, name)
            for name in Setting._fields
            if getattr(self, name) is not None
        }
        if len(problem.y) < 2:
            return START._replace(**fixed)
        profile = _PROFILES[self.kernel]
        return select_setting(profile, problem, fixed, random_state, progress)

    def _expansion(self) -> Expansion:
        """Return the fitted function of scaled coordinates."""
        profile = _PROFILES[self.kernel_]
        kernel = Kernel(profile, np.ones(self.positions_.shape[1]), True)
        return Expansion(
            kernel,
            self.positions_,
            self.weights_,
            self.slopes_,
            self._half_norms,
            self._overlaps,
        )

    def _scaled(self, X: Any) -> Array:
        """Return the scaled coordinates of samples."""
        check_is_fitted(self)
        X = validate_data(self, real_numbers(X, "X"), reset=False)
        return (to_doubles(X) - self.mean_) @ self.matrix_

    @np.errstate(under="ignore")
    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        return_std : bool, default=False
            Whether to estimate the standard deviations of the errors too.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictions.
        std : ndarray of shape (n_samples,)
            Standard deviations, in the unit of the targets. Only if `return_std`. NaN
            if the fit had less than two samples.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X has NaN, infinite, complex or masked entries, or another number of
            features than in `fit`.
        """
        scaled = self._scaled(X)
        y = self.intercept_ + self._expansion().evaluate(scaled)
        if not return_std:
            return y
        std = deviations(
            self.length_scale_ * scaled, self.references_, self.error_rates_
        )
        return y, std[:, 0]

    def predict_gradient(self, X: Any) -> Array:
        """Predict the derivatives of the target with respect to the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        gradients : ndarray of shape (n_samples, n_features)
            Derivatives of the prediction with respect to the features.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            As in `predict`.
        """
        scaled = self._scaled(X)
        return self._expansion().gradient(scaled) @ self.matrix_.T
