"""Squares of fields on a grid, computed a few planes at a time.

The planes of all fields that are multiplied with each other then stay in cache.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.fourier_transform import along_x, to_planes
from skscatharm.engine.lattice import Lattice

__all__ = ["Square"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes


class Square:
    """The square of the fields of a path.

    Parameters
    ----------
    spectra : iterable of array of shape (n_molecules, n_channels, *n_waves)
        Those of the components, or of the square itself.
    lattice : Lattice
        The grid, with the waves of the spectra.
    epsilon : ndarray of shape (n_molecules, n_channels, 1, 1, 1)
        Softening.
    xp : module
        Namespace of the array library.
    is_squared : bool, default=False
        Whether there is one spectrum, which is that of the square.
    least : array of shape (n_molecules, n_channels, 1, 1, 1) or None
        Smaller values are noise, and become 0.

    Attributes
    ----------
    lattice, epsilon
        The parameters.
    """

    def __init__(
        self,
        spectra: Iterable[Array],
        lattice: Lattice,
        epsilon: _Array,
        xp: Any,
        *,
        is_squared: bool = False,
        least: Array | None = None,
    ) -> None:
        self.lattice = lattice
        self.epsilon = epsilon
        self._xp = xp
        self._is_squared = is_squared
        self._least = least
        self._spectra = [along_x(spectrum, lattice, xp) for spectrum in spectra]

    def planes(self, start: int, stop: int) -> Array:
        """Compute the squares in some planes.

        Returns
        -------
        array of shape (n_molecules, n_channels, stop - start, n_y, n_z)
        """
        squared: Any = 0.0
        for spectrum in self._spectra:
            part = spectrum[..., start:stop, :, :]
            values = to_planes(part, self.lattice, self._xp)
            if self._is_squared:
                return values
            values *= values
            squared += values
        if self._least is not None:
            squared *= squared > self._least
        return squared
