"""Potentials learned from energies and forces: this package, sGDML and GAP with SOAP.

    python benchmarks/forces/compare.py NAME TRAIN TEST [TEST ...]

runs in an environment with the package, ASE and Matplotlib, and makes the environments
of the others by itself. TRAIN and TEST are files of frames with energies (eV) and
forces (eV/Å) that ASE reads, such as extended XYZ. All frames are of one molecule
without a cell, with its atoms in one order. For the sets with published figures::

    python benchmarks/forces/compare.py ethanol ethanol_train.xyz.gz ethanol_test.xyz.gz
    python benchmarks/forces/compare.py acetylacetone \\
        acetylacetone_train_300K.xyz.gz acetylacetone_test_300K.xyz.gz

The files are those of Batatia et al., arXiv:2205.06643; ethanol is from rMD17
(Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018, 2020).

Each method trains on the same frames, with one thread: the first ones of TRAIN in an
order drawn with seed 0. Into ``doc/measured``, or the folder of ``--output``, go

``forces_NAME.csv``
    errors of energies and of components of forces, the time to train, choices of
    parameters included, and the time for energy and forces of one frame, beside the
    published errors for NAME in ``published.csv``;
``forces_NAME.svg``
    errors by number of training frames.

``--sizes 100 300`` chooses the numbers of training frames, and ``--only sgdml`` the
methods to run; the table has all that were ever run on the same files. Finished runs
are kept in ``benchmarks/.results/forces``, so that the same command continues after an
interruption; ``--fresh`` repeats those that it is asked for.

A worker, such as ``sgdml_worker.py``, reads a file with ``numbers`` (n_atoms,),
``positions`` and ``forces`` (n, n_atoms, 3), ``energies`` (n,) and ``test_positions``
(n_test, n_atoms, 3). It writes a file with ``energies`` and ``forces`` of the test
frames, ``fit_seconds``, ``step_seconds``, the ``setting`` in words, and the
``version`` of its package.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

from environments import environment  # noqa: E402

RESULTS = HERE.parent / ".results" / "forces"
MEASURED = HERE.parents[1] / "doc" / "measured"

METHODS = {"skscatharm": "skscatharm", "sgdml": "sGDML", "gap": "GAP, SOAP"}
SIZES = (100, 300)  # and all frames
MEASURES = ("energy MAE", "energy RMSE", "force MAE", "force RMSE")
UNITS = {"energy": "meV", "force": "meV/Å"}
SETTINGS = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
}


class Frames(NamedTuple):
    """Frames of one molecule, with energies (eV) and forces (eV/Å)."""

    numbers: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    forces: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "Frames":
        """Read a file, or explain why it cannot be used."""
        frames = ase.io.read(path, index=":")
        numbers = frames[0].numbers
        for i, atoms in enumerate(frames):
            if not np.array_equal(atoms.numbers, numbers):
                sys.exit(f"{path}: frame {i} has other atoms than frame 0.")
            if atoms.pbc.any():
                sys.exit(f"{path}: frame {i} is periodic.")
            if atoms.calc is None or not {"energy", "forces"} <= {*atoms.calc.results}:
                sys.exit(f"{path}: frame {i} has no energy or no forces.")
        return cls(
            numbers,
            np.array([atoms.positions for atoms in frames]),
            np.array([atoms.get_potential_energy() for atoms in frames]),
            np.array([atoms.get_forces() for atoms in frames]),
        )

    def digest(self) -> "hashlib._Hash":
        return hashlib.sha256(b"".join(np.ascontiguousarray(a) for a in self))


def result_file(
    name: str, method: str, n: int, train: Frames, tests: dict[str, Frames]
) -> Path:
    """The file of a run. Other frames have another file."""
    digest = train.digest()
    for test in tests.values():
        digest.update(test.digest().digest())
    return RESULTS / f"{name}-{digest.hexdigest()[:8]}-{method}-{n}.npz"


def run(method: str, train: Frames, tests: dict[str, Frames], target: Path) -> None:
    """Let a worker train and predict."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    source = RESULTS / f"input-{os.getpid()}.npz"
    partial = RESULTS / f"partial-{os.getpid()}.npz"
    positions = np.concatenate([test.positions for test in tests.values()])
    np.savez(source, **train._asdict(), test_positions=positions)
    python = (
        Path(sys.executable)
        if method == "skscatharm"
        else environment(HERE / f"{method}_requirements.txt")
    )
    try:
        subprocess.run(
            [python, HERE / f"{method}_worker.py", source, partial],
            check=True,
            env=os.environ | SETTINGS,
        )
        partial.replace(target)
    finally:
        source.unlink()
        partial.unlink(missing_ok=True)


def errors(predicted: dict[str, np.ndarray], test: Frames) -> list[float]:
    """The errors in the order of MEASURES, in meV and meV/Å."""
    found = []
    for name in ("energies", "forces"):
        difference = 1e3 * (predicted[name] - getattr(test, name))
        found += [np.abs(difference).mean(), np.sqrt((difference**2).mean())]
    return [float(error) for error in found]


