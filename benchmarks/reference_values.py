"""Reference coefficients of QM9 molecules, which share no code with the package.

    python benchmarks/reference_values.py soft partial 20 4
    python benchmarks/reference_values.py published partial 5 1

computes the coefficients of the first 20 or 5 molecules of the sample, for the settings
of the same name in ``skscatharm.SETTINGS``, on one core. It takes about a minute for a
molecule. Results of each molecule are kept in the folder ``partial``, so that an
interrupted run can go on, and are written to ``tests/data/qm9_soft.npz`` or
``qm9_published.npz``:

``values``
    the coefficients, in the order of the columns;
``differences``
    for the first 4 or 1 molecules, relative differences to coefficients in another
    orientation with steps that are 1.2 times as large. They bound the errors.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from skscatharm.datasets import load_qm9_sample

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from references import dense, resolution  # noqa: E402

J, L, SIGMA = 2, 3, 0.22
Q = (0.5, 1.0, 2.0, 3.0, 4.0)
# Channels nuclear, valence, core and bonding.
WEIGHTS = {1: (1, 1, 0, 1), 6: (6, 4, 2, 4), 7: (7, 5, 2, 3), 8: (8, 6, 2, 2)}
WEIGHTS[9] = (9, 7, 2, 1)
PATHS = [(0,), (1,), (2,)], [(0, 1), (0, 2), (1, 2)]
# Softening, exponents, share beyond the margin, and steps in widths for degree 1 and
# for higher ones. Wide fields of many atoms add up, so softening does less for them.
# Without softening, degree 1 has the sharpest kinks.
SOFT = {(0,): 0.2, (1,): 0.12, (2,): 0.08, (0, 1): 0.2, (0, 2): 0.18, (1, 2): 0.16}
PLAIN = {(0,): 0.16, (1,): 0.12, (2,): 0.1, (0, 1): 0.2, (0, 2): 0.16, (1, 2): 0.14}
SHARP = {(0,): 0.16, (1,): 0.12, (2,): 0.07, (0, 1): 0.13, (0, 2): 0.1, (1, 2): 0.09}
SETTINGS = {
    "soft": (4.0, Q, 1e-9, SOFT, SOFT),
    "published": (0.0, Q[:4], 1e-7, SHARP, PLAIN),
}
STEP_0 = 0.25  # of degree 0


def coefficients(molecule, softening, exponents, share, sharp, steps, factor, rotation):
    """Coefficients of a molecule in the order of the columns."""
    molecule = molecule[molecule[:, 0] > 0]
    weights = np.array([WEIGHTS[int(Z)] for Z in molecule[:, 0]], float).T
    positions = molecule[:, 1:] - molecule[:, 1:].mean(axis=0)
    # A small box, in a generic orientation: turned a bit from the principal axes.
    positions = rotation.apply(positions @ np.linalg.svd(positions)[2].T)
    shift = (0.25, 0.4, 0.1)
    found = {}
    for degree in range(L + 1):
        _, margin = resolution(degree, min(exponents), softening, share=share)
        paths = [*PATHS[0], *PATHS[1]] + ([()] if degree == 0 else [])
        if degree == 0:
            step = factor * STEP_0
        else:
            chosen = sharp if degree == 1 else steps
            step = {path: factor * h for path, h in chosen.items()}
        values = dense(
            positions,
            weights,
            paths,
            degree,
            exponents,
            SIGMA,
            softening,
            step,
            margin,
            shift,
        )
        found |= {(path, degree): value for path, value in values.items()}
    orders = [
        [found[(), 0]],
        *(
            [found[path, degree] for path in order for degree in range(L + 1)]
            for order in PATHS
        ),
    ]
    # Columns go by order, channel, path, degree and exponent.
    return np.concatenate([np.stack(order, axis=1).ravel() for order in orders])


def main():
    """Compute the coefficients that are not kept yet, and write the file."""
    name, partial = sys.argv[1], Path(sys.argv[2])
    n_molecules, n_twice = map(int, sys.argv[3:])
    molecules = load_qm9_sample().data[:n_molecules]
    partial.mkdir(exist_ok=True)

    def kept(i, turn, factor):
        path = partial / f"{name}_{i}_{turn}.npy"
        if not path.exists():
            rotation = Rotation.random(2, rng=i)[turn]
            rotation = Rotation.from_rotvec(0.05 * (turn + 1) * rotation.as_rotvec())
            result = coefficients(molecules[i], *SETTINGS[name], factor, rotation)
            np.save(path, result)
            print(path, flush=True)
        return np.load(path)

    values = np.stack([kept(i, 0, 1.0) for i in range(n_molecules)])
    again = np.stack([kept(i, 1, 1.2) for i in range(n_twice)])
    differences = np.abs(again / values[:n_twice] - 1)
    print("differences: median and largest", np.median(differences), differences.max())
    np.savez_compressed(
        ROOT / "tests" / "data" / f"qm9_{name}.npz",
        values=values,
        differences=differences.astype("float32"),
    )


if __name__ == "__main__":
    main()
