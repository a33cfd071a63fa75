r"""The engine of images: products of matrices, and FFTs where images are large.

All arrays have the rows and columns of the image first, or those of its spectrum, and
orientations and images last. So Fourier transforms of small images, the low-pass filter
with its subsampling, and the reflecting borders are products with matrices from the
left, without a copy. Real and imaginary parts are kept apart, as the matrices of
wavelets are real.

The field of a wavelet of scale j is computed at every :math:`2^j`-th pixel alone: at
each frequency of the result, spectrum times wavelet is summed over the aliases, which
is a matrix product for all orientations and images.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm._threads import one_blas_thread
from skscatharm.engine.arrays import Library, fft_namespace, to_numpy
from skscatharm.transform.morlet import (
    image_paths,
    low_pass_filter,
    morlet_wavelet,
    orientation,
    padded_length,
)

__all__ = ["ImageEngine", "ImageTransform", "image_batch"]

Array = Any  # of the array library that computes

# Up to this number of pixels along an axis, a Fourier transform is a product with a
# matrix.
_SMALL = 64
# Pixels times orientations of all images that are computed together: on a CPU their
# fields stay in its cache, and a device is busy with them.
_VALUES = {False: 2**17, True: 2**26}


class ImageTransform(NamedTuple):
    """All that the coefficients of images depend on.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the images.
    J, L, max_order : int
    pooling : {"local", "integral"}
    dtype : {"float32", "float64"}
    """

    shape: tuple[int, int]
    J: int
    L: int
    max_order: int
    pooling: str
    dtype: str

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width with borders."""
        height, width = self.shape
        return padded_length(height, self.J), padded_length(width, self.J)

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width of the coefficients of a path."""
        if self.pooling == "integral":
            return 1, 1
        height, width = self.shape
        return height // 2**self.J, width // 2**self.J

    def level(self, j: int) -> tuple[int, int]:
        """Height and width of a field, with borders, at every 2**j-th pixel."""
        height, width = self.padded
        return height // 2**j, width // 2**j


class ImageEngine:
    """Computes images together, as many as memory or cache allow.

    Parameters
    ----------
    transform : ImageTransform
        What to compute.
    library : Library
        The array library that computes, and where.
    """

    def __init__(self, transform: ImageTransform, library: Library) -> None:
        self.transform = transform
        self.library = library
        self.xp = xp = library.namespace()
        self.dtype = getattr(xp, transform.dtype)
        borders = [
            _borders(length, padded)
            for length, padded in zip(transform.shape, transform.padded, strict=True)
        ]
        self._borders = [self._real(matrix) for matrix in borders]
        self._axes = [
            [self._axis(axis, j) for axis in (0, 1)] for j in range(transform.J)
        ]
        first = [self._pooling(axis, 0) for axis in (0, 1)]
        self._pool_images = [
            self._real(a @ b) for a, b in zip(first, borders, strict=True)
        ]
        # Wavelets by the level of the field that they meet, and by their scale.
        self._wavelets: dict[tuple[int, int], tuple[Array, Array]] = {}
        L, orders = transform.L, transform.max_order
        for j in range(transform.J if orders > 0 else 0):
            spectra = [
                morlet_wavelet(transform.padded, j, orientation(index, L), L)
                for index in range(L)
            ]
            for level in range(max(j, 1) if orders > 1 else 1):
                aliases, wavelets = _aliased_wavelets(spectra, transform, level, j)
                self._wavelets[level, j] = xp.asarray(aliases), self._real(wavelets)

    def coefficients(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Compute the coefficients of images.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width)

        Returns
        -------
        ndarray of shape (n_images, n_paths, *pooled shape)
        """
        n_values = self.transform.L * prod(self.transform.padded)
        size = max(1, _VALUES[self.library.on_device] // n_values)
        return np.concatenate(
            [
                self._coefficients(images[start : start + size])
                for start in range(0, len(images), size)
            ]
        )

    def _coefficients(self, images: NDArray[Any]) -> NDArray[np.float64]:
        transform, xp = self.transform, self.xp
        pixels = self._real(np.moveaxis(images, 0, 2))
        found: dict[tuple[int, ...], Array] = {}
        found[()] = _left(self._pool_images, pixels, xp)
        if transform.max_order > 0:
            spectrum = self._spectrum(_left(self._borders, pixels, xp), 0)
            for j1 in range(transform.J):
                field = self._modulus(spectrum, 0, j1)
                found[j1,] = self._pool(field, j1)
                later = range(j1 + 1, transform.J if transform.max_order > 1 else 0)
                if later:
                    of_field = self._spectrum(field, j1)
                    for j2 in later:
                        second = self._modulus(of_field, j1, j2)
                        found[j1, j2] = self._pool(second, j2)
        paths = image_paths(transform.J, transform.L, transform.max_order)
        values = np.empty((len(images), len(paths), *transform.pooled))
        for scales, pooled in found.items():
            which = [i for i, path in enumerate(paths) if path.scales == scales]
            # The orientation of the last wavelet comes first.
            shape = (*transform.pooled, *(transform.L for _ in scales), len(images))
            columns = np.reshape(to_numpy(pooled), shape)
            columns = np.moveaxis(columns.T, (-2, -1), (-1, -2))
            values[:, which] = columns.reshape(len(images), -1, *transform.pooled)
        return values

    def _spectrum(self, field: Array, level: int) -> Array:
        """Return the Fourier transform of a real field.

        Parameters
        ----------
        field : array of shape (n_rows, n_columns, n)
        level : int

        Returns
        -------
        array of shape (2 * (n_rows // 2 + 1) * n_columns, n)
            For each frequency of the rows that is not negative, real and imaginary
            parts at all frequencies of the columns.
        """
        xp, (rows, columns) = self.xp, self._axes[level]
        if rows.forward is None or columns.forward is None:
            half = fft_namespace(xp).rfftn(field, axes=(1, 0))
            spectrum = xp.stack([xp.real(half), xp.imag(half)], axis=1)
        else:
            spectrum = xp.matmul(rows.forward, xp.reshape(field, (rows.length, -1)))
            shape = (rows.length // 2 + 1, 2 * columns.length, -1)
            spectrum = xp.matmul(columns.forward, xp.reshape(spectrum, shape))
        return xp.reshape(spectrum, (-1, field.shape[2]))

    def _modulus(self, spectrum: Array, level: int, j: int) -> Array:
        """Convolve with the wavelets of a scale, and take the modulus.

        Parameters
        ----------
        spectrum : array
            Of fields at a level, from `_spectrum`.
        level, j : int

        Returns
        -------
        array of shape (n_rows of level j, n_columns of level j, n_orientations * n)
        """
        xp, (aliases, wavelets) = self.xp, self._wavelets[level, j]
        n_rows, n_columns = self.transform.level(j)
        n_aliases, n = 4 ** (j - level), spectrum.shape[1]
        spectrum = xp.take(spectrum, aliases, axis=0)
        spectrum = xp.reshape(spectrum, (2 * n_rows * n_columns, n_aliases, n))
        if n_aliases == 1:
            product = wavelets * spectrum
        else:
            product = xp.matmul(wavelets, spectrum)
        rows, columns = self._axes[j]
        if rows.inverse is None or columns.inverse is None:
            product = xp.reshape(product, (2, n_rows, n_columns, -1))
            product = product[0, ...] + 1j * product[1, ...]
            return xp.abs(fft_namespace(xp).ifftn(product, axes=(0, 1)))
        product = xp.matmul(rows.inverse, xp.reshape(product, (2 * n_rows, -1)))
        product = xp.reshape(product, (n_rows, 2 * n_columns, -1))
        product = xp.matmul(columns.inverse, product)
        product *= product
        return xp.sqrt(product[:, :n_columns, :] + product[:, n_columns:, :])

    def _pool(self, field: Array, level: int) -> Array:
        """Apply the low-pass filter and subsample, or integrate."""
        rows, columns = self._axes[level]
        return _left((rows.pooling, columns.pooling), field, self.xp)

    def _axis(self, axis: int, level: int) -> "_Axis":
        n = self.transform.level(level)[axis]
        forward = inverse = None
        if n <= _SMALL:
            k = np.arange(n)
            phases = 2 * np.pi / n * np.outer(k, k)
            c, s = np.cos(phases), np.sin(phases)
            if axis == 0:
                # To real and imaginary parts of half of the frequencies, side by side;
                # and back from all of them, the imaginary parts after the real ones.
                half = n // 2 + 1
                forward = np.stack([c[:half], -s[:half]], axis=1).reshape(2 * half, n)
                inverse = np.stack([np.hstack([c, -s]), np.hstack([s, c])], axis=1)
                inverse = inverse.reshape(2 * n, 2 * n) / n
            else:
                forward = np.block([[c, s], [-s, c]])
                inverse = forward.T / n
        return _Axis(
            n,
            None if forward is None else self._real(forward),
            None if inverse is None else self._real(inverse),
            self._real(self._pooling(axis, level)),
        )

    def _pooling(self, axis: int, level: int) -> NDArray[np.float64]:
        transform = self.transform
        length, padded = transform.shape[axis], transform.padded[axis]
        if transform.pooling == "integral":
            return _integral(length, padded, level)
        return _low_pass(padded, transform.J, level)

    def _real(self, values: Any) -> Array:
        return self.xp.asarray(np.ascontiguousarray(values), dtype=self.dtype)


class _Axis(NamedTuple):
    """What is done along an axis of fields at a level.

    Attributes
    ----------
    length : int
    forward, inverse : array or None
        Matrices of Fourier transforms of real and imaginary parts. None if FFTs are
        faster.
    pooling : array of shape (n_pooled, length)
    """

    length: int
    forward: Array | None
    inverse: Array | None
    pooling: Array


def _left(matrices: Sequence[Array], field: Array, xp: Any) -> Array:
    """Multiply rows and columns with matrices from the left.

    Parameters
    ----------
    matrices : (array, array)
        For rows and for columns.
    field : array of shape (n_rows, n_columns, n)
    """
    rows, columns = matrices
    n_rows, n_columns, _ = field.shape
    field = xp.matmul(rows, xp.reshape(field, (n_rows, -1)))
    return xp.matmul(columns, xp.reshape(field, (rows.shape[0], n_columns, -1)))


def _borders(length: int, padded: int) -> NDArray[np.float64]:
    """Matrix that reflects an axis at its first and last pixel."""
    before = (padded - length) // 2
    after = padded - length - before
    index = np.pad(np.arange(length), (before, after), mode="reflect")
    return np.eye(length)[index]


def _low_pass(padded: int, J: int, level: int) -> NDArray[np.float64]:
    """Matrix of the low-pass filter, for every 2**J-th pixel, without the borders."""
    n = padded // 2**level
    k = _frequencies(n)
    weights = low_pass_filter(padded, J)[k] / n
    pixels = 2 ** (J - level) * np.arange(1, padded // 2**J - 1)
    differences = pixels[:, np.newaxis] - np.arange(n)
    phases = 2 * np.pi / n * differences[..., np.newaxis] * k
    return np.cos(phases) @ weights


def _integral(length: int, padded: int, level: int) -> NDArray[np.float64]:
    """Row of the lengths of the image that pixels of a level stand for."""
    step, before = 2**level, (padded - length) // 2
    edges = step * (np.arange(padded // step + 1) - 0.5) - before + 0.5
    return np.diff(np.clip(edges, 0, length))[np.newaxis]


def _frequencies(n: int) -> NDArray[np.int64]:
    return np.rint(np.fft.fftfreq(n, 1 / n)).astype(np.int64)


def _aliased_wavelets(
    spectra: Sequence[NDArray[np.float64]],
    transform: ImageTransform,
    level: int,
    j: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Prepare the convolution of fields at a level with the wavelets of a scale.

    `spectra` are the Fourier transforms of the wavelets.

    Returns
    -------
    aliases : ndarray of int of shape (2 * n_frequencies of level j * n_aliases,)
        Where the spectrum of the fields has the aliases of each frequency: first all
        real, then all imaginary parts.
    wavelets : ndarray of shape (2 * n_frequencies, n_orientations, n_aliases)
        Divided by the number of aliases, as these are summed, and with the signs of
        imaginary parts of frequencies of which the spectrum has the negative ones.
    """
    shape = transform.level(level)
    rows, columns = np.meshgrid(*map(_frequencies, shape), indexing="ij")
    mirrored = (rows < 0) & (2 * rows > -shape[0])
    row = np.abs(rows)
    column = np.where(mirrored, -columns, columns) % shape[1]
    places = np.stack([(2 * row + part) * shape[1] + column for part in (0, 1)])
    signs = np.stack([np.ones(shape), np.where(mirrored, -1.0, 1.0)])

    n_rows, n_columns = transform.level(j)
    step = 2 ** (j - level)

    def aliased(values: NDArray[Any]) -> NDArray[Any]:
        values = values.reshape(-1, step, n_rows, step, n_columns)
        return values.transpose(0, 2, 4, 1, 3).reshape(-1, step**2)

    wavelets = [aliased(signs * w[rows, columns] / step**2) for w in spectra]
    return aliased(places).ravel(), np.stack(wavelets, axis=1)


@lru_cache(maxsize=2)
def _make_engine(transform: ImageTransform, library: Library) -> ImageEngine:
    return ImageEngine(transform, library)


def image_batch(
    images: NDArray[Any], transform: ImageTransform, library: Library
) -> NDArray[np.float64]:
    """Compute the coefficients of a batch of images.

    Parameters
    ----------
    images : ndarray of shape (n_images, height, width)
    transform : ImageTransform
        What to compute.
    library : Library
        The array library that computes, and where.

    Returns
    -------
    ndarray of shape (n_images, n_columns)
    """
    with one_blas_thread(), library.scope():
        coefficients = _make_engine(transform, library).coefficients(images)
    return coefficients.reshape(len(images), -1)
