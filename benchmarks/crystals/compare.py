"""Potentials of crystals: this package, GAP with SOAP, and ridge regression with SOAP.

    python benchmarks/crystals/compare.py TRAIN TEST [TRAIN TEST ...]

runs in an environment with the package, ASE and Matplotlib, and makes the environments
of the others by itself. Each pair of files has frames of one crystal that ASE reads,
such as extended XYZ, with energies (eV), forces (eV/Å), and in ``info`` a ``group`` and
a ``virial_stress``. The name of the crystal is that of TRAIN up to an underscore::

    python benchmarks/crystals/compare.py Li_train.xyz.gz Li_test.xyz.gz \\
        Mo_train.xyz.gz Mo_test.xyz.gz Si_train.xyz.gz Si_test.xyz.gz

The files are those of Zuo et al., J. Phys. Chem. A 124, 731 (2020). The first three
numbers of ``virial_stress`` are minus the stresses xx, yy and zz, in kbar. The order of
the other three differs from file to file, so they are not used: xy, yz, xz for silicon,
xy, xz, yz for molybdenum, and for lithium they contradict the energies. The script
prints how well the work of the stress agrees with differences of energies, between
cells of the group ``Elastic``, which are strained.

All methods learn from energies, and all but SOAP with ridge regression from forces. No
method sees stresses. Each uses one thread. Into ``doc/measured``, or the folder of
``--output``, go

``crystals.csv``
    mean absolute errors of energies and of components of forces, by group;
``crystals_elastic.csv``
    elastic constants, errors of the normal stresses of the strained cells, and times;
``crystals.svg``
    energy by uniaxial strain.

``--only gap`` chooses the methods to run; the tables keep the rows of the others.
Finished runs are kept in ``benchmarks/.results/crystals``, so that the same command
continues after an interruption; ``--fresh`` repeats those that it is asked for. The
picture needs the results of all methods there. The script prints the standard errors of
the mean errors of energies too: there are few test frames.

A worker, such as ``gap_worker.py``, reads two files of frames, with ``dft_energy`` in
``info`` and an array ``dft_forces``. It writes a file with ``energies`` (n,),
``forces`` (n_atoms of all frames, 3) and ``stresses`` (n, 6; eV/Å^3, in the order of
ASE) of the second, ``fit_seconds``, ``step_seconds``, the ``setting`` in words, and the
``version`` of its package.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent
sys.path.insert(0, str(BENCHMARKS / "peers"))

from environments import environment  # noqa: E402

RESULTS = BENCHMARKS / ".results" / "crystals"
MEASURED = BENCHMARKS.parent / "doc" / "measured"

METHODS = {
    "linear": "skscatharm, linear",
    "quadratic": "skscatharm, quadratic",
    "mixed": "skscatharm, mixed moments",
    "gap": "GAP, SOAP",
    "soap": "SOAP, ridge",
}
OWN = "linear", "quadratic", "mixed"  # models of this package
GROUPS = ("AIMD-NVT", "Elastic", "Surface", "Vacancy")
REQUIREMENTS = {
    "gap": BENCHMARKS / "forces" / "gap_requirements.txt",
    "soap": BENCHMARKS / "peers" / "dscribe_requirements.txt",
}
Array = NDArray[np.float64]
KBAR = 0.1 * GPa
VOIGT = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)  # the order of ASE
LARGEST_STRAIN = 0.06  # of the cells that elastic constants are fitted to
SETTINGS = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
}


class Frames(list[Atoms]):
    """Frames of one crystal, with energies, forces and stresses of the data."""

    @classmethod
    def read(cls, path: Path) -> "Frames":
        """Read a file, or explain why it cannot be used."""
        frames = cls()
        for i, atoms in enumerate(ase.io.read(path, index=":")):
            if not atoms.pbc.all():
                sys.exit(f"{path}: frame {i} is not periodic in three directions.")
            if atoms.calc is None or not {"energy", "forces"} <= {*atoms.calc.results}:
                sys.exit(f"{path}: frame {i} has no energy or no forces.")
            if not {"group", "virial_stress"} <= {*atoms.info}:
                sys.exit(f"{path}: frame {i} has no group or no virial_stress.")
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            # Names that ASE leaves alone when it writes and reads.
            frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            frame.info["dft_energy"] = energy
            frame.info["group"] = atoms.info["group"]
            frame.info["dft_virial"] = np.array(atoms.info["virial_stress"])
            frame.arrays["dft_forces"] = forces
            frames.append(frame)
        return frames

    def write(self, path: Path) -> None:
        ase.io.write(path, list(self), format="extxyz")

    def of_group(self, group: str) -> NDArray[np.intp]:
        return np.flatnonzero([atoms.info["group"] == group for atoms in self])

    @property
    def energies(self) -> Array:
        """Energies per atom (n,), in eV."""
        return np.array([atoms.info["dft_energy"] / len(atoms) for atoms in self])

    @property
    def forces(self) -> Array:
        """Forces on the atoms of all frames (n_atoms, 3), in eV/Å."""
        return np.concatenate([atoms.arrays["dft_forces"] for atoms in self])

    @property
    def virials(self) -> Array:
        """The six numbers of the data (n, 6), in eV/Å^3."""
        return KBAR * np.array([atoms.info["dft_virial"] for atoms in self])


class Strained(NamedTuple):
    """Cells of the perfect crystal with one strain.

    Attributes
    ----------
    indices : ndarray of int
        The frames.
    kinds : ndarray of int
        The component of the strain in the order of ASE: 0 to 2 along an axis, 3 to 5 in
        a plane; -1 without a strain.
    strains : ndarray
        The strain; in a plane, the change of the angle.
    volumes : ndarray
        In Å^3 an atom.
    """

    indices: NDArray[np.intp]
    kinds: NDArray[np.intp]
    strains: Array
    volumes: Array

    @classmethod
    def find(cls, frames: Frames) -> "Strained":
        """Find the largest cells of the group ``Elastic``, which were a cube."""
        indices = frames.of_group("Elastic")
        sizes = np.array([len(frames[i]) for i in indices])
        indices = indices[sizes == sizes.max()]
        length = np.median([frames[i].cell.lengths() for i in indices])
        found = []
        for i in indices:
            cell = frames[i].cell.array / length
            strain = sqrtm(cell @ cell.T) - np.eye(3)
            values = strain[VOIGT] * (1, 1, 1, 2, 2, 2)
            # A shear that keeps lengths or volumes strains the axes a little.
            sheared = abs(values[3:]).max() > 1e-4
            largest = (
                int(abs(values[3:]).argmax()) + 3
                if sheared
                else int(abs(values[:3]).argmax())
            )
            if abs(values[largest]) < 1e-4:
                largest = -1
            found.append((largest, 0 if largest < 0 else values[largest]))
        kinds, strains = np.array(found).T
        volumes = np.array([frames[i].get_volume() / len(frames[i]) for i in indices])
        return cls(indices, kinds.astype(int), strains, volumes)

    def mismatch(self, energies: Array, stress: Array, component: int) -> float:
        """Compare the work of a stress with differences of energies (eV an atom).

        Returns the sum of deviations, relative to that of the differences.
        """
        rows = np.flatnonzero((self.kinds == component) | (self.kinds < 0))
        rows = rows[np.argsort(self.strains[rows])]
        force = self.volumes[rows] * stress[rows]
        if component < 3:
            force = force / (1 + self.strains[rows])
        work = np.diff(self.strains[rows]) * (force[1:] + force[:-1]) / 2
        gain = np.diff(energies[rows])
        return float(abs(gain - work).sum() / abs(gain).sum())

    def constants(self, energies: Array, stresses: Array) -> list[float]:
        """C11 and C12 from normal stresses, C44 from energies, in GPa.

        They are the linear terms of cubic fits, and the quadratic term of a fit of even
        powers. Atoms do not relax.
        """
        axial = (self.kinds < 3) & (abs(self.strains) < LARGEST_STRAIN)
        along, across = [], []
        for kind, strain, stress in zip(
            self.kinds[axial], self.strains[axial], stresses[axial], strict=True
        ):
            axes = range(3) if kind < 0 else [kind]
            along += [(strain, stress[k]) for k in axes]
            across += [(strain, stress[m]) for k in axes for m in range(3) if m != k]
        c11, c12 = (
            np.polynomial.Polynomial.fit(*np.transpose(pairs), 3).convert().coef[1]
            for pairs in (along, across)
        )
        shear = (self.kinds >= 3) & (abs(self.strains) < LARGEST_STRAIN)
        shear |= self.kinds < 0
        powers = self.strains[shear, None] ** (0, 2, 4)
        fit = np.linalg.lstsq(powers, energies[shear])[0]
        c44 = 2 * fit[1] / np.median(self.volumes[self.kinds < 0])
        return [float(c) / GPa for c in (c11, c12, c44)]


def result_file(name: str, method: str, train: Frames, test: Frames) -> Path:
    """The file of a run. Other frames have another file."""
    digest = hashlib.sha256()
    for frames in (train, test):
        for atoms in frames:
            for array in (
                atoms.cell.array,
                atoms.positions,
                atoms.arrays["dft_forces"],
            ):
                digest.update(np.ascontiguousarray(array))
        digest.update(frames.energies)
    return RESULTS / f"{name}-{digest.hexdigest()[:8]}-{method}.npz"


def run(method: str, train: Frames, predict: Frames, target: Path) -> None:
    """Let a worker train on some frames and predict others."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    python, script = Path(sys.executable), [HERE / f"{method}_worker.py"]
    if method in OWN:
        script = [HERE / "skscatharm_worker.py", method, RESULTS / "store"]
    else:
        python = environment(REQUIREMENTS[method])
    with TemporaryDirectory(dir=RESULTS) as folder:
        files = [Path(folder) / name for name in ("train.xyz", "test.xyz", "out.npz")]
        train.write(files[0])
        predict.write(files[1])
        subprocess.run([python, *script, *files], check=True, env=os.environ | SETTINGS)
        files[2].replace(target)


