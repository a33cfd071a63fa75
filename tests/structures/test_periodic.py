"""Crystals, slabs and wires: how they are read, and which of them are refused."""

import warnings

import ase
import ase.build
import ase.db
import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from ase.units import Bohr
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.structures import Structure, StructureWarning, check_structures
from skscatharm.structures.cells import nearest_images, reduce_lattice


def triclinic() -> ase.Atoms:
    return ase.Atoms(
        "OCN",
        [[0, 0, 0], [1.3, 0.2, 0.1], [9.4, 1.6, -8.2]],
        cell=[[3.1, 0, 0], [0.7, 3.6, 0], [-0.4, 1.1, 4.3]],
        pbc=True,
    )


class TestReaders:
    def test_crystals_are_read_as_they_are(self) -> None:
        water = ase.build.molecule("H2O")
        crystal = triclinic()
        slab = ase.build.fcc111("Al", (1, 1, 3), vacuum=3)
        left_handed = triclinic()
        left_handed.cell = left_handed.cell[[1, 0, 2]]
        all_of_them = [water, crystal, slab, left_handed]
        for atoms, found in zip(
            all_of_them, check_structures(all_of_them), strict=True
        ):
            assert_array_equal(found.charges, atoms.numbers)
            assert_array_equal(found.positions, atoms.positions)
            assert found.pbc == tuple(atoms.pbc)
            if atoms.pbc.any():
                assert_array_equal(found.cell, atoms.cell)
            else:
                assert found.cell is None

    def test_structures_are_kept(self) -> None:
        once = check_structures([ase.build.molecule("H2O"), triclinic()])
        twice = check_structures(once)
        assert twice[0].cell is None
        assert twice[1].pbc == (True, True, True)
        assert_array_equal(twice[1].cell, once[1].cell)

    def test_the_cell_is_a_copy(self) -> None:
        crystal = triclinic()
        [found] = check_structures([crystal])
        crystal.cell[0, 0] = 99
        assert found.cell[0, 0] == 3.1

    def test_rows_of_a_database(self, tmp_path) -> None:
        with ase.db.connect(tmp_path / "crystals.db") as database:
            database.write(ase.build.bulk("Si"))
        [found] = check_structures(list(database.select()))
        assert_array_equal(found.cell, ase.build.bulk("Si").cell)
        assert found.pbc == (True, True, True)

    def test_structures_of_pymatgen_are_explained(self) -> None:
        class Crystal:
            def to_ase_atoms(self) -> None: ...

        with pytest.raises(
            TypeError, match=r"Molecule 0 is a Crystal of pymatgen.*for"
        ):
            check_structures([Crystal()])
        with pytest.raises(TypeError, match=r"\[X\.to_ase_atoms\(\)\]"):
            check_structures(Crystal())

    @pytest.mark.parametrize(
        ("cell", "pbc", "message"),
        [
            (None, (True, False, False), "Molecule 1 is periodic and has no cell"),
            (np.eye(2), (True,) * 3, r"Molecule 1 .* a cell of shape \(2, 2\)"),
            (np.eye(3), (1, 1, 1), r"Molecule 1 has pbc=\(1, 1, 1\); pass three bools"),
            (np.eye(3), (True, True), "Molecule 1 has pbc=.*three bools"),
            ([["a"] * 3] * 3, (True,) * 3, "Molecule 1: cell is not .* strings"),
        ],
    )
    def test_invalid_cells_of_structures(self, cell, pbc, message: str) -> None:
        atom = np.ones(1, dtype=int), np.zeros((1, 3))
        with pytest.raises(ValueError, match=message):
            check_structures([Structure(*atom), Structure(*atom, cell, pbc)])


@pytest.mark.parametrize(
    ("cell", "pbc", "message"),
    [
        ([5, np.nan, 5], True, "cell has NaN or infinite entries"),
        ([5, np.inf, 5], True, "cell has NaN or infinite entries"),
        ([5, 0, 5], True, "cell vector 1 is zero.* pbc = False for a direction"),
        (np.zeros((3, 3)), [0, 0, 1], "cell vector 2 is zero"),
        ([[5, 0, 0], [0, 5, 0], [5, 5, 0]], True, "cell has no volume"),
        ([[5, 0, 0], [-5, 1e-6, 0], [0, 0, 5]], [1, 1, 0], "cell has no volume"),
        ([5, 5, 2e4], True, "has a vector of 20000 Å"),
    ],
)
def test_impossible_cells(cell, pbc, message: str) -> None:
    atoms = ase.Atoms("Si", cell=cell, pbc=pbc)
    with pytest.raises(ValueError, match=rf"Molecule 1 is periodic.*{message}"):
        check_structures([ase.build.molecule("H2"), atoms])


