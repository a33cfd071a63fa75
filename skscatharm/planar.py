"""The transformer of planar molecules."""

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

from skscatharm._compat import Interval
from skscatharm.engine.arrays import Library
from skscatharm.scattering import (
    SETTINGS,
    MoleculeScattering,
    SolidHarmonicScattering,
)
from skscatharm.store import CoefficientStore
from skscatharm.structures import Structure
from skscatharm.structures.planes import check_planar

__all__ = ["PlanarScattering"]

_DEFAULT = SETTINGS["soft"]


class PlanarScattering(MoleculeScattering):
    def __init__(
        self,
        J: int = _DEFAULT["J"],
        L: int = _DEFAULT["L"],
        Q: Sequence[float] = _DEFAULT["Q"],
        sigma: float = _DEFAULT["sigma"],
        *,
        channels: Sequence[str] | Mapping[str, Mapping[int, float]] = _DEFAULT[
            "channels"
        ],
        max_order: int = _DEFAULT["max_order"],
        tol: float = _DEFAULT["tol"],
        softening: float = _DEFAULT["softening"],
        flatness: float = 0.01,
        dtype: str = "float32",
        backend: str = "auto",
        names: str = "plain",
        memory: str | os.PathLike[str] | CoefficientStore | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.J = J
        self.L = L
        self.Q = Q
        self.sigma = sigma
        self.channels = channels
        self.max_order = max_order
        self.tol = tol
        self.softening = softening
        self.flatness = flatness
        self.dtype = dtype
        self.backend = backend
        self.names = names
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        name: constraint
        for name, constraint in SolidHarmonicScattering._parameter_constraints.items()
        if name != "engine"
    } | {"flatness": [Interval(Real, 0, None, closed="left")]}

    _limits = ("flatness",)
    _batch = 1024  # of which some have the same size

    def _engine(self, library: Library) -> str:
        return "planar"

    def _check(self, structures: Sequence[Structure]) -> None:
        check_planar(structures, self.flatness)
