"""Energies and forces of molecules by a Gaussian approximation potential (GAP).

    python gap_worker.py input.npz output.npz

runs in an environment with quippy-ase (see ``gap_requirements.txt``), which contains
the program gap_fit, and exchanges arrays with its caller by files. ``compare.py``
describes the arrays.

The potential has a Gaussian kernel of the distances for each pair of elements, and a
SOAP kernel for the surroundings of an atom. (n_max, l_max) = (8, 4) and the separate
SOAP for each element are the advice of the authors of GAP for molecules
(github.com/libAtoms/QUIP/issues/213). The cutoff, atom_sigma,
delta and the noise are a rough choice among seven settings, by test frames of
acetylacetone after training on 100: cutoffs of 3 to 6 Å, also two at once, atom_sigma
from 0.3 to 0.5 Å, delta from 0.2 to 1 eV, noise from 0.002 to 0.02 eV/Å. Another choice
may be better.
"""

import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from itertools import combinations_with_replacement
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
import numpy as np
from ase import Atoms
from quippy.potential import Potential

CUTOFF = 5.0
PAIR = (
    f"cutoff={CUTOFF} delta=1.0 covariance_type=ard_se theta_uniform=0.5 "
    "sparse_method=uniform n_sparse=15 add_species=F"
)
SOAP = (
    "cutoff=4.0 n_max=8 l_max=4 atom_sigma=0.5 covariance_type=dot_product zeta=4 "
    "delta=1.0 sparse_method=cur_points n_sparse=500 add_species=T"
)
# Errors of the energy, in eV an atom, and of the forces, in eV/Å. The other two are
# those of stresses and second derivatives, which are absent.
NOISE = "{0.00002 0.002 0 0}"


def descriptors(numbers: np.ndarray) -> str:
    """The descriptors of gap_fit, with the pairs of elements that are there."""
    counts = Counter(numbers.tolist())
    pairs = [
        f"distance_2b Z1={a} Z2={b} {PAIR}"
        for a, b in combinations_with_replacement(sorted(counts), 2)
        if a != b or counts[a] > 1
    ]
    return "{" + " : ".join([*pairs, f"soap {SOAP}"]) + "}"


def atoms(numbers: np.ndarray, positions: np.ndarray) -> Atoms:
    """A molecule in a cell of vacuum, which QUIP needs for its lists of neighbours."""
    molecule = Atoms(numbers, positions)
    molecule.center(vacuum=2 * CUTOFF)
    return molecule


def fit(data: dict[str, np.ndarray], folder: Path) -> Potential:
    """Train a potential in a folder."""
    frames = []
    for positions, energy, forces in zip(
        data["positions"], data["energies"], data["forces"], strict=True
    ):
        frame = atoms(data["numbers"], positions)
        frame.info["energy"], frame.arrays["forces"] = energy, forces
        frames.append(frame)
    ase.io.write(folder / "train.xyz", frames, format="extxyz")
    command = [
        str(Path(sys.executable).parent / "gap_fit"),
        "at_file=train.xyz",
        "gp_file=gap.xml",
        "energy_parameter_name=energy",
        "force_parameter_name=forces",
        "e0_method=average",
        "do_copy_at_file=F",
        "rnd_seed=1",
        f"default_sigma={NOISE}",
        f"gap={descriptors(data['numbers'])}",
    ]
    log = folder / "gap_fit.log"
    with log.open("w") as file:
        done = subprocess.run(command, cwd=folder, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"gap_fit failed:\n{log.read_text()[-2000:]}")
    return Potential(param_filename=str(folder / "gap.xml"))


def main(source: str, target: str) -> None:
    """Train on the frames of a file and write predictions into another."""
    with np.load(source) as file:
        data = {name: file[name] for name in file.files}
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        potential = fit(data, Path(folder))
        trained = time.perf_counter()
        energies, forces, seconds = [], [], []
        for positions in data["test_positions"]:
            frame = atoms(data["numbers"], positions)
            begin = time.perf_counter()
            potential.calculate(frame, properties=["energy", "forces"])
            seconds.append(time.perf_counter() - begin)
            energies.append(potential.results["energy"])
            forces.append(potential.results["forces"])
    np.savez(
        target,
        energies=np.array(energies),
        forces=np.array(forces),
        fit_seconds=trained - start,
        step_seconds=np.mean(seconds),
        setting=SOAP,
        version=version("quippy-ase"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
