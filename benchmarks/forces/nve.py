"""Molecular dynamics at constant energy with a potential: does it keep its energy?

    python benchmarks/forces/nve.py NAME TRAIN

runs in an environment with the package, ASE and Matplotlib. TRAIN is a file of frames
of one molecule with energies (eV) and forces (eV/Å) that ASE reads, such as extended
XYZ. The script trains a potential on the first ``--size`` frames (1,000) in an order
drawn with seed 0, relaxes the first of them, draws velocities for 300 K on average,
and runs 10 ps of velocity Verlet with a time step of 0.5 fs (``--ps``, ``--step``). It
writes into ``doc/measured``, or the folder of ``--output``,

``forces_NAME_nve.csv``
    length of the run, mean temperature, drift and spread of the total energy, and time
    per step;
``forces_NAME_nve.svg``
    the total energy during the run.

The potential and each 100 steps are kept in ``benchmarks/.results/forces``: the same
command continues after an interruption, to the same trajectory; ``--fresh`` starts the
run anew. ``--potential FILE`` runs a potential that joblib saved, without training.
Set ``OPENBLAS_NUM_THREADS=1`` to compare times.
"""

import argparse
import csv
import time
from pathlib import Path

import ase.io
import joblib
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from skscatharm import ScatteringPotential
from skscatharm.ase import ScatteringCalculator

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / ".results" / "forces"

TEMPERATURE = 300  # K
SAVED_STEPS = 100


def trained(path: Path, frames: list[Atoms], folder: Path) -> ScatteringPotential:
    """Read the potential that was trained before, or train it."""
    if not path.exists():
        potential = ScatteringPotential().set_params(
            scattering__memory=folder, scattering__verbose=1, regressor__random_state=0
        )
        potential.fit(frames)
        potential.scattering_.set_params(memory=None, verbose=0)
        joblib.dump(potential, path)
    return joblib.load(path)


def warm(atoms: Atoms) -> None:
    """Relax a molecule, and give it velocities for the temperature.

    In a harmonic molecule, half of the kinetic energy at the minimum becomes potential
    energy. Without overall motion, 3 n - 6 velocities of n atoms are left.
    """
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=200)
    widths = np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE)[:, np.newaxis]
    rng = np.random.default_rng(0)
    atoms.set_momenta(rng.normal(size=atoms.positions.shape) * widths)
    Stationary(atoms)
    ZeroRotation(atoms)
    n_free = 3 * len(atoms) - 6
    kinetic = n_free / 2 * units.kB * 2 * TEMPERATURE
    atoms.set_momenta(
        atoms.get_momenta() * np.sqrt(kinetic / atoms.get_kinetic_energy())
    )


def run(atoms: Atoms, path: Path, n_steps: int, step: float) -> np.ndarray:
    """Run dynamics, or continue it; return potential and kinetic energy, and seconds.

    Rows are steps, and the first row is the start. Every so many steps, rows and state
    go to a file.
    """
    if path.exists():
        with np.load(path) as saved:
            rows = saved["rows"].tolist()
            atoms.set_positions(saved["positions"])
            atoms.set_momenta(saved["momenta"])
    else:
        warm(atoms)
        rows = [[atoms.get_potential_energy(), atoms.get_kinetic_energy(), 0.0]]
    dynamics = VelocityVerlet(atoms, timestep=step * units.fs)
    while len(rows) <= n_steps:
        for _ in range(min(SAVED_STEPS, n_steps + 1 - len(rows))):
            start = time.perf_counter()
            dynamics.run(1)
            energies = atoms.get_potential_energy(), atoms.get_kinetic_energy()
            rows.append([*energies, time.perf_counter() - start])
        unfinished = path.with_suffix(".part")
        with open(unfinished, "wb") as file:
            np.savez(
                file,
                rows=rows,
                positions=atoms.positions,
                momenta=atoms.get_momenta(),
            )
        unfinished.replace(path)
        total = np.array(rows)[:, :2].sum(axis=1)
        print(
            f"{(len(rows) - 1) * step / 1000:.2f} ps: energy "
            f"{1000 * (total[-1] - total[0]):+.3f} meV, "
            f"{np.median(np.array(rows)[1:, 2]):.3f} s a step",
            flush=True,
        )
    return np.array(rows[: n_steps + 1])


def main() -> None:
    """Train, run, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("train", type=Path)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--step", type=float, default=0.5, help="in fs")
    parser.add_argument("--potential", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "doc" / "measured")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()

    RESULTS.mkdir(parents=True, exist_ok=True)
    name = f"{options.name}_{options.size}"
    frames = ase.io.read(options.train, index=":")
    order = np.random.default_rng(0).permutation(len(frames))[: options.size]
    chosen = [frames[i] for i in order]
    if options.potential is None:
        saved = RESULTS / f"{name}.joblib"
        potential = trained(saved, chosen, RESULTS / "coefficients")
    else:
        potential = joblib.load(options.potential)
    atoms = Atoms(chosen[0].numbers, chosen[0].positions)
    atoms.calc = ScatteringCalculator(potential)
    path = RESULTS / f"{name}_nve_{options.step:g}.npz"
    if options.fresh:
        path.unlink(missing_ok=True)
    n_steps = round(1000 * options.ps / options.step)
    rows = run(atoms, path, n_steps, options.step)
    write(options.name, rows, options.step, len(atoms), options.output)


def write(name: str, rows: np.ndarray, step: float, n_atoms: int, output: Path) -> None:
    """Write the table and the picture of a run."""
    times = np.arange(len(rows)) * step / 1000
    # Per atom, in meV.
    total = 1000 * (rows[:, 0] + rows[:, 1]) / n_atoms
    drift, offset = np.polyfit(times, total, 1)
    spread = (total - drift * times - offset).std()
    temperature = rows[:, 1].mean() / ((3 * n_atoms - 6) / 2 * units.kB)
    table = {
        "ps": f"{times[-1]:g}",
        "step, fs": f"{step:g}",
        "mean temperature, K": f"{temperature:.0f}",
        "drift, meV/atom/ps": f"{drift:+.4f}",
        "spread, meV/atom": f"{spread:.4f}",
        "seconds per step": f"{np.median(rows[1:, 2]):.3f}",
    }
    output.mkdir(exist_ok=True)
    with open(output / f"forces_{name}_nve.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([table, table.values()])
    print(*(f"{name}: {value}" for name, value in table.items()), sep="\n")

    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    axes.plot(times, total - offset, color="tab:blue", linewidth=0.5)
    axes.plot(
        times,
        drift * times,
        color="black",
        label=f"drift {drift:+.4f} meV per atom and ps",
    )
    axes.set_xlabel("time, ps")
    axes.set_ylabel("total energy, meV/atom")
    axes.set_xlim(0, times[-1])
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(output / f"forces_{name}_nve.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
