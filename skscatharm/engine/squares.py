"""Squares of fields on a grid, computed a few planes at a time.

The planes of all fields that are multiplied with each other then stay in cache.
"""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from array_api_compat import is_numpy_namespace

from skscatharm.engine.fourier_transform import along_x, to_planes
from skscatharm.engine.lattice import Lattice

__all__ = ["Square"]

Array = Any  # of the array library that computes

# Values that are computed at a time: on a processor, all fields had better stay in
# cache.
_SLAB, _SLAB_ON_DEVICE = 2**17, 2**26


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

    def all(self) -> Array:
        """Compute the squares in all planes.

        Returns
        -------
        array of shape (n_molecules, n_channels, n_x, n_y, n_z)
        """
        found: Any = None
        for start, stop in self.slabs():
            values = self.planes(start, stop)
            if found is None:
                shape = *values.shape[:2], *self.lattice.shape
                found = self._xp.empty(shape, dtype=values.dtype)
            found[:, :, start:stop, ...] = values
        return found

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Divide the planes into groups that are computed at a time."""
        n_x, *plane = self.lattice.shape
        n_fields = prod(self._spectra[0].shape[:2])
        n_values = _SLAB if is_numpy_namespace(self._xp) else _SLAB_ON_DEVICE
        n_planes = max(n_values // (n_fields * prod(plane)), 1)
        for start in range(0, n_x, n_planes):
            yield start, min(start + n_planes, n_x)
