"""
A search
========

How large should scales and degrees be to predict atomization energies? A
:class:`~sklearn.model_selection.GridSearchCV` over a pipeline of scattering and ridge
regression tells.
"""

from tempfile import TemporaryDirectory
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SearchDisplay, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

# %%
# A hundred molecules of QM9 are few, but quickly computed, the more so with atoms that
# are wider than by default. With `memory`, coefficients are kept: each is computed
# once, for all candidates and folds. Here the folder is a temporary one; in a folder
# that stays, they would serve the next search too.

X, y = load_qm9_sample(return_X_y=True)
X, y = X[:100], y[:100]

folder = TemporaryDirectory()
pipeline = Pipeline(
    [
        ("scattering", SolidHarmonicScattering(sigma=0.4, memory=folder.name)),
        ("scaling", StandardScaler()),
        ("regression", RidgeCV(np.logspace(-8, 0, 9))),
    ]
)

# %%
# Parameters of the scattering are named after the step of the pipeline.

search = GridSearchCV(
    pipeline,
    {
        "scattering__J": [0, 1, 2],
        "scattering__L": [0, 1, 2],
        "scattering__Q": [(1,), (1, 2), (0.5, 1, 2, 3)],
    },
    scoring="neg_mean_absolute_error",
    cv=3,
    n_jobs=2,
)
search.fit(X, y)
print(search.best_params_)

# %%
# Times of a search with a store are those of reading. What a candidate costs is better
# measured by itself, without a store.

seconds = {}
for J in range(3):
    for L in range(3):
        start = perf_counter()
        SolidHarmonicScattering(J, L, sigma=0.4).transform(X[:3])
        seconds[J, L] = (perf_counter() - start) / 3

costs = [
    1e3 * seconds[params["scattering__J"], params["scattering__L"]]
    for params in search.cv_results_["params"]
]

# %%
# The line follows the best candidate up to each cost, the ring marks the best of all.
# With so few molecules to learn from, the most coefficients need not be the best. In
# the maps, each cell shows the best candidate of a pair of values.

SearchDisplay.from_search(
    search,
    costs=costs,
    error_label="Mean absolute error (kcal/mol)",
    cost_label="Time for a molecule (ms)",
)
plt.show()
folder.cleanup()
