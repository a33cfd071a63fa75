"""Fit sums over atoms of quadratic forms, one form for each element."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm._threads import one_blas_thread
from skscatharm.regression.atom_kernels import AtomicKernels, Atoms, Form, Term
from skscatharm.regression.quadratic import (
    fit_kernel,
    fit_kernel_iteratively,
    leave_one_out,
    search_prior,
)
from skscatharm.regression.whitening import (
    Array,
    Whitening,
    find_whitening,
    root_mean_square,
)

# Number of samples that choose the prior: this part of them, from 800 to 2,000.
_SELECTED, _SELECTION_SIZES = 0.2, (800, 2000)
# Errors within 1 % of the lowest are equal, and the largest penalty wins: more samples
# need no smaller one, and iterations converge faster.
_EQUAL = 1.01
# Largest number of samples for which factorising the kernel matrix is fastest.
_DIRECT_SIZE = 8000
# With more: number of samples in the preconditioner, and relative norm of the residual
# at which iterations stop. A smaller one hardly changes errors.
_PRECONDITIONER_SIZE, _TOLERANCE = 1000, 1e-3


class AtomicPrior(NamedTuple):
    """Scales and penalty of a quadratic form of samples plus those of their atoms.

    The weights are the variances of the terms over the samples, relative to that of
    the quadratic forms of the atoms.

    Attributes
    ----------
    linear, product : float
        Weights of the linear form of the sample, and of products of two of its
        coordinates.
    atom_linear : float
        Weight of the linear forms of the atoms.
    extent : float
        Weight of the forms of the atoms that are multiplied by squared distances.
    linear_decay, product_decay, atom_decay : float
        Coordinates are scaled by this power of their standard deviations, in both
        terms of the sample and in those of the atoms.
    alpha : float
        Strength of the penalty, relative to the sum of squared errors.
    """

    linear: float
    product: float
    atom_linear: float
    extent: float
    linear_decay: float
    product_decay: float
    atom_decay: float
    alpha: float


# Candidates of `select_prior`, and where it starts. The extent has terms of its own.
_EXTENTS = {"extent": (1.0, 10.0, 100.0)}
_CHOICES: dict[str, tuple[float, ...]] = {
    "alpha": tuple(10.0**k for k in range(-8, 3)),
    "linear": (0.0, 0.1, 1.0, 10.0, 30.0, 100.0, 300.0),
    "atom_linear": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "product": (0.0, 0.001, 0.01, 0.1, 1.0, 10.0),
    "atom_decay": (0.1, 0.15, 0.2, 0.3, 0.5),
    "linear_decay": (0.2, 0.35, 0.5, 1.0),
    "product_decay": (0.1, 0.2, 0.3, 0.5, 1.0),
}
_START = AtomicPrior(30.0, 0.0, 1.0, 0.0, 0.35, 0.2, 0.15, 1e-7)


def _relative(prior: AtomicPrior) -> dict[str, Term]:
    """Return each term with its weight as the factor."""
    return {
        "linear": Term(prior.linear, prior.linear_decay),
        "product": Term(prior.product, prior.product_decay),
        "atom_linear": Term(prior.atom_linear, prior.atom_decay),
        "atom_product": Term(1.0, prior.atom_decay),
        "extent_linear": Term(prior.extent * prior.atom_linear, prior.atom_decay),
        "extent_product": Term(prior.extent, prior.atom_decay),
    }


class FormOfFeatures(NamedTuple):
    """Quadratic form of features, through their white coordinates."""

    whitening: Whitening
    form: Form

    def evaluate(self, features: Array) -> Array:
        """Compute the values of rows of features."""
        return self.form.evaluate(self.whitening.coordinates(features))

    def plus(self, constant: float) -> "FormOfFeatures":
        """Add a constant."""
        form = self.form._replace(constant=self.form.constant + constant)
        return self._replace(form=form)


class Elements(NamedTuple):
    """Atoms in the white coordinates of their element.

    Attributes
    ----------
    whitenings : dict
        Those of the atoms of each element, by nuclear charge.
    white : dict
        White coordinates of these atoms.
    places : dict
        Where the atoms of each element are among all.
    """

    whitenings: dict[int, Whitening]
    white: dict[int, Array]
    places: dict[int, NDArray[np.intp]]

    def atoms(self, owners: NDArray[np.int64], factors: Array) -> list[Atoms]:
        """Return the atoms of each element, with their samples and factors."""
        return [
            Atoms(self.white[z], whitening.deviations, owners[at], factors[at])
            for (z, whitening), at in zip(
                self.whitenings.items(), self.places.values(), strict=True
            )
        ]

    def forms(self, forms: list[Form]) -> dict[int, FormOfFeatures]:
        """Return forms as functions of features, by nuclear charge."""
        return {
            z: FormOfFeatures(whitening, form)
            for (z, whitening), form in zip(self.whitenings.items(), forms, strict=True)
        }


def find_elements(
    rows: Array, charges: NDArray[np.int64], atom_weight: Array
) -> Elements:
    """Find the white coordinates of the atoms of each element.

    Parameters
    ----------
    rows : ndarray of shape (n_atoms, n_atom_features)
        Features of atoms.
    charges : ndarray of shape (n_atoms,)
        Their elements.
    atom_weight : ndarray of shape (n_atoms,)
        Positive weights.
    """
    elements = Elements({}, {}, {})
    for z in np.unique(charges).tolist():
        here = np.flatnonzero(charges == z)
        of_element = rows[here]
        elements.whitenings[z] = find_whitening(of_element, atom_weight[here])
        elements.white[z] = elements.whitenings[z].coordinates(of_element)
        elements.places[z] = here
    return elements


def choose_samples(
    n_samples: int, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    """Draw the samples that choose the prior."""
    n_chosen = int(np.clip(_SELECTED * n_samples, *_SELECTION_SIZES))
    return np.sort(random_state.permutation(n_samples)[:n_chosen])


def select_prior(
    kernels: AtomicKernels,
    y: Array,
    sample_weight: Array,
    alpha: float | None,
    *,
    start: AtomicPrior = _START,
    choices: Mapping[str, tuple[float, ...]] = _CHOICES,
    fit_intercept: bool = True,
) -> tuple[AtomicPrior, dict[str, Term]]:
    """Choose a prior by the mean absolute leave-one-out error.

    Parameters
    ----------
    kernels : AtomicKernels
        Of few samples: the time grows with the cube of their number.
    y, sample_weight : ndarrays of shape (n_samples,)
    alpha : float or None
        Penalty. None chooses it.
    start : AtomicPrior
        Where the search starts.
    choices : mapping
        Candidates of each parameter that is searched.
    fit_intercept : bool
        Whether the fit has a free intercept.

    Returns
    -------
    prior : AtomicPrior
    terms : dict
        The terms of the kernel, whose variances are the weights of the prior.
    """
    scale = cache(partial(kernels.scale, centred=fit_intercept))

    @cache
    def score(prior: AtomicPrior) -> float:
        kernel = np.zeros((len(y), len(y)))
        for name, (weight, decay) in _relative(prior).items():
            if weight:
                matrix, factor = scale(name, decay)
                kernel += weight * factor * matrix
        errors = leave_one_out(
            kernel, y, sample_weight, prior.alpha, fit_intercept=fit_intercept
        )
        return float(sample_weight @ abs(errors))

    # The matrices are small: more threads would wait for each other.
    with one_blas_thread():
        best = search_prior(start, choices, alpha, score)
        if alpha is None:
            limit = _EQUAL * score(best)
            penalised = [best._replace(alpha=value) for value in choices["alpha"]]
            best = max(
                (prior for prior in penalised if score(prior) <= limit),
                key=lambda prior: prior.alpha,
            )
    terms = {
        name: Term(weight * scale(name, decay)[1] if weight else 0.0, decay)
        for name, (weight, decay) in _relative(best).items()
    }
    return best, terms


def fit_terms(
    kernels: AtomicKernels,
    terms: Mapping[str, Term],
    y: Array,
    sample_weight: Array,
    alpha: float,
    random_state: np.random.RandomState,
    *,
    fit_intercept: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Array, float]:
    """Fit a function of the terms, by a factorisation or by iterations.

    Parameters
    ----------
    kernels : AtomicKernels
    terms : mapping
        The terms of the kernel.
    y, sample_weight : ndarrays of shape (n_samples,)
    alpha : float
        Penalty.
    random_state : RandomState
        Draws the samples of the preconditioner.
    fit_intercept : bool
        Whether the intercept is free.
    progress : callable
        Called after each iteration.

    Returns
    -------
    dual : ndarray of shape (n_samples,)
        Dual coefficients of the function.
    intercept : float
    """
    n = len(y)
    if n <= _DIRECT_SIZE:
        dual, intercept, _ = fit_kernel(
            kernels.matrix(terms),
            y,
            sample_weight,
            alpha,
            np.arange(0),
            fit_intercept=fit_intercept,
        )
        return dual, intercept
    landmarks = np.sort(random_state.permutation(n)[:_PRECONDITIONER_SIZE])
    columns = kernels.columns(terms, landmarks)
    diagonal = columns[landmarks, np.arange(len(landmarks))]
    return fit_kernel_iteratively(
        lambda v: kernels.evaluate(*kernels.function(terms, v)),
        columns,
        landmarks,
        float(sample_weight.sum() * diagonal.mean()),
        y,
        sample_weight,
        alpha,
        fit_intercept=fit_intercept,
        tol=_TOLERANCE,
        progress=progress,
    )


def fit_atoms(
    features: Array,
    rows: Array,
    charges: NDArray[np.int64],
    owners: NDArray[np.int64],
    y: Array,
    sample_weight: Array,
    factors: Mapping[str, Array],
    *,
    n_axes: int,
    alpha: float | None,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> tuple[FormOfFeatures, dict[str, dict[int, FormOfFeatures]], AtomicPrior]:
    """Fit a quadratic form of samples plus one of the atoms of each element.

    Minimises ``sum(sample_weight * (y - f)**2) / variance(y) + alpha * |f|**2``. The
    penalty is the norm of the function space of a kernel, the weighted sum of those of
    `AtomicKernels`.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Features of samples.
    rows : ndarray of shape (n_atoms, n_atom_features)
        Features of atoms.
    charges, owners : ndarrays of shape (n_atoms,)
        Element and sample of each atom. Samples are in ascending order.
    y, sample_weight : ndarrays of shape (n_samples,)
        Targets, and positive weights.
    factors : mapping
        By which the form of each atom is multiplied, arrays of shape (n_atoms,): those
        of the sum ``"atom"``, which are 1, and possibly of ``"extent"``, squared
        distances.
    n_axes : int
        Number of axes of an atom whose products are used.
    alpha : float or None
        Penalty. None chooses it.
    seed : int
        Draws the samples that choose the prior, and those of the preconditioner.
    progress : callable
        Called after each iteration.

    Returns
    -------
    form : FormOfFeatures
        That of the samples.
    forms : dict
        Those of the atoms of each element, by nuclear charge, in each sum.
    prior : AtomicPrior
    """
    share = sample_weight / sample_weight.sum()
    scale = float(root_mean_square((y - share @ y)[:, np.newaxis], share)[0]) or 1.0
    y = y / scale
    whitening = find_whitening(features, sample_weight)
    elements = find_elements(rows, charges, sample_weight[owners])
    sums = {name: elements.atoms(owners, factor) for name, factor in factors.items()}
    start, choices = _START, _CHOICES
    if "extent" in sums:
        start, choices = start._replace(extent=10.0), choices | _EXTENTS
    white = whitening.coordinates(features)
    kernels = AtomicKernels(white, whitening.deviations, sums, n_axes)

    random_state = np.random.RandomState(seed)
    chosen = choose_samples(len(y), random_state)
    prior, terms = select_prior(
        kernels.of(chosen),
        y[chosen],
        sample_weight[chosen],
        alpha,
        start=start,
        choices=choices,
    )
    dual, intercept = fit_terms(
        kernels,
        terms,
        y,
        sample_weight,
        prior.alpha,
        random_state,
        progress=progress,
    )
    form, found = kernels.function(terms, scale * dual)
    form = form._replace(constant=scale * intercept)
    forms = {name: elements.forms(of_elements) for name, of_elements in found.items()}
    return FormOfFeatures(whitening, form), forms, prior


def evaluate_atoms(
    forms: Mapping[int, FormOfFeatures], rows: Array, charges: NDArray[np.int64]
) -> Array:
    """Compute the values of the forms of atoms.

    Parameters
    ----------
    forms : mapping
        The form of each element, by nuclear charge.
    rows, charges
        As in `fit_atoms`, with no other elements.

    Returns
    -------
    values : ndarray of shape (n_atoms,)
    """
    values = np.empty(len(charges))
    for z, form in forms.items():
        values[charges == z] = form.evaluate(rows[charges == z])
    return values
