"""Solid harmonic wavelet scattering of molecules for scikit-learn."""

from skscatharm import datasets
from skscatharm.display import (
    CoefficientDisplay,
    EnergyMapDisplay,
    FieldDisplay,
    SearchDisplay,
)
from skscatharm.images import ImageScattering
from skscatharm.local import LocalScattering
from skscatharm.planar import PlanarScattering
from skscatharm.potentials import ScatteringPotential
from skscatharm.regression import KernelRegressor, MultilinearRegressor
from skscatharm.scattering import SETTINGS, SolidHarmonicScattering
from skscatharm.store import CoefficientStore, StoreWarning
from skscatharm.structures import StructureWarning, pad_structures
from skscatharm.structures.channels import STANDARD_CHANNELS
from skscatharm.structures.planes import distances_from_plane
from skscatharm.voxels import VoxelScattering

__version__ = "0.1.0"

__all__ = [
    "SETTINGS",
    "STANDARD_CHANNELS",
    "CoefficientDisplay",
    "CoefficientStore",
    "EnergyMapDisplay",
    "FieldDisplay",
    "ImageScattering",
    "KernelRegressor",
    "LocalScattering",
    "MultilinearRegressor",
    "PlanarScattering",
    "ScatteringPotential",
    "SearchDisplay",
    "SolidHarmonicScattering",
    "StoreWarning",
    "StructureWarning",
    "VoxelScattering",
    "__version__",
    "datasets",
    "distances_from_plane",
    "pad_structures",
]
