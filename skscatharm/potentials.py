"""Potentials: energies and forces of molecules, learned from both."""

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skscatharm._compat import HasMethods, _fit_context
from skscatharm.engine.arrays import to_host
from skscatharm.regression import KernelRegressor
from skscatharm.regression.consistency import compare_with_gradients
from skscatharm.regression.inputs import check_weight
from skscatharm.scattering import SETTINGS, SolidHarmonicScattering
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.elements import SYMBOLS
from skscatharm.structures.labels import check_energies, check_forces, read_labels

__all__ = ["Evaluation", "ScatteringPotential", "force_scorer"]

_Array = NDArray[np.float64]

# Forces of some molecules are compared with their energies: how many molecules, how
# many there must be, and the correlation from which a comparison means something. With
# 20 configurations of ethanol it is 0.9, and the slope differs from 1 by 10 %.
_SAMPLE, _LEAST_SAMPLE, _CORRELATED = 20, 10, 0.8


class Evaluation(NamedTuple):
    """Energies, forces and uncertainties of molecules.

    Attributes
    ----------
    energies : ndarray of shape (n_molecules,)
        In the unit of the training data.
    forces : ndarray of shape (n_molecules, n_atoms, 3) or None
        In the unit of the energies per Å; zeros beyond the atoms of a molecule. None
        if they were not asked for.
    uncertainties : ndarray of shape (n_molecules,) or None
        Estimated errors of the energies; None if the regressor estimates none.
    """

    energies: _Array
    forces: _Array | None
    uncertainties: _Array | None


class ScatteringPotential(RegressorMixin, BaseEstimator):
    r"""Potential energy surface, learned from energies and forces.

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

    Parameters
    ----------
    scattering : SolidHarmonicScattering, default=None
        Computes the coefficients and their derivatives. None means
        ``SolidHarmonicScattering(**SETTINGS["potential"])``. In single precision,
        rounding errors make energies noisy.
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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "scattering": [HasMethods(["fit", "transform"]), None],
        "regressor": [HasMethods(["fit", "predict"]), None],
        "atomic_energies": [Mapping, None],
    }
    # In a search with metadata routing, forces go to the folds without being asked for.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {
        "energies": UNUSED,
        "forces": True,
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

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the potential and of its parts.

        Parameters
        ----------
        **params : dict
            Such as ``scattering__J=1``. A part that is None becomes its default first.

        Returns
        -------
        self : ScatteringPotential
        """
        for name, default in _DEFAULTS.items():
            is_nested = any(key.startswith(f"{name}__") for key in params)
            if is_nested and params.get(name, getattr(self, name)) is None:
                params[name] = default()
        super().set_params(**params)
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        energies: ArrayLike | None = None,
        forces: Any = None,
        sample_weight: ArrayLike | float | None = None,
    ) -> Self:
        """Learn from energies, and from forces if there are any.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, in any form that
            :func:`~skscatharm.structures.check_structures` accepts.
        energies : array-like of shape (n_molecules,), default=None
            Energies. None reads energies and forces from `ase.Atoms` that carry them:
            results of a calculator, otherwise ``info["energy"]`` and
            ``arrays["forces"]``.
        forces : array-like of shape (n_molecules, n_atoms, 3), default=None
            Forces, padded with zeros, or a list of arrays of shape (n_atoms, 3), in the
            unit of the energies per Å. None fits given `energies` alone.
        sample_weight : float or array-like of shape (n_molecules,), default=None
            Weight of each molecule, 0 or more.

        Returns
        -------
        self : ScatteringPotential

        Raises
        ------
        TypeError
            If `X` is none of the forms, or the regressor cannot learn from forces.
        ValueError
            If a molecule cannot be computed; if energies, forces or weights do not
            match the molecules, or have NaN or infinite entries; if there are forces
            without energies; or if `atomic_energies` lack an element.

        Warns
        -----
        UserWarning
            If energies and forces contradict each other: the sign of the forces, or
            their unit, seems wrong.
        """
        X = to_host(X)
        structures = check_structures(X)
        if energies is None:
            if forces is not None:
                raise ValueError(
                    "forces are given without energies; pass both: fit(X, energies, "
                    "forces)."
                )
            energies, forces = read_labels(X)
            if energies is None:
                raise ValueError(
                    "X carries no energies. Pass them: fit(X, energies, forces), or "
                    "ase.Atoms with the results of a calculator, info['energy'] or "
                    "arrays['forces']."
                )
        y = check_energies(energies, len(structures))
        weight = check_weight(sample_weight, len(structures))
        gradients = None if forces is None else -check_forces(forces, structures)

        elements = np.unique(np.concatenate([s.charges for s in structures]))
        counts = _count_atoms(structures, elements)
        if self.atomic_energies is None:
            atomic_energies = _fit_atomic_energies(counts, y, weight)
            compositions = np.unique(counts, axis=0)
        else:
            atomic_energies = _given_energies(self.atomic_energies, elements)
            compositions = np.eye(len(elements))
        scattering, regressor = (
            default() if (part := getattr(self, name)) is None else clone(part)
            for name, default in _DEFAULTS.items()
        )
        if gradients is not None and not has_fit_parameter(regressor, "jacobian"):
            raise TypeError(
                f"{type(regressor).__name__} cannot learn from forces: its fit has no "
                "argument jacobian. Choose another regressor, or pass the energies "
                "alone: fit(X, energies)."
            )

        scattering.fit(structures)
        more: dict[str, Any] = {}
        if sample_weight is not None:
            more["sample_weight"] = weight
        if gradients is not None:
            _warn_of_forces(scattering, structures, y, gradients)
            more["gradients"] = gradients.reshape(len(y), -1)
            jacobian = scattering.jacobian(structures)
            more["jacobian"] = jacobian.reshape(*jacobian.shape[:2], -1)
        coefficients = scattering.transform(structures)
        self.regressor_ = regressor.fit(
            coefficients, y - counts @ atomic_energies, **more
        )
        self.scattering_ = scattering
        self.elements_ = elements
        self.atomic_energies_ = atomic_energies
        self._compositions = compositions
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

    def evaluate(self, X: Any, *, forces: bool = True) -> Evaluation:
        """Predict energies, forces and uncertainties, which share most of the work.

        Parameters
        ----------
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            Molecules, as in `fit`.
        forces : bool, default=True
            Whether to predict forces.

        Returns
        -------
        Evaluation
            With the attributes `energies`, `forces` and `uncertainties`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `predict`.
        """
        check_is_fitted(self)
        X = to_host(X)
        structures = check_structures(X)
        _check_elements(structures, self.elements_)
        counts = _count_atoms(structures, self.elements_)
        _warn_of_compositions(counts, self._compositions)
        predicted = None
        if forces:
            coefficients, gradients = self.scattering_.linearize(
                structures, self.regressor_.predict_gradient
            )
            is_array = isinstance(X, np.ndarray) and X.ndim == 3
            n_atoms = X.shape[1] if is_array else gradients.shape[1]
            predicted = np.zeros((len(structures), n_atoms, 3))
            predicted[:, : gradients.shape[1]] = -gradients
        else:
            coefficients = self.scattering_.transform(structures)
        energies, uncertainties = _predict(self.regressor_, coefficients)
        energies = counts @ self.atomic_energies_ + energies
        return Evaluation(energies, predicted, uncertainties)

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
            energies, _ = read_labels(X)
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


