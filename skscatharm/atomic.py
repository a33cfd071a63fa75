"""The regressor of sums and moments of atoms."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from skscatharm._compat import HasMethods, Interval, StrOptions, _fit_context
from skscatharm._parts import EstimatorOfParts
from skscatharm._progress import progress_bar
from skscatharm.engine.arrays import to_host
from skscatharm.local import LocalScattering
from skscatharm.regression.atom_kernels import sum_over_atoms
from skscatharm.regression.atoms import FormOfFeatures, evaluate_atoms, fit_atoms
from skscatharm.regression.dipoles import fit_dipoles
from skscatharm.regression.inputs import check_weight
from skscatharm.scattering import SolidHarmonicScattering
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.compositions import (
    check_elements,
    fit_atomic_energies,
)
from skscatharm.structures.labels import check_dipoles, check_targets

__all__ = ["AtomicRegressor"]

_Array = NDArray[np.float64]


class AtomicRegressor(RegressorMixin, EstimatorOfParts):
    r"""Property of a molecule as a sum over its atoms.

    An atom of the element :math:`Z_a` contributes a quadratic form
    :math:`q_{Z_a}(S_a)` of its coefficients :math:`S_a` from :class:`LocalScattering`.
    A molecule of QM9 has 18 atoms on average, and similar atoms occur in many
    molecules, so fewer molecules suffice for properties that are sums over atoms. The
    parameter `target` says which property is learned:

    **Sums**, such as energies and heat capacities. The prediction is

    .. math::

        f = b + \sum_a \big( e(Z_a) + q_{Z_a}(S_a) \big) + q(S) ,

    where S are the coefficients of the molecule, and q is a quadratic form of them, as
    in ``MultilinearRegressor(degree=2)``.

    **Dipole moments**. The quadratic forms are charges, and

    .. math:: D = \sum_a (r_a - R) \, q_{Z_a}(S_a)

    with the centre of nuclear charge R. The prediction is the vector D, or its norm:
    whichever the training data have.

    **Extents**, such as the electronic spatial extent
    :math:`\langle R^2 \rangle`. The prediction is that of sums plus

    .. math:: \sum_a |r_a - R|^2 \, \big( p(Z_a) + p_{Z_a}(S_a) \big)

    with further quadratic forms :math:`p_Z`.

    For other properties, such as orbital energies, :class:`MultilinearRegressor` is
    better.

    The intercept b, the :math:`e(Z)` and the :math:`p(Z)` are fitted to the targets by
    least squares. The quadratic forms, with constant terms, minimise

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
    power p, and v has the first `n_axes` coordinates of u. For extents, the terms of
    pairs of atoms occur once more, times :math:`|r_a - R|^2 |r_b - R|^2`. For dipole
    moments, they are times :math:`(r_a - R) \cdot (r_b - R)`, and there are no others.
    The powers, the :math:`c` and :math:`\alpha` minimise the mean absolute
    leave-one-out error on some of the molecules: a fifth, but at least 800 and at most
    2,000. Of penalties whose errors are within 1 % of the lowest, the largest is used.
    Nothing has to be tuned.

    Parameters
    ----------
    local : LocalScattering, default=None
        Computes the coefficients of atoms. None means
        ``LocalScattering(max_order=1, tol=1e-4)``.
    scattering : SolidHarmonicScattering, default=None
        Computes the coefficients of molecules. None means
        ``SolidHarmonicScattering(max_order=1, mixed_moments=True)``. Dipole moments do
        not use it.
    target : {"sum", "dipole", "extent"}, default="sum"
        What is learned.
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
    scattering_ : SolidHarmonicScattering or None
        The transformer of molecules that was used. None for dipole moments.
    elements_ : ndarray of shape (n_elements,)
        Nuclear charges of the elements of the training set.
    atomic_targets_ : ndarray of shape (n_elements,)
        The targets :math:`e(Z)` of isolated atoms of these elements. 0 for dipole
        moments.
    intercept_ : float
        The intercept b. 0 for dipole moments.
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

    Norms of dipole moments need several fits, each of the components along directions
    that fits of other molecules predict. Vectors count as three targets for each
    molecule. Charges are in the unit of the targets per Å. They are not those of a
    population analysis: their sum need not be the charge of the molecule.

    A fit that is refused or interrupted leaves the previous fit unchanged.

    References
    ----------
    .. [1] F. A. Faber, A. S. Christensen, B. Huang, O. A. von Lilienfeld, "Alchemical
       and structural distribution based representation for universal quantum machine
       learning", J. Chem. Phys. 148, 241717 (2018): a kernel that sums over pairs of
       atoms. https://doi.org/10.1063/1.5020710
    .. [2] K. T. Schütt, H. E. Sauceda, P.-J. Kindermans, A. Tkatchenko, K.-R. Müller,
       "SchNet: a deep learning architecture for molecules and materials", J. Chem.
       Phys. 148, 241722 (2018): dipole moments and extents from terms of atoms, in a
       neural network. https://doi.org/10.1063/1.5019779

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
        "target": [StrOptions({"sum", "dipole", "extent"})],
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
        target: str = "sum",
        n_axes: int = 120,
        alpha: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.local = local
        self.scattering = scattering
        self.target = target
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
        y : array-like of shape (n_molecules,) or (n_molecules, 3)
            Targets. Vectors for dipole moments only, in the frame of the positions.
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
        check = check_dipoles if self.target == "dipole" else check_targets
        targets = check(y, len(structures))
        weight = check_weight(sample_weight, len(structures))
        used = np.flatnonzero(weight > 0)
        structures = [structures[i] for i in used]
        targets, weight = targets[used], weight[used]
        local, scattering = self._make_parts()
        for part in (local, scattering):
            part.fit(structures)
        atoms = _list_atoms(structures)
        factors = _factors(atoms.positions, self.target)
        elements = np.unique(atoms.charges)
        rows = local.transform(structures)
        settings = {
            "n_axes": self.n_axes,
            "alpha": self.alpha,
            "seed": check_random_state(self.random_state).randint(2**31 - 1),
        }
        atomic_targets, intercept = np.zeros(len(elements)), 0.0
        form: FormOfFeatures | None = None
        with progress_bar(self.verbose, "iteration") as advance:
            if self.target == "dipole":
                scattering = None
                charges, prior = fit_dipoles(
                    rows, *atoms, targets, weight, **settings, progress=advance
                )
                forms = {"dipole": charges}
            else:
                columns = _sums_of_elements(atoms, factors, elements, len(structures))
                *of_elements, intercept = fit_atomic_energies(columns, targets, weight)
                constants = np.reshape(of_elements, (len(factors), -1))
                atomic_targets = constants[0]
                form, forms, prior = fit_atoms(
                    scattering.transform(structures),
                    rows,
                    atoms.charges,
                    atoms.owners,
                    targets - columns @ [*of_elements, intercept],
                    weight,
                    factors,
                    **settings,
                    progress=advance,
                )
                for name, row in zip(factors, constants, strict=True):
                    forms[name] = {
                        z: of_element.plus(constant)
                        for (z, of_element), constant in zip(
                            forms[name].items(), row, strict=True
                        )
                    }
        self.local_, self.scattering_ = local, scattering
        self.elements_ = elements
        self.atomic_targets_ = atomic_targets
        self.intercept_ = float(intercept)
        self.alpha_ = prior.alpha
        self._target, self._has_vectors = self.target, targets.ndim == 2
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
        y : ndarray of shape (n_molecules,) or (n_molecules, 3)
            In the unit of the training data. Vectors if these are vectors.

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
        rows, atoms = self.local_.transform(structures), _list_atoms(structures)
        found = np.full((len(structures), 1), self.intercept_)
        for name, factors in _factors(atoms.positions, self._target).items():
            values = evaluate_atoms(self._forms[name], rows, atoms.charges)
            moments = values[:, np.newaxis] * factors.reshape(len(values), -1)
            found = found + sum_over_atoms(moments, atoms.owners, len(structures))
        if self._form is None:
            return found if self._has_vectors else np.linalg.norm(found, axis=1)
        return found[:, 0] + self._form.evaluate(self.scattering_.transform(structures))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.no_validation = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


