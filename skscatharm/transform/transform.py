"""One value with everything that coefficients depend on, except the molecules."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skscatharm.transform.columns import Kept
from skscatharm.transform.modulus import path_peak
from skscatharm.transform.paths import Pair, Path

__all__ = ["COARSE", "NUMERICS_VERSION", "Transform", "check_exponents"]

# Raise it if coefficients change by more than rounding. Stores then recompute theirs.
# tests/test_frozen.py compares coefficients with frozen numbers.
NUMERICS_VERSION = 10

#: The grids of products whose exponents are no smaller are coarser than those of paths.
COARSE = 2.0


@dataclass(frozen=True, slots=True)
class Transform:
    """The coefficients to compute, and their accuracy.

    Attributes
    ----------
    paths : tuple of Path
    exponents : tuple of float
        Of paths and pairs together.
    sigma : float
        Width of the Gaussian of an atom, in Å.
    tol : float
        Relative error that is allowed.
    softening : float
        Softening of the modulus, in units of the weights.
    dtype : {"float32", "float64"}
        Precision of the fields.
    engine : {"separable", "fourier", "planar"}
    window : float or None
        Width of windows around atoms, in Å; None for integrals over all of space.
    pairs : tuple of Pair
        Pairs of fields whose products are integrated.
    path_exponents, pair_exponents : tuple of float or None
        Those of `exponents` that paths and pairs need. None means all.
    signed : tuple of int
        Indices of channels whose tables have weights of both signs. In products, their
        densities are softened.
    """

    paths: tuple[Path, ...]
    exponents: tuple[float, ...]
    sigma: float
    tol: float
    softening: float
    dtype: str
    engine: str
    window: float | None = None
    pairs: tuple[Pair, ...] = ()
    path_exponents: tuple[float, ...] | None = None
    pair_exponents: tuple[float, ...] | None = None
    signed: tuple[int, ...] = ()

    @property
    def integrands(self) -> tuple[Path | Pair, ...]:
        """Everything whose powers are integrated, in the order of coefficients."""
        return (*self.paths, *self.pairs)

    @property
    def kept(self) -> Kept:
        """Indices of the exponents of paths, and of those of pairs."""
        of_paths, of_pairs = (
            tuple(
                i for i, q in enumerate(self.exponents) if chosen is None or q in chosen
            )
            for chosen in (self.path_exponents, self.pair_exponents)
        )
        return Kept(of_paths, of_pairs)

    def layout(self, n_channels: int) -> tuple[tuple[Path | Pair, ...], int, int, Kept]:
        """Arguments of :func:`~skscatharm.transform.columns.list_columns`."""
        return self.integrands, n_channels, len(self.exponents), self.kept

    @property
    def shares_grids(self) -> bool:
        """Whether free molecules have paths of order 1 on the grids of products.

        These are as fine for low exponents, and products have all exponents of paths.
        """
        if not self.pairs or self.signed or self.engine != "separable":
            return False
        of_pairs = {self.exponents[i] for i in self.kept.of_pairs}
        of_paths = {self.exponents[i] for i in self.kept.of_paths}
        return of_paths <= of_pairs and min(of_pairs) < COARSE

    @property
    def dimension(self) -> int:
        """Dimension of the space of the densities."""
        return 2 if self.engine == "planar" else 3

    @property
    def joins_channels(self) -> bool:
        """Whether fields of different channels are multiplied with each other."""
        return any(pair.shift > 0 for pair in self.pairs)

    def product_softening(self, path: Path, channel: int) -> float:
        """Return the softening of a modulus of order 1 in products.

        Densities need none, unless they change sign.
        """
        if path.degree == 0 and channel not in self.signed:
            return 0.0
        return self.softening * path_peak(path, self.sigma)

    @property
    def settings(self) -> dict[str, Any]:
        """All that a coefficient depends on, except density, path and exponent."""
        settings: dict[str, Any] = {
            "sigma": self.sigma,
            "tol": self.tol,
            "softening": self.softening,
            "dtype": self.dtype,
            "engine": self.engine,
        }
        if self.window is not None:
            settings["window"] = self.window
        if self.joins_channels:
            settings["joins_channels"] = True
        if self.shares_grids:
            settings["shares_grids"] = True
        if self.signed:
            settings["signed"] = list(self.signed)
        return settings


def check_exponents(Q: Any, name: str = "Q") -> tuple[float, ...]:
    """Check exponents, and return them as numbers.

    Raises
    ------
    ValueError
        If `Q` is not a sequence of numbers from 0.5 to 32, is empty, or repeats one.

    Examples
    --------
    >>> from skscatharm.transform.transform import check_exponents
    >>> check_exponents([0.5, 2])
    (0.5, 2.0)
    """
    advice = f"Pass numbers from 0.5 to 32, as in {name}=(0.5, 1, 2, 3)."
    try:
        if isinstance(Q, set | frozenset | dict):
            raise TypeError("sets and mappings have no order")
        exponents = np.asarray(Q, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a sequence of exponents; got {Q!r} ({error}). {advice}"
        ) from error
    if exponents.ndim != 1 or len(exponents) == 0:
        raise ValueError(f"{name} must be a sequence of exponents; got {Q!r}. {advice}")
    # Smaller powers are integrals of tails, larger ones of peaks.
    if not np.all((exponents >= 0.5) & (exponents <= 32)):
        raise ValueError(f"An exponent in {name} is out of range: {Q!r}. {advice}")
    if len(np.unique(exponents)) < len(exponents):
        raise ValueError(f"{name} holds an exponent twice: {Q!r}. Give each once.")
    return tuple(exponents.tolist())
