import numpy as np
import pytest
from engines import scatter
from numpy.testing import assert_allclose

from skscatharm.engine import separable, tiles
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import scattering_paths


@pytest.fixture(scope="module")
def molecule(molecules):
    """Positions and weights of the four channels of a molecule of QM9."""
    structures = check_structures(molecules[:1])
    tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
    return structures[0].positions, channel_weights(tables, structures)[0]


@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_tiles_and_blocks_do_not_matter(softening, molecule, monkeypatch) -> None:
    positions, weights = molecule
    paths = scattering_paths(2, 2, 2)
    options = {"tol": 1e-3, "softening": softening, "sigma": 0.8, "Q": (0.5, 1, 2, 5)}
    whole = scatter(positions, weights, paths, **options)
    monkeypatch.setattr(tiles, "_SIDE", 13)
    monkeypatch.setattr(separable, "_BLOCK", 5000)
    cut = scatter(positions, weights, paths, **options)
    assert np.any(cut != whole)
    # Tiles leave out what is beyond the margin of their atoms.
    assert_allclose(cut, whole, rtol=1e-4)


def test_weights_at_the_limits_of_single_precision(molecule) -> None:
    positions, weights = molecule
    Q = np.array([0.5, 1, 2, 3, 4])
    options = {"Q": Q, "softening": 0.0, "tol": 1e-3, "dtype": "float32"}
    paths = scattering_paths(1, 1, 2)
    expected = scatter(positions, weights, paths, **options)
    for factor in (1e-12, 1e12):
        found = scatter(positions, factor * weights, paths, **options)
        assert_allclose(found, expected * factor**Q, rtol=1e-6)
