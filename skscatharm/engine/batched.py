r"""The separable engine for devices: many molecules in each product.

A device needs large products to be busy. Here, molecules of similar size are computed
together, as arrays with a leading axis for them. Each molecule keeps its own grids,
filled up to the size of the largest with points of weight zero. Fields are not cut into
tiles: molecules that are too large for this are computed one by one, as are those with
channels of both signs. The fields are those of :mod:`skscatharm.engine.batch_fields`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.accuracy import (
    DOUBLE,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library, to_numpy
from skscatharm.engine.batch_fields import (
    LAYERS,
    MoleculeBatch,
    Product,
    ProductFields,
    Sizes,
    choose_kernels,
    planar_polynomials,
)
from skscatharm.engine.frame import Frame
from skscatharm.engine.groups import compute_in_groups
from skscatharm.engine.moments import with_moments
from skscatharm.engine.protocol import Atoms, DifferentiableEngine
from skscatharm.engine.quadrature import (
    body_centred_points,
    coarse_points,
    fine_points,
    product_points,
)
from skscatharm.engine.separable import SeparableEngine, _plan
from skscatharm.transform.paths import PairGroup, group_pairs
from skscatharm.transform.transform import Transform

__all__ = ["BatchedEngine"]

Array = Any  # of the array library that computes
_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]
# The softness of channels that share a grid, and the channels.
_Class = tuple[float, tuple[int, ...]]
_Classes = list[_Class]

_GROUP = 256  # molecules; more have less in common
_BUSY = 16 * 2**30  # bytes of a group
_LARGE = 2**28  # bytes of a molecule that is computed in tiles


class BatchedEngine:
    """Computes molecules of similar size together, and derivatives one by one.

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
        self._kernels = choose_kernels(library.namespace())
        one_by_one = with_moments(partial(SeparableEngine, library=library), transform)
        self._one_by_one = cast(DifferentiableEngine, one_by_one)

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a molecule needs at least."""
        return self._one_by_one.memory(atoms)

    def jacobian(self, batch: Sequence[Atoms]) -> list[_Array]:
        """Differentiate the coefficients, as the engine of single molecules."""
        return self._one_by_one.jacobian(batch)

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[_Array]
    ) -> list[_Array]:
        """Differentiate weighted sums, as the engine of single molecules."""
        return self._one_by_one.gradient(batch, weights)

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[_Array]]:
        """Compute coefficients and derivatives, as the engine of single molecules."""
        return self._one_by_one.linearize(batch, weigh)

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_integrands, n_channels, n_exponents)
        """
        transform = self.transform
        sizes = Sizes.of([Frame(atoms.positions, atoms.charges) for atoms in batch])
        computed: list[_Computed] = []
        jobs, alone = self._jobs(batch)
        for job, molecules in jobs:
            large = self._memory(job, sizes.take(molecules)) > _LARGE
            alone.update(molecules[large].tolist())
            if not large.all():
                compute_in_groups(
                    partial(self._compute, job, batch, sizes, computed),
                    molecules[~large],
                    sizes.extents,
                    partial(self._group_memory, job, sizes),
                    self.library,
                    _BUSY,
                    _GROUP,
                )
        # Up to here, the device may be busy while the host goes on.
        shape = len(transform.integrands), len(batch[0].weights)
        found = np.zeros((len(batch), *shape, len(transform.exponents)))
        for where, moments, scales in computed:
            found[where] = to_numpy(moments) * scales
        for i in alone:
            (found[i],) = self._one_by_one.coefficients([batch[i]])
        return found

    def _jobs(
        self, batch: Sequence[Atoms]
    ) -> "tuple[list[tuple[_Job, _Indices]], set[int]]":
        """Find what can be computed together.

        Returns
        -------
        jobs : list of (_Job, ndarray of int)
            With the indices of their molecules.
        alone : set of int
            Molecules that are computed one by one.
        """
        transform, kept = self.transform, self.transform.kept
        classes: dict[int, _Classes] = {}
        alone = set()
        for i, atoms in enumerate(batch):
            found = weight_classes(atoms.weights, transform.softening)
            if transform.signed or any(signed for _, signed, _ in found):
                alone.add(i)
            else:
                # Without atoms in a channel, rounding would be all there is.
                has_atom = np.asarray(atoms.weights.any(axis=1))
                classes[i] = [
                    (softness, tuple(channels[has_atom[channels]].tolist()))
                    for softness, _, channels in found
                    if has_atom[channels].any()
                ]
        # The molecules of each class, and of the channels that are joined.
        apart = _members(classes)
        joined = _members({i: _join(c) for i, c in classes.items() if c})
        jobs: list[tuple[_Job, _Indices]] = []
        # What is integrated: the powers of paths, or of the pairs of a group.
        kinds: list[PairGroup | None] = [None] if transform.paths else []
        for pairs in [*kinds, *group_pairs(transform.pairs)]:
            exponents = np.array(kept.of_pairs if pairs else kept.of_paths)
            Q = np.array(transform.exponents)[exponents]
            members = joined if pairs and transform.joins_channels else apart
            for (softness, channels), molecules in members.items():
                for largest, of_class in exponent_classes(Q):
                    accuracy = Accuracy(transform.tol, softness, largest)
                    chosen = np.array(channels), exponents[of_class]
                    jobs.append((_Job(accuracy, *chosen, pairs), np.array(molecules)))
        return jobs, alone

    def _compute(
        self,
        job: "_Job",
        batch: Sequence[Atoms],
        sizes: "Sizes",
        computed: "list[_Computed]",
        group: _Indices,
    ) -> None:
        transform = self.transform
        molecules = MoleculeBatch(
            sizes.take(group),
            [batch[i].weights[job.channels] for i in group],
            np.asarray(transform.exponents)[job.exponents],
            job.accuracy,
            transform,
            self.library.namespace(),
            self._dtype(job),
        )
        if job.pairs is None:
            paths = np.arange(len(transform.paths))
            where = np.ix_(group, paths, job.channels, job.exponents)
            computed.append(_Computed(where, *molecules.moments()))
            return
        n_channels = len(batch[0].weights)
        products = list(_products(job.pairs, job.channels, n_channels, transform))
        if products:
            integrands = np.array([[p.integrand] for p in products])
            channels = job.channels[[[p.first[1]] for p in products]]
            where = group[:, None, None], integrands, channels, job.exponents
            of_pairs = molecules.mixed_moments(job.pairs, products)
            computed.append(_Computed(where, *of_pairs))

    def _dtype(self, job: "_Job") -> str:
        return "float64" if job.accuracy.exponent > DOUBLE else self.transform.dtype

    def _group_memory(self, job: "_Job", sizes: "Sizes", group: _Indices) -> float:
        return len(group) * float(self._memory(job, sizes.take(group).largest())[0])

    def _memory(self, job: "_Job", sizes: "Sizes") -> _Array:
        """Estimate the bytes that each molecule needs."""
        if job.pairs is None:
            n_values = self._values_of_paths(job, sizes)
        else:
            n_values = self._values_of_pairs(job, job.pairs, sizes)
        return n_values * np.dtype(self._dtype(job)).itemsize

    def _values_of_paths(self, job: "_Job", sizes: "Sizes") -> _Array:
        """Estimate how many values are held at a time, at the smallest scale."""
        transform, extents, accuracy = self.transform, sizes.extents, job.accuracy
        fields = self._kernels.FIELDS * len(job.channels)
        most = np.zeros(len(extents))
        for first in _plan(transform.paths, transform.sigma, signed=False):
            degree, width = first.path.degree, first.width
            n_terms = len(planar_polynomials(degree))
            grid = extents, sizes.crowding(width), width, 1, degree, accuracy
            n_x, n_y, n_z = body_centred_points(*grid).T
            rows = fields * n_z + n_terms * sizes.n_atoms
            most = np.maximum(most, rows * n_x * n_y)
            for second in first.seconds:
                scale = transform.sigma * 2 ** second.path.scales[1]
                coarse = coarse_points(extents, width, scale, degree, accuracy)
                crowding = sizes.crowding(second.width)
                grid = extents, crowding, second.width, 2, degree, accuracy
                n_x, n_y, n_z = fine_points(*grid).T
                rows = fields * n_z + n_terms * len(job.channels) * coarse[:, 2]
                most = np.maximum(most, rows * n_x * n_y)
        return most

    def _values_of_pairs(self, job: "_Job", pairs: PairGroup, sizes: "Sizes") -> _Array:
        """Estimate how many values are held at a time."""
        fields = ProductFields.of(pairs, self.transform.sigma)
        Q = [self.transform.exponents[i] for i in job.exponents]
        grid = sizes.extents, sizes.crowding(fields.widths[0]), fields.widths
        n_x, n_y, n_z = product_points(*grid, fields.degree, Q, job.accuracy).T
        n_channels = len(job.channels)
        n_kept = self._kernels.PRODUCTS * len(pairs.fields) + self._kernels.FIELDS
        rows = n_kept * np.minimum(n_channels * n_z, max(LAYERS, n_channels))
        n_terms = sum(len(planar_polynomials(f.path.degree)) for f in fields.plan)
        values: _Array = (rows + n_terms * sizes.n_atoms) * n_x * n_y
        return values


