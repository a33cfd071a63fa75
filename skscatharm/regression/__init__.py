"""The regressors: sums of products of linear forms of the coefficients."""

from skscatharm.regression.multilinear import MultilinearRegressor

__all__ = ["MultilinearRegressor"]
