"""Planar molecules: against references that share no code, and as users see them."""

import numpy as np
import pytest
from ase.build import molecule as build
from numpy.testing import assert_allclose, assert_array_equal
from references.circles import one_circle, pairs, plane_sums
from scipy.spatial.transform import Rotation
from sklearn.utils import estimator_checks

from skscatharm import (
    PlanarScattering,
    SolidHarmonicScattering,
    distances_from_plane,
    pad_structures,
)
from skscatharm.structures import Structure

PATHS = [(), (0,), (1,), (0, 1)]
Q = (0.5, 1, 2, 3, 4)
PLANAR = ["C6H6", "H2O", "HCN", "C4H4O", "H2CO", "C5H5N", "CO2", "H2"]


@pytest.fixture(scope="module")
def planar():
    """Planar molecules, each turned in another way."""
    molecules = [build(name) for name in PLANAR]
    for atoms, turn in zip(
        molecules, Rotation.random(len(PLANAR), random_state=0), strict=True
    ):
        atoms.positions = turn.apply(atoms.positions)
    return molecules


def coefficients(positions, weights, degree, **options):
    """Coefficients of degree l, by path and exponent, of atoms in the plane z = 0."""
    charges = np.arange(1, 1 + len(weights))
    table = dict(zip(charges.tolist(), weights, strict=True))
    scattering = PlanarScattering(
        J=1, L=degree, channels={"w": table}, names="readable", **options
    )
    atoms = Structure(charges, np.column_stack([positions, 0 * charges]))
    values = scattering.fit_transform([atoms])[0]
    named = dict(zip(scattering.get_feature_names_out(), values, strict=True))
    found = {}
    for path in PATHS:
        j = ["", f"j={path[0] if path else 0},", f"j={path},".replace(" ", "")]
        label = f"S{len(path)}[w,{j[len(path)]}"
        label += f"l={degree}," * (len(path) > 0)
        found[path] = np.array([named[f"{label}q={q:g}]"] for q in scattering.Q])
    return found


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_an_atom_without_softening(degree) -> None:
    found = coefficients(
        np.array([[0.3, -0.2]]), [6.0], degree, sigma=0.4, Q=Q, softening=0
    )
    for path in [(0,), (1,)]:
        expected = [one_circle(6.0, path, degree, q, 0.4) for q in Q]
        assert_allclose(found[path], expected, rtol=1e-9)


@pytest.mark.parametrize("degree", [1, 3])
def test_an_atom_with_softening(degree) -> None:
    positions = np.array([[0.3, -0.2]])
    found = coefficients(positions, [6.0], degree, sigma=0.4, Q=Q, softening=2)
    expected = plane_sums(positions, [6.0], PATHS, degree, Q, 0.4, 2.0, step=0.1)
    for path in PATHS[1:]:
        assert_allclose(found[path], expected[path], rtol=1e-8)


@pytest.mark.parametrize(("dtype", "tol"), [("float32", 1e-5), ("float64", 1e-6)])
@pytest.mark.parametrize("weights", [(6.0, 1.0), (8.0, 7.0)])
@pytest.mark.parametrize("distance", [0.74, 1.3])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 6])
def test_two_atoms(degree, distance, weights, dtype, tol) -> None:
    positions = np.array([[0.1, 0.2], [0.1 + 0.6 * distance, 0.2 + 0.8 * distance]])
    options = {"sigma": 0.4, "Q": Q, "softening": 4.0}
    found = coefficients(positions, weights, degree, **options, dtype=dtype, tol=tol)
    expected = plane_sums(positions, weights, PATHS, degree, Q, 0.4, 4.0, step=0.15)
    for path in PATHS if degree == 0 else PATHS[1:]:
        assert_allclose(found[path], expected[path], rtol=3 * tol)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_two_atoms_without_softening(degree) -> None:
    positions, weights = np.array([[0.0, 0.0], [1.1, 0.3]]), (6.0, 8.0)
    options = {"sigma": 0.4, "Q": (1, 2, 3), "softening": 0}
    found = coefficients(positions, weights, degree, **options, tol=2e-4)
    expected = plane_sums(
        positions, weights, PATHS, degree, (1, 2, 3), 0.4, 0.0, step=0.06, margin=7
    )
    for path in PATHS[1:]:
        assert_allclose(found[path], expected[path], rtol=2e-4)


