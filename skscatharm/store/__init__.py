"""Coefficients kept between calls, in a folder."""

from skscatharm.store.files import CoefficientStore, StoreWarning

__all__ = ["CoefficientStore", "StoreWarning"]
