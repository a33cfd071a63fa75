import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from skscatharm import (
    STANDARD_CHANNELS,
    EnergyMapDisplay,
    MultilinearRegressor,
    PlanarScattering,
    SolidHarmonicScattering,
)
from skscatharm.display import energy as energy_module


@pytest.fixture(scope="module")
def scattering(tmp_path_factory) -> SolidHarmonicScattering:
    return SolidHarmonicScattering(
        J=1,
        L=1,
        Q=(0.5, 1, 3),
        sigma=0.6,
        channels=["nuclear", "valence"],
        memory=tmp_path_factory.mktemp("store"),
    )


@pytest.fixture(scope="module")
def ridge(scattering, qm9) -> Pipeline:
    return fitted(qm9, scattering, StandardScaler(), Ridge(1e-3))


def fitted(qm9, *steps) -> Pipeline:
    return make_pipeline(*steps).fit(qm9.data[:60], qm9.target[:60, 7])


def total(display: EnergyMapDisplay) -> float:
    return float((display.values_ * display.volumes_).sum())


@pytest.mark.parametrize(
    "regressor",
    [
        make_pipeline(StandardScaler(), Ridge(1e-3)),
        MultilinearRegressor(1),
        MultilinearRegressor(2, random_state=0),
        MultilinearRegressor(3, n_components=4, max_epochs=5, random_state=0),
    ],
)
def test_sum_is_the_prediction(scattering, qm9, regressor) -> None:
    model = fitted(qm9, scattering, regressor)
    molecule = qm9.data[70]
    display = EnergyMapDisplay.from_estimator(model, molecule, kind="atoms")
    (prediction,) = model.predict(molecule[np.newaxis])
    assert_allclose(display.prediction_, prediction)
    found = display.intercept_ + display.rest_ + total(display)
    assert_allclose(found, prediction, rtol=1e-9)
    assert_allclose(display.contributions_.sum(), total(display), rtol=1e-9)
    rows = scattering.transform([molecule])
    assert_allclose(display.intercept_, model[1:].predict(0 * rows)[0])
    if getattr(regressor, "degree", 1) == 1:
        assert abs(display.rest_) < 1e-6 * abs(prediction)
    else:
        assert abs(display.rest_) > 1e-4 * abs(prediction)


