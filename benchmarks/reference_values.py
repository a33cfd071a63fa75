"""Reference coefficients of QM9 molecules, which share no code with the package.

    python benchmarks/reference_values.py soft partial 20
    python benchmarks/reference_values.py published partial 4

computes the coefficients of the first molecules of the sample, for the settings of the
same name in ``skscatharm.SETTINGS``, on one core. It takes about a minute for a
molecule with softening, and half an hour without. Results of each molecule are kept in
the folder ``partial``, so that an interrupted run can go on, and are written to
``tests/data/qm9_soft.npz`` or ``qm9_published.npz``:

``values``
    the coefficients, in the order of the columns;
``errors``
    for each molecule that was computed twice, relative differences between two
    orientations or two steps: an estimate of the error.
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
# Softening, exponents, step in widths, share beyond the margin, and, for molecules that
# are computed twice, how many and the second step.
SETTINGS = {
    "soft": (4.0, Q, 0.23, 1e-9, 4, 0.17),
    "published": (0.0, Q[:4], 0.16, 1e-7, None, 0.16),
}


def coefficients(molecule, softening, exponents, step, share, rotation):
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
        values = dense(
            positions,
            weights,
            paths,
            degree,
            exponents,
            SIGMA,
            softening,
            0.4 if degree == 0 else step,
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
    """Compute what is not kept yet, and write the file."""
    name, partial, n_molecules = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    softening, exponents, step, share, n_twice, second_step = SETTINGS[name]
    molecules = load_qm9_sample().data[:n_molecules]
    partial.mkdir(exist_ok=True)

    def kept(i, step, turn):
        path = partial / f"{name}_{i}_{turn}.npy"
        if not path.exists():
            rotation = Rotation.random(2, rng=i)[turn]
            rotation = Rotation.from_rotvec(0.05 * (turn + 1) * rotation.as_rotvec())
            result = coefficients(
                molecules[i], softening, exponents, step, share, rotation
            )
            np.save(path, result)
            print(path, flush=True)
        return np.load(path)

    values = np.stack([kept(i, step, 0) for i in range(n_molecules)])
    n_twice = n_twice or n_molecules
    again = np.stack(
        [kept(i, second_step, 1) for i in range(min(n_twice, n_molecules))]
    )
    errors = np.abs(values[: len(again)] / again - 1)
    print("errors: median and largest", np.median(errors), errors.max())
    if step == second_step:
        values = (values + again) / 2
    else:
        values[: len(again)] = again
    path = ROOT / "tests" / "data" / f"qm9_{name}.npz"
    np.savez_compressed(path, values=values, errors=errors.astype("float32"))


if __name__ == "__main__":
    main()
