"""Molecules with quantum-chemical properties."""

from skscatharm.datasets._qm9 import fetch_qm9, load_qm9_sample

__all__ = ["fetch_qm9", "load_qm9_sample"]
