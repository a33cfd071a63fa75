"""Derivatives of energies, with respect to positions and strain, as a regressor learns.

The energy of a molecule is its size times the prediction of the regressor: the size is
the number of its atoms if the coefficients are those per atom, otherwise 1.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine import least_tol
from skscatharm.regression.consistency import compare_with_gradients
from skscatharm.structures import Structure
from skscatharm.structures.labels import check_forces, check_stresses, to_voigt

__all__ = [
    "Slopes",
    "checked_rows",
    "known_slopes",
    "sizes_of",
    "strain_too",
    "volumes_of",
]

_Array = NDArray[np.float64]

# Forces of some molecules are compared with their energies: how many molecules, how
# many there must be, and the correlation from which a comparison means something. With
# 20 configurations of ethanol it is 0.9, and the slope differs from 1 by 10 %.
_SAMPLE, _LEAST_SAMPLE, _CORRELATED = 20, 10, 0.8
# They are compared first where there are so many times as many molecules.
_MANY_SAMPLES = 10
# Factors by which forces of the right unit may differ from the comparison.
_AGREE, _CRYSTALS_AGREE = 1.5, 3.0
# Single precision is enough for Jacobians where `tol` is so many times its least.
_ROUNDING_SHARE = 5.0

# With these weights, the squares of six components of a symmetric matrix add up to
# those of all nine, which rotations do not change.
_SHEARS = np.sqrt([1.0, 1, 1, 2, 2, 2])


class Slopes(NamedTuple):
    """Derivatives of energies.

    Attributes
    ----------
    gradients : ndarray of shape (n_molecules, n_atoms, 3) or None
        With respect to positions.
    virials : ndarray of shape (n_molecules, 3, 3) or None
        With respect to strain; zero where they are not known.
    is_strained : ndarray of shape (n_molecules,)
        Where virials are known.
    """

    gradients: _Array | None
    virials: _Array | None
    is_strained: NDArray[np.bool_]

    @property
    def are_known(self) -> bool:
        """Whether there are any."""
        return self.gradients is not None or self.virials is not None

    def part(self, chosen: Sequence[int]) -> "Slopes":
        """Return the derivatives of some molecules."""
        gradients, virials = (
            None if array is None else array[chosen]
            for array in (self.gradients, self.virials)
        )
        return Slopes(gradients, virials, np.take(self.is_strained, chosen))

    def rows(
        self, scattering: Any, structures: Sequence[Structure]
    ) -> tuple[_Array, _Array]:
        """Differentiate coefficients and energies with respect to the same coordinates.

        If coefficients and energies are those per atom, positions are measured in units
        of N Å: the gradients are forces in cells of any size. Derivatives with respect
        to strain are virials per atom. A virial of 1 eV weighs as much as a force of
        1 eV/Å.

        Returns
        -------
        jacobian : ndarray of shape (n_molecules, n_coefficients, n_coordinates)
        gradients : ndarray of shape (n_molecules, n_coordinates)
            The six components of the strain follow the positions.
        """
        n_molecules = len(structures)
        has_strain = self.virials is not None
        differentiable = _summed_fast(scattering, structures)
        found = differentiable.jacobian(structures, **strain_too(has_strain))
        jacobian, strain = found if has_strain else (found, np.empty(0))
        sizes = sizes_of(scattering, structures)
        parts, aims = [], []
        if self.gradients is not None:
            n_atoms = jacobian.shape[2]
            jacobian *= sizes[:, np.newaxis, np.newaxis, np.newaxis]
            parts.append(jacobian.reshape(*jacobian.shape[:2], -1))
            aims.append(self.gradients[:, :n_atoms].reshape(n_molecules, -1))
        if self.virials is not None:
            per_atom = self.is_strained / _n_atoms(structures)
            scale = (per_atom * sizes)[:, np.newaxis, np.newaxis]
            parts.append(to_voigt(strain) * _SHEARS * scale)
            aims.append(to_voigt(self.virials) * _SHEARS * per_atom[:, np.newaxis])
        if len(parts) == 1:
            return parts[0], aims[0]
        return np.concatenate(parts, axis=2), np.concatenate(aims, axis=1)


def _summed_fast(scattering: Any, structures: Sequence[Structure]) -> Any:
    """Return a transformer whose Jacobians of molecules add up in single precision.

    They take two thirds of the time, and `tol` allows larger errors than rounding.
    """
    is_free = all(structure.cell is None for structure in structures)
    if getattr(scattering, "dtype", None) != "float64" or not is_free:
        return scattering
    if scattering.tol < _ROUNDING_SHARE * least_tol("float32", scattering.L):
        return scattering
    return copy(scattering).set_params(dtype="float32")


def known_slopes(forces: Any, stresses: Any, structures: Sequence[Structure]) -> Slopes:
    """Check forces and stresses, and turn them into derivatives of energies."""
    gradients = None if forces is None else -check_forces(forces, structures)
    if stresses is None:
        return Slopes(gradients, None, np.zeros(len(structures), dtype=np.bool_))
    checked = check_stresses(stresses, structures)
    is_known = np.asarray(~np.isnan(checked).any(axis=(1, 2)))
    virials = np.zeros_like(checked)
    for i in np.flatnonzero(is_known).tolist():
        virials[i] = checked[i] * volumes_of([structures[i]])[0]
    return Slopes(gradients, virials if is_known.any() else None, is_known)


def strain_too(wanted: bool) -> dict[str, bool]:
    """Return the argument for derivatives with respect to strain, if any is needed.

    Transformers of molecules alone need not have it.
    """
    return {"cell": True} if wanted else {}


def _n_atoms(structures: Sequence[Structure]) -> _Array:
    return np.array([float(len(s.charges)) for s in structures])


def sizes_of(scattering: Any, structures: Sequence[Structure]) -> _Array:
    """Return the number of atoms of each molecule, if coefficients are those per atom.

    Otherwise 1. The energy is that of the regressor multiplied by it.
    """
    if getattr(scattering, "normalize", None) == "atom":
        return _n_atoms(structures)
    return np.ones(len(structures))


def volumes_of(structures: Sequence[Structure]) -> _Array:
    """Return the volumes of cells in Å^3, or raise where there is none."""
    for i, structure in enumerate(structures):
        if not all(structure.pbc):
            raise ValueError(
                f"Molecule {i} has no volume, and so no stress: it is periodic along "
                f"{sum(structure.pbc)} of three vectors. Pass crystals only."
            )
    return np.abs(np.linalg.det(np.array([s.cell for s in structures])))


def checked_rows(
    scattering: Any,
    structures: Sequence[Structure],
    energies: _Array,
    slopes: Slopes,
) -> tuple[_Array, _Array]:
    """Return :meth:`Slopes.rows`, and warn if energies that some of them predict
    contradict the energies.

    Of many molecules, some are compared first, before the long computation.
    """
    chosen = _of_one_composition(structures)
    chosen = chosen[:: max(len(chosen) // _SAMPLE, 1)][:_SAMPLE]
    some = [structures[i] for i in chosen]
    if len(some) < _LEAST_SAMPLE:
        return slopes.rows(scattering, structures)
    compare = partial(_compare, scattering, some, energies[chosen], slopes)
    if len(structures) >= _MANY_SAMPLES * _SAMPLE:
        compare(*slopes.part(chosen).rows(scattering, some))
        return slopes.rows(scattering, structures)
    jacobian, gradients = slopes.rows(scattering, structures)
    compare(jacobian[chosen], gradients[chosen])
    return jacobian, gradients


def _compare(
    scattering: Any,
    structures: Sequence[Structure],
    energies: _Array,
    slopes: Slopes,
    jacobian: _Array,
    gradients: _Array,
) -> None:
    coefficients = scattering.transform(structures)
    n_forces = gradients.shape[1] - (0 if slopes.virials is None else 6)
    most, extents = _AGREE, None
    if structures[0].cell is not None:
        # Crystals of one composition can be as different as a surface and a melt.
        most = _CRYSTALS_AGREE
        # Forces do not tell how energies depend on the volume.
        extents = np.array([_extent(structure) for structure in structures])
        extents = (extents / extents.mean() - 1)[:, np.newaxis] ** [1, 2]
    for name, part, known, sign, unit in (
        (
            "forces",
            slice(n_forces),
            extents,
            "they are minus the derivatives of the energy",
            "in the unit of the energies per Å",
        ),
        (
            "stresses",
            slice(n_forces, None),
            None,
            "they are positive where the cell pulls inwards",
            "in the unit of the energies per Å^3 (1 eV/Å^3 is 160.2 GPa)",
        ),
    ):
        slope, correlation = compare_with_gradients(
            coefficients, energies, jacobian[..., part], gradients[:, part], known
        )
        if abs(correlation) < _CORRELATED or 1 / most < slope < most:
            continue
        seems = (
            f"have the wrong sign: {sign}"
            if slope < 0
            else f"be off by a factor of about {1 / slope:.2g}: are they {unit}?"
        )
        warnings.warn(f"The {name} seem to {seems}", stacklevel=5)


def _extent(structure: Structure) -> float:
    """Return the volume of a cell, or the area or length that is periodic."""
    if structure.cell is None:
        return 1.0
    periodic = structure.cell[list(structure.pbc)]
    return float(np.sqrt(np.linalg.det(periodic @ periodic.T)))


def _of_one_composition(structures: Sequence[Structure]) -> list[int]:
    """Return the indices of the molecules of the most frequent composition."""
    indices = defaultdict(list)
    for i, structure in enumerate(structures):
        indices[np.sort(structure.charges).tobytes()].append(i)
    return max(indices.values(), key=len)
