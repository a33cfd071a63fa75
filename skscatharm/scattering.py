"""The transformer: molecules in, invariant coefficients out."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_array, check_scalar, gen_batches

from skscatharm._compat import Interval, Options, StrOptions, _fit_context
from skscatharm.batches import each_batch, in_batches
from skscatharm.derivatives import (
    check_size,
    column_gradient,
    column_jacobian,
    linear_expansion,
)
from skscatharm.engine import (
    check_accuracy,
    check_molecules,
    find_engine,
    scattering_batch,
)
from skscatharm.engine.arrays import (
    Library,
    differentiable,
    find_library,
    requires_gradient,
    to_host,
    to_library_of,
)
from skscatharm.engine.protocol import Derivatives
from skscatharm.fields import choose_paths, compute_fields
from skscatharm.store import CoefficientStore, open_store
from skscatharm.store.files import absolute_folder
from skscatharm.store.recall import density_keys, jacobian_names, known_keys, recall
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.columns import (
    arrange,
    column_names,
    list_columns,
    path_names,
)
from skscatharm.transform.paths import field_pairs, scattering_paths
from skscatharm.transform.transform import Transform, check_exponents

__all__ = ["SETTINGS", "MoleculeScattering", "SolidHarmonicScattering"]

_Tables = Mapping[str, Mapping[int, float]]

_CHANNELS = ("nuclear", "valence", "core", "bonding")
_DEFAULT: dict[str, Any] = {
    "J": 2,
    "L": 3,
    "Q": (0.5, 1.0, 2.0, 3.0, 4.0),
    "sigma": 0.22,
    "channels": _CHANNELS,
    "max_order": 2,
    "tol": 1e-5,
    "softening": 4.0,
    "mixed_moments": True,
    "mixed_Q": (2.0,),
}
_SOFT = _DEFAULT | {"mixed_moments": False}

#: Parameters of :class:`SolidHarmonicScattering` that serve well, by name:
#: ``SolidHarmonicScattering(**SETTINGS["published"])``.
#:
#: ``mixed``
#:     The defaults: softened moduli, five exponents and mixed moments. They predict
#:     best. 764 coefficients.
#: ``soft``
#:     The same without mixed moments, 500 coefficients: they take about half of the
#:     time, and models of energies need about twice as many molecules.
#: ``published``
#:     The 384 coefficients of orders 1 and 2 of the paper, and 16 of order 0, without
#:     softening.
#: ``potential``
#:     Those of :class:`ScatteringPotential`, which adds :func:`element_channels`: wide
#:     atoms, no core electrons, mixed moments in place of order 2, and double
#:     precision. 909 coefficients.
SETTINGS: dict[str, dict[str, Any]] = {
    "mixed": _DEFAULT,
    "soft": _SOFT,
    "published": _SOFT | {"Q": (0.5, 1.0, 2.0, 3.0), "tol": 2e-4, "softening": 0.0},
    "potential": _DEFAULT
    | {
        "J": 1,
        "Q": (1.0, 2.0, 4.0),
        "sigma": 0.45,
        "channels": ("nuclear", "valence", "bonding"),
        "max_order": 1,
        "tol": 5e-5,
        "mixed_moments": "channels",
        "mixed_Q": (1.0, 2.0, 4.0),
        "dtype": "float64",
    },
}


class MoleculeScattering(TransformerMixin, BaseEstimator):
    """Base of the transformers of molecules: all but their parameters.

    A transformer has the parameters of :class:`SolidHarmonicScattering`, except
    `engine` and `normalize`, and the method `_engine`. It may have a limit of its own
    on molecules: `_check` raises if they exceed it, and `_limits` are the parameters of
    the limit.
    """

    _limits: ClassVar[tuple[str, ...]] = ()
    _window: float | None = None  # width of windows around atoms
    _batch = 32  # molecules that a process computes at a time, or fewer

    if TYPE_CHECKING:  # the parameters, which each transformer documents
        J: int
        L: int
        Q: Sequence[float]
        sigma: float
        channels: Sequence[str] | Mapping[str, Mapping[int, float]]
        max_order: int
        tol: float
        softening: float
        dtype: str
        backend: str
        names: str
        memory: str | os.PathLike[str] | CoefficientStore | None
        n_jobs: int | None
        verbose: int

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check parameters and molecules; `transform` works without it.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, in any form that
            :func:`~skscatharm.structures.check_structures` accepts.
        y : None
            Ignored.

        Returns
        -------
        self : estimator
        """
        task = _Task(self, X)
        if self.memory is None:
            task.check()
        else:
            known_keys(
                task.X, task.check, task.tables, task.transform.settings, task.limits
            )
        return self

    def transform(self, X: Any) -> Any:
        """Compute the coefficients of molecules.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, in any form that
            :func:`~skscatharm.structures.check_structures` accepts.

        Returns
        -------
        coefficients : ndarray of shape (n_molecules, n_coefficients)
            In the order of :meth:`get_feature_names_out`. If `X` is an array of CuPy or
            PyTorch, so are they, on the same device.

        Raises
        ------
        TypeError
            If `X` is none of the forms.
        ValueError
            If a molecule cannot be computed, or the tolerance cannot be kept. All are
            checked before the first is computed.
        ImportError, RuntimeError
            If the library or the device that `backend` asks for is missing.
        """
        self._validate_params()
        return to_library_of(X, self._columns(_Task(self, X)))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the coefficients, in the order of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str
            Such as ``S0_nuclear_q0p5`` and ``S2_valence_j0_j1_l2_q1``.
        """
        self._validate_params()
        tables = resolve_channels(self.channels)
        transform = self._transform(tables)
        names = column_names(
            list(tables),
            transform.integrands,
            transform.exponents,
            self.names,
            transform.kept,
        )
        return np.array(names, dtype=object)

    def get_path_names_out(self) -> NDArray[np.object_]:
        """Name the fields whose powers are integrated.

        Returns
        -------
        names : ndarray of str
            Such as ``S0_nuclear`` and ``S2_valence_j0_j1_l2``: the names of the
            coefficients without their exponents, in the same order.
        """
        self._validate_params()
        names = path_names(
            list(resolve_channels(self.channels)),
            scattering_paths(self.J, self.L, self.max_order),
            self.names,
        )
        return np.array(names, dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        # In another process, a relative path would start from another folder.
        state = {**super().__getstate__()}
        if isinstance(self.memory, str | os.PathLike) and str(self.memory):
            state["memory"] = absolute_folder(state["memory"])
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _engine(self, library: Library) -> str:
        """Choose the engine, by name."""
        raise NotImplementedError

    def _columns(self, task: "_Task") -> NDArray[np.float64]:
        """Compute the coefficients, or read them from the store."""
        by_batch = partial(
            in_batches,
            on_device=task.library.on_device,
            largest=self._batch,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        if self.memory is None:
            coefficients = by_batch(task.compute, *task.check())
        else:
            store = open_store(self.memory)
            coefficients = recall(store, **task.recalled, in_batches=by_batch)
        transform = task.transform
        columns = arrange(coefficients, transform.integrands, transform.kept)
        return self._normalized(columns, task)

    def _transform(self, tables: _Tables, engine: str = "") -> Transform:
        """Describe the coefficients of some channels; `engine` computes them."""
        return Transform(
            paths=tuple(scattering_paths(self.J, self.L, self.max_order)),
            exponents=check_exponents(self.Q),
            sigma=float(self.sigma),
            tol=float(self.tol),
            softening=float(self.softening),
            dtype=self.dtype,
            engine=engine,
            window=self._window,
        )

    def _normalized(
        self, columns: NDArray[np.float64], task: "_Task"
    ) -> NDArray[np.float64]:
        """Divide coefficients by the sizes of the molecules, if asked for."""
        return columns

    def _check(self, structures: Sequence[Structure]) -> None:
        """Raise if a molecule cannot be computed."""


class SolidHarmonicScattering(MoleculeScattering):
    r"""Solid harmonic wavelet scattering coefficients of molecules and crystals.

    A molecule with nuclear charges :math:`Z_n` at :math:`r_n` becomes one density for
    each channel k, with weights w and normalised Gaussians g,

    .. math:: \rho_k(u) = \sum_n w_k(Z_n) \, g_\sigma(u - r_n) .

    It is convolved with solid harmonic wavelets of degrees l = 0, ..., L and scales
    :math:`s_j = 2^j \sigma`, j = 0, ..., J, and the modulus over the orders m follows,
    once and once more with a larger scale:

    .. math::

        \psi_{lmj}(u) &= c_l \, s_j^{-3} (|u| / s_j)^l
        e^{-|u|^2 / 2 s_j^2} \, Y_{lm}(u / |u|) , \\
        U_1[j, l] &= \Big(\sum_m |\rho * \psi_{lmj}|^2\Big)^{1/2} , \\
        U_2[j_1, j_2, l] &= \Big(\sum_m |U_1[j_1, l] * \psi_{lmj_2}|^2\Big)^{1/2} .

    The coefficients are the integrals of :math:`|\rho|^q`, :math:`U_1^q` and
    :math:`U_2^q`, in Å^(3 - 3q) times the unit of the weights to the power q. They are
    invariant to translations, rotations, reflections and the order of the atoms, and
    do not depend on which others are asked for. The defaults give 500 of them, and 264
    mixed moments.

    With a positive `softening`, the powers of moduli of degrees 1 and more become
    :math:`(|U|^2 + \epsilon^2)^{q/2} - \epsilon^q`. Here :math:`\epsilon` is
    `softening` times the largest modulus of an atom of weight 1. They have no kinks
    where a field vanishes, and are integrated far more accurately.

    With `mixed_moments`, products of two different fields of order 1 are integrated
    too, for the q of `mixed_Q`: :math:`(U_1[j, l] \, U_1[j', l'])^{q/2}`. With a
    positive `softening`, they are products of the softened powers q/2 of both fields.
    There, degree 0 is softened too in channels whose table has weights of both signs.

    In a crystal, the sum over the atoms has all their images, and integrals are taken
    over one cell. A supercell of n cells has n times the coefficients, and another
    choice of cell vectors or origin changes nothing. Slabs and wires are periodic along
    two vectors or one: integrals are taken over all of space along other directions.

    Parameters
    ----------
    J : int, default=2
        Largest scale, at most 10: the scales are ``sigma * 2**j`` for j = 0, ..., J.
    L : int, default=3
        Largest degree of the wavelets, at most 20.
    Q : sequence of float, default=(0.5, 1.0, 2.0, 3.0, 4.0)
        Pooling exponents, from 0.5 to 32.
    sigma : float, default=0.22
        Width of the Gaussian of an atom, in Å. Time grows like ``sigma**-3``.
    channels : sequence of str or mapping, default=all standard channels
        Densities: names of :data:`~skscatharm.STANDARD_CHANNELS`, or a mapping from
        names to own tables {Z: weight}.
    max_order : {0, 1, 2}, default=2
        Largest order of the coefficients.
    tol : float, default=1e-5
        Relative error that is allowed for the worst coefficient of a typical molecule,
        from 1e-8 to 1e-2. Most coefficients are far more accurate.
    softening : float, default=4
        Size of :math:`\epsilon` in units of the weights: 0, as published, or from 1e-6
        to 1e4. Choose a value close to the channel weights, such as 4.
    mixed_moments : bool or "channels", default=True
        Also integrate products of two fields of order 1. They tell which features are
        at the same places: models of energies need about half as many molecules, and
        coefficients about twice the time. True pairs fields of the same channel: each
        has n (n - 1) / 2 pairs of its n = (J + 1) (L + 1) fields. "channels" pairs
        fields of different channels too, in free molecules. Weights of both signs in a
        channel need a positive `softening`. In molecules, these coefficients depend on
        which others are asked for, within `tol`.
    mixed_Q : sequence of float, default=(2.0,)
        Exponents q of mixed moments, from 0.5 to 32.
    normalize : {"atom", "volume"} or None, default=None
        Divide the coefficients by the number of atoms, or by the volume of the cell in
        Å^3. None serves properties that grow with a cell, such as its energy; the
        others serve properties that do not.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the fields. A `tol` below 2e-6 requires "float64".
    engine : {"auto", "separable", "fourier"}, default="auto"
        Products of factors along the axes, or FFTs of boxes around the molecules.
        "auto" is "separable", which is faster on a CPU and on a device.
    backend : {"auto", "numpy", "cupy", "torch"}, default="auto"
        The array library that computes. "auto" is PyTorch if `X` is a tensor on a CUDA
        device, otherwise CuPy if it finds a device, otherwise NumPy.
    names : {"plain", "readable"}, default="plain"
        Style of the names of columns: ``S1_nuclear_j0_l1_q2``, which all libraries
        accept, or ``S1[nuclear,j=0,l=1,q=2]``.
    memory : str, path-like, CoefficientStore or None, default=None
        Folder that keeps coefficients, so that each is computed once. The default
        exponents, and order 2 up to the scale J + 2, are saved as well; pass a
        :class:`CoefficientStore` to change this. ``~`` is the home folder. A relative
        path becomes absolute when the transformer is sent to other processes.
    n_jobs : int or None, default=None
        Number of joblib workers; None means 1, or the value of a
        :func:`joblib.parallel_config` context. On a device it has no effect.
    verbose : int, default=0
        Show a progress bar if not 0.

    See Also
    --------
    MultilinearRegressor : Predict properties from the coefficients.

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
    (2, 20)
    >>> scattering.get_feature_names_out()[[13, 19]].tolist()
    ['S2_nuclear_j0_j1_l1_q2', 'S1xS1_nuclear_j1_l0_j1_l1_q2']

    Crystals are `ase.Atoms` with `pbc`. A supercell has the coefficients per atom of
    its primitive cell:

    >>> from ase.build import bulk
    >>> scattering = scattering.set_params(normalize="atom")
    >>> primitive, cubic = scattering.transform([bulk("Si"), bulk("Si", cubic=True)])
    >>> bool(abs(primitive - cubic).max() < 1e-5 * abs(primitive).max())
    True
    """

    _limits = ("normalize", "mixed_moments")

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "J": [Interval(Integral, 0, 10, closed="both")],
        "L": [Interval(Integral, 0, 20, closed="both")],
        "Q": "no_validation",
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "channels": [list, tuple, Mapping],
        "max_order": [Interval(Integral, 0, 2, closed="both")],
        "tol": [Interval(Real, 1e-8, 1e-2, closed="both")],
        "softening": [Options(Real, {0}), Interval(Real, 1e-6, 1e4, closed="both")],
        "mixed_moments": ["boolean", StrOptions({"channels"})],
        "mixed_Q": "no_validation",
        "normalize": [StrOptions({"atom", "volume"}), None],
        "dtype": [StrOptions({"float32", "float64"})],
        "engine": [StrOptions({"auto", "separable", "fourier"})],
        "backend": [StrOptions({"auto", "numpy", "cupy", "torch"})],
        "names": [StrOptions({"plain", "readable"})],
        "memory": [str, os.PathLike, CoefficientStore, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        J: int = _DEFAULT["J"],
        L: int = _DEFAULT["L"],
        Q: Sequence[float] = _DEFAULT["Q"],
        sigma: float = _DEFAULT["sigma"],
        *,
        channels: Sequence[str] | Mapping[str, Mapping[int, float]] = _CHANNELS,
        max_order: int = _DEFAULT["max_order"],
        tol: float = _DEFAULT["tol"],
        softening: float = _DEFAULT["softening"],
        mixed_moments: bool | str = _DEFAULT["mixed_moments"],
        mixed_Q: Sequence[float] = _DEFAULT["mixed_Q"],
        normalize: str | None = None,
        dtype: str = "float32",
        engine: str = "auto",
        backend: str = "auto",
        names: str = "plain",
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
        self.mixed_moments = mixed_moments
        self.mixed_Q = mixed_Q
        self.normalize = normalize
        self.dtype = dtype
        self.engine = engine
        self.backend = backend
        self.names = names
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose

    def transform(self, X: Any) -> Any:
        # The documentation is that of the base class.
        if requires_gradient(X):
            return differentiable(X, super().transform, self.gradient)
        return super().transform(X)

    transform.__doc__ = MoleculeScattering.transform.__doc__

    def fields(
        self, molecule: Any, points: Any, paths: Any = None, components: bool = False
    ) -> Any:
        r"""Compute densities and moduli of a molecule or crystal at points.

        These are the fields whose powers are integrated: the densities
        :math:`|\rho_k|` of order 0, and the moduli :math:`U_1` and :math:`U_2`,
        softened as under the integrals.

        Parameters
        ----------
        molecule : ase.Atoms, array-like of shape (n_atoms, 4) or Structure
            A single molecule or crystal.
        points : array-like of shape (n_points, 3) or tuple of three arrays
            Points in Å, in the coordinates of the molecule; or the coordinates of a
            lattice along x, y and z, of shapes (n_x,), (n_y,) and (n_z,). Fields on a
            lattice are computed many times faster.
        paths : sequence of str or None, default=None
            Names from :meth:`get_path_names_out`; None for all.
        components : bool, default=False
            Whether to return the components :math:`\rho * \psi_{lm}`, and those of
            order 2, in place of the moduli: for m = -l, ..., l those with real
            spherical harmonics, without softening. Degree 0 has a single one.

        Returns
        -------
        fields : ndarray of shape (n_paths, n_points) or (n_paths, n_x, n_y, n_z)
            In the unit of the weights per Å^3. Errors are about `tol` of the largest
            value, or ten times as large without softening. With `components`, a dict
            from names to arrays of shape (2 * l + 1, n_points) or
            (2 * l + 1, n_x, n_y, n_z).

        Raises
        ------
        TypeError
            If `molecule` or `paths` is of the wrong type.
        ValueError
            If the molecule cannot be computed, a path is unknown, points have a wrong
            shape, or the result would take more than 4 GiB.

        Notes
        -----
        Fields are computed by the CPU in double precision, whichever `engine`,
        `backend` and `dtype` are. A plane that is oblique to the axes becomes a
        lattice if the molecule is rotated with it.

        Examples
        --------
        The modulus of order 1 in a plane through a water molecule:

        >>> import numpy as np
        >>> from ase.build import molecule
        >>> from skscatharm import SolidHarmonicScattering
        >>> scattering = SolidHarmonicScattering()
        >>> y, z = np.linspace(-2, 2, 41), np.linspace(-2, 2, 51)
        >>> name = "S1_nuclear_j0_l1"
        >>> scattering.fields(molecule("H2O"), ([0.0], y, z), [name]).shape
        (1, 1, 41, 51)
        """
        self._validate_params()
        molecule = to_host(molecule)
        if getattr(molecule, "ndim", 2) == 3:
            raise ValueError(
                f"molecule has shape {molecule.shape}; pass a single one, of shape "
                "(n_atoms, 4), such as X[0]."
            )
        task = _Task(self, [molecule])
        chosen = choose_paths(paths, list(task.tables), task.transform, self.names)
        (structure,), (weights,) = task.check()
        return compute_fields(
            structure, weights, points, chosen, task.transform, components
        )

    def jacobian(self, X: Any, cell: bool = False) -> Any:
        r"""Differentiate all coefficients with respect to all positions.

        The grids on which fields are integrated follow the molecule, and the integrals
        do not depend on them: derivatives are taken with the grids fixed. Translations
        and rotations of a molecule as a whole change nothing, and are projected out.

        `tol` is relative to the coefficients. Where fields of neighbouring atoms hardly
        overlap, a coefficient hardly changes, and the relative error of its derivatives
        is larger. A smaller `tol` reduces it.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as for :meth:`transform`.
        cell : bool, default=False
            Whether to differentiate with respect to strain too.

        Returns
        -------
        jacobian : ndarray of shape (n_molecules, n_coefficients, n_atoms, 3)
            In the unit of the coefficient per Å, and 0 where a molecule has no atom. It
            is kept in the store if there is one (`memory`).
        strain : ndarray of shape (n_molecules, n_coefficients, 3, 3)
            Only if `cell`. Derivatives with respect to a symmetric strain e of cell and
            positions, :math:`r \to (1 + e) r`, in the unit of the coefficient.

        Raises
        ------
        ValueError
            As :meth:`transform`, or if the result would take more than 4 GiB.

        See Also
        --------
        iter_jacobian : The same in batches.
        gradient : Derivatives of a weighted sum, for much less.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skscatharm import SolidHarmonicScattering
        >>> scattering = SolidHarmonicScattering(J=1, L=1, channels=["nuclear"])
        >>> jacobian = scattering.jacobian([molecule("H2"), molecule("H2O")])
        >>> jacobian.shape
        (2, 41, 3, 3)
        >>> bool(abs(jacobian.sum(axis=2)).max() < 1e-9 * abs(jacobian).max())
        True
        """
        self._validate_params()
        task = _Task(self, X)
        structures, weights = task.check()
        n_atoms = task.n_atoms(structures)
        n_columns = task.n_columns
        check_size(len(structures), n_columns, n_atoms)
        found = self._jacobian(task, structures, weights, n_atoms, cell, self.verbose)
        if cell:
            return tuple(to_library_of(X, array) for array in found)
        return to_library_of(X, found.positions)

    def iter_jacobian(
        self, X: Any, batch_size: int = 64, cell: bool = False
    ) -> Iterator[Any]:
        """Yield the Jacobians of batches of molecules, one batch at a time.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as for :meth:`transform`. All are checked before the first is
            computed.
        batch_size : int, default=64
            Number of molecules in a batch.
        cell : bool, default=False
            Whether to differentiate with respect to strain too.

        Yields
        ------
        jacobian : ndarray of shape (n_molecules_of_batch, n_coefficients, n_atoms, 3)
            As from :meth:`jacobian`, for `batch_size` molecules or the rest.
            `n_atoms` is that of the largest molecule of all. If `cell`, a pair with
            the derivatives with respect to strain.
        """
        self._validate_params()
        check_scalar(batch_size, "batch_size", Integral, min_val=1)
        task = _Task(self, X)
        structures, weights = task.check()
        n_atoms = task.n_atoms(structures)
        for part in gen_batches(len(structures), batch_size):
            found = self._jacobian(
                task, structures[part], weights[part], n_atoms, cell, verbose=0
            )
            yield tuple(found) if cell else found.positions

    def gradient(self, X: Any, weights: Any, cell: bool = False) -> Any:
        r"""Differentiate a weighted sum of the coefficients of each molecule.

        .. math:: g_n = \sum_c w_c \, \partial S_c / \partial r_n

        needs one sweep back through the cascade for all coefficients together: about
        three times as long as :meth:`transform`.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as for :meth:`transform`.
        weights : array-like of shape (n_molecules, n_coefficients)
            Weights of the coefficients, in the order of :meth:`get_feature_names_out`.
        cell : bool, default=False
            Whether to differentiate with respect to strain too.

        Returns
        -------
        gradient : ndarray of shape (n_molecules, n_atoms, 3)
            In the unit of the sum per Å, and 0 where a molecule has no atom. If `X` is
            an array of CuPy or PyTorch, so is the gradient, on the same device.
        strain : ndarray of shape (n_molecules, 3, 3)
            Only if `cell`. Derivatives with respect to strain, as from
            :meth:`jacobian`, in the unit of the sum.

        Raises
        ------
        ValueError
            As :meth:`transform`, or if the weights do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> from ase.build import molecule
        >>> from skscatharm import SolidHarmonicScattering
        >>> scattering = SolidHarmonicScattering(J=1, L=1, channels=["nuclear"])
        >>> water = [molecule("H2O")]
        >>> weights = np.random.default_rng(0).normal(size=(1, 41))
        >>> gradient = scattering.gradient(water, weights)
        >>> expected = np.einsum("mc,mcnx->mnx", weights, scattering.jacobian(water))
        >>> bool(abs(gradient - expected).max() < 1e-4 * abs(expected).max())
        True
        """
        self._validate_params()
        task = _Task(self, X)
        structures, rows = task.check()
        factors = check_array(to_host(weights), dtype=np.float64, input_name="weights")
        expected = (len(structures), task.n_columns)
        if factors.shape != expected:
            raise ValueError(
                f"weights have shape {factors.shape}; pass one row for each of the "
                f"{expected[0]} molecules, with {expected[1]} coefficients."
            )
        compute = partial(
            column_gradient, transform=task.transform, library=task.library
        )
        divisors = self._sizes(structures)[:, np.newaxis]
        batches = self._each_batch(
            task, compute, structures, rows, factors / divisors, verbose=self.verbose
        )
        found = _padded(batches, (len(structures), task.n_atoms(structures), 3))
        if not cell:
            return to_library_of(X, found.positions)
        if self.normalize == "volume":
            sums = np.sum(factors * self.transform(structures), axis=1)
            found.strain[...] -= _isotropic(sums)
        return tuple(to_library_of(X, array) for array in found)

    def linearize(
        self,
        X: Any,
        weigh: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        cell: bool = False,
    ) -> tuple[NDArray[np.float64], ...]:
        """Compute coefficients, and the gradients of functions of them.

        It needs less time than :meth:`transform` and :meth:`gradient` together, since
        fields are used twice.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as for :meth:`transform`.
        weigh : callable
            Turns coefficients of some molecules, of shape (n, n_coefficients), into
            their weights, of the same shape, such as the derivatives of a prediction
            with respect to the coefficients. It must be possible to send it to other
            processes if `n_jobs` is not 1.
        cell : bool, default=False
            Whether to differentiate with respect to strain too.

        Returns
        -------
        coefficients : ndarray of shape (n_molecules, n_coefficients)
        gradient : ndarray of shape (n_molecules, n_atoms, 3)
            As from :meth:`gradient`.
        strain : ndarray of shape (n_molecules, 3, 3)
            Only if `cell`, as from :meth:`gradient`.
        """
        self._validate_params()
        task = _Task(self, X)
        structures, rows = task.check()
        compute = partial(
            linear_expansion,
            weigh=weigh,
            transform=task.transform,
            library=task.library,
        )
        batches = self._each_batch(
            task,
            compute,
            structures,
            rows,
            self._sizes(structures),
            verbose=self.verbose,
        )
        pairs = [pair for batch in batches for pair in batch]
        coefficients = np.array([coefficients for coefficients, _ in pairs])
        shape = (len(structures), task.n_atoms(structures), 3)
        found = _padded([[gradient for _, gradient in pairs]], shape)
        if not cell:
            return coefficients, found.positions
        if self.normalize == "volume":
            sums = np.sum(np.asarray(weigh(coefficients)) * coefficients, axis=1)
            found.strain[...] -= _isotropic(sums)
        return coefficients, *found

    def _jacobian(
        self,
        task: "_Task",
        structures: Sequence[Structure],
        weights: Sequence[NDArray[np.float64]],
        n_atoms: int,
        cell: bool,
        verbose: int,
    ) -> Derivatives:
        """Differentiate normalised coefficients; with strain only if `cell`."""
        found = _padded(
            self._jacobians(task, structures, weights, verbose),
            (len(structures), task.n_columns, n_atoms, 3),
        )
        if self.normalize is not None:
            sizes = self._sizes(structures)[:, *[np.newaxis] * 3]
            for array in found:
                array /= sizes
        if cell and self.normalize == "volume":
            # The volume grows with the trace of the strain.
            found.strain[...] -= _isotropic(self.transform(structures))
        return found

    def _jacobians(
        self,
        task: "_Task",
        structures: Sequence[Structure],
        weights: Sequence[NDArray[np.float64]],
        verbose: int,
    ) -> Iterator[list[Derivatives]]:
        store = None if self.memory is None else open_store(self.memory)
        keys = density_keys(structures, weights, task.transform.settings)
        compute = partial(
            column_jacobian,
            transform=task.transform,
            library=task.library,
            store=store,
        )
        names = jacobian_names(keys, task.transform)
        return self._each_batch(
            task, compute, structures, weights, names, verbose=verbose
        )

    def _each_batch(
        self, task: "_Task", compute: Callable[..., Any], *columns: Any, verbose: int
    ) -> Iterator[Any]:
        return each_batch(
            compute,
            *columns,
            on_device=task.library.on_device,
            n_jobs=self.n_jobs,
            verbose=verbose,
        )

    def _engine(self, library: Library) -> str:
        return find_engine(self.engine)

    def _transform(self, tables: _Tables, engine: str = "") -> Transform:
        transform = super()._transform(tables, engine)
        of_pairs = check_exponents(self.mixed_Q, "mixed_Q")
        joined = len(tables) if self.mixed_moments == "channels" else 1
        pairs = tuple(field_pairs(transform.paths, joined))
        if not (self.mixed_moments and pairs):
            return transform
        of_paths = transform.exponents
        return replace(
            transform,
            exponents=tuple(dict.fromkeys((*of_paths, *of_pairs))),
            pairs=pairs,
            path_exponents=of_paths,
            pair_exponents=of_pairs,
            signed=tuple(
                channel
                for channel, table in enumerate(tables.values())
                if min(table.values()) < 0 < max(table.values())
            ),
        )

    def _check(self, structures: Sequence[Structure]) -> None:
        for i, structure in enumerate(structures):
            if self.mixed_moments == "channels" and any(structure.pbc):
                raise ValueError(
                    f"Molecule {i} is periodic, and fields of different channels are "
                    "paired in free molecules alone. Choose mixed_moments=True."
                )
            if self.normalize == "volume" and not all(structure.pbc):
                raise ValueError(
                    f"Molecule {i} has no volume: it is periodic along "
                    f"{sum(structure.pbc)} of three vectors. Choose normalize='atom' "
                    "or None, or pass ase.Atoms with pbc = True."
                )

    def _sizes(self, structures: Sequence[Structure]) -> NDArray[np.float64]:
        """Return the sizes of molecules, by which coefficients are divided."""
        if self.normalize == "atom":
            return np.array([float(len(s.charges)) for s in structures])
        if self.normalize == "volume":
            cells = np.array([s.cell for s in structures])
            return np.asarray(np.abs(np.linalg.det(cells)))
        return np.ones(len(structures))

    def _normalized(
        self, columns: NDArray[np.float64], task: "_Task"
    ) -> NDArray[np.float64]:
        if self.normalize is None:
            return columns
        structures, _ = task.check()
        return columns / self._sizes(structures)[:, np.newaxis]


def _isotropic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply the unit matrix by each value."""
    return values[..., np.newaxis, np.newaxis] * np.eye(3)