def load(path: Path, train: Frames) -> dict[str, Any]:
    """Read predictions. Those of SOAP are made here, from its descriptors."""
    with np.load(path) as file:
        result = {key: file[key] for key in file.files}
    if "train" in result:
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-12, 3, 31)))
        start = time.perf_counter()
        model.fit(result["train"], train.energies)
        result["fit_seconds"] = time.perf_counter() - start
        result["per_atom"] = model.predict(result["test"])
    return result


class Comparison:
    """The results of all methods for one crystal."""

    def __init__(self, name: str, train: Frames, test: Frames) -> None:
        self.name, self.train, self.test = name, train, test
        strained = train.of_group("Elastic")
        self.predicted = Frames([*test, *(train[i] for i in strained)])
        self.strained = Strained.find(self.predicted)
        self.sizes = np.array([len(atoms) for atoms in self.predicted])
        self.results: dict[str, dict[str, Any]] = {}

    def add(self, method: str, run_it: bool, fresh: bool) -> None:
        """Run a method if need be, and read its results."""
        path = result_file(self.name, method, self.train, self.test)
        if run_it and (fresh or not path.exists()):
            print(f"{self.name}: {METHODS[method]}", flush=True)
            run(method, self.train, self.predicted, path)
        if not path.exists():
            return
        result = load(path, self.train)
        result.setdefault("per_atom", result.get("energies", 0) / self.sizes)
        self.results[method] = result

    def errors(self, method: str) -> list[list[str]]:
        """Rows of the table: energies, then forces, over all and by group."""
        result, n_test = self.results[method], len(self.test)
        label = f"{METHODS[method]} {result['version']}"
        energy = 1e3 * abs(result["per_atom"][:n_test] - self.test.energies)
        groups = np.array([atoms.info["group"] for atoms in self.test])
        chosen = [np.ones(n_test, bool), *(groups == group for group in GROUPS)]
        rows = [["energy, meV/atom", *(digits(energy[rows].mean()) for rows in chosen)]]
        if "forces" in result:
            owners = np.repeat(np.arange(n_test), self.sizes[:n_test])
            force = abs(result["forces"][: len(owners)] - self.test.forces)
            rows.append(
                [
                    "force, eV/Å",
                    *(digits(force[part[owners]].mean()) for part in chosen),
                ]
            )
        return [[self.name, label, *row] for row in rows]

    def uncertainty(self, method: str) -> str:
        """The mean absolute error of energies in words, with its standard error."""
        errors = 1e3 * abs(
            self.results[method]["per_atom"][: len(self.test)] - self.test.energies
        )
        deviation = errors.std(ddof=1) / np.sqrt(len(errors))
        return f"{errors.mean():.2f} +- {deviation:.2f} meV/atom"

    def elastic(self) -> list[list[str]]:
        """Rows of the table: the data, then the methods that predict stresses."""
        rows, data = self.strained.indices, self.predicted
        reference = -data.virials[rows, :3]
        constants = self.strained.constants(data.energies[rows], reference)
        table = [[self.name, "data", *map(digits, constants), "", "", ""]]
        for method, result in self.results.items():
            constants, error = [""] * 3, ""
            if "stresses" in result:
                stresses = result["stresses"][rows, :3]
                found = self.strained.constants(result["per_atom"][rows], stresses)
                constants = [digits(value) for value in found]
                error = digits(abs(stresses - reference).mean() / GPa)
            times = [digits(result[key]) for key in ("fit_seconds", "step_seconds")]
            table.append([self.name, METHODS[method], *constants, error, *times])
        return table

    def check(self) -> None:
        """Print whether the stresses of the data belong to its energies."""
        rows, data = self.strained.indices, self.predicted
        for k, component in enumerate(("xx", "yy", "zz", "yz", "xz", "xy")):
            entries = [k] if k < 3 else [3, 4, 5]
            found = {
                entry: self.strained.mismatch(
                    data.energies[rows], -data.virials[rows, entry], k
                )
                for entry in entries
            }
            best = min(found, key=found.get)
            print(
                f"{self.name}: work of the stress {component} is that of number "
                f"{best + 1} of virial_stress to {100 * found[best]:.1f} %"
            )

    def draw(self, panel: plt.Axes) -> None:
        """Draw energies by strain along the first axis and in the plane xy."""
        for kind, marker, name in ((0, "o", "along an axis"), (5, "s", "in a plane")):
            mask = (self.strained.kinds == kind) | (self.strained.kinds < 0)
            order = np.flatnonzero(mask)[np.argsort(self.strained.strains[mask])]
            rows, strains = self.strained.indices[order], self.strained.strains[order]
            zero = self.strained.indices[self.strained.kinds < 0][0]
            energies = self.predicted.energies
            panel.plot(
                strains,
                1e3 * (energies[rows] - energies[zero]),
                f"k{marker}",
                fillstyle="none",
                label=f"data, {name}",
            )
            for color, method in enumerate(METHODS):
                if "stresses" not in self.results.get(method, {}):
                    continue
                found = self.results[method]["per_atom"]
                panel.plot(
                    strains,
                    1e3 * (found[rows] - energies[zero]),
                    f"C{color}{'-' if kind == 0 else '--'}",
                    label=METHODS[method] if kind == 0 else None,
                )
        panel.set(title=self.name, xlabel="strain", ylabel="energy, meV/atom")
        panel.grid(alpha=0.3)


