"""Regression of targets, and of their derivatives."""

from skscatharm.regression.kernel import KernelRegressor
from skscatharm.regression.multilinear import MultilinearRegressor

__all__ = ["KernelRegressor", "MultilinearRegressor"]
