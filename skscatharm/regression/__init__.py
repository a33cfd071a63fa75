"""Regression by products of linear forms."""

from skscatharm.regression.multilinear import MultilinearRegressor

__all__ = ["MultilinearRegressor"]
