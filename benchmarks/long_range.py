"""Binding energies of distant molecules, by scattering and by SOAP.

    python benchmarks/long_range.py

runs in an environment with the package, ASE and Matplotlib, and makes the environments
of DScribe and tblite by itself. Everything runs on one thread, in ten minutes.

The samples are pairs of molecules, ions among them, whose closest atoms are 3 to 15 Å
apart. Orientations are random, and the molecules are rigid. The target is the energy of
the pair minus those of both molecules, by GFN2-xTB. Pairs of opposite charges, and
anions beside molecules with low empty orbitals, are left out: there, GFN2-xTB moves
electrons from one molecule to the other at any distance.

The features are the descriptor of the pair minus those of both molecules alone, which
vanish where the descriptor sees no interaction. The regressions are the same for all
descriptors, and each kind of pair (two ions, an ion and a molecule, two molecules) has
its own. They are trained on pairs up to 6 Å, or on pairs of all separations, and tested
on the same other pairs. Into ``doc/measured`` go

``long_range.csv``
    Mean absolute errors of ridge regression by kind of pair, descriptor and separation.
``long_range_settings.csv``
    Mean absolute errors beyond 6 Å with other settings, and of both regressions.
``long_range.svg``
    Errors of ridge regression by separation.

Energies and descriptors are kept in ``benchmarks/.results/long_range``, so that a run
that was stopped goes on; ``--fresh`` starts over.
"""

import argparse
import csv
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.spatial.transform import Rotation
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from skscatharm import CoefficientStore, MultilinearRegressor, SolidHarmonicScattering

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

from environments import environment  # noqa: E402

RESULTS = HERE / ".results" / "long_range"
MEASURED = HERE.parent / "doc" / "measured"

KCAL_MOL = 23.060548  # in one eV
# Names in ase.build, elements that are replaced, and charges. All are relaxed.
MOLECULES: dict[str, tuple[str, dict[int, int], int]] = {
    "H2O": ("H2O", {}, 0),
    "HF": ("HF", {}, 0),
    "NH3": ("NH3", {}, 0),
    "CH3OH": ("CH3OH", {}, 0),
    "NH4+": ("CH4", {6: 7}, 1),
    "H3O+": ("NH3", {7: 8}, 1),
    "Cl-": ("Cl", {}, -1),
}
NEAREST, LIMIT, FARTHEST = 3.0, 6.0, 15.0  # Å
N_PAIRS = 30  # of each two molecules, up to LIMIT, and as many beyond
TEST_FRACTION = 0.25
EDGES = np.array([3.0, 4.5, 6.0, 7.5, 9.0, 11.0, 13.0, 15.0])  # of the picture
RANGES = ((3, 6), (6, 9), (9, 15))  # of the table
KINDS = ("ion and ion", "ion and molecule", "molecule and molecule")
TRAININGS = {"up to 6 Å": LIMIT, "all": FARTHEST}
NOTHING = "no interaction"

SCATTERING = {"sigma": 0.4, "L": 2, "mixed_moments": False}
DESCRIPTORS: dict[str, dict[str, Any]] = {
    "scattering, J=5": SCATTERING | {"J": 5},
    "scattering, J=2": SCATTERING | {"J": 2},
    "SOAP, 5 Å": {"r_cut": 5.0, "n_max": 6, "l_max": 4, "sigma": 0.5},
    "SOAP, 9 Å": {"r_cut": 9.0, "n_max": 6, "l_max": 4, "sigma": 0.5},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "scattering, J=3": SCATTERING | {"J": 3},
    "scattering, J=4": SCATTERING | {"J": 4},
    "scattering, J=5, L=0": SCATTERING | {"J": 5, "L": 0},
    "scattering, J=5, Q=2": SCATTERING | {"J": 5, "Q": (2.0,)},
    "scattering, J=5, order 1": SCATTERING | {"J": 5, "max_order": 1},
    "SOAP, 15 Å": {"r_cut": 15.0, "n_max": 8, "l_max": 2, "sigma": 0.5},
}
REGRESSIONS = {
    "ridge": MultilinearRegressor(1),
    "quadratic": MultilinearRegressor(2, random_state=0),
}


