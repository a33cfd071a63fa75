"""Kernels between values and derivatives, and the functions that they span."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm.regression.whitening import Array

# Number of samples evaluated together, to bound memory.
_BATCH = 256


class Points(NamedTuple):
    """Samples at which a function and some of its directional derivatives are known.

    Attributes
    ----------
    positions : ndarray of shape (n_samples, n_axes)
        Coordinates of the samples.
    directions : ndarray of shape (n_directions, n_axes)
        Directions of all derivatives, sample after sample.
    owners : ndarray of shape (n_directions,)
        Sample of each direction, ascending.
    """

    positions: Array
    directions: Array
    owners: NDArray[np.intp]

    @property
    def starts(self) -> NDArray[np.intp]:
        """Where the directions of each sample begin, and the number of all."""
        return np.searchsorted(self.owners, np.arange(len(self.positions) + 1))

    def part(self, samples: slice) -> Self:
        """Return consecutive samples, with their directions."""
        start, stop, _ = samples.indices(len(self.positions))
        first, last = np.searchsorted(self.owners, [start, stop])
        return self._replace(
            positions=self.positions[start:stop],
            directions=self.directions[first:last],
            owners=self.owners[first:last] - start,
        )

    def rows(self, samples: NDArray[np.intp]) -> tuple[NDArray[np.intp], Self]:
        """Return some samples, and the rows of their directions."""
        bounds = self.starts
        counts = np.diff(bounds)[samples]
        owners = np.repeat(np.arange(len(samples)), counts)
        rows = np.concatenate(
            [np.zeros(0, np.intp), *(np.arange(*bounds[i : i + 2]) for i in samples)]
        )
        return rows, self._replace(
            positions=self.positions[samples],
            directions=self.directions[rows],
            owners=owners,
        )

    def scaled(self, factors: Array) -> Self:
        """Multiply each axis by a factor."""
        return self._replace(
            positions=self.positions * factors, directions=self.directions * factors
        )


def without_directions(positions: Array) -> Points:
    """Return samples at which no derivatives are known."""
    return Points(positions, positions[:0], np.zeros(0, np.intp))


# Maps u to f(u) and its first two derivatives.
Profile = Callable[[Array], tuple[Array, Array, Array]]


def gaussian(u: Array) -> tuple[Array, Array, Array]:
    """Gaussian kernel, infinitely smooth: f(u) = exp(-u)."""
    value = np.exp(-u)
    return value, -value, value


def matern(u: Array) -> tuple[Array, Array, Array]:
    """Matérn kernel of smoothness 5/2, twice differentiable, with r^2 = 2 u."""
    root = np.sqrt(10.0 * u)
    decay = np.exp(-root)
    return (
        (1 + root + root**2 / 3) * decay,
        -5 / 3 * (1 + root) * decay,
        25 / 3 * decay,
    )


def linear(u: Array) -> tuple[Array, Array, Array]:
    """Kernel of linear forms: f(u) = u."""
    return u, np.ones_like(u), np.zeros_like(u)


def square(u: Array) -> tuple[Array, Array, Array]:
    """Kernel of quadratic forms: f(u) = u^2."""
    return u**2, 2 * u, np.full_like(u, 2.0)


class Kernel(NamedTuple):
    """Kernel ``f(u)`` of two samples.

    Attributes
    ----------
    profile : callable
        The function f.
    factors : ndarray of shape (n_axes,)
        Coordinates are multiplied by these factors first.
    stationary : bool
        Whether u is half the squared distance of the samples. Else it is their scalar
        product.
    amplitude : float
        Factor of f.
    """

    profile: Profile
    factors: Array
    stationary: bool
    amplitude: float = 1.0

    def covariance(self, a: Points, b: Points) -> Array:
        """Compute the kernel between the values and derivatives of two sets.

        Parameters
        ----------
        a, b : Points
            Samples and directions.

        Returns
        -------
        matrix : ndarray
            Rows are the values and then the derivatives at `a`, columns those at `b`.
        """
        a, b = a.scaled(self.factors), b.scaled(self.factors)
        argument = a.positions @ b.positions.T
        # Derivatives of u along the directions of `a`, of `b`, and of both.
        along_a = a.directions @ b.positions.T
        along_b = a.positions @ b.directions.T
        both = a.directions @ b.directions.T
        if self.stationary:
            argument = _distances(
                _half_norms(a.positions), _half_norms(b.positions), argument
            )
            own_a, own_b = (
                _overlaps(c.directions, c.positions[c.owners]) for c in (a, b)
            )
            along_a = own_a[:, None] - along_a
            along_b = own_b - along_b
            both *= -1
        value, first, second = self.profile(argument)
        n_a, n_b = value.shape
        matrix = np.empty((n_a + len(both), n_b + both.shape[1]))
        matrix[:n_a, :n_b] = value
        np.multiply(first[a.owners], along_a, out=matrix[n_a:, :n_b])
        np.multiply(first[:, b.owners], along_b, out=matrix[:n_a, n_b:])
        both *= first[a.owners][:, b.owners]
        along_a *= second[a.owners]
        matrix[n_a:, n_b:] = along_a[:, b.owners]
        matrix[n_a:, n_b:] *= along_b[a.owners]
        matrix[n_a:, n_b:] += both
        matrix *= self.amplitude
        return matrix


def _half_norms(a: Array) -> Array:
    """Compute half the squared norm of each row."""
    return _overlaps(a, a) / 2


def _overlaps(a: Array, b: Array) -> Array:
    """Compute the scalar product of each row of one array and that of the other."""
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _distances(halves_a: Array, halves_b: Array, products: Array) -> Array:
    """Compute half the squared distances of all pairs of samples."""
    distances = halves_a[:, None] + halves_b - products
    return np.maximum(distances, 0.0, out=distances)


def covariance(kernels: Sequence[Kernel], a: Points, b: Points) -> Array:
    """Sum `Kernel.covariance` over kernels."""
    matrix = kernels[0].covariance(a, b)
    for kernel in kernels[1:]:
        matrix += kernel.covariance(a, b)
    return matrix


class Expansion(NamedTuple):
    """Function spanned by a kernel between samples.

    ``f(z) = sum_i weights[i] * k(z, z_i) + slopes[i] @ grad k(z, z_i)``, where the
    gradient is that with respect to the sample ``z_i``.

    Attributes
    ----------
    kernel : Kernel
    positions : ndarray of shape (n_samples, n_axes)
        Samples, scaled by the factors of the kernel.
    weights : ndarray of shape (n_samples,)
    slopes : ndarray of shape (n_samples, n_axes)
        Gradients with respect to scaled coordinates.
    half_norms, overlaps : ndarrays of shape (n_samples,)
        Half the squared norms of the positions, and their scalar products with the
        slopes. One prediction would take as long for these sums as for its own.
    """

    kernel: Kernel
    positions: Array
    weights: Array
    slopes: Array
    half_norms: Array
    overlaps: Array

    def _factors(self, z: Array) -> tuple[Array, Array, Array, Array]:
        """Return f and its derivatives, and u differentiated along the slopes."""
        argument, along = z @ self.positions.T, z @ self.slopes.T
        if self.kernel.stationary:
            argument = _distances(_half_norms(z), self.half_norms, argument)
            along = self.overlaps - along
        return *self.kernel.profile(argument), along

    def evaluate(self, white: Array) -> Array:
        """Compute the function.

        Parameters
        ----------
        white : ndarray of shape (n_points, n_axes)
            Coordinates, not scaled.

        Returns
        -------
        values : ndarray of shape (n_points,)
        """
        values = np.empty(len(white))
        for rows in gen_batches(len(white), _BATCH):
            value, first, _, along = self._factors(white[rows] * self.kernel.factors)
            along *= first
            values[rows] = value @ self.weights + along.sum(axis=1)
        return self.kernel.amplitude * values

    def gradient(self, white: Array) -> Array:
        """Compute the gradient with respect to coordinates that are not scaled.

        Parameters
        ----------
        white : ndarray of shape (n_points, n_axes)
            Coordinates, not scaled.

        Returns
        -------
        gradients : ndarray of shape (n_points, n_axes)
        """
        gradients = np.empty_like(white)
        for rows in gen_batches(len(white), _BATCH):
            z = white[rows] * self.kernel.factors
            _, first, second, along = self._factors(z)
            along *= second
            along += first * self.weights
            toward = along @ self.positions
            if self.kernel.stationary:
                gradients[rows] = along.sum(axis=1)[:, None] * z - toward
                gradients[rows] -= first @ self.slopes
            else:
                gradients[rows] = toward + first @ self.slopes
        return self.kernel.amplitude * self.kernel.factors * gradients


def expand(kernel: Kernel, points: Points, dual: Array) -> Expansion:
    """Return the function of dual coefficients.

    Parameters
    ----------
    kernel : Kernel
    points : Points
        Samples and directions.
    dual : ndarray of shape (n_samples + n_directions,)
        Coefficients of the values, then of the derivatives.

    Returns
    -------
    expansion : Expansion
    """
    scaled = points.scaled(kernel.factors)
    weights, slopes = np.split(dual, [len(points.positions)])
    summed = np.zeros_like(scaled.positions)
    np.add.at(summed, points.owners, slopes[:, None] * scaled.directions)
    return Expansion(
        kernel,
        scaled.positions,
        weights,
        summed,
        _half_norms(scaled.positions),
        _overlaps(scaled.positions, summed),
    )