def evaluate(path: Path, tests: dict[str, Frames]) -> dict[str, Any]:
    """Errors by test file, times and version of a finished run."""
    with np.load(path) as file:
        result = {key: file[key] for key in file.files}
    ends = np.cumsum([len(test.energies) for test in tests.values()])[:-1]
    parts = zip(
        np.split(result["energies"], ends),
        np.split(result["forces"], ends),
        strict=True,
    )
    return {
        "errors": {
            test: errors({"energies": energies, "forces": forces}, tests[test])
            for test, (energies, forces) in zip(tests, parts, strict=True)
        },
        "seconds": float(result["fit_seconds"]),
        "milliseconds": 1e3 * float(result["step_seconds"]),
        "version": str(result["version"]),
        "setting": str(result["setting"]),
    }


def published(name: str) -> list[dict[str, str]]:
    """Published errors for the set of this name."""
    with (HERE / "published.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["name"] == name]


def digits(value: float) -> str:
    """Three digits."""
    return f"{float(f'{value:.3g}'):g}"


def write(path: Path, name: str, results: dict[tuple[str, int], Any]) -> None:
    """Write the table, and print it."""
    rows = [
        [
            "Method",
            "Training frames",
            "Test file",
            *(f"{measure} ({UNITS[measure.split()[0]]})" for measure in MEASURES),
            "Training (s)",
            "Step (ms)",
        ]
    ]
    for (method, n), result in results.items():
        rows += [
            [
                f"{METHODS[method]} {result['version']}",
                str(n),
                test,
                *map(digits, found),
                digits(result["seconds"]),
                digits(result["milliseconds"]),
            ]
            for test, found in result["errors"].items()
        ]
    rows += [
        [
            f"{row['method']}, published",
            row["frames"],
            "",
            *(row[measure] for measure in MEASURES),
            "",
            "",
        ]
        for row in published(name)
    ]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for row in rows:
        print("  ".join(row))
    for (method, n), result in results.items():
        print(f"{METHODS[method]}, {n} frames: {result['setting']}")


def draw(
    path: Path, name: str, tests: list[str], results: dict[tuple[str, int], Any]
) -> None:
    """Draw the learning curves."""
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, panels = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for k, (measure, panel) in enumerate(zip(MEASURES, panels.T.flat, strict=True)):
        for color, (method, label) in enumerate(METHODS.items()):
            sizes = sorted(n for other, n in results if other == method)
            for test, style in zip(tests, ("-", "--", ":", "-."), strict=False):
                if sizes:
                    panel.plot(
                        sizes,
                        [results[method, n]["errors"][test][k] for n in sizes],
                        f"C{color}o{style}",
                        label=label if len(tests) == 1 else f"{label}, {test}",
                    )
        marks: dict[tuple[int, float], list[str]] = {}
        for row in published(name):
            if row[measure]:
                place = int(row["frames"]), float(row[measure])
                marks.setdefault(place, []).append(row["method"])
        for place, names in marks.items():
            panel.plot(*place, "k_")
            panel.annotate(
                ", ".join(names),
                place,
                xytext=(-6, 0),
                textcoords="offset points",
                fontsize="x-small",
                horizontalalignment="right",
                verticalalignment="center",
            )
        counts = sorted({n for _, n in results} | {n for n, _ in marks})
        panel.set(xscale="log", yscale="log")
        panel.set_xticks(counts, [str(n) for n in counts])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("training frames")
        panel.set_ylabel(f"{measure}, {UNITS[measure.split()[0]]}")
        panel.grid(which="both", alpha=0.3)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(METHODS))
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="for files and published errors")
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("tests", type=Path, metavar="TEST", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--only", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--fresh", action="store_true", help="repeat finished runs")
    parser.add_argument("--output", type=Path, default=MEASURED)
    options = parser.parse_args()

    train = Frames.read(options.train)
    tests = {path.name.split(".")[0]: Frames.read(path) for path in options.tests}
    for path, test in zip(options.tests, tests.values(), strict=True):
        if not np.array_equal(test.numbers, train.numbers):
            sys.exit(f"{path}: the atoms are not those of {options.train}.")
    total = len(train.energies)
    sizes = options.sizes or [*(n for n in SIZES if n < total), total]
    if max(sizes) > total:
        sys.exit(f"{options.train} has {total} frames, fewer than {max(sizes)}.")
    order = np.random.default_rng(0).permutation(total)

    results = {}
    for method in METHODS:
        for n in sizes:
            path = result_file(options.name, method, n, train, tests)
            if method in options.only and (options.fresh or not path.exists()):
                print(f"{METHODS[method]}, {n} frames", flush=True)
                chosen = Frames(train.numbers, *(a[order[:n]] for a in train[1:]))
                run(method, chosen, tests, path)
            if path.exists():
                results[method, n] = evaluate(path, tests)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = f"forces_{options.name}"
    write(options.output / f"{stem}.csv", options.name, results)
    draw(options.output / f"{stem}.svg", options.name, list(tests), results)


if __name__ == "__main__":
    main()
