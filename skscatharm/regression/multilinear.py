"""The regressor: parameters, validation, and what was fitted."""

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.utils import Tags, check_random_state
from sklearn.utils._array_api import (
    _convert_to_numpy,
    get_namespace,
    get_namespace_and_device,
)
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from skscatharm.regression.axes import (
    Array,
    Axes,
    Sample,
    distinct_rows,
    principal_axes,
)
from skscatharm.regression.descent import Training, train_products
from skscatharm.regression.polynomial import (
    Polynomial,
    average,
    divide,
    evaluate,
    in_axes,
    in_features,
)
from skscatharm.regression.quadratic import fit_quadratic
from skscatharm.regression.ridge import fit_ridge

_PRODUCTS = 96  # by default, for one target


class MultilinearRegressor(RegressorMixin, BaseEstimator):
    r"""Regression by sums of products of linear forms.

    A target is predicted from features x by

    .. math::

        y = b + \langle a, x \rangle + \sum_{r} \nu_r \prod_{t=1}^{T}
        \big( \langle w_{rt}, x \rangle + c_{rt} \big) ,

    which is linear if there are no products, bilinear for T = 2 and trilinear for T = 3
    [1]_. The features are standardised and turned to their principal axes. These are
    whitened in part, which brings out the small differences between strongly correlated
    features: the coordinate along axis k, with standard deviation :math:`\sigma_k`, is
    scaled to deviation :math:`\sigma_k^p` with some p between 0 and 1.

    With ``degree=1``, this is ridge regression.

    With ``degree=2`` and no number of products given,

    .. math:: \sum_i \omega_i \, (y_i - f(x_i))^2 / \sigma_y^2
        + \alpha \, |f|^2

    is minimised over *all* polynomials of degree 2, a convex problem, with a
    penalty on the squared coefficients of the linear term and, divided by an expected
    size, of all products of two coordinates. The solution is a quadratic form, and
    thus has at most as many products as there are features. The powers p, one for the
    linear term and one for the products, the expected size and :math:`\alpha` are those
    with the least mean absolute leave-one-out error on some hundreds of samples. This
    is the best choice for up to some thousands of samples.

    Otherwise a given number of products is trained by stochastic gradient descent
    (Adam, with a rate that rises and falls once) on the absolute error, starting from
    ridge regression and random products. A part of the samples is set apart, and the
    best epoch for it is taken. This is repeated from several random starts, each with
    another part, and the results are averaged. It is faster than the quadratic form if
    there are many samples, and with ``degree=3`` more exact from some thousands on.

    Parameters
    ----------
    degree : int, default=2
        Number T of factors in a product.
    n_components : int or None, default=None
        Number of products that are trained from one start. None means all products for
        ``degree=2``. For larger degrees it means 96, and 96 more each time that the
        number of targets doubles.
    alpha : float or None, default=None
        Strength of the penalty. None chooses it, for each target. In ridge regression,
        and where training starts, it is the one of
        :class:`~sklearn.linear_model.Ridge` after a
        :class:`~sklearn.preprocessing.StandardScaler`; for the quadratic form,
        coordinates are scaled to a mean squared norm of 1 and targets to variance 1.
    n_starts : int, default=4
        Number of random starts, if products are trained.
    max_epochs : int, default=60
        How often each start uses each sample.
    validation_fraction : float, default=0.05
        Part of the samples that each start sets apart. With 0, the last epoch is taken.
    warm_start : bool, default=False
        Start training from what the previous call of `fit` found, in place of random
        products. The number of products, starts and targets must be the same.
    n_jobs : int or None, default=None
        Number of starts that are trained at a time, in threads. None means 1, or what a
        :func:`joblib.parallel_config` context says; -1 means all processors.
    random_state : int, RandomState instance or None, default=None
        Draws the samples for choosing the penalty of a quadratic form where there are
        more than 800, and all that is random in training.
    verbose : int, default=0
        Show a progress bar if not 0.

    Attributes
    ----------
    intercept_ : float or array of shape (n_targets,)
        The intercept b. An array where y is 2-D, like the following.
    coef_ : array of shape (n_features,) or (n_targets, n_features)
        Coefficients a of the linear term.
    product_coef_ : array of shape (n_products,) or (n_targets, n_products)
        Factors :math:`\nu` of the products. The linear forms have mean square 1 on the
        training data, so that they can be compared.
    product_weights_ : array of shape (n_products, T, n_features)
        Weights w of the features in the products.
    product_offsets_ : array of shape (n_products, T)
        Offsets c.
    alpha_ : float or array of shape (n_targets,)
        The penalty that was used.
    loss_curve_ : array of shape (n_starts, max_epochs) or None
        Mean absolute error on the samples that are trained on, in each epoch, divided
        by the leave-one-out error of ridge regression; its mean over the targets. None
        if no products were trained.
    validation_curve_ : array of shape (n_starts, max_epochs) or None
        The same for the samples that are set apart, after each epoch; NaN if there are
        none.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (`n_features_in_`,)
        Names of the features, where X has names that are all strings.

    Raises
    ------
    ValueError
        If X or y has NaN or infinite entries, no sample has a positive weight, or
        `warm_start` finds other numbers of products, starts, targets or features.

    See Also
    --------
    SolidHarmonicScattering : Coefficients of molecules to predict from.

    Notes
    -----
    Quadratic forms of several targets are fitted one by one, each as if it was the only
    one. Products that are trained are shared by all targets, which takes less time than
    one target after the other. A sample with weight 2 counts as two samples, and the
    order of samples does not matter.

    Up to 8,000 samples, the kernel matrix of the quadratic form is factorised. With
    more, the same problem is solved by preconditioned conjugate gradients, in memory
    and time that grow in proportion to the number of samples.

    With ``sklearn.set_config(array_api_dispatch=True)``, and the environment variable
    ``SCIPY_ARRAY_API=1``, products are trained, and predictions made, where X is: by
    CuPy or PyTorch on a device, for instance. Axes, ridge regression and the quadratic
    form need double precision, and are always computed by NumPy.

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

    A product of two features is a difference of two squares:

    >>> (abs(regressor.product_coef_) > 1e-3).sum()
    np.int64(2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "degree": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, None, closed="left"), None],
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
        self.n_starts = n_starts
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
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
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        xp, _, device = get_namespace_and_device(X)
        features, targets = _to_numpy(X), _to_numpy(y)
        single = targets.ndim == 1
        targets = targets.reshape(len(features), -1)
        weight = _check_sample_weight(
            None if sample_weight is None else _to_numpy(sample_weight),
            features,
            dtype=np.float64,
            ensure_non_negative=True,
        )
        if not weight.any():
            raise ValueError("No sample has a positive weight.")
        features, targets, weight = distinct_rows(features, targets, weight)
        axes = principal_axes(features, weight)
        mean = weight @ targets / weight.sum()
        sample = Sample(
            (features - axes.mean) @ axes.whitening,
            axes.deviations,
            targets - mean,
            weight,
        )
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)

        def to_device(array: Array) -> Any:
            return xp.asarray(array, device=device)

        loss_curve = validation_curve = None
        if self.degree == 1:
            polynomial, alphas, _ = fit_ridge(sample, self.alpha)
        elif self.degree == 2 and self.n_components is None:
            with tqdm(disable=not self.verbose, unit="fit") as bar:
                polynomial, alphas = fit_quadratic(sample, self.alpha, seed, bar.update)
        else:
            starts = self._starts(axes, mean)
            _, alphas, errors = fit_ridge(sample, self.alpha)
            trainings = self._train(sample, alphas, errors, starts, seed, xp, device)
            polynomials, losses, validation_errors = zip(*trainings, strict=True)
            polynomial = average(polynomials)
            loss_curve = to_device(np.stack(losses))
            validation_curve = to_device(np.stack(validation_errors))
        polynomial = polynomial._replace(intercept=polynomial.intercept + mean)
        intercept, slope, coef, weights, offsets = map(
            to_device, in_features(polynomial, axes)
        )
        self.intercept_ = float(intercept[0]) if single else intercept
        self.coef_ = slope[0, :] if single else slope
        self.product_coef_ = coef[0, :] if single else coef
        self.product_weights_, self.product_offsets_ = weights, offsets
        self.alpha_ = float(alphas[0]) if single else to_device(alphas)
        self.loss_curve_, self.validation_curve_ = loss_curve, validation_curve
        return self

    def _starts(self, axes: Axes, mean: Array) -> list[Polynomial | None]:
        """Where each training starts; None stands for a random start."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return [None] * self.n_starts
        previous = Polynomial(*(_to_numpy(array) for array in self._polynomial()))
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
            "features": len(axes.mean),
            "factors": self.degree,
            "products": self.n_starts * self._n_products(len(mean)),
            "starts": self.n_starts,
        }
        if wanted != found:
            raise ValueError(
                f"With warm_start=True, the numbers must be as before: {found}, not "
                f"{wanted}. Set warm_start=False to start anew."
            )
        previous = in_axes(previous, axes)
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
        device: Any,
    ) -> list[Training]:
        with (
            # The matrices are small: threads in each product would wait for each other.
            threadpool_limits(1, user_api="blas"),
            tqdm(
                total=self.n_starts * self.max_epochs,
                disable=not self.verbose,
                unit="epoch",
            ) as bar,
        ):
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
                    device=device,
                    progress=bar.update,
                )
                for k, start in enumerate(starts)
            )

    def _n_products(self, n_targets: int) -> int:
        """Number of products in each training."""
        return self.n_components or round(_PRODUCTS * (1 + np.log2(n_targets)))

    def predict(self, X: Any) -> Any:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
            Predictions.

        Raises
        ------
        ValueError
            If X is an array of another library, or on another device, than those that
            were given to `fit`, with ``array_api_dispatch=True``; or without it, if
            those were not of NumPy.
        """
        check_is_fitted(self)
        if not (
            get_config()["array_api_dispatch"] or isinstance(self.coef_, np.ndarray)
        ):
            raise ValueError(
                "This MultilinearRegressor was fitted to arrays of "
                f"{type(self.coef_).__module__}: predict with "
                "sklearn.set_config(array_api_dispatch=True), as in fit()."
            )
        X = validate_data(self, X, reset=False)
        xp, _, device = get_namespace_and_device(X)
        fitted_xp, _, fitted_device = get_namespace_and_device(self.coef_)
        if (xp, device) != (fitted_xp, fitted_device):
            raise ValueError(
                "X in MultilinearRegressor.predict() must use the same namespace and "
                f"device as in fit(): {fitted_xp.__name__} on {fitted_device}, not "
                f"{xp.__name__} on {device}."
            )
        y = evaluate(xp.astype(X, self.coef_.dtype), self._polynomial())
        return y[:, 0] if self.coef_.ndim == 1 else y

    def _polynomial(self) -> Polynomial:
        """What was fitted, for any number of targets."""
        xp, _, device = get_namespace_and_device(self.coef_)
        single = self.coef_.ndim == 1
        intercept = [self.intercept_] if single else self.intercept_
        return Polynomial(
            xp.asarray(intercept, dtype=self.coef_.dtype, device=device),
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


def _to_numpy(array: Any) -> Array:
    return np.asarray(
        _convert_to_numpy(array, get_namespace(array)[0]), dtype=np.float64
    )