@pytest.mark.parametrize("memory", [2**28, 1])
def test_map_of_one_atom_is_made_of_gaussians(memory, monkeypatch) -> None:
    monkeypatch.setattr(energy_module, "_BYTES", memory)
    scattering = SolidHarmonicScattering(
        J=1, L=0, Q=(2,), sigma=0.5, channels=["nuclear"], max_order=1, mixed_Q=(1, 4)
    ).set_params(mixed_moments=True)
    atoms = [Atoms(symbol) for symbol in ("He", "Ne", "Ar", "Kr", "Xe")]
    regression = make_pipeline(StandardScaler(), LinearRegression())
    model = make_pipeline(scattering, regression).fit(atoms, [1.0, 5, 7, 2, 4])
    display = EnergyMapDisplay.from_estimator(model, atoms[1], kind="atoms")
    coefs = regression[-1].coef_ / regression[0].scale_
    r2 = (display.points_**2).sum(axis=-1)
    density, one, two = (
        10 * np.exp(-r2 / (2 * width**2)) / (2 * np.pi * width**2) ** 1.5
        for width in (0.5, 0.5 * 2**0.5, 0.5 * 5**0.5)
    )
    powers = [density**2, one**2, two**2, (one * two) ** 0.5, (one * two) ** 2]
    expected = np.tensordot(coefs, powers, 1)
    assert_allclose(display.values_, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("mixed_moments", [True, "channels"])
def test_products_alone(mixed_moments) -> None:
    """Without a warning: sums over the points of the map are the mixed moments."""
    valence = STANDARD_CHANNELS["valence"]
    scattering = SolidHarmonicScattering(
        J=1, L=1, Q=(2,), sigma=0.6, max_order=1, mixed_moments=mixed_moments
    ).set_params(channels={"polar": {1: 1, 6: -2, 8: -4}, "valence": valence})
    molecules = [molecule(name) for name in ("H2", "H2O", "CO", "CO2", "C2H2")]
    is_mixed = ["xS1" in name for name in scattering.get_feature_names_out()]
    products = ColumnTransformer([("mixed", "passthrough", is_mixed)])
    model = make_pipeline(scattering, products, StandardScaler(), Ridge())
    model.fit(molecules, [1.0, 4, 3, 2, 5])
    display = EnergyMapDisplay.from_estimator(model, molecules[1], kind="atoms")
    constants = display.intercept_ + display.rest_
    assert_allclose(constants + total(display), display.prediction_, rtol=1e-9)


@pytest.mark.parametrize("window", [0, 0.3])
def test_contributions_of_atoms(ridge, window: float) -> None:
    carbon_dioxide = molecule("CO2")
    display = EnergyMapDisplay.from_estimator(
        ridge, carbon_dioxide, window=window, kind="atoms"
    )
    carbon, left, right = display.contributions_
    # The points are not symmetric, and contributions are those of large weights.
    assert_allclose(left, right, rtol=0.1 if window == 0 else 3e-3)
    # The same division of space, by points.
    distances = np.linalg.norm(
        display.points_[..., np.newaxis, :] - carbon_dioxide.positions, axis=-1
    )
    if window:
        windows = np.exp(-(distances**2) / (2 * window**2)) + 1e-300
        shares = windows / windows.sum(axis=-1, keepdims=True)
    else:
        shares = distances.argmin(axis=-1)[..., np.newaxis] == np.arange(3)
    near = distances.min(axis=-1) < 3
    amounts = (display.values_ * display.volumes_)[near]
    expected = shares[near][:, 0] @ amounts
    far = np.abs((display.values_ * display.volumes_)[~near]).sum()
    assert abs(carbon - expected) <= far + 1e-9 * abs(carbon)


def test_pictures(ridge, qm9) -> None:
    display = EnergyMapDisplay.from_estimator(ridge, qm9.data[70], unit="kcal/mol")
    assert display.ax_.get_xlabel() == "x (Å)"
    bar = display.figure_.axes[-1]
    assert bar.get_ylabel() == "Contribution (kcal/mol/Å²)"
    assert display.ax_.get_title().startswith(f"prediction {display.prediction_:.6g} k")
    # The picture shows the integral along the third axis.
    picture = display.ax_.collections[0]
    x, y = picture._coordinates[0, :, 0], picture._coordinates[:, 0, 1]
    drawn = picture.get_array().reshape(len(y), len(x))
    integral = drawn.sum() * (x[1] - x[0]) * (y[1] - y[0])
    assert_allclose(integral, total(display), rtol=0.1)  # tails are outside of it

    display.plot(kind="plane")
    assert display.figure_.axes[-1].get_ylabel() == "Contribution (kcal/mol/Å³)"
    drawn = display.ax_.collections[0].get_array()
    assert drawn.max() <= 1.02 * display.values_.max()
    display.plot(kind="atoms")
    heights = [bar.get_height() for bar in display.ax_.patches]
    assert_allclose(heights, display.contributions_)
    labels = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert labels[0] == "C\n0" or labels[0][0] in "HCNOF"


def test_surfaces(ridge, qm9) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    display = EnergyMapDisplay.from_estimator(ridge, qm9.data[70], kind="surface")
    low, high = (trace.isomin for trace in display.figure_.data[:2])
    assert low == -high < 0


def test_prediction_per_atom(scattering, qm9) -> None:
    per_atom = clone(scattering).set_params(normalize="atom")
    model = fitted(qm9, per_atom, StandardScaler(), Ridge(1e-3))
    display = EnergyMapDisplay.from_estimator(model, qm9.data[70], kind="atoms")
    expected = model.predict(qm9.data[70:71])[0]
    assert_allclose(display.intercept_ + total(display), expected, rtol=1e-4)


def test_target_of_several(scattering, qm9) -> None:
    model = make_pipeline(scattering, StandardScaler(), Ridge())
    model.fit(qm9.data[:60], qm9.target[:60, 7:9])
    with pytest.raises(ValueError, match=r"predicts 2 targets"):
        EnergyMapDisplay.from_estimator(model, qm9.data[70])
    display = EnergyMapDisplay.from_estimator(
        model, qm9.data[70], target=1, kind="atoms"
    )
    expected = model.predict(qm9.data[70:71])[0, 1]
    assert_allclose(display.intercept_ + total(display), expected, rtol=1e-4)


def test_integrals_of_the_map_are_the_coefficients(ridge, qm9, monkeypatch) -> None:
    # All integrals agree to a small part of what is reported.
    monkeypatch.setattr(energy_module, "_LARGEST_ERROR", 2e-5)
    EnergyMapDisplay.from_estimator(ridge, qm9.data[70], kind="atoms")
    monkeypatch.setattr(energy_module, "_LARGEST_ERROR", 1e-9)
    with pytest.warns(UserWarning, match=r"Coefficients differ by up to .*e-0\d from"):
        EnergyMapDisplay.from_estimator(ridge, qm9.data[70], kind="atoms")


@pytest.mark.filterwarnings("ignore:Coefficients differ")
def test_densities_of_both_signs() -> None:
    scattering = SolidHarmonicScattering(
        J=0, L=1, Q=(1, 2), sigma=0.5, tol=1e-3, channels={"polarity": {1: 0.5, 8: -1}}
    )
    molecules = [molecule(name) for name in ("H2O", "H2", "H2O2")]
    model = make_pipeline(scattering, Ridge()).fit(molecules, [1.0, 2.0, 4.0])
    display = EnergyMapDisplay.from_estimator(model, molecules[0], kind="atoms")
    expected = model.predict(molecules[:1])[0]
    assert_allclose(display.intercept_ + total(display), expected, rtol=1e-9)


def test_bad_input(scattering, ridge, qm9, monkeypatch) -> None:
    X, y = qm9.data, qm9.target[:, 7]
    nonlinear = make_pipeline(scattering, Normalizer(), Ridge()).fit(X[:60], y[:60])
    with pytest.raises(ValueError, match=r"step 'normalizer' \(Normalizer\) is not li"):
        EnergyMapDisplay.from_estimator(nonlinear, X[70])
    with pytest.raises(TypeError, match=r"Ridge is no pipeline"):
        EnergyMapDisplay.from_estimator(ridge[-1], X[70])
    planar = make_pipeline(PlanarScattering(J=0, L=0, sigma=0.6), Ridge())
    planar.fit([molecule("C6H6"), molecule("H2O")], [0.0, 1.0])
    with pytest.raises(TypeError, match=r"PlanarScattering has no fields in space"):
        EnergyMapDisplay.from_estimator(planar, molecule("H2O"))
    with pytest.raises(ValueError, match=r"but 3 were given: pass one, such as X\[0\]"):
        EnergyMapDisplay.from_estimator(ridge, X[:3])
    crystal = Atoms("Ne", cell=[3, 3, 3], pbc=True)
    with pytest.raises(ValueError, match=r"periodic.*pass a cluster with pbc=False"):
        EnergyMapDisplay.from_estimator(ridge, crystal)
    with pytest.raises(ValueError, match=r"window=-1 is out of range"):
        EnergyMapDisplay.from_estimator(ridge, X[70], window=-1)
    with pytest.raises(ValueError, match=r"kind='pie' is unknown: choose one of"):
        EnergyMapDisplay.from_estimator(ridge, X[70], kind="pie")
    monkeypatch.setattr(energy_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install plotly"):
        EnergyMapDisplay.from_estimator(ridge, X[70], kind="surface")
    monkeypatch.setattr(energy_module, "_MOST_POINTS", 1000)
    with pytest.raises(ValueError, match=r"points \(at most 1e\+03 are allowed\)"):
        EnergyMapDisplay.from_estimator(ridge, X[70])