def _padded(
    batches: Iterable[Sequence[Derivatives]], shape: tuple[int, ...]
) -> Derivatives:
    """Join derivatives of molecules, with zeros where a molecule has no atom.

    Parameters
    ----------
    batches : iterable of sequence of Derivatives
        Of shapes (..., n_atoms_of_molecule, 3) and (..., 3, 3).
    shape : tuple of int
        Shape (n_molecules, ..., n_atoms, 3) of those with respect to positions.
    """
    found = Derivatives(np.zeros(shape), np.zeros((*shape[:-2], 3, 3)))
    rows = zip(*found, strict=True)
    for batch in batches:
        for derivatives in batch:
            positions, strain = next(rows)
            positions[..., : derivatives.positions.shape[-2], :] = derivatives.positions
            strain[...] = derivatives.strain
    return found


class _Task:
    """Parameters and molecules of a call, resolved; nothing is computed yet."""

    def __init__(self, parameters: MoleculeScattering, X: Any) -> None:
        self.parameters = parameters
        self._checked: tuple[list[Structure], list[NDArray[np.float64]]] | None = None
        self.library: Library = find_library(parameters.backend, X)
        self.X = to_host(X)
        self.tables = resolve_channels(parameters.channels)
        self.transform = parameters._transform(
            self.tables, parameters._engine(self.library)
        )
        # A store saves further coefficients while they cost little.
        self.wider = self.transform
        if parameters.memory is not None:
            J = parameters.J + open_store(parameters.memory).ahead
            exponents, of_paths = (
                tuple(sorted({*given, *_DEFAULT["Q"]}))
                for given in (
                    self.transform.exponents,
                    self.transform.path_exponents or self.transform.exponents,
                )
            )
            self.wider = replace(
                self.transform,
                paths=tuple(scattering_paths(J, parameters.L, parameters.max_order)),
                exponents=exponents,
                path_exponents=of_paths,
            )

    def n_atoms(self, structures: Sequence[Structure]) -> int:
        """Count the atoms of the largest molecule, or the rows of a padded array."""
        largest = max(len(s.charges) for s in structures)
        is_array = isinstance(self.X, np.ndarray) and self.X.ndim == 3
        return max(largest, self.X.shape[1]) if is_array else largest

    @property
    def n_columns(self) -> int:
        """Number of coefficients."""
        return len(list_columns(*self.transform.layout(len(self.tables))))

    def check(self) -> tuple[list[Structure], list[NDArray[np.float64]]]:
        """Raise whatever there is to raise; return structures and weights."""
        if self._checked is None:
            check_accuracy(self.transform)
            structures = check_structures(self.X)
            self.parameters._check(structures)
            weights = channel_weights(self.tables, structures)
            check_molecules(structures, weights, self.wider, self.library)
            self._checked = structures, weights
        return self._checked

    @property
    def limits(self) -> dict[str, Any]:
        """All that checks of molecules depend on, and coefficients do not."""
        of = self.parameters
        return {name: str(getattr(of, name)) for name in of._limits}

    @property
    def recalled(self) -> dict[str, Any]:
        """Arguments of :func:`~skscatharm.store.recall.recall`, but for the store."""
        names = ("X", "check", "tables", "transform", "wider", "library", "limits")
        return {name: getattr(self, name) for name in names}

    @property
    def compute(self) -> Callable[..., NDArray[np.float64]]:
        """Compute structures with weights: a function that can be sent to workers."""
        return partial(scattering_batch, transform=self.transform, library=self.library)
