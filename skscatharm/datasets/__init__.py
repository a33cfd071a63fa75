"""Molecules with quantum-chemical properties."""

from skscatharm.datasets._qm9 import load_qm9_sample

__all__ = ["load_qm9_sample"]
