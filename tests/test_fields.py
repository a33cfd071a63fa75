"""Fields at points, against sums and transforms written here."""

from math import pi, sqrt

import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from references.points import first_order, modulus, wavelets
from scipy.spatial.transform import Rotation

from skscatharm import SolidHarmonicScattering, pad_structures
from skscatharm.structures import Structure

WATER = molecule("H2O")
SIGMA = 0.45
CHANNELS = ["nuclear", "bonding"]
WEIGHTS = {"nuclear": [8, 1, 1], "bonding": [2, 1, 1]}
POLAR = {"polar": {1: 1.0, 8: -1.5}}


@pytest.fixture
def scattering() -> SolidHarmonicScattering:
    return SolidHarmonicScattering(
        J=1, L=3, sigma=SIGMA, channels=CHANNELS, mixed_moments=False
    )


@pytest.mark.parametrize("on_lattice", [True, False])
def test_orders_0_and_1(on_lattice, scattering, rng) -> None:
    axes = tuple(rng.normal(scale=1.5, size=n) for n in (3, 4, 5))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    shape = points.shape[:3] if on_lattice else (60,)
    points = points.reshape(*shape, 3)
    scattering.set_params(max_order=1)
    passed = axes if on_lattice else points
    fields = scattering.fields(WATER, passed)
    components = scattering.fields(WATER, passed, components=True)
    names = scattering.get_path_names_out()
    assert fields.shape == (len(names), *shape)
    assert list(components) == names.tolist()
    for name, found in zip(names, fields, strict=True):
        _, channel, *path = name.split("_")
        *path, degree = (int(part[1:]) for part in path or ["l0"])
        expected = first_order(
            points, WATER.positions, WEIGHTS[channel], path, degree, SIGMA
        )
        bound = 1e-5 * np.abs(expected).max()
        assert_allclose(components[name], expected, rtol=0, atol=bound)
        expected = modulus(expected, path, degree, SIGMA)
        assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.fixture(scope="module")
