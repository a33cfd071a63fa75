"""Energies, forces and stresses of crystals by GAP, with SOAP.

    python gap_worker.py train.xyz test.xyz output.npz

runs in an environment with quippy-ase, which contains the program gap_fit, and
exchanges files with its caller. ``compare.py`` describes them.

The SOAP kernel has the parameters of the example for molybdenum by Zuo et al., the
source of the data (github.com/materialsvirtuallab/mlearn, notebooks/GAP_example), but
500 instead of 200 sparse points.
"""

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
import numpy as np
from quippy.potential import Potential

SOAP = (
    "cutoff=5.0 cutoff_transition_width=0.5 n_max=8 l_max=8 atom_sigma=0.5 zeta=4 "
    "n_sparse=500"
)
FIXED = "covariance_type=dot_product sparse_method=cur_points delta=1.0 f0=0.0"
# Errors of the energy, in eV an atom, and of the forces, in eV/Å. The other two are
# those of stresses and second derivatives, which are not learned.
NOISE = "{0.0005 0.05 0 0}"


def fit(train: Path, folder: Path) -> Potential:
    """Train a potential in a folder."""
    command = [
        str(Path(sys.executable).parent / "gap_fit"),
        f"at_file={train}",
        "gp_file=gap.xml",
        "energy_parameter_name=dft_energy",
        "force_parameter_name=dft_forces",
        "e0_method=average",
        "do_copy_at_file=F",
        "rnd_seed=1",
        f"default_sigma={NOISE}",
        f"gap={{soap {SOAP} {FIXED} add_species=F}}",
    ]
    log = folder / "gap_fit.log"
    with log.open("w") as file:
        done = subprocess.run(command, cwd=folder, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"gap_fit failed:\n{log.read_text()[-2000:]}")
    return Potential(param_filename=str(folder / "gap.xml"))


def main(train: str, test: str, target: str) -> None:
    """Train on the frames of a file and write predictions for those of another."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        potential = fit(Path(train).resolve(), Path(folder))
        trained = time.perf_counter() - start
        predicted, seconds = [], []
        for frame in ase.io.read(test, index=":"):
            begin = time.perf_counter()
            potential.calculate(frame, properties=["energy", "forces", "stress"])
            seconds.append(time.perf_counter() - begin)
            predicted.append(potential.results.copy())
    np.savez(
        target,
        energies=np.array([results["energy"] for results in predicted]),
        forces=np.concatenate([results["forces"] for results in predicted]),
        stresses=np.array([results["stress"] for results in predicted]),
        fit_seconds=trained,
        step_seconds=np.median(seconds),
        setting=f"{SOAP}, noise {NOISE}",
        version=version("quippy-ase"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