class _Computed(NamedTuple):
    """Moments that a device computes, and their place among the coefficients.

    Attributes
    ----------
    where : tuple of ndarray of int
        Indices along each axis.
    moments : array
        Where they are computed.
    scales : ndarray
        Their factors, which may be too large or small for single precision.
    """

    where: tuple[_Indices, ...]
    moments: Array
    scales: _Array


class _Job(NamedTuple):
    """What is computed together.

    Attributes
    ----------
    accuracy : Accuracy
    channels, exponents : ndarray of int
        Indices.
    pairs : PairGroup or None
        Pairs of fields that are multiplied; None for all paths.
    """

    accuracy: Accuracy
    channels: _Indices
    exponents: _Indices
    pairs: PairGroup | None


def _join(classes: _Classes) -> _Classes:
    """Let all channels share the grid of the least softness."""
    channels = sorted(channel for _, of_class in classes for channel in of_class)
    return [(min(classes)[0], tuple(channels))]


def _members(classes: dict[int, _Classes]) -> dict[_Class, list[int]]:
    """List the molecules that have a class."""
    members: dict[_Class, list[int]] = {}
    for i, of_molecule in classes.items():
        for key in of_molecule:
            members.setdefault(key, []).append(i)
    return members


def _products(
    group: PairGroup, channels: _Indices, n_channels: int, transform: Transform
) -> Iterator[Product]:
    """List the products of the fields of some channels."""
    positions = {c: k for k, c in enumerate(channels.tolist())}
    for i, first, second in group.places:
        shift = transform.pairs[i].shift
        for c, k in positions.items():
            other = (c + shift) % n_channels
            if other in positions:
                both = (first, k), (second, positions[other])
                yield Product(len(transform.paths) + i, *both)
