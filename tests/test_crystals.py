"""Crystals, slabs and wires: coefficients, their invariances and derivatives."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from numpy.testing import assert_allclose, assert_array_equal
from references import pair_sum

from skscatharm import (
    CoefficientDisplay,
    PlanarScattering,
    SolidHarmonicScattering,
)
from skscatharm.structures import StructureWarning

SALT = bulk("NaCl", "rocksalt", 5.64)
DIAMOND = bulk("C", "diamond", 3.567)
TRICLINIC = Atoms(
    "OCN",
    [[0, 0, 0], [1.3, 0.2, 0.1], [0.4, 1.6, 2.2]],
    cell=[[3.1, 0, 0], [0.7, 3.6, 0], [-0.4, 1.1, 4.3]],
    pbc=True,
)
SLAB = fcc111("Al", (1, 1, 2), a=4.05)
WIRE = Atoms("CO", [[0, 0, 0], [0.5, 1.0, 0.3]], cell=[0, 0, 2.2], pbc=[0, 0, 1])
CRYSTALS = {
    "salt": SALT,
    "diamond": DIAMOND,
    "triclinic": TRICLINIC,
    "slab": SLAB,
    "wire": WIRE,
}


def make_scattering(**parameters) -> SolidHarmonicScattering:
    settings = {"J": 1, "L": 2, "sigma": 0.5, "channels": ["nuclear"]}
    settings |= {"mixed_moments": False}
    return SolidHarmonicScattering(**settings | parameters)


def in_any_order(atoms: Atoms, seed: int) -> Atoms:
    """Rotate and shift a crystal, and put its atoms into any images."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cell = np.array(atoms.cell) @ rotation
    positions = atoms.positions @ rotation + rng.normal(scale=10, size=3)
    images = rng.integers(-3, 4, size=positions.shape) * atoms.pbc
    order = rng.permutation(len(atoms))
    return Atoms(
        atoms.numbers[order], (positions + images @ cell)[order], None, cell=cell
    )


class TestCoefficients:
    @pytest.mark.parametrize("name", CRYSTALS)
    def test_squares_are_sums_over_pairs_and_images(self, name: str) -> None:
        atoms = CRYSTALS[name]
        scattering = make_scattering(max_order=1, Q=(2,), dtype="float64", tol=1e-7)
        (found,) = scattering.transform([atoms])
        paths = [()] + [(j,) for j in (0, 1) for _ in range(3)]
        degrees = [0] + [0, 1, 2] * 2
        vectors = np.array(atoms.cell)[atoms.pbc]
        weights = atoms.numbers.astype(float)
        expected = [
            pair_sum(atoms.positions, weights, path, degree, 0.5, vectors)
            for path, degree in zip(paths, degrees, strict=True)
        ]
        # Sums cancel where a field nearly vanishes, as that of degree 1 in diamond.
        assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * max(expected))

    @pytest.mark.parametrize("name", ["salt", "diamond", "triclinic"])
    def test_supercells_have_the_multiple(self, name: str) -> None:
        atoms = CRYSTALS[name]
        matrices = [
            np.diag([2, 1, 1]),
            np.diag([2, 2, 2]),
            [[1, 4, -7], [0, 1, 9], [0, 0, 1]],
            [[2, 1, 0], [-1, 3, 5], [0, 0, 2]],
        ]
        cells = [make_supercell(atoms, matrix) for matrix in matrices]
        found = make_scattering().transform([atoms, *cells])
        counts = np.array([len(cell) for cell in cells]) / len(atoms)
        assert_allclose(found[1:] / counts[:, None], [found[0]] * 4, rtol=1e-5)

    @pytest.mark.parametrize("name", CRYSTALS)
    def test_rotation_origin_and_images_do_not_matter(self, name: str) -> None:
        atoms = CRYSTALS[name]
        others = [in_any_order(atoms, seed) for seed in range(2)]
        for other in others:
            other.pbc = atoms.pbc
        expected, *found = make_scattering().transform([atoms, *others])
        assert_allclose(found, [expected] * 2, rtol=1e-5)

    def test_left_handed_cells(self) -> None:
        left = TRICLINIC.copy()
        left.cell = left.cell[[1, 0, 2]]
        found = make_scattering().transform([TRICLINIC, left])
        assert_allclose(found[1], found[0], rtol=1e-5)

    def test_a_molecule_in_a_large_box_is_free(self) -> None:
        water = molecule("H2O")
        boxed = water.copy()
        boxed.cell = [25, 25, 25]
        inside = boxed.copy()
        inside.pbc = True
        with pytest.warns(StructureWarning, match="Molecule 2 is periodic"):
            free, found, periodic = make_scattering().transform([water, boxed, inside])
        assert_array_equal(found, free)
        assert_allclose(periodic, free, rtol=1e-5)

    def test_slab_in_vacuum(self) -> None:
        periodic = SLAB.copy()
        periodic.center(vacuum=8, axis=2)
        periodic.pbc = True
        found = make_scattering().transform([SLAB, periodic])
        assert_allclose(found[1], found[0], rtol=1e-5)

    def test_planar_scattering_refuses_crystals(self) -> None:
        with pytest.raises(ValueError, match=r"Molecule 1 is periodic.*SolidHarmonic"):
            PlanarScattering().transform([molecule("H2O"), SLAB])


