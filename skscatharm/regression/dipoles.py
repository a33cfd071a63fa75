"""Fit dipole moments: sums over atoms of their positions times quadratic forms."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from skscatharm.regression.atom_kernels import (
    AtomicKernels,
    Form,
    Term,
    sum_over_atoms,
)
from skscatharm.regression.atoms import (
    AtomicPrior,
    FormOfFeatures,
    choose_samples,
    find_elements,
    fit_terms,
    select_prior,
)
from skscatharm.regression.whitening import Array, root_mean_square

# Where the search of the prior starts, and the candidates. Samples have no form.
_START = AtomicPrior(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.2, 1e-2)
_CHOICES: dict[str, tuple[float, ...]] = {
    "alpha": tuple(10.0**k for k in range(-7, 3)),
    "atom_linear": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "atom_decay": (0.1, 0.15, 0.2, 0.3, 0.5),
}
# Random charges of the elements to start from, and iterations for each.
_N_STARTS, _N_ITER = 10, 50
# Directions are right when components along the previous ones are on average less than
# the norms by this part of their root mean square; and the largest number of turns.
_EQUAL, _MAX_TURNS = 5e-3, 10
# Fits of all samples, after those of halves. A second one follows the directions of the
# first.
_N_FITS = 2


def fit_dipoles(
    rows: Array,
    positions: Array,
    charges: NDArray[np.int64],
    owners: NDArray[np.int64],
    y: Array,
    sample_weight: Array,
    *,
    n_axes: int,
    alpha: float | None,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> tuple[dict[int, FormOfFeatures], AtomicPrior]:
    """Fit dipole moments with charges that are quadratic forms of the atoms' features.

    The dipole moment D is the sum of the positions times the charges. Given vectors,
    the fit is linear. Given norms, it is linear close to a solution: ``|D + d|`` is
    ``u @ (D + d)`` up to second order in d, where u is the direction of D. So the
    components along directions are fitted to the norms, then those along the new
    directions, until directions do not change. At first, each element has one charge.
    A fit of a sample along a wrong direction would confirm that direction, so those of
    each half of the samples are predicted by a fit of the other half.

    Parameters
    ----------
    rows : ndarray of shape (n_atoms, n_atom_features)
        Features of atoms.
    positions : ndarray of shape (n_atoms, 3)
        Relative to the centre of the sample.
    charges, owners : ndarrays of shape (n_atoms,)
        Element and sample of each atom. Samples are in ascending order.
    y : ndarray of shape (n_samples,) or (n_samples, 3)
        Norms or vectors.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    n_axes, alpha, seed, progress
        As in `atoms.fit_atoms`.

    Returns
    -------
    forms : dict
        The charges: the form of the atoms of each element, by nuclear charge.
    prior : AtomicPrior
    """
    n = len(y)
    share = sample_weight / sample_weight.sum()
    lengths = y if y.ndim == 1 else np.linalg.norm(y, axis=1)
    unit = float(root_mean_square(lengths[:, np.newaxis], share)[0]) or 1.0
    y = y / unit
    elements = find_elements(rows, charges, sample_weight[owners])
    sums = {"atom": elements.atoms(owners, positions / unit)}
    kernels = AtomicKernels(np.zeros((n, 0)), np.zeros(0), sums, n_axes)
    random_state = np.random.RandomState(seed)
    chosen = choose_samples(n, random_state)
    some, targets, weight = kernels.of(chosen), y[chosen], sample_weight[chosen]

    def select(
        directions: Array, y: Array, choices: Mapping[str, tuple[float, ...]]
    ) -> tuple[AtomicPrior, dict[str, Term]]:
        return select_prior(
            _along(some, directions),
            y,
            weight,
            alpha,
            start=_START,
            choices=choices,
            fit_intercept=False,
        )

    if y.ndim == 1:
        directions = _first_directions(some, targets, weight, random_state)
        for choices in ({"alpha": (_START.alpha,)}, _CHOICES):
            prior, terms = select(directions, targets, choices)
            forms = _fit_norms(
                some, terms, directions, targets, weight, prior.alpha, seed=seed
            )
            directions = _directions(_moments(some, forms))
        forms = _fit_norms(
            kernels,
            terms,
            _directions(_moments(kernels, forms)),
            y,
            sample_weight,
            prior.alpha,
            seed=seed,
            progress=progress,
        )
    else:
        # The components of a vector have a common error: leaving out one of them would
        # not tell how the fit is on another sample. So each has one, along a random
        # direction.
        directions = _directions(random_state.standard_normal((len(chosen), 3)))
        components = np.einsum("ik,ik->i", targets, directions)
        prior, terms = select(directions, components, _CHOICES)
        forms = _fit_components(
            kernels.of(np.repeat(np.arange(n), 3)),
            terms,
            np.tile(np.eye(3), (n, 1)),
            y.ravel(),
            np.repeat(sample_weight, 3),
            prior.alpha,
            seed=seed,
            progress=progress,
        )
    return elements.forms(forms["atom"]), prior


def _directions(vectors: Array) -> Array:
    """Return unit vectors, and 0 for 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0))


