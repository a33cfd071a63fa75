"""Regression of properties that are sums over atoms."""

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skscatharm import (
    AtomicRegressor,
    LocalScattering,
    MultilinearRegressor,
    SolidHarmonicScattering,
)
from skscatharm.datasets import load_qm9_sample
from skscatharm.regression import atoms

COARSE = {"J": 1, "L": 1, "sigma": 0.55, "max_order": 1, "channels": ["nuclear"]}
N_TRAIN = 60


def make_regressor(**params) -> AtomicRegressor:
    return AtomicRegressor(
        LocalScattering(**COARSE, tol=1e-3),
        SolidHarmonicScattering(**COARSE),
        **{"random_state": 0} | params,
    )


@pytest.fixture(scope="module")
def sample():
    """Molecules, and a target that is a sum over atoms."""
    X = load_qm9_sample().data[:100]
    local = LocalScattering(**COARSE, tol=1e-3)
    rows, ids = local.fit_transform(X), local.molecule_ids(X)
    charges = X[X[:, :, 0] > 0][:, 0]
    deviations = rows - rows.mean(axis=0)
    of_atoms = np.where(charges == 1, deviations[:, 2], 1) * deviations[:, 7]
    return X, 40 + np.bincount(ids, 10 + of_atoms)


@pytest.fixture(scope="module")
def fitted(sample) -> AtomicRegressor:
    X, y = sample
    return make_regressor().fit(X[:N_TRAIN], y[:N_TRAIN])


def test_learns_sums_over_atoms(sample, fitted) -> None:
    X, y = sample
    found = fitted.predict(X[N_TRAIN:])
    whole = SolidHarmonicScattering(**COARSE).fit_transform(X)
    form = MultilinearRegressor(random_state=0).fit(whole[:N_TRAIN], y[:N_TRAIN])
    errors = abs(found - y[N_TRAIN:]).mean()
    assert errors < 0.5 * abs(form.predict(whole[N_TRAIN:]) - y[N_TRAIN:]).mean()
    assert fitted.score(X[N_TRAIN:], y[N_TRAIN:]) > 0.99
    assert_array_equal(fitted.elements_, [1, 6, 7, 8, 9])


def test_invariance(fitted) -> None:
    water = molecule("CH3OH")
    moved = water[::-1]
    moved.rotate(40, "x")
    moved.positions += 3
    found = fitted.predict([water, moved])
    assert_allclose(found[0], found[1], rtol=1e-3)


def test_molecules_of_weight_0(sample, fitted) -> None:
    X, y = sample
    weight = (np.arange(len(X)) < N_TRAIN).astype(float)
    other = make_regressor().fit(X, np.where(weight, y, 1e9), sample_weight=weight)
    assert_allclose(other.predict(X[:5]), fitted.predict(X[:5]), rtol=1e-9)


def test_search(sample) -> None:
    X, y = (array[(sample[0][..., 0] != 9).all(axis=1)] for array in sample)
    grid = {"local__window": [0.7, 1.0], "alpha": [1e-6, 1e-3]}
    search = GridSearchCV(make_regressor(), grid, cv=2).fit(X[:24], y[:24])
    assert search.best_estimator_.local_.window == search.best_params_["local__window"]
    assert search.best_estimator_.alpha_ == search.best_params_["alpha"]


@pytest.fixture(scope="module")
def charged(sample):
    """Molecules with charges that depend on the surroundings, and their vectors."""
    X = sample[0]
    local = LocalScattering(**COARSE, tol=1e-3)
    rows, ids = local.fit_transform(X), local.molecule_ids(X)
    charges, positions = X[X[:, :, 0] > 0][:, 0], X[X[:, :, 0] > 0][:, 1:]
    centres = np.stack([np.bincount(ids, charges * p) for p in positions.T], axis=1)
    centres /= np.bincount(ids, charges)[:, np.newaxis]
    relative = positions - centres[ids]
    deviations = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    of_atoms = np.where(charges == 1, 0.3, -0.2) + 0.05 * deviations[:, 7]
    moments = np.zeros((len(X), 3))
    np.add.at(moments, ids, relative * of_atoms[:, np.newaxis])
    extents = np.bincount(ids, (relative**2).sum(axis=1) * (3 + 0.1 * of_atoms))
    return X, moments, extents


def test_learns_vectors(charged) -> None:
    X, vectors, _ = charged
    regressor = make_regressor(target="dipole").fit(X[:40], vectors[:40])
    found = regressor.predict(X[40:])
    assert abs(found - vectors[40:]).mean() < 0.02 * abs(vectors).mean()
    assert regressor.score(X[40:], vectors[40:]) > 0.99
    # Vectors turn with the molecule, and follow from the order of its atoms.
    moved = molecule("CH3OH")
    expected = regressor.predict([moved])
    moved.rotate(90, "z")
    moved.positions += 3
    turned = expected[:, [1, 0, 2]] * [-1, 1, 1]
    assert_allclose(regressor.predict([moved[::-1]]), turned, atol=1e-3)


