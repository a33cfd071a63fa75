"""The transformer of densities on a regular grid."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from skscatharm._compat import Interval, Options, StrOptions, _fit_context
from skscatharm.batches import in_batches
from skscatharm.engine import check_accuracy
from skscatharm.engine.arrays import Library, find_library, to_host, to_library_of
from skscatharm.engine.voxels import check_voxels, least_sigma, voxel_batch
from skscatharm.transform.columns import arrange, column_names
from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform, check_exponents

__all__ = ["VoxelScattering"]

_Array = NDArray[np.float64]

_BATCH = 8  # samples that a process computes at a time, or fewer
_NEGATIVE = 1e-6  # of the largest value: rounding errors, which become 0
_FORMS = (
    "an array of shape (n_samples, n_channels, n_x, n_y, n_z), or a sequence of arrays "
    "of shape (n_channels, n_x, n_y, n_z)"
)


class VoxelScattering(TransformerMixin, BaseEstimator):
    r"""Solid harmonic wavelet scattering coefficients of densities on a grid.

    The densities :math:`\rho_k` of the channels are known on a regular grid of voxels:
    an electron density from a cube file, or any other shape. They take the place of
    those of atoms in :class:`SolidHarmonicScattering`, and all else is as there: the
    wavelets have the scales :math:`s_j = 2^j \sigma`, and the coefficients are the
    integrals of :math:`\rho^q`, :math:`U_1^q` and :math:`U_2^q`, in Å^(3 - 3q) times
    the unit of charge to the power q. If the densities are those of the atoms of a
    molecule, with Gaussians of the same `sigma`, so are the coefficients.

    A grid is a sample of a smooth function. Fields are evaluated between the voxels
    where that is needed, and reach beyond the grid, unless the density is periodic.

    Parameters
    ----------
    J : int, default=2
        Largest scale, at most 10: the scales are ``sigma * 2**j`` for j = 0, ..., J.
    L : int, default=3
        Largest degree of the wavelets, at most 20.
    Q : sequence of float, default=(0.5, 1.0, 2.0, 3.0, 4.0)
        Pooling exponents, from 0.5 to 32.
    sigma : float, default=0.5
        Smallest scale of the wavelets, in Å. With the default exponents and `tol`, it
        is at least 2.2 times the spacing.
    spacing : float or array-like of shape (3,) or (3, 3), default=0.2
        Distances of neighbouring voxels in Å: one for all axes, or one for each axis.
        For periodic densities, it may be the three edges of a voxel, one a row.
    periodic : bool, default=False
        Whether densities repeat along all axes. The period is the number of voxels
        times the spacing. Integrals are over one period.
    channels : sequence of str or None, default=None
        Names of the channels. None means "c0", "c1" and so on.
    max_order : {0, 1, 2}, default=2
        Largest order of the coefficients.
    tol : float, default=1e-5
        Relative error that is allowed, from 1e-6 to 1e-2.
    softening : float, default=4
        Softening of the moduli, in units of charge: 0, or from 1e-6 to 1e4.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the fields. Periodic densities, and exponents below 1 or above 4,
        are computed in double precision.
    backend : {"auto", "numpy", "cupy", "torch"}, default="auto"
        The array library that computes. "auto" is PyTorch if `X` is a tensor on a CUDA
        device, otherwise CuPy if it finds a device, otherwise NumPy.
    names : {"plain", "readable"}, default="plain"
        Style of the names of columns: ``S1_c0_j0_l1_q2``, or ``S1[c0,j=0,l=1,q=2]``.
    n_jobs : int or None, default=None
        Number of joblib workers; None means 1, or the value of a
        :func:`joblib.parallel_config` context. On a device it has no effect.
    verbose : int, default=0
        Show a progress bar if not 0.

    Attributes
    ----------
    n_channels_ : int
        Number of channels.

    See Also
    --------
    SolidHarmonicScattering : Molecules.

    References
    ----------
    .. [1] M. Eickenberg, G. Exarchakis, M. Hirn, S. Mallat, L. Thiry, "Solid harmonic
       wavelet scattering for predictions of molecule properties", J. Chem. Phys. 148,
       241732 (2018). https://doi.org/10.1063/1.5023798

    Examples
    --------
    Two Gaussians at a distance of 1.2 Å, in one channel:

    >>> import numpy as np
    >>> from skscatharm import VoxelScattering
    >>> x, y, z = np.meshgrid(*[0.25 * np.arange(-16, 17)] * 3, indexing="ij")
    >>> density = sum(
    ...     np.exp(-((x - place) ** 2 + y**2 + z**2) / (2 * 0.6**2))
    ...     for place in (-0.6, 0.6)
    ... )
    >>> scattering = VoxelScattering(J=1, L=1, Q=(1, 2), sigma=0.6, spacing=0.25)
    >>> scattering.fit_transform(density[np.newaxis, np.newaxis]).shape
    (1, 14)
    >>> scattering.get_feature_names_out()[-1]
    'S2_c0_j0_j1_l1_q2'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "J": [Interval(Integral, 0, 10, closed="both")],
        "L": [Interval(Integral, 0, 20, closed="both")],
        "Q": "no_validation",
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "spacing": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "periodic": ["boolean"],
        "channels": [list, tuple, None],
        "max_order": [Interval(Integral, 0, 2, closed="both")],
        "tol": [Interval(Real, 1e-6, 1e-2, closed="both")],
        "softening": [Options(Real, {0}), Interval(Real, 1e-6, 1e4, closed="both")],
        "dtype": [StrOptions({"float32", "float64"})],
        "backend": [StrOptions({"auto", "numpy", "cupy", "torch"})],
        "names": [StrOptions({"plain", "readable"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        J: int = 2,
        L: int = 3,
        Q: Sequence[float] = (0.5, 1.0, 2.0, 3.0, 4.0),
        sigma: float = 0.5,
        *,
        spacing: Any = 0.2,
        periodic: bool = False,
        channels: Sequence[str] | None = None,
        max_order: int = 2,
        tol: float = 1e-5,
        softening: float = 4.0,
        dtype: str = "float32",
        backend: str = "auto",
        names: str = "plain",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.J = J
        self.L = L
        self.Q = Q
        self.sigma = sigma
        self.spacing = spacing
        self.periodic = periodic
        self.channels = channels
        self.max_order = max_order
        self.tol = tol
        self.softening = softening
        self.dtype = dtype
        self.backend = backend
        self.names = names
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check parameters and densities, and set the number of channels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels, n_x, n_y, n_z) or sequence
            Densities, as for :meth:`transform`.
        y : None
            Ignored.

        Returns
        -------
        self : VoxelScattering
        """
        densities, _, _ = self._check(to_host(X))
        self.n_channels_ = len(densities[0])
        self._channel_names()
        return self

    def transform(self, X: Any) -> Any:
        """Compute the coefficients of densities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels, n_x, n_y, n_z) or sequence
            Densities in charge per Å^3, not negative; or a sequence of arrays of shape
            (n_channels, n_x, n_y, n_z), whose grids may differ.

        Returns
        -------
        coefficients : ndarray of shape (n_samples, n_coefficients)
            In the order of :meth:`get_feature_names_out`. If `X` is an array of CuPy or
            PyTorch, so are they, on the same device.

        Raises
        ------
        TypeError
            If `X` does not hold real numbers.
        ValueError
            If `X` has another shape, a density is negative, NaN or infinite, the
            spacing is too coarse for `sigma`, or a sample is too large.
        ImportError, RuntimeError
            If the library or the device that `backend` asks for is missing.
        """
        check_is_fitted(self)
        self._validate_params()
        library: Library = find_library(self.backend, X)
        densities, vectors, transform = self._check(to_host(X))
        if len(densities[0]) != self.n_channels_:
            raise ValueError(
                f"X has {len(densities[0])} channels, but VoxelScattering was fitted "
                f"to {self.n_channels_}: pass as many, or fit again."
            )
        coefficients = in_batches(
            partial(
                voxel_batch,
                vectors=vectors,
                periodic=self.periodic,
                transform=transform,
                library=library,
            ),
            densities,
            on_device=library.on_device,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            largest=_BATCH,
            unit="sample",
        )
        return to_library_of(X, arrange(coefficients, transform.paths))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the coefficients, in the order of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str
            Such as ``S0_c0_q0p5`` and ``S2_c1_j0_j1_l2_q1``.
        """
        check_is_fitted(self)
        self._validate_params()
        names = column_names(
            self._channel_names(),
            scattering_paths(self.J, self.L, self.max_order),
            check_exponents(self.Q),
            self.names,
        )
        return np.array(names, dtype=object)

    def _channel_names(self) -> list[str]:
        if self.channels is None:
            return [f"c{i}" for i in range(self.n_channels_)]
        names = [str(name) for name in self.channels]
        if len(names) != self.n_channels_ or len(set(names)) < len(names):
            raise ValueError(
                f"channels={self.channels!r} do not name the {self.n_channels_} "
                "channels of X: pass one name for each, all different, or None."
            )
        return names

    def _check(self, X: Any) -> tuple[list[_Array], _Array, Transform]:
        """Raise whatever there is to raise; return densities, voxels, and transform."""
        transform = Transform(
            paths=tuple(scattering_paths(self.J, self.L, self.max_order)),
            exponents=check_exponents(self.Q),
            sigma=float(self.sigma),
            tol=float(self.tol),
            softening=float(self.softening),
            dtype=self.dtype,
            engine="fourier",
        )
        check_accuracy(transform)
        vectors = _check_spacing(self.spacing, self.periodic)
        _check_sigma(vectors, transform)
        densities = _check_densities(X)
        check_voxels(densities, vectors, self.periodic, transform)
        return densities, vectors, transform

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.no_validation = False
        tags.input_tags.two_d_array = False
        tags.input_tags.positive_only = True
        return tags


def _check_spacing(spacing: Any, periodic: bool) -> _Array:
    """Return the edges of a voxel, one a row."""
    given = np.asarray(spacing, dtype=np.float64)
    if given.shape in ((), (3,)):
        vectors = np.diag(np.broadcast_to(given, 3))
        good = bool(np.all(given > 0))
    else:
        vectors = given
        good = given.shape == (3, 3) and (
            periodic or np.array_equal(given, np.diag(np.diag(given)))
        )
    if not (good and np.isfinite(vectors).all() and abs(np.linalg.det(vectors)) > 0):
        raise ValueError(
            f"spacing={spacing!r} is no spacing of voxels: pass a positive number in "
            "Å, or three of them; or, with periodic=True, the edges of a voxel as an "
            "array of shape (3, 3)."
        )
    return np.array(vectors)


def _check_sigma(vectors: _Array, transform: Transform) -> None:
    """Raise if voxels are too coarse for the smallest wavelets."""
    # Distance of the planes of voxels that are farthest apart.
    coarsest = float((1 / np.linalg.norm(np.linalg.inv(vectors), axis=0)).max())
    least = least_sigma(coarsest, transform)
    if transform.sigma < least and len(transform.paths) > 1:
        finest = coarsest * transform.sigma / least
        raise ValueError(
            f"A spacing of {coarsest:.3g} Å is too coarse for sigma="
            f"{transform.sigma:g}: choose sigma={np.ceil(100 * least) / 100:.4g} or "
            f"more, a spacing of {finest:.3g} Å or less, a larger tol, or no exponents "
            "below 1."
        )


def _check_densities(X: Any) -> list[_Array]:
    """Check densities, and return each with the axes channel, x, y and z."""
    several = isinstance(X, list | tuple) and len({np.shape(x) for x in X}) > 1
    samples = [np.asarray(x) for x in X] if several else np.asarray(X)
    shape = getattr(samples, "shape", None)
    if shape is not None and len(shape) != 5:
        hint = {
            3: " For a single density, pass X[np.newaxis, np.newaxis].",
            4: " For a single channel, pass X[:, np.newaxis]; for a single sample, "
            "X[np.newaxis].",
        }.get(len(shape), "")
        raise ValueError(f"X has shape {shape}; pass {_FORMS}.{hint}")
    if len(samples) == 0:
        raise ValueError("X holds no densities; pass at least one.")
    densities: list[_Array] = []
    for i, sample in enumerate(samples):
        if sample.dtype.kind not in "fiub":
            raise TypeError(
                f"Sample {i} has the type {sample.dtype}; pass real numbers: {_FORMS}."
            )
        if sample.ndim != 4 or sample.size == 0:
            raise ValueError(f"Sample {i} has shape {sample.shape}; pass {_FORMS}.")
        if len(sample) != len(samples[0]):
            raise ValueError(
                f"Sample {i} has {len(sample)} channels, and sample 0 has "
                f"{len(samples[0])}: pass the same channels for all."
            )
        density = np.asarray(sample, dtype=np.float64)
        if not np.isfinite(density).all():
            raise ValueError(
                f"Sample {i} has NaN or infinite values; replace them, for example by "
                "zeros, or leave the sample out."
            )
        lowest, highest = float(density.min()), float(density.max())
        if lowest < -_NEGATIVE * max(highest, 0.0):
            raise ValueError(
                f"Sample {i} has negative densities, down to {lowest:.3g}: pass the "
                "positive and the negative part as two channels, np.maximum(X, 0) and "
                "np.maximum(-X, 0)."
            )
        densities.append(np.maximum(density, 0.0))
    return densities
