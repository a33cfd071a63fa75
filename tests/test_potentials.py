"""Potentials learned from energies and forces of a surface in closed form."""

import joblib
import numpy as np
import pytest
import sklearn
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from surfaces import morse, shaken

from skscatharm import (
    SETTINGS,
    CoefficientStore,
    KernelRegressor,
    ScatteringPotential,
    SolidHarmonicScattering,
    pad_structures,
    slopes,
)
from skscatharm.potentials import force_scorer

WATER = Atoms("OHH", [[-0.084, -0.194, 0], [0.755, 0.313, 0], [0.009, 0.781, 0]])
HYDROGEN = Atoms("HH", [[0, 0, 0], [0, 0, 0.88]])


def make_scattering(**parameters):
    return SolidHarmonicScattering(
        **{"J": 0, "L": 1, "sigma": 0.4, "channels": ["nuclear", "valence"]}
        | {"tol": 1e-6, "dtype": "float64"}
        | parameters
    )


def make_potential(**parameters) -> ScatteringPotential:
    return ScatteringPotential(
        make_scattering(),
        KernelRegressor(length_scale=16, alpha=1e-9, decay=0.5, gradient_weight=1),
        **parameters,
    )


def energies_of(frames) -> np.ndarray:
    return np.array([frame.get_potential_energy() for frame in frames])


def forces_of(frames) -> list[np.ndarray]:
    return [frame.get_forces() for frame in frames]


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    return shaken(WATER, 16, 0.04, seed=0)


@pytest.fixture(scope="module")
def others() -> list[Atoms]:
    return shaken(WATER, 6, 0.04, seed=1)


@pytest.fixture(scope="module")
def fitted(frames) -> ScatteringPotential:
    return make_potential().fit(frames)


def test_predictions(fitted, others) -> None:
    energies, forces = energies_of(others), np.array(forces_of(others))
    assert abs(fitted.predict(others) - energies).mean() < 0.3 * energies.std()
    assert abs(fitted.predict_forces(others) - forces).mean() < 0.2 * forces.std()
    assert fitted.score(others) > 0.9
    assert fitted.score(others) == fitted.score(others, energies)


def test_forces_are_derivatives_of_energies(fitted, others) -> None:
    frame, step = others[0], 1e-3
    moved = []
    for shift in np.eye(9).reshape(9, 3, 3) * step:
        for sign in (1, -1):
            copy = frame.copy()
            copy.positions += sign * shift
            moved.append(copy)
    energies = fitted.predict(moved)
    expected = -(energies[::2] - energies[1::2]).reshape(3, 3) / (2 * step)
    forces = fitted.predict_forces([frame])[0]
    assert_allclose(forces, expected, atol=1e-3 * abs(expected).max())


def test_forces_teach(fitted, frames, others) -> None:
    from_energies = make_potential().fit(frames, energies_of(frames))
    with_forces, without = (
        force_scorer(potential, others) for potential in (fitted, from_energies)
    )
    assert without < with_forces < 0


def test_jacobians_in_single_precision(frames, monkeypatch) -> None:
    """They are used where `tol` allows it, and forces hardly change."""
    scattering = make_scattering(tol=1e-4, mixed_moments=True)
    potential = make_potential().set_params(scattering=scattering).fit(frames)
    assert potential.scattering_.dtype == "float64"
    monkeypatch.setattr(slopes, "_ROUNDING_SHARE", np.inf)
    exact = clone(potential).fit(frames)
    found, expected = potential.predict_forces(frames), exact.predict_forces(frames)
    assert np.any(found != expected)
    assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_arrays_and_frames_give_the_same(fitted, frames, others) -> None:
    potential = make_potential().fit(
        pad_structures(frames), energies_of(frames), np.array(forces_of(frames))
    )
    X = np.pad(pad_structures(others), [(0, 0), (0, 2), (0, 0)])
    assert_allclose(potential.predict(X), fitted.predict(others))
    forces = potential.predict_forces(X)
    assert_allclose(forces[:, :3], fitted.predict_forces(others), rtol=1e-6)
    # Rows are those of the array.
    assert forces.shape == (6, 5, 3)
    assert_array_equal(forces[:, 3:], 0)


def test_evaluate(fitted, others) -> None:
    found = fitted.evaluate(others)
    # Matrix products have other last digits, depending on where arrays are in memory.
    assert_allclose(found.energies, fitted.predict(others), rtol=1e-8)
    assert_array_equal(found.forces, fitted.predict_forces(others))
    assert fitted.evaluate(others, forces=False).forces is None


def test_uncertainty_grows_away_from_the_training_set(fitted, frames) -> None:
    stretched = frames[0].copy()
    stretched.positions *= 1.3
    near, far = fitted.evaluate([frames[0], stretched], forces=False).uncertainties
    assert far > 5 * near


