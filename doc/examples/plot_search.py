"""
Searching parameters
====================

Which scales, degrees and exponents predict atomization energies best? This example
searches them by cross-validation of a pipeline, and draws the results with
:class:`~skscatharm.SearchDisplay`.
"""

from tempfile import TemporaryDirectory
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import loguniform
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SearchDisplay, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

# %%
# A pipeline with a coefficient store
# -----------------------------------
#
# The example uses 120 molecules to be fast. With `memory`, each coefficient is computed
# once for all candidates and folds, and saved in a folder. This folder is temporary. A
# permanent one would serve later searches, too.

X, y = load_qm9_sample(return_X_y=True)
X, y = X[:120], y[:120]

folder = TemporaryDirectory()
pipeline = Pipeline(
    [
        ("scattering", SolidHarmonicScattering(sigma=0.35, memory=folder.name)),
        ("scaling", StandardScaler()),
        ("regression", RidgeCV(np.logspace(-10, 0, 11))),
    ]
)

# %%
# A grid search
# -------------
#
# Each parameter has the name of its step in the pipeline as a prefix.

search = GridSearchCV(
    pipeline,
    {
        "scattering__J": [0, 1, 2],
        "scattering__L": [1, 2, 3],
        "scattering__Q": [(1, 2), (0.5, 1, 2), (0.5, 1, 2, 3, 4)],
    },
    scoring="neg_mean_absolute_error",
    cv=3,
    n_jobs=2,
)
search.fit(X, y)
print(search.best_params_, -search.best_score_)

# %%
# The search reads coefficients from the store, so its times do not include computing
# them. Measure the cost of each candidate without a store.

seconds = {}
for J in (0, 1, 2):
    for L in (1, 2, 3):
        scattering = SolidHarmonicScattering(J, L, sigma=0.35)
        start = perf_counter()
        scattering.transform(X[:3])
        seconds[J, L] = (perf_counter() - start) / 3

costs = [
    1e3 * seconds[params["scattering__J"], params["scattering__L"]]
    for params in search.cv_results_["params"]
]

# %%
# In the first panel, the line follows the best candidate up to each cost, and the ring
# marks the best of all. Each map shows the least error for each pair of values. With
# 80 molecules to train on, more coefficients are not always better.

SearchDisplay.from_search(
    search,
    costs=costs,
    error_label="Mean absolute error (kcal/mol)",
    cost_label="Time for a molecule (ms)",
)
plt.show()

# %%
# A randomized search
# -------------------
#
# Values drawn from a distribution are shown as points. Here, the penalty of a ridge
# regression is drawn for each candidate.

pipeline.set_params(regression=Ridge())
search = RandomizedSearchCV(
    pipeline,
    {
        "scattering__L": [1, 2, 3],
        "regression__alpha": loguniform(1e-8, 1),
    },
    n_iter=40,
    scoring="neg_mean_absolute_error",
    cv=3,
    n_jobs=2,
    random_state=0,
)
search.fit(X, y)
SearchDisplay.from_search(
    search,
    error_label="Mean absolute error (kcal/mol)",
)
plt.show()
folder.cleanup()
