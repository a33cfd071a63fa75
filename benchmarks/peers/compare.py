"""This package beside kymatio and DScribe, on the same molecules of QM9.

    python benchmarks/peers/compare.py

runs in an environment with the package and Matplotlib, and makes the environments of
the others by itself. Everything runs on one thread. Into ``doc/measured`` go

``peers_scattering.csv``
    kymatio (PyTorch), which computes the same coefficients: time and noise of a few
    molecules, each computed by kymatio and by this package in turn. Noise is the
    relative error against this package's smallest tolerance in double precision, of
    the coefficients with q >= 1 (for q = 0.5 kymatio's rounding is a bias); medians
    over the molecules. Each molecule gets the smallest grid that serves it, and
    kymatio's time is without that for its wavelets: both are to its favour.
``peers_soap.csv``
    DScribe's SOAP, a descriptor of atoms: time of the whole sample.
``peers_learning.csv``
    Errors of atomization energies predicted from both, in 5 folds: ridge regression on
    each molecule's coefficients, or the sum of its SOAP vectors; and what suits each
    best, `MultilinearRegressor` and a SOAP kernel of pairs of atoms.
``peers.svg``
    The picture.

What the others gave is kept in ``benchmarks/.results/peers``, so that a run that was
stopped goes on where it was; ``--fresh`` starts over, as after a change to this script,
or for times that are to be compared.
"""

import argparse
import csv
import shutil
import subprocess
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from environments import HERE, environment
from matplotlib.ticker import NullLocator
from scipy.linalg import LinAlgWarning
from scipy.spatial.transform import Rotation
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skscatharm import (
    SETTINGS,
    STANDARD_CHANNELS,
    MultilinearRegressor,
    SolidHarmonicScattering,
    __version__,
)
from skscatharm.datasets import load_qm9_sample

RESULTS = HERE.parent / ".results" / "peers"
MEASURED = HERE.parents[1] / "doc" / "measured"

N_KYMATIO = 6
REPEATS = 3  # of our transform of a molecule, of which the median counts
PUBLISHED = SETTINGS["published"]
EXACT = 4e-6
# In widths of an atom. The gap changes no coefficient of q >= 1 by more than 1.5e-5.
KYMATIO = {"step": 0.65, "gap": 11.5 * 21**0.5, "dtype": "float32", "threads": 1}
SOAP = {"r_cut": 3.5, "n_max": 8, "l_max": 6, "sigma": 0.3}

SIZES = (500, 1000, 2000)
FOLDS = KFold(5, shuffle=True, random_state=0)
SCORING = "neg_mean_absolute_error"
ZETA = (1.0, 2.0, 4.0)