def test_a_regressor_without_uncertainty(frames) -> None:
    potential = ScatteringPotential(make_scattering(), Ridge(1e-3))
    potential.fit(frames, energies_of(frames))
    assert potential.evaluate(frames[:1], forces=False).uncertainties is None


def test_molecules_of_different_sizes(frames) -> None:
    mixed = frames[:8] + shaken(HYDROGEN, 8, 0.04, seed=2)
    potential = make_potential().fit(mixed)
    forces = potential.predict_forces(mixed[7:9])
    assert forces.shape == (2, 3, 3)
    assert_array_equal(forces[1, 2], 0)
    assert_allclose(forces[0], mixed[7].get_forces(), atol=0.5)
    assert_allclose(forces[1, :2], mixed[8].get_forces(), atol=0.5)
    assert_array_equal(potential.elements_, [1, 8])
    # A molecule of the smaller kind alone has no padding.
    assert_allclose(potential.predict_forces(mixed[8:9]), forces[1:, :2])


def test_atomic_energies_are_fitted(frames) -> None:
    mixed = frames[:8] + shaken(HYDROGEN, 8, 0.04, seed=2)
    offset = {1: -13.6, 8: -2041.8}
    energies = energies_of(mixed)
    shifted = energies + [sum(offset[z] for z in frame.numbers) for frame in mixed]
    potential = make_potential().fit(mixed, shifted)
    expected = make_potential().fit(mixed, energies)
    assert_allclose(
        potential.atomic_energies_ - expected.atomic_energies_, [-13.6, -2041.8]
    )
    assert_allclose(
        potential.predict(mixed) - expected.predict(mixed), shifted - energies
    )


def test_atomic_energies_of_one_composition_add_up_to_the_mean(fitted, frames) -> None:
    mean = energies_of(frames).mean()
    assert_allclose(fitted.atomic_energies_ @ [2, 1], mean)


def test_atomic_energies_are_given(fitted, frames, others) -> None:
    potential = make_potential(atomic_energies={1: -1.0, 8: -2.0, 6: -3.0}).fit(frames)
    assert_array_equal(potential.atomic_energies_, [-1, -2])
    assert_allclose(potential.predict(others), fitted.predict(others), atol=1e-3)


def test_weight_of_molecules(frames, others) -> None:
    # A molecule of weight 0 does not shift the energies of the atoms either.
    energies = energies_of(frames)
    energies[0] += 100
    weight = np.ones(len(frames))
    weight[0] = 0
    potential = make_potential().fit(frames, energies, sample_weight=weight)
    assert_allclose(potential.atomic_energies_ @ [2, 1], energies[1:].mean())


@pytest.mark.parametrize("scoring", [None, force_scorer])
def test_search_with_frames(scoring, frames) -> None:
    grid = {"scattering__L": [0, 1], "regressor__alpha": [1e-9, 1e2]}
    search = GridSearchCV(make_potential(), grid, scoring=scoring, cv=2)
    search.fit(frames)
    assert search.best_params_["regressor__alpha"] == 1e-9
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(frames).shape == (16,)


def test_force_scorer(frames, others) -> None:
    # The padding of small molecules is no error of zero.
    mixed = frames[:4] + shaken(HYDROGEN, 4, 0.04, seed=2)
    potential = make_potential().fit(mixed)
    tested = [others[0], shaken(HYDROGEN, 1, 0.04, seed=3)[0]]
    errors = [
        abs(potential.predict_forces([frame])[0] - frame.get_forces())
        for frame in tested
    ]
    expected = -np.concatenate(errors).mean()
    assert_allclose(force_scorer(potential, tested), expected, rtol=1e-6)


@pytest.mark.parametrize("as_list", [False, True])
def test_search_with_arrays_slices_forces(as_list, frames) -> None:
    X, energies, forces = pad_structures(frames), energies_of(frames), forces_of(frames)
    forces = forces if as_list else np.array(forces)
    expected = cross_val_score(make_potential(), frames, scoring=force_scorer, cv=2)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make_potential(), {"scattering__L": [1]}, scoring=force_scorer, cv=2
        )
        search.fit(X, energies, forces=forces)
    found = [search.cv_results_[f"split{k}_test_score"][0] for k in range(2)]
    assert_allclose(found, expected)
    # Without routing, forces reach the fits but not the scorer.
    search = GridSearchCV(make_potential(), {"scattering__L": [1]}, cv=2)
    search.fit(X, energies, forces=forces)
    assert_allclose(search.predict(X), make_potential().fit(frames).predict(X))


