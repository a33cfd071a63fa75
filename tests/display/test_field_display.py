import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from skscatharm import FieldDisplay, PlanarScattering, SolidHarmonicScattering
from skscatharm.display import fields as field_module

PATHS = ["S0_nuclear", "S1_nuclear_j1_l1", "S2_valence_j0_j1_l1"]


@pytest.fixture(scope="module")
def scattering() -> SolidHarmonicScattering:
    return SolidHarmonicScattering(
        J=1, L=1, sigma=0.4, channels=["nuclear", "valence"], softening=1
    )


@pytest.fixture(scope="module")
def ethanol():
    atoms = molecule("CH3CH2OH")
    rotation = Rotation.random(random_state=0)
    atoms.positions = rotation.apply(atoms.positions) + np.arange(3.0)
    return atoms


def test_values_are_those_of_the_fields_at_the_points(scattering, ethanol) -> None:
    display = FieldDisplay.from_estimator(
        scattering, ethanol, paths=PATHS, plane=[0, 2, 4], offset=0.3, n_points=12
    )
    n, n_y, n_x = display.values_.shape
    assert (n, max(n_x, n_y)) == (3, 12)
    assert display.points_.shape == (n_y, n_x, 3)
    points = display.points_.reshape(-1, 3)
    expected = scattering.fields(ethanol, points, PATHS).reshape(n, n_y, n_x)
    for values, wanted in zip(display.values_, expected, strict=True):
        assert_allclose(values, wanted, atol=2e-5 * wanted.max())
    # The points are at the offset from the plane of the atoms.
    a, b, c = ethanol.positions[[0, 2, 4]]
    normal = np.cross(b - a, c - a)
    heights = (points - a) @ normal / np.linalg.norm(normal)
    assert_allclose(np.abs(heights), 0.3)


def test_crystal(scattering) -> None:
    salt = bulk("NaCl", "rocksalt", 5.64)
    salt.rotate(30, (1, 2, 3), rotate_cell=True)
    display = FieldDisplay.from_estimator(
        scattering, salt, paths=PATHS, n_points=8, margin=2
    )
    points = display.points_.reshape(-1, 3)
    for image in (points, points + salt.cell[0]):
        expected = scattering.fields(salt, image, PATHS)
        for values, wanted in zip(display.values_, expected, strict=True):
            assert_allclose(values.ravel(), wanted, atol=3e-5 * wanted.max())


def test_panels(scattering, ethanol) -> None:
    display = FieldDisplay.from_estimator(scattering, ethanol, paths=PATHS, n_points=9)
    titles = [ax.get_title() for ax in display.axes_]
    assert titles[2].startswith("valence, j = 0, 1, l = 1\nmaximum ")
    assert titles[0].endswith(" charge/Å³")
    assert display.axes_[0].get_xlabel() == "x (Å)"
    drawn = display.axes_[1].collections[0].get_array()
    assert_allclose(drawn, display.values_[1] / display.values_[1].max())
    symbols = sorted(text.get_text() for text in display.axes_[0].texts)
    assert symbols == ["C", "C", "H", "H", "O"]  # in the plane
    (rings,) = display.axes_[0].lines
    assert len(rings.get_xdata()) == 4
    display.figure_.canvas.draw()


def test_default_paths(scattering, ethanol) -> None:
    display = FieldDisplay.from_estimator(scattering, ethanol, n_points=5)
    titles = [ax.get_title().split("\n")[0] for ax in display.axes_]
    assert titles == [f"nuclear, j = {j}, l = {k}" for j in (0, 1) for k in (0, 1)]
    density = SolidHarmonicScattering(sigma=0.4, max_order=0)
    display = FieldDisplay.from_estimator(density, ethanol, n_points=5)
    assert display.axes_[0].get_title().startswith("nuclear\n")


def test_own_axes(scattering, ethanol) -> None:
    figure, ax = plt.subplots()
    display = FieldDisplay(scattering, ethanol, paths=PATHS[:1])
    assert display.plot(n_points=5, axes=ax).figure_ is figure
    assert_array_equal(display.axes_, [ax])
    display = FieldDisplay(scattering, ethanol, paths=PATHS)
    with pytest.raises(ValueError, match=r"axes must hold 3 axes, one for each path"):
        display.plot(n_points=5, axes=ax)


def test_planes_replace_surfaces(scattering, ethanol, monkeypatch) -> None:
    monkeypatch.setattr(field_module, "find_spec", lambda name: None)
    display = FieldDisplay(scattering, ethanol, paths=PATHS[:2])
    with pytest.warns(UserWarning, match=r"plotly is not installed.*pip install"):
        display.plot(kind="surface", n_points=7)
    labels = [(ax.get_xlabel()[0], ax.get_ylabel()[0]) for ax in display.axes_]
    assert labels == 2 * [("x", "y"), ("x", "z"), ("y", "z")]


def test_surfaces(scattering, ethanol) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    display = FieldDisplay.from_estimator(
        scattering, ethanol, paths=PATHS[:2], kind="surface", level=0.5
    )
    surfaces = display.figure_.data[::2]
    for surface, values in zip(surfaces, display.values_, strict=True):
        assert_allclose(surface.isomin, 0.5 * values.max())
        assert_array_equal(surface.value, values.ravel())


def test_bad_input(scattering, ethanol) -> None:
    def draw(**options) -> None:
        FieldDisplay.from_estimator(scattering, ethanol, **options)

    with pytest.raises(ValueError, match=r"'S1_nuclear_j2_l0' is not computed"):
        draw(paths=["S1_nuclear_j2_l0"])
    with pytest.raises(ValueError, match=r"kind='volume' is unknown"):
        draw(kind="volume")
    with pytest.raises(ValueError, match=r"n_points=1 is too small"):
        draw(n_points=1)
    with pytest.raises(ValueError, match=r"level=2 is out of range"):
        draw(level=2)
    with pytest.raises(ValueError, match=r"of one molecule, but 2 were given"):
        FieldDisplay.from_estimator(scattering, [ethanol, ethanol])
    with pytest.raises(TypeError, match=r"PlanarScattering has no fields in space"):
        FieldDisplay.from_estimator(PlanarScattering(), ethanol)