class TestNormalize:
    def test_values(self) -> None:
        crystals = [SALT, TRICLINIC]
        plain = make_scattering().transform(crystals)
        by_atom = make_scattering(normalize="atom").transform(crystals)
        by_volume = make_scattering(normalize="volume").transform(crystals)
        assert_allclose(by_atom, plain / [[2], [3]], rtol=1e-12)
        volumes = [[atoms.get_volume()] for atoms in crystals]
        assert_allclose(by_volume, plain / volumes, rtol=1e-12)

    def test_padding_is_not_counted(self) -> None:
        atoms = [[1, 0, 0, 0], [1, 0, 0, 0.74], [0, 0, 0, 0]]
        plain = make_scattering().transform([atoms])
        by_atom = make_scattering(normalize="atom").transform([atoms])
        assert_allclose(by_atom, plain / 2)

    @pytest.mark.parametrize("memory", [False, True])
    def test_only_crystals_have_a_volume(self, memory: bool, tmp_path) -> None:
        scattering = make_scattering(memory=tmp_path if memory else None)
        water = np.array([[[8, 0, 0, 0], [1, 0, 0, 0.96], [1, 0.93, 0, -0.24]]])
        scattering.fit(water)
        scattering.set_params(normalize="volume")
        for X, message in (
            (water, "Molecule 0 has no volume: it is periodic along 0"),
            ([SALT, SLAB], "Molecule 1 has no volume: it is periodic along 2"),
        ):
            for call in (scattering.fit, scattering.transform, scattering.jacobian):
                with pytest.raises(ValueError, match=message):
                    call(X)

    def test_the_store_keeps_what_is_not_normalised(self, tmp_path) -> None:
        plain = make_scattering(memory=tmp_path).transform([SALT])
        by_atom = make_scattering(memory=tmp_path, normalize="atom").transform([SALT])
        assert_array_equal(by_atom, plain / 2)


