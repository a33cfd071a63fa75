"""Mixed moments, and sums over atoms, beside the default on QM9.

    python benchmarks/qm9/atoms.py FOLDER

runs in an environment with the package and its extra ``qm9``. FOLDER keeps coefficients
and finished fits, so that the same command continues after an interruption.
``--largest 2000`` trains on no more molecules, and ``--properties U0`` fits no others.

The protocol: QM9 is put in an order drawn with seed 20261126. A size n means the first
n of the first 10,000 molecules, followed by those from place 13,000. The 1,000 from
place 10,000 chose the defaults of `AtomicRegressor` and the mixed moments, together
with molecules to train on. The test is on the 1,000 from place 12,000, which no choice
has seen. All models see the same molecules:

molecule
    Quadratic forms of ``SETTINGS["soft"]``.
mixed
    Quadratic forms of ``SETTINGS["mixed"]``, the default.
atoms
    `AtomicRegressor` with its defaults; the only one with more than 10,000 molecules.
    With 100,000, it needs 17 GB of memory.

The table of errors goes into ``doc/measured/qm9_atoms.csv``; CPU times of coefficients
and fits go into ``doc/measured/qm9_atoms_times.csv``.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline

from skscatharm import (
    SETTINGS,
    AtomicRegressor,
    CoefficientStore,
    LocalScattering,
    MultilinearRegressor,
    SolidHarmonicScattering,
)
from skscatharm.datasets import fetch_qm9

MEASURED = Path(__file__).resolve().parents[2] / "doc" / "measured"
TRAIN, TEST = np.r_[0:10_000, 13_000:103_000], slice(12_000, 13_000)
SIZES = (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
LARGEST_FORM = 10_000  # molecules that models without atoms train on
PROPERTIES = ("U0", "Cv", "homo")
N_TIMED = 30


def make_models(memory: Any) -> dict[str, Any]:
    soft = SolidHarmonicScattering(**SETTINGS["soft"], memory=memory)
    mixed = SolidHarmonicScattering(**SETTINGS["mixed"], memory=memory)
    whole = SolidHarmonicScattering(max_order=1, memory=memory)
    local = LocalScattering(max_order=1, tol=1e-4, memory=memory)
    return {
        "molecule": make_pipeline(soft, MultilinearRegressor(random_state=0)),
        "mixed": make_pipeline(mixed, MultilinearRegressor(random_state=0)),
        "atoms": AtomicRegressor(local, whole, random_state=0, verbose=1),
    }


def evaluate(model: Any, train: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
    """Error, its standard error, and CPU time of a fit from stored coefficients."""
    start = process_time()
    model.fit(*train)
    seconds = process_time() - start
    errors = np.abs(model.predict(test[0]) - test[1])
    return {
        "error": errors.mean(),
        "standard error": errors.std() / np.sqrt(len(errors)),
        "seconds": seconds,
    }


def time_coefficients(molecules: Any) -> dict[str, float]:
    """CPU time of the coefficients of a molecule, in milliseconds."""
    models = make_models(None)
    parts = {
        "molecule": [models["molecule"][0]],
        "mixed": [models["mixed"][0]],
        "atoms": [models["atoms"].scattering, models["atoms"].local],
    }
    found = {}
    for name, transformers in parts.items():
        for transformer in transformers:
            transformer.fit_transform(molecules[:1])  # compiles
        start = process_time()
        for transformer in transformers:
            transformer.transform(molecules)
        found[name] = 1e3 * (process_time() - start) / len(molecules)
    return found


def write(name: str, header: list[str], rows: list[list[str]]) -> None:
    with (MEASURED / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument(
        "--properties",
        nargs="+",
        choices=PROPERTIES,
        default=PROPERTIES,
        help="to fit; the table has what FOLDER has of the others",
    )
    arguments = parser.parse_args()
    sizes = [n for n in SIZES if n <= arguments.largest]
    qm9 = fetch_qm9(target="all")
    order = np.random.RandomState(20261126).permutation(len(qm9.data))
    store = CoefficientStore(arguments.folder / "coefficients", ahead=0)
    models = make_models(store)
    path = arguments.folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    test = order[TEST]
    for n in sizes:
        train = order[TRAIN[:n]]
        for name in arguments.properties:
            y = qm9.target[:, qm9.target_names.index(name)]
            for kind, model in models.items():
                if kind != "atoms" and n > LARGEST_FORM:
                    continue
                key = f"{kind} {name} {n}"
                if key not in results:
                    results[key] = evaluate(
                        model, (qm9.data[train], y[train]), (qm9.data[test], y[test])
                    )
                    path.write_text(json.dumps(results))
                print(key, results[key], flush=True)
    header = ["Molecules"]
    for name in PROPERTIES:
        unit = qm9.target_units[qm9.target_names.index(name)]
        header += [f"{name}, {kind} ({unit})" for kind in models]
    rows = []
    for n in sizes:
        found = [
            results.get(f"{kind} {name} {n}") for name in PROPERTIES for kind in models
        ]
        rows.append(
            [str(n)]
            + [
                f"{f['error']:.3g} ± {f['standard error']:.1g}" if f else "–"
                for f in found
            ]
        )
    write("qm9_atoms.csv", header, rows)
    times = time_coefficients(qm9.data[test[:N_TIMED]])
    rows = [["Coefficients of a molecule (ms)", *(f"{t:.0f}" for t in times.values())]]
    for n in sizes:
        found = [results.get(f"{kind} U0 {n}") for kind in models]
        seconds = [f"{f['seconds']:.0f}" if f else "–" for f in found]
        rows.append([f"Fit of {n} molecules, U0 (s)", *seconds])
    write("qm9_atoms_times.csv", ["CPU time", *models], rows)


if __name__ == "__main__":
    main()
