"""Errors of ridge and multilinear regression on the sample of QM9, in 5 folds.

Run ``python benchmarks/qm9/regressions.py`` in an environment with the package. The
coefficients of the 2,000 molecules are the default ones. For ridge regression, the
best penalty on the same folds is taken.
"""

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import SETTINGS, MultilinearRegressor, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

SIZES = (500, 1000, 2000)
FOLDS = KFold(5, shuffle=True, random_state=0)
SCORING = "neg_mean_absolute_error"


def main() -> None:
    sample = load_qm9_sample(target="all")
    scattering = SolidHarmonicScattering(**SETTINGS["soft"], n_jobs=-1, verbose=1)
    X = scattering.fit_transform(sample.data)
    ridge = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": np.logspace(-9, 0, 10)},
        scoring=SCORING,
        cv=FOLDS,
    )
    print("property  unit       molecules    ridge  multilinear")
    for name in ("U0", "Cv"):
        column = sample.target_names.index(name)
        for n in SIZES:
            y = sample.target[:n, column]
            linear = -ridge.fit(X[:n], y).best_score_
            multilinear = -cross_val_score(
                MultilinearRegressor(random_state=0),
                X[:n],
                y,
                scoring=SCORING,
                cv=FOLDS,
            ).mean()
            unit = sample.target_units[column]
            print(f"{name:8}  {unit:9}  {n:9}  {linear:7.3f}  {multilinear:11.3f}")


if __name__ == "__main__":
    main()
