"""Coefficients kept between calls, in a folder."""

from skscatharm.store.files import CoefficientStore, StoredCoefficients
from skscatharm.store.problems import StoreWarning

__all__ = ["CoefficientStore", "StoreWarning", "StoredCoefficients"]