def test_weights_of_both_signs() -> None:
    tol = 1e-5
    positions, weights = np.array([[0.0, 0.0], [1.1, 0.3], [-0.4, 0.9]]), (1, -0.5, 0.3)
    options = {"sigma": 0.4, "Q": (0.5, 1, 2, 3)}
    for degree in (0, 2):
        softening = 0.0 if degree == 0 else 1.0
        found = coefficients(
            positions, weights, degree, **options, tol=tol, softening=1.0
        )
        expected = plane_sums(
            positions,
            weights,
            PATHS[1:3],
            degree,
            options["Q"],
            0.4,
            softening,
            step=0.03 if degree == 0 else 0.15,
            margin=8.5,
        )
        for path in PATHS[1:3]:
            assert_allclose(found[path], expected[path], rtol=4e-5)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_sums_over_pairs(degree, planar) -> None:
    scattering = PlanarScattering(2, 3, (2,), channels=["nuclear"], dtype="float64")
    scattering.set_output(transform="pandas")
    found = scattering.fit_transform(planar)
    for row, name in enumerate(PLANAR):
        atoms = build(name)
        flat = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0))
        positions = (flat.U[:, : len(flat.S)] * flat.S)[:, :2]
        for j in range(3):
            expected = pairs(positions, atoms.numbers, (j,), degree, scattering.sigma)
            value = found[f"S1_nuclear_j{j}_l{degree}_q2"].iloc[row]
            assert_allclose(value, expected, rtol=1e-5)


def test_invariance(planar) -> None:
    scattering = PlanarScattering()
    expected = scattering.fit_transform(planar)
    rng = np.random.default_rng(1)
    for turn in Rotation.random(3, random_state=1):
        copies = []
        for atoms in planar:
            copy = atoms[rng.permutation(len(atoms)).tolist()]
            copy.positions = turn.apply(copy.positions * [1, 1, -1]) + rng.normal(
                size=3
            )
            copies.append(copy)
        assert_allclose(scattering.transform(copies), expected, rtol=1e-5)


def test_batches_and_jobs_do_not_matter(planar) -> None:
    scattering = PlanarScattering(sigma=0.4, dtype="float64")
    together = scattering.fit_transform(planar)
    alone = np.concatenate([scattering.transform([atoms]) for atoms in planar])
    assert_allclose(alone, together, rtol=1e-12)
    parallel = scattering.set_params(n_jobs=2).transform(planar)
    assert_allclose(parallel, together, rtol=1e-12)


def test_columns_are_what_they_are_called(planar) -> None:
    large = PlanarScattering(2, 4, sigma=0.5, dtype="float64")
    small = PlanarScattering(
        1, 1, (1, 3), 0.5, channels=["core", "nuclear"], dtype="float64"
    )
    for transformer in (large, small):
        transformer.set_output(transform="pandas")
    whole, part = large.transform(planar), small.transform(planar)
    assert_allclose(part, whole[part.columns], rtol=1e-12)
    solid = SolidHarmonicScattering(mixed_moments=False)
    assert_array_equal(
        PlanarScattering().get_feature_names_out(), solid.get_feature_names_out()
    )


def test_molecules_that_are_not_planar(planar, tmp_path) -> None:
    molecules = [*planar, build("NH3")]
    with pytest.raises(ValueError, match=r"Molecule 8 is not planar.* 0\.168 Å"):
        PlanarScattering().fit(molecules)
    loose = PlanarScattering(sigma=0.5, flatness=0.2, memory=tmp_path)
    X = pad_structures(molecules)
    assert loose.fit_transform(X).shape == (9, 500)
    with pytest.raises(ValueError, match="choose a larger flatness"):
        loose.set_params(flatness=0.1).transform(X)
    distances = distances_from_plane(molecules)
    assert_allclose(distances[:-1], 0, atol=1e-6)
    assert distances[-1] == pytest.approx(0.168, abs=1e-3)


def test_store(planar, tmp_path) -> None:
    X = pad_structures(planar)
    options = {"J": 1, "sigma": 0.5, "memory": tmp_path}
    first = PlanarScattering(**options).fit_transform(X)
    solid = SolidHarmonicScattering(**options, tol=1e-4, mixed_moments=False)
    solid = solid.fit_transform(X[:2])
    again = PlanarScattering(**options).fit_transform(X)
    assert_array_equal(again, first)
    assert np.abs(solid / first[:2] - 1).max() > 0.01


@pytest.mark.parametrize("softening", [0, 4])
def test_other_libraries(softening, planar) -> None:
    torch = pytest.importorskip("torch")
    options = {"J": 1, "L": 2, "sigma": 0.8, "tol": 1e-3, "softening": softening}
    expected = PlanarScattering(**options).fit_transform(planar)
    X = torch.asarray(pad_structures(planar))
    found = PlanarScattering(**options, backend="torch").transform(X)
    assert isinstance(found, torch.Tensor)
    assert_allclose(found.numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
    ],
)
def test_scikit_learn(check) -> None:
    check("PlanarScattering", PlanarScattering())
