"""Kernels of samples and of their atoms, and the functions that they span."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm.regression.whitening import Array, axis_factors, scale_axes

# Rows of a kernel matrix, and atoms, that are computed at once, to bound memory.
_ROWS, _ATOMS = 1000, 4000


class Term(NamedTuple):
    """How much of a term a kernel has.

    Attributes
    ----------
    factor : float
        By which the kernel of the term is multiplied.
    decay : float
        Power of the standard deviations that scale the coordinates.
    """

    factor: float
    decay: float


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
    factors : ndarray of shape (n_atoms,)
        By which the function of each atom is multiplied: 1, or a function of its
        position, for moments.
    """

    white: Array
    deviations: Array
    owners: NDArray[np.int64]
    factors: Array

    def of(self, samples: NDArray[np.int64]) -> "Atoms":
        """Return the atoms of some samples, given in ascending order."""
        starts = np.searchsorted(self.owners, samples)
        counts = np.searchsorted(self.owners, samples, side="right") - starts
        owners = np.repeat(np.arange(len(samples)), counts)
        kept = np.arange(len(owners)) + (starts + counts - np.cumsum(counts))[owners]
        return Atoms(self.white[kept], self.deviations, owners, self.factors[kept])


class Form(NamedTuple):
    """Quadratic form of white coordinates, of a sample or of an atom.

    The value is ``constant + z @ slope + z @ square @ z``.

    Attributes
    ----------
    constant : float
    slope : ndarray of shape (n_axes,)
    square : ndarray of shape (n_squared_axes, n_squared_axes)
        Of the first axes.
    """

    constant: float
    slope: Array
    square: Array

    def evaluate(self, white: Array) -> Array:
        """Compute the values of rows of coordinates."""
        values = self.constant + white @ self.slope
        for start in range(0, len(white), _ATOMS):
            rows = slice(start, start + _ATOMS)
            leading = white[rows, : len(self.square)]
            values[rows] += np.einsum("ij,ij->i", leading @ self.square, leading)
        return values


def sum_over_atoms(values: Array, owners: NDArray[np.int64], n_samples: int) -> Array:
    """Add values of atoms, of shape (n_atoms, ...), for each sample."""
    sums = np.zeros((n_samples, *values.shape[1:]))
    np.add.at(sums, owners, values)
    return sums


def sums_of_products(
    coordinates: Array, factors: Array, owners: NDArray[np.int64], n: int
) -> Array:
    """Sum products of two coordinates over the atoms of each of n samples.

    Parameters
    ----------
    coordinates : ndarray of shape (n_atoms, n_axes)
    factors : ndarray of shape (n_atoms,)
        By which the products of each atom are multiplied.
    owners : ndarray of shape (n_atoms,)
        The sample of each atom, in ascending order.
    n : int

    Returns
    -------
    sums : ndarray of shape (n, n_axes * (n_axes + 1) / 2)
        Scalar products of its rows are the sums over pairs of atoms, one of each
        sample, of their factors and the squared scalar products of their coordinates.
    """
    upper = np.triu_indices(coordinates.shape[1])
    twice = np.where(upper[0] == upper[1], 1.0, np.sqrt(2))
    sums = np.zeros((n, len(twice)))
    samples, starts = np.unique(owners, return_index=True)
    stops = np.append(starts, len(owners))[1:]
    for i, start, stop in zip(samples, starts, stops, strict=True):
        of = slice(start, stop)
        rows = coordinates[of]
        sums[i] = ((rows.T * factors[of]) @ rows)[upper]
    sums *= twice
    return sums


def quadratic_form(
    white: Array,
    deviations: Array,
    weights: Array,
    linear: Term,
    product: Term,
    n_squared_axes: int,
) -> Form:
    """Sum scalar products with the rows, and the squares of scalar products.

    Parameters
    ----------
    white, deviations : ndarrays of shape (n, n_axes) and (n_axes,)
        White coordinates of the rows, and standard deviations before whitening.
    weights : ndarray of shape (n,)
        The weight of each row.
    linear, product : Term
        Factors and scales of scalar products and of their squares.
    n_squared_axes : int
        Number of axes in the squares.

    Returns
    -------
    form : Form
        As a function of white coordinates, with the constant 0.
    """
    slope = axis_factors(deviations, linear.decay) ** 2 * (weights @ white)
    squared = slice(n_squared_axes if product.factor else 0)
    scales = axis_factors(deviations, product.decay)[squared] ** 2
    square = np.zeros((len(scales),) * 2)
    for start in range(0, len(white), _ATOMS):
        rows = slice(start, start + _ATOMS)
        leading = white[rows, squared]
        square += (leading.T * weights[rows]) @ leading
    square *= product.factor * np.multiply.outer(scales, scales)
    return Form(0.0, linear.factor * slope, square)


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