def transformed():
    """Order 2 on a fine periodic grid, with FFTs: axes, components and moduli."""
    n, h = 80, 0.18
    axis = h * (np.arange(n) - n // 2)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    found = {}
    for degree in (1, 3):
        first = first_order(
            grid, WATER.positions, WEIGHTS["nuclear"], (0,), degree, SIGMA
        )
        first = np.fft.rfftn(modulus(first, (0,), degree, SIGMA))
        kernels = np.fft.ifftshift(wavelets(grid, 2 * SIGMA, degree), axes=(1, 2, 3))
        second = np.array(
            [np.fft.irfftn(first * np.fft.rfftn(k) * h**3) for k in kernels]
        )
        found[f"S2_nuclear_j0_j1_l{degree}"] = (
            second,
            modulus(second, (0, 1), degree, SIGMA),
        )
    return axis, found


def test_order_2(transformed, scattering, rng) -> None:
    axis, expected = transformed
    chosen = [np.flatnonzero(np.abs(axis) < 4)[start::7] for start in (0, 2, 3)]
    at = np.array([rng.choice(indices, 40) for indices in chosen])
    for passed, where in (
        (tuple(axis[indices] for indices in chosen), np.ix_(*chosen)),
        (axis[at].T, tuple(at)),
    ):
        found = scattering.fields(WATER, passed, list(expected))
        components = scattering.fields(WATER, passed, list(expected), components=True)
        for name, field in zip(expected, found, strict=True):
            for value, of_grid in zip(
                (components[name], field), expected[name], strict=True
            ):
                bound = 1e-5 * np.abs(of_grid).max()
                assert_allclose(value, of_grid[(..., *where)], rtol=0, atol=bound)


def test_without_softening(scattering) -> None:
    scattering.set_params(softening=0, tol=1e-3)
    hydrogen = [[1, 0, 0, 0]]
    name = "S1_nuclear_j0_l2"
    (found,) = scattering.fields(hydrogen, [[0, 0, 0], [0.1, 0.5, -0.2]], [name])
    point = np.array([[0.1, 0.5, -0.2]])
    expected = first_order(point, np.zeros((1, 3)), [1.0], (0,), 2, SIGMA)
    assert_allclose(found, [0, np.linalg.norm(expected)], rtol=1e-9)


def test_densities_of_both_signs(scattering, rng) -> None:
    """Their moduli are not rounded, and components have a sign."""
    scattering.set_params(channels=POLAR)
    points = rng.normal(size=(50, 3))
    names = ["S0_polar", "S1_polar_j0_l0", "S1_polar_j1_l2"]
    found = scattering.fields(WATER, points, names)
    for values, path, degree in zip(found, [(), (0,), (1,)], [0, 0, 2], strict=True):
        field = first_order(points, WATER.positions, [-1.5, 1, 1], path, degree, SIGMA)
        assert degree or (field.min() < 0 < field.max())
        expected = modulus(field, path, degree, SIGMA)
        assert_allclose(values, expected, rtol=0, atol=1e-5 * expected.max())


def test_order_2_of_both_signs(scattering) -> None:
    """A wavelet of degree 0 is a mean: far from the atoms of one sign, that of the
    density, which is a wider Gaussian.
    """
    far = [[1, 0, 0, 0], [8, 0, 0, 12.0]]
    scattering.set_params(channels=POLAR, tol=1e-2)
    points = np.array([[0.3, -0.4, 0.2], [0.1, 0.5, 11.5]])
    (found,) = scattering.fields(far, points, ["S2_polar_j0_j1_l0"])
    width = SIGMA * sqrt(1 + 1 + 4)
    expected = [
        w * np.exp(-((p - r) ** 2).sum() / (2 * width**2)) / (2 * pi * width**2) ** 1.5
        for w, p, r in zip((1, 1.5), points, np.array(far)[:, 1:], strict=True)
    ]
    assert_allclose(found, expected, rtol=4e-3)


def test_wide_lattice(scattering) -> None:
    """Most of its tiles are far from all atoms."""
    y = np.linspace(-60, 60, 201)
    fields = scattering.fields(
        WATER, ([0.0], y, y), ["S0_nuclear", "S2_nuclear_j0_j1_l1"]
    )
    near = np.abs(y) < 12
    expected = scattering.fields(
        WATER, ([0.0], y[near], y[near]), ["S0_nuclear", "S2_nuclear_j0_j1_l1"]
    )
    inside = np.ix_([0, 1], [0], near, near)
    assert_allclose(fields[inside], expected, rtol=0, atol=1e-9)
    fields[inside] = 0
    assert_allclose(fields, 0, atol=1e-12)


def test_moduli_turn_with_the_molecule(scattering, rng) -> None:
    turn = Rotation.random(rng=rng)
    turned = WATER.copy()
    turned.positions = turn.apply(WATER.positions) + 3
    points = rng.normal(size=(20, 3))
    expected = scattering.fields(WATER, points)
    found = scattering.fields(turned, turn.apply(points) + 3)
    bound = 2e-5 * expected.max(axis=1, keepdims=True)
    assert np.all(np.abs(found - expected) < bound)


def test_sums_of_a_fine_grid_are_coefficients(scattering) -> None:
    scattering.set_params(sigma=0.6)
    axes = [np.arange(low - 7, low + 8, 0.3) for low in (0.0, 0.0, -0.1)]
    fields = scattering.fields(WATER, tuple(axes))
    sums = 0.3**3 * fields.sum(axis=(1, 2, 3))
    scattering.set_params(Q=(1,))
    assert_allclose(sums, scattering.transform([WATER])[0], rtol=3e-5)
    names = scattering.get_feature_names_out()
    assert_array_equal(names, [n + "_q1" for n in scattering.get_path_names_out()])


def test_a_reference_turns_no_field(scattering, rng) -> None:
    water = Structure(WATER.numbers, WATER.positions)
    turned = Rotation.random(None, 5).apply(WATER.positions)
    axes = tuple(rng.normal(scale=1.5, size=n) for n in (3, 4, 5))
    assert_allclose(
        scattering.fields(water._replace(reference=turned), axes),
        scattering.fields(water, axes),
        rtol=1e-4,
        atol=1e-6,
    )


def test_forms_of_molecules_and_paths(scattering, rng) -> None:
    scattering.set_params(max_order=1)
    points = rng.normal(size=(5, 3))
    expected = scattering.fields(WATER, points)
    (table,) = pad_structures([WATER])
    structure = Structure(WATER.numbers, WATER.positions)
    for form in (table, table.tolist(), np.pad(table, ((0, 2), (0, 0))), structure):
        assert_array_equal(scattering.fields(form, points), expected)
    names = scattering.get_path_names_out()
    found = scattering.fields(WATER, points, names[[7, 2, 11]])
    assert_allclose(found, expected[[7, 2, 11]], rtol=1e-12)
    scattering.set_params(names="readable", engine="fourier")
    found = scattering.fields(WATER, points, ["S1[bonding,j=1,l=3]"])
    assert_allclose(found[0], expected[-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("points", "paths", "error", "message"),
    [
        ([0, 0, 0], None, ValueError, r"points have shape \(3,\); pass an array of"),
        (np.zeros((0, 3)), None, ValueError, "points are empty"),
        ([[0, 0, np.nan]], None, ValueError, "NaN or infinite"),
        ([["a", "b", "c"]], None, ValueError, "points are no numbers"),
        (([0], [0]), None, ValueError, "tuple of 2 arrays"),
        ((range(3000),) * 3, None, ValueError, r"are allowed\)\. Pass fewer"),
        ([[0, 0, 0]], "S0_nuclear", TypeError, r"as in \['S0_nuclear'\]"),
        ([[0, 0, 0]], ["S1_nuclear_j0_l1_q2"], ValueError, r"not computed .* no ex"),
        ([[0, 0, 0]], ["S0_nuclear"] * 2, ValueError, "twice"),
        ([[0, 0, 0]], [], ValueError, "paths is empty"),
    ],
)  # fmt: skip
def test_errors(points, paths, error, message, scattering) -> None:
    with pytest.raises(error, match=message):
        scattering.fields(WATER, points, paths)


def test_several_molecules_are_an_error(scattering) -> None:
    X = pad_structures([WATER, WATER])
    with pytest.raises(ValueError, match=r"pass a single one, .* such as X\[0\]"):
        scattering.fields(X, [[0, 0, 0]])
    with pytest.raises(TypeError, match=r"list of ase\.Atoms"):
        scattering.fields([WATER, WATER], [[0, 0, 0]])


class TestCrystals:
    def test_order_1_is_a_sum_over_images(self, scattering, rng) -> None:
        slab = bulk("NaCl", "rocksalt", 5.64)
        slab.pbc = [True, False, True]
        points = rng.normal(scale=6, size=(20, 3))
        names = ["S0_nuclear", "S1_nuclear_j1_l2"]
        found = scattering.fields(slab, points, names)
        shifts = [[i, 0, k] for i in range(-9, 10) for k in range(-9, 10)] @ slab.cell
        positions = (slab.positions + shifts[:, None]).reshape(-1, 3)
        weights = np.tile(slab.numbers, len(shifts))
        for values, path, degree in zip(found, [(), (1,)], [0, 2], strict=True):
            field = first_order(points, positions, weights, path, degree, SIGMA)
            expected = modulus(field, path, degree, SIGMA)
            assert_allclose(values, expected, rtol=0, atol=1e-5 * expected.max())

    def test_means_are_coefficients(self, scattering) -> None:
        """Which are those of Fourier series."""
        crystal = bulk("NiAl", "cesiumchloride", 2.88)
        scattering.set_params(L=1, tol=1e-3, channels={"a": {13: 0.5, 28: 1}}, Q=(1,))
        n = 10
        axis = 2.88 * np.arange(n) / n + 0.1
        fields = scattering.fields(crystal, (axis, axis, axis))
        means = fields.mean(axis=(1, 2, 3)) * 2.88**3
        assert_allclose(means, scattering.transform([crystal])[0], rtol=1e-3)
