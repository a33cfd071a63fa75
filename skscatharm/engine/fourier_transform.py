"""Real Fourier transforms between the points of a lattice and its wavevectors.

Where fields have no waves, nothing is computed.
"""

from typing import Any

from skscatharm.engine.arrays import fft_namespace
from skscatharm.engine.lattice import Lattice

__all__ = ["crop", "to_points", "to_waves"]

Array = Any  # of the array library that computes


def to_points(spectrum: Array, lattice: Lattice, xp: Any) -> Array:
    """Evaluate Fourier series, divided by the number of points, on a lattice.

    Parameters
    ----------
    spectrum : array of shape (..., n_waves_x, n_waves_y, n_waves_z // 2 + 1)

    Returns
    -------
    array of shape (..., n_x, n_y, n_z)
    """
    fft = fft_namespace(xp)
    n_x, n_y, n_z = lattice.shape
    spectrum = fft.ifft(_fill_up(spectrum, n_x, -3, xp), axis=-3)
    spectrum = fft.ifft(_fill_up(spectrum, n_y, -2, xp), axis=-2)
    return fft.irfft(spectrum, n=n_z, axis=-1)


def to_waves(values: Array, lattice: Lattice, xp: Any) -> Array:
    """Sum values times exp(-i k u) over the points u of a lattice."""
    fft = fft_namespace(xp)
    n_x, n_y, n_z = lattice.n_waves
    spectrum = fft.rfft(values, axis=-1)[..., : n_z // 2 + 1]
    spectrum = crop(fft.fft(spectrum, axis=-2), n_y, -2, xp)
    return crop(fft.fft(spectrum, axis=-3), n_x, -3, xp)


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
