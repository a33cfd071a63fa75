"""
Which part of space carries the energy
======================================

A linear model of scattering coefficients predicts an integral over space. This example
fits a model to atomization energies, and draws the integrand with
:class:`~skscatharm.EnergyMapDisplay`, and the coefficients that the model uses with
:class:`~skscatharm.CoefficientDisplay`.
"""

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from ase.build import molecule
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import CoefficientDisplay, EnergyMapDisplay, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

# %%
# A search
# --------
#
# The penalty of a ridge regression is searched by cross-validation on 200 molecules.

X, y = load_qm9_sample(return_X_y=True)
X_train, X_test, y_train = X[:200], X[200:260], y[:200]

folder = TemporaryDirectory()
scattering = SolidHarmonicScattering(
    J=1, L=3, Q=(0.5, 1, 2), sigma=0.4, memory=folder.name
)
pipeline = Pipeline(
    [("scattering", scattering), ("scaling", StandardScaler()), ("ridge", Ridge())]
)
search = GridSearchCV(
    pipeline,
    {"ridge__alpha": [1e-6, 1e-4, 1e-2, 1]},
    scoring="neg_mean_absolute_error",
    cv=3,
)
search.fit(X_train, y_train)
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(params, f"error {-score:.1f} kcal/mol")

# %%
# The coefficients that the model uses
# ------------------------------------
#
# A bar is the root mean square change of the prediction if all coefficients of the
# group are replaced by their means over the molecules. The dashed line is that of all
# coefficients. The bars of the best model are far above it: groups have large
# contributions that cancel.

CoefficientDisplay.from_estimator(search.best_estimator_, X_test, unit="kcal/mol")
plt.show()

# %%
# A larger penalty costs some accuracy, and makes contributions smaller.

model = pipeline.set_params(ridge__alpha=1e-2).fit(X_train, y_train)
CoefficientDisplay.from_estimator(model, X_test, unit="kcal/mol")
plt.show()

# %%
# The map of a prediction
# -----------------------
#
# The map of acetamide by this model, integrated across the plane. Its integral plus a
# constant is the prediction, which the title states.

acetamide = molecule("CH3CONH2")
display = EnergyMapDisplay.from_estimator(model, acetamide, unit="kcal/mol")
plt.show()

total = (display.values_ * display.volumes_).sum()
print(f"{total:.2f} + {display.intercept_:.2f} = {display.prediction_:.2f} kcal/mol")

# %%
# Windows around the atoms divide the integral among them. Carbon atoms contribute most,
# as they have the most bonds.

display.plot(kind="atoms")
plt.show()

# %%
# The map of the best model of the search predicts a similar energy from
# contributions that are larger and of both signs. It is more accurate, and harder to
# read.

EnergyMapDisplay.from_estimator(
    search.best_estimator_, acetamide, unit="kcal/mol", kind="atoms"
)
plt.show()
folder.cleanup()
