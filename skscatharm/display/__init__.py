"""Pictures, one class each."""

from skscatharm.display.search import SearchDisplay

__all__ = ["SearchDisplay"]