def test_parts_that_are_none_have_parameters() -> None:
    potential = ScatteringPotential().set_params(scattering__J=1, regressor__alpha=0.5)
    assert potential.scattering.J == 1
    assert potential.regressor.alpha == 0.5
    given = make_scattering()
    potential.set_params(scattering=given, scattering__J=3)
    assert potential.scattering is given
    assert given.J == 3
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        ScatteringPotential().set_params(nonsense__J=1)


@pytest.mark.parametrize(
    ("parameters", "n_channels"),
    [
        ({}, 6),
        ({"regressor__alpha": 1e-6}, 6),
        ({"scattering__L": 1}, 6),
        ({"scattering": SolidHarmonicScattering(**SETTINGS["potential"])}, 3),
        ({"scattering__L": 1, "scattering__channels": ["valence"]}, 1),
    ],
)
def test_channels_of_elements(parameters, n_channels) -> None:
    cyanides = [
        Atoms("HCN", [[0, 0, 0], [1.06 + d, 0, 0], [2.22, 0, 0]]) for d in (0, 0.1)
    ]
    potential = ScatteringPotential().set_params(**parameters)
    potential.fit(cyanides, [0.0, 1.0])
    assert len(potential.scattering_.channels) == n_channels
    assert ("H" in potential.scattering_.channels) == (n_channels == 6)


@pytest.mark.parametrize(
    ("symbols", "pbc", "channels"),
    [
        ("OHH", False, ["nuclear", "valence", "bonding"]),
        ("NiHH", False, ["atoms", "H", "Ni"]),
        ("LiHH", True, ["atoms", "H", "Li"]),
        ("CuCuCu", True, ["atoms"]),
    ],
)
def test_channels_of_crystals_and_metals(symbols, pbc, channels) -> None:
    frames = [
        Atoms(symbols, [[0, 0, 0], [1.3 + d, 0, 0], [0, 1.3, 0]], cell=[3] * 3, pbc=pbc)
        for d in (0, 0.1)
    ]
    potential = ScatteringPotential().fit(frames, [0.0, 1.0])
    assert list(potential.scattering_.channels) == channels


def test_estimator(fitted, frames) -> None:
    copy = clone(fitted)
    assert is_regressor(copy)
    with pytest.raises(NotFittedError):
        copy.predict(frames)
    assert repr(ScatteringPotential()) == "ScatteringPotential()"


def test_parts_are_not_modified(frames) -> None:
    potential = make_potential()
    scattering, regressor = potential.scattering, potential.regressor
    potential.fit(frames, energies_of(frames))
    assert potential.scattering is scattering
    assert not hasattr(regressor, "weights_")


def test_store_is_reached(frames, tmp_path) -> None:
    store = CoefficientStore(tmp_path / "store")
    potential = make_potential().set_params(scattering__memory=store)
    potential.fit(frames, energies_of(frames))
    assert store.contents()


def test_failed_fit_leaves_the_previous_one(frames) -> None:
    potential = make_potential().fit(frames, energies_of(frames))
    before = potential.predict(frames)
    with pytest.raises(ValueError, match="nan"):
        potential.fit(frames, [np.nan] * 16)
    assert_array_equal(potential.predict(frames), before)


def test_joblib(fitted, others, tmp_path) -> None:
    joblib.dump(fitted, tmp_path / "potential.joblib")
    loaded = joblib.load(tmp_path / "potential.joblib")
    assert_array_equal(loaded.predict_forces(others), fitted.predict_forces(others))


def test_skops(fitted, others, tmp_path) -> None:
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    path = tmp_path / "potential.skops"
    skops.dump(fitted, path)
    types = skops.get_untrusted_types(file=path)
    assert set(types) <= {
        "skscatharm.potentials.ScatteringPotential",
        "skscatharm.regression.kernel.KernelRegressor",
        "skscatharm.scattering.SolidHarmonicScattering",
    }
    loaded = skops.load(path, trusted=types)
    assert_array_equal(loaded.predict_forces(others), fitted.predict_forces(others))


class Untouched(SolidHarmonicScattering):
    """A transformer that must not compute."""

    def transform(self, X):
        raise AssertionError("coefficients were computed")

    def jacobian(self, X):
        raise AssertionError("derivatives were computed")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "X carries no energies. Pass them"),
        ({"forces": np.ones((2, 3, 3))}, "forces are given without energies"),
        ({"energies": [1.0]}, r"shape \(1,\), but there are 2 molecules"),
        ({"energies": [1.0, np.nan]}, "Molecule 1 has the energy nan"),
        (
            {"energies": [1, 2], "forces": np.ones((2, 2, 3))},
            "Molecule 0 has 3 atoms and forces of shape",
        ),
        (
            {"energies": [1, 2], "forces": np.full((2, 3, 3), np.inf)},
            "Molecule 0, atom 0 has the force",
        ),
        ({"energies": [1, 2], "sample_weight": [1, -1]}, "Negative values"),
    ],
)
def test_wrong_input_is_found_before_the_computation(labels, message) -> None:
    frames = [molecule("H2O"), molecule("H2O")]
    potential = ScatteringPotential(Untouched(), KernelRegressor())
    with pytest.raises(ValueError, match=message):
        potential.fit(frames, **labels)


