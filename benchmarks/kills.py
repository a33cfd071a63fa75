"""Searches that are killed at random moments, and what the store holds afterwards.

Run ``python benchmarks/kills.py`` in an environment with the package, on a system with
process groups. A search with two worker processes is killed with all its processes ten
times, random times after its first writing; then a file of its store is cut short by a
byte, and another gets random bytes. The search that resumes has to give
what an undisturbed one gives, to the last digit, and every stored coefficient has to be
that of the undisturbed store.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import CoefficientStore, SolidHarmonicScattering, StoreWarning
from skscatharm.datasets import load_qm9_sample

N_MOLECULES = 60
N_KILLS = 10


def search(folder: str) -> GridSearchCV:
    X, y = load_qm9_sample(return_X_y=True)
    pipeline = make_pipeline(
        SolidHarmonicScattering(sigma=0.5, memory=folder), StandardScaler(), Ridge()
    )
    grid = {
        "solidharmonicscattering__J": [1, 2, 3],
        "solidharmonicscattering__L": [1, 2],
        "solidharmonicscattering__Q": [(1,), (0.5, 1, 2, 3)],
    }
    return GridSearchCV(pipeline, grid, cv=5, n_jobs=2).fit(
        X[:N_MOLECULES], y[:N_MOLECULES]
    )


def coefficients(folder: Path) -> np.ndarray:
    """Return the stored coefficients of the largest candidate."""
    X = load_qm9_sample().data[:N_MOLECULES]
    return SolidHarmonicScattering(3, 2, sigma=0.5, memory=folder).transform(X)


def damage(path: Path, random: np.random.Generator, cut: bool) -> None:
    data = bytearray(path.read_bytes())
    if cut:
        data = data[:-1]
    else:
        at = int(random.integers(len(data) - 20))
        data[at : at + 20] = random.bytes(20)
    path.write_bytes(data)


def main() -> None:
    random = np.random.default_rng()
    with TemporaryDirectory() as name:
        start = perf_counter()
        expected = search(f"{name}/undisturbed")
        whole = perf_counter() - start
        print(f"undisturbed: {whole:.1f} s")
        folder = Path(name, "killed")
        for _ in range(N_KILLS):
            before = CoefficientStore(folder).size
            process = subprocess.Popen(
                [sys.executable, __file__, str(folder)], start_new_session=True
            )
            while CoefficientStore(folder).size <= before and process.poll() is None:
                sleep(0.01)
            seconds = random.uniform(0, 0.05 * whole)
            sleep(seconds)
            if process.poll() is None:
                os.killpg(process.pid, SIGKILL)
            process.wait()
            n_files = len(list(folder.rglob("*.segment")))
            size = CoefficientStore(folder).size
            print(f"killed {seconds:.2f} s later: {n_files} files, {size} bytes")
        found = search(str(folder))
        compare("resumed", found, expected, folder, name)
        for cut in (True, False):
            damage(random.choice(sorted(folder.rglob("*.segment"))), random, cut)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                # In this process, which has read the store before, and in new ones.
                subprocess.run([sys.executable, __file__, str(folder)], check=True)
                found = search(str(folder))
            n_reports = sum(issubclass(w.category, StoreWarning) for w in caught)
            damaged = "cut by a byte" if cut else "random bytes"
            compare(
                f"{damaged}, reported {n_reports} times here",
                found,
                expected,
                folder,
                name,
            )
        print(CoefficientStore(folder).contents())


def compare(label, found, expected, folder, name) -> None:
    scores = "mean_test_score"
    same = np.array_equal(found.cv_results_[scores], expected.cv_results_[scores])
    stored = np.array_equal(coefficients(folder), coefficients(f"{name}/undisturbed"))
    print(f"{label}: scores identical {same}, coefficients identical {stored}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        search(sys.argv[1])
    else:
        main()
