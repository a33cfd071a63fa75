"""Energies and forces of molecules by this package.

    python skscatharm_worker.py input.npz output.npz

exchanges arrays with its caller by files, like the workers of the other packages.
``compare.py`` describes the arrays.
"""

import sys
import time

import numpy as np

from skscatharm import KernelRegressor, ScatteringPotential, __version__

N_TIMED = 50


def molecules(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Frames as one array of shape (n, n_atoms, 4)."""
    return np.dstack([np.broadcast_to(numbers, positions.shape[:2]), positions])


def main(source: str, target: str) -> None:
    """Train on the frames of a file and write predictions into another."""
    with np.load(source) as file:
        data = {name: file[name] for name in file.files}
    X = molecules(data["numbers"], data["positions"])
    test = molecules(data["numbers"], data["test_positions"])
    # Defaults. Parameters are chosen on drawn frames: the seed makes them reproducible.
    potential = ScatteringPotential(regressor=KernelRegressor(random_state=0))
    few = slice(20)  # compiles
    ScatteringPotential().fit(X[few], data["energies"][few], data["forces"][few])
    start = time.perf_counter()
    potential.fit(X, data["energies"], data["forces"])
    trained = time.perf_counter()
    regressor = potential.regressor_
    chosen = {
        name: getattr(regressor, f"{name}_")
        for name in ("length_scale", "alpha", "decay")
    }
    energies, forces = potential.predict(test), potential.predict_forces(test)
    begin = time.perf_counter()
    for frame in test[:N_TIMED, np.newaxis]:
        potential.evaluate(frame)
    step = (time.perf_counter() - begin) / len(test[:N_TIMED])
    np.savez(
        target,
        energies=energies,
        forces=forces,
        fit_seconds=trained - start,
        step_seconds=step,
        setting=f"{potential!r}, {chosen}",
        version=__version__,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
