"""Errors of the coefficients of QM9 molecules, by path, degree, exponent and tolerance.

    python benchmarks/noise.py

runs in an environment with the package and Matplotlib, on one core except for the
ridge regressions. Errors are relative to the references in ``tests/data``, which share
no code with the package (see ``reference_values.py``). The molecules are turned to
random orientations. Values are medians over molecules. The script writes into
``doc/measured``:

``noise.csv``, ``noise.svg``
    errors of ``SETTINGS["soft"]``, of the worst channel, as a table and a picture;
``tolerances.csv``
    errors and time by softening and tolerance, and the error of atomization energies
    predicted by ridge regression from the coefficients of the sample, in 5 folds.

``--no-ridge`` leaves out the predictions, which take most of the time.
"""

import argparse
import csv
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from scipy.spatial.transform import Rotation
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SETTINGS, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample
from skscatharm.transform.columns import list_columns
from skscatharm.transform.paths import scattering_paths

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "doc" / "measured"

# Setting, tolerance, precision, and whether to predict.
CASES = (
    ("published", 1e-3, "float32", True),
    ("published", 2e-4, "float32", True),
    ("published", 1e-4, "float32", True),
    ("published", 1e-5, "float64", False),
    ("published", 1e-6, "float64", False),
    ("soft", 1e-3, "float32", True),
    ("soft", 1e-4, "float32", True),
    ("soft", 1e-5, "float32", True),
    ("soft", 1e-6, "float64", False),
)
REPEATS = 3  # of which the fastest is reported
SOFT = SolidHarmonicScattering(**SETTINGS["soft"], names="readable")
PATHS = scattering_paths(SOFT.J, SOFT.L, SOFT.max_order)


def turned(molecules: np.ndarray) -> np.ndarray:
    """The molecules in random orientations."""
    rotations = Rotation.random(len(molecules), rng=0).as_matrix()
    positions = np.einsum("mij,mnj->mni", rotations, molecules[..., 1:])
    return np.concatenate([molecules[..., :1], positions], axis=2)


def by_path(errors: np.ndarray) -> np.ndarray:
    """Bring errors (molecules, columns) to (molecules, paths, channels, exponents)."""
    shape = len(PATHS), len(SOFT.channels), len(SOFT.Q)
    path, channel, exponent = np.array(list_columns(PATHS, *shape[1:])).T
    arranged = np.empty((len(errors), *shape))
    arranged[:, path, channel, exponent] = errors
    return arranged


def ridge_error(molecules: np.ndarray, y: np.ndarray, **parameters: Any) -> float:
    """Error of ridge regression in 5 folds, with the penalty that is best on them."""
    X = SolidHarmonicScattering(n_jobs=-1, **parameters).transform(molecules)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": np.logspace(-9, 0, 10)},
        scoring="neg_mean_absolute_error",
        cv=KFold(5, shuffle=True, random_state=0),
    )
    return -search.fit(X, y).best_score_


def write_table(name: str, rows: list[list[Any]]) -> None:
    """Write a table for the documentation, and print it."""
    with open(MEASURED / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for row in rows:
        print(*(f"{cell!s:>14}" for cell in row))


def tabulate(noise: np.ndarray) -> None:
    """Write the table of the errors (paths, exponents) of ``SETTINGS["soft"]``."""
    rows = [["order", "scales", "degree", *(f"q = {q:g}" for q in SOFT.Q)]]
    for (scales, degree), row in zip(PATHS, noise, strict=True):
        rows.append(
            [
                len(scales),
                ", ".join(map(str, scales)),
                degree if scales else "",
                *(f"{error:.1e}" for error in row),
            ]
        )
    write_table("noise.csv", rows)


def draw(noise: np.ndarray) -> None:
    """Draw the errors (paths, exponents): a row for each choice of scales."""
    degrees, Q = range(SOFT.L + 1), SOFT.Q
    # Order 0 has no degrees.
    rows = [scales for scales, degree in PATHS[1:] if degree == 0]
    table = noise[1:].reshape(len(rows), -1)

    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, axes = plt.subplots(figsize=(8.5, 3.4), layout="constrained")
    picture = axes.imshow(
        table, norm=LogNorm(1e-7, 1e-3), cmap="viridis", aspect="auto"
    )
    for (i, j), error in np.ndenumerate(table):
        dark = error < 1e-5
        axes.text(
            j,
            i,
            f"{error:.0e}".replace("e-0", "e-"),
            color="white" if dark else "black",
            ha="center",
            va="center",
            fontsize=7,
        )
    axes.set_xticks(
        range(table.shape[1]), [f"{q:g}" for _, q in product(degrees, Q)], fontsize=8
    )
    axes.set_yticks(
        range(len(rows)), [f"j = {', '.join(map(str, scales))}" for scales in rows]
    )
    axes.set_xlabel("exponent q")
    over = axes.secondary_xaxis("top")
    over.set_xticks(
        [len(Q) * degree + (len(Q) - 1) / 2 for degree in degrees],
        [f"degree {degree}" for degree in degrees],
    )
    over.tick_params(length=0)
    for degree in degrees[1:]:
        axes.axvline(len(Q) * degree - 0.5, color="white", linewidth=2)
    figure.colorbar(picture, label="relative error")
    figure.savefig(MEASURED / "noise.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Measure, and write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-ridge", dest="ridge", action="store_false")
    ridge = parser.parse_args().ridge
    MEASURED.mkdir(exist_ok=True)
    sample, y = load_qm9_sample(return_X_y=True)

    rows = [
        [
            "softening",
            "tol",
            "dtype",
            "worst, q >= 1",
            "worst, q = 0.5",
            "median",
            "ms a molecule",
            "ridge, kcal/mol",
        ]
    ]
    for setting, tol, dtype, predicts in CASES:
        parameters = SETTINGS[setting] | {"tol": tol, "dtype": dtype}
        scattering = SolidHarmonicScattering(**parameters, names="readable")
        expected = np.load(ROOT / "tests" / "data" / f"qm9_{setting}.npz")["values"]
        X = turned(sample[: len(expected)])
        seconds = []
        for _ in range(REPEATS):
            start = perf_counter()
            found = scattering.transform(X)
            seconds.append(perf_counter() - start)
        errors = np.abs(found / expected - 1)
        names = scattering.get_feature_names_out()
        low = np.array(["q=0.5" in name for name in names])
        if scattering.get_params() == SOFT.get_params():
            # The worst channel of each molecule, then the median molecule.
            noise = np.median(by_path(errors).max(axis=2), axis=0)
        worst = (
            np.median(errors[:, ~low].max(axis=1)),
            np.median(errors[:, low].max(axis=1)),
            np.median(errors),
        )
        rows.append(
            [
                f"{scattering.softening:g}",
                f"{tol:.0e}",
                dtype,
                *(f"{error:.1e}" for error in worst),
                f"{1e3 * min(seconds) / len(X):.0f}",
                f"{ridge_error(sample, y, **parameters):.2f}"
                if ridge and predicts
                else "",
            ]
        )
        print(*rows[-1], flush=True)
    write_table("tolerances.csv", rows)
    tabulate(noise)
    draw(noise)


if __name__ == "__main__":
    main()
