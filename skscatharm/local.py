"""The transformer whose rows are atoms."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skscatharm._compat import Interval
from skscatharm.batches import each_batch
from skscatharm.engine import windowed_batch
from skscatharm.engine.arrays import Library, to_host
from skscatharm.scattering import (
    SETTINGS,
    MoleculeScattering,
    SolidHarmonicScattering,
)
from skscatharm.store import CoefficientStore, open_store
from skscatharm.store.recall import density_keys, jacobian_names, recall_arrays
from skscatharm.structures import Structure, check_structures
from skscatharm.transform.columns import arrange
from skscatharm.transform.transform import Transform

__all__ = ["LocalScattering"]

_Array = NDArray[np.float64]
_DEFAULT = SETTINGS["soft"]


class LocalScattering(MoleculeScattering):
    r"""Scattering coefficients of the atoms of molecules.

    The fields are those of :class:`SolidHarmonicScattering`: a density :math:`\rho_k`
    for each channel, and the moduli :math:`U_1` and :math:`U_2`. A coefficient of the
    atom a is an integral over the space around it,

    .. math::

        S_a = \int U(u)^q \, w_a(u) \, du , \qquad
        w_a(u) = g_\tau(u - r_a) \Big/ \sum_b g_\tau(u - r_b) ,

    with Gaussians g whose width :math:`\tau` is `window`. The windows of all atoms of a
    molecule add up to one everywhere. So the rows of a molecule add up to the
    coefficients of :class:`SolidHarmonicScattering`, within `tol`: they divide these
    among the atoms. They follow the atoms if these are reordered, and do not change
    when the molecule is translated, rotated or reflected.

    They describe properties of atoms, such as charges and chemical shifts. The output
    has one row for each atom: first the atoms of the first molecule in their order,
    then those of the next. :meth:`molecule_ids` returns the molecule of each row.

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
    window : float, default=0.7
        Width :math:`\tau` of the Gaussians of the windows, in Å, from 0.3 to 100. As it
        grows, the rows of the atoms of a molecule become equal. Below 0.7, time grows
        fast, since windows between neighbours become steep.
    channels : sequence of str or mapping, default=all standard channels
        Densities: names of :data:`~skscatharm.STANDARD_CHANNELS`, or a mapping from
        names to own tables {Z: weight}.
    max_order : {0, 1, 2}, default=2
        Largest order of the coefficients.
    tol : float, default=1e-5
        Relative error that is allowed for the sums of the rows of a molecule, from 1e-8
        to 1e-2. Errors of single rows are up to twenty times as large.
    softening : float, default=4
        Size of :math:`\epsilon` in units of the weights, as in
        :class:`SolidHarmonicScattering`: 0, or from 1e-6 to 1e4.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the fields. A `tol` below 2e-6 requires "float64".
    backend : {"auto", "numpy", "cupy", "torch"}, default="auto"
        The array library that computes. "auto" is PyTorch if `X` is a tensor on a CUDA
        device, otherwise CuPy if it finds a device, otherwise NumPy. Molecules are
        computed one by one.
    names : {"plain", "readable"}, default="plain"
        Style of the names of columns: ``S1_nuclear_j0_l1_q2``, which all libraries
        accept, or ``S1[nuclear,j=0,l=1,q=2]``.
    memory : str, path-like, CoefficientStore or None, default=None
        Folder that keeps the coefficients of the atoms of each molecule. It can be that
        of a :class:`SolidHarmonicScattering`.
    n_jobs : int or None, default=None
        Number of joblib workers; None means 1, or the value of a
        :func:`joblib.parallel_config` context. On a device it has no effect.
    verbose : int, default=0
        Show a progress bar if not 0.

    See Also
    --------
    SolidHarmonicScattering : One row for each molecule.

    Notes
    -----
    The output has more rows than `X` has molecules, so scikit-learn cannot split
    molecules and properties of atoms together. Compute the rows first, and pass
    :meth:`molecule_ids` as `groups` to a splitter such as
    :class:`~sklearn.model_selection.GroupKFold`, which keeps the atoms of a molecule
    together.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skscatharm import LocalScattering, SolidHarmonicScattering
    >>> molecules = [molecule("H2O"), molecule("CH4")]
    >>> local = LocalScattering(J=1, L=1, sigma=0.4)
    >>> rows = local.fit_transform(molecules)
    >>> rows.shape
    (8, 140)
    >>> ids = local.molecule_ids(molecules)
    >>> ids
    array([0, 0, 0, 1, 1, 1, 1, 1])

    The rows of a molecule add up to its coefficients, but for mixed moments:

    >>> whole = SolidHarmonicScattering(
    ...     J=1, L=1, sigma=0.4, mixed_moments=False
    ... ).fit_transform(molecules)
    >>> bool(np.allclose(rows[ids == 1].sum(axis=0), whole[1], rtol=1e-5))
    True
    """

    def __init__(
        self,
        J: int = _DEFAULT["J"],
        L: int = _DEFAULT["L"],
        Q: Sequence[float] = _DEFAULT["Q"],
        sigma: float = _DEFAULT["sigma"],
        *,
        window: float = 0.7,
        channels: Sequence[str] | Mapping[str, Mapping[int, float]] = _DEFAULT[
            "channels"
        ],
        max_order: int = _DEFAULT["max_order"],
        tol: float = _DEFAULT["tol"],
        softening: float = _DEFAULT["softening"],
        dtype: str = "float32",
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
        self.window = window
        self.channels = channels
        self.max_order = max_order
        self.tol = tol
        self.softening = softening
        self.dtype = dtype
        self.backend = backend
        self.names = names
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        name: constraint
        for name, constraint in SolidHarmonicScattering._parameter_constraints.items()
        if name not in ("engine", "normalize")
    } | {"window": [Interval(Real, 0.3, 100, closed="both")]}

    def transform(self, X: Any) -> Any:
        """Compute the coefficients of the atoms of molecules.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, in any form that
            :func:`~skscatharm.structures.check_structures` accepts.

        Returns
        -------
        coefficients : ndarray of shape (n_atoms_in_total, n_coefficients)
            The rows are the atoms of all molecules, without padding; the columns are in
            the order of :meth:`get_feature_names_out`. If `X` is an array of CuPy or
            PyTorch, so are they, on the same device.

        Raises
        ------
        TypeError
            If `X` is none of the forms.
        ValueError
            If a molecule cannot be computed or is periodic, or the tolerance cannot be
            kept. All are checked before the first is computed.
        ImportError, RuntimeError
            If the library or the device that `backend` asks for is missing.
        """
        return super().transform(X)

    def molecule_ids(self, X: Any) -> NDArray[np.int64]:
        """Return the index of the molecule of each row.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as for :meth:`transform`.

        Returns
        -------
        ids : ndarray of shape (n_atoms_in_total,)
            From 0 to the number of molecules minus 1.
        """
        n_atoms = [len(s.charges) for s in check_structures(to_host(X))]
        return np.repeat(np.arange(len(n_atoms)), n_atoms)

    def _columns(self, task: Any) -> _Array:
        structures, weights = task.check()
        keys = density_keys(structures, weights, task.transform.settings)
        names = jacobian_names(keys, task.transform)
        batches = each_batch(
            partial(
                _columns_of_atoms,
                transform=task.transform,
                library=task.library,
                store=None if self.memory is None else open_store(self.memory),
            ),
            structures,
            weights,
            names,
            on_device=task.library.on_device,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        return np.concatenate([rows for batch in batches for rows in batch])

    @property
    def _window(self) -> float:  # type: ignore[override]
        return float(self.window)

    def _engine(self, library: Library) -> str:
        return "separable"

    def _check(self, structures: Sequence[Structure]) -> None:
        for i, structure in enumerate(structures):
            if any(structure.pbc):
                raise ValueError(
                    f"Molecule {i} is periodic (pbc={list(structure.pbc)}); "
                    "LocalScattering computes free molecules only. If it is a molecule "
                    "in a box, set atoms.pbc = False; for crystals, use "
                    "SolidHarmonicScattering."
                )


def _columns_of_atoms(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    keys: Sequence[str],
    transform: Transform,
    library: Library,
    store: CoefficientStore | None,
) -> list[_Array]:
    """Compute the columns of atoms, or read them from a store.

    Returns
    -------
    list of ndarray of shape (n_atoms, n_coefficients)
    """

    def compute(lacking: list[int]) -> list[_Array]:
        chosen = [structures[i] for i in lacking]
        groups = [np.eye(len(structure.charges)) for structure in chosen]
        found = windowed_batch(
            chosen, [weights[i] for i in lacking], groups, transform, library
        )
        # A store keeps arrays of three dimensions.
        return [arrange(rows, transform.paths)[..., np.newaxis] for rows in found]

    return [
        rows[..., 0] for rows in recall_arrays(store, keys, transform.settings, compute)
    ]
