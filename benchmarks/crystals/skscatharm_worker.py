"""Energies, forces and stresses of crystals by this package.

    python skscatharm_worker.py MODEL STORE train.xyz test.xyz output.npz

exchanges files with its caller, like the workers of the other packages. ``compare.py``
describes them. MODEL is "linear", "quadratic" or "mixed": linear, with mixed moments of
two fields in place of order 2. STORE keeps coefficients and derivatives, so that models
share them and an interrupted run continues.

With one element, one channel of weight 1 is all there is. The setting of the models
"linear" and "quadratic" was chosen by cross-validation on every second frame of the
training files, with a linear model. Fifteen transforms were tried: widths from 0.35 to
0.75 Å, one to three scales, degrees up to 10, exponents from 0.5 to 8, and softenings
of 0.2 and 1; of each, subsets of the coefficients too. Degrees from 5 on and the second
order matter most.

For mixed moments, columns were chosen by cross-validation on training frames, with the
same width, scales and softening. About forty sets were tried on molybdenum first: pairs
of exponents from 1/2 to 2, with and without orders 0 and 2, and pairs of one scale, of
one degree or of neighbouring degrees; then twelve on silicon, with other exponents and
products of three fields; at last thirty on both, with exponents from 0.5 to 8, degrees
up to 6 or 8, and pairs of some scales or degrees. Energies of silicon gain most by the
exponents 3 and 6, those of molybdenum by the degrees 7 and 8.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from skscatharm import (
    MultilinearRegressor,
    ScatteringPotential,
    SolidHarmonicScattering,
    __version__,
)

SETTING = {
    "J": 1,
    "L": 6,
    "Q": (1, 2, 4, 6),
    "sigma": 0.6,
    "softening": 1.0,
    "tol": 1e-3,
    "dtype": "float64",
}
BATCH = 4  # frames whose derivatives are saved at a time


REGRESSIONS = {
    "linear": {"degree": 1},
    "quadratic": {"degree": 2},
    "mixed": {"degree": 1},
}
MORE = (1, 2, 3, 4, 6)  # exponents of mixed moments
SETTINGS = {
    "linear": SETTING | {"mixed_moments": False},
    "quadratic": SETTING | {"mixed_moments": False},
    "mixed": SETTING | {"L": 8, "Q": MORE, "mixed_Q": MORE, "max_order": 1},
}


def make_scattering(
    model: str, frames: Sequence[Atoms], store: str
) -> SolidHarmonicScattering:
    """The transformer for frames of one element."""
    weights = dict.fromkeys(set(frames[0].numbers.tolist()), 1.0)
    return SolidHarmonicScattering(
        **SETTINGS[model], channels={"atoms": weights}, memory=Path(store)
    )


def fill(scattering: SolidHarmonicScattering, frames: Sequence[Atoms]) -> None:
    """Store coefficients and derivatives."""
    for first in range(0, len(frames), BATCH):
        batch = frames[first : first + BATCH]
        scattering.transform(batch)
        scattering.jacobian(batch)


def main(model: str, store: str, train: str, test: str, target: str) -> None:
    """Train on the frames of a file and write predictions for those of another."""
    frames, others = ase.io.read(train, ":"), ase.io.read(test, ":")
    scattering = make_scattering(model, frames, store)
    fill(scattering, frames)
    regressor = MultilinearRegressor(**REGRESSIONS[model], random_state=0)
    potential = ScatteringPotential(scattering, regressor)
    start = time.perf_counter()
    potential.fit(
        frames,
        [atoms.info["dft_energy"] for atoms in frames],
        [atoms.arrays["dft_forces"] for atoms in frames],
    )
    trained = time.perf_counter() - start
    found, seconds = [], []
    for atoms in others:
        begin = time.perf_counter()
        found.append(potential.evaluate([atoms], stresses=True))
        seconds.append(time.perf_counter() - begin)
    np.savez(
        target,
        energies=np.concatenate([one.energies for one in found]),
        forces=np.concatenate([one.forces[0] for one in found]),
        stresses=np.concatenate([one.stresses for one in found]),
        fit_seconds=trained,
        step_seconds=np.median(seconds),
        setting=str(SETTINGS[model] | REGRESSIONS[model]),
        version=__version__,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