class TestMixedMoments:
    def test_columns(self) -> None:
        plain, mixed = (
            make_scattering(),
            make_scattering(mixed_moments=True, mixed_Q=(0.5, 1)),
        )
        names = mixed.get_feature_names_out()
        expected, found = (s.transform([TRICLINIC]) for s in (plain, mixed))
        n = expected.shape[1]
        assert_array_equal(found[:, :n], expected)
        assert_array_equal(names[:n], plain.get_feature_names_out())
        assert found.shape == (1, n + 15 * 2) == (1, len(names))
        assert names[n + 1] == "S1xS1_nuclear_j0_l0_j0_l1_q1"
        assert_array_equal(mixed.get_path_names_out(), plain.get_path_names_out())

    def test_other_descriptions_of_a_crystal(self) -> None:
        other = in_any_order(TRICLINIC * (2, 1, 1), 0)
        other.pbc = True
        one, two = make_scattering(mixed_moments=True).transform([TRICLINIC, other])
        assert_allclose(two, 2 * one, rtol=1e-5)

    def test_picture(self) -> None:
        scattering = make_scattering(mixed_moments=True, max_order=1, tol=1e-3)
        display = CoefficientDisplay.from_estimator(scattering, [SALT])
        cells = display.axes_[0, -1].images[0].get_array()
        place = scattering.get_feature_names_out().tolist()
        place = place.index("S1xS1_nuclear_j0_l1_j1_l2_q2")
        assert cells[5, 1] == scattering.transform([SALT])[0, place]

    def test_channels_are_not_paired(self) -> None:
        scattering = make_scattering(mixed_moments="channels")
        for call in (scattering.fit, scattering.transform, scattering.jacobian):
            with pytest.raises(ValueError, match="Molecule 1 is periodic, and fields"):
                call([molecule("H2O"), SALT])

    def test_molecules_and_crystals(self) -> None:
        mixed = [molecule("H2O"), SALT, Atoms("H")]
        scattering = make_scattering(mixed_moments=True, max_order=1, L=1, tol=1e-3)
        found = scattering.transform(mixed)
        for row, structure in zip(found, mixed, strict=True):
            assert_allclose(row, scattering.transform([structure])[0], rtol=1e-6)

    def test_the_store_adds_them(self, tmp_path) -> None:
        parameters = {"J": 1, "L": 1, "Q": (1, 2)}
        plain = make_scattering(memory=tmp_path, **parameters).transform([SALT])
        mixed = make_scattering(mixed_moments=True, **parameters)
        expected = mixed.transform([SALT])
        stored = mixed.set_params(memory=tmp_path)
        for _ in range(2):
            assert_array_equal(stored.transform([SALT]), expected)
        assert_array_equal(expected[:, : plain.shape[1]], plain)


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    atoms = atoms.copy()
    matrix = np.eye(3) + strain
    atoms.positions = atoms.positions @ matrix
    atoms.cell = np.array(atoms.cell) @ matrix
    return atoms


def moved(atoms: Atoms, shift: np.ndarray) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += shift
    return atoms


def central_difference(scattering, step: float, make) -> np.ndarray:
    """Derivative of coefficients by a rule of order 4."""
    X = [make(k * step) for k in (-2, -1, 1, 2)]
    return np.array([1, -8, 8, -1]) / (12 * step) @ scattering.transform(X)


@pytest.fixture(scope="module", params=[None, "atom", "volume", "mixed"])
def scattering(request):
    parameters = {"normalize": request.param}
    if request.param == "mixed":
        parameters = {"mixed_moments": True, "max_order": 1, "L": 1, "Q": (1, 2)}
        parameters["mixed_Q"] = (1, 2, 3)
    return make_scattering(dtype="float64", tol=1e-7, **parameters)


@pytest.fixture(scope="module")
def jacobian(scattering):
    return scattering.jacobian([TRICLINIC, SALT], cell=True)


class TestDerivatives:
    def test_positions(self, scattering, jacobian, rng) -> None:
        direction = rng.normal(size=(3, 3))
        found = np.einsum("cnx,nx->c", jacobian[0][0], direction)
        expected = central_difference(
            scattering, 5e-3, lambda h: moved(TRICLINIC, h * direction)
        )
        assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

    def test_strain(self, scattering, jacobian, rng) -> None:
        direction = rng.normal(size=(3, 3))
        direction += direction.T
        found = np.einsum("cxy,xy->c", jacobian[1][0], direction)
        expected = central_difference(
            scattering, 2e-3, lambda h: strained(TRICLINIC, h * direction)
        )
        assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

    def test_weighted_sums(self, scattering, jacobian, rng) -> None:
        X = [TRICLINIC, SALT]
        weights = rng.normal(size=jacobian[0].shape[:2])
        found = scattering.gradient(X, weights, cell=True)
        for of_sum, of_all in zip(found, jacobian, strict=True):
            expected = np.einsum("mc,mc...->m...", weights, of_all)
            assert_allclose(of_sum, expected, atol=1e-9 * np.abs(expected).max())
        assert_array_equal(scattering.gradient(X, weights), found[0])

    def test_linearize(self, scattering) -> None:
        X = [TRICLINIC, SALT]
        coefficients, *found = scattering.linearize(X, np.cos, cell=True)
        assert_allclose(coefficients, scattering.transform(X), rtol=1e-12)
        expected = scattering.gradient(X, np.cos(coefficients), cell=True)
        for given, wanted in zip(found, expected, strict=True):
            assert_allclose(given, wanted, atol=1e-9 * np.abs(wanted).max())
        assert_array_equal(scattering.linearize(X, np.cos)[1], found[0])

    def test_batches(self, scattering, jacobian) -> None:
        batches = list(scattering.iter_jacobian([TRICLINIC, SALT], 1, cell=True))
        for part, whole in zip(zip(*batches, strict=True), jacobian, strict=True):
            assert_array_equal(np.concatenate(part), whole)


