"""Energies and forces of molecules by sGDML.

    python sgdml_worker.py input.npz output.npz

runs in an environment with sgdml (see ``sgdml_requirements.txt``) and exchanges arrays
with its caller by files, on one core. ``compare.py`` describes the arrays.

The settings are those of the package's command line: symmetries from the training
frames, a regularization of 1e-10, and widths sigma of 10, 20, 30 ... until the
validation error rises. A fifth of the training frames validates the widths; the final
model has all training frames and the best width.

sGDML solves its linear system in a copy of the kernel matrix. Here the factorization
overwrites the matrix, with the same result in a third of the memory: 6 GB for 1,000
frames of 9 atoms.
"""

import sys
import time
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sgdml import __version__
from sgdml.predict import GDMLPredict
from sgdml.solvers.analytic import Analytic
from sgdml.train import GDMLTrain
from sgdml.utils.io import dataset_md5

WIDTHS = range(10, 100, 10)  # the default of `sgdml create`
N_TIMED = 50


def solve(
    self: Analytic,
    task: dict[str, Any],
    R_desc: np.ndarray,
    R_d_desc: np.ndarray,
    tril_perms_lin: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """Solve the linear system of `Analytic.solve` in place."""
    kernel = self.gdml_train._assemble_kernel_mat(
        R_desc, R_d_desc, tril_perms_lin, task["sig"], self.desc
    )
    np.negative(kernel, out=kernel)
    kernel[np.diag_indices_from(kernel)] += task["lam"]
    # The matrix is symmetric. Its transpose has the order that LAPACK overwrites.
    factor = cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    return -cho_solve(factor, y, check_finite=False)


Analytic.solve = solve


def dataset(
    numbers: np.ndarray, positions: np.ndarray, energies: np.ndarray, forces: np.ndarray
) -> dict[str, Any]:
    """Frames in the form of sGDML."""
    frames = {
        "type": "d",
        "name": np.array("frames"),
        "theory": np.array("unknown"),
        "z": numbers.astype(np.uint8),
        "R": positions,
        "E": energies,
        "F": forces,
    }
    return frames | {"md5": dataset_md5(frames)}


def predict(
    model: dict[str, Any], positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (n,) and forces (n, n_atoms, 3)."""
    predictor = GDMLPredict(model, max_processes=1)
    energies, forces = predictor.predict(positions.reshape(len(positions), -1))
    return energies, forces.reshape(positions.shape)


def main(source: str, target: str) -> None:
    """Train on the frames of a file and write predictions into another."""
    with np.load(source) as file:
        data = {name: file[name] for name in file.files}
    numbers, n_train = data["numbers"], len(data["energies"])
    frames = data["positions"], data["energies"], data["forces"]

    start = time.perf_counter()
    training = GDMLTrain(max_processes=1)
    order = np.random.default_rng(0).permutation(n_train)
    validate, fit = order[: n_train // 5], order[n_train // 5 :]
    tried, permutations = {}, None
    for width in WIDTHS:
        task = training.create_task(
            dataset(numbers, *(array[fit] for array in frames)),
            len(fit),
            dataset(numbers, *(array[validate] for array in frames)),
            len(validate),
            sig=width,
            perms=permutations,
        )
        permutations = task["perms"]
        model = training.train(task)
        _, forces = predict(model, data["positions"][validate])
        tried[width] = np.sqrt(((forces - data["forces"][validate]) ** 2).mean())
        print(f"  sGDML, sigma {width}: {tried[width]:.4g} eV/Å", flush=True)
        if tried[width] > min(tried.values()):
            break
    best = min(tried, key=tried.get)
    whole = dataset(numbers, *frames)
    task = training.create_task(whole, n_train, whole, 0, sig=best, perms=permutations)
    model = training.train(task)
    trained = time.perf_counter()

    energies, forces = predict(model, data["test_positions"])
    predictor = GDMLPredict(model, max_processes=1)
    single = data["test_positions"][:N_TIMED].reshape(-1, 1, 3 * len(numbers))
    predictor.predict(single[0])
    begin = time.perf_counter()
    for positions in single:
        predictor.predict(positions)
    step = (time.perf_counter() - begin) / len(single)
    np.savez(
        target,
        energies=energies,
        forces=forces,
        fit_seconds=trained - start,
        step_seconds=step,
        setting=f"sigma {best}, {len(permutations)} permutations",
        version=__version__,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
