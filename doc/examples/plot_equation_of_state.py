r"""
Equation of state of a metal
============================

A potential learns energies, forces and stresses of small distorted cells of copper.
Then it predicts energy and pressure as functions of the volume, also of a phase that it
has not seen. The reference is the effective medium theory of ASE, which needs no time.
With DFT frames from a file, the code is the same.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from skscatharm import KernelRegressor, ScatteringPotential, SolidHarmonicScattering
from skscatharm.ase import ScatteringCalculator

# %%
# The training set has cells with one and two atoms, of the face-centred and the
# body-centred cubic lattice. Random strains change volume and shape, and random shifts
# move the atoms.

rng = np.random.default_rng(0)
frames = []
for i in range(40):
    cell = bulk("Cu") if i % 2 else bulk("Cu", "bcc", a=2.88)
    atoms = cell * (1 + i // 2 % 2, 1, 1)
    strain = rng.normal(scale=0.03, size=(3, 3)) + rng.uniform(-0.06, 0.06) * np.eye(3)
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    reference = EMT()
    reference.calculate(atoms)
    results = {name: reference.results[name] for name in ("energy", "forces", "stress")}
    atoms.calc = SinglePointCalculator(atoms, **results)
    frames.append(atoms)

# %%
# In a crystal of one element, one channel is enough, in which each atom has the weight
# 1. The potential finds the energies, forces and stresses in the frames.

scattering = SolidHarmonicScattering(
    J=1,
    L=2,
    Q=(1, 2, 3, 4),
    sigma=0.6,
    channels={"copper": {29: 1}},
    softening=1,
    dtype="float64",
)
potential = ScatteringPotential(scattering, KernelRegressor(random_state=0))
potential.fit(frames)

# %%
# Energies of cells of different volume. The pressure is minus the mean of the diagonal
# of the stress.

phases = {
    "fcc": bulk("Cu"),
    "bcc": bulk("Cu", "bcc", a=2.88),
    "hcp, not in the training set": bulk("Cu", "hcp", a=2.55, covera=1.633),
}
scales = np.linspace(0.95, 1.06, 23)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
styles = (".", "C0"), (".", "C1"), ("o", "C2")
for (name, cell), (marker, color) in zip(phases.items(), styles, strict=True):
    style = {"marker": marker, "color": color, "fillstyle": "none", "linestyle": ""}
    cells = []
    for scale in scales:
        atoms = cell.copy()
        atoms.set_cell(cell.cell * scale, scale_atoms=True)
        cells.append(atoms)
    volumes = np.array([atoms.get_volume() / len(atoms) for atoms in cells])
    found = potential.evaluate(cells, stresses=True)
    energies = found.energies / len(cell)
    pressures = -found.stresses[:, :3].mean(axis=1) / units.GPa
    left.plot(volumes, energies, label=name, **style)
    right.plot(volumes, pressures, **style)

    for atoms in cells:
        atoms.calc = EMT()
    expected = [atoms.get_potential_energy() / len(cell) for atoms in cells]
    left.plot(volumes, expected, color=color, linewidth=1)
    expected = [-atoms.get_stress()[:3].mean() / units.GPa for atoms in cells]
    right.plot(volumes, expected, color=color, linewidth=1)

    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    print(f"{name}: {volume:.2f} Å^3, bulk modulus {modulus / units.GPa:.0f} GPa")
left.set(xlabel="Volume per atom (Å³)", ylabel="Energy per atom (eV)")
right.set(xlabel="Volume per atom (Å³)", ylabel="Pressure (GPa)")
left.legend(title="Points: potential, lines: reference")
plt.show()

# %%
# The close-packed lattices fcc and hcp differ by less than the points. In ASE, the
# potential is a calculator, and a filter relaxes the cell along with the atoms:

atoms = bulk("Cu", cubic=True)
atoms.set_cell(atoms.cell * [1.02, 0.99, 1], scale_atoms=True)
atoms.calc = ScatteringCalculator(potential)
BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01)
print("edges of the cell:", atoms.cell.lengths().round(2), "Å")