def digits(value: float) -> str:
    """Three digits; rounding errors are zero."""
    return f"{float(f'{value:.3g}'):g}" if value > 1e-9 else "0"


def row_order(row: list[str]) -> tuple[str, int]:
    """The crystal of a row and the place of its method, without the version."""
    names = ["data", *METHODS.values()]
    return row[0], next(i for i, name in enumerate(names) if row[1].startswith(name))


def write(path: Path, head: list[str], rows: list[list[str]]) -> None:
    """Write a table, with the rows of methods that ran elsewhere, and print it."""
    found = {row_order(row) for row in rows}
    if path.exists():
        with path.open(newline="") as file:
            _, *earlier = csv.reader(file)
        rows = rows + [row for row in earlier if row_order(row) not in found]
    rows = sorted(rows, key=row_order)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
    for row in [head, *rows]:
        print("  ".join(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, metavar="TRAIN TEST", nargs="+")
    parser.add_argument("--only", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--fresh", action="store_true", help="repeat finished runs")
    parser.add_argument("--output", type=Path, default=MEASURED)
    options = parser.parse_args()
    if len(options.files) % 2:
        parser.error("give a TEST after each TRAIN")

    crystals = [
        Comparison(train.name.split("_")[0], Frames.read(train), Frames.read(test))
        for train, test in zip(options.files[::2], options.files[1::2], strict=True)
    ]
    for crystal in crystals:
        crystal.check()
        for method in METHODS:
            crystal.add(method, method in options.only, options.fresh)

    options.output.mkdir(parents=True, exist_ok=True)
    write(
        options.output / "crystals.csv",
        ["Crystal", "Method", "Mean absolute error", "All", *GROUPS],
        [
            row
            for crystal in crystals
            for method in crystal.results
            for row in crystal.errors(method)
        ],
    )
    write(
        options.output / "crystals_elastic.csv",
        [
            "Crystal",
            "Method",
            *("C11 (GPa)", "C12 (GPa)", "C44 (GPa)"),
            "Normal stress MAE (GPa)",
            "Training (s)",
            "Step (s)",
        ],
        [row for crystal in crystals for row in crystal.elastic()],
    )
    for crystal in crystals:
        for method, result in crystal.results.items():
            print(
                f"{crystal.name}, {METHODS[method]}: {crystal.uncertainty(method)}, "
                f"{result['setting']}"
            )

    missing = {
        METHODS[method]
        for crystal in crystals
        for method in METHODS
        if method not in crystal.results
    }
    if missing:
        print(f"No picture, as there are no results of {', '.join(sorted(missing))}.")
        return
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, panels = plt.subplots(
        1,
        len(crystals),
        figsize=(3.4 * len(crystals), 3.8),
        layout="constrained",
        squeeze=False,
    )
    for crystal, panel in zip(crystals, panels.flat, strict=True):
        crystal.draw(panel)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(options.output / "crystals.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
