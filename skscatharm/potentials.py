"""Potentials: energies, forces and stresses, learned from all of them."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skscatharm._compat import HasMethods, _fit_context
from skscatharm._parts import EstimatorOfParts
from skscatharm.engine.arrays import to_host
from skscatharm.regression import KernelRegressor
from skscatharm.regression.inputs import check_weight
from skscatharm.scattering import SETTINGS, SolidHarmonicScattering
from skscatharm.slopes import (
    checked_rows,
    known_slopes,
    sizes_of,
    strain_too,
    volumes_of,
)
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.channels import element_channels
from skscatharm.structures.compositions import (
    check_elements,
    count_atoms,
    fit_atomic_energies,
)
from skscatharm.structures.elements import SYMBOLS
from skscatharm.structures.labels import (
    check_energies,
    check_forces,
    read_labels,
    to_voigt,
)

__all__ = ["Evaluation", "ScatteringPotential", "force_scorer"]

_Array = NDArray[np.float64]
# Charges and positions of a configuration that gives others their axes.
_Reference = tuple[NDArray[np.int64], _Array]


class Evaluation(NamedTuple):
    """Energies, forces, uncertainties and stresses of molecules.

    Attributes
    ----------
    energies : ndarray of shape (n_molecules,)
        In the unit of the training data.
    forces : ndarray of shape (n_molecules, n_atoms, 3) or None
        In the unit of the energies per Å; zeros beyond the atoms of a molecule. None
        if they were not asked for.
    uncertainties : ndarray of shape (n_molecules,) or None
        Estimated errors of the energies; None if the regressor estimates none.
    stresses : ndarray of shape (n_molecules, 6) or None
        In the unit of the energies per Å^3, in the order xx, yy, zz, yz, xz, xy. None
        if they were not asked for.
    """

    energies: _Array
    forces: _Array | None
    uncertainties: _Array | None
    stresses: _Array | None = None


class ScatteringPotential(RegressorMixin, EstimatorOfParts):
    r"""Potential energy surface, learned from energies, forces and stresses.

    The energy of a molecule with atoms of elements :math:`Z_n` at :math:`r_n` and
    scattering coefficients S is

    .. math:: E = \sum_n e(Z_n) + f(S(r_1, ..., r_N)) .

    The regressor f learns from energies and from forces, which are minus the
    derivatives of the energy,

    .. math::

        F_n = -\frac{\partial E}{\partial r_n}
        = -\sum_k \frac{\partial f}{\partial S_k} \frac{\partial S_k}{\partial r_n} .

    A configuration of N atoms has one energy and 3 N components of forces, so a few
    hundred configurations suffice. Predicted forces are derivatives of predicted
    energies: they conserve energy, and add up to zero, as do their torques.

    In crystals, slabs and wires, f is the energy per atom, as a function of the
    coefficients per atom:

    .. math:: E = \sum_n e(Z_n) + N f(S / N) .

    A supercell has exactly the multiple of the energy. The stress of a crystal of
    volume V is the derivative with respect to a strain :math:`\epsilon` of the cell and
    the positions, :math:`\sigma = V^{-1} \, \partial E / \partial \epsilon`, and f
    learns from it too.

    Parameters
    ----------
    scattering : SolidHarmonicScattering, default=None
        Computes the coefficients and their derivatives. None means
        ``SolidHarmonicScattering(**SETTINGS["potential"])``, with ``channels=None``.
        Channels that are None are those of :func:`~skscatharm.element_channels`, in
        crystals without the standard channels. In single precision, rounding errors
        make energies noisy. If a molecule of the training set is periodic,
        ``normalize="atom"`` is set, and fields are paired with those of the same
        channel alone.
    regressor : estimator, default=None
        Predicts energies from coefficients. To learn from forces, its `fit` needs the
        arguments `jacobian` and `gradients`; to predict forces, it needs a method
        `predict_gradient`. None means ``KernelRegressor()``.
    atomic_energies : mapping of int to float, default=None
        Energies e of the isolated atoms by nuclear charge, ``{1: -13.6, 8: -2041.8}``,
        in the unit of `energies`. None fits them to the energies, by least squares on
        the numbers of atoms; if all molecules have the same composition, the sum of
        the energies of their atoms is the mean energy.

    Attributes
    ----------
    scattering_ : SolidHarmonicScattering
        The transformer that was used.
    regressor_ : estimator
        The fitted regressor.
    elements_ : ndarray of shape (n_elements,)
        Nuclear charges of the elements of the training set.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of the isolated atoms of these elements.

    See Also
    --------
    skscatharm.ase.ScatteringCalculator : Use a potential in ASE.
    skscatharm.potentials.force_scorer : Score predicted forces in a search.

    Notes
    -----
    Predictions have the units of the training data: energies that were given in eV are
    predicted in eV, and forces in eV/Å. Forces have to be given in the unit of the
    energies per Å.

    In a search, scikit-learn slices lists of `ase.Atoms`, with their energies and
    forces, and arrays that are passed to `fit`. ``scattering__J`` and
    ``regressor__alpha`` are parameters of the parts, also where these are None.
    ``set_params(scattering__n_jobs=-1)`` fits on all cores.

    If all molecules of the training set are configurations of one, with its atoms in
    one order, the first is a reference: each molecule of these atoms is superposed on
    it, and integrated on a lattice that turns with it. Forces are then the exact
    derivatives of the energy. Otherwise energies have steps of the size that `tol`
    allows. They have such a step, too, where an atom comes to be more than 1 Å farther
    out along an axis of the reference than any of its atoms.

    A fit that is refused or interrupted leaves the previous fit unchanged.

    Examples
    --------
    Ten distances of two hydrogen atoms in a harmonic potential, without the forces:

    >>> import numpy as np
    >>> from skscatharm import (
    ...     ScatteringPotential, SolidHarmonicScattering, pad_structures
    ... )
    >>> distances = np.linspace(0.64, 0.84, 10)
    >>> X = pad_structures([1, 1], [[[0, 0, 0], [0, 0, d]] for d in distances])
    >>> energies = 18 * (distances - 0.74)**2
    >>> scattering = SolidHarmonicScattering(J=0, L=1, sigma=0.4)
    >>> potential = ScatteringPotential(scattering).fit(X, energies)
    >>> bool(abs(potential.predict(X) - energies).max() < 0.001)
    True
    """

    _default_parts: ClassVar[dict[str, Callable[[], Any]]] = {
        "scattering": partial(
            SolidHarmonicScattering, **SETTINGS["potential"] | {"channels": None}
        ),
        "regressor": KernelRegressor,
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "scattering": [HasMethods(["fit", "transform"]), None],
        "regressor": [HasMethods(["fit", "predict"]), None],
        "atomic_energies": [Mapping, None],
    }
    # In a search with metadata routing, forces go to the folds without being asked for.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {
        "energies": UNUSED,
        "forces": True,
        "stresses": True,
    }
    __metadata_request__score: ClassVar[dict[str, Any]] = {"energies": UNUSED}

    def __init__(
        self,
        scattering: Any = None,
        regressor: Any = None,
        *,
        atomic_energies: Mapping[int, float] | None = None,
    ) -> None:
        self.scattering = scattering
        self.regressor = regressor
        self.atomic_energies = atomic_energies

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        energies: ArrayLike | None = None,
        forces: Any = None,
        sample_weight: ArrayLike | float | None = None,
        stresses: Any = None,
    ) -> Self:
        """Learn from energies, and from forces and stresses if there are any.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, in any form that
            :func:`~skscatharm.structures.check_structures` accepts.
        energies : array-like of shape (n_molecules,), default=None
            Energies. None reads energies, forces and stresses from `ase.Atoms` that
            carry them: results of a calculator, otherwise ``info["energy"]``,
            ``arrays["forces"]`` and ``info["stress"]``.
        forces : array-like of shape (n_molecules, n_atoms, 3), default=None
            Forces, padded with zeros, or a list of arrays of shape (n_atoms, 3), in the
            unit of the energies per Å. None fits given `energies` alone.
        sample_weight : float or array-like of shape (n_molecules,), default=None
            Weight of each molecule, 0 or more.
        stresses : array-like of shape (n_molecules, 6) or (n_molecules, 3, 3), \
