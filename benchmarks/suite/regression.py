"""The regressors: fit and prediction by degree and number of molecules."""

import numpy as np

from skscatharm import MultilinearRegressor


class Multilinear:
    """Features as collinear as coefficients are, and a target that bends."""

    params = ((1, 2, 3), (500, 2000))
    param_names = ("degree", "molecules")
    timeout = 600.0

    def setup(self, degree: int, n_molecules: int) -> None:
        rng = np.random.default_rng(0)
        factors = rng.normal(size=(n_molecules, 400)) * np.logspace(0, -6, 400)
        self.X = factors @ rng.normal(size=(400, 400))
        self.y = factors[:, 0] + factors[:, 1] * factors[:, 2]
        self.regressor = MultilinearRegressor(degree=degree, random_state=0)
        # The time of predictions does not depend on how good they are.
        self.fitted = MultilinearRegressor(
            degree=degree, alpha=1e-6, max_epochs=1, random_state=0
        )
        self.fitted.fit(self.X[:300], self.y[:300])

    def time_fit(self, degree: int, n_molecules: int) -> None:
        self.regressor.fit(self.X, self.y)

    def peakmem_fit(self, degree: int, n_molecules: int) -> None:
        self.regressor.fit(self.X, self.y)

    def time_predict(self, degree: int, n_molecules: int) -> None:
        self.fitted.predict(self.X)
