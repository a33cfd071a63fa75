"""Solid harmonic wavelet scattering of molecules for scikit-learn."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers need these; `_HOMES` serves at runtime
    from skscatharm import datasets as datasets
    from skscatharm.atomic import AtomicRegressor as AtomicRegressor
    from skscatharm.display import CoefficientDisplay as CoefficientDisplay
    from skscatharm.display import EnergyMapDisplay as EnergyMapDisplay
    from skscatharm.display import FieldDisplay as FieldDisplay
    from skscatharm.display import SearchDisplay as SearchDisplay
    from skscatharm.images import ImageScattering as ImageScattering
    from skscatharm.local import LocalScattering as LocalScattering
    from skscatharm.planar import PlanarScattering as PlanarScattering
    from skscatharm.potentials import ScatteringPotential as ScatteringPotential
    from skscatharm.regression import KernelRegressor as KernelRegressor
    from skscatharm.regression import MultilinearRegressor as MultilinearRegressor
    from skscatharm.scattering import SETTINGS as SETTINGS
    from skscatharm.scattering import SolidHarmonicScattering as SolidHarmonicScattering
    from skscatharm.store import CoefficientStore as CoefficientStore
    from skscatharm.store import StoreWarning as StoreWarning
    from skscatharm.structures import StructureWarning as StructureWarning
    from skscatharm.structures import pad_structures as pad_structures
    from skscatharm.structures.channels import STANDARD_CHANNELS as STANDARD_CHANNELS
    from skscatharm.structures.channels import element_channels as element_channels
    from skscatharm.structures.planes import (
        distances_from_plane as distances_from_plane,
    )
    from skscatharm.voxels import VoxelScattering as VoxelScattering

__version__ = "0.1.0"

# Where each public name comes from. Importing scikit-learn and numba takes seconds, so
# a name is imported when it is first used.
_HOMES = {
    "SETTINGS": "scattering",
    "STANDARD_CHANNELS": "structures.channels",
    "AtomicRegressor": "atomic",
    "CoefficientDisplay": "display",
    "CoefficientStore": "store",
    "EnergyMapDisplay": "display",
    "FieldDisplay": "display",
    "ImageScattering": "images",
    "KernelRegressor": "regression",
    "LocalScattering": "local",
    "MultilinearRegressor": "regression",
    "PlanarScattering": "planar",
    "ScatteringPotential": "potentials",
    "SearchDisplay": "display",
    "SolidHarmonicScattering": "scattering",
    "StoreWarning": "store",
    "StructureWarning": "structures",
    "VoxelScattering": "voxels",
    "datasets": "",
    "distances_from_plane": "structures.planes",
    "element_channels": "structures.channels",
    "pad_structures": "structures",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _HOMES[name]:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
