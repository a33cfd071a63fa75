"""Molecules with quantum-chemical properties."""

from skscatharm.datasets._charges import load_qm9_charges
from skscatharm.datasets._malonaldehyde import load_malonaldehyde_forces
from skscatharm.datasets._qm9 import fetch_qm9, load_qm9_sample

__all__ = [
    "fetch_qm9",
    "load_malonaldehyde_forces",
    "load_qm9_charges",
    "load_qm9_sample",
]
