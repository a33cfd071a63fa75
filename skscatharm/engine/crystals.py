"""The engine of crystals: Fourier series on the reciprocal lattice.

The spectrum of a periodic density is exact on the reciprocal lattice of any cell.
Integrals are taken over the primitive cell, and a cell that holds it several times has
as many times its coefficients.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.accuracy import (
    CRYSTAL_SOFTNESS,
    DOUBLE,
    SOFT,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library
from skscatharm.engine.crystal import Crystal
from skscatharm.engine.pairs import PairFields, share_grids
from skscatharm.engine.protocol import Atoms, Derivatives
from skscatharm.engine.sources import AtomSource
from skscatharm.engine.spectral import FieldSettings, SpectralFields
from skscatharm.transform.paths import Pair
from skscatharm.transform.transform import Transform

__all__ = ["CrystalEngine"]

_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]

_ARRAYS = 8  # of the size of a field, that are held at a time
# Bytes of the fields of channels that are computed together: on a processor, they had
# better stay in cache.
_MOST, _MOST_ON_DEVICE = 2**25, 2**32
# Atoms of a small cell. They are often at places of high symmetry, where the errors of
# all are the same and fields cancel: double precision and another share of the
# tolerance cost little.
_SMALL, _EXACT = 8, 0.1


class CrystalEngine:
    """Computes crystals, slabs and wires one by one; no weight is negative.

    Parameters
    ----------
    transform : Transform
        What to compute.
    library : Library
        The array library that computes, and where.
    """

    def __init__(self, transform: Transform, library: Library) -> None:
        self.transform = transform
        self.library = library

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a structure needs, one channel at a time."""
        crystal = Crystal(atoms)
        weights = atoms.weights[:, crystal.members[0]]
        jobs = self._jobs(crystal, weights)
        return max((job.memory() for job in jobs), default=0.0)

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of structures.

        Returns
        -------
        ndarray of shape (n_structures, n_paths, n_channels, n_exponents)
        """
        found = np.zeros((len(batch), *self._shape(batch[0])))
        for atoms, of_structure in zip(batch, found, strict=True):
            crystal = Crystal(atoms)
            for where, fields in self._parts(crystal, atoms.weights):
                of_structure[where] = fields.coefficients()[0] * len(crystal.members)
            self._proportions(atoms).spread(of_structure)
        return found

    def jacobian(self, batch: Sequence[Atoms]) -> list[Derivatives]:
        """Differentiate the coefficients of structures.

        Returns
        -------
        list of Derivatives
            Of shapes (n_paths, n_channels, n_exponents, n_atoms, 3) and
            (n_paths, n_channels, n_exponents, 3, 3).
        """
        found = []
        for atoms in batch:
            crystal = Crystal(atoms)
            shape = self._shape(atoms)
            positions = np.zeros((*shape, *crystal.positions.shape))
            strain = np.zeros((*shape, 3, 3))
            for where, fields in self._parts(crystal, atoms.weights, derivatives=True):
                (positions[where],), (strain[where],) = fields.jacobian()
            proportions = self._proportions(atoms)
            for derivatives in (positions, strain):
                proportions.spread(derivatives)
            found.append(_of_all(Derivatives(positions, strain), crystal))
        return found

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[_Array]
    ) -> list[Derivatives]:
        """Differentiate weighted sums of the coefficients of structures.

        `weights` are of shape (n_paths, n_channels, n_exponents).

        Returns
        -------
        list of Derivatives
            Of shapes (n_atoms, 3) and (3, 3).
        """
        found = []
        for atoms, factors in zip(batch, weights, strict=True):
            crystal = Crystal(atoms)
            positions, strain = np.zeros_like(crystal.positions), np.zeros((3, 3))
            factors = self._proportions(atoms).collect(factors)
            for where, fields in self._parts(crystal, atoms.weights, derivatives=True):
                of_part = fields.gradient(factors[where][np.newaxis])
                positions += of_part.positions[0]
                strain += of_part.strain[0]
            found.append(_of_all(Derivatives(positions, strain), crystal))
        return found

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[Derivatives]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        coefficients = self.coefficients(batch)
        return coefficients, self.gradient(batch, list(weigh(coefficients)))

    def _shape(self, atoms: Atoms) -> tuple[int, int, int]:
        transform = self.transform
        n_integrands = len(transform.integrands)
        return n_integrands, len(atoms.weights), len(transform.exponents)

    def _proportions(self, atoms: Atoms) -> "_Proportions":
        transform = self.transform
        rows = [i for i, path in enumerate(transform.paths) if path.degree == 0]
        first, ratios = _first_of_proportion(atoms.weights)
        exponents = np.asarray(transform.exponents)
        return _Proportions(
            np.array(rows, int), first, ratios[:, np.newaxis] ** exponents
        )

    def _parts(
        self, crystal: Crystal, weights: _Array, derivatives: bool = False
    ) -> "Iterator[tuple[Any, SpectralFields | PairFields]]":
        """Yield what shares its grids, and where it stands among the coefficients."""
        xp = self.library.namespace()
        most_bytes = _MOST_ON_DEVICE if self.library.on_device else _MOST
        weights = weights[:, crystal.members[0]]
        for job in self._jobs(crystal, weights):
            most = max(int(most_bytes / job.memory(derivatives)), 1)
            for start in range(0, len(job.channels), most):
                channels = job.channels[start : start + most]
                dtype = getattr(xp, job.dtype)
                source = AtomSource([crystal], [weights[channels]], xp, dtype)
                fields: SpectralFields | PairFields
                if job.pairs:
                    double = AtomSource([crystal], [weights[channels]], xp, xp.float64)
                    fields = PairFields(
                        source, job.settings, job.pairs, xp, job.dtype, double
                    )
                else:
                    fields = SpectralFields(
                        source, job.settings, xp, job.dtype, derivatives
                    )
                yield np.ix_(job.integrands, channels, job.exponents), fields

    def _jobs(self, crystal: Crystal, weights: _Array) -> "Iterator[_Job]":
        transform = self.transform
        Q, kept = np.asarray(transform.exponents), transform.kept
        is_small = len(crystal.positions) <= _SMALL
        tol = transform.tol * (_EXACT if is_small else 1.0)
        has_zeros = np.array([path.degree > 0 for path in transform.paths], dtype=bool)
        n_paths, n_all = len(transform.paths), len(transform.integrands)
        # Softening has no effect on fields of degree 0.
        first, _ = _first_of_proportion(weights)
        parts = [(0.0, np.unique(first), np.flatnonzero(~has_zeros))]
        for softness, _, channels in weight_classes(
            weights, transform.softening, CRYSTAL_SOFTNESS
        ):
            parts.append((softness, channels, np.flatnonzero(has_zeros)))
            parts.append((softness, channels, np.arange(n_paths, n_all)))
        for softness, channels, integrands in parts:
            channels = channels[weights[channels].any(axis=1)]
            if len(integrands) == 0 or len(channels) == 0:
                continue
            pairs = transform.pairs if integrands[0] >= n_paths else ()
            needed = np.array(kept.of_pairs if pairs else range(len(Q)))
            for largest, classed in exponent_classes(Q[needed]):
                exponents = needed[classed]
                paths = () if pairs else tuple(transform.paths[i] for i in integrands)
                settings = FieldSettings(
                    paths,
                    Q[exponents],
                    transform.sigma,
                    transform.softening,
                    Accuracy(tol, softness, largest),
                    crystal.spacing,
                    crystal.density,
                )
                # Low powers of the noise that FFTs leave in the empty parts of a
                # cell would add up to something, unless they are softened.
                soft = softness >= SOFT and paths != () and paths[0].degree > 0
                # Powers of both fields of a pair are half as large.
                low = Q[exponents].min() < (2 if pairs else 1) and not soft
                double = low or largest > DOUBLE or is_small
                dtype = "float64" if double else transform.dtype
                shared = [group.settings for group in share_grids(settings, pairs)]
                n_points = max(
                    one.count_points(crystal.lattice) for one in shared or [settings]
                )
                yield _Job(
                    settings, n_points, integrands, pairs, channels, exponents, dtype
                )


class _Job(NamedTuple):
    """What is computed together.

    Attributes
    ----------
    settings : FieldSettings
    n_points : int
        Of the finest grid.
    integrands : ndarray of int
        Indices of the paths or of the pairs among both.
    pairs : tuple of Pair
        Empty if there are paths.
    channels, exponents : ndarray of int
        Indices.
    dtype : {"float32", "float64"}
    """

    settings: FieldSettings
    n_points: int
    integrands: _Indices
    pairs: tuple[Pair, ...]
    channels: _Indices
    exponents: _Indices
    dtype: str

    def memory(self, derivatives: bool = False) -> float:
        """Estimate the bytes that a channel needs."""
        fields = {path for pair in self.pairs for path in pair.fields}
        n_arrays = _ARRAYS + len(fields)
        if derivatives:  # all powers of each field, and the components of one, are kept
            degrees = [path.degree for path in fields or self.settings.paths]
            n_arrays += len(fields) * len(self.exponents) + 2 * max(degrees) + 4
        return float(n_arrays * self.n_points * np.dtype(self.dtype).itemsize)


class _Proportions(NamedTuple):
    """Channels with weights in proportion have the fields of the first of them.

    Attributes
    ----------
    rows : ndarray of int
        Paths of degree 0, which are not softened.
    first : ndarray of int of shape (n_channels,)
        The first channel of each proportion.
    factors : ndarray of shape (n_channels, n_exponents)
        What its integrals are multiplied by.
    """

    rows: _Indices
    first: _Indices
    factors: _Array

    def spread(self, values: NDArray[Any]) -> None:
        """Fill in the values of other channels, in place.

        They are of shape (n_integrands, n_channels, n_exponents, ...).
        """
        ones = (1,) * (values.ndim - 3)
        factors = self.factors.reshape(*self.factors.shape, *ones)
        values[self.rows] = values[self.rows][:, self.first] * factors

    def collect(self, factors: _Array) -> _Array:
        """Turn factors of all channels into those of first channels."""
        found = factors.copy()
        found[self.rows] = 0.0
        for channel, first in enumerate(self.first):
            found[self.rows, first] += (
                factors[self.rows, channel] * self.factors[channel]
            )
        return found


def _first_of_proportion(weights: _Array) -> tuple[_Indices, _Array]:
    """Find the first channel in proportion to each, and the ratio to it."""
    largest = np.abs(weights).max(axis=1)
    largest = np.where(largest > 0, largest, 1.0)
    rows = weights / largest[:, np.newaxis]
    _, places, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    first = places[inverse.ravel()]  # NumPy 2.0.0 returns a column
    return first, largest / largest[first]


def _of_all(derivatives: Derivatives, crystal: Crystal) -> Derivatives:
    """Turn derivatives of the primitive cell into those of the cell as given.

    To move an atom with all of its images changes the coefficients of the primitive
    cell as much as to move it in one copy changes those of the whole.
    """
    n_copies, n_atoms = crystal.members.shape
    positions = derivatives.positions
    positions = positions - positions.mean(axis=-2, keepdims=True)
    found = np.empty((*positions.shape[:-2], n_copies * n_atoms, 3))
    for members in crystal.members:
        found[..., members, :] = positions
    return Derivatives(found, derivatives.strain * n_copies)