def _along(kernels: AtomicKernels, directions: Array) -> AtomicKernels:
    """Replace the positions of atoms by their components along the samples' directions.

    Parameters
    ----------
    kernels : AtomicKernels
        The factors of atoms are positions.
    directions : ndarray of shape (n_samples, 3)
    """
    elements = [
        atoms._replace(
            factors=np.einsum("ak,ak->a", atoms.factors, directions[atoms.owners])
        )
        for atoms in kernels.sums["atom"]
    ]
    return kernels._replace(sums={"atom": elements})


def _moments(kernels: AtomicKernels, forms: Mapping[str, Sequence[Form]]) -> Array:
    """Compute dipole moments, from kernels whose factors are positions."""
    found = np.zeros((len(kernels.white), 3))
    for atoms, form in zip(kernels.sums["atom"], forms["atom"], strict=True):
        of_atoms = form.evaluate(atoms.white)[:, np.newaxis] * atoms.factors
        found += sum_over_atoms(of_atoms, atoms.owners, len(found))
    return found


def _first_directions(
    kernels: AtomicKernels,
    norms: Array,
    sample_weight: Array,
    random_state: np.random.RandomState,
) -> Array:
    """Fit one charge for each element, from several starts, and return directions."""
    columns = np.stack(
        [
            sum_over_atoms(atoms.factors, atoms.owners, len(norms))
            for atoms in kernels.sums["atom"]
        ],
        axis=2,
    )
    root = np.sqrt(sample_weight)
    found: list[tuple[float, int, Array]] = []
    for _ in range(_N_STARTS):
        moments = columns @ random_state.standard_normal(columns.shape[2])
        for _ in range(_N_ITER):
            components = np.einsum("ik,ike->ie", _directions(moments), columns)
            best, *_ = np.linalg.lstsq(root[:, np.newaxis] * components, root * norms)
            moments = columns @ best
        error = sample_weight @ abs(np.linalg.norm(moments, axis=1) - norms)
        found.append((float(error), len(found), moments))
    return _directions(min(found)[-1])


def _fit_components(
    kernels: AtomicKernels,
    terms: Mapping[str, Term],
    directions: Array,
    y: Array,
    sample_weight: Array,
    alpha: float,
    *,
    seed: int,
    progress: Callable[[], object],
) -> dict[str, list[Form]]:
    """Fit the components of dipole moments along directions."""
    along = _along(kernels, directions)
    dual, _ = fit_terms(
        along,
        terms,
        y,
        sample_weight,
        alpha,
        np.random.RandomState(seed),
        fit_intercept=False,
        progress=progress,
    )
    _, forms = along.function(terms, dual)
    return forms


def _fit_norms(
    kernels: AtomicKernels,
    terms: Mapping[str, Term],
    directions: Array,
    norms: Array,
    sample_weight: Array,
    alpha: float,
    *,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[Form]]:
    """Fit norms by fits of components, whose directions follow from other samples."""

    def fit(
        part: AtomicKernels, samples: NDArray[np.intp] | slice
    ) -> dict[str, list[Form]]:
        return _fit_components(
            part,
            terms,
            directions[samples],
            norms[samples],
            sample_weight[samples],
            alpha,
            seed=seed,
            progress=progress,
        )

    share = sample_weight / sample_weight.sum()
    order = np.random.RandomState(seed).permutation(len(norms))
    halves = [np.sort(part) for part in np.array_split(order, 2)]
    for _ in range(_MAX_TURNS if len(norms) > 1 else 0):
        moments = np.empty_like(directions)
        for seen, unseen in (halves, halves[::-1]):
            forms = fit(kernels.of(seen), seen)
            moments[unseen] = _moments(kernels.of(unseen), forms)
        components = np.einsum("ik,ik->i", moments, directions)
        excess = share @ (np.linalg.norm(moments, axis=1) - components)
        directions = _directions(moments)
        if excess < _EQUAL:
            break
    for _ in range(_N_FITS):
        forms = fit(kernels, slice(None))
        directions = _directions(_moments(kernels, forms))
    return forms
