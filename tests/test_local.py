"""Coefficients of atoms."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule
from engine.engines import engine_of
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from references.points import first_order, modulus
from scipy.spatial.transform import Rotation
from scipy.special import softmax
from sklearn.base import clone

from skscatharm import LocalScattering, SolidHarmonicScattering, local, pad_structures
from skscatharm.engine.protocol import Atoms
from skscatharm.transform.paths import Path

MOLECULES = [molecule(name) for name in ("H2O", "C2H6", "H", "HCN")]
IDS = np.repeat([0, 1, 2, 3], [3, 8, 1, 3])
CHANNELS = ["nuclear", "bonding"]
POLAR = {"polar": {1: 1.0, 6: 0.5, 7: -0.5, 8: -1.5}}


@pytest.fixture
def scattering() -> LocalScattering:
    return LocalScattering(J=1, L=2, sigma=0.55, channels=CHANNELS, dtype="float64")


@pytest.fixture
def rows(scattering):
    return scattering.fit_transform(MOLECULES)


def whole_of(scattering: LocalScattering) -> SolidHarmonicScattering:
    """The same without windows."""
    params = scattering.get_params()
    del params["window"]
    return SolidHarmonicScattering(**params, mixed_moments=False)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"window": 0.6},
        {"dtype": "float32", "Q": (0.5, 1, 4, 7)},
        {"channels": POLAR, "tol": 1e-3, "Q": (1, 2)},
        {"softening": 0, "tol": 1e-3, "Q": (0.5, 1, 2)},
    ],
)
def test_rows_add_up(params, scattering) -> None:
    rows = scattering.set_params(**params).fit_transform(MOLECULES)
    ids = scattering.molecule_ids(MOLECULES)
    assert_array_equal(ids, IDS)
    whole = whole_of(scattering).transform(MOLECULES)
    names = scattering.get_feature_names_out()
    assert_array_equal(names, whole_of(scattering).get_feature_names_out())
    assert rows.shape == (len(IDS), len(names))
    for i, of_molecule in enumerate(whole):
        found = rows[ids == i].sum(axis=0)
        assert_allclose(found, of_molecule, rtol=scattering.tol)


@pytest.mark.parametrize("window", [0.5, 1.0])
def test_order_1_against_sums(window, scattering) -> None:
    """Sums over a fine grid of fields and windows that are made here."""
    water, h = MOLECULES[0], 0.2
    axes = [np.arange(low - 6, low + 6.2, h) for low in (0.05, 0.0, -0.2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    squares = ((points[:, None] - water.positions) ** 2).sum(axis=2)
    windows = softmax(-squares / (2 * window**2), axis=1)
    scattering.set_params(window=window, channels=["nuclear"], Q=(1, 2))
    rows = scattering.fit_transform([water])
    names = scattering.get_feature_names_out().tolist()
    for name, path, degree in (
        ("S0_nuclear", (), 0),
        ("S1_nuclear_j0_l1", (0,), 1),
        ("S1_nuclear_j1_l2", (1,), 2),
    ):
        field = first_order(points, water.positions, [8, 1, 1], path, degree, 0.55)
        expected = h**3 * windows.T @ modulus(field, path, degree, 0.55)
        found = rows[:, names.index(f"{name}_q1")]
        assert_allclose(found, expected, rtol=1e-4)


def test_single_atoms_are_molecules(scattering, rows) -> None:
    assert_array_equal(rows[IDS == 2], whole_of(scattering).transform(MOLECULES[2:3]))


def test_equivalent_atoms(rows) -> None:
    hydrogen = rows[IDS == 1][2:]
    assert_allclose(hydrogen, np.tile(hydrogen[0], (6, 1)), rtol=3e-4)
    carbon = rows[IDS == 1][:2]
    assert np.abs(hydrogen[0] / carbon[0] - 1).max() > 0.1


@pytest.fixture
def asymmetric(rng):
    """Symmetric molecules have several axes: equivalent atoms are equal within tol."""
    atoms = molecule("C2H6")
    atoms.positions += rng.normal(scale=0.05, size=(8, 3))
    return atoms


def test_rows_follow_the_atoms(scattering, asymmetric, rng) -> None:
    order = rng.permutation(8)
    rows, found = scattering.transform([asymmetric, asymmetric[order]]).reshape(
        2, 8, -1
    )
    assert_allclose(found, rows[order], rtol=1e-9)


def test_rigid_motions(scattering, asymmetric, rng) -> None:
    turn = Rotation.random(rng=rng).as_matrix()
    moved = asymmetric.copy()
    moved.positions = moved.positions @ -turn.T + 3  # with a reflection
    rows, found = scattering.transform([asymmetric, moved]).reshape(2, 8, -1)
    assert_allclose(found, rows, rtol=1e-8)


def test_wide_windows_divide_equally(scattering) -> None:
    wide = scattering.set_params(window=100).transform(MOLECULES[:1])
    assert_allclose(wide, np.tile(wide.mean(axis=0), (3, 1)), rtol=2e-3)


def test_far_atoms_have_their_own_rows(scattering) -> None:
    """The ratio of Gaussians that underflow."""
    far = molecule("H2")
    far.positions = [[0, 0, 0], [0, 0, 100]]
    hydrogen = whole_of(scattering).transform([molecule("H")])
    assert_allclose(scattering.transform([far]), np.tile(hydrogen, (2, 1)), rtol=1e-5)


def test_forms_and_jobs(scattering, rows) -> None:
    X = pad_structures(MOLECULES)
    with parallel_config("threading", n_jobs=2):
        assert_array_equal(scattering.transform(X), rows)
    assert_array_equal(scattering.molecule_ids(X), IDS)
    frame = clone(scattering).set_output(transform="pandas").fit_transform(MOLECULES)
    assert_array_equal(frame, rows)
    assert frame.columns[-1] == "S2_bonding_j0_j1_l2_q4"


@pytest.mark.usefixtures("whole_grids")
def test_array_libraries(xp) -> None:
    water = MOLECULES[0]
    atoms = Atoms(water.positions, water.numbers, np.array([[8.0, 1, 1], [-2, 1, 1]]))
    paths = [Path((), 0), Path((0,), 1), Path((0, 1), 1)]
    found = []
    for namespace in (np, xp):
        engine = engine_of(paths, tol=1e-3, xp=namespace)
        engine.transform = replace(engine.transform, window=1.0)
        with np.errstate(all="ignore"):
            found += engine.windowed([atoms], [np.array([[1, 0, 0], [0, 1, 1.0]])])
    assert found[0].shape == (2, 3, 2, 4)
    assert_allclose(found[1], found[0], rtol=1e-9)


def test_store(scattering, rows, tmp_path, monkeypatch) -> None:
    scattering.set_params(memory=tmp_path)
    assert_array_equal(scattering.fit_transform(MOLECULES), rows)
    other = clone(scattering).set_params(window=1.5).transform(MOLECULES)
    assert np.abs(other - rows).max() > 0.01
    monkeypatch.setattr(local, "windowed_batch", None)  # nothing is computed
    assert_array_equal(scattering.transform(MOLECULES[::-1])[-3:], rows[:3])
    with pytest.raises(TypeError):
        scattering.set_params(Q=(1, 2)).transform(MOLECULES)


def test_errors(scattering) -> None:
    crystals = [molecule("H2O"), bulk("Si")]
    with pytest.raises(ValueError, match=r"Molecule 1 is periodic .* free molecules"):
        scattering.fit(crystals)
    with pytest.raises(ValueError, match="The 'window' parameter"):
        scattering.set_params(window=0.1).transform(MOLECULES)
