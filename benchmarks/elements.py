"""Does pooling by element predict energies of molecules better?

    python benchmarks/elements.py [N_MOLECULES]

sums the rows of :class:`LocalScattering` over the atoms of each element, which gives a
molecule as many times the coefficients as there are elements. It compares them with
those of the whole molecule: atomization energies of the sample of QM9, 5 folds.
"""

import sys

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import LocalScattering, MultilinearRegressor
from skscatharm.datasets import load_qm9_sample

ELEMENTS = (1, 6, 7, 8, 9)


def main(n_molecules: int = 600) -> None:
    X, y = load_qm9_sample(return_X_y=True)
    X, y = X[:n_molecules], y[:n_molecules]
    folds = KFold(5, shuffle=True, random_state=0)
    models = {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-8, 2, 11))),
        "multilinear": MultilinearRegressor(random_state=0),
    }
    for window in (1.0, 0.7):
        local = LocalScattering(sigma=0.4, window=window)
        rows, ids = local.fit_transform(X), local.molecule_ids(X)
        elements = X[X[..., 0] > 0][:, 0]
        pooled = np.zeros((len(ELEMENTS), len(X), rows.shape[1]))
        for of_element, Z in zip(pooled, ELEMENTS, strict=True):
            np.add.at(of_element, ids[elements == Z], rows[elements == Z])
        by_element = np.concatenate(pooled, axis=1)
        for name, columns in (("whole", pooled.sum(axis=0)), ("elements", by_element)):
            columns = columns[:, columns.std(axis=0) > 0]
            for regressor, model in models.items():
                predicted = cross_val_predict(model, columns, y, cv=folds)
                error = np.abs(predicted - y).mean()
                print(f"window {window}, {name}, {regressor}: {error:.2f} kcal/mol")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
