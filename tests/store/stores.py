"""Keys and values to fill stores with."""

from pathlib import Path

import numpy as np

from skscatharm import CoefficientStore
from skscatharm.store import contents, problems, recall
from skscatharm.store.recall import density_keys
from skscatharm.structures import Structure
from skscatharm.transform.paths import scattering_paths

PATHS = scattering_paths(J=1, L=1, max_order=2)
EXPONENTS = [1.0, 2.0]
SETTINGS = {"sigma": 0.5}


def forget() -> None:
    """Know nothing of any folder, as in a new process."""
    contents._contents.clear()
    problems._reported.clear()
    recall._known_keys.clear()


def some_keys(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    structures = [Structure(np.ones(2, int), rng.random((2, 3))) for _ in range(n)]
    return density_keys(structures, [np.array([[1.0, 1.0], [2.0, 3.0]])] * n, SETTINGS)


def some_values(n: int, n_channels: int = 1, seed: int = 0):
    shape = (n, n_channels, len(PATHS), len(EXPONENTS))
    return np.random.default_rng(seed).random(shape)


def filled(store: CoefficientStore, n: int = 4, seed: int = 0):
    keys, values = some_keys(n, seed)[:, :1], some_values(n, seed=seed)
    store.write(keys, PATHS, EXPONENTS, values, SETTINGS)
    return keys, values


def read_times(n: int, store: CoefficientStore, keys):
    """Read several times, and return what all of these give."""
    found = [store.read(keys, PATHS, EXPONENTS, SETTINGS) for _ in range(n)]
    for values in found[1:]:
        np.testing.assert_array_equal(values, found[0])
    return found[0]


def files(store: CoefficientStore) -> list[Path]:
    """List everything in the folder but folders."""
    return sorted(path for path in Path(store.folder).rglob("*") if not path.is_dir())
