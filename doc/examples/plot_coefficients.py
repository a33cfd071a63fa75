"""
The coefficients of a molecule
==============================

This example computes the coefficients of ethanol, and shows that they do not change
when the molecule is rotated.
"""

import matplotlib.pyplot as plt
from ase.build import molecule
from scipy.spatial.transform import Rotation

from skscatharm import SolidHarmonicScattering

# %%
# The parameters are the defaults. ``set_output`` returns the coefficients as a
# DataFrame with a named column for each.

ethanol = molecule("CH3CH2OH")
scattering = SolidHarmonicScattering().set_output(transform="pandas")
coefficients = scattering.transform([ethanol]).iloc[0]
print(coefficients)

# %%
# For degree 0 and exponent 1, the coefficients equal the sum of the charges at any
# scale. For higher degrees they are smaller. Each atom is a Gaussian, which smooths the
# wavelets of the smallest scales most. The fields of neighbouring atoms cancel in part
# where they overlap. Softening reduces small moduli.

charges = ethanol.get_atomic_numbers().sum()
degrees = range(scattering.L + 1)

fig, ax = plt.subplots(layout="constrained")
for j in range(scattering.J + 1):
    names = [f"S1_nuclear_j{j}_l{degree}_q1" for degree in degrees]
    ax.plot(degrees, coefficients[names], "o-", label=f"j = {j}")
ax.axhline(charges, color="gray", linestyle=":", label="Sum of the charges")
ax.set(xlabel="Degree l", ylabel="S1, channel nuclear, q = 1", xticks=degrees)
ax.legend()
plt.show()

# %%
# Now compare five random rotations of the molecule with a small deformation: one
# hydrogen atom is shifted by 0.01 Å. The picture shows the largest relative change of
# each coefficient; changes below 1e-9 are drawn at 1e-9. The shift changes most
# coefficients by orders of magnitude more than the rotations do.

rotated = []
for rotation in Rotation.random(5, random_state=0):
    copy = ethanol.copy()
    copy.positions = rotation.apply(ethanol.positions)
    rotated.append(copy)
shifted = ethanol.copy()
shifted.positions[-1, 0] += 0.01


def largest_changes(molecules):
    changes = scattering.transform(molecules) / coefficients - 1
    return changes.abs().max().clip(lower=1e-9)


fig, ax = plt.subplots(layout="constrained")
ax.semilogy(largest_changes([shifted]).to_numpy(), ".", label="One atom shifted")
ax.semilogy(largest_changes(rotated).to_numpy(), ".", label="Five rotations")
ax.set(xlabel="Coefficient", ylabel="Relative change")
ax.legend()
plt.show()
