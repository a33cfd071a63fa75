"""Fit sums over atoms of quadratic forms, one form for each element."""

from collections.abc import Callable
from functools import cache
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
    linear_decay, product_decay, atom_decay : float
        Coordinates are scaled by this power of their standard deviations, in both
        terms of the sample and in those of the atoms.
    alpha : float
        Strength of the penalty, relative to the sum of squared errors.
    """

    linear: float
    product: float
    atom_linear: float
    linear_decay: float
    product_decay: float
    atom_decay: float
    alpha: float


# Candidates of `select_prior`, and where it starts.
_CHOICES: dict[str, tuple[float, ...]] = {
    "alpha": tuple(10.0**k for k in range(-8, 3)),
    "linear": (0.0, 0.1, 1.0, 10.0, 30.0, 100.0, 300.0),
    "atom_linear": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "product": (0.0, 0.001, 0.01, 0.1, 1.0, 10.0),
    "atom_decay": (0.1, 0.15, 0.2, 0.3, 0.5),
    "linear_decay": (0.2, 0.35, 0.5, 1.0),
    "product_decay": (0.1, 0.2, 0.3, 0.5, 1.0),
}
_START = AtomicPrior(30.0, 0.0, 1.0, 0.35, 0.2, 0.15, 1e-7)


def _relative(prior: AtomicPrior) -> dict[str, Term]:
    """Return each term with its weight as the factor."""
    return {
        "linear": Term(prior.linear, prior.linear_decay),
        "product": Term(prior.product, prior.product_decay),
        "atom_linear": Term(prior.atom_linear, prior.atom_decay),
        "atom_product": Term(1.0, prior.atom_decay),
    }


class FormOfFeatures(NamedTuple):
    """Quadratic form of features, through their white coordinates."""

    whitening: Whitening
    form: Form

    def evaluate(self, features: Array) -> Array:
        """Compute the values of rows of features."""
        return self.form.evaluate(self.whitening.coordinates(features))


def select_prior(
    kernels: AtomicKernels, y: Array, sample_weight: Array, alpha: float | None
) -> tuple[AtomicPrior, dict[str, Term]]:
    """Choose a prior by the mean absolute leave-one-out error.

    Parameters
    ----------
    kernels : AtomicKernels
        Of few samples: the time grows with the cube of their number.
    y, sample_weight : ndarrays of shape (n_samples,)
    alpha : float or None
        Penalty. None chooses it.

    Returns
    -------
    prior : AtomicPrior
    terms : dict
        The terms of the kernel, whose variances are the weights of the prior.
    """
    variance = cache(kernels.variance)

    @cache
    def score(prior: AtomicPrior) -> float:
        kernel = np.zeros((len(y), len(y)))
        for name, (weight, decay) in _relative(prior).items():
            if weight:
                matrix, factor = variance(name, decay)
                kernel += weight * factor * matrix
        errors = leave_one_out(kernel, y, sample_weight, prior.alpha)
        return float(sample_weight @ abs(errors))

    best = search_prior(_START, _CHOICES, alpha, score)
    if alpha is None:
        limit = _EQUAL * score(best)
        penalised = [best._replace(alpha=value) for value in _CHOICES["alpha"]]
        best = max(
            (prior for prior in penalised if score(prior) <= limit),
            key=lambda prior: prior.alpha,
        )
    terms = {
        name: Term(weight * variance(name, decay)[1], decay)
        for name, (weight, decay) in _relative(best).items()
    }
    return best, terms


def fit_atoms(
    features: Array,
    rows: Array,
    charges: NDArray[np.int64],
    owners: NDArray[np.int64],
    y: Array,
    sample_weight: Array,
    *,
    n_axes: int,
    alpha: float | None,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> tuple[FormOfFeatures, dict[int, FormOfFeatures], AtomicPrior]:
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
        That of the atoms of each element, by nuclear charge.
    prior : AtomicPrior
    """
    n = len(y)
    share = sample_weight / sample_weight.sum()
    scale = float(root_mean_square((y - share @ y)[:, np.newaxis], share)[0]) or 1.0
    y = y / scale
    whitening = find_whitening(features, sample_weight)
    whitenings, elements = {}, {}
    for z in np.unique(charges).tolist():
        here = charges == z
        of_element, of_atoms = rows[here], owners[here]
        whitenings[z] = found = find_whitening(of_element, sample_weight[of_atoms])
        white = found.coordinates(of_element)
        elements[z] = Atoms(white, found.deviations, of_atoms)
    white = whitening.coordinates(features)

    random_state = np.random.RandomState(seed)
    kernels = AtomicKernels(white, whitening.deviations, [*elements.values()], n_axes)
    n_chosen = int(np.clip(_SELECTED * n, *_SELECTION_SIZES))
    chosen = np.sort(random_state.permutation(n)[:n_chosen])
    # The matrices are small: more threads would wait for each other.
    with one_blas_thread():
        prior, terms = select_prior(
            kernels.of(chosen), y[chosen], sample_weight[chosen], alpha
        )
    if n <= _DIRECT_SIZE:
        none = np.arange(0)
        dual, intercept, _ = fit_kernel(
            kernels.matrix(terms), y, sample_weight, prior.alpha, none
        )
    else:
        landmarks = np.sort(random_state.permutation(n)[:_PRECONDITIONER_SIZE])
        columns = kernels.columns(terms, landmarks)
        diagonal = columns[landmarks, np.arange(len(landmarks))]
        dual, intercept = fit_kernel_iteratively(
            lambda v: kernels.evaluate(*kernels.function(terms, v)),
            columns,
            landmarks,
            float(sample_weight.sum() * diagonal.mean()),
            y,
            sample_weight,
            prior.alpha,
            tol=_TOLERANCE,
            progress=progress,
        )
    form, of_elements = kernels.function(terms, scale * dual)
    form = form._replace(constant=scale * intercept)
    forms = {
        z: FormOfFeatures(whitenings[z], found)
        for z, found in zip(elements, of_elements, strict=True)
    }
    return FormOfFeatures(whitening, form), forms, prior