def test_vectors_of_other_directions_do_not_matter() -> None:
    wire = ase.Atoms("Au", cell=[[np.nan] * 3, [0, 0, 0], [0, 0, 2.6]], pbc=[0, 0, 1])
    slab = ase.Atoms("C2", [[0, 0, 0], [1.23, 0.71, 0]], pbc=[1, 1, 0])
    slab.cell = [[2.46, 0, 0], [1.23, 2.13, 0], [0, 0, 0]]
    found = check_structures([wire, slab])
    assert [structure.pbc for structure in found] == [
        (False, False, True),
        (True, True, False),
    ]


class TestDistances:
    @pytest.mark.parametrize("name", ["crystal", "one atom", "slab", "wire", "large"])
    def test_nearest_images(self, name: str) -> None:
        one_atom = ase.build.bulk("Fe")
        slab = triclinic()
        slab.pbc = [False, True, True]
        wire = triclinic()
        wire.pbc = [True, False, False]
        large = triclinic() * (3, 4, 2)
        large.rattle(0.2, seed=0)
        atoms = {
            "crystal": triclinic(),
            "one atom": one_atom,
            "slab": slab,
            "wire": wire,
            "large": large,
        }[name]
        lattice = reduce_lattice(np.array(atoms.cell)[atoms.pbc])
        distances, neighbours = nearest_images(atoms.positions, lattice)
        first, second, length = neighbor_list("ijd", atoms, 6.0)
        for i in range(len(atoms)):
            nearest = length[first == i].min()
            assert distances[i] == pytest.approx(nearest)
            tied = (first == i) & (length < nearest + 1e-9)
            assert neighbours[i] in second[tied]

    def test_atoms_that_meet_across_the_boundary(self) -> None:
        atoms = ase.Atoms("NaCl", [[0, 0, 0], [0, 0, 4.9]], cell=[5, 5, 5], pbc=True)
        message = r"Molecule 1, atom 0 and atom 1 or an image of it are only 0.* faces"
        with pytest.raises(ValueError, match=message):
            check_structures([ase.build.bulk("Cu"), atoms])
        slab = Structure(
            atoms.numbers, atoms.positions, atoms.cell.array, (True, True, False)
        )
        check_structures([slab])

    def test_atom_on_both_faces(self) -> None:
        atoms = ase.Atoms("Si2", [[0, 0, 0], [5, 0, 0]], cell=[5, 5, 5], pbc=True)
        with pytest.raises(ValueError, match="only 0 Å apart"):
            check_structures([atoms])

    def test_cell_in_nanometres(self) -> None:
        atoms = ase.Atoms("Po", cell=[0.1, 3, 3], pbc=True)
        with pytest.raises(ValueError, match="atom 0 and atom 0 or an image of it"):
            check_structures([atoms])

    def test_images_far_away_do_not_make_a_crystal_large(self) -> None:
        crystal = ase.build.bulk("NaCl", "rocksalt", 5.64)
        crystal.positions[0] += 20_000 * crystal.cell[0]
        check_structures([crystal])


class TestPlausibility:
    @pytest.mark.parametrize(
        "atoms",
        [ase.build.bulk(name) for name in ("Li", "Cs", "Si", "Fe", "Po", "Xe")]
        + [
            ase.build.bulk("NaCl", "rocksalt", 5.64),
            ase.build.bulk("CsI", "cesiumchloride", 4.57),
            ase.build.fcc111("Al", (1, 1, 3), vacuum=10),
            triclinic(),
        ],
        ids=str,
    )
    def test_usual_crystals_raise_no_warning(self, atoms: ase.Atoms) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_structures([atoms])

    def test_crystals_in_bohr(self) -> None:
        crystals = [
            ase.build.bulk("NaCl", "rocksalt", 5.64),
            ase.build.bulk("MgO", "rocksalt", 4.21),
        ]
        for crystal in crystals:
            crystal.set_cell(crystal.cell / Bohr, scale_atoms=True)
        with pytest.raises(ValueError, match="look like bohr"):
            check_structures(crystals)

    def test_cut_molecules_are_fine_if_they_are_periodic(self) -> None:
        atoms = ase.build.molecule("H2O", cell=[5, 5, 5], pbc=True)
        atoms.wrap()
        check_structures([atoms])
        atoms.pbc = False
        with pytest.raises(ValueError, match=r"cut by its cell.*atoms\.pbc = True"):
            check_structures([atoms])

    @pytest.mark.parametrize("shift", [0, 5, 11])
    def test_molecule_in_a_large_box(self, shift: float) -> None:
        water = ase.build.molecule("H2O", cell=[12, 14, 13], pbc=True)
        water.positions += shift
        water.wrap()
        message = r"Molecule 1 \(and 1 more\) is periodic.* 6 Å.*atoms\.pbc = False"
        with pytest.warns(StructureWarning, match=message):
            check_structures([ase.build.bulk("Si"), water, water])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            water.cell = [14, 7, 13]
            check_structures([water])


def test_free_molecules_beside_crystals_keep_their_distances() -> None:
    crystal = triclinic()
    with pytest.raises(ValueError, match="Molecule 2, atom 0 and atom 1 are only"):
        check_structures([crystal, crystal, ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.1]])])
    assert_allclose(check_structures([crystal])[0].positions, crystal.positions)
