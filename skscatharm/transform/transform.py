"""One value that holds all that coefficients depend on, besides the molecules."""

from dataclasses import dataclass
from typing import Any

from skscatharm.transform.paths import Path

__all__ = ["NUMERICS_VERSION", "Transform"]

# Raise it with every change of the coefficients beyond rounding. Stores then compute
# what they hold again. tests/test_frozen.py fails if numbers change without it.
NUMERICS_VERSION = 2


@dataclass(frozen=True, slots=True)
class Transform:
    """Which coefficients to compute, and how exactly.

    Attributes
    ----------
    paths : tuple of Path
    exponents : tuple of float
    sigma : float
        Width of the Gaussian of an atom, in Å.
    tol : float
        Relative error that is allowed.
    softening : float
        Softening of the modulus, in units of the weights.
    dtype : {"float32", "float64"}
        Precision of the fields.
    engine : {"separable", "fourier"}
    """

    paths: tuple[Path, ...]
    exponents: tuple[float, ...]
    sigma: float
    tol: float
    softening: float
    dtype: str
    engine: str

    @property
    def settings(self) -> dict[str, Any]:
        """What a coefficient depends on besides its density, path and exponent."""
        return {
            "sigma": self.sigma,
            "tol": self.tol,
            "softening": self.softening,
            "dtype": self.dtype,
            "engine": self.engine,
        }
