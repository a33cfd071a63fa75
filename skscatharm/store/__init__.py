"""Coefficients saved in a folder."""

from skscatharm.store.files import CoefficientStore, StoredCoefficients, open_store
from skscatharm.store.problems import StoreWarning

__all__ = ["CoefficientStore", "StoreWarning", "StoredCoefficients", "open_store"]
