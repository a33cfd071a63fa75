"""Lattices: periodic boxes, the points of their grids, and their wavevectors."""

from itertools import product
from math import ceil, pi, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from skscatharm.engine.quadrature import SHIFT

__all__ = ["Lattice", "box_around", "cell_lattice"]

_Array = NDArray[np.float64]

# Along an edge, combinations of this many wavevectors can be the shortest.
_NEIGHBOURS = np.array([n for n in product((-2, -1, 0, 1, 2), repeat=3) if any(n)])


class Lattice(NamedTuple):
    """A periodic box and the points of its grid.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        The edges of the box, one a row.
    shape : tuple of int
        Number of points along each of them.
    origin : ndarray of shape (3,)
        The first point.
    """

    cell: _Array
    shape: tuple[int, int, int]
    origin: _Array

    def is_part_of(self, other: "Lattice") -> bool:
        """Whether another grid of the same box has all wavevectors of this one."""
        return bool(
            np.array_equal(self.cell, other.cell)
            and np.array_equal(self.origin, other.origin)
            and all(n <= m for n, m in zip(self.shape, other.shape, strict=True))
        )

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
        x, y, z = self.shape
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


def box_around(half_lengths: _Array, step: float, reach: float) -> Lattice:
    """Make the box of free molecules, centred on the origin.

    Parameters
    ----------
    half_lengths : ndarray of shape (3,)
        Half of the lengths of the molecules along the axes.
    step : float
        Distance of the points.
    reach : float
        How far the box reaches beyond the atoms.
    """
    shape = _fast_shape(2 * (half_lengths + reach) / step)
    half = np.array([n // 2 for n in shape])
    return Lattice(np.diag(shape) * step, shape, step * (SHIFT - half))


def cell_lattice(cell: _Array, origin: _Array, step: float) -> Lattice:
    """Divide a cell into a grid that samples as well as a cubic one of a step.

    What a grid samples exactly depends on the shortest wavevector that it cannot tell
    from zero, which is at least as long as that of the cubic grid.
    """
    reciprocal = 2 * pi * np.linalg.inv(cell).T
    least = 2 * pi / step
    counts = least / np.linalg.norm(reciprocal, axis=1)
    while True:
        shape = _fast_shape(counts)
        aliases = _NEIGHBOURS @ (np.array(shape)[:, np.newaxis] * reciprocal)
        lengths = np.linalg.norm(aliases, axis=1)
        if lengths.min() >= least * (1 - 1e-9):
            return Lattice(cell, shape, origin)
        counts = np.maximum(counts, shape) * 1.02


def _fast_shape(counts: _Array) -> tuple[int, int, int]:
    # Cells that are equal up to rounding get equal grids.
    x, y, z = (
        next_fast_len(max(ceil(n - 1e-6), 1), real=True) for n in counts.tolist()
    )
    return x, y, z