class _Atoms(NamedTuple):
    """The atoms of all molecules.

    Attributes
    ----------
    positions : ndarray of shape (n_atoms, 3)
        Relative to the centre of nuclear charge of the molecule.
    charges : ndarray of shape (n_atoms,)
        Nuclear charges.
    owners : ndarray of shape (n_atoms,)
        The molecule of each atom.
    """

    positions: _Array
    charges: NDArray[np.int64]
    owners: NDArray[np.int64]


def _list_atoms(structures: Sequence[Structure]) -> _Atoms:
    centred = [
        s.positions - np.average(s.positions, axis=0, weights=s.charges)
        for s in structures
    ]
    sizes = [len(s.charges) for s in structures]
    return _Atoms(
        np.concatenate(centred),
        np.concatenate([s.charges for s in structures]).astype(np.int64),
        np.repeat(np.arange(len(structures)), sizes),
    )


def _factors(positions: _Array, target: str) -> dict[str, _Array]:
    """Return the factors of the atoms in each sum that a target has."""
    if target == "dipole":
        return {"dipole": positions}
    factors = {"atom": np.ones(len(positions))}
    if target == "extent":
        factors["extent"] = np.einsum("ak,ak->a", positions, positions)
    return factors


def _sums_of_elements(
    atoms: _Atoms,
    factors: Mapping[str, _Array],
    elements: NDArray[np.int64],
    n_molecules: int,
) -> _Array:
    """Sum the factors over the atoms of each element, and append ones.

    Returns
    -------
    columns : ndarray of shape (n_molecules, n_factors * n_elements + 1)
    """
    indicators = atoms.charges[:, np.newaxis] == elements
    sums = [
        sum_over_atoms(indicators * factor[:, np.newaxis], atoms.owners, n_molecules)
        for factor in factors.values()
    ]
    return np.column_stack([*sums, np.ones(n_molecules)])
