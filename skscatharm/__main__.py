"""The demo: a hyperparameter search over molecules of QM9.

``python -m skscatharm`` searches scattering and regression together, compares the
regressors on more molecules with the scattering that it found, and predicts the
atomization energies of molecules that neither of the two saw.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ParameterGrid,
    train_test_split,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from skscatharm.datasets import load_qm9_sample
from skscatharm.display import SearchDisplay
from skscatharm.regression import MultilinearRegressor
from skscatharm.scattering import SolidHarmonicScattering
from skscatharm.store import CoefficientStore

_Array = NDArray[np.float64]

PICTURE = "skscatharm.png"

REGRESSIONS = {
    "ridge": make_pipeline(
        StandardScaler(),
        RidgeCV(np.logspace(-8, 0, 9), scoring="neg_mean_absolute_error"),
    ),
    "multilinear": MultilinearRegressor(random_state=0),
}
# A store keeps what has been computed: all that takes time are the largest J and L for
# each width.
SCATTERING_GRID: dict[str, list[Any]] = {
    "sigma": [0.35, 0.22],
    "J": [1, 2],
    "L": [1, 2, 3],
    "Q": [(1, 2), (0.5, 1, 2, 3)],
}
REGRESSION_GRID = {"degree": [1, 2]}

TEST_SHARE = 0.25
# Few molecules tell good scattering parameters from bad ones, and less exact
# coefficients are exact enough for few molecules.
SEARCH_SHARE = 0.5
SEARCH_TOL = 1e-3
COST_MOLECULES = 3  # by which the time of a scattering is measured


class Candidate(NamedTuple):
    """What the search over everything found for one set of parameters.

    Attributes
    ----------
    scattering : dict
        Parameters of the scattering that were searched.
    regression : str
        Kind of regression.
    error : float
        Mean absolute error, in kcal/mol.
    seconds : float
        Time that the scattering takes for each molecule, if nothing is stored.
    """

    scattering: dict[str, Any]
    regression: str
    error: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments of the command line; None takes those of the process.
    """
    options = _parse(argv)
    # The processes share the processors: more threads in each would be in the way.
    with threadpool_limits(1):
        _run(options)


def _run(options: argparse.Namespace) -> None:
    drawing = find_spec("matplotlib") is not None
    if not drawing:
        print(
            "matplotlib is missing: there will be no picture. To have one, "
            "pip install matplotlib\n"
        )
    X, y = load_qm9_sample(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X[: options.molecules],
        y[: options.molecules],
        test_size=TEST_SHARE,
        random_state=0,
    )
    n_search = round(SEARCH_SHARE * len(X_train))

    print(f"Search over scattering and regression, with {n_search} molecules of QM9\n")
    search = search_all(X_train[:n_search], y_train[:n_search], options.jobs)
    seconds = measure_costs(search, X_train[:COST_MOLECULES])
    candidates = list_candidates(search, seconds)
    print_candidates(candidates)

    print(
        "\nSearch over the regression with the best scattering, with "
        f"{len(X_train)} molecules\n"
    )
    scattering = SolidHarmonicScattering(
        **candidates[0].scattering, n_jobs=options.jobs, verbose=1
    )
    coefficients = scattering.fit_transform(X_train)
    regression_search = search_regression(coefficients, y_train, options.jobs)
    print_regressions(regression_search)

    print(f"\nPrediction of {len(X_test)} other molecules\n")
    new_coefficients = scattering.transform(X_test)
    models = {
        "mean": DummyRegressor().fit(coefficients, y_train),
        "ridge": clone(REGRESSIONS["ridge"]).fit(coefficients, y_train),
        "best of the search": regression_search.best_estimator_,
    }
    predictions = {
        name: model.predict(new_coefficients) for name, model in models.items()
    }
    print_errors(y_test, predictions)

    if drawing:
        options.output.mkdir(parents=True, exist_ok=True)
        path = options.output / PICTURE
        draw(search, seconds, y_test, predictions["best of the search"], path)
        print(f"\nPicture: {path}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m skscatharm",
        description=(
            "Search the parameters of scattering and regression that predict the "
            "atomization energies of molecules from QM9, print all candidates and the "
            "error on other molecules, and draw both."
        ),
    )
    parser.add_argument(
        "--molecules",
        type=int,
        default=800,
        metavar="N",
        help="number of molecules, 60 to 2000 (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help=f"folder for the picture {PICTURE} (default: this one)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=-1,
        metavar="N",
        help="number of processes (default: as many as processors)",
    )
    options = parser.parse_args(argv)
    if not 60 <= options.molecules <= 2000:
        parser.error(f"--molecules must be 60 to 2000, not {options.molecules}")
    return options


