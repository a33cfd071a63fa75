"""Molecules: accepted forms, checks and the form that the package computes with."""

from skscatharm.structures.molecules import check_structures, pad_structures
from skscatharm.structures.plausibility import StructureWarning
from skscatharm.structures.structure import Structure

__all__ = ["Structure", "StructureWarning", "check_structures", "pad_structures"]
