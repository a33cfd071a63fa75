"""The demo: predict the atomization energies of molecules of QM9.

``python -m skscatharm`` searches the parameters of scattering and regression by
cross-validation. It predicts molecules that the search did not see with the best
candidate, extrapolates its error to more molecules, and draws the search and the
predictions.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import PredictionErrorDisplay, mean_absolute_error
from sklearn.model_selection import GridSearchCV, learning_curve, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm.datasets import load_qm9_sample
from skscatharm.display import SearchDisplay
from skscatharm.regression import MultilinearRegressor
from skscatharm.scattering import SolidHarmonicScattering
from skscatharm.store import CoefficientStore

Array = NDArray[np.float64]

PICTURE = "skscatharm.png"
SCORING = "neg_mean_absolute_error"
ERROR = "mean absolute error (kcal/mol)"
RIDGE = make_pipeline(
    StandardScaler(), RidgeCV(np.logspace(-10, 0, 11), scoring=SCORING)
)
QUADRATIC = MultilinearRegressor(degree=2, random_state=0)
SIZES = (1 / 4, 1 / 2, 1)  # of the learning curve, relative to the largest
# With J and L up to their defaults, since those are computed before.
GRID: list[dict[str, list[Any]]] = [
    {"scattering__J": [0, 1, 2], "scattering__L": [1, 2, 3], "regression": [RIDGE]},
    {"scattering__J": [2], "scattering__L": [3], "regression": [QUADRATIC]},
]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo with these arguments, by default those of the command line."""
    options = parse(argv)
    X, y = load_qm9_sample(return_X_y=True)
    X, X_test, y, y_test = train_test_split(
        X[: options.molecules], y[: options.molecules], random_state=0
    )
    with TemporaryDirectory() as folder:
        # The search reads the coefficients from a store, the same ones in each fold.
        scattering = SolidHarmonicScattering(
            memory=CoefficientStore(folder, ahead=0), n_jobs=options.jobs, verbose=1
        )
        print(f"Computing the coefficients of {options.molecules} molecules")
        scattering.transform(np.concatenate([X, X_test]))
        scattering.set_params(n_jobs=1, verbose=0)

        print(f"\nSearching parameters with {len(X)} molecules")
        ridge = Pipeline([("scattering", scattering), ("regression", RIDGE)])
        search = GridSearchCV(
            ridge, GRID, scoring=SCORING, n_jobs=options.jobs, verbose=1
        ).fit(X, y)
        seconds = print_candidates(search, X[:3])

        print(f"\nPrediction of {len(X_test)} other molecules  {ERROR}")
        mean, ridge = DummyRegressor().fit(X, y), ridge.fit(X, y)
        models = {"mean": mean, "ridge": ridge, "best candidate": search}
        for name, model in models.items():
            prediction = model.predict(X_test)
            print(f"{name:34}  {mean_absolute_error(y_test, prediction):30.2f}")

        print_learning_curve(search.best_estimator_, X, y, options.jobs)

    if find_spec("matplotlib") is None:
        print("\nNo picture, since matplotlib is missing: pip install matplotlib")
        return
    options.output.mkdir(parents=True, exist_ok=True)
    draw(search, seconds, y_test, prediction, options.output / PICTURE)
    print(f"\nPicture: {options.output / PICTURE}")


def parse(argv: Sequence[str] | None) -> Namespace:
    """Parse the arguments."""
    parser = ArgumentParser(
        prog="python -m skscatharm",
        description="Search the parameters of scattering and regression that predict "
        "atomization energies of molecules of QM9 best. Print all candidates and the "
        "errors on other molecules, and draw both.",
    )
    arguments: list[tuple[str, Any, Any, str, str]] = [
        ("--molecules", int, 1500, "N", "number of molecules, 60 to 2000"),
        ("--jobs", int, -1, "N", "number of processes, -1 for one a processor"),
        ("--output", Path, Path(), "FOLDER", f"folder for the picture {PICTURE}"),
    ]
    for name, kind, default, metavar, text in arguments:
        text += " (default: %(default)s)"
        parser.add_argument(
            name, type=kind, default=default, metavar=metavar, help=text
        )
    options = parser.parse_args(argv)
    if not 60 <= options.molecules <= 2000:
        parser.error(f"--molecules must be 60 to 2000, not {options.molecules}")
    return options


def print_candidates(search: GridSearchCV, X: Array) -> Array:
    """Print the candidates, the best one first.

    Return the seconds to compute a molecule of X for each of them, without a store.
    """
    results = search.cv_results_
    sizes = [
        *zip(*(results[f"param_scattering__{name}"] for name in "JL"), strict=True)
    ]
    seconds = {}
    for J, L in set(sizes):
        scattering = SolidHarmonicScattering(J, L)
        scattering.transform(X[:1])  # loads compiled code
        start = perf_counter()
        scattering.transform(X)
        seconds[J, L] = (perf_counter() - start) / len(X)

    print(f"\nJ  L  regression  {ERROR}  time (ms/molecule)")
    for i in results["mean_test_score"].argsort()[::-1]:
        (J, L), error = sizes[i], -results["mean_test_score"][i]
        name = "ridge" if results["params"][i]["regression"] is RIDGE else "quadratic"
        print(f"{J}  {L}  {name:10}  {error:30.2f}  {1e3 * seconds[J, L]:18.0f}")
    return np.array([seconds[size] for size in sizes])


def print_learning_curve(model: Pipeline, X: Array, y: Array, n_jobs: int) -> None:
    """Print errors of a model by number of training molecules, and extrapolate them."""
    sizes, _, scores = learning_curve(
        model, X, y, train_sizes=SIZES, scoring=SCORING, n_jobs=n_jobs
    )
    errors = -scores.mean(axis=1)
    print(f"\n{'Training molecules of the best candidate':34}  {ERROR}")
    for size, error in zip(sizes, errors, strict=True):
        print(f"{size:34}  {error:30.2f}")
    exponent, error = extrapolate(sizes, errors, 2 * len(X))
    print(
        f"\nThe error falls like n^{exponent:.2f}: with {2 * len(X)} molecules, twice "
        f"as many, it would be about {error:.2f} kcal/mol."
    )


def extrapolate(sizes: Array, errors: Array, size: float) -> tuple[float, float]:
    """Fit a power law to errors by number of samples.

    Return its exponent and its value for another number.
    """
    exponent, constant = np.polyfit(np.log(sizes), np.log(errors), 1)
    return float(exponent), float(np.exp(constant) * size**exponent)


def draw(
    search: GridSearchCV, seconds: Array, y: Array, prediction: Array, path: Path
) -> None:
    """Draw the search, and predicted against true energies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    *axes, last = figure.subplots(2, 2).ravel()
    SearchDisplay.from_search(
        search,
        costs=1e3 * seconds,
        error_label=ERROR.capitalize(),
        cost_label="Time for a molecule (ms)",
        pairs=[("scattering__L", "scattering__J"), "regression"],
        axes=axes,
    )
    PredictionErrorDisplay.from_predictions(y, prediction, ax=last)
    last.set(title="Energies of other molecules (kcal/mol)")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
