"""Real Fourier transforms between the points of a lattice and its wavevectors.

Where fields have no waves, nothing is computed. Transforms along one axis need not be
followed by the others at once: fields can be computed a few planes at a time.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine.arrays import fft_namespace
from skscatharm.engine.lattice import Lattice

__all__ = ["along_x", "crop", "to_planes", "to_points", "to_waves"]

Array = Any  # of the array library that computes

# On a processor, transforms of at most so many terms along the first and the last axis
# are matrix products: BLAS is faster there than FFTs.
_MOST_TERMS = 160


def to_points(spectrum: Array, lattice: Lattice, xp: Any) -> Array:
    """Evaluate Fourier series, divided by the number of points, on a lattice.

    Parameters
    ----------
    spectrum : array of shape (..., n_waves_x, n_waves_y, n_waves_z // 2 + 1)

    Returns
    -------
    array of shape (..., n_x, n_y, n_z)
    """
    return to_planes(along_x(spectrum, lattice, xp), lattice, xp)


def along_x(spectrum: Array, lattice: Lattice, xp: Any) -> Array:
    """Do the first step of :func:`to_points`, the transform along x.

    Returns
    -------
    array of shape (..., n_x, n_waves_y, n_waves_z // 2 + 1)
    """
    n_x, shape = lattice.shape[0], spectrum.shape
    if is_numpy_namespace(xp) and shape[-3] <= _MOST_TERMS:
        waves = _waves(n_x, shape[-3], spectrum.dtype.name) / spectrum.real.dtype.type(
            n_x
        )
        return _along_first(waves, spectrum)
    filled = _fill_up(spectrum, n_x, -3, xp)
    return fft_namespace(xp).ifft(filled, axis=-3)


def to_planes(spectrum: Array, lattice: Lattice, xp: Any) -> Array:
    """Do the other steps of :func:`to_points`.

    Parameters
    ----------
    spectrum : array of shape (..., n_planes, n_waves_y, n_waves_z // 2 + 1)
        Some or all of the planes of the result of :func:`along_x`.

    Returns
    -------
    array of shape (..., n_planes, n_y, n_z)
    """
    fft = fft_namespace(xp)
    _, n_y, n_z = lattice.shape
    spectrum = fft.ifft(_fill_up(spectrum, n_y, -2, xp), axis=-2)
    n_terms = 2 * spectrum.shape[-1]
    if is_numpy_namespace(xp) and n_terms <= _MOST_TERMS:
        terms = spectrum.view(spectrum.real.dtype)
        return terms @ _real_waves(n_z, n_terms, terms.dtype.name, is_inverse=True)
    return fft.irfft(spectrum, n=n_z, axis=-1)


def to_waves(values: Array, lattice: Lattice, xp: Any) -> Array:
    """Sum values times exp(-i k u) over the points u of a lattice."""
    fft = fft_namespace(xp)
    n_x, n_y, n_z = lattice.n_waves
    n_terms = 2 * (n_z // 2 + 1)
    if is_numpy_namespace(xp) and n_terms <= _MOST_TERMS:
        waves = _real_waves(values.shape[-1], n_terms, values.dtype.name)
        terms = values @ waves.T
        spectrum = terms.view(np.result_type(terms, np.complex64))
    else:
        spectrum = fft.rfft(values, axis=-1)[..., : n_terms // 2]
    spectrum = crop(fft.fft(spectrum, axis=-2), n_y, -2, xp)
    if is_numpy_namespace(xp) and n_x <= _MOST_TERMS:
        waves = _waves(values.shape[-3], n_x, spectrum.dtype.name)
        return _along_first(np.conj(waves.T), spectrum)
    return crop(fft.fft(spectrum, axis=-3), n_x, -3, xp)


def _along_first(matrix: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Multiply the first of three axes by a matrix."""
    rows = matrix @ values.reshape(*values.shape[:-2], -1)
    return rows.reshape(*rows.shape[:-1], *values.shape[-2:])


@lru_cache(maxsize=128)
def _waves(n: int, n_waves: int, dtype: str) -> NDArray[Any]:
    """Compute exp(i k u) at n points, for as many wavenumbers, as FFTs order them."""
    wavenumbers = np.fft.fftfreq(n_waves, 1 / n_waves)
    angles = 2 * np.pi / n * np.multiply.outer(np.arange(n), wavenumbers)
    waves = np.exp(1j * angles).astype(dtype)
    waves.setflags(write=False)
    return waves


@lru_cache(maxsize=128)
def _real_waves(
    n: int, n_terms: int, dtype: str, is_inverse: bool = False
) -> NDArray[Any]:
    """Compute real and imaginary parts of exp(-i k u) at n points, in turn.

    With `is_inverse`, they are factors of the terms of a real inverse transform.

    Returns
    -------
    ndarray of shape (n_terms, n)
    """
    angles = 2 * np.pi / n * np.multiply.outer(np.arange(n_terms // 2), np.arange(n))
    waves = np.stack([np.cos(angles), -np.sin(angles)], axis=1)
    if is_inverse:
        waves *= 2 / n
        waves[0] /= 2  # all waves but the constant stand for two
    waves = waves.reshape(n_terms, n).astype(dtype)
    waves.setflags(write=False)
    return waves


def crop(spectrum: Array, n: int, axis: int, xp: Any) -> Array:
    """Keep the n lowest wavenumbers along an axis; n is odd."""
    if spectrum.shape[axis] == n:
        return spectrum
    return xp.concat(_halves(spectrum, n, axis), axis=axis)


def _fill_up(spectrum: Array, n: int, axis: int, xp: Any) -> Array:
    """Insert zeros for higher wavenumbers along an axis, up to n of them."""
    low, high = _halves(spectrum, spectrum.shape[axis], axis)
    shape = list(spectrum.shape)
    shape[axis] = n - spectrum.shape[axis]
    return xp.concat([low, xp.zeros(shape, dtype=spectrum.dtype), high], axis=axis)


def _halves(spectrum: Array, n: int, axis: int) -> tuple[Array, Array]:
    """Take the n lowest wavenumbers: from zero on, and negative ones."""
    rest = (slice(None),) * (-axis - 1)
    last = spectrum.shape[axis]
    low = spectrum[..., : (n + 1) // 2, *rest]
    return low, spectrum[..., last - n // 2 : last, *rest]
