"""The Fourier engine: fields of free molecules as Fourier series.

A molecule stands in a periodic box, large enough that its images do not matter. Each
field has a box and a grid of its own, as large and as fine as its width asks for.
Molecules of a batch share them. The points of a larger box are those of a smaller one
and some more, and so the results do not depend on the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import floor, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.accuracy import (
    DOUBLE,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library
from skscatharm.engine.frame import Frame
from skscatharm.engine.groups import compute_in_groups
from skscatharm.engine.lattice import box_around
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.sources import AtomSource
from skscatharm.engine.spectral import FieldSettings, SpectralFields
from skscatharm.transform.transform import Transform

__all__ = ["FourierEngine"]

_Array = NDArray[np.float64]

_ARRAYS = 8  # of the size of a field of all channels, that are held at a time
_BUSY = 4 * 2**30  # bytes that keep any device busy


class FourierEngine:
    """Computes as many molecules at a time as the device has memory for.

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
        self._exponents = np.asarray(transform.exponents)

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a molecule needs."""
        frame = Frame(atoms.positions, atoms.charges)
        jobs = self._jobs([frame], [atoms.weights])
        return max(
            (self._memory(job, frame.half_lengths, 1) for job in jobs), default=0.0
        )

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        found = [np.zeros(self._shape(atoms)) for atoms in batch]

        def compute(job: _Job, fields: SpectralFields, part: NDArray[np.intp]) -> None:
            values = fields.coefficients()
            for i, of_molecule in zip(part, values, strict=True):
                channels, rows = job.of(i)
                found[i][:, *np.ix_(channels, job.exponents)] = of_molecule[:, rows]

        self._run(batch, compute)
        return np.stack(found)

    def jacobian(self, batch: Sequence[Atoms]) -> list[_Array]:
        """Differentiate the coefficients of molecules.

        Returns
        -------
        list of ndarray of shape (n_paths, n_channels, n_exponents, n_atoms, 3)
        """
        found = [
            np.zeros((*self._shape(atoms), *atoms.positions.shape)) for atoms in batch
        ]

        def compute(job: _Job, fields: SpectralFields, part: NDArray[np.intp]) -> None:
            values, _ = fields.jacobian()
            for i, of_molecule in zip(part, values, strict=True):
                channels, rows = job.of(i)
                n_atoms = found[i].shape[3]
                where = np.ix_(channels, job.exponents)
                found[i][:, *where] = of_molecule[:, rows, :, :n_atoms]

        self._run(batch, compute, derivatives=True)
        return found

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[_Array]
    ) -> list[_Array]:
        """Differentiate weighted sums of the coefficients of molecules.

        `weights` are of shape (n_paths, n_channels, n_exponents).

        Returns
        -------
        list of ndarray of shape (n_atoms, 3)
        """
        found = [np.zeros_like(atoms.positions) for atoms in batch]

        def compute(job: _Job, fields: SpectralFields, part: NDArray[np.intp]) -> None:
            factors = np.stack(
                [weights[i][:, *np.ix_(job.channels, job.exponents)] for i in part]
            )
            factors *= job.belongs[np.ix_(part, job.channels)][
                :, np.newaxis, :, np.newaxis
            ]
            of_molecules, _ = fields.gradient(factors)
            for i, of_molecule in zip(part, of_molecules, strict=True):
                found[i] += of_molecule[: len(found[i])]

        self._run(batch, compute, derivatives=True)
        return found

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[_Array]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments and results are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        coefficients = self.coefficients(batch)
        return coefficients, self.gradient(batch, list(weigh(coefficients)))

    def _shape(self, atoms: Atoms) -> tuple[int, int, int]:
        transform = self.transform
        return len(transform.paths), len(atoms.weights), len(transform.exponents)

    def _run(
        self,
        batch: Sequence[Atoms],
        compute: "Callable[[_Job, SpectralFields, NDArray[np.intp]], None]",
        derivatives: bool = False,
    ) -> None:
        """Call a function with as many molecules at a time as there is memory for."""
        frames = [Frame(atoms.positions, atoms.charges) for atoms in batch]
        weights = [atoms.weights for atoms in batch]
        extents = np.stack([frame.half_lengths for frame in frames])
        for job in self._jobs(frames, weights):

            def memory(part: NDArray[np.intp], job: _Job = job) -> float:
                largest = extents[part].max(axis=0)
                return self._memory(job, largest, len(part), derivatives)

            def compute_part(part: NDArray[np.intp], job: _Job = job) -> None:
                xp, dtype = self.library.namespace(), self._dtype(job)
                source = AtomSource(
                    [frames[i] for i in part],
                    [weights[i][job.channels] for i in part],
                    xp,
                    getattr(xp, dtype),
                )
                settings = self._settings(job)
                fields = SpectralFields(source, settings, xp, dtype, derivatives)
                compute(job, fields, part)

            compute_in_groups(
                compute_part, job.molecules, extents, memory, self.library, _BUSY
            )

    def _jobs(
        self, frames: Sequence[Frame], weights: Sequence[_Array]
    ) -> "Iterator[_Job]":
        """Group what can be computed together, whatever else is in the batch."""
        transform = self.transform
        classes: dict[tuple[float, bool, float, int, int], NDArray[np.bool_]] = {}
        for i, (frame, rows) in enumerate(zip(frames, weights, strict=True)):
            # In steps of a tenth, so that molecules can share their grids.
            spacing = min(frame.spacing / transform.sigma, 1e3)
            spacing = transform.sigma * 1.1 ** floor(log(spacing) / log(1.1))
            for softness, signed, channels in weight_classes(rows, transform.softening):
                # The grid of a density that changes sign depends on the molecule.
                alone = (i, int(channels[0])) if signed else (-1, -1)
                key = (softness, signed, spacing, *alone)
                none = np.zeros((len(weights), len(rows)), dtype=bool)
                belongs = classes.setdefault(key, none)
                belongs[i, channels] = rows[channels].any(axis=1)
        for (softness, signed, spacing, *_), belongs in classes.items():
            if not belongs.any():
                continue
            for largest, exponents in exponent_classes(self._exponents):
                yield _Job(
                    Accuracy(transform.tol, softness, largest, signed),
                    spacing,
                    np.flatnonzero(belongs.any(axis=1)),
                    np.flatnonzero(belongs.any(axis=0)),
                    exponents,
                    belongs,
                )

    def _dtype(self, job: "_Job") -> str:
        """Choose the precision of the fields.

        The noise that FFTs leave in the empty parts of a box would add 1e-3 to
        coefficients of exponents below 1 in single precision.
        """
        low = self._exponents[job.exponents].min() < 1
        high = job.accuracy.exponent > DOUBLE
        return "float64" if low or high or job.accuracy.signed else self.transform.dtype

    def _memory(
        self,
        job: "_Job",
        half_lengths: _Array,
        n_molecules: int,
        derivatives: bool = False,
    ) -> float:
        n_points = self._settings(job).count_points(partial(box_around, half_lengths))
        itemsize = np.dtype(self._dtype(job)).itemsize
        n_arrays = _ARRAYS
        if derivatives:  # all components are kept
            n_arrays += 2 * max(path.degree for path in self.transform.paths) + 4
        return n_arrays * n_molecules * len(job.channels) * n_points * itemsize

    def _settings(self, job: "_Job") -> FieldSettings:
        transform = self.transform
        return FieldSettings(
            transform.paths,
            self._exponents[job.exponents],
            transform.sigma,
            transform.softening,
            job.accuracy,
            job.spacing,
        )


class _Job(NamedTuple):
    """What is computed together.

    Attributes
    ----------
    accuracy : Accuracy
    spacing : float
        Distance of neighbouring atoms, or less.
    molecules, channels, exponents : ndarray of int
        Indices.
    belongs : ndarray of bool of shape (n_molecules, n_channels)
        Which channels of which molecules are asked for.
    """

    accuracy: Accuracy
    spacing: float
    molecules: NDArray[np.intp]
    channels: NDArray[np.intp]
    exponents: NDArray[np.intp]
    belongs: NDArray[np.bool_]

    def of(self, molecule: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the channels of a molecule, and their indices among all of the job."""
        channels = np.flatnonzero(self.belongs[molecule])
        return channels, np.searchsorted(self.channels, channels)
