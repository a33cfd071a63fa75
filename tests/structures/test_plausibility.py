import warnings

import ase
import ase.build
import numpy as np
import pytest
from ase.collections import g2
from ase.geometry import find_mic
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from skscatharm import SolidHarmonicScattering
from skscatharm.structures import Structure, StructureWarning, check_structures

UNITS = {"bohr": 0.529177, "nm": 10.0, "pm": 0.01}
G2 = [name for name in g2.names if len(g2[name]) > 1]
# F2O is not one of them, since its bonds are unusually long.
COMPOUNDS = [
    name
    for name in set(G2) - {"F2O"}
    if len(g2[name]) > 2 and len(set(g2[name].numbers)) > 1
]


def table(atoms: ase.Atoms | str, unit: str | None = None) -> NDArray[np.float64]:
    """A molecule as an array, by default in Å."""
    if isinstance(atoms, str):
        atoms = ase.build.molecule(atoms)
    positions = atoms.positions / UNITS.get(unit, 1)
    return np.column_stack([atoms.numbers, positions])


def pair(first: int, second: int, distance: float) -> list[list[float]]:
    return [[first, 0, 0, 0], [second, 0, 0, distance]]


class TestUnits:
    def test_molecules_in_angstrom_are_accepted(self) -> None:
        for name in G2:
            check_structures([g2[name]])

    def test_sample_of_qm9_is_accepted(self, qm9) -> None:
        check_structures(qm9.data)

    @pytest.mark.parametrize("unit", UNITS)
    def test_polyatomic_molecule_in_another_unit_is_refused(self, unit: str) -> None:
        for name in COMPOUNDS:
            with pytest.raises(ValueError, match=rf"Molecule 0.*{unit}"):
                check_structures([table(g2[name], unit)])

    def test_message(self) -> None:
        with pytest.raises(ValueError, match="Molecule 0") as error:
            check_structures([table("CH4", "bohr"), table("H2O", "bohr")])
        assert str(error.value) == (
            "Molecule 0 (and 1 more): the coordinates look like bohr, not Å: "
            "neighbours are 1.92 times as far apart as bonded atoms. If they are in "
            "bohr, multiply them by 0.529177. If these distances are intended, pass "
            "each molecule as a skscatharm.structures.Structure(charges, positions)."
        )

    @pytest.mark.parametrize("unit", UNITS)
    def test_conversion_that_the_message_names_is_accepted(self, unit: str) -> None:
        X = table("C6H6", unit)
        X[:, 1:] *= UNITS[unit]
        check_structures([X])

    @pytest.mark.parametrize("unit", ["bohr", "pm"])
    def test_whole_set_of_qm9_is_refused(self, unit: str, qm9) -> None:
        X = qm9.data.copy()
        X[:, :, 1:] /= UNITS[unit]
        with pytest.raises(ValueError, match=rf"Molecule 0 \(and 1999 more\).*{unit}"):
            check_structures(X)

    def test_uniformly_stretched_molecule_is_a_warning(self) -> None:
        X = table("H2O")
        for factor in (1.45, 2.2):
            X[:, 1:] = factor * ase.build.molecule("H2O").positions
            with pytest.warns(StructureWarning, match="Molecule 0: .* bohr"):
                check_structures([X])
        for factor in (1, 1.2, 3, 5):
            X[:, 1:] = factor * ase.build.molecule("H2O").positions
            check_structures([X])

    @pytest.mark.parametrize("distance", [10, 30, 100, 300])
    def test_pairs_far_apart_are_not_refused(self, distance: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StructureWarning)
            for Z in (1, 6, 8, 17):
                check_structures([pair(1, Z, distance), pair(8, Z, distance)])

    def test_heavy_molecule_in_nm_is_refused(self) -> None:
        gold = ase.Atoms("Au3", [[0, 0, 0], [0.27, 0, 0], [0.135, 0.234, 0]])
        with pytest.raises(ValueError, match=r"Molecule 0: .* nm, not Å"):
            check_structures([gold])

    @pytest.mark.parametrize("unit", ["bohr", "pm"])
    def test_one_molecule_of_many_is_a_warning(self, unit: str) -> None:
        X = [table("CH4"), table("H2O"), table("NH3", unit)]
        with pytest.warns(StructureWarning, match=rf"^Molecule 2: .* {unit}, not Å"):
            structures = check_structures(X)
        assert_allclose(structures[2].positions, X[2][:, 1:])

    def test_pair_or_cluster_in_bohr_is_a_warning(self) -> None:
        for name in [*set(G2) - set(COMPOUNDS)]:
            with pytest.warns(StructureWarning, match="Molecule 0: .* bohr, not Å"):
                check_structures([table(g2[name], "bohr")])

    def test_pair_in_nm_is_refused(self) -> None:
        for name in set(G2) - set(COMPOUNDS):
            with pytest.raises(ValueError, match=r"Molecule 0.* nm"):
                check_structures([table(g2[name], "nm")])

    def test_dissociation_of_a_pair_is_accepted(self) -> None:
        check_structures([pair(1, 1, r) for r in np.geomspace(0.2, 100, 200)])
        check_structures([pair(1, 9, r) for r in np.geomspace(0.3, 80, 200)])

    @pytest.mark.parametrize("symbol", ["H", "Li"])
    def test_chains_and_lattices_are_accepted(self, symbol: str) -> None:
        chain = ase.Atoms(f"{symbol}10", [[0, 0, i] for i in range(10)])
        lattice = ase.build.bulk(symbol, "sc", a=1).repeat(4)
        bond = {"H": 0.74, "Li": 2.7}[symbol]
        for atoms in (chain, lattice):
            X = [table(atoms) for _ in range(20)]
            for rows, factor in zip(X, np.linspace(1, 3, 20), strict=True):
                rows[:, 1:] *= factor * bond
            check_structures(X)
            with pytest.warns(StructureWarning, match="Molecule 0: .* bohr"):
                check_structures(X[8:9])

    @pytest.mark.parametrize("unit", ["nm", "pm"])
    def test_clusters_of_one_element_are_refused(self, unit: str) -> None:
        lattice = ase.build.bulk("Cu").repeat(4)
        with pytest.raises(ValueError, match=rf"Molecule 0.*{unit}"):
            check_structures([table(lattice, unit)])

    def test_explicit_structures_are_accepted(self) -> None:
        X = table("H2O", "bohr")
        (structure,) = check_structures([Structure(X[:, 0].astype(int), X[:, 1:])])
        assert_allclose(structure.positions, X[:, 1:])

    @pytest.mark.parametrize(
        "atoms",
        [
            ase.Atoms("H"),
            ase.Atoms("Ar3", [[0, 0, 0], [3.8, 0, 0], [1.9, 3.3, 0]]),
            ase.Atoms("Ne2", [[0, 0, 0], [0, 0, 3.1]]),
            ase.Atoms("HArF", [[0, 0, -1.33], [0, 0, 0], [0, 0, 1.97]]),
            ase.Atoms("NaCl", [[0, 0, 0], [0, 0, 10]]),
            ase.Atoms("Og2", [[0, 0, 0], [0, 0, 4]]),
            ase.Atoms("H2O", [[0, 0, 5], [0, 5, 0], [5, 0, 0]]),  # far apart
            ase.build.bulk("Cs", cubic=True).repeat(2),
            ase.build.bulk("Hg", "fcc", a=4.6).repeat(2),
            ase.build.bulk("NaCl", "rocksalt", a=5.64).repeat(2),
        ],
        ids=str,
    )
    def test_unusual_matter_is_accepted(self, atoms: ase.Atoms) -> None:
        atoms.pbc = False
        check_structures([atoms])

    def test_warning_points_at_the_user(self) -> None:
        scattering = SolidHarmonicScattering(J=0, L=0, sigma=1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scattering.fit([table("CH4"), table("NH3", "bohr")])
        assert [(w.category, w.filename) for w in caught] == [
            (StructureWarning, __file__)
        ]


def boxed(
    name: str, cell: list[float] | NDArray[np.float64], shift: NDArray[np.float64]
) -> ase.Atoms:
    """A molecule, shifted and wrapped into a cell."""
    atoms = ase.build.molecule(name, cell=cell, pbc=True)
    atoms.positions += shift
    atoms.wrap()
    atoms.pbc = False
    return atoms


CELLS = {
    "cubic": [10, 10, 10],
    "orthorhombic": [8, 12, 15],
    "hexagonal": [9, 9, 12, 90, 90, 120],
    "triclinic": [9, 10, 11, 70, 80, 65],
}


class TestCells:
    @pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
    @pytest.mark.parametrize("name", ["H2O", "CH4", "C6H6", "CH3CH2OH"])
    def test_cut_molecules_are_refused_and_whole_ones_accepted(
        self, name: str, cell: list[float], rng: np.random.Generator
    ) -> None:
        reference = ase.build.molecule(name).get_all_distances()
        n_cut = 0
        for shift in rng.uniform(-20, 20, (40, 3)):
            atoms = boxed(name, cell, shift)
            if np.allclose(atoms.get_all_distances(), reference):
                check_structures([atoms])
                continue
            n_cut += 1
            message = r"Molecule 1 is cut by its cell into \d+ fragments. Unwrap"
            with pytest.raises(ValueError, match=message):
                check_structures([ase.build.molecule("H2"), atoms])
            # By the command in the message.
            atoms.positions = find_mic(
                atoms.positions - atoms.positions[0], atoms.cell
            )[0]
            assert_allclose(atoms.get_all_distances(), reference, atol=1e-9)
            check_structures([atoms])
        assert 5 < n_cut < 40

    def test_number_of_fragments(self) -> None:
        atoms = boxed("H2O", [10, 10, 10], -ase.build.molecule("H2O").positions[0])
        with pytest.raises(ValueError, match=r"into 3 fragments.*atoms\.cell = None"):
            check_structures([atoms])

    def test_without_cell_fragments_are_accepted(self) -> None:
        atoms = boxed("H2O", [10, 10, 10], -ase.build.molecule("H2O").positions[0])
        atoms.cell = None
        assert_allclose(check_structures([atoms])[0].positions, atoms.positions)

    def test_cell_that_is_periodic_along_one_axis(self) -> None:
        shift = -ase.build.molecule("H2O").positions[0]
        atoms = ase.build.molecule("H2O", cell=[0, 0, 10])
        atoms.positions += shift
        check_structures([atoms])
        atoms.positions[:, 2] %= 10
        with pytest.raises(ValueError, match="into 3 fragments"):
            check_structures([atoms])

    @pytest.mark.parametrize("margin", [0, 0.5, 1, 3])
    def test_whole_molecules_in_tight_cells_are_accepted(
        self, margin: float, molecules: NDArray[np.float64]
    ) -> None:
        X = []
        for structure in check_structures(molecules):
            positions = structure.positions - structure.positions.min(axis=0)
            cell = np.ptp(positions, axis=0) + margin
            X.append(ase.Atoms(structure.charges, positions, cell=cell))
        check_structures(X)

    def test_clusters_in_cells_are_accepted(self) -> None:
        water = ase.build.molecule("H2O")
        other = water.copy()
        other.translate([0, 0, 6])
        cluster = water + other
        for cell in ([1, 1, 1], [30, 30, 30]):
            cluster.cell = cell
            check_structures([cluster])

    def test_elements_without_radius(self) -> None:
        atoms = ase.Atoms("Og2", [[0, 0, 0.5], [0, 0, 9.5]], cell=[10, 10, 10])
        check_structures([atoms])
