r"""Derive the steps of the quadrature from the errors of coefficients by step.

    python benchmarks/tune.py

runs in an environment with the package and Matplotlib, on one core, for some minutes.
Molecules of the sample of QM9 stand in random orientations. Weights are divided by the
largest of their channel, so that `softening` is the softness of ``accuracy.py``. One
step varies; everything else suits a much smaller tolerance. An error is relative to
half of the finest step: the worst over channels, widths and exponents, and then the
median over molecules.

The script fits :math:`A e^{-c / h}`, and a power of h where moduli have kinks. It
prints the constants as in ``skscatharm/engine/accuracy.py``, each above the present
one. A comparison of the package with itself hides errors that all steps share. So the
script also compares small steps with ``tests/data/qm9_soft.npz``, values that share no
code with the package. It writes ``steps.csv`` and ``steps.svg`` into ``doc/measured``.

Steps far from the atoms are larger by a factor. ``--far`` measures errors by this
factor alone, relative to grids without it at a fiftieth of the tolerance, and writes
``far_steps.csv``.
``--quick`` measures two molecules and degree 1, and writes nothing.
"""

import argparse
import csv
from itertools import product
from math import inf
from pathlib import Path as File
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.transform import Rotation

from skscatharm import SETTINGS, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample
from skscatharm.engine import accuracy as rules
from skscatharm.engine import scattering_batch
from skscatharm.engine.arrays import Library
from skscatharm.engine.frame import Frame
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

ROOT = File(__file__).resolve().parents[1]
MEASURED = ROOT / "doc" / "measured"
SOFT = SETTINGS["soft"] | {"dtype": "float64"}
SCALES = {1: [(0,), (1,), (2,)], 2: [(0, 1), (1, 2)]}
STEPS = {1: (0.2, 0.24, 0.29, 0.35, 0.42, 0.5), 2: (0.28, 0.33, 0.39, 0.46, 0.54, 0.62)}
STEPS_0 = (0.36, 0.42, 0.48, 0.54, 0.6, 0.65)
FAR_SETTINGS, FAR_TOLS = ("mixed", "potential"), (1e-4, 1e-5)
FAR_STEPS = (1.0, 1.7, 2.4, 3.4, 4.8)
FAR_COLUMNS = "Setting", "tol", "Factor", "Order 1", "Mixed moments"
OTHER = 0.3  # step of the order that is not measured
REFERENCE = rules._SOFTNESS  # and other softness, for the power of it
SOFTNESS = (4 * REFERENCE, REFERENCE, REFERENCE / 4, REFERENCE / 16)


def at_steps(first, second):
    """Give the fields of orders 1 and 2 these steps, near the atoms and far."""

    def step(self, order, degree, crowding):
        return (first, second)[order - 1]

    return patch.multiple(rules.Accuracy, step=step, outer_step=step)


def worst_errors(structures, softness, order, degree, steps):
    """Errors (steps, molecules, widths), and crowding (molecules, widths)."""
    paths = tuple(Path(scales, degree) for scales in SCALES[order])
    sigma, tol = SOFT["sigma"], 1e-8 if softness or not degree else 1e-6
    engine = tol, softness, "float64", "separable"
    transform = Transform(paths, SOFT["Q"], sigma, *engine)
    weights = channel_weights(resolve_channels(SOFT["channels"]), structures)
    weights = [w / w.max(axis=1, keepdims=True) for w in weights]
    values = []
    for h in (min(steps) / 2, *steps):
        with at_steps(*((h, OTHER) if order == 1 else (OTHER, h))):
            cpu = Library("numpy", "cpu")
            values.append(scattering_batch(structures, weights, transform, cpu))
    widths = sigma * np.sqrt([1 + sum(4**j for j in p.scales) for p in paths])
    spacing = np.array([Frame(s.positions, s.charges).spacing for s in structures])
    errors = np.abs(np.array(values[1:]) / values[0] - 1).max(axis=(3, 4))
    return errors, spacing[:, np.newaxis] / widths


def measure(structures, degrees):
    """Find {(softness, order, degree, neighbours): (steps, errors)}, and print them."""
    cases = [(0.0, 1, 0), *((s, 1, d) for s in SOFTNESS for d in degrees[::2])]
    cases += [(REFERENCE, 1, d) for d in degrees[1::2]]
    cases += [(REFERENCE, 2, d) for d in degrees]
    cases += [(0.0, order, d) for order in (1, 2) for d in degrees]
    print("softness, order, degree, neighbours, {step: error}; at steps of the rules")
    result = {}
    for softness, order, degree in cases:
        steps = np.array(STEPS[order] if degree else STEPS_0)
        found, crowding = worst_errors(structures, softness, order, degree, steps)
        close = crowding < rules._CROWDED[order]
        groups = {"apart": ~close, "close": close}
        if degree == 0 or softness > 0:
            groups = {"all": np.ones_like(close)}
        for name, group in groups.items():
            worst = np.where(group, found, 0.0).max(axis=2)
            error = np.median(worst[:, group.any(axis=1)], axis=1)
            result[softness, order, degree, name] = steps, error
            seen = dict(zip(steps.tolist(), map("{:.1e}".format, error), strict=True))
            print(softness, order, degree, name, seen, end="; ")
            slope, intercept = line(name, steps, error)
            for tol in (1e-5, 1e-6) if name == "all" else (2e-4, 5e-5):
                crowded = 1e-6 if name == "close" else inf
                h = rules.Accuracy(tol, softness).step(order, degree, crowded)
                e = np.exp(intercept + slope * (1 / h if name == "all" else np.log(h)))
                above = ", ABOVE" if e > tol else ""
                print(f"tol {tol:g}: step {h:.3f}, error {e:.1e}{above}", end="; ")
            print(flush=True)
    return result


