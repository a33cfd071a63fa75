"""Channels that tell the elements of an alloy apart: errors of potentials.

    python benchmarks/crystals/alloys.py

runs in an environment with the package and ASE, on one thread, in about 20 minutes.

The crystals are strained and shaken cells of two and four atoms, fcc, with random
elements. Energies, forces and stresses are those of the effective medium theory of ASE.
It was not made for solids of nitrogen, and is a test function there. Potentials with
the default of ``ScatteringPotential``, and atoms of 0.6 Å, learn from 60 crystals. Into
``doc/measured``, or the folder of ``--output``, goes

``crystals_channels.csv``
    Mean absolute errors on 40 other crystals, and the time of the fit.

Other systems than ``--system`` keep their rows.
"""

import argparse
import csv
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import atomic_numbers
from ase.units import GPa

from skscatharm import (
    SETTINGS,
    STANDARD_CHANNELS,
    KernelRegressor,
    ScatteringPotential,
    SolidHarmonicScattering,
    element_channels,
)

MEASURED = Path(__file__).resolve().parents[2] / "doc" / "measured"

SYSTEMS = ("Al", "Al N", "Cu Au", "Cu Pd Au", "Cu Pd Ag Au")
N_TRAIN, N_TEST = 60, 40
COLUMNS = (
    "elements",
    "channels",
    "coefficients",
    "energy, meV/atom",
    "force, meV/Å",
    "stress, GPa",
    "fit, s",
)


def draw_crystals(elements: list[int], n: int, seed: int) -> list[Atoms]:
    """Draw cells with energies, forces and stresses."""
    rng = np.random.default_rng(seed)
    crystals = []
    for i in range(n):
        atoms = (
            bulk("Cu", a=3.8, cubic=True) if i % 2 else bulk("Cu", a=3.8) * (2, 1, 1)
        )
        atoms.numbers = rng.choice(elements, len(atoms))
        strain = rng.uniform(-0.05, 0.05) * np.eye(3) + rng.normal(size=(3, 3)) * 0.02
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.08
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        crystals.append(atoms)
    return crystals


def choices(elements: list[int]) -> dict[str, Any]:
    """Name channels for some elements."""
    found: dict[str, Any] = {
        "element_channels": element_channels(elements, standard=False)
    }
    if all(Z in STANDARD_CHANNELS["valence"] for Z in elements):
        found["nuclear, valence, bonding"] = ("nuclear", "valence", "bonding")
    if len(elements) > 1:
        found["nuclear"] = ("nuclear",)
        found["each element alone"] = {
            str(own): dict.fromkeys(elements, 0.0) | {own: 4.0} for own in elements
        }
    return found


def measure(elements: list[int], channels: Any) -> list[str]:
    """Fit a potential, and return the number of coefficients, errors and seconds."""
    train = draw_crystals(elements, N_TRAIN, seed=0)
    test = draw_crystals(elements, N_TEST, seed=1)
    setting = SETTINGS["potential"] | {"sigma": 0.6, "mixed_moments": True}
    scattering = SolidHarmonicScattering(**setting | {"channels": channels})
    potential = ScatteringPotential(scattering, KernelRegressor(random_state=0))
    start = time.perf_counter()
    potential.fit(train)
    seconds = time.perf_counter() - start
    found = potential.evaluate(test, stresses=True)
    energies = [
        (energy - atoms.get_potential_energy()) / len(atoms)
        for energy, atoms in zip(found.energies, test, strict=True)
    ]
    forces = [
        forces[: len(atoms)] - atoms.get_forces()
        for forces, atoms in zip(found.forces, test, strict=True)
    ]
    stresses = found.stresses - [atoms.get_stress() for atoms in test]
    return [
        str(len(potential.scattering_.get_feature_names_out())),
        f"{1000 * np.abs(energies).mean():.2f}",
        f"{1000 * np.abs(np.concatenate(forces)).mean():.1f}",
        f"{np.abs(stresses).mean() / GPa:.3f}",
        f"{seconds:.0f}",
    ]


def main() -> None:
    """Measure, and write the table after each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--system", choices=SYSTEMS, nargs="+", default=SYSTEMS)
    parser.add_argument("--output", type=Path, default=MEASURED)
    options = parser.parse_args()
    path = options.output / "crystals_channels.csv"
    rows: dict[str, list[list[str]]] = {}
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            for row in list(csv.reader(file))[1:]:
                rows.setdefault(row[0], []).append(row)
    for system in options.system:
        elements = [atomic_numbers[symbol] for symbol in system.split()]
        name = ", ".join(system.split())
        rows[name] = []
        for label, channels in choices(elements).items():
            rows[name].append([name, label, *measure(elements, channels)])
            print(*rows[name][-1], sep="; ", flush=True)
            with open(path, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([COLUMNS, *chain.from_iterable(rows.values())])


if __name__ == "__main__":
    main()
