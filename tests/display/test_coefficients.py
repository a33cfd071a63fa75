import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import (
    CoefficientDisplay,
    PlanarScattering,
    SolidHarmonicScattering,
)


@pytest.fixture(scope="module")
def scattering() -> SolidHarmonicScattering:
    return SolidHarmonicScattering(
        J=1, L=1, Q=(0.5, 1, 2), sigma=0.6, channels=["nuclear", "core"]
    ).set_params(mixed_moments=True, mixed_Q=(3,))


@pytest.fixture(scope="module")
def model(scattering, qm9) -> Pipeline:
    pipeline = make_pipeline(scattering, StandardScaler(), Ridge())
    return pipeline.fit(qm9.data[:30], qm9.target[:30, 7])


def test_coefficients_of_a_molecule(scattering, molecules) -> None:
    display = CoefficientDisplay.from_estimator(scattering, molecules[4:5])
    coefficients = dict(
        zip(
            scattering.get_feature_names_out(),
            scattering.transform(molecules[4:5])[0],
            strict=True,
        )
    )
    assert display.axes_.shape == (2, 4)
    assert display.axes_[0, 0].figure is display.figure_
    titles = [ax.get_title() for ax in display.axes_[0]]
    assert titles == ["q = 0.5", "q = 1", "q = 2", "mixed, q = 3"]
    cells = display.axes_[1, 2].images[0].get_array()
    rows = [t.get_text() for t in display.axes_[1, 0].get_yticklabels()]
    assert rows == ["none", "0", "1", "0, 1"]
    assert cells[0, 0] == coefficients["S0_core_q2"]
    assert cells[2, 1] == coefficients["S1_core_j1_l1_q2"]
    assert cells[3, 0] == coefficients["S2_core_j0_j1_l0_q2"]
    assert cells.mask.sum() == 1  # order 0 has no degree 1
    mixed = display.axes_[1, 3].images[0].get_array()
    assert mixed[3, 1] == coefficients["S1xS1_core_j0_l1_j1_l1_q3"]
    assert (~mixed.mask).sum() == 6
    (first, at_0), (second, at_1) = zip(
        display.axes_[1, 3].get_yticks(),
        [t.get_text() for t in display.axes_[1, 3].get_yticklabels()],
        strict=True,
    )
    assert (first, at_0, second, at_1) == (0, "0", 2, "1")
    labels = [ax.get_xlabel() for ax in display.figure_.axes[8:]]
    units = ["charge$^{0.5}$ Å$^{1.5}$", "charge", "charge$^{2}$ Å$^{-3}$"]
    assert labels == [*units, "charge$^{3}$ Å$^{-6}$"]


def test_units() -> None:
    def unit(scattering) -> str:
        display = CoefficientDisplay.from_estimator(scattering, [molecule("H2O")])
        return display.figure_.axes[-1].get_xlabel()

    options = {"J": 0, "L": 0, "Q": (2,), "sigma": 0.6, "channels": ["nuclear"]}
    per_atom = SolidHarmonicScattering(**options, normalize="atom")
    assert unit(per_atom) == "charge$^{2}$ Å$^{-3}$ per atom"
    assert unit(PlanarScattering(**options)) == "charge$^{2}$ Å$^{-2}$"


def test_molecule_without_core_electrons(scattering) -> None:
    hydrogen = [[[1, 0, 0, 0], [1, 0, 0, 0.74]]]
    display = CoefficientDisplay.from_estimator(scattering, hydrogen)
    assert display.axes_[1, 0].images[0].get_array().mask.all()
    display.figure_.canvas.draw()


def bar_heights(ax) -> dict[str, float]:
    labels = [t.get_text() for t in ax.get_xticklabels()]
    return dict(zip(labels, [bar.get_height() for bar in ax.patches], strict=True))


def test_contributions_to_predictions(scattering, model, molecules) -> None:
    display = CoefficientDisplay.from_estimator(model, molecules, unit="kcal/mol")
    names = scattering.get_feature_names_out()
    # Each begins with a space, and mixed moments do not hold "single".
    marked = [f" {name}" + " single" * ("xS1" not in name) for name in names]
    standardised = model[:2].transform(molecules)
    contributions = (standardised - standardised.mean(axis=0)) * model[-1].coef_

    def expected(*parts: str) -> float:
        group = np.all([np.char.find(marked, part) >= 0 for part in parts], axis=0)
        return np.sqrt((contributions[:, group].sum(axis=1) ** 2).mean())

    order, scales, degree, exponent, channel = map(bar_heights, display.axes_)
    assert_allclose(order["1"], expected(" S1_"))
    assert_allclose(scales["0, 1"], expected("_j0_j1_"))
    assert_allclose(scales["none"], expected("S0_"))
    assert_allclose(degree["1"], expected("_l1_", "single"))
    for group in (order, scales, degree):
        assert_allclose(group["mixed"], expected("S1xS1_"))
    assert_allclose(exponent["0.5"], expected("_q0p5"))
    assert_allclose(exponent["3"], expected("S1xS1_"))
    assert_allclose(channel["core"], expected("_core_"))
    assert display.axes_[0].get_ylabel() == "RMS contribution\n(kcal/mol)"
    (line,) = display.axes_[0].lines
    assert_allclose(line.get_ydata(), model.predict(molecules).std())

    display.plot(kind="map")
    cells = display.axes_[0, 1].images[0].get_array()
    assert_allclose(cells[1, 1], expected(" S1_nuclear_j0_l1_q1"))
    cells = display.axes_[1, 3].images[0].get_array()
    assert_allclose(cells[2, 1], expected("S1xS1_core_j0_l1_j1_l0_q3"))
    assert display.figure_.axes[-1].get_ylabel() == "RMS contribution (kcal/mol)"


def test_own_axes(model, molecules) -> None:
    figure, axes = plt.subplots(5)
    display = CoefficientDisplay.from_estimator(model, molecules, axes=axes)
    assert display.figure_ is figure
    assert_array_equal(display.axes_, axes)
    with pytest.raises(ValueError, match=r"axes must hold 8 axes, one for each chan"):
        display.plot(kind="map", axes=axes)


def test_bad_input(scattering, model, molecules) -> None:
    with pytest.raises(ValueError, match=r"X gives 20 rows .* pass a list of one mol"):
        CoefficientDisplay.from_estimator(scattering, molecules)
    with pytest.raises(ValueError, match=r"X has 1 molecule: pass two or more"):
        CoefficientDisplay.from_estimator(model, molecules[:1])
    display = CoefficientDisplay.from_estimator(scattering, molecules[:1])
    with pytest.raises(ValueError, match=r"different units.*choose kind='map'"):
        display.plot(kind="bars")
    with pytest.raises(ValueError, match=r"kind='pie' is unknown: choose 'map' or"):
        display.plot(kind="pie")
    across = clone(scattering).set_params(mixed_moments="channels")
    with pytest.raises(ValueError, match=r"belong to two: choose mixed_moments=True"):
        CoefficientDisplay.from_estimator(across, molecules[:1])
    with pytest.raises(TypeError, match=r"Ridge is no pipeline"):
        CoefficientDisplay.from_estimator(Ridge().fit([[0.0], [1]], [0, 1]), molecules)
