"""
A search
========

How large should scales and degrees be to predict atomization energies? A
:class:`~sklearn.model_selection.GridSearchCV` over a pipeline of scattering and ridge
regression tells.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

# %%
# A hundred molecules of QM9 are few, but quickly computed, the more so with atoms that
# are wider than by default.

X, y = load_qm9_sample(return_X_y=True)
X, y = X[:100], y[:100]

pipeline = Pipeline(
    [
        ("scattering", SolidHarmonicScattering(sigma=0.4)),
        ("scaling", StandardScaler()),
        ("regression", RidgeCV(np.logspace(-8, 0, 9))),
    ]
)

# %%
# Parameters of the scattering are named after the step of the pipeline.

J, L = [0, 1, 2], [0, 1, 2]
search = GridSearchCV(
    pipeline,
    {"scattering__J": J, "scattering__L": L},
    scoring="neg_mean_absolute_error",
    cv=2,
    n_jobs=2,
)
search.fit(X, y)
print(search.best_params_)

# %%
# The candidates come in the order of the grid, L changing fastest. With so few
# molecules to learn from, the most coefficients need not be the best.

errors = -search.cv_results_["mean_test_score"].reshape(len(J), len(L))

fig, ax = plt.subplots(layout="constrained")
image = ax.pcolormesh(L, J, errors, cmap="YlOrRd")
for (i, k), error in np.ndenumerate(errors):
    ax.text(L[k], J[i], f"{error:.1f}", ha="center", va="center")
ax.set(xlabel="L", ylabel="J", xticks=L, yticks=J)
fig.colorbar(image, label="Mean absolute error (kcal/mol)")
plt.show()
