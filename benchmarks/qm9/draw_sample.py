"""Draw the sample of QM9 that the package ships from the files of qm9pack.

Run ``python benchmarks/qm9/draw_sample.py`` in an environment with the extra ``qm9``.
"""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import resample

import skscatharm.datasets
from skscatharm.datasets._qm9 import Records, pack, parse, qm9pack_folder

N_MOLECULES = 2000


def draw() -> dict[str, Any]:
    """Return the packed arrays of molecules drawn at random, in random order."""
    records = parse(qm9pack_folder())
    sample = Records(
        *resample(*records, replace=False, n_samples=N_MOLECULES, random_state=0)
    )
    n_atoms = (sample.charges > 0).sum(axis=1).max()
    return pack(
        sample._replace(
            charges=sample.charges[:, :n_atoms],
            positions=sample.positions[:, :n_atoms],
        )
    )


if __name__ == "__main__":
    data = Path(skscatharm.datasets.__file__).parent / "data"
    np.savez_compressed(data / "qm9_sample.npz", **draw())
