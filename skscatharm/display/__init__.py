"""Pictures, one class each."""

from skscatharm.display.coefficients import CoefficientDisplay
from skscatharm.display.energy import EnergyMapDisplay
from skscatharm.display.fields import FieldDisplay
from skscatharm.display.search import SearchDisplay

__all__ = ["CoefficientDisplay", "EnergyMapDisplay", "FieldDisplay", "SearchDisplay"]
