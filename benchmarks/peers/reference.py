"""Reference coefficients from kymatio, for the tests: ``tests/data/kymatio.npz``.

    python benchmarks/peers/reference.py

makes a virtual environment for kymatio (which needs an older SciPy), runs itself
again inside it, and takes about an hour and a half on one core. Five molecules of
QM9 and the four standard channels go through two configurations; everything is in
the units of skscatharm (Å and elementary charges).

A coefficient from a grid carries quadrature noise. Each molecule is therefore
computed in several poses, whose mean is stored (``order0``, ``order1``,
``order2``) together with an estimate of its error (``noise0`` ...). Names ending
in ``_wide`` belong to the second configuration.
"""

import argparse
import ast
import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from environments import FOLDER, HERE, environment

if TYPE_CHECKING:
    import numpy as np

# Water, acetonitrile, trifluoroethylamine, N-tert-butylformamide, 2-fluoropyridine:
# every element of QM9, 3 to 18 atoms; a line, a plane, a ring and two tangles.
QM9_INDICES = (3, 10, 829, 1089, 4213)

SYMBOLS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
VALENCE = {1: 1, 6: 4, 7: 5, 8: 6, 9: 7}
BONDING = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}

# By suffix of the names in the file.
CONFIGURATIONS = {
    "": {"sigma": 0.22, "J": 2, "L": 3},
    "_wide": {"sigma": 0.35, "J": 1, "L": 4},
}

# Two different steps (in units of sigma) for each, so that a bias of the grid would
# show up as noise; finer where the box is small. At the Nyquist frequency of the
# coarsest, the narrowest wavelet times the density is below 1e-7 of its peak.
STEPS = {"": (0.65, 0.57), "_wide": (0.45, 0.4)}

# Between periodic images, in widths of the widest field: the overlap then changes
# no coefficient of q >= 1 by more than 1e-6, measured on one atom up to l = 4.
# (With 11.5 widths it is 1.5e-5.)
GAP = 13


def weights_by_channel() -> "dict[str, np.ndarray]":
    """Weight of an atom in each channel, indexed by nuclear charge."""
    import numpy as np

    nuclear, valence, bonding = np.zeros((3, 10))
    for z in SYMBOLS.values():
        nuclear[z], valence[z], bonding[z] = z, VALENCE[z], BONDING[z]
    return {
        "nuclear": nuclear,
        "valence": valence,
        "core": nuclear - valence,
        "bonding": bonding,
    }


def qm9_molecules() -> "np.ndarray":
    """The molecules (n, n_atoms, 4): nuclear charge, x, y, z; padded with zeros."""
    import numpy as np

    csv.field_size_limit(2**24)
    # The package is only a folder of tables to us: importing it would need pandas.
    folder = Path(find_spec("qm9pack").submodule_search_locations[0]) / "data"
    found = {}
    with open(folder / "qm9_part1.csv", newline="") as file:
        for row in csv.DictReader(file):
            index = int(row["Index"])
            if index in QM9_INDICES:
                charges = [SYMBOLS[s] for s in ast.literal_eval(row["Elements"])]
                positions = ast.literal_eval(row["XYZ_Ang"])
                found[index] = np.column_stack([charges, positions])
            if len(found) == len(QM9_INDICES):
                break
    molecules = np.zeros((len(found), max(map(len, found.values())), 4))
    for molecule, index in zip(molecules, QM9_INDICES, strict=True):
        molecule[: len(found[index])] = found[index]
    return molecules


def poses(
    molecule: "np.ndarray", step: float, rng: "np.random.Generator"
) -> "np.ndarray":
    """Two copies of a molecule, in one rotation, on complementary grids (step in Å).

    They differ by half a step along each axis. The mean over the two is what a
    body-centred grid would give, and cancels the strongest terms of the
    quadrature error; it does better than two independent poses.
    """
    import numpy as np
    from scipy.spatial.transform import Rotation

    atoms = molecule[molecule[:, 0] > 0]
    positions = atoms[:, 1:] - atoms[:, 1:].mean(0)
    # Near the principal axes (for a small box), but not along them: nodal planes
    # of the fields should not lie in planes of the grid.
    positions = positions @ np.linalg.svd(positions)[2].T
    positions = Rotation.from_rotvec(rng.normal(scale=0.4, size=3)).apply(positions)
    positions += rng.uniform(0, step, size=3)
    return np.stack(
        [np.column_stack([atoms[:, 0], positions + s * step]) for s in (0, 0.5)]
    )


