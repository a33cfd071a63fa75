"""The estimator: its parameters, and the choice of the algorithm that fits it."""

from copy import copy
from numbers import Integral, Real
from threading import Event
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from skscatharm._compat import Interval, _fit_context
from skscatharm._progress import progress_bar
from skscatharm._threads import one_blas_thread
from skscatharm.regression.derivatives import check_derivatives
from skscatharm.regression.descent import Training, train_products
from skscatharm.regression.forms import fit_form
from skscatharm.regression.gaussian_process import pose_problem
from skscatharm.regression.inputs import (
    check_weight,
    has_double_precision,
    real_numbers,
    to_doubles,
)
from skscatharm.regression.polynomial import (
    Polynomial,
    average,
    differentiate,
    divide,
    evaluate,
    in_axes,
    in_features,
    rescale,
)
from skscatharm.regression.quadratic import fit_quadratic
from skscatharm.regression.ridge import fit_ridge
from skscatharm.regression.uncertainty import (
    DECAY,
    Unseen,
    choose_references,
    deviations,
    error_rates,
)
from skscatharm.regression.whitening import (
    Array,
    Sample,
    Whitening,
    distinct_rows,
    distinct_samples,
    find_whitening,
    scale_axes,
)

_PRODUCTS = 96  # default number of products for one target


class _Fit(NamedTuple):
    """Result of a fit, in white coordinates."""

    polynomial: Polynomial
    whitening: Whitening
    alphas: Array
    unseen: Unseen
    gradient_weight: float | None = None
    curves: tuple[Array, Array] | None = None