def work(name: str, result: str, **arrays: Any) -> dict[str, np.ndarray]:
    """Let the worker of another package compute, unless its result is kept."""
    target = RESULTS / f"{result}.npz"
    if not target.exists():
        source, partial = RESULTS / "input.npz", RESULTS / "partial.npz"
        np.savez(source, **arrays)
        python = environment(HERE / "peers" / f"{name}_requirements.txt")
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run(
            [python, HERE / "peers" / f"{name}_worker.py", source, partial],
            check=True,
            env=os.environ | threads,
        )
        partial.rename(target)
    with np.load(target) as file:
        return {key: file[key] for key in file.files}


def pad(molecules: list[np.ndarray]) -> np.ndarray:
    """Stack tables of atoms, with rows of zeros."""
    n_atoms = max(map(len, molecules))
    return np.array([np.pad(m, [(0, n_atoms - len(m)), (0, 0)]) for m in molecules])


def relaxed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relax the molecules; also return their charges and energies (eV)."""
    tables, charges = [], []
    for name, replaced, charge in MOLECULES.values():
        atoms = molecule(name) if name != "Cl" else None
        table = (
            np.array([[17.0, 0, 0, 0]])
            if atoms is None
            else np.column_stack([atoms.numbers, atoms.positions])
        )
        table[:, 0] = [replaced.get(int(z), z) for z in table[:, 0]]
        tables.append(table)
        charges.append(charge)
    found = work(
        "tblite", "molecules", molecules=pad(tables), charges=charges, relax=True
    )
    return found["molecules"], np.array(charges), found["energies"]


def place(
    first: np.ndarray, second: np.ndarray, distance: float, rng: np.random.Generator
) -> np.ndarray:
    """Turn two molecules at random, and set the distance of their closest atoms."""
    turned = []
    for table in (first, second):
        rows = table[table[:, 0] > 0]
        centred = rows[:, 1:] - rows[:, 1:].mean(axis=0)
        positions = Rotation.random(rng=rng).apply(centred)
        turned.append(np.column_stack([rows[:, 0], positions]))
    direction = Rotation.random(rng=rng).apply([0.0, 0, 1])
    between = turned[1][None, :, 1:] - turned[0][:, None, 1:]
    along = between @ direction
    square = along**2 - (between**2).sum(axis=2) + distance**2
    # The longest of the shifts that bring two atoms to the distance.
    shift = (np.sqrt(square[square >= 0]) - along[square >= 0]).max()
    turned[1][:, 1:] += shift * direction
    return np.concatenate(turned)


def draw_pairs() -> dict[str, np.ndarray]:
    """Draw pairs, and compute their binding energies in kcal/mol."""
    molecules, charges, energies = relaxed()
    rng = np.random.default_rng(0)
    pairs, members, separations = [], [], []
    for i, j in itertools.combinations_with_replacement(range(len(molecules)), 2):
        if charges[i] * charges[j] < 0:
            continue
        for low, high in ((NEAREST, LIMIT), (LIMIT, FARTHEST)):
            for distance in rng.uniform(low, high, N_PAIRS):
                pairs.append(place(molecules[i], molecules[j], distance, rng))
                members.append((i, j))
                separations.append(distance)
    pairs, members = pad(pairs), np.array(members)
    total = charges[members].sum(axis=1)
    found = work("tblite", "pairs", molecules=pairs, charges=total, relax=False)
    binding = found["energies"] - energies[members].sum(axis=1)
    return {
        "pairs": pairs,
        "molecules": molecules,
        "members": members,
        "separations": np.array(separations),
        "kinds": 2 - (charges[members] != 0).sum(axis=1),
        "energies": KCAL_MOL * binding,
    }


def describe(name: str, parameters: dict[str, Any], data: dict) -> np.ndarray:
    """Compute the features of all pairs."""
    pairs, molecules = data["pairs"], data["molecules"]
    alone = np.zeros((len(molecules), *pairs.shape[1:]))
    alone[:, : molecules.shape[1]] = molecules
    both = np.concatenate([alone, pairs])
    if name.startswith("SOAP"):
        slug = f"soap_{parameters['r_cut']:g}"
        soap = work("dscribe", slug, molecules=both, zeta=np.zeros(0), **parameters)
        features = soap["features"]
    else:
        # The largest setting is the first: the others read its coefficients.
        store = CoefficientStore(RESULTS / "coefficients", ahead=0)
        scattering = SolidHarmonicScattering(**parameters, memory=store, verbose=1)
        features = scattering.fit_transform(both)
    single, found = np.split(features, [len(molecules)])
    return found - single[data["members"]].sum(axis=1)


def predict(features: np.ndarray, data: dict, regression: Any, limit: float) -> Any:
    """Absolute errors of the test pairs; NaN for the others."""
    test = np.random.default_rng(1).random(len(features)) < TEST_FRACTION
    errors = np.full(len(features), np.nan)
    for kind in range(len(KINDS)):
        own = data["kinds"] == kind
        train = own & ~test & (data["separations"] < limit)
        model = clone(regression).fit(features[train], data["energies"][train])
        prediction = model.predict(features[own & test])
        errors[own & test] = abs(prediction - data["energies"][own & test])
    return errors


def mean(errors: np.ndarray, data: dict, kind: int, low: float, high: float) -> float:
    """Mean error of the test pairs of a kind in a range of separations."""
    near = (data["separations"] >= low) & (data["separations"] < high)
    return float(np.nanmean(errors[near & (data["kinds"] == kind)]))


def text(error: float) -> str:
    """Write an error with two digits."""
    return f"{error:.2g}" if error < 100 else "> 100"


def write_table(name: str, rows: list[list[Any]]) -> None:
    """Write a table for the documentation."""
    with (MEASURED / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def draw(results: dict[tuple[str, str, str], np.ndarray], data: dict) -> None:
    """Draw errors by separation."""
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, panels = plt.subplots(
        2, 3, figsize=(10, 6.2), sharex=True, sharey="col", layout="constrained"
    )
    ranges = list(itertools.pairwise(EDGES))
    for training, row in zip(TRAININGS, panels, strict=True):
        for kind, (title, axes) in enumerate(zip(KINDS, row, strict=True)):
            for name in (NOTHING, *DESCRIPTORS):
                errors = results[name, "ridge", training]
                values = [mean(errors, data, kind, *ends) for ends in ranges]
                style = "k--" if name == NOTHING else "o-"
                centres = [sum(ends) / 2 for ends in ranges]
                axes.plot(centres, values, style, label=name, markersize=3)
            axes.axvline(LIMIT, color="0.8", linewidth=1, zorder=0)
            axes.set(yscale="log", title=f"{title}\ntrained: {training}")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in panels[1]:
        axes.set_xlabel("separation (Å)")
    for axes in panels[:, 0]:
        axes.set_ylabel("mean absolute error (kcal/mol)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(MEASURED / "long_range.svg", metadata={"Date": None})


def main() -> None:
    """Compute everything, and write tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="keep no earlier results")
    if parser.parse_args().fresh:
        shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    results: dict[tuple[str, str, str], np.ndarray] = {}
    with threadpool_limits(1):
        data = draw_pairs()
        for name, parameters in (DESCRIPTORS | SETTINGS).items():
            features = describe(name, parameters, data)
            for kind, regression in REGRESSIONS.items():
                for training, limit in TRAININGS.items():
                    results[name, kind, training] = predict(
                        features, data, regression, limit
                    )
            print(name, f"{features.shape[1]} features", flush=True)
    tested = np.isfinite(next(iter(results.values())))
    for training in TRAININGS:
        size = np.where(tested, abs(data["energies"]), np.nan)
        results[NOTHING, "ridge", training] = size

    rows = [["Pairs", "Descriptor"]]
    rows[0] += [f"{low} to {high} Å, {t}" for t in TRAININGS for low, high in RANGES]
    for number, title in enumerate(KINDS):
        for name in (NOTHING, *DESCRIPTORS):
            errors = [results[name, "ridge", training] for training in TRAININGS]
            rows.append([title, name])
            rows[-1] += [
                text(mean(e, data, number, *ends)) for e in errors for ends in RANGES
            ]
    write_table("long_range.csv", rows)

    rows = [["Descriptor", "Regression"]]
    rows[0] += [f"{title}, {training}" for title in KINDS for training in TRAININGS]
    for name, kind in itertools.product((DESCRIPTORS | SETTINGS), REGRESSIONS):
        rows.append([name, kind])
        rows[-1] += [
            text(mean(results[name, kind, training], data, number, LIMIT, FARTHEST))
            for number in range(len(KINDS))
            for training in TRAININGS
        ]
    write_table("long_range_settings.csv", rows)
    draw(results, data)


if __name__ == "__main__":
    main()
