"""The transformer of images."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from skscatharm._compat import Interval, StrOptions, _fit_context
from skscatharm.batches import in_batches
from skscatharm.engine.arrays import find_library, to_host, to_library_of
from skscatharm.engine.images import ImageTransform, image_batch
from skscatharm.transform.columns import image_column_names
from skscatharm.transform.morlet import image_paths

__all__ = ["ImageScattering"]

_BATCH = 256  # images that a process computes at a time, or fewer
_FORMS = "an array of shape (n_images, height, width), or (n_images, height * width)"


class ImageScattering(TransformerMixin, BaseEstimator):
    r"""Wavelet scattering coefficients of images.

    An image x is convolved with Morlet wavelets of scales j = 0, ..., J - 1 in L
    orientations :math:`\theta`, and the modulus follows, once and once more with a
    larger scale. Coefficients are local averages of the moduli,

    .. math::

        S_0 &= x * \phi_J , \\
        S_1[j, \theta] &= |x * \psi_{j, \theta}| * \phi_J , \\
        S_2[j_1, \theta_1, j_2, \theta_2] &= \big| |x * \psi_{j_1, \theta_1}| *
        \psi_{j_2, \theta_2} \big| * \phi_J , \quad j_1 < j_2 ,

    at every :math:`2^J`-th pixel along both axes. They are stable to small
    displacements and deformations, and keep information that averages lose. There are
    :math:`1 + J L + J (J - 1) L^2 / 2` of them for each such pixel.

    With the vector u of a pixel (row, column), the wavelet of scale j in the direction
    :math:`e = (\cos \theta, \sin \theta)`, :math:`\theta = (L / 2 - 1 - t) \pi / L`, is

    .. math::

        \psi(u) = \frac{\lambda}{2 \pi \sigma_j^2}
        \big(e^{i \xi_j e \cdot u} - \kappa\big)
        e^{-[(e \cdot u)^2 + \lambda^2 |u - (e \cdot u) e|^2] / 2 \sigma_j^2} , \quad
        \sigma_j = 0.8 \cdot 2^j , \; \xi_j = \tfrac{3}{4} \pi \, 2^{-j} , \;
        \lambda = 4 / L ,

    with :math:`\kappa` such that its sum is zero. :math:`\phi_J` is a normalised
    Gaussian of width :math:`0.8 \cdot 2^{J - 1}`. Images are reflected at their
    borders.

    These are the conventions of ``Scattering2D`` of kymatio [2]_, and so is the order
    of the coefficients. The filters of kymatio are larger by :math:`\pi / 3.1415`,
    and so its coefficients of order m by the power m + 1 of that.

    Parameters
    ----------
    J : int, default=2
        Number of scales, from 1 to 10. Averages reach over about ``2**J`` pixels, and
        images have at least as many along both axes.
    L : int, default=8
        Number of orientations, from 1 to 32.
    max_order : {0, 1, 2}, default=2
        Largest order of the coefficients.
    shape : (int, int) or None, default=None
        Height and width of the images. It is needed if `fit` gets images as rows.
    pooling : {"local", "integral"}, default="local"
        Averages around every ``2**J``-th pixel, or integrals of the moduli over the
        whole image. Integrals do not depend on where something is in the image.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the computation.
    backend : {"auto", "numpy", "cupy", "torch"}, default="auto"
        The array library that computes. "auto" is PyTorch if `X` is a tensor on a CUDA
        device, otherwise CuPy if it finds a device, otherwise NumPy.
    names : {"plain", "readable"}, default="plain"
        Style of the names of columns: ``S1_j0_t3_y2_x1``, or ``S1[j=0,t=3,y=2,x=1]``.
    n_jobs : int or None, default=None
        Number of joblib workers; None means 1, or the value of a
        :func:`joblib.parallel_config` context. On a device it has no effect.
    verbose : int, default=0
        Show a progress bar if not 0.

    Attributes
    ----------
    shape_ : (int, int)
        Height and width of the images.

    See Also
    --------
    PlanarScattering : Planar molecules, invariant to rotations.

    References
    ----------
    .. [1] J. Bruna, S. Mallat, "Invariant scattering convolution networks", IEEE
       Transactions on Pattern Analysis and Machine Intelligence 35, 1872 (2013).
       https://doi.org/10.1109/TPAMI.2012.230
    .. [2] M. Andreux et al., "Kymatio: scattering transforms in Python", Journal of
       Machine Learning Research 21, 60 (2020).
       https://jmlr.org/papers/v21/19-047.html

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skscatharm import ImageScattering
    >>> X, y = load_digits(return_X_y=True)
    >>> X.shape
    (1797, 64)
    >>> scattering = ImageScattering(J=2, L=4, shape=(8, 8))
    >>> scattering.fit_transform(X[:10]).shape
    (10, 100)
    >>> scattering.get_feature_names_out()[-1]
    'S2_j0_t3_j1_t3_y1_x1'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "J": [Interval(Integral, 1, 10, closed="both")],
        "L": [Interval(Integral, 1, 32, closed="both")],
        "max_order": [Interval(Integral, 0, 2, closed="both")],
        "shape": [tuple, list, np.ndarray, None],
        "pooling": [StrOptions({"local", "integral"})],
        "dtype": [StrOptions({"float32", "float64"})],
        "backend": [StrOptions({"auto", "numpy", "cupy", "torch"})],
        "names": [StrOptions({"plain", "readable"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        J: int = 2,
        L: int = 8,
        max_order: int = 2,
        *,
        shape: Sequence[int] | None = None,
        pooling: str = "local",
        dtype: str = "float32",
        backend: str = "auto",
        names: str = "plain",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.J = J
        self.L = L
        self.max_order = max_order
        self.shape = shape
        self.pooling = pooling
        self.dtype = dtype
        self.backend = backend
        self.names = names
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check parameters and images, and set the shape of the images.

        Parameters
        ----------
        X : array-like of shape (n_images, height, width) or (n_images, height * width)
            Images: real numbers of any range.
        y : None
            Ignored.

        Returns
        -------
        self : ImageScattering
        """
        shape = None if self.shape is None else _check_shape(self.shape)
        images = _check_images(to_host(X), shape)
        self.shape_ = (images.shape[1], images.shape[2])
        _check_size(self.shape_, self.J)
        return self

    def transform(self, X: Any) -> Any:
        """Compute the coefficients of images.

        Parameters
        ----------
        X : array-like of shape (n_images, height, width) or (n_images, height * width)
            Images of the shape that `fit` has seen.

        Returns
        -------
        coefficients : ndarray of shape (n_images, n_coefficients)
            In the order of :meth:`get_feature_names_out`. If `X` is an array of CuPy or
            PyTorch, so are they, on the same device.

        Raises
        ------
        ValueError
            If `X` has another shape, or an image has NaN or infinite pixels.
        ImportError, RuntimeError
            If the library or the device that `backend` asks for is missing.
        """
        check_is_fitted(self)
        self._validate_params()
        library = find_library(self.backend, X)
        images = _check_images(to_host(X), self.shape_)
        coefficients = in_batches(
            partial(image_batch, transform=self._transform(), library=library),
            images,
            on_device=library.on_device,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            largest=_BATCH,
            unit="image",
        )
        return to_library_of(X, coefficients)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the coefficients, in the order of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str
            Such as ``S2_j0_t3_j1_t5_y0_x1``: order 2, scales 0 and 1, orientations 3
            and 5, row 0 and column 1.
        """
        check_is_fitted(self)
        self._validate_params()
        names = image_column_names(
            image_paths(self.J, self.L, self.max_order),
            self._transform().pooled,
            self.names,
        )
        return np.array(names, dtype=object)

    def _transform(self) -> ImageTransform:
        _check_size(self.shape_, self.J)
        return ImageTransform(
            self.shape_,
            int(self.J),
            int(self.L),
            int(self.max_order),
            self.pooling,
            self.dtype,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _check_shape(shape: Sequence[Any]) -> tuple[int, int]:
    """Raise unless a shape has two positive integers."""
    if len(shape) != 2 or not all(
        isinstance(n, Integral) and int(n) > 0 for n in shape
    ):
        raise ValueError(
            f"shape must be height and width, two positive integers; got {shape!r}."
        )
    height, width = shape
    return int(height), int(width)


def _check_size(shape: tuple[int, int], J: int) -> None:
    """Raise if images are too small for the largest scale."""
    if min(shape) < 2**J:
        raise ValueError(
            f"Images of {shape[0]} x {shape[1]} pixels are smaller than 2**J = {2**J}; "
            "choose a smaller J. The axes of X are images, rows and columns."
        )


def _check_images(X: Any, shape: tuple[int, int] | None) -> NDArray[np.floating[Any]]:
    """Check images and return them with three axes.

    `shape` is that of an image, if it is known.
    """
    try:
        images = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"X holds images of different sizes ({error}); pass {_FORMS}."
        ) from error
    if images.dtype.kind not in "fiub":
        raise TypeError(f"X has the type {images.dtype}; pass real numbers: {_FORMS}.")
    if images.ndim == 4:
        raise ValueError(
            f"X has shape {images.shape}: colour images are not supported. Pass the "
            "channels one by one, as X[..., 0], or grey images, as X.mean(axis=-1)."
        )
    if images.ndim not in (2, 3):
        hint = " For a single image, pass X[np.newaxis]." if images.ndim == 1 else ""
        raise ValueError(f"X has shape {images.shape}; pass {_FORMS}.{hint}")
    if len(images) == 0:
        raise ValueError("X holds no images; pass at least one.")
    if images.ndim == 2:
        if shape is None:
            raise ValueError(
                f"X has images as rows of {images.shape[1]} pixels; set shape=(height, "
                "width). For a single image, pass X[np.newaxis]."
            )
        if images.shape[1] != shape[0] * shape[1]:
            raise ValueError(
                f"X has rows of {images.shape[1]} pixels, but images of shape {shape} "
                f"have {shape[0] * shape[1]}; pass {_FORMS}."
            )
        images = images.reshape(-1, *shape)
    if shape is not None and images.shape[1:] != shape:
        raise ValueError(
            f"X has images of shape {images.shape[1:]}, not {shape}; pass images of "
            "the same shape, or fit again."
        )
    if images.dtype.kind != "f":
        return images.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(
            f"Image {bad[0]} has NaN or infinite pixels; replace them, for example by "
            "zeros, or leave the image out."
        )
    return images