def test_learns_norms(charged) -> None:
    X, vectors, _ = charged
    norms = np.linalg.norm(vectors, axis=1)
    regressor = make_regressor(target="dipole").fit(X[:60], norms[:60])
    errors = abs(regressor.predict(X[60:]) - norms[60:])
    assert errors.mean() < 0.03 * norms.mean()
    assert regressor.predict([molecule("H2O"), Atoms("H")])[1] == 0
    assert regressor.scattering_ is None
    again = pickle.loads(pickle.dumps(regressor))
    assert_array_equal(again.predict(X[:3]), regressor.predict(X[:3]))


def test_learns_extents(charged) -> None:
    X, _, extents = charged
    errors = {}
    for target in ("sum", "extent"):
        regressor = make_regressor(target=target).fit(X[:60], extents[:60])
        errors[target] = abs(regressor.predict(X[60:]) - extents[60:]).mean()
    assert errors["extent"] < 1e-3 * extents.std() < errors["sum"]


def test_interface(fitted, sample) -> None:
    assert is_regressor(fitted)
    assert not hasattr(clone(fitted), "elements_")
    again = pickle.loads(pickle.dumps(fitted))
    X = sample[0][:3]
    assert_array_equal(again.predict(X), fitted.predict(X))
    changed = AtomicRegressor().set_params(local__window=1.0, scattering__J=1)
    assert (changed.local.window, changed.local.max_order) == (1.0, 1)
    assert changed.scattering.J == 1
    with pytest.raises(NotFittedError):
        AtomicRegressor().predict(X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1.0, np.nan]}, "Molecule 1 has the target nan"),
        ({"y": [1.0]}, r"targets have shape \(1,\), but there are 2 molecules"),
        ({"X": [molecule("H2O"), bulk("Si")]}, "Molecule 1 is periodic"),
        ({"sample_weight": [1, -1]}, "[Nn]egative"),
        ({"alpha": -1.0}, "alpha"),
        ({"n_axes": 0}, "n_axes"),
        ({"target": "charge"}, "target"),
        ({"target": "dipole", "y": [1.0, -1.0]}, "Molecule 1 has .* -1.0. Norms are 0"),
        ({"target": "dipole", "y": [[0, 0]] * 2}, r"or vectors of shape"),
        ({"y": np.zeros((2, 3))}, r"targets have shape \(2, 3\)"),
        ({"local": SolidHarmonicScattering()}, "local"),
    ],
)
def test_refused_fits(change, message, fitted) -> None:
    X, y = [molecule("H2O"), molecule("CH4")], [1.0, 2.0]
    given = {"X": X, "y": y}
    given |= {key: change[key] for key in change if key in (*given, "sample_weight")}
    params = {key: change[key] for key in change if key not in given}
    regressor = pickle.loads(pickle.dumps(fitted)).set_params(**params)
    with pytest.raises(ValueError, match=message):
        regressor.fit(**given)
    assert_array_equal(regressor.predict(X), fitted.predict(X))


@pytest.mark.parametrize("target", ["sum", "extent"])
@pytest.mark.parametrize("names", [["H2O"], ["H"], ["H2O"] * 3, ["H2O", "CH4", "H"]])
def test_few_molecules(names, target) -> None:
    X, y = [molecule(name) for name in names], np.arange(len(names)) + 2.0
    found = make_regressor(target=target).fit(X, y).predict(X)
    expected = y if len(set(names)) > 1 else np.full(len(y), y.mean())
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("names", [["H2O"], ["H2O"] * 3, ["H2O", "NH3"]])
def test_dipole_moments_of_few_molecules(names) -> None:
    X, y = [molecule(name) for name in names], np.full(len(names), 1.8)
    regressor = make_regressor(target="dipole", alpha=1e-6)
    # Errors of equal atoms are as large as `tol` lets them be.
    regressor.set_params(local__tol=1e-4)
    assert_allclose(regressor.fit(X, y).predict(X), y, rtol=1e-4)


def test_unknown_elements(fitted) -> None:
    message = "Molecule 1, atom 0 is Si, but the regressor knows H, C, N, O, F only"
    with pytest.raises(ValueError, match=message):
        fitted.predict([molecule("H2O"), molecule("SiH4")])


def test_many_molecules(sample, fitted, monkeypatch, capsys) -> None:
    """Iterations, which show their progress, find the fit of the factorisation."""
    monkeypatch.setattr(atoms, "_DIRECT_SIZE", N_TRAIN - 1)
    X, y = sample
    regressor = make_regressor(verbose=1).fit(X[:N_TRAIN], y[:N_TRAIN])
    assert "iteration" in capsys.readouterr().err
    expected = fitted.predict(X)
    assert_allclose(regressor.predict(X), expected, atol=1e-2 * expected.std())