default=None
            Stresses of crystals, in the unit of the energies per Å^3: six components in
            the order xx, yy, zz, yz, xz, xy of ASE, or matrices. NaN where a molecule
            has none. None fits given `energies` without them.

        Returns
        -------
        self : ScatteringPotential

        Raises
        ------
        TypeError
            If `X` is none of the forms, or the regressor cannot learn from forces.
        ValueError
            If a molecule cannot be computed; if energies, forces, stresses or weights
            do not match the molecules, or have NaN or infinite entries; if there are
            forces or stresses without energies; if `atomic_energies` lack an element;
            or if a molecule is periodic and `scattering` has ``normalize="volume"``.

        Warns
        -----
        UserWarning
            If energies contradict forces or stresses: their sign or their unit seems
            wrong.
        """
        X = to_host(X)
        structures = check_structures(X)
        if energies is None:
            for name, given in (("forces", forces), ("stresses", stresses)):
                if given is not None:
                    raise ValueError(
                        f"{name} are given without energies; pass both: fit(X, "
                        f"energies, {name}={name})."
                    )
            energies, forces, stresses = read_labels(X)
            if energies is None:
                raise ValueError(
                    "X carries no energies. Pass them: fit(X, energies, forces), or "
                    "ase.Atoms with the results of a calculator, or with "
                    "info['energy'] and arrays['forces']."
                )
        y = check_energies(energies, len(structures))
        weight = check_weight(sample_weight, len(structures))
        slopes = known_slopes(forces, stresses, structures)

        scattering, regressor = self._make_parts()
        if slopes.are_known and not has_fit_parameter(regressor, "jacobian"):
            raise TypeError(
                f"{type(regressor).__name__} cannot learn from forces and stresses: "
                "its fit has no argument jacobian. Choose another regressor, or pass "
                "the energies alone: fit(X, energies)."
            )
        if getattr(scattering, "channels", ()) is None:
            scattering.set_params(channels=_channels_for(structures))
        _use_coefficients_per_atom(scattering, structures)
        sizes = sizes_of(scattering, structures)
        elements = np.unique(np.concatenate([s.charges for s in structures]))
        counts = count_atoms(structures, elements) / sizes[:, np.newaxis]
        y = y / sizes
        if self.atomic_energies is None:
            atomic_energies = fit_atomic_energies(counts, y, weight)
            compositions = np.unique(counts, axis=0)
        else:
            atomic_energies = _given_energies(self.atomic_energies, elements)
            compositions = np.eye(len(elements))

        reference = _common_reference(structures)
        structures = _with_reference(structures, reference)
        scattering.fit(structures)
        more: dict[str, Any] = {}
        if sample_weight is not None:
            more["sample_weight"] = weight
        if slopes.are_known:
            rows = checked_rows(scattering, structures, y, slopes)
            more["jacobian"], more["gradients"] = rows
        coefficients = scattering.transform(structures)
        self.regressor_ = regressor.fit(
            coefficients, y - counts @ atomic_energies, **more
        )
        self.scattering_ = scattering
        self.elements_ = elements
        self.atomic_energies_ = atomic_energies
        self._compositions = compositions
        self._reference = reference
        return self

    def predict(self, X: Any) -> _Array:
        """Predict energies.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as in `fit`.

        Returns
        -------
        energies : ndarray of shape (n_molecules,)
            In the unit of the training data.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        TypeError, ValueError
            As in `fit`, or if a molecule has an element that the training set lacks.

        Warns
        -----
        UserWarning
            If the energies of the atoms were fitted, and those of the atoms of a
            molecule do not follow from the compositions of the training set.
        """
        return self.evaluate(X, forces=False).energies

    def predict_forces(self, X: Any) -> _Array:
        """Predict forces.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as in `fit`.

        Returns
        -------
        forces : ndarray of shape (n_molecules, n_atoms, 3)
            In the unit of the energies per Å. `n_atoms` is that of `X` if this is an
            array, otherwise that of the largest molecule. Zeros follow the atoms of
            smaller molecules.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `predict`.
        """
        forces = self.evaluate(X).forces
        assert forces is not None
        return forces

    def predict_stresses(self, X: Any) -> _Array:
        """Predict stresses.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Crystals, periodic along all vectors of their cells.

        Returns
        -------
        stresses : ndarray of shape (n_molecules, 6)
            In the unit of the energies per Å^3, in the order xx, yy, zz, yz, xz, xy of
            ASE: derivatives of the energy with respect to strain, per volume.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `predict`, or if a molecule has no volume.
        """
        stresses = self.evaluate(X, stresses=True).stresses
        assert stresses is not None
        return stresses

    def evaluate(
        self, X: Any, *, forces: bool = True, stresses: bool = False
    ) -> Evaluation:
        """Predict energies, forces, stresses and uncertainties, which share most work.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as in `fit`.
        forces : bool, default=True
            Whether to predict forces.
        stresses : bool, default=False
            Whether to predict stresses. All molecules must be crystals then.

        Returns
        -------
        Evaluation
            With the attributes `energies`, `forces`, `uncertainties` and `stresses`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `predict`, or if a molecule has no volume and `stresses` is set.
        """
        check_is_fitted(self)
        X = to_host(X)
        structures = _with_reference(check_structures(X), self._reference)
        check_elements(structures, self.elements_, "potential")
        sizes = sizes_of(self.scattering_, structures)
        volumes = volumes_of(structures) if stresses else None
        self._check_extensive(structures)
        counts = count_atoms(structures, self.elements_) / sizes[:, np.newaxis]
        _warn_of_compositions(counts, self._compositions)
        predicted = predicted_stresses = None
        if forces or stresses:
            coefficients, gradients, *strain = self.scattering_.linearize(
                structures, self.regressor_.predict_gradient, **strain_too(stresses)
            )
            if forces:
                is_array = isinstance(X, np.ndarray) and X.ndim == 3
                n_atoms = X.shape[1] if is_array else gradients.shape[1]
                predicted = np.zeros((len(structures), n_atoms, 3))
                predicted[:, : gradients.shape[1]] = (
                    -sizes[:, np.newaxis, np.newaxis] * gradients
                )
            if volumes is not None:
                predicted_stresses = to_voigt(strain[0]) * (sizes / volumes)[:, None]
        else:
            coefficients = self.scattering_.transform(structures)
        energies, uncertainties = _predict(self.regressor_, coefficients)
        energies = sizes * (counts @ self.atomic_energies_ + energies)
        if uncertainties is not None:
            uncertainties = sizes * uncertainties
        return Evaluation(energies, predicted, uncertainties, predicted_stresses)

    def _check_extensive(self, structures: Sequence[Structure]) -> None:
        """Raise if the energy of a crystal would depend on the choice of its cell."""
        if getattr(self.scattering_, "normalize", None) == "atom":
            return
        for i, structure in enumerate(structures):
            if structure.cell is not None:
                raise ValueError(
                    f"Molecule {i} is periodic, but the potential was trained on "
                    "molecules that are not. Train it on crystals too, or with "
                    "normalize='atom' in its scattering."
                )

    def score(
        self,
        X: Any,
        energies: ArrayLike | None = None,
        sample_weight: ArrayLike | float | None = None,
    ) -> float:
        """Return the coefficient of determination R² of predicted energies.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as in `fit`.
        energies : array-like of shape (n_molecules,), default=None
            Energies. None reads them from `ase.Atoms` that carry them.
        sample_weight : float or array-like of shape (n_molecules,), default=None
            Weight of each molecule.

        Returns
        -------
        float
            At most 1, which is best.
        """
        predicted = self.predict(X)
        if energies is None:
            energies = read_labels(X).energies
        y = check_energies(energies, len(predicted))
        weight = check_weight(sample_weight, len(predicted))
        return float(r2_score(y, predicted, sample_weight=weight))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.no_validation = False
        tags.target_tags.required = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


class _ForceScorer(BaseEstimator):
    """Negative mean absolute error of forces: the scorer :data:`force_scorer`."""

    __metadata_request__score: ClassVar[dict[str, Any]] = {
        "potential": UNUSED,
        "forces": True,
    }

    def score(self, potential: Any, X: Any, y: Any = None, forces: Any = None) -> float:
        """Return the negative mean absolute error of the components of forces.

        Parameters
        ----------
        potential : ScatteringPotential
            A fitted potential.
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules.
        y : array-like of shape (n_molecules,), default=None
            Energies; ignored.
        forces : array-like of shape (n_molecules, n_atoms, 3), default=None
            Forces. None reads them from `ase.Atoms` that carry them.

        Returns
        -------
        float
            At most 0, which is best.
        """
        structures = check_structures(to_host(X))
        if forces is None:
            forces = read_labels(X).forces
        if forces is None:
            raise ValueError(
                "X carries no forces to score. Search with ase.Atoms that carry them: "
                "search.fit(frames). With arrays, set "
                "sklearn.set_config(enable_metadata_routing=True), and pass them: "
                "search.fit(X, energies, forces=forces)."
            )
        expected = check_forces(forces, structures)
        predicted = potential.predict_forces(X)[:, : expected.shape[1]]
        errors = np.abs(predicted - expected)
        n_components = 3 * sum(len(structure.charges) for structure in structures)
        return -float(errors.sum() / n_components)

    __call__ = score


#: Scorer of :class:`ScatteringPotential`: the negative mean absolute error of the
#: components of the forces. ``GridSearchCV(potential, grid, scoring=force_scorer)``.
#:
#: The forces are those that `ase.Atoms` carry. Molecules of other forms need forces in
#: an array, and ``sklearn.set_config(enable_metadata_routing=True)``: then
#: ``search.fit(X, energies, forces=forces)`` slices them for fits and scores.
force_scorer = _ForceScorer()


def _predict(regressor: Any, coefficients: _Array) -> tuple[_Array, _Array | None]:
    """Predict energies, and their uncertainties if the regressor has any."""
    if "return_std" in inspect.signature(regressor.predict).parameters:
        energies, uncertainties = regressor.predict(coefficients, return_std=True)
        return energies, uncertainties
    return regressor.predict(coefficients), None


def _given_energies(given: Mapping[int, float], elements: NDArray[Any]) -> _Array:
    missing = [int(z) for z in elements if z not in given]
    if missing:
        raise ValueError(
            f"atomic_energies lack {', '.join(SYMBOLS[z] for z in missing)}; give the "
            f"energy of the isolated atom for the nuclear charges {missing}."
        )
    energies = np.array([given[z] for z in elements], dtype=np.float64)
    wrong = elements[~np.isfinite(energies)]
    if len(wrong):
        raise ValueError(
            f"atomic_energies[{wrong[0]}] is {given[wrong[0]]}; give a finite energy."
        )
    return energies


def _warn_of_compositions(counts: _Array, known: _Array) -> None:
    """Warn if the energies of the atoms of a molecule do not follow from known ones."""
    rest = counts - counts @ np.linalg.pinv(known) @ known
    unknown = np.flatnonzero(np.abs(rest).max(axis=1) > 1e-6 * counts.sum(axis=1))
    if len(unknown):
        warnings.warn(
            f"Molecule {unknown[0]} (and {len(unknown) - 1} more) has a composition "
            "that does not follow from those of the training set, so its energy is "
            "arbitrary by a constant. Pass atomic_energies to ScatteringPotential.",
            stacklevel=4,
        )


def _channels_for(structures: Sequence[Structure]) -> Any:
    """Choose channels that tell the elements apart."""
    charges = np.concatenate([structure.charges for structure in structures])
    are_molecules = all(structure.cell is None for structure in structures)
    return element_channels(charges, standard=None if are_molecules else False)


def _common_reference(structures: Sequence[Structure]) -> _Reference | None:
    """Return the first of many configurations of a molecule; None of several ones."""
    first = structures[0]
    same = all(np.array_equal(s.charges, first.charges) for s in structures)
    are_molecules = all(structure.cell is None for structure in structures)
    return (first.charges, first.positions) if same and are_molecules else None


def _with_reference(
    structures: Sequence[Structure], reference: _Reference | None
) -> list[Structure]:
    """Give configurations of the molecule of a reference its positions."""
    if reference is None:
        return list(structures)
    charges, positions = reference
    return [
        structure._replace(reference=positions)
        if structure.cell is None and np.array_equal(structure.charges, charges)
        else structure
        for structure in structures
    ]


def _use_coefficients_per_atom(
    scattering: Any, structures: Sequence[Structure]
) -> None:
    """Make the energies of crystals independent of the choice of their cells."""
    periodic = [i for i, s in enumerate(structures) if s.cell is not None]
    if getattr(scattering, "normalize", None) == "volume":
        raise ValueError(
            "the energy is no function of coefficients per volume. Choose "
            "normalize='atom' in the scattering, or None for molecules."
        )
    if periodic:
        scattering.set_params(normalize="atom")
        if getattr(scattering, "mixed_moments", False) == "channels":
            scattering.set_params(mixed_moments=True)