def line(name, steps, error):
    """Slope and intercept of the logarithm of the error over 1 / h or log h."""
    used = (error > 1e-8) & (error < 1e-3)
    x = 1 / steps if name == "all" else np.log(steps)
    return np.polyfit(x[used], np.log(error[used]), 1)


def fit(name, steps, error):
    """A and c; or the step at the reference tolerance, and the power of it."""
    slope, intercept = line(name, steps, error)
    if name == "all":
        return float(f"{np.exp(intercept):.2g}"), float(f"{-slope:.2g}")
    step = np.exp((np.log(rules._HARD_REFERENCE) - intercept) / slope)
    return float(f"{step:.2g}"), float(f"{1 / slope:.2g}")


def print_constants(measured, degrees):
    """Print the constants, each above the present one."""
    fits = {key: fit(key[3], *points) for key, points in measured.items()}

    def table(softness, name, part):
        return {o: [fits[softness, o, d, name][part] for d in degrees] for o in (1, 2)}

    powers = []  # of the softness, in the step for an error of 1e-6
    for degree in degrees[::2]:
        pairs = [fits[s, 1, degree, "all"] for s in SOFTNESS[1:]]
        steps = [c / np.log(A / 1e-6) for A, c in pairs]
        powers.append(np.polyfit(np.log(SOFTNESS[1:]), np.log(steps), 1)[0])
    for name, value in {
        "_DEGREE_0": fits[0.0, 1, 0, "all"],
        "_SOFT": table(REFERENCE, "all", slice(2)),
        "_SOFTNESS_POWER": np.round(powers, 2).tolist(),
        "_HARD": table(0.0, "apart", 0),
        "_HARD_CROWDED": table(0.0, "close", 0),
        "_HARD_POWER": table(0.0, "close", 1),
    }.items():
        print(f"{name} = {value}\n    now {getattr(rules, name)}")


def compare(molecules):
    """Print how far small steps are from values that share no code with the package."""
    expected = np.load(ROOT / "tests" / "data" / "qm9_soft.npz")["values"]
    with at_steps(0.2, 0.2):
        found = SolidHarmonicScattering(**SOFT | {"tol": 1e-8}).transform(molecules)
    difference = np.abs(found / expected[: len(found)] - 1)
    worst = np.median(difference.max(axis=1))
    print(f"from references: median {np.median(difference):.1e}, worst {worst:.1e}")


def measure_far(molecules):
    """Find the errors of order 1 and of mixed moments by the factor, and print them."""
    rows = []
    for name, tol, factor in product(FAR_SETTINGS, FAR_TOLS, (None, *FAR_STEPS)):
        options = SETTINGS[name] | {"max_order": 1, "mixed_moments": True}
        options |= {"tol": tol if factor else tol / 50, "dtype": "float64"}
        scattering = SolidHarmonicScattering(**options, names="readable")
        with patch.object(rules, "_FAR_STEP", factor or 1.0):
            values = scattering.fit_transform(molecules)
        if factor is None:
            exact = values
            continue
        errors = np.abs(values / exact - 1)
        names = scattering.get_feature_names_out()
        mixed = np.array([n.startswith("S1xS1") for n in names])
        largest = [errors[:, these].max(axis=1) for these in (~mixed, mixed)]
        found = [f"{np.median(e):.1e} to {e.max():.1e}" for e in largest]
        rows.append([name, f"{tol:g}", factor, *found])
        print(*rows[-1], sep=", ", flush=True)
    return rows


def draw(measured):
    """Draw the errors by order, with softening and without."""
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, axes = plt.subplots(1, 4, figsize=(9, 3), sharey=True, layout="constrained")
    for key in sorted(measured):
        softness, order, degree, name = key
        if degree and softness in (0.0, REFERENCE):
            panel = axes[2 * (softness == 0) + order - 1]
            style = "o--" if name == "apart" else "o-"
            panel.plot(
                *measured[key], style, color=f"C{degree}", markersize=3, label=degree
            )
            panel.set_title(f"order {order}, softness {softness:g}", fontsize=9)
            panel.set(xlabel="step, widths", yscale="log")
    axes[0].set_ylabel("relative error")
    axes[0].legend(title="degree", fontsize=8)
    figure.savefig(MEASURED / "steps.svg", metadata={"Date": None})


def write(name, columns, rows):
    """Write a table."""
    with open(MEASURED / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def main():
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=6, help="at most 20")
    parser.add_argument("--degrees", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--far", action="store_true", help="measure far steps alone")
    options = parser.parse_args()
    degrees = [1] if options.quick else options.degrees
    molecules = load_qm9_sample().data[: 2 if options.quick else options.molecules]
    rotations = Rotation.random(len(molecules), rng=0).as_matrix()
    molecules[..., 1:] = np.einsum("mij,mnj->mni", rotations, molecules[..., 1:])
    if options.far:
        rows = measure_far(molecules)
        if not options.quick:
            write("far_steps.csv", FAR_COLUMNS, rows)
        return
    compare(molecules)
    measured = measure(check_structures(molecules), degrees)
    print_constants(measured, degrees)
    if not options.quick:
        rows = [
            [*key, h, f"{error:.2e}"]
            for key, points in measured.items()
            for h, error in zip(*points, strict=True)
        ]
        names = "softness", "order", "degree", "neighbours", "step", "error"
        write("steps.csv", names, rows)
        draw(measured)


if __name__ == "__main__":
    main()