def test_strain_of_slabs_wires_and_molecules(rng) -> None:
    scattering = make_scattering(dtype="float64", tol=1e-7)
    direction = rng.normal(size=(3, 3))
    direction += direction.T
    structures = [SLAB, WIRE, molecule("H2O")]
    _, strain = scattering.jacobian(structures, cell=True)
    for atoms, of_atoms in zip(structures, strain, strict=True):
        found = np.einsum("cxy,xy->c", of_atoms, direction)
        expected = central_difference(
            scattering, 2e-3, lambda h, atoms=atoms: strained(atoms, h * direction)
        )
        assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_atoms_of_a_supercell_have_the_derivatives_of_the_primitive_cell() -> None:
    scattering = make_scattering(dtype="float64")
    positions, strain = scattering.jacobian([TRICLINIC], cell=True)
    found, found_strain = scattering.jacobian([TRICLINIC * (2, 1, 2)], cell=True)
    atol = 1e-9 * np.abs(positions).max()
    assert_allclose(found, np.tile(positions, (1, 1, 4, 1)), atol=atol)
    assert_allclose(found_strain, 4 * strain, atol=1e-9 * np.abs(strain).max())


def test_channels_in_proportion(rng) -> None:
    crystal = moved(DIAMOND * (2, 1, 1), rng.normal(scale=0.05, size=(4, 3)))
    channels = {"one": {6: 1.0}, "none": {6: 0.0}, "three": {6: 3.0}}
    together = make_scattering(channels=channels, dtype="float64")
    alone = [
        make_scattering(channels={name: weights}, dtype="float64")
        for name, weights in channels.items()
    ]
    names = np.concatenate([s.get_feature_names_out() for s in alone])
    order = [together.get_feature_names_out().tolist().index(name) for name in names]
    found = together.transform([crystal])[0]
    expected = np.concatenate([s.transform([crystal])[0] for s in alone])
    assert_allclose(found[order], expected, rtol=1e-9)
    jacobian = together.jacobian([crystal])[0]
    expected = np.concatenate([s.jacobian([crystal])[0] for s in alone])
    assert_allclose(jacobian[order], expected, atol=1e-9 * np.abs(expected).max())
    weights = rng.normal(size=len(found))
    assert_allclose(
        together.gradient([crystal], [weights])[0],
        np.einsum("c,cax->ax", weights, jacobian),
        atol=1e-7 * np.abs(expected).max(),
    )


class TestStore:
    def test_coefficients_belong_to_a_cell(self, tmp_path) -> None:
        wider = SALT.copy()
        wider.cell = wider.cell * 1.1
        slab = SALT.copy()
        slab.pbc = [True, True, False]
        free = SALT.copy()
        free.pbc, free.cell = False, None
        X = [SALT, wider, slab, free]
        expected = make_scattering().transform(X)
        stored = make_scattering(memory=tmp_path)
        assert_array_equal(stored.transform(X), expected)
        assert_array_equal(stored.transform(X[::-1]), expected[::-1])

    def test_derivatives(self, tmp_path, monkeypatch) -> None:
        scattering = make_scattering(J=0, L=1, memory=tmp_path)
        expected = scattering.jacobian([SALT], cell=True)
        monkeypatch.setattr("skscatharm.derivatives.jacobian_batch", None)
        found = scattering.jacobian([SALT], cell=True)
        for array, wanted in zip(found, expected, strict=True):
            assert_array_equal(array, wanted)
        assert_array_equal(scattering.jacobian([SALT]), expected[0])
