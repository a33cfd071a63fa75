"""The regressor of sums over atoms."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from skscatharm._compat import HasMethods, Interval, _fit_context
from skscatharm._parts import EstimatorOfParts
from skscatharm._progress import progress_bar
from skscatharm.engine.arrays import to_host
from skscatharm.local import LocalScattering
from skscatharm.regression.atom_kernels import sum_over_atoms
from skscatharm.regression.atoms import fit_atoms
from skscatharm.regression.inputs import check_weight
from skscatharm.scattering import SolidHarmonicScattering
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.compositions import (
    check_elements,
    count_atoms,
    fit_atomic_energies,
)
from skscatharm.structures.labels import check_targets

__all__ = ["AtomicRegressor"]

_Array = NDArray[np.float64]


class AtomicRegressor(RegressorMixin, EstimatorOfParts):
    r"""Property of a molecule as a sum over its atoms.

    The prediction for a molecule with atoms of elements :math:`Z_a` is

    .. math::

        f = b + \sum_a \big( e(Z_a) + q_{Z_a}(S_a) \big) + q(S) ,

    where :math:`S_a` are the coefficients of an atom from :class:`LocalScattering`, S
    are those of the molecule, and q and the :math:`q_Z` are quadratic forms: q is one
    of the whole molecule, as in ``MultilinearRegressor(degree=2)``, and :math:`q_Z` one
    of an atom of the element Z. A molecule of QM9 has 18 atoms on average, and similar
    atoms occur in many molecules, so fewer molecules suffice for properties that are
    nearly sums over atoms, such as energies and heat capacities. For others, such as
    orbital energies, :class:`MultilinearRegressor` is as good.

    The intercept b and the :math:`e(Z)` are fitted to the targets by least squares on
    the numbers of atoms. The quadratic forms, with constant terms, minimise

    .. math:: \sum_i \omega_i \, (y_i - f_i)^2 / \sigma_y^2 + \alpha \, |q|^2

    with sample weights :math:`\omega_i` and the norm of the function space of the
    kernel

    .. math::

        k(M, N) = \sum_{a \in M, \, b \in N, \, Z_a = Z_b}
        \big( c_1 \, (1 + u_a \cdot u_b) + c_2 \, (v_a \cdot v_b)^2 \big)
        + c_3 \, U_M \cdot U_N + c_4 \, (V_M \cdot V_N)^2 .

    Here u and U are coordinates along the principal axes of the standardised
    coefficients, of the atoms of an element and of molecules. Those with standard
    deviation :math:`\sigma_k` are scaled to :math:`\sigma_k^p`. V differs from U by the
    power p, and v has the first `n_axes` coordinates of u. The powers, the
    :math:`c` and :math:`\alpha` minimise the mean absolute leave-one-out error on some
    of the molecules: a fifth, but at least 800 and at most 2,000. Of penalties whose
    errors are within 1 % of the lowest, the largest is used. Nothing has to be tuned.

    Parameters
    ----------
    local : LocalScattering, default=None
        Computes the coefficients of atoms. None means
        ``LocalScattering(max_order=1, tol=1e-4)``.
    scattering : SolidHarmonicScattering, default=None
        Computes the coefficients of molecules. None means
        ``SolidHarmonicScattering(max_order=1, mixed_moments=True)``.
    n_axes : int, default=120
        Number of principal axes of the atoms of an element whose products are used. The
        time of a fit grows with the square.
    alpha : float or None, default=None
        Strength of the penalty :math:`\alpha`. None chooses it.
    random_state : int, RandomState instance or None, default=None
        Draws the molecules that choose the scales and the penalty, if there are more
        than 800, and those of the preconditioner, if there are more than 8,000. Pass an
        int for reproducible results.
    verbose : int, default=0
        Show a progress bar of the iterations, with more than 8,000 molecules, if not 0.

    Attributes
    ----------
    local_ : LocalScattering
        The transformer of atoms that was used.
    scattering_ : SolidHarmonicScattering
        The transformer of molecules that was used.
    elements_ : ndarray of shape (n_elements,)
        Nuclear charges of the elements of the training set.
    atomic_targets_ : ndarray of shape (n_elements,)
        The targets :math:`e(Z)` of isolated atoms of these elements.
    intercept_ : float
        The intercept b.
    alpha_ : float
        The penalty that was used.

    See Also
    --------
    MultilinearRegressor : Quadratic forms of molecules alone, of any features.
    ScatteringPotential : Learn energies and forces of one molecule.

    Notes
    -----
    Up to 8,000 molecules are fitted by a factorisation of their kernel matrix, and more
    of them by conjugate gradients, preconditioned with the kernels of 1,000 molecules.
    The time of an iteration and the memory are proportional to the number of molecules:
    9 GB for 50,000 molecules of QM9. A prediction needs little more time than the
    coefficients.

    In a search, ``local__window`` and ``scattering__J`` are parameters of the parts,
    also where these are None. With ``memory="folder"`` in both parts, a search computes
    each coefficient once.

    A fit that is refused or interrupted leaves the previous fit unchanged.

    References
    ----------
    .. [1] F. A. Faber, A. S. Christensen, B. Huang, O. A. von Lilienfeld, "Alchemical
       and structural distribution based representation for universal quantum machine
       learning", J. Chem. Phys. 148, 241717 (2018): a kernel that sums over pairs of
       atoms. https://doi.org/10.1063/1.5020710

    Examples
    --------
    >>> from skscatharm import (
    ...     AtomicRegressor, LocalScattering, SolidHarmonicScattering
    ... )
    >>> from skscatharm.datasets import load_qm9_sample
    >>> molecules, y = load_qm9_sample(return_X_y=True)
    >>> coarse = dict(J=1, L=1, sigma=0.5, max_order=1)
    >>> regressor = AtomicRegressor(
    ...     LocalScattering(**coarse, tol=1e-3), SolidHarmonicScattering(**coarse)
    ... )
    >>> regressor = regressor.fit(molecules[:100], y[:100])
    >>> errors = abs(regressor.predict(molecules[100:150]) - y[100:150])
    >>> bool(errors.mean() < 10)  # kcal/mol
    True
    """

    _default_parts: ClassVar[dict[str, Callable[[], Any]]] = {
        "local": partial(LocalScattering, max_order=1, tol=1e-4),
        "scattering": partial(SolidHarmonicScattering, max_order=1, mixed_moments=True),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "local": [HasMethods(["fit", "transform", "molecule_ids"]), None],
        "scattering": [HasMethods(["fit", "transform"]), None],
        "n_axes": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        local: Any = None,
        scattering: Any = None,
        *,
        n_axes: int = 120,
        alpha: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.local = local
        self.scattering = scattering
        self.n_axes = n_axes
        self.alpha = alpha
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | float | None = None
    ) -> Self:
        """Compute the coefficients of molecules and atoms, and fit the forms.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, in any form that
            :func:`~skscatharm.structures.check_structures` accepts.
        y : array-like of shape (n_molecules,)
            Targets.
        sample_weight : float or array-like of shape (n_molecules,), default=None
            Weight of each molecule, 0 or more.

        Returns
        -------
        self : AtomicRegressor

        Raises
        ------
        TypeError
            If `X` is none of the forms.
        ValueError
            If a molecule cannot be computed or is periodic, or if targets or weights do
            not match the molecules, or have NaN or infinite entries.

        Warns
        -----
        ConvergenceWarning
            If 500 iterations are not enough.
        """
        structures = check_structures(to_host(X))
        targets = check_targets(y, len(structures))
        weight = check_weight(sample_weight, len(structures))
        used = np.flatnonzero(weight > 0)
        structures = [structures[i] for i in used]
        targets, weight = targets[used], weight[used]
        local, scattering = self._make_parts()
        for part in (local, scattering):
            part.fit(structures)
        elements = np.unique(np.concatenate([s.charges for s in structures]))
        counts = count_atoms(structures, elements)
        columns = np.column_stack([counts, np.ones(len(counts))])
        baseline = fit_atomic_energies(columns, targets, weight)
        charges, owners = _list_atoms(structures)
        features, rows = scattering.transform(structures), local.transform(structures)
        with progress_bar(self.verbose, "iteration") as advance:
            form, forms, prior = fit_atoms(
                features,
                rows,
                charges,
                owners,
                targets - columns @ baseline,
                weight,
                n_axes=self.n_axes,
                alpha=self.alpha,
                seed=check_random_state(self.random_state).randint(2**31 - 1),
                progress=advance,
            )
        self.local_, self.scattering_ = local, scattering
        self.elements_, self.atomic_targets_ = elements, baseline[:-1]
        self.intercept_ = float(baseline[-1])
        self.alpha_ = prior.alpha
        self._form, self._forms = form, forms
        return self

    def predict(self, X: Any) -> _Array:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as in `fit`.

        Returns
        -------
        y : ndarray of shape (n_molecules,)
            In the unit of the training data.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            As in `fit`, or if a molecule has an element that the training set lacks.
        """
        check_is_fitted(self)
        structures = check_structures(to_host(X))
        check_elements(structures, self.elements_, "regressor")
        rows = self.local_.transform(structures)
        charges, owners = _list_atoms(structures)
        of_atoms = np.empty(len(charges))
        for z, form in self._forms.items():
            of_atoms[charges == z] = form.evaluate(rows[charges == z])
        found = sum_over_atoms(of_atoms, owners, len(structures))
        found += count_atoms(structures, self.elements_) @ self.atomic_targets_
        found += self._form.evaluate(self.scattering_.transform(structures))
        return found + self.intercept_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.no_validation = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _list_atoms(
    structures: Sequence[Structure],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the element and the molecule of each atom."""
    charges = np.concatenate([s.charges for s in structures]).astype(np.int64)
    sizes = [len(s.charges) for s in structures]
    return charges, np.repeat(np.arange(len(structures)), sizes)
