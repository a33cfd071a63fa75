"""Lattices: periodic boxes, the points of their grids, and their wavevectors."""

from itertools import product
from math import ceil, pi, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from skscatharm.engine.quadrature import SHIFT

__all__ = ["Lattice", "Resolution", "box_around", "cell_lattice"]

_Array = NDArray[np.float64]

# Combinations of the wavevectors of a grid of which one is the shortest.
_NEIGHBOURS = np.array([n for n in product((-2, -1, 0, 1, 2), repeat=3) if any(n)])

_MANY = 2**30  # points, which hold any wavevectors


class Lattice(NamedTuple):
    """A periodic box, the points of its grid, and the wavevectors of its fields.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        The edges of the box, one a row.
    shape : tuple of int
        Number of points along each of them.
    origin : ndarray of shape (3,)
        The first point.
    n_waves : tuple of int
        Number of wavevectors along each reciprocal vector: odd, and as many as fields
        have. The rest of what the points could hold is zero.
    """

    cell: _Array
    shape: tuple[int, int, int]
    origin: _Array
    n_waves: tuple[int, int, int]

    @property
    def volume(self) -> float:
        """Volume of a point."""
        return abs(float(np.linalg.det(self.cell))) / prod(self.shape)

    def fractional(self, positions: _Array) -> _Array:
        """Express positions, of shape (..., 3), in edges from the origin."""
        return (positions - self.origin) @ np.linalg.inv(self.cell)

    def points_in(self, other: "Lattice") -> list[_Array]:
        """Express the points along each axis in parallel edges of another box."""
        ratios = np.diag(self.cell @ np.linalg.inv(other.cell))
        return [
            offset + ratio * np.arange(n) / n
            for offset, ratio, n in zip(
                other.fractional(self.origin), ratios, self.shape, strict=True
            )
        ]

    def indices(self) -> list[NDArray[np.floating[Any]]]:
        """Number the wavevectors along each axis, as real FFTs do."""
        x, y, z = self.n_waves
        return [
            np.fft.fftfreq(x, 1 / x),
            np.fft.fftfreq(y, 1 / y),
            np.arange(z // 2 + 1.0),
        ]

    def wavevectors(self) -> list[_Array]:
        """Return their components, which broadcast to the shape of a spectrum."""
        reciprocal = 2 * np.pi * np.linalg.inv(self.cell)
        indices = np.meshgrid(*self.indices(), indexing="ij", sparse=True)
        return [
            sum(b * m for b, m in zip(row, indices, strict=True) if b != 0)
            for row in reciprocal
        ]

    def limited(self, step: float) -> "Lattice":
        """Return the lattice with no more wavevectors than a cubic grid of a step."""
        return self._replace(n_waves=_count_waves(self.cell, self.n_waves, step))

    def with_waves(self, step: float) -> "Lattice":
        """Return the lattice with the wavevectors of a cubic grid of a step."""
        n_waves = _count_waves(self.cell, (_MANY, _MANY, _MANY), step)
        return self._replace(n_waves=n_waves)

    def coarsest(self) -> "Lattice":
        """Return the coarsest grid that holds all wavevectors."""
        return self._replace(shape=_fast_shape(np.array(self.n_waves)))

    def has_waves_of(self, other: "Lattice") -> bool:
        """Whether all wavevectors of another lattice are among those of this one."""
        return bool(
            np.array_equal(self.cell, other.cell)
            and np.array_equal(self.origin, other.origin)
            and all(m >= n for m, n in zip(self.n_waves, other.n_waves, strict=True))
        )


class Resolution(NamedTuple):
    """What a field asks of its grid.

    Attributes
    ----------
    step : float
        Distance of the points of a cubic grid that is fine enough for integrals.
    spectral_step : float
        The same for a grid that is fine enough to hold the spectrum.
    reach : float
        How far the field reaches beyond the atoms.
    """

    step: float
    spectral_step: float
    reach: float


def box_around(half_lengths: _Array, resolution: Resolution) -> Lattice:
    """Make the box of free molecules, centred on the origin.

    Parameters
    ----------
    half_lengths : ndarray of shape (3,)
        Half of the lengths of the molecules along the axes.
    resolution : Resolution
    """
    step = min(resolution.step, resolution.spectral_step)
    shape = _fast_shape(2 * (half_lengths + resolution.reach) / step)
    half = np.array([n // 2 for n in shape])
    cell = np.diag(shape) * step
    n_waves = _count_waves(cell, shape, resolution.spectral_step)
    return Lattice(cell, shape, step * (SHIFT - half), n_waves)


def cell_lattice(cell: _Array, origin: _Array, resolution: Resolution) -> Lattice:
    """Divide a cell into a grid that samples as well as a cubic one of a step.

    What a grid integrates exactly depends on the shortest wavevector that it cannot
    tell from zero, which is at least as long as that of the cubic grid. And the
    wavevectors of the field have to be among its own.
    """
    reciprocal = 2 * pi * np.linalg.inv(cell).T
    least = 2 * pi / resolution.step
    counts = np.maximum(
        least / np.linalg.norm(reciprocal, axis=1),
        np.linalg.norm(cell, axis=1) / resolution.spectral_step,
    )
    while True:
        shape = _fast_shape(counts)
        aliases = _NEIGHBOURS @ (np.array(shape)[:, np.newaxis] * reciprocal)
        if np.linalg.norm(aliases, axis=1).min() >= least * (1 - 1e-9):
            n_waves = _count_waves(cell, shape, resolution.spectral_step)
            return Lattice(cell, shape, origin, n_waves)
        counts = np.maximum(counts, shape) * 1.02


def _fast_shape(counts: _Array) -> tuple[int, int, int]:
    # Cells that are equal up to rounding get equal grids.
    x, y, z = (
        next_fast_len(max(ceil(n - 1e-6), 1), real=True) for n in counts.tolist()
    )
    return x, y, z


def _count_waves(
    cell: _Array, shape: tuple[int, int, int], step: float
) -> tuple[int, int, int]:
    """Count the wavevectors up to the largest of a cubic grid, along each axis.

    Without the last one of an even number of points, all but zero come in pairs.
    """
    lengths = np.linalg.norm(cell, axis=1).tolist()
    x, y, z = (
        2 * min(ceil(length / (2 * step) - 1e-6), (n - 1) // 2) + 1
        for length, n in zip(lengths, shape, strict=True)
    )
    return x, y, z