class MultilinearRegressor(RegressorMixin, BaseEstimator):
    r"""Linear regression plus products of linear forms.

    The prediction for a sample x is

    .. math::

        f(x) = b + \langle a, x \rangle + \sum_{r} \nu_r \prod_{t=1}^{T}
        \big( \langle w_{rt}, x \rangle + c_{rt} \big) .

    It is linear without products, bilinear for T = 2 and trilinear for T = 3 [1]_. The
    parameters choose one of three algorithms:

    .. list-table::
       :header-rows: 1

       * - Algorithm
         - Parameters
         - Best for
       * - Ridge regression
         - ``degree=1``
         - a fast baseline
       * - Quadratic form
         - ``degree=2``, ``n_components=None``
         - up to some thousands of samples
       * - Trained products
         - ``degree=2`` with `n_components`, or ``degree=3`` and more
         - more samples, or several targets at a time

    All three standardise the features and rotate them to their principal axes. The last
    two then scale the coordinate along axis k, which has standard deviation
    :math:`\sigma_k`, to standard deviation :math:`\sigma_k^p` with p between 0 and 1.
    This amplifies small differences between strongly correlated features.

    **Ridge regression** minimises

    .. math:: \sum_i \omega_i \, (y_i - f(x_i))^2 + \alpha \, |a|^2 ,

    where :math:`\omega_i` are the sample weights and a the coefficients of the
    standardised features, as :class:`~sklearn.linear_model.Ridge` does after a
    :class:`~sklearn.preprocessing.StandardScaler`. By default, :math:`\alpha` minimises
    the mean absolute leave-one-out error.

    **The quadratic form** minimises

    .. math:: \sum_i \omega_i \, (y_i - f(x_i))^2 / \sigma_y^2 + \alpha \, |f|^2

    over *all* polynomials of degree 2, which is a convex problem. Here :math:`\sigma_y`
    is the standard deviation of the target. The penalty :math:`|f|^2` sums the squared
    coefficients of all coordinates and of all products of two coordinates; the latter
    are divided by the expected size of the products. Coordinates have mean squared norm
    1. The powers p of both terms, the expected size and :math:`\alpha` minimise the
    mean absolute leave-one-out error on up to 800 samples. The solution has at most as
    many products as features, each the square of one linear form.

    **With derivatives**, ridge regression and the quadratic form minimise

    .. math::

        \sum_i \omega_i \big( (y_i - f(x_i))^2
        + \gamma \, |g_i - J_i^T \nabla f(x_i)|^2 \big) + \lambda \, |f|^2

    for Jacobians :math:`J_i` of the features and derivatives :math:`g_i` of the
    targets. In molecules, :math:`g_i` is minus the forces. The problem stays convex.
    Both scale the coordinates by a power of their standard deviations. The powers, the
    expected size, :math:`\gamma` and :math:`\lambda` minimise the product of the mean
    absolute error of the targets and the mean norm of the errors of their derivatives:
    for ridge regression, in cross-validation with five folds; for the quadratic form,
    leave-one-out errors on some of the samples.

    **Trained products** minimise the mean absolute error, smoothed near zero, by
    stochastic gradient descent. Training starts from ridge regression and random
    products. Some samples are set apart, and the epoch with the smallest error on these
    is kept. The result is the average over several random starts, each with other
    samples set apart.

    Parameters
    ----------
    degree : int, default=2
        Number T of factors in each product. 1 means no products.
    n_components : int or None, default=None
        Number of products that are trained in each start. None selects the quadratic
        form if ``degree=2``. For larger degrees it means 96 products for one target,
        and 96 more each time that the number of targets doubles. Ignored if
        ``degree=1``.
    alpha : float or None, default=None
        Strength of the penalty :math:`\alpha`. None chooses it for each target. Trained
        products use it for the ridge regression from which they start. With
        derivatives, it is the variance of the noise of a target with weight 1, relative
        to the variance of the function, and not 0.
    gradient_weight : float or None, default=None
        Weight :math:`\gamma` of squared errors of derivatives, relative to those of the
        targets. The unit is the variance of the targets divided by the mean squared
        norm of their gradients. None chooses it. Ignored without derivatives.
    n_starts : int, default=4
        Number of random starts. Used by trained products only.
    max_epochs : int, default=60
        Number of passes over the samples in each start. Used by trained products only.
    validation_fraction : float, default=0.05
        Fraction of the samples that each start sets apart, to choose the best epoch and
        to estimate standard deviations. If 0, the last epoch is used, and there are no
        standard deviations. Used by trained products only.
    warm_start : bool, default=False
        Whether to continue from the previous `fit` instead of random products. The
        numbers of products, starts, features and targets must be the same. Used by
        trained products only.
    n_jobs : int or None, default=None
        Number of starts that are trained in parallel, in threads. None means 1, unless
        in a :func:`joblib.parallel_config` context; -1 means all processors. Used by
        trained products only.
    random_state : int, RandomState instance or None, default=None
        Pass an int for reproducible results. Trained products use it for the first
        products, the samples set apart and the order of samples. The quadratic form
        uses it if there are more than 800 samples. With derivatives, it draws folds and
        samples. Ridge regression does not use it otherwise.
    verbose : int, default=0
        Whether to show a progress bar. Used by the quadratic form and trained products.

    Attributes
    ----------
    intercept_ : float or array of shape (n_targets,)
        The intercept b. An array if y is 2-D; so are the following.
    coef_ : array of shape (n_features,) or (n_targets, n_features)
        Coefficients a of the linear term.
    product_coef_ : array of shape (n_products,) or (n_targets, n_products)
        Coefficients :math:`\nu` of the products. The factors of the products have mean
        square 1 on the training data, so these coefficients can be compared.
    product_weights_ : array of shape (n_products, T, n_features)
        Weights w of the features in the factors.
    product_offsets_ : array of shape (n_products, T)
        Offsets c of the factors.
    alpha_ : float or array of shape (n_targets,)
        The penalty that was used.
    gradient_weight_ : float or None
        The weight of derivatives that was used. None without derivatives.
    loss_curve_ : array of shape (n_starts, max_epochs) or None
        Mean absolute error on the training samples in each epoch, divided by the mean
        absolute leave-one-out error of ridge regression; the mean over targets. None
        for the other two algorithms.
    validation_curve_ : array of shape (n_starts, max_epochs) or None
        The same on the samples set apart, after each epoch. NaN if there are none.
    mean_ : array of shape (n_features,)
        Means of the features.
    matrix_ : array of shape (n_features, n_axes)
        Map from centred features to the coordinates in which samples are compared.
    references_ : array of shape (n_references, n_axes)
        Coordinates of up to 1,000 training samples, from which standard deviations are
        estimated.
    error_rates_ : array of shape (n_references,) or (n_references, n_targets)
        Standard deviations at these samples, divided by the distance from them.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features. Defined only if all names in X are strings.

    See Also
    --------
    SolidHarmonicScattering : Compute scattering coefficients, for use as features.

    Notes
    -----
    A sample of weight 2 has the same effect as two samples. The order of samples has no
    effect.

    The quadratic form fits each target as if it were the only one. Trained products are
    shared by all targets, which takes less time than one fit for each.

    For up to 8,000 samples, the quadratic form factorises the kernel matrix. For more,
    it solves the same problem by preconditioned conjugate gradients; time and memory
    then grow linearly with the number of samples.

    ``predict(X, return_std=True)`` estimates standard deviations of the errors, from
    the errors :math:`e_i` of training samples in fits that did not see them:
    leave-one-out errors, or those of the samples that the starts set apart. For more
    than 8,000 samples, the quadratic form is fitted once more, without 1,000 of them.
    The standard deviation for a sample x is

    .. math::

        \sigma(x) = c \, \big(d(x) + 0.2\big) \, \Big(
        \frac{1}{k} \sum_{i \in N(x)} |e_i| + \frac{10}{k} \, \overline{|e|} \Big) ,

    where N(x) are the k = 40 nearest of these samples, or half of them if there are
    less than 80, d(x) is the mean distance from them, and the bar is the mean over all.
    Coordinates are scaled with p = 0.2 to mean squared norm 1. The factor c is such
    that 68.3 % of the errors, as of normal ones, are within one standard deviation.
    After a warm start, samples set apart may have been used before; their errors are
    then too small.

    A fit that is refused or interrupted leaves the previous fit unchanged.

    With ``sklearn.set_config(array_api_dispatch=True)`` and the environment variable
    ``SCIPY_ARRAY_API=1``, X can be an array of CuPy, PyTorch or another library that
    implements the array API standard. Products are trained, and predictions are made,
    on the device of X. NumPy computes everything else on the CPU, in double precision.
    Predictions can be differentiated with respect to a tensor X; `fit` cannot.

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
    >>> regressor = MultilinearRegressor(degree=2).fit(X, y)
    >>> regressor.predict([[1, 2, 3, 4, 5]]).round(3)
    array([10.])

    The product of two features is a difference of two squares:

    >>> (abs(regressor.product_coef_) > 1e-3).sum()
    np.int64(2)

    Standard deviations grow with the distance from the training samples:

    >>> _, std = regressor.predict([[0, 0, 0, 0, 0], [9, 9, 9, 9, 9]], return_std=True)
    >>> bool(std[1] > 3 * std[0])
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "degree": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, None, closed="left"), None],
        "gradient_weight": [Interval(Real, 0, None, closed="neither"), None],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "warm_start": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        degree: int = 2,
        *,
        n_components: int | None = None,
        alpha: float | None = None,
        gradient_weight: float | None = None,
        n_starts: int = 4,
        max_epochs: int = 60,
        validation_fraction: float = 0.05,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.degree = degree
        self.n_components = n_components
        self.alpha = alpha
        self.gradient_weight = gradient_weight
        self.n_starts = n_starts
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    # Products of small numbers may underflow, whatever numpy.seterr is set to.
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
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : float or array-like of shape (n_samples,), default=None
            Weight of each sample, 0 or more. A number is the weight of all samples.
            None means 1.
        jacobian : array-like of shape (n_samples, n_features, ...), default=None
            Derivatives of the features with respect to coordinates, such as the
            positions of atoms. Coordinates that a sample lacks are zero. Used by ridge
            regression and the quadratic form, for one target.
        gradients : array-like of shape (n_samples, ...), default=None
            Derivatives of the targets with respect to the same coordinates.

        Returns
        -------
        self : MultilinearRegressor
            The fitted regressor.

        Raises
        ------
        ValueError
            If an array has NaN, infinite, complex or masked entries; if sample_weight
            is negative, or 0 for all samples; if `warm_start` finds other numbers of
            products, starts, features or targets; if one of `jacobian` and `gradients`
            is missing, or their shapes do not fit; or if they are given for several
            targets, for trained products, with `alpha` 0, or for the quadratic form and
            more than 42,000 targets.

        Warns
        -----
        ConvergenceWarning
            If the conjugate gradients of the quadratic form do not converge.
        UserWarning
            If derivatives are left out, as the quadratic form has room for 42,000
            targets and derivatives.
        """
        # Fit a copy, and adopt its attributes at the end: an error leaves the last fit.
        fitted = copy(self)
        X, y = validate_data(
            fitted,
            real_numbers(X, "X"),
            real_numbers(y, "y"),
            multi_output=True,
            y_numeric=True,
        )
        xp, there = array_namespace(X), device(X)
        # Some devices have no double precision.
        dtype = xp.float64 if has_double_precision(xp, there) else xp.float32

        def to_device(array: Array) -> Any:
            return xp.asarray(array, dtype=dtype, device=there)

        features, targets = to_doubles(X), to_doubles(y)
        single = targets.ndim == 1
        targets = targets.reshape(len(features), -1)
        weight = check_weight(sample_weight, len(features))
        derivatives = check_derivatives(jacobian, gradients, *features.shape)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        if derivatives is None:
            fit = self._fit_values(features, targets, weight, seed, xp, there)
        else:
            fit = self._fit_form(features, targets, weight, derivatives, seed)
        fitted.gradient_weight_ = fit.gradient_weight
        fitted.loss_curve_, fitted.validation_curve_ = (
            map(to_device, fit.curves) if fit.curves else (None, None)
        )
        intercept, slope, coef, weights, offsets = map(
            to_device, in_features(fit.polynomial, fit.whitening)
        )
        fitted.intercept_ = float(intercept[0]) if single else intercept
        fitted.coef_ = slope[0, :] if single else slope
        fitted.product_coef_ = coef[0, :] if single else coef
        fitted.product_weights_, fitted.product_offsets_ = weights, offsets
        fitted.alpha_ = float(fit.alphas[0]) if single else to_device(fit.alphas)
        white, errors, unseen_weight = fit.unseen
        references, factors = scale_axes(white, fit.whitening.deviations, DECAY)
        rates = to_device(error_rates(references, errors, unseen_weight))
        fitted.error_rates_ = rates[:, 0] if single else rates
        fitted.references_ = to_device(references)
        fitted.mean_ = to_device(fit.whitening.mean)
        fitted.matrix_ = to_device(fit.whitening.matrix * factors)
        self.__dict__ = fitted.__dict__
        return self

    def _fit_values(
        self,
        features: Array,
        targets: Array,
        weight: Array,
        seed: int,
        xp: Any,
        there: Any,
    ) -> "_Fit":
        """Fit targets alone."""
        curves = None
        features, targets, weight = distinct_rows(features, targets, weight)
        whitening = find_whitening(features, weight)
        features -= whitening.mean
        white = features @ whitening.matrix
        del features
        mean = weight @ targets / weight.sum()
        sample = Sample(white, whitening.deviations, targets - mean, weight)
        rows = choose_references(len(white), len(white))
        if self.degree == 1:
            polynomial, alphas, residuals = fit_ridge(sample, self.alpha)
            errors = residuals[rows]
        elif self.degree == 2 and self.n_components is None:
            with progress_bar(self.verbose, "fit") as advance:
                polynomial, alphas, errors = fit_quadratic(
                    sample, self.alpha, seed, rows, advance
                )
        else:
            starts = self._starts(whitening, mean)
            _, alphas, residuals = fit_ridge(sample, self.alpha)
            trainings = self._train(
                sample,
                alphas,
                weight @ abs(residuals) / weight.sum(),
                starts,
                seed,
                xp,
                there,
            )
            polynomial = average([training.polynomial for training in trainings])
            curves = (
                np.stack([training.losses for training in trainings]),
                np.stack([training.validation_errors for training in trainings]),
            )
            # Each start has other samples apart. The average is a little better than
            # one start, which was chosen by these samples: both effects cancel.
            rows = np.concatenate([training.apart for training in trainings])
            errors = np.concatenate(
                [
                    sample.targets[training.apart]
                    - evaluate(white[training.apart], training.polynomial)
                    for training in trainings
                ]
            )
            if len(rows) > 0:
                chosen = choose_references(len(rows), len(rows))
                rows, errors = rows[chosen], errors[chosen]
        polynomial = polynomial._replace(intercept=polynomial.intercept + mean)
        unseen = Unseen(white[rows], errors, weight[rows])
        return _Fit(polynomial, whitening, alphas, unseen, curves=curves)

    def _fit_form(
        self,
        features: Array,
        targets: Array,
        weight: Array,
        derivatives: tuple[Array, Array],
        seed: int,
    ) -> "_Fit":
        """Fit a linear or quadratic form to targets and derivatives."""
        if targets.shape[1] > 1:
            raise ValueError(
                f"y has {targets.shape[1]} targets, but gradients belong to one: fit "
                "each target with its own gradients, or leave them out."
            )
        if self.degree > 2 or (self.degree == 2 and self.n_components is not None):
            raise ValueError(
                "Trained products do not learn from gradients: choose degree=1, or "
                "degree=2 with n_components=None, or KernelRegressor."
            )
        jacobian, gradients = derivatives
        rows, weight = distinct_samples(
            [features, targets, gradients, jacobian], weight
        )
        problem, whitening, mean, scale = pose_problem(
            features[rows], targets[rows, 0], weight, (jacobian[rows], gradients[rows])
        )
        references = choose_references(len(problem.y), len(problem.sides))
        with progress_bar(self.verbose, "fit") as advance:
            polynomial, prior, errors = fit_form(
                problem,
                self.degree,
                self.alpha,
                self.gradient_weight,
                np.random.RandomState(seed),
                references,
                advance,
            )
        polynomial = rescale(polynomial, np.array([scale]))
        return _Fit(
            polynomial._replace(intercept=polynomial.intercept + mean),
            whitening,
            np.array([prior.alpha]),
            Unseen(
                problem.points.positions[references],
                scale * errors[:, None],
                weight[references],
            ),
            gradient_weight=float(prior.gradient_weight),
        )

    def _starts(self, whitening: Whitening, mean: Array) -> list[Polynomial | None]:
        """Return the polynomial that each start begins with; None if it is random."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return [None] * self.n_starts
        previous = Polynomial(*(to_doubles(array) for array in self._polynomial()))
        n_targets, n_features = previous.slope.shape
        n_products, degree = previous.offsets.shape
        found = {
            "targets": n_targets,
            "features": n_features,
            "factors": degree,
            "products": n_products,
            "starts": 0 if self.loss_curve_ is None else self.loss_curve_.shape[0],
        }
        wanted = {
            "targets": len(mean),
            "features": len(whitening.mean),
            "factors": self.degree,
            "products": self.n_starts * self._n_products(len(mean)),
            "starts": self.n_starts,
        }
        if wanted != found:
            raise ValueError(
                "With warm_start=True, the numbers must be as before: "
                f"{found}, not {wanted}. Set warm_start=False for a new start."
            )
        previous = in_axes(previous, whitening)
        previous = previous._replace(intercept=previous.intercept - mean)
        return [*divide(previous, self.n_starts)]

    def _train(
        self,
        sample: Sample,
        alphas: Array,
        errors: Array,
        starts: list[Polynomial | None],
        seed: int,
        xp: Any,
        there: Any,
    ) -> list[Training]:
        """Train from all starts, in parallel."""
        stop = Event()
        n_epochs = self.n_starts * self.max_epochs
        with (
            # The matrices are small: more threads would wait for each other.
            one_blas_thread(),
            progress_bar(self.verbose, "epoch", n_epochs) as advance,
        ):
            try:
                return Parallel(self.n_jobs, require="sharedmem")(
                    delayed(train_products)(
                        sample,
                        alphas,
                        errors,
                        start,
                        degree=self.degree,
                        n_products=self._n_products(len(alphas)),
                        max_epochs=self.max_epochs,
                        validation_fraction=self.validation_fraction,
                        random_state=np.random.RandomState([seed, k]),
                        xp=xp,
                        device=there,
                        progress=advance,
                        stop=stop,
                    )
                    for k, start in enumerate(starts)
                )
            finally:
                # Ctrl-C and errors leave threads behind, which train on.
                stop.set()

    def _n_products(self, n_targets: int) -> int:
        """Return the number of products in each start."""
        return self.n_components or round(_PRODUCTS * (1 + np.log2(n_targets)))

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
        y : array of shape (n_samples,) or (n_samples, n_targets)
            Predictions.
        std : array of the shape of y
            Standard deviations, in the unit of the targets. Only if `return_std`. NaN
            if the fit left out less than two samples.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X has NaN, infinite, complex or masked entries, or another number of
            features than in `fit`. With ``array_api_dispatch=True``, also if X is of
            another library or on another device than in `fit`; without it, if the
            model was fitted to arrays of another library than NumPy. With `return_std`,
            also if products were trained with ``validation_fraction=0`` or one sample.
        """
        X = self._checked(X)
        single = self.coef_.ndim == 1
        y = evaluate(X, self._polynomial())
        y = y[:, 0] if single else y
        if not return_std:
            return y
        mean, matrix, references, rates = map(
            to_doubles, (self.mean_, self.matrix_, self.references_, self.error_rates_)
        )
        if len(references) == 0:
            raise ValueError(
                "return_std=True needs samples that were set apart in the fit. Fit "
                "with validation_fraction above 0, and more than one sample."
            )
        coordinates = (to_doubles(real_numbers(X, "X")) - mean) @ matrix
        std = deviations(coordinates, references, rates.reshape(len(references), -1))
        return y, array_namespace(y).asarray(
            std[:, 0] if single else std, dtype=y.dtype, device=device(y)
        )

    @np.errstate(under="ignore")
    def predict_gradient(self, X: Any) -> Any:
        """Predict the derivatives of the targets with respect to the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        gradients : array of shape (n_samples, n_features) or \
                (n_samples, n_targets, n_features)
            Derivatives of the predictions with respect to the features.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            As in `predict`.
        """
        X = self._checked(X)
        gradients = differentiate(X, self._polynomial())
        return gradients[:, 0, :] if self.coef_.ndim == 1 else gradients

    def _checked(self, X: Any) -> Any:
        """Check features for predictions."""
        check_is_fitted(self)
        if not (
            get_config()["array_api_dispatch"] or isinstance(self.coef_, np.ndarray)
        ):
            raise ValueError(
                "This MultilinearRegressor was fitted to arrays of "
                f"{type(self.coef_).__module__}: predict with "
                "sklearn.set_config(array_api_dispatch=True), as in fit()."
            )
        given = X
        X = validate_data(self, real_numbers(X, "X"), reset=False)
        if is_torch_array(X) and given.requires_grad:
            X = given  # X is detached
        found, expected = (
            (array_namespace(array).__name__, device(array))
            for array in (X, self.coef_)
        )
        if found != expected:
            raise ValueError(
                "X in MultilinearRegressor.predict() must use the same namespace and "
                f"device as in fit(): {expected[0]} on {expected[1]}, not {found[0]} "
                f"on {found[1]}."
            )
        return array_namespace(X).astype(X, self.coef_.dtype)

    def _polynomial(self) -> Polynomial:
        """Return the fitted polynomial, with an axis for the targets."""
        single = self.coef_.ndim == 1
        intercept = [self.intercept_] if single else self.intercept_
        return Polynomial(
            array_namespace(self.coef_).asarray(
                intercept, dtype=self.coef_.dtype, device=device(self.coef_)
            ),
            self.coef_[None, :] if single else self.coef_,
            self.product_coef_[None, :] if single else self.product_coef_,
            self.product_weights_,
            self.product_offsets_,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.array_api_support = True
        return tags