def run(name: str, result: str, **arrays: Any) -> dict[str, np.ndarray]:
    """What the worker of another package makes of arrays, unless there already."""
    target = RESULTS / f"{result}.npz"
    if not target.exists():
        RESULTS.mkdir(parents=True, exist_ok=True)
        source, partial = RESULTS / "input.npz", RESULTS / "partial.npz"
        np.savez(source, **arrays)
        subprocess.run(
            [
                environment(HERE / f"{name}_requirements.txt"),
                HERE / f"{name}_worker.py",
                source,
                partial,
            ],
            check=True,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        partial.rename(target)
    with np.load(target) as file:
        return {key: file[key] for key in file.files}


def pose(molecule: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A molecule near its principal axes, where its box is small, but not along them.

    Nodal planes of the fields should not lie in planes of the grid.
    """
    atoms = molecule[molecule[:, 0] > 0]
    positions = atoms[:, 1:] - atoms[:, 1:].mean(axis=0)
    positions = positions @ np.linalg.svd(positions)[2].T
    tilt = Rotation.from_rotvec(rng.normal(scale=0.4, size=3))
    return np.column_stack([atoms[:, 0], tilt.apply(positions)])[np.newaxis]


def seconds(function: Callable[[], Any], repeats: int = 1) -> float:
    """The median time that a function takes."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return float(np.median(times))


def compare_kymatio(molecules: np.ndarray) -> dict[str, np.ndarray]:
    """Times of each molecule, and relative errors of the coefficients, by package."""
    scattering = SolidHarmonicScattering(**PUBLISHED)
    exact = SolidHarmonicScattering(**PUBLISHED | {"tol": EXACT, "dtype": "float64"})
    names = scattering.get_feature_names_out()
    comparable = np.array(
        [not name.startswith("S0") and not name.endswith("q0p5") for name in names]
    )
    weights = np.array(
        [[table.get(z, 0) for z in range(10)] for table in STANDARD_CHANNELS.values()]
    )
    scattering.transform(molecules[:1])  # what is computed once for all
    rng = np.random.default_rng(0)
    times, errors = [], []
    for i, molecule in enumerate(molecules):
        X = pose(molecule, rng)
        theirs = run(
            "kymatio",
            f"kymatio_{i}",
            molecules=X,
            weights=weights,
            J=scattering.J,
            L=scattering.L,
            Q=np.array(scattering.Q),
            sigma=scattering.sigma,
            **KYMATIO,
        )
        times.append(
            [seconds(lambda X=X: scattering.transform(X), REPEATS), *theirs["seconds"]]
        )
        # Columns of an order go by channel, path and exponent, as kymatio's axes do.
        coefficients = np.concatenate(
            [theirs[f"order{order}"].reshape(-1) for order in range(3)]
        )
        expected = exact.transform(X)[0]
        both = np.array([scattering.transform(X)[0], coefficients])
        errors.append(np.abs(both / expected - 1)[:, comparable])
        print(
            f"molecule {i}: {1e3 * times[-1][0]:.0f} ms, kymatio"
            f" {1e3 * times[-1][1]:.0f} ms on a grid of {theirs['shape']}",
            flush=True,
        )
    return {
        "seconds": np.array(times).T,
        "errors": np.array(errors).swapaxes(0, 1),
        "version": theirs["version"],
    }


def ridge_error(X: np.ndarray, y: np.ndarray) -> float:
    """Error of ridge regression; scaling and penalty are the best on the folds."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {
            "standardscaler": [StandardScaler(), StandardScaler(with_std=False)],
            "ridge__alpha": np.logspace(-9, 3, 13),
        },
        scoring=SCORING,
        cv=FOLDS,
    )
    with warnings.catch_warnings():
        # The smallest penalties are too small for many features.
        warnings.simplefilter("ignore", LinAlgWarning)
        return -search.fit(X, y).best_score_


def kernel_error(kernels: np.ndarray, composition: np.ndarray, y: np.ndarray) -> float:
    """Error of kernel ridge regression beyond a linear fit to the composition.

    Power and penalty are the best on the folds.
    """
    errors: dict[tuple[int, float], list[float]] = {}
    for train, test in FOLDS.split(y):
        linear = LinearRegression().fit(composition[train], y[train])
        rest = y - linear.predict(composition)
        for i, kernel in enumerate(kernels / kernels[0].diagonal().mean()):
            for alpha in np.logspace(-8, 0, 9):
                model = KernelRidge(alpha=alpha, kernel="precomputed")
                model.fit(kernel[np.ix_(train, train)], rest[train])
                error = model.predict(kernel[np.ix_(test, train)]) - rest[test]
                errors.setdefault((i, alpha), []).append(np.abs(error).mean())
    return min(np.mean(folds) for folds in errors.values())


def compare_soap(molecules: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Times of each molecule, numbers of features, and errors of predictions."""
    soap = run("dscribe", "dscribe", molecules=molecules, zeta=np.array(ZETA), **SOAP)
    coefficients = []
    scattering = SolidHarmonicScattering(**PUBLISHED)
    time = seconds(lambda: coefficients.append(scattering.transform(molecules)))
    (ours,) = coefficients
    composition = np.array(
        [
            [(m[:, 0] == z).sum() for z in np.unique(molecules[..., 0])[1:]]
            for m in molecules
        ]
    )
    errors = []
    for n in SIZES:
        errors.append(
            [
                ridge_error(ours[:n], y[:n]),
                -cross_val_score(
                    MultilinearRegressor(random_state=0),
                    ours[:n],
                    y[:n],
                    scoring=SCORING,
                    cv=FOLDS,
                ).mean(),
                ridge_error(soap["features"][:n], y[:n]),
                kernel_error(soap["kernels"][:, :n, :n], composition[:n], y[:n]),
            ]
        )
        print(f"{n} molecules:", *(f"{error:.2f}" for error in errors[-1]), flush=True)
    return {
        "seconds": (time / len(molecules), soap["seconds"].mean()),
        "features": (ours.shape[1], soap["features"].shape[1]),
        "errors": np.array(errors).T,
        "version": soap["version"],
    }


def write_table(name: str, rows: list[list[Any]]) -> None:
    """Write a table for the documentation."""
    with open(MEASURED / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def draw(kymatio: dict[str, np.ndarray], soap: dict[str, Any]) -> None:
    """Draw times, noises and errors of predictions."""
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 3.6), layout="constrained"
    )
    bars = left.bar(
        ["skscatharm", "kymatio"],
        1e3 * kymatio["seconds"].mean(axis=1),
        color=["C0", "C1"],
    )
    left.bar_label(bars, fmt="%.0f")
    left.set(yscale="log", ylabel="ms a molecule, one thread", title="Time")
    left.margins(y=0.2)

    for name, errors in zip(("skscatharm", "kymatio"), kymatio["errors"], strict=True):
        typical = np.sort(np.median(errors, axis=0))
        middle.plot(np.linspace(0, 1, len(typical)), typical, label=name)
    middle.set(
        yscale="log",
        xlabel="share of the coefficients, q ≥ 1",
        ylabel="relative error below",
        title="Noise",
    )
    middle.legend()

    training = np.array(SIZES) * (FOLDS.n_splits - 1) / FOLDS.n_splits
    labels = (
        "skscatharm, ridge",
        "skscatharm, multilinear",
        "SOAP, ridge",
        "SOAP, kernel",
    )
    for label, errors, style in zip(
        labels, soap["errors"], ("C0--", "C0-", "C2--", "C2-"), strict=True
    ):
        right.plot(training, errors, style, marker="o", label=label)
    right.set(
        xscale="log",
        yscale="log",
        xlabel="training molecules",
        ylabel="mean absolute error, kcal/mol",
        title="Atomization energy",
    )
    right.set_xticks(training, [f"{n:.0f}" for n in training])
    right.xaxis.set_minor_locator(NullLocator())
    right.yaxis.set_minor_formatter("{x:g}")
    right.yaxis.set_major_formatter("{x:g}")
    right.legend(fontsize="small")
    right.margins(y=0.3)
    figure.savefig(MEASURED / "peers.svg", metadata={"Date": None})


def main() -> None:
    """Run everything, and write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="keep no earlier results")
    if parser.parse_args().fresh:
        shutil.rmtree(RESULTS, ignore_errors=True)
    MEASURED.mkdir(exist_ok=True)
    molecules, y = load_qm9_sample(return_X_y=True)
    with threadpool_limits(1):
        kymatio = compare_kymatio(molecules[:N_KYMATIO])
        soap = compare_soap(molecules[: max(SIZES)], y[: max(SIZES)])

    rows = [["", "ms a molecule", "times as long", "worst noise", "median noise"]]
    names = (f"skscatharm {__version__}", f"kymatio {kymatio['version']}")
    ratio = kymatio["seconds"][1].sum() / kymatio["seconds"][0].sum()
    for name, times, errors, factor in zip(
        names, kymatio["seconds"], kymatio["errors"], (1, ratio), strict=True
    ):
        worst = np.median(errors.max(axis=1))
        middle = np.median(np.median(errors, axis=1))
        rows.append(
            [
                name,
                f"{1e3 * times.mean():.0f}",
                f"{factor:.0f}",
                f"{worst:.1e}",
                f"{middle:.1e}",
            ]
        )
    write_table("peers_scattering.csv", rows)

    names = (f"skscatharm {__version__}", f"DScribe {soap['version']}, SOAP")
    rows = [["", "ms a molecule", "features"]]
    for name, time, features in zip(
        names, soap["seconds"], soap["features"], strict=True
    ):
        rows.append([name, f"{1e3 * time:.1f}", features])
    write_table("peers_soap.csv", rows)

    rows = [
        [
            "molecules",
            "skscatharm, ridge",
            "skscatharm, multilinear",
            "SOAP, ridge",
            "SOAP, kernel",
        ]
    ]
    rows += [
        [n, *(f"{error:.2f}" for error in errors)]
        for n, errors in zip(SIZES, soap["errors"].T, strict=True)
    ]
    write_table("peers_learning.csv", rows)
    draw(kymatio, soap)


if __name__ == "__main__":
    main()
