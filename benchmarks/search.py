"""Time that the scattering takes in a whole search, compared with single transforms.

Run ``python benchmarks/search.py`` in an environment with the package; ``--help`` lists
what can be changed. It reports CPU time in the scattering, with one process.
"""

import argparse
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

EXPONENTS = [(1,), (1, 2), (0.5, 1, 2), (0.5, 1, 2, 3)]


class Timed(SolidHarmonicScattering):
    """Adds up the time that all instances take."""

    seconds = 0.0

    def fit_transform(self, X, y=None):
        return self._timed(super().fit_transform, X, y)

    def transform(self, X):
        return self._timed(super().transform, X)

    @staticmethod
    def _timed(method, *arguments):
        # The method calls others of these: only the outermost counts.
        before, start = Timed.seconds, process_time()
        result = method(*arguments)
        Timed.seconds = before + process_time() - start
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="first molecule")
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.35, 0.22])
    parser.add_argument("--J", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--L", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    X, y = load_qm9_sample(return_X_y=True)
    part = slice(options.first, options.first + options.molecules)
    X, y = X[part], y[part]

    Timed(sigma=1.0).transform(X[:3])  # loads or compiles the loops
    single = {}
    for sigma in options.sigma:
        single[sigma] = seconds(
            Timed(max(options.J), max(options.L), EXPONENTS[-1], sigma).transform, X
        )
        print(f"sigma {sigma}: one transform of the largest {single[sigma]:.1f} s")
    for widths in dict.fromkeys([tuple(options.sigma[:1]), tuple(options.sigma)]):
        with TemporaryDirectory() as folder:
            search = GridSearchCV(
                Pipeline(
                    [
                        ("scattering", Timed(memory=folder)),
                        ("scaling", StandardScaler()),
                        ("regression", RidgeCV(np.logspace(-8, 0, 9))),
                    ]
                ),
                {
                    "scattering__sigma": widths,
                    "scattering__J": options.J,
                    "scattering__L": options.L,
                    "scattering__Q": EXPONENTS,
                },
                scoring="neg_mean_absolute_error",
                cv=5,
            )
            whole = sum(single[sigma] for sigma in widths)
            for name in ("search", "again"):
                ratio = seconds(search.fit, X, y) / whole
                print(f"sigma {widths}: {name} {ratio:.3f} times the largest")


def seconds(function, *arguments) -> float:
    """Call a function, and return the time in the scattering."""
    Timed.seconds = 0.0
    function(*arguments)
    return Timed.seconds


if __name__ == "__main__":
    main()
