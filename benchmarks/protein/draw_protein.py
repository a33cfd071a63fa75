"""Make the protein that ``growth.py`` measures with: ``hiv_protease.npz``.

    python benchmarks/protein/draw_protein.py

runs in an environment with NumPy, ``openmm`` and ``pymol-open-source``. The structure
is 1HPV of the Protein Data Bank, HIV-1 protease, which comes with PyMOL, without the
inhibitor and the water. X-rays do not show hydrogen; OpenMM adds it, at pH 7. The file
holds the nuclear charges, the positions (Å) and the number of the residue of each atom.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from openmm import app, unit

STRUCTURE = "pymol_path/data/tut/1hpv.pdb"


def draw() -> dict[str, np.ndarray]:
    """Return the arrays of the file."""
    # The folder is found without importing PyMOL, which needs a display's libraries.
    spec = find_spec("pymol")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("pymol-open-source is missing.")
    pdb = app.PDBFile(str(Path(spec.submodule_search_locations[0]) / STRUCTURE))
    model = app.Modeller(pdb.topology, pdb.positions)
    model.delete(
        [
            residue
            for residue in model.topology.residues()
            if "CA" not in {atom.name for atom in residue.atoms()}
        ]
    )
    model.addHydrogens(app.ForceField("amber14-all.xml"), pH=7.0)
    atoms = list(model.topology.atoms())
    positions = np.array(model.positions.value_in_unit(unit.angstrom))
    return {
        "charges": np.array([atom.element.atomic_number for atom in atoms], np.uint8),
        "positions": positions.round(3).astype(np.float32),
        "residues": np.array([atom.residue.index for atom in atoms], np.uint8),
    }


if __name__ == "__main__":
    target = Path(__file__).resolve().with_name("hiv_protease.npz")
    np.savez_compressed(target, **draw())
