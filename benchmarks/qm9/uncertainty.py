"""Standard deviations of predictions, beside the errors.

    python benchmarks/qm9/uncertainty.py FOLDER

runs in an environment with the package and Matplotlib. FOLDER keeps the coefficients,
so that the same command continues after an interruption. The molecules are the 2,000 of
the sample of QM9. In each of 4 folds, 1,500 of them train and 500 are predicted. Into
``doc/measured`` go

``uncertainty.csv``
    Shares of the errors within one and two standard deviations, the rank correlation of
    both, and the mean absolute error of the half of the molecules with the smaller
    standard deviations, divided by that of the rest.
``uncertainty.svg``
    Shares of the errors within a number of standard deviations, and errors by standard
    deviation.

``--constants`` prints shares, rank correlations and quotients of halves for other
constants of ``skscatharm/regression/uncertainty.py`` instead, as means over U0 and mu.
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import erf
from scipy.stats import spearmanr
from sklearn.model_selection import KFold

from skscatharm import (
    SETTINGS,
    CoefficientStore,
    KernelRegressor,
    MultilinearRegressor,
    SolidHarmonicScattering,
)
from skscatharm.datasets import load_qm9_sample
from skscatharm.regression import multilinear, uncertainty

MEASURED = Path(__file__).resolve().parents[2] / "doc" / "measured"
FOLDS = KFold(4, shuffle=True, random_state=0)
PROPERTIES = ("U0", "Cv", "mu", "gap")
MODELS = {
    "ridge": MultilinearRegressor(1),
    "quadratic form": MultilinearRegressor(2, random_state=0),
    "trained products": MultilinearRegressor(3, random_state=0),
    "kernel": KernelRegressor(random_state=0),
}
DRAWN = "quadratic form"
CONSTANTS = {
    "DECAY": (0.1, 0.2, 0.35, 0.5),
    "_NEIGHBOURS": (10, 20, 40, 80),
    "_REFERENCES": (250, 500, 1000, 1500),
    "_ADDED": (1, 10, 30),
    "_NEAR": (0.0, 0.2, 1.0),
}
N_BINS = 10


def predict(model, X, y) -> tuple[np.ndarray, np.ndarray]:
    """Absolute errors and standard deviations of all molecules."""
    errors, deviations = np.empty((2, len(y)))
    for train, test in FOLDS.split(X):
        prediction, deviations[test] = model.fit(X[train], y[train]).predict(
            X[test], return_std=True
        )
        errors[test] = abs(prediction - y[test])
    return errors, deviations


def summarize(errors: np.ndarray, deviations: np.ndarray) -> list[float]:
    """Shares within one and two deviations, rank correlation, quotient of halves."""
    certain, rest = np.array_split(np.argsort(deviations), 2)
    return [
        float(np.mean(errors < deviations)),
        float(np.mean(errors < 2 * deviations)),
        float(spearmanr(errors, deviations).statistic),
        float(errors[certain].mean() / errors[rest].mean()),
    ]


def vary_constants(X: np.ndarray, targets: list[np.ndarray]) -> None:
    """Print results of the quadratic form with other constants."""
    for name, values in CONSTANTS.items():
        # `multilinear` has a copy of public ones.
        owners = [m for m in (uncertainty, multilinear) if hasattr(m, name)]
        before = getattr(uncertainty, name)
        for value in values:
            for owner in owners:
                setattr(owner, name, value)
            found = [summarize(*predict(MODELS[DRAWN], X, y)) for y in targets]
            numbers = "  ".join(f"{number:.3f}" for number in np.mean(found, axis=0))
            print(f"{name:12}  {value:6}  {numbers}", flush=True)
        for owner in owners:
            setattr(owner, name, before)


def draw(results: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw the calibration, and errors by standard deviation."""
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    number = np.linspace(0, 3, 200)
    left.plot(number, erf(number / np.sqrt(2)), "k--", label="normal errors")
    limits = [np.inf, 0.0]
    for name, (errors, deviations) in results.items():
        ratios = np.sort(errors / deviations)
        left.plot(number, np.searchsorted(ratios, number) / len(ratios), label=name)
        order = np.argsort(deviations)
        bins = np.array_split(order, N_BINS)
        means = np.array([[deviations[b].mean(), errors[b].mean()] for b in bins])
        means /= errors.mean()
        right.plot(*means.T, "o-", label=name)
        limits = [min(limits[0], means[:, 0].min()), max(limits[1], means[:, 0].max())]
    left.set(xlabel="standard deviations", ylabel="share of the errors", ylim=(0, 1))
    left.legend()
    # The mean absolute value of a normal variable.
    ends = np.array(limits)
    right.plot(ends, np.sqrt(2 / np.pi) * ends, "k--", label="normal errors")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="standard deviation / mean error",
        ylabel="mean absolute error / mean error",
    )
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    right.tick_params(which="both", labelsize="small")
    figure.savefig(MEASURED / "uncertainty.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--constants", action="store_true", help="vary the constants")
    options = parser.parse_args()
    store = CoefficientStore(options.folder, ahead=0)
    sample = load_qm9_sample(target="all")
    scattering = SolidHarmonicScattering(**SETTINGS["soft"], memory=store, verbose=1)
    X = scattering.fit_transform(sample.data)
    if options.constants:
        columns = [sample.target_names.index(name) for name in ("U0", "mu")]
        vary_constants(X, [sample.target[:, column] for column in columns])
        return
    rows, drawn = [], {}
    for name in PROPERTIES:
        column = sample.target_names.index(name)
        for kind, model in MODELS.items():
            errors, deviations = predict(model, X, sample.target[:, column])
            if kind == DRAWN:
                drawn[name] = errors, deviations
            one, two, rank, halves = summarize(errors, deviations)
            rows.append(
                [
                    name,
                    kind,
                    f"{errors.mean():.3g} {sample.target_units[column]}",
                    f"{100 * one:.0f} %",
                    f"{100 * two:.0f} %",
                    f"{rank:.2f}",
                    f"{halves:.2f}",
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
    header = ["", "Model", "Mean error", "Within 1", "Within 2", "Rank", "Halves"]
    with (MEASURED / "uncertainty.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    draw(drawn)


if __name__ == "__main__":
    main()
