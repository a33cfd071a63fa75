r"""
Planar molecules as images
==========================

The atoms of many molecules lie in a plane. This example draws such a molecule as an
image, with wavelets and fields in two dimensions, and predicts energies of planar
molecules with :class:`~skscatharm.PlanarScattering`.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import PlanarScattering, distances_from_plane
from skscatharm.datasets import load_qm9_sample

# %%
# Pyridine, a ring of five carbon atoms and one nitrogen atom, lies in the plane of y
# and z. Its density is a sum of Gaussians: an image that no microscope sees. The real
# part of a wavelet of degree l changes its sign 2 l times on a circle. The field is the
# modulus of the density convolved with the wavelet.

pyridine = molecule("C5H5N")
sigma, step = 0.22, 0.05
grid = np.arange(-4, 4, step)
y, z = np.meshgrid(grid, grid, indexing="ij")


def density(width, degree=0):
    """Atoms of a width, times harmonics of a degree around each."""
    positions = pyridine.positions - pyridine.positions.mean(axis=0)
    total = 0
    for charge, (_, y0, z0) in zip(pyridine.numbers, positions, strict=True):
        u = ((y - y0) + 1j * (z - z0)) / width
        total = total + charge * u**degree * np.exp(-(abs(u) ** 2) / 2)
    return total


fig, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
axes[0, 0].imshow(density(sigma).real.T, origin="lower", cmap="magma")
axes[0, 0].set_title("Density")
axes[1, 0].axis("off")
for degree in (1, 2, 3):
    scale = 2 * sigma
    u = (y + 1j * z) / scale
    wavelet = (u**degree * np.exp(-(abs(u) ** 2) / 2)).real
    axes[0, degree].imshow(wavelet[50:-50, 50:-50].T, origin="lower", cmap="RdBu")
    axes[0, degree].set_title(f"Wavelet, l = {degree}")
    # A Gaussian convolved with the wavelet is the wavelet of a larger width.
    field = abs(density(np.hypot(sigma, scale), degree))
    axes[1, degree].imshow(field.T, origin="lower", cmap="magma")
    axes[1, degree].set_title(f"Field, l = {degree}")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
plt.show()

# %%
# The coefficients are integrals of powers of such fields. ``distances_from_plane``
# finds the planar molecules of the sample of QM9.

X, energies = load_qm9_sample(return_X_y=True)
is_planar = distances_from_plane(X) < 0.01
X, energies = X[is_planar], energies[is_planar]
print(f"{len(X)} of {len(is_planar)} molecules are planar")

# %%
# Few molecules are left, so that a regression has few coefficients: of one channel, and
# of the exponents 1 and 2. A ridge regression predicts each molecule from the others.

scattering = PlanarScattering(L=2, Q=(1, 2), channels=["nuclear", "bonding"])
model = make_pipeline(scattering, StandardScaler(), RidgeCV(np.logspace(-6, 2, 17)))
predicted = cross_val_predict(model, X, energies, cv=len(X))
error = np.abs(predicted - energies).mean()

fig, ax = plt.subplots(figsize=(4.5, 4.2), layout="constrained")
ax.plot(energies, predicted, ".")
ax.axline((energies.mean(), energies.mean()), slope=1, color="gray", zorder=0)
ax.set(
    xlabel="Atomization energy (kcal/mol)",
    ylabel="Predicted (kcal/mol)",
    title=f"Mean absolute error {error:.1f} kcal/mol",
)
plt.show()

# %%
# With all 3,035 planar molecules of QM9, the error is far smaller: see
# :doc:`/explanation/planes-and-images`.
