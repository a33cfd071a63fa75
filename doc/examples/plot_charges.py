"""
Partial charges of atoms
========================

:class:`~skscatharm.LocalScattering` computes coefficients of atoms instead of
molecules. This example learns the partial charges of the atoms of small organic
molecules from them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import LocalScattering
from skscatharm.datasets import load_qm9_charges

# %%
# The data are molecules of QM9 with the Mulliken charges of GFN2-xTB. There is one
# charge for each atom, and one row of coefficients for each atom, in the same order.
# Fluorine is left out: too few molecules hold it.

sample = load_qm9_charges()
chosen = np.flatnonzero(~(sample.data[..., 0] == 9).any(axis=1))[:80]
molecules = sample.data[chosen]
of_these = np.isin(sample.molecule_ids, chosen)
charges, elements = sample.target[of_these], sample.atomic_numbers[of_these]

local = LocalScattering(sigma=0.4, max_order=1)
rows = local.fit_transform(molecules)
print(f"{len(molecules)} molecules, {len(rows)} atoms, {rows.shape[1]} coefficients")

# %%
# The rows of a molecule add up to the coefficients of the molecule: each point of space
# is divided among the atoms around it. Here the integral of the nuclear density is
# divided, in the first molecule. Windows reach into the neighbours, so a hydrogen atom
# has more than its own charge.

column = local.get_feature_names_out().tolist().index("S0_nuclear_q1")
ids = local.molecule_ids(molecules)
for charge, share in zip(elements[ids == 0], rows[ids == 0, column], strict=True):
    print(f"Z = {charge}: {share:.2f}")
print(f"sum: {rows[ids == 0, column].sum():.2f}")

# %%
# A ridge regression predicts the charges. The atoms of a molecule stay together in
# cross-validation: the model never sees other atoms of a molecule that it predicts.

model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-6, 2, 9)))
predicted = cross_val_predict(model, rows, charges, groups=ids, cv=GroupKFold(5))
error = np.abs(predicted - charges).mean()
spread = np.abs(charges - charges.mean()).mean()
print(f"mean absolute error {error:.4f} e, mean deviation {spread:.3f} e")

fig, ax = plt.subplots(figsize=(4.8, 4.4), layout="constrained")
colours = {1: "#999999", 6: "#222222", 7: "#0072b2", 8: "#d55e00"}
for Z, symbol in zip(colours, "HCNO", strict=True):
    these = elements == Z
    ax.plot(charges[these], predicted[these], ".", color=colours[Z], label=symbol)
ax.axline((0, 0), slope=1, color="gray", linewidth=0.8, zorder=0)
ax.set(
    xlabel="Partial charge (e)",
    ylabel="Predicted (e)",
    title=f"Mean absolute error {error:.3f} e",
    aspect="equal",
)
ax.legend()
plt.show()
