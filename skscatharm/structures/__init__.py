"""Molecules: what a user may pass, and the one form that the package computes with."""

from skscatharm.structures.molecules import Structure, check_structures, pad_structures

__all__ = ["Structure", "check_structures", "pad_structures"]
