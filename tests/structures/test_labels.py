"""Energies and forces, as arrays or as frames carry them."""

from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.structures import check_structures
from skscatharm.structures.labels import (
    check_dipoles,
    check_energies,
    check_forces,
    check_stresses,
    read_labels,
    to_voigt,
)

FORCES = np.arange(9.0).reshape(3, 3)


class Costly(Calculator):
    """A calculator that must not be started."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE declares it so)

    def calculate(self, atoms=None, properties=(), system_changes=all_changes) -> None:
        raise AssertionError("a calculation was started")


@pytest.fixture
def frame() -> Atoms:
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0, forces=FORCES)
    return atoms


def assert_reads(X) -> None:
    energies, forces, _ = read_labels(X)
    assert_allclose(energies, [-14.0] * len(X))
    for rows in forces:
        assert_allclose(rows, FORCES)


@pytest.mark.parametrize("extension", ["xyz", "traj", "json"])
def test_files(extension, frame, tmp_path: Path) -> None:
    path = tmp_path / f"frames.{extension}"
    ase.io.write(path, [frame, frame])
    assert_reads(ase.io.read(path, index=":"))


def test_forms_of_frames(frame, tmp_path: Path) -> None:
    assert_reads([frame, frame])
    assert_reads((frame,))
    assert_reads(pd.Series([frame, frame]))
    assert_reads(np.array([frame, frame], dtype=object))
    ase.io.write(tmp_path / "frames.traj", [frame, frame])
    with ase.io.Trajectory(tmp_path / "frames.traj") as trajectory:
        assert_reads(trajectory)
    with ase.db.connect(tmp_path / "frames.db") as database:
        database.write(frame)
        assert_reads(list(database.select()))


def test_other_forms_carry_nothing(frame) -> None:
    structures = check_structures([frame])
    for X in (structures, [np.column_stack(structures[0][:2])], np.zeros((2, 3, 4))):
        assert read_labels(X) == (None, None, None)


def test_info_and_arrays(frame) -> None:
    frame.calc = None
    assert read_labels([frame]) == (None, None, None)
    frame.info["energy"] = -14.0
    assert read_labels([frame]) == ([-14.0], None, None)
    frame.arrays["forces"] = FORCES
    assert_reads([frame])


def test_results_of_other_positions_are_not_read(frame) -> None:
    frame.positions[0, 0] += 0.1
    assert read_labels([frame]) == (None, None, None)


def test_nothing_is_computed(frame) -> None:
    frame.calc = Costly()
    assert read_labels([frame]) == (None, None, None)


def test_reading_leaves_a_calculator_that_frames_share(frame) -> None:
    calculator = frame.calc
    moved = frame.copy()
    moved.positions[0, 0] += 0.1
    moved.calc = calculator
    with pytest.raises(ValueError, match="Molecule 0 carries no energy"):
        read_labels([moved, frame])
    assert_reads([frame])


def test_forces_on_fixed_atoms_are_read(frame) -> None:
    frame.set_constraint(FixAtoms([0, 1, 2]))
    assert_reads([frame])


def test_some_frames_lack_results(frame) -> None:
    bare = molecule("H2O")
    with pytest.raises(ValueError, match=r"Molecule 1 carries no energy.*1 more"):
        read_labels([frame, bare, bare])
    bare.info["energy"] = -14.0
    with pytest.raises(ValueError, match="Molecule 1 carries no forces"):
        read_labels([frame, bare])


def test_energies() -> None:
    for energies in ([1, 2], np.array([[1], [2]]), pd.Series([1.0, 2.0])):
        assert_array_equal(check_energies(energies, 2), [1.0, 2.0])


@pytest.mark.parametrize(
    ("energies", "message"),
    [
        ([1, 2], r"shape \(2,\), but there are 3 molecules"),
        ([[1, 2, 3]], r"shape \(1, 3\), but there are 3 molecules"),
        (1.0, r"shape \(\), but there are 3 molecules"),
        ([1, np.nan, np.inf], "Molecule 1 has the energy nan"),
        (["a", "b", "c"], "energies is not an array of numbers but of strings"),
        ([1, [2], 3], "energies is not an array of numbers"),
    ],
)
def test_wrong_energies(energies, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_energies(energies, 3)


def test_dipoles() -> None:
    vectors = [[1.0, 2, 3], [4, 5, 6]]
    assert_array_equal(check_dipoles(vectors, 2), vectors)
    for norms in ([1, 2], [[1], [2]]):
        assert_array_equal(check_dipoles(norms, 2), [1.0, 2.0])


@pytest.mark.parametrize(
    ("dipoles", "message"),
    [
        ([1, 2, 3], r"norms of shape \(n_molecules,\), or vectors"),
        ([[1, 2], [3, 4]], r"dipole moments have shape \(2, 2\)"),
        ([1, -2], "Molecule 1 has the dipole moment -2.0. Norms are 0 or more"),
        ([[1, 2, 3], [4, np.inf, 6]], r"Molecule 1 has the dipole moment \[4.0, inf"),
    ],
)
def test_wrong_dipoles(dipoles, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_dipoles(dipoles, 2)


@pytest.fixture
def structures():
    return check_structures([molecule("H2O"), molecule("H2")])


def test_forces_are_padded(structures) -> None:
    water, hydrogen = FORCES, np.array([[0.0, 0, 1], [0, 0, -1]])
    expected = np.stack([water, [*hydrogen, [0, 0, 0]]])
    wider = np.pad(expected, [(0, 0), (0, 2), (0, 0)])
    for forces in ([water, hydrogen], [water, hydrogen.tolist()], expected, wider):
        assert_array_equal(check_forces(forces, structures), expected)


@pytest.mark.parametrize(
    ("forces", "message"),
    [
        (1.0, "forces are given for no sequence, but there are 2 molecules"),
        ([FORCES], "forces are given for 1, but there are 2 molecules"),
        (np.ones((2, 2, 3)), r"Molecule 0 has 3 atoms and forces of shape \(2, 3\)"),
        (np.ones((2, 9)), r"Molecule 0 has 3 atoms and forces of shape \(9,\)"),
        (np.ones((2, 3, 4)), r"Molecule 0 has 3 atoms and forces of shape \(3, 4\)"),
        (np.ones((2, 3, 3)), "Molecule 1 has 2 atoms, but forces on 3"),
        ([FORCES, [[0, 0, 1], [0, np.nan, 0]]], r"Molecule 1, atom 1 .*\[0.0, nan"),
        ([FORCES, [["a"]]], "Molecule 1: forces is not an array of numbers"),
        ([FORCES, None], "Molecule 1: forces is not an array of numbers|Molecule 1 "),
    ],
)
def test_wrong_forces(forces, message: str, structures) -> None:
    with pytest.raises(ValueError, match=message):
        check_forces(forces, structures)


class TestStresses:
    VOIGT = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    MATRIX = ((1.0, 6.0, 5.0), (6.0, 2.0, 4.0), (5.0, 4.0, 3.0))

    @pytest.fixture
    def crystal(self) -> Atoms:
        atoms = bulk("Si")
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, stress=self.VOIGT)
        return atoms

    def test_results(self, crystal, frame, tmp_path: Path) -> None:
        energies, forces, stresses = read_labels([crystal])
        assert (energies, forces) == ([1.0], None)
        assert_array_equal(stresses, [self.VOIGT])
        # Molecules and slabs have none, whatever their calculator says.
        slab = fcc111("Al", (1, 1, 1))
        slab.calc = SinglePointCalculator(slab, energy=2.0, stress=self.VOIGT)
        frame.calc = SinglePointCalculator(frame, energy=3.0)
        stresses = read_labels([frame, crystal, slab]).stresses
        assert_array_equal(stresses, [[np.nan] * 6, self.VOIGT, [np.nan] * 6])
        assert read_labels([frame, slab]).stresses is None
        ase.io.write(tmp_path / "crystal.xyz", crystal)
        found = read_labels([ase.io.read(tmp_path / "crystal.xyz")]).stresses
        assert_allclose(found, [self.VOIGT])

    def test_info(self, crystal) -> None:
        crystal.calc = None
        assert read_labels([crystal]).stresses is None
        crystal.info = {"energy": 1.0, "stress": np.array(self.MATRIX)}
        assert_array_equal(read_labels([crystal]).stresses, [self.MATRIX])

    def test_some_crystals_lack_them(self, crystal) -> None:
        bare = bulk("Si")
        bare.info["energy"] = 1.0
        with pytest.raises(ValueError, match="Molecule 1 carries no stress"):
            read_labels([crystal, bare])

    def test_forms(self, crystal) -> None:
        structures = check_structures([crystal, molecule("H2")])
        none = np.full(6, np.nan)
        expected = [self.MATRIX, np.full((3, 3), np.nan)]
        for stresses in (
            [self.VOIGT, none],
            [np.array(self.MATRIX), none],
            [np.ravel(self.MATRIX), none],
            np.array(expected),
        ):
            assert_array_equal(check_stresses(stresses, structures), expected)
        assert_array_equal(to_voigt(np.array(self.MATRIX)), self.VOIGT)

    @pytest.mark.parametrize(
        ("stresses", "message"),
        [
            (1.0, "stresses are given for no sequence, but there are 2 molecules"),
            (np.ones((1, 6)), "stresses are given for 1, but there are 2 molecules"),
            (np.ones((2, 5)), r"Molecule 0 has a stress of shape \(5,\); pass"),
            (np.ones((2, 6)), "Molecule 1 has a stress, but no volume.*Pass NaN"),
            ([[1, 2, 3, 4, 5, np.nan], None], r"Molecule 0 has the stress \[1.0.* NaN"),
            (np.full((2, 6), np.inf), "Molecule 0 has the stress"),
            (np.arange(18.0).reshape(2, 3, 3), "Molecule 0 .* which is not symmetric"),
        ],
    )
    def test_wrong_stresses(self, stresses, message: str) -> None:
        structures = check_structures([bulk("Si"), fcc111("Al", (1, 1, 1))])
        with pytest.raises(ValueError, match=message):
            check_stresses(stresses, structures)