_DEFAULTS: dict[str, Callable[[], Any]] = {
    "scattering": partial(SolidHarmonicScattering, **SETTINGS["potential"]),
    "regressor": KernelRegressor,
}


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
            _, forces = read_labels(X)
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


def _count_atoms(structures: Sequence[Structure], elements: NDArray[Any]) -> _Array:
    """Count the atoms of each element: an array (n_molecules, n_elements)."""
    counts = [(s.charges[:, np.newaxis] == elements).sum(axis=0) for s in structures]
    return np.array(counts, dtype=np.float64)


def _fit_atomic_energies(counts: _Array, energies: _Array, weight: _Array) -> _Array:
    """Fit energies of atoms; of all that fit best, those of the smallest norm."""
    root = np.sqrt(weight)
    solution, *_ = np.linalg.lstsq(counts * root[:, np.newaxis], energies * root)
    return np.asarray(solution, dtype=np.float64)


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


def _check_elements(structures: Sequence[Structure], elements: NDArray[Any]) -> None:
    for i, structure in enumerate(structures):
        unknown = np.flatnonzero(~np.isin(structure.charges, elements))
        if len(unknown):
            raise ValueError(
                f"Molecule {i}, atom {unknown[0]} is "
                f"{SYMBOLS[structure.charges[unknown[0]]]}, but the potential knows "
                f"{', '.join(SYMBOLS[z] for z in elements)} only. Add molecules with "
                "this element to the training set."
            )


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


def _warn_of_forces(
    scattering: Any,
    structures: Sequence[Structure],
    energies: _Array,
    gradients: _Array,
) -> None:
    """Warn if energies that some forces alone predict contradict the energies."""
    chosen = _of_one_composition(structures)
    if len(chosen) < _LEAST_SAMPLE:
        return
    chosen = chosen[:: max(len(chosen) // _SAMPLE, 1)][:_SAMPLE]
    some = [structures[i] for i in chosen]
    jacobian = scattering.jacobian(some)
    slope, correlation = compare_with_gradients(
        scattering.transform(some),
        energies[chosen],
        jacobian.reshape(*jacobian.shape[:2], -1),
        gradients[chosen, : jacobian.shape[2]].reshape(len(some), -1),
    )
    if abs(correlation) < _CORRELATED or 2 / 3 < slope < 3 / 2:
        return
    seems = (
        "have the wrong sign: they are minus the derivatives of the energy"
        if slope < 0
        else f"be off by a factor of about {1 / slope:.2g}: are they in the unit of "
        "the energies per Å?"
    )
    warnings.warn(f"The forces seem to {seems}", stacklevel=4)


def _of_one_composition(structures: Sequence[Structure]) -> list[int]:
    """Return the indices of the molecules of the most frequent composition."""
    indices = defaultdict(list)
    for i, structure in enumerate(structures):
        indices[np.sort(structure.charges).tobytes()].append(i)
    return max(indices.values(), key=len)
