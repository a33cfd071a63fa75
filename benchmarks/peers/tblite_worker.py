"""Energies of molecules by GFN2-xTB.

    python tblite_worker.py input.npz output.npz

runs in an environment with tblite and ASE (see ``tblite_requirements.txt``) and
exchanges arrays with whoever calls it by files. The input holds

``molecules``
    (n, n_atoms, 4): nuclear charge, x, y, z (Å) of each atom; rows of zeros pad.
``charges``
    (n,): total charges, in units of e.
``relax``
    whether to relax the positions first.

The output holds the ``molecules``, with the positions of the energies; the ``energies``
(n,) in eV, and the ``version`` of tblite.
"""

import sys
from importlib.metadata import version

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from tblite.ase import TBLite

FORCE = 1e-3  # eV/Å, on each atom of a relaxed molecule


def main(source: str, target: str) -> None:
    """Read a file of molecules, write a file of energies."""
    with np.load(source) as file:
        molecules, charges, relax = (
            file[name] for name in ("molecules", "charges", "relax")
        )
    energies = []
    for molecule, charge in zip(molecules, charges, strict=True):
        rows = molecule[:, 0] > 0
        atoms = Atoms(molecule[rows, 0], molecule[rows, 1:])
        # A guess with the charge on one atom converges, one with it on none may not.
        initial = np.zeros(len(atoms))
        initial[0] = charge
        atoms.set_initial_charges(initial)
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        if relax:
            BFGS(atoms, logfile=None).run(fmax=FORCE)
            molecule[rows, 1:] = atoms.positions
        energies.append(atoms.get_potential_energy())
    np.savez(target, molecules=molecules, energies=energies, version=version("tblite"))


if __name__ == "__main__":
    main(*sys.argv[1:])
