"""
The coefficients of a molecule
==============================

What they look like, and that they do not change when the molecule turns.
"""

import matplotlib.pyplot as plt
import numpy as np
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
# scale. At higher degrees, the fields of the atoms cancel each other the more, the
# larger the scale.

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
# Now the same molecule in five random orientations. No coefficient changes by more than
# the error that the sampling of the fields leaves.

turned = []
for rotation in Rotation.random(5, random_state=0):
    copy = ethanol.copy()
    copy.positions = rotation.apply(ethanol.positions)
    turned.append(copy)
changes = np.abs(scattering.transform(turned) / coefficients - 1)

fig, ax = plt.subplots(layout="constrained")
ax.semilogy(changes.to_numpy().T, ".", markersize=3)
ax.axhline(scattering.tol, color="gray", linestyle=":", label="tol")
ax.set(
    xlabel="Coefficient",
    ylabel="Relative change",
    title="Ethanol in five orientations",
    ylim=(1e-9, 1e-2),
)
ax.legend()
plt.show()
