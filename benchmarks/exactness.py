"""Error and time of the coefficients of QM9 molecules, by tolerance.

Run ``python benchmarks/exactness.py`` in an environment with the package. Molecules of
the sample stand in random orientations; the coefficients with the smallest tolerance,
in double precision, count as exact. The errors are medians over the molecules.
"""

from time import perf_counter

import numpy as np
from scipy.spatial.transform import Rotation

from skscatharm import SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

N_MOLECULES = 12
TOLERANCES = (1e-3, 5e-4, 3e-4, 2e-4, 1e-4, 5e-5)
REPEATS = 3  # of which the fastest counts
EXACT = 4e-6


def main() -> None:
    X = load_qm9_sample().data[:N_MOLECULES]
    for molecule, rotation in zip(
        X, Rotation.random(N_MOLECULES, rng=0).as_matrix(), strict=True
    ):
        molecule[:, 1:] = molecule[:, 1:] @ rotation.T

    exact = SolidHarmonicScattering(tol=EXACT, dtype="float64")
    low = np.array(["q=0.5" in name for name in exact.get_feature_names_out()])
    expected = exact.transform(X)

    print("    tol  worst, q >= 1  worst, q = 0.5   median  ms/molecule")
    for tol in TOLERANCES:
        scattering = SolidHarmonicScattering(tol=tol)
        seconds = []
        for _ in range(REPEATS):
            start = perf_counter()
            found = scattering.transform(X)
            seconds.append(perf_counter() - start)
        errors = np.abs(found / expected - 1)
        worst, worst_low, middle = (
            np.median(error)
            for error in (
                errors[:, ~low].max(axis=1),
                errors[:, low].max(axis=1),
                np.median(errors, axis=1),
            )
        )
        print(
            f"{tol:7.0e}  {worst:13.1e}  {worst_low:14.1e}  {middle:7.1e}"
            f"  {1e3 * min(seconds) / len(X):11.0f}"
        )


if __name__ == "__main__":
    main()
