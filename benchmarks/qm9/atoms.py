"""Mixed moments, and sums and moments of atoms, beside the default on QM9.

    python benchmarks/qm9/atoms.py FOLDER

runs in an environment with the package and its extras ``qm9`` and ``plot``. FOLDER
keeps coefficients and finished fits, so that the same command continues after an
interruption. ``--largest 2000`` trains on no more molecules, and ``--properties U0``
fits no others.

The protocol: QM9 is put in an order drawn with seed 20261126. A size n means the first
n of the first 10,000 molecules, followed by those from place 13,000. The 1,000 from
place 10,000 chose the defaults of `AtomicRegressor` and the mixed moments, together
with molecules to train on. The test is on the 1,000 from place 12,000, which no choice
has seen, and each size and property is tested once. All models see the same molecules:

molecule
    Quadratic forms of ``SETTINGS["soft"]``.
mixed
    Quadratic forms of ``SETTINGS["mixed"]``, the default.
products
    Trained products of three factors, of first order and mixed moments: homo, lumo and
    gap in one fit.
atoms
    `AtomicRegressor` with its defaults, and the target "dipole" for mu and "extent" for
    r2. With 100,000 molecules, it needs 17 GB of memory.

The first two have at most 10,000 molecules to train on. The tables of errors go into
``doc/measured/qm9_atoms.csv`` and ``qm9_moments.csv``; CPU times of coefficients and
fits go into ``qm9_atoms_times.csv`` and ``qm9_moments_times.csv``. The learning curves
of four properties go into ``qm9_atoms.svg``, beside those that ``table.py`` measured
and published errors.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import matplotlib.pyplot as plt
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

HERE = Path(__file__).resolve().parent
MEASURED = HERE.parents[1] / "doc" / "measured"
TRAIN, TEST = np.r_[0:10_000, 13_000:103_000], slice(12_000, 13_000)
SIZES = (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
LARGEST_FORM = 10_000  # molecules that quadratic forms of molecules train on
FORMS = ("molecule", "mixed")
# The models of each property, in each table.
TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "qm9_atoms": {name: (*FORMS, "atoms") for name in ("U0", "Cv", "homo")},
    "qm9_moments": {
        "mu": ("atoms",),
        "r2": ("atoms",),
        "homo": ("products",),
        "lumo": ("products",),
        "gap": ("products",),
    },
}
JOINT = ("homo", "lumo", "gap")  # trained products share them
DRAWN = ("U0", "mu", "r2", "gap")
COLORS = {"molecule": "C0", "mixed": "C1", "products": "C3", "atoms": "C2"}
# Errors of U0 by number of molecules, read from a figure of Faber et al. (2018) by
# others; and the number of molecules of ``published.csv``.
FCHL18 = {10_000: 0.44, 20_000: 0.30}
SCHNET_SIZE = 110_000
TARGETS = {"mu": "dipole", "r2": "extent"}  # of atoms; "sum" for others
N_TIMED = 30


def make_models(memory: Any) -> dict[str, Any]:
    soft = SolidHarmonicScattering(**SETTINGS["soft"], memory=memory)
    mixed = SolidHarmonicScattering(**SETTINGS["mixed"], memory=memory)
    whole = SolidHarmonicScattering(max_order=1, memory=memory)
    local = LocalScattering(max_order=1, tol=1e-4, memory=memory)
    products = MultilinearRegressor(3, n_components=384, n_starts=8, random_state=0)
    return {
        "molecule": make_pipeline(soft, MultilinearRegressor(random_state=0)),
        "mixed": make_pipeline(mixed, MultilinearRegressor(random_state=0)),
        "products": make_pipeline(whole, products),
        "atoms": AtomicRegressor(local, whole, random_state=0, verbose=1),
    }


def evaluate(
    model: Any, train: Sequence[Any], test: Sequence[Any]
) -> list[dict[str, float]]:
    """Errors of each target, standard errors, and CPU time of the fit."""
    start = process_time()
    model.fit(*train)
    seconds = process_time() - start
    errors = np.abs(model.predict(test[0]) - test[1]).reshape(len(test[1]), -1)
    return [
        {
            "error": of_target.mean(),
            "standard error": of_target.std() / np.sqrt(len(of_target)),
            "seconds": seconds,
        }
        for of_target in errors.T
    ]


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
        choices=sorted({name for table in TABLES.values() for name in table}),
        help="to fit; the tables have what FOLDER has of the others",
    )
    parser.add_argument("--models", nargs="+", choices=list(make_models(None)))
    arguments = parser.parse_args()
    sizes = [n for n in SIZES if n <= arguments.largest]
    qm9 = fetch_qm9(target="all")
    order = np.random.RandomState(20261126).permutation(len(qm9.data))
    store = CoefficientStore(arguments.folder / "coefficients", ahead=0)
    models = make_models(store)
    path = arguments.folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    test = order[TEST]
    wanted = [
        (n, name, kind)
        for n in sizes
        for table in TABLES.values()
        for name, kinds in table.items()
        for kind in kinds
        if kind not in FORMS or n <= LARGEST_FORM
        if arguments.properties is None or name in arguments.properties
        if arguments.models is None or kind in arguments.models
    ]
    for n, name, kind in wanted:
        key = f"{kind} {name} {n}"
        if key not in results:
            train, model = order[TRAIN[:n]], models[kind]
            if kind == "atoms":
                model.set_params(target=TARGETS.get(name, "sum"))
            names = JOINT if kind == "products" else (name,)
            columns = [qm9.target_names.index(one) for one in names]
            y = np.squeeze(qm9.target[:, columns])
            found = evaluate(
                model, (qm9.data[train], y[train]), (qm9.data[test], y[test])
            )
            # Another process may have added some.
            results = json.loads(path.read_text()) if path.exists() else {}
            results |= {
                f"{kind} {one} {n}": of_target
                for one, of_target in zip(names, found, strict=True)
            }
            path.write_text(json.dumps(results))
        print(key, results[key], flush=True)

    units = dict(zip(qm9.target_names, qm9.target_units, strict=True))
    for table, of_table in TABLES.items():
        pairs = [(name, kind) for name, kinds in of_table.items() for kind in kinds]
        header = [f"{name}, {kind} ({units[name]})" for name, kind in pairs]
        rows = tabulate(results, sizes, pairs, format_error)
        write(f"{table}.csv", ["Molecules", *header], rows)
    fits = {"mu, atoms": "mu", "r2, atoms": "r2", "homo, lumo and gap, products": "gap"}
    pairs = [(name, fit.split(", ")[-1]) for fit, name in fits.items()]
    rows = tabulate(results, sizes, pairs, format_seconds)
    header = [f"{fit} (s)" for fit in fits]
    write("qm9_moments_times.csv", ["Molecules", *header], rows)
    draw(results, units)
    times = time_coefficients(qm9.data[test[:N_TIMED]])
    kinds = list(times)
    rows = tabulate(results, sizes, [("U0", kind) for kind in kinds], format_seconds)
    write(
        "qm9_atoms_times.csv",
        ["CPU time", *kinds],
        [
            ["Coefficients of a molecule (ms)", *(f"{t:.0f}" for t in times.values())],
            *([f"Fit of {row[0]} molecules, U0 (s)", *row[1:]] for row in rows),
        ],
    )


def draw(results: dict[str, dict[str, float]], units: dict[str, str]) -> None:
    """Draw learning curves beside earlier and published ones."""
    with (HERE / "published.csv").open(newline="") as file:
        published = {row["property"]: row for row in csv.DictReader(file)}
    with (MEASURED / "qm9_learning.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Regression"] == "trilinear"]
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, grid = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for panel, name in zip(grid.flat, DRAWN, strict=True):
        sizes = [int(row["Molecules"]) for row in rows]
        errors = [float(row[name]) for row in rows]
        label = "trilinear, soft coefficients"
        panel.loglog(sizes, errors, ".--", color="0.6", label=label)
        for kind, color in COLORS.items():
            sizes = [n for n in SIZES if f"{kind} {name} {n}" in results]
            errors = [results[f"{kind} {name} {n}"]["error"] for n in sizes]
            if sizes:
                panel.loglog(sizes, errors, "o-", color=color, label=kind)
        panel.plot(SCHNET_SIZE, float(published[name]["SchNet"]), "k*", label="SchNet")
        if name == "U0":
            panel.plot(*zip(*FCHL18.items(), strict=True), "kx", label="FCHL18")
        panel.set_xlabel("molecules to train on")
        panel.set_ylabel(f"mean absolute error of {name} / ({units[name]})")
        panel.grid(which="both", alpha=0.3)
    # Each label once.
    labelled = {
        label: handle
        for panel in grid.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled, loc="outside lower center", ncols=4)
    figure.savefig(MEASURED / "qm9_atoms.svg", metadata={"Date": None})


def tabulate(
    results: dict[str, dict[str, float]],
    sizes: list[int],
    columns: list[tuple[str, str]],
    show: Callable[[dict[str, float]], str],
) -> list[list[str]]:
    """Return a row for each size, with what has been measured of each column."""
    rows = []
    for n in sizes:
        found = [results.get(f"{kind} {name} {n}") for name, kind in columns]
        rows.append([str(n), *(show(f) if f else "–" for f in found)])
    return rows


def format_error(found: dict[str, float]) -> str:
    return f"{found['error']:.3g} ± {found['standard error']:.1g}"


def format_seconds(found: dict[str, float]) -> str:
    return f"{found['seconds']:.0f}"


if __name__ == "__main__":
    main()
