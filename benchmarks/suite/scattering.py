"""The transform: by J, L, Q, tolerance, engine, array library and number of atoms."""

from typing import Any

import numpy as np

from skscatharm import SETTINGS, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

MOLECULES = load_qm9_sample().data[:4]


class Transform:
    """Four molecules of QM9, with one parameter that differs from its default."""

    params = (
        {"J": 0},
        {"J": 1},
        {},
        {"J": 3},
        {"L": 1},
        {"L": 5},
        {"Q": (1.0, 2.0)},
        {"Q": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)},
        {"max_order": 1},
        {"tol": 1e-3},
        {"tol": 1e-4},
        {"dtype": "float64"},
        SETTINGS["published"],
    )
    param_names = ("parameters",)

    def setup(self, parameters: dict[str, Any]) -> None:
        self.scattering = SolidHarmonicScattering(**parameters)
        self.scattering.transform(MOLECULES[:1])  # what is computed once for all

    def time_transform(self, parameters: dict[str, Any]) -> None:
        self.scattering.transform(MOLECULES)

    def peakmem_transform(self, parameters: dict[str, Any]) -> None:
        self.scattering.transform(MOLECULES)


class Engine:
    """Four molecules of QM9, by engine and array library; those missing are skipped."""

    params = (("separable", "fourier"), ("numpy", "cupy", "torch"))
    param_names = ("engine", "backend")

    def setup(self, engine: str, backend: str) -> None:
        self.scattering = SolidHarmonicScattering()
        try:
            self.scattering.set_params(engine=engine, backend=backend)
            self.scattering.transform(MOLECULES[:1])
        except (ImportError, RuntimeError) as error:
            raise NotImplementedError from error  # by which asv skips

    def time_transform(self, engine: str, backend: str) -> None:
        self.scattering.transform(MOLECULES)

    def peakmem_transform(self, engine: str, backend: str) -> None:
        self.scattering.transform(MOLECULES)


class Size:
    """A droplet of hydrogen molecules, 10 Å³ to the atom as in organic matter."""

    params = ((10, 100, 1000),)
    param_names = ("atoms",)
    timeout = 600.0

    def setup(self, n_atoms: int) -> None:
        rng = np.random.default_rng(0)
        reach = np.arange(-8, 9)
        lattice = np.stack(np.meshgrid(reach, reach, reach), axis=-1).reshape(-1, 3)
        lattice = lattice[np.argsort((lattice**2).sum(axis=1), kind="stable")]
        middles = 20 ** (1 / 3) * lattice[: n_atoms // 2]
        bonds = rng.normal(size=middles.shape)
        bonds *= 0.37 / np.linalg.norm(bonds, axis=1, keepdims=True)
        positions = np.concatenate([middles - bonds, middles + bonds])
        self.droplet = np.insert(positions, 0, 1, axis=1)[np.newaxis]
        self.scattering = SolidHarmonicScattering()
        self.scattering.transform(MOLECULES[:1])

    def time_transform(self, n_atoms: int) -> None:
        self.scattering.transform(self.droplet)

    def peakmem_transform(self, n_atoms: int) -> None:
        self.scattering.transform(self.droplet)
