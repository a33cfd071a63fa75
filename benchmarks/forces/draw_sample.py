"""Draw the sample of malonaldehyde that the package ships, with energies and forces.

    python benchmarks/forces/draw_sample.py

runs in an environment with the package and its extra ``forces``, and needs a quarter
of an hour. The frames come from molecular dynamics of one molecule with GFN2-xTB, at
500 K with a Langevin thermostat. Energies and forces are those of the positions as
stored, rounded to 1e-5 Å. Another version of tblite gives another trajectory. The
script prints the numbers in the description of the sample.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from tblite.ase import TBLite

import skscatharm.datasets

N_FRAMES = 300
TEMPERATURE = 500  # K
TIMESTEP = 0.5  # fs
FRICTION = 0.01  # 1/fs
EQUILIBRATION = 5000  # fs
INTERVAL = 500  # fs between frames
# Tolerance of the self-consistent charges, relative to tblite's default. The default
# is enough for the dynamics.
ACCURACY = 0.01

# The enol with the hydrogen bond, O=CH-CH=CH-OH. The optimization does the rest.
SYMBOLS = "OCCCOHHHH"
POSITIONS = [
    [-1.28, 1.05, 0],
    [-1.22, -0.19, 0],
    [0.0, -0.91, 0],
    [1.19, -0.25, 0],
    [1.29, 1.07, 0],
    [0.37, 1.42, 0],
    [-2.15, -0.78, 0],
    [0.0, -1.99, 0],
    [2.14, -0.78, 0],
]


def calculator(accuracy: float = 1) -> TBLite:
    return TBLite(method="GFN2-xTB", accuracy=accuracy, verbosity=0)


def barrier() -> float:
    """Energy of the structure with the hydrogen atom in the middle, above the minimum.

    The mirror that exchanges the two sides is kept by the optimization.
    """
    there = np.array(POSITIONS)
    mirrored = there[[4, 3, 2, 1, 0, 5, 8, 7, 6]] * [-1, 1, 1]
    energies = []
    for positions in (there, (there + mirrored) / 2):
        atoms = Atoms(SYMBOLS, positions, calculator=calculator(ACCURACY))
        BFGS(atoms, logfile=None).run(fmax=0.01)
        energies.append(atoms.get_potential_energy())
    return energies[1] - energies[0]


def changes_of_side(positions: np.ndarray) -> int:
    """How often the hydrogen atom is nearer to the other oxygen in the next frame."""
    to_oxygen = np.linalg.norm(positions[:, [0, 4]] - positions[:, [5]], axis=-1)
    return np.count_nonzero(np.diff(to_oxygen.argmin(axis=1)))


def draw() -> dict[str, Any]:
    """Return the arrays of the file, as integers, which compress well."""
    rng = np.random.default_rng(0)
    atoms = Atoms(SYMBOLS, POSITIONS, calculator=calculator())
    BFGS(atoms, logfile=None).run(fmax=0.01)
    dynamics = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=TEMPERATURE,
        friction=FRICTION / units.fs,
        fixcm=False,  # the molecule diffuses: fixing it would disturb the temperature
        rng=rng,
    )
    dynamics.run(round(EQUILIBRATION / TIMESTEP))
    positions, energies, forces = [], [], []
    frame = Atoms(SYMBOLS, calculator=calculator(ACCURACY))
    for _ in range(N_FRAMES):
        dynamics.run(round(INTERVAL / TIMESTEP))
        centred = atoms.positions - atoms.positions.mean(axis=0)
        positions.append(np.rint(1e5 * centred).astype(np.int32))
        frame.positions = positions[-1] / 1e5
        energies.append(frame.get_potential_energy())
        forces.append(np.rint(1e6 * frame.get_forces()).astype(np.int32))
    return {
        "charges": atoms.numbers.astype(np.uint8),
        "positions": np.array(positions),
        "energies": np.array(energies),
        "forces": np.array(forces),
    }


if __name__ == "__main__":
    data = Path(skscatharm.datasets.__file__).parent / "data"
    print(f"barrier: {barrier():.2f} eV")
    arrays = draw()
    print(f"changes of side: {changes_of_side(arrays['positions'])}")
    np.savez_compressed(data / "malonaldehyde.npz", **arrays)
