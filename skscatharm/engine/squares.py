"""Squares of fields on a grid, computed a few planes at a time.

The planes of all fields that are multiplied with each other then stay in cache.
"""

from collections.abc import Iterable
from typing import Any

from skscatharm.engine.fourier_transform import along_x, to_planes
from skscatharm.engine.lattice import Lattice

__all__ = ["Square"]

Array = Any  # of the array library that computes


class Square:
    """The square of the fields of a path.

    Parameters
    ----------
    spectra : iterable of array of shape (n_molecules, n_channels, *n_waves)
        Those of the components, or of the square itself.
    lattice : Lattice
        The grid, with the waves of the spectra.
    xp : module
        Namespace of the array library.
    is_squared : bool, default=False
        Whether there is one spectrum, which is that of the square.

    Attributes
    ----------
    lattice : Lattice
    """

    def __init__(
        self,
        spectra: Iterable[Array],
        lattice: Lattice,
        xp: Any,
        *,
        is_squared: bool = False,
    ) -> None:
        self.lattice = lattice
        self._xp = xp
        self._is_squared = is_squared
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
        return squared