def search_all(X: _Array, y: _Array, n_jobs: int) -> GridSearchCV:
    """Search over the parameters of the scattering and the kinds of regression.

    Parameters
    ----------
    X : ndarray of shape (n_molecules, n_atoms, 4)
        Molecules.
    y : ndarray of shape (n_molecules,)
        Energies.
    n_jobs : int
        Number of processes.

    Returns
    -------
    search : GridSearchCV
        Fitted, without a model for all molecules.
    """
    grid = {f"scattering__{name}": values for name, values in SCATTERING_GRID.items()}
    grid["regression"] = list(REGRESSIONS.values())
    cv = KFold(3)
    with TemporaryDirectory() as folder:
        scales = SCATTERING_GRID["J"]
        store = CoefficientStore(folder, ahead=max(scales) - min(scales))
        search = GridSearchCV(
            Pipeline(
                [
                    (
                        "scattering",
                        SolidHarmonicScattering(tol=SEARCH_TOL, memory=store),
                    ),
                    ("regression", REGRESSIONS["ridge"]),
                ]
            ),
            grid,
            scoring="neg_mean_absolute_error",
            cv=cv,
            n_jobs=n_jobs,
            refit=False,
        )
        with progress(cv.get_n_splits() * len(ParameterGrid(grid))):
            search.fit(X, y)
    return search


def measure_costs(search: GridSearchCV, X: _Array) -> _Array:
    """Measure how long the scattering of each candidate of a search takes.

    Parameters
    ----------
    search : GridSearchCV
        From `search_all`.
    X : ndarray of shape (n_molecules, n_atoms, 4)
        Molecules to measure with.

    Returns
    -------
    seconds : ndarray of shape (n_candidates,)
        Time for a molecule.
    """

    @cache
    def measure(**parameters: Any) -> float:
        scattering = SolidHarmonicScattering(**parameters, tol=SEARCH_TOL)
        scattering.transform(X[:1])  # so that the compiled code is there
        start = perf_counter()
        scattering.transform(X)
        return (perf_counter() - start) / len(X)

    return np.array(
        [measure(**_scattering(params)) for params in search.cv_results_["params"]]
    )


def list_candidates(search: GridSearchCV, seconds: _Array) -> list[Candidate]:
    """List the candidates of the search over everything, the best one first."""
    results = search.cv_results_
    candidates = map(
        Candidate,
        map(_scattering, results["params"]),
        [_name(params["regression"]) for params in results["params"]],
        -results["mean_test_score"],
        seconds,
    )
    return sorted(candidates, key=attrgetter("error"))


def search_regression(X: _Array, y: _Array, n_jobs: int) -> GridSearchCV:
    """Search over the regressions and their parameters, with given coefficients.

    Parameters
    ----------
    X : ndarray of shape (n_molecules, n_coefficients)
        Coefficients.
    y : ndarray of shape (n_molecules,)
        Energies.
    n_jobs : int
        Number of processes.

    Returns
    -------
    search : GridSearchCV
        Fitted, with the best model fitted to all molecules.
    """
    grid = [
        {"regression": [REGRESSIONS["ridge"]]},
        {"regression": [REGRESSIONS["multilinear"]]}
        | {f"regression__{name}": values for name, values in REGRESSION_GRID.items()},
    ]
    cv = KFold(5)
    search = GridSearchCV(
        Pipeline([("regression", REGRESSIONS["ridge"])]),
        grid,
        scoring="neg_mean_absolute_error",
        cv=cv,
        n_jobs=n_jobs,
    )
    with progress(cv.get_n_splits() * len(ParameterGrid(grid))):
        search.fit(X, y)
    return search