class AtomicKernels(NamedTuple):
    """The kernels of the terms, between all pairs of samples.

    The term ``linear`` is scalar products of the coordinates of samples, ``product``
    their squares. For each sum over atoms there are two, such as ``atom_linear``, the
    sums of 1 plus scalar products over pairs of atoms of the same element, times their
    factors, and ``atom_product``, the sums of the squared scalar products.

    Attributes
    ----------
    white, deviations : ndarrays of shape (n_samples, n_axes) and (n_axes,)
        White coordinates of samples, and standard deviations before whitening.
    sums : dict of lists of Atoms
        The atoms of the samples, for each element, in each sum.
    n_axes : int
        Number of axes of an atom whose products are used.
    """

    white: Array
    deviations: Array
    sums: dict[str, list[Atoms]]
    n_axes: int

    def of(self, samples: NDArray[np.int64]) -> Self:
        """Return the kernels of some samples, given in ascending order."""
        sums = {
            name: [atoms.of(samples) for atoms in elements]
            for name, elements in self.sums.items()
        }
        return self._replace(white=self.white[samples], sums=sums)

    def scale(self, name: str, decay: float, *, centred: bool) -> tuple[Array, float]:
        """Compute the matrix of a term, and its factor for a variance of 1.

        Parameters
        ----------
        name : str
            The term.
        decay : float
            Power that scales the coordinates.
        centred : bool
            Whether the variance is around the mean over the samples, or around 0.

        Returns
        -------
        matrix : ndarray of shape (n_samples, n_samples)
        factor : float
            0 if the term does not vary over the samples.
        """
        n = len(self.white)
        kernel = self.matrix({name: Term(1.0, decay)})
        mean_square = np.trace(kernel) / n
        variance = mean_square - (kernel.mean() if centred else 0.0)
        return kernel, float(1 / variance) if variance > 1e-12 * mean_square else 0.0

    def matrix(self, terms: Mapping[str, Term]) -> Array:
        """Compute the sum of the terms."""
        n = len(self.white)
        kernel = np.zeros((n, n))
        for power, factor, features in self._features(terms):
            add_gram(kernel, features, factor, power)
        return kernel

    def columns(self, terms: Mapping[str, Term], samples: NDArray[np.int64]) -> Array:
        """Compute the columns of some samples of `matrix`, given in ascending order."""
        n = len(self.white)
        kernel = np.zeros((n, len(samples)))
        chosen = list(self.of(samples)._features(terms))
        for rows in gen_batches(n, _ROWS):
            part = self.of(np.arange(n)[rows])._features(terms)
            for (power, factor, features), (_, _, others) in zip(
                part, chosen, strict=True
            ):
                kernel[rows] += factor * (features @ others.T) ** power
        return kernel

    def function(
        self, terms: Mapping[str, Term], dual: Array
    ) -> tuple[Form, dict[str, list[Form]]]:
        """Return the function with these dual coefficients.

        Returns
        -------
        form : Form
            That of samples.
        forms : dict of lists of Form
            Those of the atoms of each element, in each sum.
        """
        form = quadratic_form(
            self.white,
            self.deviations,
            dual,
            terms["linear"],
            terms["product"],
            len(self.deviations),
        )
        forms: dict[str, list[Form]] = {name: [] for name in self.sums}
        for name, elements in self.sums.items():
            linear, product = terms[f"{name}_linear"], terms[f"{name}_product"]
            for atoms in elements:
                shares = dual[atoms.owners] * atoms.factors
                of_atoms = quadratic_form(
                    atoms.white, atoms.deviations, shares, linear, product, self.n_axes
                )
                constant = linear.factor * shares.sum()
                forms[name].append(of_atoms._replace(constant=constant))
        return form, forms

    def evaluate(self, form: Form, forms: Mapping[str, Sequence[Form]]) -> Array:
        """Compute the values of a function at the samples."""
        values = form.evaluate(self.white)
        for name, elements in self.sums.items():
            for atoms, of_atoms in zip(elements, forms[name], strict=True):
                found = of_atoms.evaluate(atoms.white) * atoms.factors
                values += sum_over_atoms(found, atoms.owners, len(values))
        return values

    def _features(
        self, terms: Mapping[str, Term]
    ) -> Iterator[tuple[int, float, Array]]:
        """Yield powers, factors and features of samples.

        The kernel is the sum over them of a factor times a power of the scalar product
        of two samples.
        """
        n = len(self.white)
        for name, term in terms.items():
            if not term.factor:
                continue
            of, _, kind = name.rpartition("_")
            if not of:
                power = 2 if kind == "product" else 1
                scaled, _ = scale_axes(self.white, self.deviations, term.decay)
                yield power, term.factor, scaled
                continue
            for atoms in self.sums[of]:
                scaled, _ = scale_axes(atoms.white, atoms.deviations, term.decay)
                if kind == "linear":
                    values = np.column_stack([np.ones(len(scaled)), scaled])
                    values *= atoms.factors[:, np.newaxis]
                    features = sum_over_atoms(values, atoms.owners, n)
                else:
                    leading = scaled[:, : self.n_axes]
                    features = sums_of_products(leading, atoms.factors, atoms.owners, n)
                yield 1, term.factor, features
