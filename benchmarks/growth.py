"""Time and memory from 5 to 3,000 atoms, at constant density and unchanged settings.

    python benchmarks/growth.py

runs in an environment with the package and Matplotlib, on Linux and one core. There are
straight alkanes, droplets of water, and the residues around the middle of a protein,
HIV-1 protease. The coefficients are those of ``SETTINGS["published"]``, and of the
default, ``SETTINGS["mixed"]``. Each molecule gets a process of its own, and ten minutes
at most. The memory is the largest that the process held, with Python and its libraries.
Into ``doc/measured`` go

``growth.csv``
    time and memory of each molecule;
``growth_exponents.csv``
    the power of the number of atoms that the time grows with, from 300 atoms on;
``growth.svg``
    the picture.

``python benchmarks/growth.py published water 300`` measures one point and prints it.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.transform import Rotation

from skscatharm import SETTINGS, SolidHarmonicScattering

HERE = Path(__file__).resolve().parent
MEASURED = HERE.parent / "doc" / "measured"

N_ATOMS = (5, 10, 30, 100, 300, 1000, 3000)
EXPONENT_FROM = 300
TIME_LIMIT = 600
ENOUGH = 2.0  # seconds, within which a molecule is measured again
NAMES = ("published", "mixed")
KINDS = ("alkane", "water", "protein")


def alkane(n_atoms: int) -> np.ndarray:
    """A straight alkane of about so many atoms."""
    n = max(1, round((n_atoms - 2) / 3))
    bond, bond_h = 1.53, 1.09
    half, half_h = np.deg2rad(112 / 2), np.deg2rad(107 / 2)
    i = np.arange(n)
    up = (-1.0) ** i  # which way a carbon of the zigzag points
    carbons = np.column_stack(
        [i * bond * np.sin(half), up * bond * np.cos(half) / 2, 0 * i]
    )
    away = bond_h * np.column_stack(
        [0 * i, up * np.cos(half_h), np.full(n, np.sin(half_h))]
    )
    # The last hydrogens stand where the chain would go on.
    along = bond_h * np.array([np.sin(half), np.cos(half), 0])
    ends = [
        carbons[0] + along * [-1, -1, 1],
        carbons[-1] + along * [1, -up[-1], 1],
    ]
    hydrogens = [carbons + away, carbons + away * [1, 1, -1], ends]
    return _molecule([(6, carbons), (1, np.concatenate(hydrogens))])


def water(n_atoms: int) -> np.ndarray:
    """A droplet of about so many atoms, at 1 g/cm³, the molecules turned at random.

    Oxygen sits near the points of a face-centred lattice, which keeps the molecules
    apart.
    """
    rng = np.random.default_rng(0)
    n = max(1, round(n_atoms / 3))
    edge = (4 * 29.9) ** (1 / 3)  # four molecules of 29.9 Å³
    reach = np.arange(-9, 9)
    cells = np.stack(np.meshgrid(reach, reach, reach), axis=-1).reshape(-1, 1, 3)
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    lattice = edge * (cells + corners).reshape(-1, 3)
    nearest = np.argsort(np.linalg.norm(lattice, axis=1), kind="stable")[:n]
    oxygen = lattice[nearest] + rng.uniform(-0.1, 0.1, (n, 3))
    half = np.deg2rad(104.5 / 2)
    bonds = 0.96 * np.array(
        [[np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]]
    )
    turned = np.einsum("nij,bj->nbi", Rotation.random(n, rng=rng).as_matrix(), bonds)
    hydrogens = (oxygen[:, np.newaxis] + turned).reshape(-1, 3)
    return _molecule([(8, oxygen), (1, hydrogens)])


def protein(n_atoms: int) -> np.ndarray:
    """The residues nearest to the middle of a protein, about so many atoms."""
    with np.load(HERE / "protein" / "hiv_protease.npz") as file:
        charges, positions, residues = (
            file[name] for name in ("charges", "positions", "residues")
        )
    counts = np.bincount(residues)
    middles = np.stack(
        [np.bincount(residues, column) / counts for column in positions.T], axis=1
    )
    order = np.argsort(np.linalg.norm(middles - positions.mean(axis=0), axis=1))
    sizes = np.cumsum(counts[order])
    taken = order[: 1 + np.argmin(np.abs(sizes - n_atoms))]
    kept = np.isin(residues, taken)
    return np.column_stack([charges, positions])[kept]


def _molecule(parts: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Columns Z, x, y, z of atoms given by element."""
    return np.concatenate(
        [np.column_stack([np.full(len(p), charge), p]) for charge, p in parts]
    )


