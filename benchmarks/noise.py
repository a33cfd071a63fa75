"""The noise of the coefficients of QM9 molecules: by path, degree and exponent.

    python benchmarks/noise.py

runs in an environment with the package and Matplotlib, on one core but for the ridge
regressions. Noise is the relative error against the coefficients of the same softening
with the smallest tolerance, in double precision; molecules of the sample stand in
random orientations, and the medians over the molecules count. Into ``doc/measured`` go

``noise.csv``, ``noise.svg``
    the noise at the default tolerance, of the worst channel, as a table and a picture;
``tolerances.csv``
    noise, time, and the error of atomization energies predicted by ridge regression
    from the coefficients of the sample, in 5 folds, by softening and tolerance.

``--no-ridge`` leaves the predictions out, which take most of the time.
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

from skscatharm import SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample
from skscatharm.transform.paths import scattering_paths

MEASURED = Path(__file__).resolve().parents[1] / "doc" / "measured"

N_MOLECULES = 24
# Softening, tolerance, precision, and whether to predict.
CASES = (
    (0.0, 1e-3, "float32", True),
    (0.0, SolidHarmonicScattering().tol, "float32", True),
    (0.0, 1e-4, "float32", True),
    (0.0, 5e-5, "float32", False),
    (0.0, 2e-5, "float32", False),
    (0.0, 2e-5, "float64", False),
    (0.0, 1e-5, "float64", False),  # what is left says how exact the reference is
    (4.0, 2e-4, "float32", True),
    (4.0, 5e-5, "float32", True),
    (4.0, 1e-5, "float32", True),
    (4.0, 3e-6, "float32", False),
    (4.0, 1e-6, "float64", False),
)
REPEATS = 3  # of which the fastest counts
EXACT = {0.0: 4e-6, 4.0: 1e-7}  # tolerances of the references, by softening


def turned(molecules: np.ndarray) -> np.ndarray:
    """The molecules in random orientations."""
    rotations = Rotation.random(len(molecules), rng=0).as_matrix()
    positions = np.einsum("mij,mnj->mni", rotations, molecules[..., 1:])
    return np.concatenate([molecules[..., :1], positions], axis=2)


def by_path(errors: np.ndarray) -> np.ndarray:
    """Bring errors (molecules, coefficients) to (molecules, paths, channels, Q)."""
    scattering = SolidHarmonicScattering()
    K, Q = len(scattering.channels), len(scattering.Q)
    paths = scattering_paths(scattering.J, scattering.L, scattering.max_order)
    # Columns of an order go by channel, path and exponent.
    sizes = np.bincount([len(path.scales) for path in paths]) * K * Q
    orders = np.split(errors, np.cumsum(sizes)[:-1], axis=1)
    return np.concatenate(
        [order.reshape(len(errors), K, -1, Q).swapaxes(1, 2) for order in orders],
        axis=1,
    )


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


def tabulate_paths(noise: np.ndarray) -> None:
    """Write the table of the noise (paths, Q) at the default tolerance."""
    scattering = SolidHarmonicScattering()
    paths = scattering_paths(scattering.J, scattering.L, scattering.max_order)
    rows = [["order", "scales", "degree", *(f"q = {q:g}" for q in scattering.Q)]]
    for (scales, degree), row in zip(paths, noise, strict=True):
        rows.append(
            [
                len(scales),
                ", ".join(map(str, scales)) or "-",
                degree if scales else "-",
                *(f"{error:.1e}" for error in row),
            ]
        )
    write_table("noise.csv", rows)


def draw(noise: np.ndarray) -> None:
    """Draw the noise (paths, Q): a row for each choice of scales."""
    scattering = SolidHarmonicScattering()
    degrees, Q = range(scattering.L + 1), scattering.Q
    # Order 0 has no degrees, and no modulus to make noise.
    paths = scattering_paths(scattering.J, scattering.L, scattering.max_order)[1:]
    rows = [scales for scales, degree in paths if degree == 0]
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
    X = turned(sample[:N_MOLECULES])
    expected = {
        softening: SolidHarmonicScattering(
            softening=softening, tol=tol, dtype="float64"
        ).transform(X)
        for softening, tol in EXACT.items()
    }
    default = SolidHarmonicScattering()
    low = np.array(["q=0.5" in name for name in default.get_feature_names_out()])

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
    for softening, tol, dtype, predicts in CASES:
        options = {"softening": softening, "tol": tol, "dtype": dtype}
        scattering = SolidHarmonicScattering(**options)
        seconds = []
        for _ in range(REPEATS):
            start = perf_counter()
            found = scattering.transform(X)
            seconds.append(perf_counter() - start)
        errors = np.abs(found / expected[softening] - 1)
        if scattering.get_params() == default.get_params():
            # The worst channel of each molecule, then the median molecule.
            noise = np.median(by_path(errors).max(axis=2), axis=0)
        predicted = (
            f"{ridge_error(sample, y, **options):.2f}" if ridge and predicts else "-"
        )
        rows.append(
            [
                f"{softening:g}",
                f"{tol:.0e}",
                dtype,
                *(
                    f"{np.median(error):.1e}"
                    for error in (
                        errors[:, ~low].max(axis=1),
                        errors[:, low].max(axis=1),
                        np.median(errors, axis=1),
                    )
                ),
                f"{1e3 * min(seconds) / len(X):.0f}",
                predicted,
            ]
        )
        print(*rows[-1], flush=True)
    write_table("tolerances.csv", rows)
    tabulate_paths(noise)
    draw(noise)


if __name__ == "__main__":
    main()
