"""Densities on a regular grid, as the source of fields."""

from collections.abc import Sequence
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.accuracy import DOUBLE, Accuracy, exponent_classes
from skscatharm.engine.arrays import Library
from skscatharm.engine.lattice import Lattice, Resolution, box_around, cell_lattice
from skscatharm.engine.sources import phases, sum_over_points
from skscatharm.engine.spectral import FieldSettings, SpectralFields
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["check_voxels", "least_sigma", "voxel_batch"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

_ARRAYS = 9  # of the size of a field of all channels, that are held at a time
_MEMORY = 4 * 2**30  # bytes that a sample may need
_EMPTY = 1e-9  # of the largest value: voxels below it at the sides are left out
# Distance of neighbouring atoms in widths, for the steps: that of a crowded molecule.
_SPACING = 2.0
_PERIODIC = 0.1  # share of the tolerance for the sums of periodic densities
_LARGEST_EXPONENT = 30.0  # of the Gaussian of an atom in frequency


def least_sigma(spacing: float, transform: Transform) -> float:
    """Return the smallest `sigma` for a spacing of voxels, in its unit.

    The spectrum of the smallest wavelet beyond what the voxels can hold is below the
    tolerance, and so are powers of it.
    """
    share = log(1 / transform.tol) / min(1.0, *transform.exponents)
    return spacing / pi * sqrt(2 * share)


def check_voxels(
    densities: Sequence[_Array], vectors: _Array, periodic: bool, transform: Transform
) -> None:
    """Raise if a sample needs too much memory.

    Raises
    ------
    ValueError
        The message names the sample, and says what to change.
    """
    for i, density in enumerate(densities):
        memory = max(
            _memory(_VoxelSource(density, vectors, periodic, transform.sigma), settings)
            for settings, _ in _settings(density, periodic, transform)
        )
        if memory > _MEMORY:
            raise ValueError(
                f"Sample {i} of shape {density.shape} would take {memory / 2**30:.3g} "
                f"GiB ({_MEMORY / 2**30:g} GiB are allowed). Choose a larger sigma or "
                "fewer channels, or cut off empty sides of the grid."
            )


def voxel_batch(
    densities: Sequence[_Array],
    vectors: _Array,
    periodic: bool,
    transform: Transform,
    library: Library,
) -> _Array:
    """Compute the coefficients of densities.

    Parameters
    ----------
    densities : sequence of ndarray of shape (n_channels, n_x, n_y, n_z)
        Not negative.
    vectors : ndarray of shape (3, 3)
        The edges of a voxel, one a row; along the axes unless `periodic`.
    periodic : bool
        Whether densities repeat along all axes.
    transform : Transform
    library : Library

    Returns
    -------
    ndarray of shape (n_samples, n_paths, n_channels, n_exponents)
    """
    xp = library.namespace()
    shape = len(transform.paths), len(densities[0]), len(transform.exponents)
    found = np.zeros((len(densities), *shape))
    volume = abs(float(np.linalg.det(vectors)))
    has_waves = np.array([len(path.scales) > 0 for path in transform.paths])
    for density, of_sample in zip(densities, found, strict=True):
        for e, q in enumerate(transform.exponents):
            of_sample[~has_waves, :, e] = volume * (density**q).sum(axis=(1, 2, 3))
        if not has_waves.any():
            continue
        source = _VoxelSource(density, vectors, periodic, transform.sigma)
        for settings, exponents in _settings(density, periodic, transform):
            low, high = settings.exponents.min() < 1, settings.exponents.max() > DOUBLE
            dtype = "float64" if low or high or periodic else transform.dtype
            with library.scope(), np.errstate(all="ignore"):
                source.move_to(xp, dtype)
                fields = SpectralFields(source, settings, xp, dtype)
                (values,) = fields.coefficients()
            where = np.ix_(np.flatnonzero(has_waves), np.arange(shape[1]), exponents)
            of_sample[where] = values
    return found


class _Settings(FieldSettings):
    """Settings for densities of any width, which may be less than `sigma`."""

    def width(self, path: Path) -> float:
        """Width of the field of a path, at least: that of its wavelets."""
        return self.sigma * sqrt(sum(4**j for j in path.scales))


def _settings(
    density: _Array, periodic: bool, transform: Transform
) -> list[tuple[_Settings, NDArray[np.intp]]]:
    """Choose settings for classes of exponents, and return them with their indices."""
    # Weight of an atom with the largest density.
    largest = float(density.max()) * (2 * pi) ** 1.5 * transform.sigma**3
    softness = transform.softening / largest if largest > 0 else 0.0
    # In a cell, as many of them as have its mean density overlap; and the errors at
    # places of the same symmetry add up.
    tol, n_atoms = transform.tol, 0.0
    if periodic:
        tol *= _PERIODIC
        n_atoms = float(density.mean(axis=(1, 2, 3)).max()) / (largest or 1.0)
    exponents = np.asarray(transform.exponents)
    paths = tuple(path for path in transform.paths if path.scales)
    return [
        (
            _Settings(
                paths,
                exponents[indices],
                transform.sigma,
                transform.softening,
                Accuracy(tol, softness, highest),
                _SPACING * transform.sigma,
                n_atoms,
            ),
            indices,
        )
        for highest, indices in exponent_classes(exponents)
    ]


def _memory(source: "_VoxelSource", settings: _Settings) -> float:
    n_points = settings.count_points(source.lattice)
    return 8.0 * _ARRAYS * source.unit.shape[1] * n_points


class _VoxelSource:
    """A density on a grid, with several channels; see :class:`.sources.Source`.

    Parameters
    ----------
    density : ndarray of shape (n_channels, n_x, n_y, n_z)
    vectors : ndarray of shape (3, 3)
        The edges of a voxel.
    periodic : bool
    sigma : float
        Width of the Gaussian that spectra are without.
    """

    is_periodic = False  # nothing asks for derivatives

    def __init__(
        self, density: _Array, vectors: _Array, periodic: bool, sigma: float
    ) -> None:
        self._density = density if periodic else _trim(density)
        self._vectors = vectors
        self._periodic = periodic
        self._sigma = sigma
        volume = abs(float(np.linalg.det(vectors)))
        total = volume * self._density.sum(axis=(1, 2, 3))
        self.unit = np.where(total > 0, total, 1.0)[np.newaxis, :, np.newaxis]
        self._scale = volume / self.unit[0, :, :, np.newaxis, np.newaxis]

    def move_to(self, xp: Any, dtype: str) -> None:
        """Move the density to an array library."""
        self._xp = xp
        self._dtype = getattr(xp, dtype)
        scaled = self._density * self._scale
        self._values = xp.asarray(scaled, dtype=self._dtype)

    def lattice(self, resolution: Resolution) -> Lattice:
        """Make the grid of a field."""
        shape = np.array(self._density.shape[1:])
        if self._periodic:
            cell = shape[:, np.newaxis] * self._vectors
            return cell_lattice(cell, np.zeros(3), resolution)
        half_lengths = (shape - 1) * np.diag(self._vectors) / 2
        return box_around(half_lengths, resolution)

    def spectrum(self, lattice: Lattice, factor: complex) -> Array:
        """Compute the spectrum: a sum over the voxels along each axis in turn."""
        xp = self._xp
        x, y, z = (
            self._phases(points, indices)
            for points, indices in zip(
                self._coordinates(lattice), lattice.indices(), strict=True
            )
        )
        found = sum_over_points(xp.expand_dims(self._values, axis=0), x, y, z, xp)
        k2 = sum(k * k for k in lattice.wavevectors())
        exponent = self._sigma**2 * k2 / 2
        # Beyond, all wavelets have vanished.
        growth = np.exp(np.where(exponent < _LARGEST_EXPONENT, exponent, -np.inf))
        return found * xp.asarray(factor * growth, dtype=z.dtype)

    def near(self, lattice: Lattice, width: float, reach: float) -> None:
        """Return None: fields may be anywhere in the box."""

    def _coordinates(self, lattice: Lattice) -> list[_Array]:
        """Coordinates of the voxels along each axis, in edges of a box."""
        shape = np.array(self._density.shape[1:])
        steps = np.diag(self._vectors @ np.linalg.inv(lattice.cell))
        first = np.zeros(3) if self._periodic else -(shape - 1) @ self._vectors / 2
        return [
            start + step * np.arange(n)
            for start, step, n in zip(
                lattice.fractional(first), steps, shape, strict=True
            )
        ]

    def _phases(self, coordinates: _Array, indices: NDArray[Any]) -> Array:
        """Phases of the voxels: (n_voxels, n_indices), 0 beyond what voxels hold."""
        xp = self._xp
        found = phases(coordinates, indices, xp, self._dtype)
        if len(coordinates) > 1:
            step = abs(coordinates[1] - coordinates[0])
            held = 2 * step * np.abs(indices) < 1 - 1e-9
            found = found * xp.asarray(held, dtype=found.dtype)
        return found


def _trim(density: _Array) -> _Array:
    """Leave out empty voxels at the sides."""
    there = (density > _EMPTY * density.max()).any(axis=0)
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        places = np.flatnonzero(there.any(axis=others))
        if len(places):
            part = slice(places[0], places[-1] + 1)
            density = density[(slice(None),) * (axis + 1) + (part,)]
    return density
