"""
The coefficients of a molecule
==============================

What they look like, and that they do not change when the molecule turns.
"""

import matplotlib.pyplot as plt
from ase.build import molecule
from scipy.spatial.transform import Rotation

from skscatharm import SolidHarmonicScattering

# %%
# Ethanol, with the standard parameters. ``set_output`` turns the coefficients into a
# DataFrame with their names.

ethanol = molecule("CH3CH2OH")
scattering = SolidHarmonicScattering().set_output(transform="pandas")
coefficients = scattering.transform([ethanol]).iloc[0]
print(coefficients)

# %%
# With the exponent 1, the coefficients of degree 0 are the sum of the charges, at any
# scale. At higher degrees they are less: atoms are Gaussians, which smooth the wavelets
# of the smallest scales most, and where the fields of two atoms meet they cancel in
# part.

charges = ethanol.get_atomic_numbers().sum()
degrees = range(scattering.L + 1)

fig, ax = plt.subplots(layout="constrained")
for j in range(scattering.J + 1):
    names = [f"S1[nuclear,j={j},l={degree},q=1]" for degree in degrees]
    ax.plot(degrees, coefficients[names], "o-", label=f"j = {j}")
ax.axhline(charges, color="gray", linestyle=":", label="Sum of the charges")
ax.set(xlabel="Degree l", ylabel="S1[nuclear,j,l,q=1]", xticks=degrees)
ax.legend()
plt.show()

# %%
# Now the same molecule in five random orientations, and in its own with one hydrogen
# atom shifted by a hundredth of an Å. The largest change of each coefficient over the
# orientations is rounding (or nothing, drawn at the bottom). The shift changes
# most coefficients by far more.

turned = []
for rotation in Rotation.random(5, random_state=0):
    copy = ethanol.copy()
    copy.positions = rotation.apply(ethanol.positions)
    turned.append(copy)
shifted = ethanol.copy()
shifted.positions[-1, 0] += 0.01


def largest_changes(molecules):
    changes = scattering.transform(molecules) / coefficients - 1
    return changes.abs().max().clip(lower=1e-9)


fig, ax = plt.subplots(layout="constrained")
ax.semilogy(largest_changes([shifted]).to_numpy(), ".", label="One atom shifted")
ax.semilogy(largest_changes(turned).to_numpy(), ".", label="Five orientations")
ax.set(xlabel="Coefficient", ylabel="Relative change")
ax.legend()
plt.show()