def measure(name: str, kind: str, n_atoms: int) -> dict[str, Any]:
    """Time and peak memory of one molecule, in this process."""
    build: dict[str, Callable[[int], np.ndarray]] = {
        "alkane": alkane,
        "water": water,
        "protein": protein,
    }
    molecule = build[kind](n_atoms)
    scattering = SolidHarmonicScattering(**SETTINGS[name])
    scattering.transform([alkane(5)])  # what is computed once for all
    seconds: list[float] = []
    while not seconds or sum(seconds) < ENOUGH:
        start = perf_counter()
        scattering.transform(molecule[np.newaxis])
        seconds.append(perf_counter() - start)
    # Unlike getrusage, this does not count what the parent process held.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    return {
        "atoms": len(molecule),
        "seconds": float(np.median(seconds)),
        "mebibytes": peak / 1024,
    }


def point(name: str, kind: str, n_atoms: int) -> dict[str, Any]:
    """The same in a process of its own; or what went wrong."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, name, kind, str(n_atoms)],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return {"atoms": n_atoms, "failure": f"more than {TIME_LIMIT} s"}
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"ended by {done.returncode}").splitlines()[-1]
        return {"atoms": n_atoms, "failure": reason}
    return json.loads(done.stdout)


def exponent(points: list[dict[str, Any]]) -> str:
    """The slope of log time over log atoms, by least squares."""
    large = [
        (p["atoms"], p["seconds"])
        for p in points
        if p["atoms"] >= EXPONENT_FROM * 0.9 and "seconds" in p
    ]
    if len(large) < 2:
        return ""
    return f"{np.polyfit(*np.log(large).T, 1)[0]:.2f}"


def write_table(name: str, rows: list[list[Any]]) -> None:
    """Write a table for the documentation, and print it."""
    with open(MEASURED / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for row in rows:
        print(*row)


def draw(measured: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Draw time and memory over the number of atoms."""
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for (name, kind), points in measured.items():
        done = [p for p in points if "seconds" in p]
        atoms = [p["atoms"] for p in done]
        style = {
            "marker": "o",
            "markersize": 4,
            "color": f"C{KINDS.index(kind)}",
            "linestyle": ("-", "--")[NAMES.index(name)],
            "label": f"{kind}, {name}",
        }
        for panel, key in zip(axes, ("seconds", "mebibytes"), strict=True):
            panel.plot(atoms, [p[key] for p in done], **style)
    time, memory = axes
    time.set(xscale="log", yscale="log", xlabel="atoms", ylabel="s, one core")
    memory.set(xscale="log", xlabel="atoms", ylabel="peak memory, MiB")
    memory.set_ylim(bottom=0)
    time.legend()
    figure.savefig(MEASURED / "growth.svg", metadata={"Date": None})


def main() -> None:
    """Measure all points, and write the tables and the picture."""
    MEASURED.mkdir(exist_ok=True)
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rows = [["setting", "molecule", "atoms", "s", "ms an atom", "peak memory, MiB"]]
    for curve in product(NAMES, KINDS):
        measured[curve] = []
        for n_atoms in N_ATOMS:
            found = point(*curve, n_atoms)
            if measured[curve] and found["atoms"] == measured[curve][-1]["atoms"]:
                continue  # the smallest parts of the protein are one residue
            measured[curve].append(found)
            if "failure" in found:
                rows.append([*curve, found["atoms"], found["failure"], "", ""])
            else:
                seconds = found["seconds"]
                rows.append(
                    [
                        *curve,
                        found["atoms"],
                        f"{seconds:.3g}",
                        f"{1e3 * seconds / found['atoms']:.2g}",
                        f"{found['mebibytes']:.0f}",
                    ]
                )
            print(*rows[-1], flush=True)
    write_table("growth.csv", rows)
    exponents = [["setting", "molecule", "exponent", "peak memory, MiB"]]
    for curve, points in measured.items():
        peaks = [p["mebibytes"] for p in points if "mebibytes" in p]
        exponents.append([*curve, exponent(points), f"{max(peaks):.0f}"])
    write_table("growth_exponents.csv", exponents)
    draw(measured)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        name, kind, number = sys.argv[1:]
        print(json.dumps(measure(name, kind, int(number))))
    else:
        main()
