"""
Interference patterns
=====================

Each atom of a molecule is the source of a wavelet, and the wavelets of all atoms
interfere. The coefficients are integrals of powers of the modulus of this field. This
example draws the fields of two molecules with :class:`~skscatharm.FieldDisplay`.
"""

import matplotlib.pyplot as plt
from ase.build import molecule

from skscatharm import FieldDisplay, SolidHarmonicScattering

# %%
# Methane
# -------
#
# Without a choice of paths, the picture has the fields of order 1 of the first channel:
# a row for each scale, and a column for each degree. All planes through the carbon atom
# fit the nuclei of methane equally well; the one in the picture has two of the hydrogen
# atoms, whose symbols are shown. A ring marks atoms that are not in the plane.
#
# Degree 0 is a blurred density. Wavelets of degree 1 and more vanish at their centre,
# so that each atom is a dark spot in a bright ring. Where the rings of neighbours meet,
# they add up or cancel.

scattering = SolidHarmonicScattering(J=1, L=3)
FieldDisplay.from_estimator(scattering, molecule("CH4"))
plt.show()

# %%
# Pyridine
# --------
#
# A ring of five carbon atoms and one nitrogen atom. Paths have the names of the
# coefficients, without the exponent. The first is a density, the second a field of
# order 1, and the third a field of order 2: the modulus of the field of order 1 at
# scale 0, convolved with wavelets of scale 1.

paths = ["S0_nuclear", "S1_nuclear_j1_l3", "S2_nuclear_j0_j1_l1"]
display = FieldDisplay.from_estimator(scattering, molecule("C5H5N"), paths=paths)
plt.show()

# %%
# The values and the points of the picture are attributes. Points are in the coordinates
# of the molecule.

print(display.values_.shape, display.points_.shape)

# %%
# A plane above the atoms
# -----------------------
#
# `offset` moves the picture out of the plane, and `plane` chooses the plane through
# three atoms. Here it is 0.6 Å above the ring.

FieldDisplay.from_estimator(
    scattering, molecule("C5H5N"), paths=["S1_nuclear_j1_l3"], offset=0.6
)
plt.show()
