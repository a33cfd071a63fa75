"""Compute the partial charges of molecules of QM9 that the package ships.

    python benchmarks/qm9/draw_charges.py

runs in an environment with the package and its extra ``forces``, and needs a minute.
The charges are Mulliken charges of GFN2-xTB, of the first molecules of the sample of
QM9. The script prints the numbers in the description of the charges.
"""

from pathlib import Path

import numpy as np
from ase import Atoms
from tblite.ase import TBLite

import skscatharm.datasets

N_MOLECULES = 500


def draw() -> np.ndarray:
    """Return the charges of all atoms in units of 1e-5 e, which compress well."""
    X, _ = skscatharm.datasets.load_qm9_sample(return_X_y=True)
    found = []
    for table in X[:N_MOLECULES]:
        rows = table[table[:, 0] > 0]
        atoms = Atoms(rows[:, 0].astype(int), rows[:, 1:])
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        found.append(atoms.get_charges())
    return np.rint(1e5 * np.concatenate(found)).astype(np.int32)


if __name__ == "__main__":
    charges = draw()
    data = Path(skscatharm.datasets.__file__).parent / "data"
    np.savez_compressed(data / "qm9_charges.npz", charges=charges)
    print(
        f"{len(charges)} atoms, from {charges.min() / 1e5} to {charges.max() / 1e5} e"
    )
