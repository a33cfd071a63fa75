"""One engine for all structures: it hands each to the engine that computes it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import Library
from skscatharm.engine.crystals import CrystalEngine
from skscatharm.engine.moments import with_moments
from skscatharm.engine.protocol import Atoms, Derivatives, DifferentiableEngine, Engine
from skscatharm.engine.radial import RadialEngine
from skscatharm.engine.rigid import remove_rigid_motions
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["StructureEngine"]

_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]


class StructureEngine:
    """Computes free molecules, single atoms and crystals, in any order.

    Parameters
    ----------
    transform : Transform
        What to compute.
    library : Library
        The array library that computes, and where.
    molecules : Engine
        The engine of free molecules, for paths and pairs. Only a
        :class:`~skscatharm.engine.protocol.DifferentiableEngine` differentiates.
    """

    def __init__(
        self, transform: Transform, library: Library, molecules: Engine
    ) -> None:
        self.transform = transform
        self._molecules = molecules
        self._crystals = CrystalEngine(transform, library)
        self._atoms = with_moments(RadialEngine, transform)

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a structure needs at least."""
        return (self._crystals if any(atoms.pbc) else self._molecules).memory(atoms)

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of structures.

        Returns
        -------
        ndarray of shape (n_structures, n_paths, n_channels, n_exponents)
        """
        transform, kinds = self.transform, _kinds(batch)
        shape = (
            len(transform.integrands),
            len(batch[0].weights),
            len(transform.exponents),
        )
        found = np.empty((len(batch), *shape))
        for engine, chosen in (
            (self._atoms, kinds.single),
            (self._crystals, kinds.periodic),
            (self._molecules, kinds.molecules),
        ):
            if len(chosen):
                found[chosen] = engine.coefficients(_take(batch, chosen))
        return found

    def jacobian(self, batch: Sequence[Atoms]) -> list[Derivatives]:
        """Differentiate the coefficients of structures.

        Returns
        -------
        list of Derivatives
            Of shapes (n_paths, n_channels, n_exponents, n_atoms, 3) and
            (n_paths, n_channels, n_exponents, 3, 3).
        """
        kinds = _kinds(batch)
        free = _take(batch, kinds.free)
        found = _join(
            batch,
            kinds,
            self._differentiable.jacobian(free) if free else [],
            self._crystals.jacobian(_take(batch, kinds.periodic)),
        )
        for atoms, derivatives in zip(batch, found, strict=True):
            constant = _constant(atoms, self.transform)
            derivatives.positions[constant] = 0
            derivatives.strain[constant] = 0
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
        kinds = _kinds(batch)
        factors = self._of_varying(batch, weights)
        free, of_free = _take(batch, kinds.free), _take(factors, kinds.free)
        return _join(
            batch,
            kinds,
            self._differentiable.gradient(free, of_free) if free else [],
            self._crystals.gradient(
                _take(batch, kinds.periodic), _take(factors, kinds.periodic)
            ),
        )

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[Derivatives]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        kinds = _kinds(batch)
        others = np.concatenate([kinds.single, kinds.periodic])
        coefficients: _Array = np.empty(0)
        factors: list[_Array] = []

        def weigh_all(of_free: _Array | None) -> _Array:
            nonlocal coefficients, factors
            if len(others):
                found = self.coefficients(_take(batch, others))
                coefficients = np.empty((len(batch), *found.shape[1:]))
                if of_free is not None:
                    coefficients[kinds.free] = of_free
                coefficients[others] = found
            elif of_free is not None:
                coefficients = of_free
            factors = self._of_varying(batch, weigh(coefficients))
            return np.array(_take(factors, kinds.free))

        gradients: list[_Array] = []
        if len(kinds.free):
            _, gradients = self._differentiable.linearize(
                _take(batch, kinds.free), weigh_all
            )
        else:
            weigh_all(None)
        of_crystals = self._crystals.gradient(
            _take(batch, kinds.periodic), _take(factors, kinds.periodic)
        )
        return coefficients, _join(batch, kinds, gradients, of_crystals)

    @property
    def _differentiable(self) -> DifferentiableEngine:
        return cast(DifferentiableEngine, self._molecules)

    def _of_varying(
        self, batch: Sequence[Atoms], weights: Sequence[_Array] | _Array
    ) -> list[_Array]:
        """Set the weights of coefficients that do not change to zero."""
        return [
            np.where(_constant(atoms, self.transform), 0.0, of_structure)
            for atoms, of_structure in zip(batch, weights, strict=True)
        ]


class _Kinds(NamedTuple):
    """Indices of structures: free atoms, free molecules and crystals."""

    single: _Indices
    molecules: _Indices
    periodic: _Indices

    @property
    def free(self) -> _Indices:
        """Molecules and single atoms."""
        return np.sort(np.concatenate([self.single, self.molecules]))


def _kinds(batch: Sequence[Atoms]) -> _Kinds:
    periodic = np.array([any(atoms.pbc) for atoms in batch], dtype=bool)
    single = np.array([len(atoms.positions) == 1 for atoms in batch], dtype=bool)
    return _Kinds(
        np.flatnonzero(single & ~periodic),
        np.flatnonzero(~single & ~periodic),
        np.flatnonzero(periodic),
    )


def _take(items: Sequence[Any], indices: _Indices) -> list[Any]:
    return [items[i] for i in indices]


def _join(
    batch: Sequence[Atoms],
    kinds: _Kinds,
    of_free: Sequence[_Array],
    of_crystals: Sequence[Derivatives],
) -> list[Derivatives]:
    """Order derivatives as the batch, and complete those of free molecules."""
    found = dict(zip(kinds.periodic.tolist(), of_crystals, strict=True))
    for i, derivatives in zip(kinds.free.tolist(), of_free, strict=True):
        positions = batch[i].positions
        remove_rigid_motions(derivatives, positions, batch[i].reference)
        # A strain moves the atoms in proportion to their positions.
        strain = np.swapaxes(derivatives, -1, -2) @ positions
        found[i] = Derivatives(derivatives, (strain + strain.swapaxes(-1, -2)) / 2)
    return [found[i] for i in range(len(batch))]


def _constant(atoms: Atoms, transform: Transform) -> NDArray[np.bool_]:
    """Find the coefficients that do not change with the positions of the atoms.

    They are integrals of densities, and all of a single atom. Without this, rounding
    errors would be all there is of their derivatives. With a reference, those of an
    atom among others change by errors of the quadrature, and derivatives are those of
    the sums.

    Returns
    -------
    ndarray of shape (n_paths and n_pairs, n_channels, n_exponents)
    """
    of_density = [
        isinstance(integrand, Path) and integrand.degree == 0
        for integrand in transform.integrands
    ]
    signed = (atoms.weights.min(axis=1) < 0) & (atoms.weights.max(axis=1) > 0)
    densities = np.array(of_density)[:, np.newaxis] & ~signed
    linear = np.array(transform.exponents) == 1
    has_atom = atoms.weights != 0
    shifts = [getattr(integrand, "shift", 0) for integrand in transform.integrands]
    rolled = {s: has_atom | np.roll(has_atom, -s, axis=0) for s in set(shifts)}
    of_both = np.array([rolled[s] for s in shifts])
    single = np.count_nonzero(of_both, axis=2) < 2
    single &= not any(atoms.pbc) and atoms.reference is None
    found: NDArray[np.bool_] = densities[..., np.newaxis] & linear
    return found | single[..., np.newaxis]
