"""The transformer: molecules in, invariant coefficients out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, Options, StrOptions

from skscatharm.batches import in_batches
from skscatharm.engine import (
    check_accuracy,
    find_engine,
    molecule_memory,
    scattering_batch,
)
from skscatharm.engine.arrays import Library, find_library, to_host, to_library_of
from skscatharm.store import CoefficientStore
from skscatharm.store.files import absolute_folder
from skscatharm.store.recall import known_keys, recall
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.columns import arrange, column_names
from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform

__all__ = ["SETTINGS", "SolidHarmonicScattering"]

_MEMORY = 4 * 2**30
_DEFAULT_EXPONENTS = (0.5, 1.0, 2.0, 3.0)


class SolidHarmonicScattering(TransformerMixin, BaseEstimator):
    r"""Solid harmonic wavelet scattering coefficients of molecules.

    A molecule with nuclear charges :math:`Z_n` at :math:`r_n` becomes one density for
    each channel k, with weights w and normalised Gaussians g,

    .. math:: \rho_k(u) = \sum_n w_k(Z_n) \, g_\sigma(u - r_n) .

    It is convolved with solid harmonic wavelets of scales :math:`s_j = 2^j \sigma`,
    j = 0, ..., J, and degrees l = 0, ..., L,

    .. math::

        \psi_{lmj}(u) = c_l \, s_j^{-3} \left(\frac{|u|}{s_j}\right)^l
        e^{-|u|^2 / 2 s_j^2} \, Y_{lm}\!\left(\frac{u}{|u|}\right) ,

    and the modulus over the orders m is taken, once and once more with a larger scale:

    .. math::

        U_1[j, l] &= \Big(\sum_m |\rho * \psi_{lmj}|^2\Big)^{1/2} , \\
        U_2[j_1, j_2, l] &= \Big(\sum_m |U_1[j_1, l] * \psi_{lmj_2}|^2\Big)^{1/2} ,
        \quad j_1 < j_2 .

    The coefficients are the integrals of :math:`\rho^q`, :math:`U_1^q` and
    :math:`U_2^q`. They do not change when a molecule is shifted, turned, mirrored or
    its atoms are given in another order, and a coefficient does not depend on which
    others are computed with it. With J = 2, L = 3, four exponents and four channels
    there are 16 + 192 + 192 = 400.

    Lengths are in Å, so the coefficients are in units of Å^(3 - 3q) times those of the
    weights to the power q.

    With a positive `softening`, the modulus of degrees 1 and more is softened to
    :math:`(|U|^2 + \epsilon^2)^{1/2} - \epsilon`, and its powers to
    :math:`(|U|^2 + \epsilon^2)^{q/2} - \epsilon^q`. Here :math:`\epsilon` is
    `softening` times the largest modulus that an atom of weight 1 has. These are smooth
    where a field vanishes: sums over points converge fast, and the coefficients are
    exact enough for regressions to use the small differences between them.

    Parameters
    ----------
    J : int, default=2
        Largest scale: the scales are ``sigma * 2**j`` for j = 0, ..., J.
    L : int, default=3
        Largest degree of the wavelets.
    Q : sequence of float, default=(0.5, 1.0, 2.0, 3.0)
        Pooling exponents, each 0.5 or more.
    sigma : float, default=0.22
        Width of the Gaussian that stands for an atom, in Å. The time for a molecule
        grows like ``sigma**-3``.
    channels : sequence of str or mapping, default=all standard channels
        Densities, by the names of :data:`~skscatharm.STANDARD_CHANNELS`: "nuclear",
        "valence", "core" and "bonding"; or own ones, as a mapping from a name to a
        table {Z: weight}.
    max_order : {0, 1, 2}, default=2
        Largest order of the coefficients.
    tol : float, default=2e-4
        Relative error that the worst coefficient of a typical molecule may have; most
        are far more exact. The number of points grows like ``tol**-0.8``, and with a
        `softening` of 4 or more like ``tol**-0.45``.
    softening : float, default=0
        Size of :math:`\epsilon` in units of the weights: 0, which is the transform as
        it was published, or from 1e-6 to 1e4. About as large as the weights is good.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the fields. The smallest tolerances take "float64", and so do all
        exponents below 1 with the Fourier engine, whatever is asked for.
    engine : {"auto", "separable", "fourier"}, default="auto"
        How the fields are computed: as products of factors along the axes, which is
        fast on a CPU, or by FFTs of boxes around the molecules. "auto" is "fourier" on
        a device and "separable" on the CPU.
    backend : {"auto", "numpy", "cupy", "torch"}, default="auto"
        The array library that computes. "auto" is CuPy if it finds a device and NumPy
        otherwise; or PyTorch, if `X` is a tensor on a CUDA device. PyTorch computes
        where `X` is if that is a tensor, otherwise on a CUDA device if there is one.
    memory : str, path-like, CoefficientStore or None, default=None
        Folder where coefficients are kept, so that each is computed once, whichever
        fold, candidate or process asks for it. The default exponents and second-order
        coefficients up to the scale J + 2 are computed and kept as well, which takes
        a third to two thirds longer the first time. Pass a :class:`CoefficientStore` to
        change this, or to limit the size. ``~`` is the home folder. A relative path
        starts from the current folder, and becomes absolute when the transformer is
        pickled, as for worker processes.
    n_jobs : int or None, default=None
        Number of molecules that are computed in parallel, by joblib. None means 1, or
        what a :func:`joblib.parallel_config` context says; -1 means all processors.
        On a device it has no effect: one process fills it with as many molecules at a
        time as its memory holds.
    verbose : int, default=0
        Show a progress bar if not 0.

    See Also
    --------
    MultilinearRegressor : Predict properties from the coefficients.
    SETTINGS : Parameters that serve well, by name.

    Notes
    -----
    The transformer learns nothing from data: `fit` only checks parameters and input,
    and `transform` can be called without.

    References
    ----------
    .. [1] M. Eickenberg, G. Exarchakis, M. Hirn, S. Mallat, L. Thiry, "Solid harmonic
       wavelet scattering for predictions of molecule properties", J. Chem. Phys. 148,
       241732 (2018). https://doi.org/10.1063/1.5023798

    Examples
    --------
    >>> from skscatharm import SolidHarmonicScattering
    >>> hydrogen = [[1, 0, 0, 0], [1, 0, 0, 0.74], [0, 0, 0, 0]]
    >>> water = [[8, 0, 0, 0.12], [1, 0, 0.76, -0.48], [1, 0, -0.76, -0.48]]
    >>> scattering = SolidHarmonicScattering(J=1, L=1, Q=(1, 2), channels=["nuclear"])
    >>> scattering.fit_transform([hydrogen, water]).shape
    (2, 14)
    >>> scattering.get_feature_names_out()[[0, 2, -1]]
    array(['S0[nuclear,q=1]', 'S1[nuclear,j=0,l=0,q=1]',
           'S2[nuclear,j=(0,1),l=1,q=2]'], dtype=object)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "J": [Interval(Integral, 0, None, closed="left")],
        "L": [Interval(Integral, 0, None, closed="left")],
        "Q": ["array-like"],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "channels": [list, tuple, Mapping],
        "max_order": [Interval(Integral, 0, 2, closed="both")],
        "tol": [Interval(Real, 0, 1e-2, closed="neither")],
        # Outside of this interval, numbers would leave the range of float32.
        "softening": [Options(Real, {0}), Interval(Real, 1e-6, 1e4, closed="both")],
        "dtype": [StrOptions({"float32", "float64"})],
        "engine": [StrOptions({"auto", "separable", "fourier"})],
        "backend": [StrOptions({"auto", "numpy", "cupy", "torch"})],
        "memory": [str, os.PathLike, CoefficientStore, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        J: int = 2,
        L: int = 3,
        Q: Sequence[float] = _DEFAULT_EXPONENTS,
        sigma: float = 0.22,
        *,
        channels: Sequence[str] | Mapping[str, Mapping[int, float]] = (
            "nuclear",
            "valence",
            "core",
            "bonding",
        ),
        max_order: int = 2,
        tol: float = 2e-4,
        softening: float = 0.0,
        dtype: str = "float32",
        engine: str = "auto",
        backend: str = "auto",
        memory: str | os.PathLike[str] | CoefficientStore | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.J = J
        self.L = L
        self.Q = Q
        self.sigma = sigma
        self.channels = channels
        self.max_order = max_order
        self.tol = tol
        self.softening = softening
        self.dtype = dtype
        self.engine = engine
        self.backend = backend
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the molecules.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules: columns Z, x, y, z with positions in Å, padded with rows of
            zeros; or `ase.Atoms`.
        y : None
            Ignored.

        Returns
        -------
        self : SolidHarmonicScattering

        Raises
        ------
        TypeError, ValueError, ImportError, RuntimeError
            If a parameter is invalid, or as :meth:`transform`.
        """
        library = find_library(self.backend, X)
        molecules = to_host(X)
        check = partial(self._check, molecules, library)
        if self.memory is None:
            check()
        else:
            tables = resolve_channels(self.channels)
            known_keys(molecules, check, tables, self._transform(library).settings)
        return self

    def transform(self, X: Any) -> Any:
        """Compute the coefficients of molecules.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules: columns Z, x, y, z with positions in Å, padded with rows of
            zeros; or `ase.Atoms`.

        Returns
        -------
        coefficients : ndarray of shape (n_molecules, n_coefficients)
            In the order of :meth:`get_feature_names_out`. If `X` is an array of CuPy or
            PyTorch, so are they, on the same device.

        Raises
        ------
        TypeError
            If `X` is neither of the two forms.
        ValueError
            If a molecule cannot be computed. The message names it, and says what to
            do. All molecules are checked before the first is computed.
        ImportError
            If the library that `backend` asks for is not installed.
        RuntimeError
            If `backend` is "cupy" and there is no device.
        """
        self._validate_params()
        library = find_library(self.backend, X)
        molecules = to_host(X)
        transform = self._transform(library)
        check = partial(self._check, molecules, library)
        by_batch = partial(
            in_batches,
            on_device=library.on_device,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        store = self._store()
        if store is None:
            compute = partial(scattering_batch, transform=transform, library=library)
            coefficients = by_batch(compute, *check())
        else:
            coefficients = recall(
                store,
                molecules,
                check,
                resolve_channels(self.channels),
                transform,
                self._wider(transform, store),
                library,
                by_batch,
            )
        return to_library_of(X, arrange(coefficients, transform.paths))

    def _store(self) -> CoefficientStore | None:
        if self.memory is None or isinstance(self.memory, CoefficientStore):
            return self.memory
        return CoefficientStore(self.memory)

    def _wider(self, transform: Transform, store: CoefficientStore) -> Transform:
        """Add the coefficients that a store gets while they cost little."""
        J = self.J + store.ahead
        return replace(
            transform,
            paths=tuple(scattering_paths(J, self.L, self.max_order)),
            exponents=tuple(sorted({*transform.exponents, *_DEFAULT_EXPONENTS})),
        )

    def __getstate__(self) -> dict[str, Any]:
        # In another process, a relative path would start from another folder.
        state = {**super().__getstate__()}
        if isinstance(self.memory, str | os.PathLike) and str(self.memory):
            state["memory"] = absolute_folder(state["memory"])
        return state

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the coefficients, in the order of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str
            Such as ``S0[nuclear,q=0.5]``, ``S1[nuclear,j=0,l=1,q=2]`` and
            ``S2[valence,j=(0,1),l=2,q=1]``.
        """
        names = column_names(
            list(resolve_channels(self.channels)),
            scattering_paths(self.J, self.L, self.max_order),
            self._exponents(),
        )
        return np.array(names, dtype=object)

    def _exponents(self) -> list[float]:
        Q = np.asarray(self.Q, dtype=np.float64)
        if Q.ndim != 1 or len(Q) == 0:
            raise ValueError(f"Q must be a sequence of exponents; got {self.Q!r}.")
        if not np.all(np.isfinite(Q) & (Q >= 0.5)):
            raise ValueError(f"The exponents in Q must be 0.5 or more; got {self.Q!r}.")
        if len(np.unique(Q)) < len(Q):
            raise ValueError(f"Q holds an exponent twice: {self.Q!r}.")
        return Q.tolist()

    def _transform(self, library: Library) -> Transform:
        return Transform(
            paths=tuple(scattering_paths(self.J, self.L, self.max_order)),
            exponents=tuple(self._exponents()),
            sigma=float(self.sigma),
            tol=float(self.tol),
            softening=float(self.softening),
            dtype=self.dtype,
            engine=find_engine(self.engine, library),
        )

    def _check(
        self, X: Any, library: Library
    ) -> tuple[list[Structure], list[NDArray[np.float64]]]:
        """Raise whatever there is to raise, before anything takes time."""
        tables = resolve_channels(self.channels)
        structures = check_structures(X)
        weights = channel_weights(tables, structures)
        transform, store = self._transform(library), self._store()
        if store is not None:
            transform = self._wider(transform, store)

        check_accuracy(transform)

        # Few molecules, if any, are so large that it takes a closer look.
        sizes = np.array([np.ptp(s.positions, axis=0).max() for s in structures])
        order = np.argsort(-sizes)
        for i in order.tolist():
            structure = structures[i]
            memory = molecule_memory(structure, weights[i], transform, library)
            if memory > _MEMORY:
                other = " or engine='separable'" * (transform.engine == "fourier")
                raise ValueError(
                    f"Molecule {i} extends over {sizes[i]:.3g} Å: with sigma="
                    f"{self.sigma:g} its grid would take {memory / 2**30:.3g} GiB "
                    f"({_MEMORY / 2**30:g} GiB are allowed). If the coordinates "
                    f"are in Å, choose a larger sigma{other}."
                )
            if memory < _MEMORY / 8:
                break
        return structures, weights

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


_PUBLISHED = {
    name: signature(SolidHarmonicScattering).parameters[name].default
    for name in ("J", "L", "Q", "sigma", "channels", "max_order", "tol", "softening")
}

#: Parameters of :class:`SolidHarmonicScattering` that serve well, by name:
#: ``SolidHarmonicScattering(**SETTINGS["soft"])``.
#:
#: ``published``
#:     The 384 coefficients of orders 1 and 2 of the paper, and 16 of order 0. These are
#:     the defaults.
#: ``soft``
#:     Softened moduli, whose coefficients are far more exact in about the same time,
#:     and five exponents: 500 coefficients. Properties are predicted best from these.
SETTINGS: dict[str, dict[str, Any]] = {
    "published": _PUBLISHED,
    "soft": _PUBLISHED
    | {"Q": (0.5, 1.0, 2.0, 3.0, 4.0), "tol": 1e-5, "softening": 4.0},
}
