"""Energies of the planar molecules of QM9, in two and in three dimensions.

    python benchmarks/planar.py FOLDER

runs in an environment with the package and its extra ``qm9``. FOLDER keeps the
coefficients. The molecules are those of QM9 with a root mean square distance of the
atoms from a plane below 0.01 Å; 5 folds, shuffled with seed 0.
``MultilinearRegressor`` of degree 1, which is linear, and 2 predicts the energies of
atomization in kcal/mol. One molecule has most of the squared error, so that the table
has the error without the worst molecule too. The table goes into
``doc/measured/planar.csv``. ``--no-solid`` leaves out the three-dimensional
coefficients.
"""

import argparse
import csv
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_predict

from skscatharm import (
    SETTINGS,
    CoefficientStore,
    MultilinearRegressor,
    PlanarScattering,
    SolidHarmonicScattering,
    distances_from_plane,
)
from skscatharm.datasets import fetch_qm9

MEASURED = Path(__file__).resolve().parents[1] / "doc" / "measured"
FLATNESS = 0.01
FOLDS = KFold(5, shuffle=True, random_state=0)
N_TIMED = {PlanarScattering: 1000, SolidHarmonicScattering: 20}
REGRESSIONS = {"linear": 1, "quadratic": 2}
HEADER = [
    "Coefficients",
    "Time (ms)",
    "Regression",
    "MAE",
    "RMSE",
    "RMSE without the worst",
    "Worst",
]


def milliseconds(scattering: Any, molecules: np.ndarray) -> float:
    """Processor time for a molecule on one core."""
    scattering.fit_transform(molecules[:2])  # compiles
    start = process_time()
    scattering.fit_transform(molecules)
    return 1e3 * (process_time() - start) / len(molecules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--no-solid", action="store_true")
    arguments = parser.parse_args()
    qm9 = fetch_qm9()
    flat = distances_from_plane(qm9.data) < FLATNESS
    X, y = qm9.data[flat], qm9.target[flat]
    print(f"{len(X)} planar molecules, {np.std(y):.0f} kcal/mol of standard deviation")
    kinds = [PlanarScattering()]
    kinds += [SolidHarmonicScattering(**SETTINGS["soft"])] * (not arguments.no_solid)
    rows = []
    for scattering in kinds:
        kind = type(scattering)
        store = CoefficientStore(arguments.folder / "coefficients", ahead=0)
        filling = clone(scattering).set_params(memory=store, n_jobs=-1, verbose=1)
        F = filling.fit_transform(X)
        sample = np.random.default_rng(0).permutation(len(X))[: N_TIMED[kind]]
        time = milliseconds(scattering, X[sample])
        for name, degree in REGRESSIONS.items():
            model = MultilinearRegressor(degree, random_state=0)
            errors = np.abs(cross_val_predict(model, F, y, cv=FOLDS) - y)
            squares = np.sort(errors**2)
            rows.append(
                [
                    kind.__name__,
                    f"{time:.2g}",
                    name,
                    f"{errors.mean():.2f}",
                    f"{squares.mean() ** 0.5:.2f}",
                    f"{squares[:-1].mean() ** 0.5:.2f}",
                    f"{errors.max():.0f} ({qm9.smiles[flat][errors.argmax()]})",
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
    with (MEASURED / "planar.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main()
