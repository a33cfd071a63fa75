"""Mixed moments of molecules: columns, symmetries, refusals, and potentials."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from surfaces import shaken

from skscatharm import KernelRegressor, ScatteringPotential, SolidHarmonicScattering

WATER = Atoms("OHH", [[-0.084, -0.194, 0], [0.755, 0.313, 0], [0.009, 0.781, 0]])


def make_scattering(**parameters) -> SolidHarmonicScattering:
    return SolidHarmonicScattering(
        **{"J": 1, "L": 1, "Q": (1, 2), "sigma": 0.5, "max_order": 1, "tol": 1e-4}
        | {"channels": ["nuclear", "valence", "bonding"], "dtype": "float64"}
        | {"mixed_moments": "channels", "mixed_Q": (1, 2)}
        | parameters
    )


def test_columns() -> None:
    plain, within, across = (
        make_scattering(mixed_moments=choice) for choice in (False, True, "channels")
    )
    expected, some, found = (s.transform([WATER])[0] for s in (plain, within, across))
    names = across.get_feature_names_out().tolist()
    assert len(names) == len(set(names)) == len(found) == (5 * 3 + 12 * 11 // 2) * 2
    # Paths of order 1 share the grids of pairs.
    assert_allclose(found[: len(expected)], expected, rtol=1e-5)
    assert_allclose(
        [found[names.index(name)] for name in within.get_feature_names_out()],
        some,
        rtol=1e-9,
    )
    assert "S1xS1_bonding_j0_l1_nuclear_j1_l0_q2" in names


def test_exponents_of_their_own(tmp_path) -> None:
    """Coefficients, derivatives and the store, with exponents that Q lacks."""
    # Paths have grids of their own where pairs lack an exponent.
    some, more = {"tol": 1e-6, "mixed_Q": (3, 1)}, {"tol": 1e-6, "mixed_Q": (1, 2, 3)}
    names = make_scattering(**more).get_feature_names_out().tolist()
    all_of_them = make_scattering(**more, memory=tmp_path)
    own = make_scattering(Q=(2, 1), **some, memory=tmp_path)
    places = [names.index(name) for name in own.get_feature_names_out()]
    assert len(places) == (5 * 3 + 12 * 11 // 2) * 2
    molecules = [WATER, Atoms("O")]
    for expected, found in (
        (all_of_them.transform(molecules), own.transform(molecules)),
        (all_of_them.jacobian(molecules), own.jacobian(molecules)),
    ):
        scale = abs(expected).max()
        assert_allclose(found, expected[:, places], rtol=1e-4, atol=1e-7 * scale)
    weights = np.random.default_rng(0).normal(size=(2, len(places)))
    assert_allclose(
        own.gradient(molecules, weights),
        np.einsum("mc,mcnx->mnx", weights, own.jacobian(molecules)),
        atol=1e-7 * scale,
    )


@pytest.mark.parametrize("mixed_Q", [(), (0.1,), (2, 2), "2"])
def test_exponents_that_are_refused(mixed_Q) -> None:
    with pytest.raises(ValueError, match="mixed_Q"):
        make_scattering(mixed_Q=mixed_Q, mixed_moments=False).fit([WATER])


def test_names_are_those_of_the_channels() -> None:
    """Weights twice as large: products of a field with exponent q grow by 2^(q/2)."""
    tables = {"a": {1: 1, 8: 6}, "b": {1: 1, 8: 2}, "c": {1: 1, 8: 8}}
    larger = tables | {"b": {1: 2, 8: 4}}
    one, two = (
        make_scattering(channels=t, softening=0, tol=1e-2) for t in (tables, larger)
    )
    ratios = two.transform([WATER])[0] / one.transform([WATER])[0]
    for name, ratio in zip(one.get_feature_names_out(), ratios, strict=True):
        q = float(name[-1])
        of_fields = [part for part in name.split("_") if part in tables]
        share = of_fields.count("b") / len(of_fields)
        assert ratio == pytest.approx(2 ** (q * share), rel=0.05), name


def test_symmetries() -> None:
    atoms = molecule("CH3CH2OH")
    turned = atoms[np.random.default_rng(0).permutation(len(atoms))]
    turn = Rotation.random(random_state=1).as_matrix() @ np.diag([1, 1, -1])
    turned.positions = turned.positions @ turn + [1, 2, 3]
    one, other = make_scattering().transform([atoms, turned])
    assert_allclose(other, one, rtol=1e-5)


def test_the_store_tells_lists_of_channels_apart(tmp_path) -> None:
    names = ["nuclear", "valence", "bonding"]
    for channels in (names, names[::-1], names[:2], [*names, "core"], names):
        scattering = make_scattering(channels=channels, tol=1e-2)
        expected = scattering.transform([WATER]), scattering.jacobian([WATER])
        scattering.set_params(memory=tmp_path)
        for _ in range(2):
            assert_allclose(scattering.transform([WATER]), expected[0], rtol=1e-2)
            assert_allclose(scattering.jacobian([WATER]), expected[1], rtol=1e-9)


HYDROGEN = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])


def test_molecules_far_apart_have_the_sum_of_their_moments() -> None:
    """Also if a channel has both signs in one of them alone."""
    both = HYDROGEN + Atoms("OHH", WATER.positions + np.array([7, 0, 0]))
    for channels in ({"polar": {1: 1, 8: -2}}, {"negative": {1: -1, 8: -2}}):
        scattering = make_scattering(channels=channels, tol=1e-2)
        one, other, together = scattering.transform([HYDROGEN, WATER, both])
        assert_allclose(together, one + other, rtol=0.02)


def test_the_store_knows_which_channels_have_both_signs(tmp_path) -> None:
    a = {1: 1, 8: 6}
    for b in ({1: 1, 8: 4}, {1: 1, 8: -4}, {1: 1, 8: -6}, {1: 1, 8: 6}):
        for mixed_moments in (True, "channels"):
            scattering = make_scattering(
                channels={"a": a, "b": b}, tol=1e-2, mixed_moments=mixed_moments
            )
            expected = scattering.transform([WATER, HYDROGEN])
            scattering.set_params(memory=tmp_path)
            assert_allclose(scattering.transform([WATER, HYDROGEN]), expected, rtol=0.1)


def test_both_signs_that_are_refused() -> None:
    scattering = make_scattering(channels={"polar": {1: 1, 8: -1}}, softening=0)
    for call in (scattering.fit, scattering.transform, scattering.jacobian):
        with pytest.raises(ValueError, match="Molecule 1 has weights of both signs"):
            call([HYDROGEN, WATER])
    scattering.set_params(softening=4, mixed_moments=True)
    with pytest.raises(ValueError, match="Molecule 0 is periodic, and a channel has"):
        scattering.fit([bulk("H", "sc", a=2)])


@pytest.mark.parametrize("parameters", [{"max_order": 0}, {"J": 0, "L": 0}])
@pytest.mark.parametrize("mixed_moments", [True, False])
def test_no_pairs(mixed_moments, parameters) -> None:
    """A channel with one field has no pairs of different fields."""
    scattering = make_scattering(
        mixed_moments=mixed_moments, mixed_Q=(3,), **parameters
    )
    n_paths = 1 + (parameters.get("max_order") != 0)
    assert scattering.transform([WATER, Atoms("H")]).shape == (2, 3 * n_paths * 2)


def test_a_potential_of_crystals_pairs_fields_of_a_channel() -> None:
    frames = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
    scattering = make_scattering(channels={"copper": {29: 1}}, softening=1)
    regressor = KernelRegressor(length_scale=8, alpha=1e-6, decay=0.5)
    potential = ScatteringPotential(scattering, regressor)
    potential.fit(frames, [1.0, 0.0, 1.0])
    assert potential.scattering_.mixed_moments is True
    assert potential.scattering.mixed_moments == "channels"


def test_tails_of_densities_in_single_precision() -> None:
    sodium = bulk("Na", cubic=True) * (3, 2, 2)
    sodium.rattle(0.05, seed=2)
    scattering = SolidHarmonicScattering(
        Q=(2,), channels=["valence"], max_order=1, mixed_moments=True
    )
    single = scattering.fit_transform([sodium])
    double = scattering.set_params(dtype="float64").transform([sodium])
    assert_allclose(single, double, rtol=1e-5)


def test_forces_are_derivatives_of_energies() -> None:
    *train, atoms = shaken(WATER, 8, 0.08, seed=0)
    regressor = KernelRegressor(
        length_scale=8, alpha=1e-6, decay=0.5, gradient_weight=1
    )
    potential = ScatteringPotential(make_scattering(tol=1e-7), regressor).fit(train)
    (forces,) = potential.predict_forces([atoms])
    step = 4e-3 * forces / np.linalg.norm(forces)
    moved = [Atoms("OHH", atoms.positions + sign * step) for sign in (1, -1)]
    after, before = potential.predict(moved)
    assert before - after == pytest.approx(2 * np.sum(forces * step), rel=0.01)


def test_atoms_far_apart() -> None:
    """Where there is no atom, nothing is computed."""
    scattering = make_scattering(tol=1e-3)
    far = Atoms("H2", [[0, 0, 0], [150, 200, 250]])
    atom, both = scattering.transform([Atoms("H"), far])
    assert_allclose(both, 2 * atom, rtol=1e-3)
    (gradient,) = scattering.gradient([far], 1 / both[np.newaxis])
    assert abs(gradient).max() < 1e-3
