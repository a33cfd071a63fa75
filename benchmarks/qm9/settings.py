"""Time and prediction errors with other coefficients.

    python benchmarks/qm9/settings.py FOLDER

runs in an environment with the package. FOLDER keeps the coefficients, so that the same
command continues after an interruption. For each setting, it measures the time for a
molecule on one core, and the errors of ridge regression and of a quadratic form for the
2,000 molecules of the sample, in 5 folds. The table goes into
``doc/measured/settings.csv``.
"""

import argparse
import csv
from pathlib import Path
from time import perf_counter
from typing import Any

from sklearn.model_selection import KFold, cross_val_score

from skscatharm import (
    SETTINGS,
    STANDARD_CHANNELS,
    CoefficientStore,
    MultilinearRegressor,
    SolidHarmonicScattering,
)
from skscatharm.datasets import load_qm9_sample

MEASURED = Path(__file__).resolve().parents[2] / "doc" / "measured"
FOLDS = KFold(5, shuffle=True, random_state=0)
N_TIMED = 20
PROPERTIES = ("U0", "Cv")

ELEMENTS = {
    name: {z: float(z == element) for z in (1, 6, 7, 8, 9)}
    for name, element in {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}.items()
}
SOFT, PUBLISHED = SETTINGS["soft"], SETTINGS["published"]
TABLE: dict[str, dict[str, Any]] = {
    "published": PUBLISHED,
    "published, tol=1e-4": PUBLISHED | {"tol": 1e-4},
    "published, L=4, tol=1e-4": PUBLISHED | {"L": 4, "tol": 1e-4},
    "published, J=3": PUBLISHED | {"J": 3},
    "published, a channel for each element": PUBLISHED
    | {"channels": dict(STANDARD_CHANNELS) | ELEMENTS},
    "soft": SOFT,
    "soft, tol=5e-5": SOFT | {"tol": 5e-5},
    "soft, softening=2": SOFT | {"softening": 2.0},
    "soft, softening=8": SOFT | {"softening": 8.0},
    "soft, Q of published": SOFT | {"Q": PUBLISHED["Q"]},
    "soft, L=2": SOFT | {"L": 2},
    "soft, L=4": SOFT | {"L": 4},
    "soft, J=1": SOFT | {"J": 1},
    "soft, J=3": SOFT | {"J": 3},
    "soft, sigma=0.3": SOFT | {"sigma": 0.3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    sample = load_qm9_sample(target="all")
    columns = [sample.target_names.index(name) for name in PROPERTIES]
    units = [sample.target_units[k] for k in columns]
    header = ["Setting", "Coefficients", "Time (ms)"] + [
        f"{name}, {kind} ({unit})"
        for name, unit in zip(PROPERTIES, units, strict=True)
        for kind in ("ridge", "quadratic")
    ]
    SolidHarmonicScattering().fit_transform(sample.data[:2])  # compiles
    rows = []
    for name, setting in TABLE.items():
        store = CoefficientStore(folder, ahead=0)
        scattering = SolidHarmonicScattering(
            **setting, memory=store, n_jobs=-1, verbose=1
        )
        X = scattering.fit_transform(sample.data)
        start = perf_counter()
        SolidHarmonicScattering(**setting).fit_transform(sample.data[:N_TIMED])
        milliseconds = 1e3 * (perf_counter() - start) / N_TIMED
        errors = [
            -cross_val_score(
                MultilinearRegressor(degree, random_state=0),
                X,
                sample.target[:, column],
                scoring="neg_mean_absolute_error",
                cv=FOLDS,
                n_jobs=-1,
            ).mean()
            for column in columns
            for degree in (1, 2)
        ]
        rows.append(
            [name, X.shape[1], f"{milliseconds:.0f}", *(f"{e:.3g}" for e in errors)]
        )
        print(*rows[-1], sep="  ", flush=True)
        with (MEASURED / "settings.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
