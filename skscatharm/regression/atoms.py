"""Fit sums over atoms of quadratic forms, one form for each element."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm._threads import one_blas_thread
from skscatharm.regression.quadratic import (
    fit_kernel,
    leave_one_out,
    search_prior,
)
from skscatharm.regression.whitening import (
    Array,
    axis_factors,
    find_whitening,
    root_mean_square,
)

# Number of samples that choose the prior.
_SELECTION_SIZE = 800
# Rows of a kernel matrix that are computed at once, to bound memory.
_ROWS = 1000
# Largest number of samples: their kernel matrix takes 3.2 GB.
MAX_SAMPLES = 20_000


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
    "alpha": tuple(10.0**k for k in range(-10, 3)),
    "linear": (0.0, 0.1, 1.0, 10.0, 30.0, 100.0, 300.0),
    "atom_linear": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "product": (0.0, 0.001, 0.01, 0.1, 1.0, 10.0),
    "atom_decay": (0.1, 0.15, 0.2, 0.3, 0.5),
    "linear_decay": (0.2, 0.35, 0.5, 1.0),
    "product_decay": (0.1, 0.2, 0.3, 0.5, 1.0),
}
_START = AtomicPrior(30.0, 0.0, 1.0, 0.35, 0.2, 0.15, 1e-7)


class Atoms(NamedTuple):
    """Atoms of one element in samples, in white coordinates.

    Attributes
    ----------
    white : ndarray of shape (n_atoms, n_axes)
        White coordinates.
    deviations : ndarray of shape (n_axes,)
        Standard deviations before whitening.
    owners : ndarray of shape (n_atoms,)
        The sample of each atom, in ascending order.
    """

    white: Array
    deviations: Array
    owners: NDArray[np.int64]

    def of(self, samples: NDArray[np.int64]) -> "Atoms":
        """Return the atoms of some samples, given in ascending order."""
        place = np.searchsorted(samples, self.owners)
        place[place == len(samples)] = 0
        kept = samples[place] == self.owners
        return Atoms(self.white[kept], self.deviations, place[kept])

    def scaled(self, decay: float) -> Array:
        """Scale coordinates by a power of their deviations, to mean squared norm 1."""
        return self.white * axis_factors(self.deviations, decay)


class Form(NamedTuple):
    """Quadratic form of features, of a sample or of an atom.

    The value is ``constant + z @ slope + z @ square @ z`` with
    ``z = (x - mean) @ matrix``.

    Attributes
    ----------
    constant : float
    mean : ndarray of shape (n_features,)
    matrix : ndarray of shape (n_features, n_axes)
    slope : ndarray of shape (n_axes,)
    square : ndarray of shape (n_squared_axes, n_squared_axes)
        Of the first axes.
    """

    constant: float
    mean: Array
    matrix: Array
    slope: Array
    square: Array

    def evaluate(self, features: Array) -> Array:
        """Compute the values of rows of features."""
        z = (features - self.mean) @ self.matrix
        leading = z[:, : len(self.square)]
        squares = np.einsum("ij,ij->i", leading @ self.square, leading)
        return np.asarray(self.constant + z @ self.slope + squares)


def sum_over_atoms(values: Array, owners: NDArray[np.int64], n_samples: int) -> Array:
    """Add values of atoms, of shape (n_atoms, ...), for each sample."""
    sums = np.zeros((n_samples, *values.shape[1:]))
    np.add.at(sums, owners, values)
    return sums


def sums_of_products(coordinates: Array, owners: NDArray[np.int64], n: int) -> Array:
    """Sum products of two coordinates over the atoms of each of n samples.

    Parameters
    ----------
    coordinates : ndarray of shape (n_atoms, n_axes)
    owners : ndarray of shape (n_atoms,)
        The sample of each atom, in ascending order.
    n : int

    Returns
    -------
    sums : ndarray of shape (n, n_axes * (n_axes + 1) / 2)
        Scalar products of its rows are the sums over pairs of atoms, one of each
        sample, of the squared scalar products of their coordinates.
    """
    upper = np.triu_indices(coordinates.shape[1])
    factors = np.where(upper[0] == upper[1], 1.0, np.sqrt(2))
    sums = np.zeros((n, len(factors)))
    samples, starts = np.unique(owners, return_index=True)
    for i, rows in zip(samples, np.split(coordinates, starts[1:]), strict=True):
        sums[i] = (rows.T @ rows)[upper]
    sums *= factors
    return sums


def add_gram(total: Array, features: Array, factor: float, power: int) -> None:
    """Add a factor times the powers of scalar products of rows to a symmetric matrix.

    Parameters
    ----------
    total : ndarray of shape (n, n)
        Overwritten.
    features : ndarray of shape (n, n_features)
    factor : float
    power : int
    """
    for rows in gen_batches(len(features), _ROWS):
        block = features[rows] @ features[rows.start :].T
        block **= power
        block *= factor
        total[rows, rows.start :] += block
        total[rows.stop :, rows] += block[:, rows.stop - rows.start :].T


class AtomicKernels:
    """The kernel matrices of the terms, between all pairs of samples.

    The term ``linear`` is scalar products of the coordinates of samples, ``product``
    their squares, ``atom_linear`` sums of 1 plus scalar products over pairs of atoms of
    the same element, and ``atom_product`` sums of their squares.

    Parameters
    ----------
    white, deviations : ndarrays of shape (n_samples, n_axes) and (n_axes,)
        White coordinates of samples, and standard deviations before whitening.
    elements : sequence of Atoms
        The atoms of the samples, for each element.
    n_axes : int
        Number of axes of an atom whose products are used.
    """

    def __init__(
        self, white: Array, deviations: Array, elements: Sequence[Atoms], n_axes: int
    ) -> None:
        self.white = white
        self.deviations = deviations
        self.elements = elements
        self.n_axes = n_axes

    def add(self, term: str, decay: float, factor: float, total: Array) -> None:
        """Add a factor times the matrix of a term to `total`."""
        power = 2 if term == "product" else 1
        for features in self._features(term, decay):
            add_gram(total, features, factor, power)

    def matrix(self, term: str, decay: float) -> tuple[Array, float]:
        """Compute the matrix of a term, divided by its variance over the samples.

        Returns
        -------
        matrix : ndarray of shape (n_samples, n_samples)
            Zero if the term does not vary.
        factor : float
            By which it was multiplied.
        """
        n = len(self.white)
        kernel = np.zeros((n, n))
        self.add(term, decay, 1.0, kernel)
        mean_square = np.trace(kernel) / n
        variance = mean_square - kernel.mean()
        factor = float(1 / variance) if variance > 1e-12 * mean_square else 0.0
        return factor * kernel, factor

    def _features(self, term: str, decay: float) -> Iterator[Array]:
        """Yield features of samples, whose scalar products add up to the kernel."""
        n = len(self.white)
        if term in ("linear", "product"):
            yield self.white * axis_factors(self.deviations, decay)
            return
        for atoms in self.elements:
            scaled = atoms.scaled(decay)
            if term == "atom_linear":
                values = np.column_stack([np.ones(len(scaled)), scaled])
                yield sum_over_atoms(values, atoms.owners, n)
            else:
                yield sums_of_products(scaled[:, : self.n_axes], atoms.owners, n)


def _weights(prior: AtomicPrior) -> dict[str, tuple[float, float]]:
    """Return the weight and the decay of each term."""
    return {
        "linear": (prior.linear, prior.linear_decay),
        "product": (prior.product, prior.product_decay),
        "atom_linear": (prior.atom_linear, prior.atom_decay),
        "atom_product": (1.0, prior.atom_decay),
    }


def select_prior(
    kernels: AtomicKernels, y: Array, sample_weight: Array, alpha: float | None
) -> tuple[AtomicPrior, dict[str, float]]:
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
    factors : dict
        The factor of the kernel of each term that makes its variance its weight.
    """
    matrix = cache(kernels.matrix)

    @cache
    def score(prior: AtomicPrior) -> float:
        kernel = np.zeros((len(y), len(y)))
        for term, (weight, decay) in _weights(prior).items():
            if weight:
                kernel += weight * matrix(term, decay)[0]
        errors = leave_one_out(kernel, y, sample_weight, prior.alpha)
        return float(sample_weight @ abs(errors))

    best = search_prior(_START, _CHOICES, alpha, score)
    factors = {
        term: weight * matrix(term, decay)[1]
        for term, (weight, decay) in _weights(best).items()
    }
    return best, factors


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
) -> tuple[Form, dict[int, Form], AtomicPrior]:
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
        Draws the samples that choose the prior.

    Returns
    -------
    form : Form
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
        weight = sample_weight[owners[here]]
        whitenings[z] = found = find_whitening(rows[here], weight)
        white = (rows[here] - found.mean) @ found.matrix
        elements[z] = Atoms(white, found.deviations, owners[here])
    white = (features - whitening.mean) @ whitening.matrix

    chosen = np.random.RandomState(seed).permutation(n)[:_SELECTION_SIZE]
    chosen.sort()
    some = AtomicKernels(
        white[chosen],
        whitening.deviations,
        [atoms.of(chosen) for atoms in elements.values()],
        n_axes,
    )
    # The matrices are small: more threads would wait for each other.
    with one_blas_thread():
        prior, factors = select_prior(some, y[chosen], sample_weight[chosen], alpha)
    kernels = AtomicKernels(white, whitening.deviations, [*elements.values()], n_axes)
    kernel = np.zeros((n, n))
    for term, (_, decay) in _weights(prior).items():
        if factors[term]:
            kernels.add(term, decay, factors[term], kernel)
    none = np.arange(0)
    dual, intercept, _ = fit_kernel(kernel, y, sample_weight, prior.alpha, none)
    del kernel
    dual *= scale

    linear = axis_factors(whitening.deviations, prior.linear_decay)
    product = axis_factors(whitening.deviations, prior.product_decay)
    scaled = white * product
    form = Form(
        scale * intercept,
        whitening.mean,
        whitening.matrix,
        factors["linear"] * linear**2 * (dual @ white),
        factors["product"]
        * np.multiply.outer(product, product)
        * ((scaled.T * dual) @ scaled),
    )
    forms = {}
    for z, atoms in elements.items():
        of_atoms = axis_factors(atoms.deviations, prior.atom_decay)
        first = of_atoms[:n_axes]
        leading = atoms.white[:, :n_axes] * first
        shares = dual[atoms.owners]
        square = (leading.T * shares) @ leading
        forms[z] = Form(
            factors["atom_linear"] * shares.sum(),
            whitenings[z].mean,
            whitenings[z].matrix,
            factors["atom_linear"] * of_atoms**2 * (shares @ atoms.white),
            factors["atom_product"] * np.multiply.outer(first, first) * square,
        )
    return form, forms, prior
