"""Potential energy surfaces, for tests."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

_DEPTH, _RATE = 4.5, 1.6  # eV, 1 / Å
_RADII = {1: 0.44, 6: 0.7, 8: 0.54}  # Å


class Morse(Calculator):
    """A Morse potential between each two atoms, in eV and Å."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE declares it so)

    def calculate(self, atoms=None, properties=(), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = morse(self.atoms.numbers, self.atoms.positions)
        self.results = {"energy": energy, "forces": forces}


def morse(
    numbers: NDArray[Any], positions: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Energy and forces of one molecule."""
    energy, forces = 0.0, np.zeros_like(positions)
    for i in range(len(numbers)):
        for j in range(i):
            vector = positions[i] - positions[j]
            distance = np.linalg.norm(vector)
            rest = _RADII[numbers[i]] + _RADII[numbers[j]]
            decay = np.exp(-_RATE * (distance - rest))
            energy += _DEPTH * ((1 - decay) ** 2 - 1)
            slope = 2 * _DEPTH * _RATE * decay * (1 - decay)
            forces[i] -= slope * vector / distance
            forces[j] += slope * vector / distance
    return energy, forces


def shaken(molecule: Atoms, n_frames: int, scale: float, seed: int) -> list[Atoms]:
    """Frames of a molecule around its minimum, which carry energies and forces."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        frame = Atoms(
            molecule.numbers,
            molecule.positions + rng.normal(scale=scale, size=(len(molecule), 3)),
        )
        energy, forces = morse(frame.numbers, frame.positions)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frames.append(frame)
    return frames


def strained(crystal: Atoms, n_frames: int, scale: float, seed: int) -> list[Atoms]:
    """Cells of a crystal and two of its supercells, with results of the EMT of ASE."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n_frames):
        frame = crystal * [(1, 1, 1), (2, 1, 1), (2, 2, 1)][i % 3]
        strain = rng.normal(scale=scale, size=(3, 3))
        strain += strain.T + rng.uniform(-2, 2) * scale * np.eye(3)
        frame.set_cell(frame.cell @ (np.eye(3) + strain / 2), scale_atoms=True)
        frame.positions += rng.normal(scale=scale, size=frame.positions.shape)
        frame.calc = EMT()
        results = {
            "energy": frame.get_potential_energy(),
            "forces": frame.get_forces(),
            "stress": frame.get_stress(),
        }
        frame.calc = SinglePointCalculator(frame, **results)
        frames.append(frame)
    return frames
