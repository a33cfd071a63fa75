"""Coefficients of a few molecules, as the package computes them now.

    python tests/freeze.py

writes them to ``tests/data/frozen.npz``, with NUMERICS_VERSION. Run it after this
version was raised; ``tests/test_frozen.py`` compares.
"""

from pathlib import Path

import numpy as np

from skscatharm import SETTINGS, SolidHarmonicScattering
from skscatharm.transform.transform import NUMERICS_VERSION

FILE = Path(__file__).parent / "data" / "frozen.npz"
MOLECULES = [
    [[8, 0, 0, 0.12], [1, 0, 0.76, -0.48], [1, 0, -0.76, -0.48]],
    [
        [6, 0.02, -0.01, 0.03],
        [1, 0.63, 0.62, 0.63],
        [1, -0.62, -0.63, 0.64],
        [1, -0.63, 0.63, -0.62],
        [1, 0.61, -0.63, -0.63],
    ],
    [[6, 0, 0, 0], [8, 0, 0, 1.21], [1, 0, 0.94, -0.54], [9, 0.1, -1.1, -0.7]],
]
SIGNED = {"q": {1: 0.4, 6: -0.1, 8: -0.8, 9: -0.3}}
SMALL = {"J": 1, "L": 2, "sigma": 0.5}
CASES = {
    "default": {},
    "published": SETTINGS["published"] | {"J": 1},
    "double": {**SMALL, "Q": (0.5, 3, 7, 32), "dtype": "float64"},
    "signed": {**SMALL, "Q": (0.5, 1, 3), "channels": SIGNED, "dtype": "float64"},
    "fourier": {**SMALL, "engine": "fourier", "dtype": "float64"},
    "fourier_single": {**SMALL, "Q": (1, 2, 3), "engine": "fourier"},
}


def compute(case: str) -> np.ndarray:
    """Compute the coefficients of a case."""
    return SolidHarmonicScattering(**CASES[case]).transform(MOLECULES)


if __name__ == "__main__":
    np.savez_compressed(
        FILE, version=NUMERICS_VERSION, **{case: compute(case) for case in CASES}
    )