def mean_and_noise(
    runs: "np.ndarray", rounding: float
) -> "tuple[np.ndarray, np.ndarray]":
    """Mean over runs (n, runs, K, ...), and an estimate of its error.

    A few runs alone say little about one coefficient. Relative noise depends on
    path, degree and power rather than on molecule and channel, so its root mean
    square over the latter two is the least that is believed of any of them.
    ``rounding`` is the relative error that all runs share.
    """
    import numpy as np

    mean = runs.mean(1)
    own = runs.std(1, ddof=1) / np.sqrt(runs.shape[1]) / mean
    pooled = np.sqrt((own**2).mean((0, 1)))
    return mean, mean * np.hypot(np.maximum(own, pooled), rounding)


def reference() -> "dict[str, np.ndarray]":
    """All that the file holds."""
    import numpy as np
    from kymatio_worker import scattering

    molecules = qm9_molecules()
    weights = weights_by_channel()
    Q = np.array([1.0, 2.0, 3.0])
    result = {
        "qm9_index": np.array(QM9_INDICES),
        "molecules": molecules,
        "columns": np.array(["Z", "x", "y", "z"]),
        "channels": np.array(list(weights)),
        "weights": np.array(list(weights.values())),
        "Q": Q,
    }
    # Weights of whole molecules; rows that pad have Z = 0, which weighs nothing.
    totals = result["weights"][:, molecules[..., 0].astype(int)].sum(-1).T

    for suffix, configuration in CONFIGURATIONS.items():
        rng = np.random.default_rng(0)
        sigma, J = configuration["sigma"], configuration["J"]
        # Widths add in squares: those of an atom and of the two widest wavelets.
        widest = (1 + 4**J + 4 ** (J - 1)) ** 0.5
        runs = {order: [] for order in ("order0", "order1", "order2")}
        for index, molecule in zip(QM9_INDICES, molecules, strict=True):
            done = []
            for step in STEPS[suffix]:
                done.append(
                    scattering(
                        poses(molecule, step * sigma, rng),
                        result["weights"],
                        **configuration,
                        Q=Q,
                        step=step,
                        gap=GAP * widest,
                    )
                )
                print(
                    f"QM9 {index}, sigma {sigma}, step {step}: grid {done[-1]['shape']}"
                    f", {done[-1]['seconds'].mean():.0f} s a pose, after"
                    f" {done[-1]['setup_seconds']:.0f} s for the wavelets",
                    flush=True,
                )
            for order, collected in runs.items():
                collected.append([d[order].mean(0) for d in done])

        # For l = 0 and q = 1 every field integrates to the weight of the molecule.
        # What deviates is due to kymatio's wavelets, rounded to float32: their
        # noise fills the empty box, and the modulus makes it positive.
        mean1 = np.mean(runs["order1"], axis=1)
        mean2 = np.mean(runs["order2"], axis=1)
        constants = np.concatenate([mean1, mean2], axis=2)[..., 0, 0]
        rounding = np.abs(constants / totals[..., None] - 1).max()
        print(f"sigma {sigma}: error from float32 wavelets {rounding:.1e}", flush=True)

        result |= {name + suffix: np.array(v) for name, v in configuration.items()}
        result["pairs" + suffix] = done[-1]["pairs"]
        for order, collected in runs.items():
            # Order 0 uses no wavelets.
            floor = 0.0 if order == "order0" else rounding
            mean, noise = mean_and_noise(np.array(collected), floor)
            result[order + suffix] = mean
            result[order.replace("order", "noise") + suffix] = noise
    return result | {"version": done[-1]["version"]}


def main() -> None:
    """Make the environment if needed, enter it, compute and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", type=Path, default=FOLDER / "kymatio")
    parser.add_argument(
        "--output", type=Path, default=HERE.parents[1] / "tests/data/kymatio.npz"
    )
    options = parser.parse_args()

    if Path(sys.prefix).resolve() != options.env.resolve():
        python = environment(HERE / "kymatio_requirements.txt", options.env)
        subprocess.run([python, __file__, *sys.argv[1:]], check=True)
        return

    import numpy as np

    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output, **reference())


if __name__ == "__main__":
    main()