def test_frames_with_forces_and_without_energies() -> None:
    frames = [molecule("H2O"), molecule("H2O")]
    for frame in frames:
        frame.arrays["forces"] = np.ones((3, 3))
    with pytest.raises(ValueError, match="X carries no energies"):
        ScatteringPotential(Untouched()).fit(frames)


@pytest.mark.parametrize(
    ("atomic_energies", "message"),
    [
        ({8: -2041.8}, r"atomic_energies lack H.*\[1\]"),
        ({8: -2041.8, 1: np.nan}, r"atomic_energies\[1\] is nan"),
    ],
)
def test_wrong_atomic_energies(atomic_energies, message, frames) -> None:
    potential = ScatteringPotential(Untouched(), atomic_energies=atomic_energies)
    with pytest.raises(ValueError, match=message):
        potential.fit(frames, energies_of(frames))


def test_a_regressor_that_cannot_learn_from_forces(frames) -> None:
    potential = ScatteringPotential(Untouched(), Ridge())
    with pytest.raises(TypeError, match="Ridge cannot learn from forces"):
        potential.fit(frames)


@pytest.mark.parametrize("part", ["scattering", "regressor", "atomic_energies"])
def test_wrong_parameters(part, frames) -> None:
    with pytest.raises(ValueError, match=f"The '{part}' parameter"):
        ScatteringPotential(**{part: 1}).fit(frames)


def test_unknown_element(fitted) -> None:
    frames = [WATER, molecule("CO2")]
    message = "Molecule 1, atom 0 is C, but the potential knows H, O only"
    for predict in (fitted.predict, fitted.predict_forces, fitted.evaluate):
        with pytest.raises(ValueError, match=message):
            predict(frames)


def test_unknown_composition(fitted, frames) -> None:
    with pytest.warns(UserWarning, match=r"Molecule 1 \(and 0 more\).*arbitrary"):
        fitted.predict([WATER, HYDROGEN])
    given = make_potential(atomic_energies={1: 0, 8: 0}).fit(frames)
    given.predict([WATER, HYDROGEN])


@pytest.mark.parametrize(
    ("factor", "message"),
    [(-1, "wrong sign"), (23.06, "off by a factor of about 2[0-9]")],
)
def test_implausible_forces(factor, message, frames) -> None:
    forces = factor * np.array(forces_of(frames))
    with pytest.warns(UserWarning, match=message):
        make_potential().fit(frames, energies_of(frames), forces)


@pytest.mark.parametrize(("many", "sizes"), [(2, [16]), (1, [10, 16])])
def test_some_of_many_forces_are_compared_first(
    many, sizes, frames, monkeypatch
) -> None:
    monkeypatch.setattr(slopes, "_SAMPLE", 10)
    monkeypatch.setattr(slopes, "_MANY_SAMPLES", many)
    found = []

    class Counting(SolidHarmonicScattering):
        def jacobian(self, X, **options):
            found.append(len(X))
            return super().jacobian(X, **options)

    scattering = Counting(**make_scattering().get_params())
    potential = make_potential().set_params(scattering=scattering)
    with pytest.warns(UserWarning, match="wrong sign") as record:
        potential.fit(frames, energies_of(frames), -np.array(forces_of(frames)))
    assert found == sizes
    assert {warning.filename for warning in record} == {__file__}


def test_few_forces_do_not_warn(frames) -> None:
    energies, forces = energies_of(frames), np.array(forces_of(frames))
    make_potential().fit(frames[:3], energies[:3], -forces[:3])


def test_no_forces_of_arrays_to_score(fitted, frames) -> None:
    with pytest.raises(ValueError, match="X carries no forces to score"):
        force_scorer(fitted, pad_structures(frames))


def test_surface() -> None:
    # The reference of these tests: forces against differences of energies.
    frame, step = shaken(WATER, 1, 0.05, seed=0)[0], 1e-5
    expected = np.zeros((3, 3))
    for index in np.ndindex(3, 3):
        shift = np.zeros((3, 3))
        shift[index] = step
        up, down = (
            morse(frame.numbers, frame.positions + s * shift)[0] for s in (1, -1)
        )
        expected[index] = -(up - down) / (2 * step)
    assert_allclose(frame.get_forces(), expected, atol=1e-7)