def _scattering(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix("scattering__"): value
        for name, value in params.items()
        if name != "regression"
    }


def _name(regression: Any) -> str:
    return next(name for name, known in REGRESSIONS.items() if known is regression)


@contextmanager
def progress(total: int) -> Iterator[None]:
    """Show a bar that moves with each fit of the GridSearchCV in this context.

    Parameters
    ----------
    total : int
        Number of fits.
    """
    with tqdm(total=total, unit="fit") as bar:
        # GridSearchCV runs its fits in a Parallel of its own, which calls this after
        # each of them to print what `verbose` asks for.
        def update(parallel: Parallel) -> None:
            bar.update(parallel.n_completed_tasks - bar.n)

        Parallel.print_progress = update
        try:
            yield
        finally:
            del Parallel.print_progress  # the inherited one is back


def print_candidates(candidates: Sequence[Candidate]) -> None:
    """Print all candidates with their errors and times."""
    print(
        "\nsigma (Å)  J  L  Q                     regression    "
        "error (kcal/mol)  time (ms/molecule)"
    )
    for scattering, regression, error, seconds in candidates:
        sigma, J, L, Q = (scattering[name] for name in ("sigma", "J", "L", "Q"))
        print(
            f"{sigma:9}  {J}  {L}  {', '.join(map(str, Q)):20}  {regression:12}"
            f"  {error:16.2f}  {1e3 * seconds:18.0f}"
        )


def print_regressions(search: GridSearchCV) -> None:
    """Print the regressions with their errors and times."""
    results = search.cv_results_
    print("\nregression                                error (kcal/mol)  fit (s)")
    for i in np.argsort(results["rank_test_score"]):
        regression, *values = results["params"][i].values()
        settings = map("{}={}".format, REGRESSION_GRID, values)
        print(
            f"{' '.join([_name(regression), *settings]):40}"
            f"  {-results['mean_test_score'][i]:16.2f}"
            f"  {results['mean_fit_time'][i]:7.2f}"
        )


def print_errors(y: _Array, predictions: Mapping[str, _Array]) -> None:
    """Print the errors of several predictions of the same energies."""
    print(f"{'prediction':20}  mean absolute error (kcal/mol)")
    for name, prediction in predictions.items():
        print(f"{name:20}  {mean_absolute_error(y, prediction):30.2f}")


def draw(
    search: GridSearchCV,
    seconds: _Array,
    y: _Array,
    prediction: _Array,
    path: Path,
) -> None:
    """Draw the search over everything, and predicted against true energies.

    Parameters
    ----------
    search : GridSearchCV
        From `search_all`.
    seconds : ndarray of shape (n_candidates,)
        From `measure_costs`.
    y, prediction : ndarray of shape (n_molecules,)
        True and predicted energies.
    path : Path
        File to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    *axes, last = figure.subplots(2, 2).ravel()
    SearchDisplay.from_search(
        search,
        costs=1e3 * seconds,
        error_label="Mean absolute error (kcal/mol)",
        cost_label="Time for a molecule (ms)",
        pairs=[("scattering__L", "scattering__J"), ("regression", "scattering__sigma")],
        axes=axes,
    )
    last.plot(y, prediction, ".", label="Molecules that no search saw")
    last.axline((y.mean(), y.mean()), slope=1, color="gray", lw=1, zorder=0)
    last.set(
        title=f"Mean absolute error {mean_absolute_error(y, prediction):.2f} kcal/mol",
        xlabel="True atomization energy (kcal/mol)",
        ylabel="Predicted atomization energy (kcal/mol)",
        aspect="equal",
        adjustable="datalim",
    )
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
