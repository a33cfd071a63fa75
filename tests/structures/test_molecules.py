import time
from collections import deque

import ase
import ase.build
import ase.db
import ase.io
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from sklearn.utils import _safe_indexing

from skscatharm import pad_structures
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.elements import NOBLE_GASES

WATER = [[8, 0, 0, 0.12], [1, 0, 0.76, -0.48], [1, 0, -0.76, -0.48], [0, 0, 0, 0]]
AMMONIA = [
    [7, 0, 0, 0.1],
    [1, 0, 0.9, -0.3],
    [1, 0.8, -0.5, -0.3],
    [1, -0.8, -0.5, -0.3],
]


def pair(
    change: tuple[int, int] | None = None, value: float = 0
) -> NDArray[np.float64]:
    """Water and ammonia, with one entry of the second changed."""
    X = np.array([WATER, AMMONIA], dtype=np.float64)
    if change is not None:
        X[1][change] = value
    return X


def to_atoms(X: NDArray[np.float64]) -> list[ase.Atoms]:
    return [ase.Atoms(m[m[:, 0] > 0, 0], m[m[:, 0] > 0, 1:]) for m in X]


def assert_same(left: list[Structure], right: list[Structure]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert_array_equal(a.charges, b.charges)
        assert_array_equal(a.positions, b.positions)


@st.composite
def molecule_arrays(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[int]]:
    """Padded molecules of noble gases, and their sizes.

    The atoms lie on a lattice, so that none are close. Noble gases have no bonds, so
    that no distance looks like another unit.
    """
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    padding = draw(st.integers(0, 3))
    X = np.zeros((len(sizes), max(sizes) + padding, 4))
    corner = st.tuples(*3 * [st.integers(-3, 3)])
    for molecule, size in zip(X, sizes, strict=True):
        charges = st.lists(st.sampled_from(NOBLE_GASES), min_size=size, max_size=size)
        corners = st.lists(corner, min_size=size, max_size=size, unique=True)
        molecule[:size, 0] = draw(charges)
        molecule[:size, 1:] = 0.7 * np.array(draw(corners)) + draw(st.floats(-1e3, 1e3))
    return X, sizes


def test_array_becomes_charges_and_positions() -> None:
    water, ammonia = check_structures(pair())
    assert_array_equal(water.charges, [8, 1, 1])
    assert_array_equal(water.positions, np.array(WATER)[:3, 1:])
    assert_array_equal(ammonia.charges, [7, 1, 1, 1])
    assert_array_equal(ammonia.positions, np.array(AMMONIA)[:, 1:])


def test_internal_layout() -> None:
    for X in (pair(), to_atoms(pair())):
        for structure in check_structures(X):
            assert structure.charges.dtype == np.int64
            assert structure.positions.dtype == np.float64
            assert structure.positions.flags.c_contiguous


@given(molecule_arrays())
def test_padding_is_removed_and_restored(drawn: tuple[NDArray[np.float64], list[int]]):
    X, sizes = drawn
    structures = check_structures(X)
    assert [len(s.charges) for s in structures] == sizes
    assert_array_equal(pad_structures(structures), X[:, : max(sizes)])


@given(molecule_arrays())
def test_atoms_are_equivalent_to_array(drawn: tuple[NDArray[np.float64], list[int]]):
    X, _ = drawn
    assert_same(check_structures(to_atoms(X)), check_structures(X))


@given(molecule_arrays(), st.data())
def test_misplaced_entry_names_molecule_and_atom(
    drawn: tuple[NDArray[np.float64], list[int]], data: st.DataObject
):
    X, sizes = drawn
    molecule = data.draw(st.integers(0, len(sizes) - 1))
    atom = data.draw(st.integers(0, sizes[molecule] - 1))
    column = data.draw(st.integers(0, 3))
    X[molecule, atom, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with pytest.raises(ValueError, match=f"Molecule {molecule}, atom {atom} "):
        check_structures(X)


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        deque,
        pd.Series,
        lambda atoms: pd.Series(atoms).to_numpy(),
        lambda atoms: pd.Series(atoms).to_numpy()[:, np.newaxis],
        lambda atoms: pd.DataFrame({"atoms": atoms, "y": 1})[["atoms"]],
    ],
    ids=[
        "list",
        "tuple",
        "deque",
        "Series",
        "object array",
        "column",
        "DataFrame",
    ],
)
def test_containers_of_atoms(container, molecules: NDArray[np.float64]) -> None:
    structures = check_structures(container(to_atoms(molecules)))
    assert_same(structures, check_structures(molecules))


def test_structures(molecules: NDArray[np.float64]) -> None:
    structures = check_structures(molecules)
    assert_same(check_structures(structures), structures)
    assert_same(check_structures(tuple(structures[:1])), structures[:1])


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (Structure([1, 1], [[0, 0, 0]]), r"Molecule 1 has charges of shape \(2,\)"),
        (Structure([[1]], [[0, 0, 0]]), r"Molecule 1 has charges of shape \(1, 1\)"),
        (Structure(["H"], [[0, 0, 0]]), "Molecule 1: charges is not .*strings"),
        (
            Structure([1], np.zeros((1, 3)), reference=np.zeros((2, 3))),
            r"Molecule 1 has a reference of shape \(2, 3\)",
        ),
        (
            Structure([1], np.zeros((1, 3)), reference=[[0, 0, np.nan]]),
            "Molecule 1 has a reference .* finite",
        ),
        (Structure([1], [[0, 0, np.nan]]), "Molecule 1, atom 0 has NaN"),
        (Structure([119], [[0, 0, 0]]), "Molecule 1, atom 0 has the charge 119"),
        (Structure([1, 1], np.zeros((2, 3))), "Molecule 1, atom 0 and atom 1"),
        (Structure([], np.zeros((0, 3))), "Molecule 1 has no atoms"),
    ],
)
def test_invalid_structures(structure: Structure, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_structures([Structure([1], [[0, 0, 0]]), structure])


def test_arrays_of_different_sizes() -> None:
    expected = check_structures(pair())
    assert_same(check_structures([WATER[:3], AMMONIA]), expected)
    assert_same(check_structures([np.array(WATER), np.array(AMMONIA)]), expected)
    assert_same(check_structures(pd.Series([WATER[:3], AMMONIA])), expected)
    frame = pd.DataFrame({"molecule": [np.array(WATER), np.array(AMMONIA)]})
    assert_same(check_structures(frame), expected)


class TestASE:
    """What ASE returns, other than lists of Atoms."""

    MOLECULES = staticmethod(lambda: to_atoms(pair()))

    def test_trajectory(self, tmp_path) -> None:
        ase.io.write(tmp_path / "md.traj", self.MOLECULES())
        with ase.io.Trajectory(tmp_path / "md.traj") as trajectory:
            assert_same(check_structures(trajectory), check_structures(pair()))
            part = check_structures(trajectory[1:])
            assert_same(part, check_structures(pair()[1:]))
        frames = ase.io.iread(tmp_path / "md.traj")
        assert_array_equal(pad_structures(frames), pair())

    def test_database(self, tmp_path) -> None:
        with ase.db.connect(tmp_path / "molecules.db") as database:
            for atoms in self.MOLECULES():
                database.write(atoms)
        rows = list(database.select())
        assert_same(check_structures(rows), check_structures(pair()))
        assert_array_equal(pad_structures(database.select()), pair())
        with pytest.raises(TypeError, match=r"\[row.toatoms\(\) for row in X.select"):
            check_structures(database)
        with pytest.raises(TypeError, match=r"list\(X\)"):
            check_structures(database.select())
        with pytest.raises(TypeError, match=r"single molecule, of type AtomsRow"):
            check_structures(rows[0])

    @pytest.mark.parametrize("name", ["He", "H2O"])
    def test_object_array_of_molecules_of_one_size(self, name: str) -> None:
        atoms = ase.Atoms("He") if name == "He" else ase.build.molecule(name)
        frames = [atoms.copy() for _ in range(4)]
        for i, frame in enumerate(frames):
            frame.translate([0, 0, i])
        X = np.array(frames, dtype=object)
        assert X.shape == (4, len(atoms))
        assert_same(check_structures(X), check_structures(frames))
        assert_same(check_structures(X[[3, 1]]), check_structures(frames)[3::-2])

    @pytest.mark.parametrize(
        "X",
        [
            [ase.build.molecule("H2O")[0]],
            np.array(ase.build.molecule("H2O"), dtype=object),
            np.array([ase.build.molecule("H2O")] * 2, dtype=object)[:, :2],
            np.array([ase.build.molecule("H2O")] * 2, dtype=object)[:, ::-1],
            np.array([[ase.Atom("H"), ase.Atom("H")]], dtype=object),
        ],
    )
    def test_single_atoms(self, X) -> None:
        with pytest.raises(TypeError, match=r"list of ase.Atoms: \[atoms, ...\]"):
            check_structures(X)

    @pytest.mark.parametrize("n_frames", [1, 2])
    def test_lists_of_lists(self, n_frames: int) -> None:
        first, second = self.MOLECULES()
        with pytest.raises(
            TypeError, match=r"Molecule 0 is itself a list of ase.Atoms"
        ):
            check_structures([[first], n_frames * [second]])


class TestMasks:
    def test_masked_rows_are_padding(self) -> None:
        X = np.ma.array(pair(), mask=np.zeros((2, 4, 4), dtype=bool))
        assert_same(check_structures(X), check_structures(pair()))
        X[0, 3] = [99, np.nan, np.inf, 1]
        X[0, 3] = np.ma.masked
        X[1, 1] = np.ma.masked
        water, ammonia = check_structures(X)
        assert_array_equal(water.charges, [8, 1, 1])
        assert_array_equal(ammonia.charges, [7, 1, 1])
        assert_array_equal(ammonia.positions, pair()[1, [0, 2, 3], 1:])

    def test_list_of_masked_arrays(self) -> None:
        rows = [np.ma.array(row, mask=i == 1) for i, row in enumerate(AMMONIA)]
        for molecule in (np.ma.stack(rows), rows):
            _, ammonia = check_structures([WATER, molecule])
            assert_array_equal(ammonia.charges, [7, 1, 1])
            assert_array_equal(ammonia.positions, pair()[1, [0, 2, 3], 1:])

    @pytest.mark.parametrize("column", range(4))
    def test_row_that_is_masked_in_part_is_refused(self, column: int) -> None:
        X = np.ma.array(pair())
        X[1, 2, column] = np.ma.masked
        with pytest.raises(ValueError, match="Molecule 1, atom 2 is masked in part"):
            check_structures(X)

    def test_molecule_that_is_masked_is_refused(self) -> None:
        X = np.ma.array(pair())
        X[1] = np.ma.masked
        with pytest.raises(ValueError, match="Molecule 1 has no atoms"):
            check_structures(X)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: X[::-1].copy()[::-1],
        lambda X: X.astype(">f8"),
        lambda X: X.astype(object),
        lambda X: X.astype(np.longdouble),
        lambda X: X.view(type("Array", (np.ndarray,), {})),
        lambda X: np.broadcast_to(X, X.shape),  # read-only
    ],
    ids=[
        "Fortran order",
        "every second",
        "backwards",
        "big-endian",
        "objects",
        "long double",
        "subclass",
        "read-only",
    ],
)
def test_layouts_of_arrays(change) -> None:
    structures = check_structures(change(pair()))
    assert_same(structures, check_structures(pair()))
    for structure in structures:
        assert type(structure.positions) is np.ndarray
        assert structure.positions.dtype == np.dtype("=f8")
        assert structure.positions.flags.c_contiguous


def test_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.asarray(pair())
    assert_same(check_structures(tensor), check_structures(pair()))
    assert_same(check_structures(list(tensor)), check_structures(pair()))
    assert_array_equal(pad_structures(tensor[1, :, 0], tensor[1:, :, 1:]), pair()[1:])
    tensor.requires_grad_(True)
    with pytest.raises(TypeError, match="requires grad"):
        check_structures(tensor)
    with pytest.raises(ValueError, match=r"Molecule 0 .*requires grad"):
        check_structures(list(tensor))


def test_messages_are_single_lines() -> None:
    for X in (None, [], pair() + 0j, [WATER, "C"], np.ones((2, 5, 3)), [WATER, [[1]]]):
        with pytest.raises((TypeError, ValueError)) as error:
            check_structures(X)
        assert "\n" not in str(error.value)


def test_array_like_of_lists() -> None:
    assert_same(check_structures(pair().tolist()), check_structures(pair()))


def test_list_of_arrays_of_one_shape() -> None:
    assert_same(check_structures(list(pair())), check_structures(pair()))


def test_float32(molecules: NDArray[np.float64]) -> None:
    X = molecules.astype(np.float32)
    assert_same(check_structures(X), check_structures(X.astype(np.float64)))


def test_atom_at_the_origin_is_no_padding() -> None:
    (structure,) = check_structures([[[2, 0, 0, 0], [0, 0, 0, 0]]])
    assert_array_equal(structure.charges, [2])


def test_molecules_at_one_place_do_not_collide() -> None:
    assert len(check_structures([WATER, WATER])) == 2


@pytest.mark.parametrize("as_atoms", [False, True])
def test_input_is_neither_modified_nor_shared(as_atoms: bool) -> None:
    X = pair()
    atoms = to_atoms(X)
    for structure in check_structures(atoms if as_atoms else X):
        structure.charges[:] = 99
        structure.positions[:] = 99
    assert_array_equal(X, pair())
    assert atoms == to_atoms(pair())


@pytest.mark.parametrize("as_atoms", [False, True])
def test_cross_validation_slices_either_form(
    as_atoms: bool, molecules: NDArray[np.float64]
) -> None:
    X = to_atoms(molecules) if as_atoms else molecules
    train, test = next(KFold(4, shuffle=True, random_state=0).split(X))
    assert_same(
        check_structures(_safe_indexing(X, test)), check_structures(molecules[test])
    )
    assert len(train) + len(test) == len(molecules)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((0, 5, 4)), "no molecules"),
        ([], "no molecules"),
        (np.ones(4), r"shape \(4,\)"),
        (np.array(WATER), r"shape \(4, 4\).*X\[np.newaxis\]"),
        (np.ones((2, 5, 3)), r"shape \(2, 5, 3\).*pad_structures\(numbers, X\)"),
        (np.ones((1, 2, 5, 4)), r"shape \(1, 2, 5, 4\)"),
        (["CCO", "C"], "not an array of numbers but of strings"),
        (pair().astype(str), "not an array of numbers but of strings"),
        (pair().astype(bytes), "not an array of numbers but of bytes"),
        (pair().astype(complex), "not an array of numbers but of complex numbers"),
        (
            pair().astype("M8[s]"),
            r"not an array of numbers but of type datetime64",
        ),
        (np.zeros((2, 3, 4), "i4,f4"), "not an array of numbers but of type .*i4.*f4"),
        ([[[10**400, 0, 0, 0]]], "too large"),
        ([{}, {}], "not an array of numbers .*'dict'"),
        ([WATER, [*AMMONIA[:3], [1, 2]]], "Molecule 1 is not an array of numbers"),
        ([WATER, [[1, 0, 0]]], r"Molecule 1 has shape \(1, 3\), not \(n_atoms, 4\)"),
        ([WATER, "CCO"], "Molecule 1 is not an array of numbers but of strings"),
        ([[], WATER], "Molecule 0 has no atoms"),
        (np.zeros((3, 0, 4)), "Molecule 0 has no atoms"),
        ([WATER, np.zeros((4, 4))], "Molecule 1 has no atoms"),
        (pair((2, 1), np.nan), r"Molecule 1, atom 2 has NaN or infinite coordinates"),
        (pair((0, 3), -np.inf), r"Molecule 1, atom 0 has NaN or infinite coordinates"),
        (pair((1, 0), np.nan), "Molecule 1, atom 1 has the charge nan"),
        (pair((1, 0), 1.5), "Molecule 1, atom 1 has the charge 1.5"),
        (pair((1, 0), -1), "Molecule 1, atom 1 has the charge -1"),
        (pair((1, 0), 119), "Molecule 1, atom 1 has the charge 119"),
        (pair((3, 0), 0), "Molecule 1, atom 3 has the charge 0.*zeros only"),
        ([AMMONIA, WATER[:2] + WATER[3:] + WATER[2:3]], "Molecule 1: atom 3 follows"),
        ([AMMONIA, WATER[3:] + WATER[:3]], "Molecule 1: atom 1 follows"),
        (
            pair() * [1, 0.1, 0.1, 0.1],
            "Molecule 0, atom 0 and atom [12] are only 0.09683 Å apart.*in Å",
        ),
        ([WATER, WATER[:2] + WATER[:2]], "Molecule 1, atom 0 and atom 2 are only 0 Å"),
    ],
)
def test_invalid_array(X, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_structures(X)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (ase.Atoms(), "Molecule 1 has no atoms"),
        (ase.Atoms("X"), "Molecule 1, atom 0 has the charge 0"),
        (ase.Atoms("He", [[np.nan, 0, 0]]), "Molecule 1, atom 0 has NaN"),
        (ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.05]]), "Molecule 1, atom 0 and atom 1"),
    ],
)
def test_invalid_atoms(second: ase.Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_structures([ase.build.molecule("H2O"), second])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (None, "NoneType"),
        ("CCO", "str"),
        ({"X": 1}, "dict"),
        (3.0, "float"),
        (np.float64(3), "float64"),
        (iter([WATER]), r"list_iterator.*list\(X\)"),
        ((WATER for _ in range(2)), r"generator.*list\(X\)"),
        ({1: WATER}.values(), r"dict_values.*list\(X\)"),
        (memoryview(pair()), "memoryview; pass an array"),
        (b"CCO", "bytes; pass an array"),
        (ase.build.molecule("H2O"), r"single molecule, of type Atoms.*\[X\]"),
        (ase.build.molecule("H2O")[0], "Atom; pass an array"),
        (Structure([1], [[0, 0, 0]]), r"single Structure.*\[X\]"),
        ([Structure([1], [[0, 0, 0]]), ase.Atoms("H")], "Molecule 1 is of type Atoms"),
        (pd.DataFrame({"atoms": [1], "y": [2]}), r"shape \(1, 2\).*Series.*'atoms'"),
        (pd.DataFrame({"Z": [1.0]}), r"shape \(1, 1\).*Series.*ColumnTransformer"),
        ([ase.build.molecule("H2O"), AMMONIA], "Molecule 1 is of type list"),
        ([WATER, ase.build.molecule("H2O")], "Molecule 0 is of type list"),
    ],
)
def test_wrong_kind_of_object(X, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_structures(X)


def test_cell_without_periodicity_is_a_molecule() -> None:
    atoms = ase.build.molecule("H2O", vacuum=4)
    assert_array_equal(check_structures([atoms])[0].positions, atoms.positions)


def test_first_of_several_faults_is_named() -> None:
    X = np.array([WATER, AMMONIA, AMMONIA])
    X[1:, 2, 0] = 200
    with pytest.raises(ValueError, match="Molecule 1, atom 2"):
        check_structures(X)


def test_distance_limit() -> None:
    near, far = np.zeros((2, 1, 2, 4))
    near[..., 0] = far[..., 0] = 1
    near[0, 1, 1], far[0, 1, 1] = 0.1499, 0.1501
    check_structures(far)
    with pytest.raises(ValueError, match="apart"):
        check_structures(near)


@pytest.mark.parametrize("distance", [0.09999, 0.14999, 0.149999999])
def test_distance_is_not_rounded_to_the_limit(distance: float) -> None:
    with pytest.raises(ValueError, match=f"only {distance} Å apart .*is 0.15 Å"):
        check_structures([[[1, 0, 0, 0], [1, 0, 0, distance]]])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0.0, 1e6], r"Molecule 1 extends over 1e\+06 Å .at most 10000 Å"),
        ([-5e5, 5e5], r"Molecule 1 extends over 1e\+06 Å"),
        ([0.0, 10001.0], "Molecule 1 extends over 10001 Å"),
        ([0.0, 1e300], r"Molecule 1, atom 1 has coordinates \[0.0, 0.0, 1e\+300\]"),
        ([-1e308, 1e308], "Molecule 1, atom 0 has coordinates .*to the origin"),
        ([1e15, 1e15 + 1], "Molecule 1, atom 0 has coordinates .*to the origin"),
    ],
)
def test_absurd_coordinates(positions: list[float], message: str) -> None:
    X = np.array([[[1, 0, 0, 0], [1, 0, 0, 0.75]]] * 2)
    X[1, :, 3] = positions
    with np.errstate(all="raise"), pytest.raises(ValueError, match=message):
        check_structures(X)


def test_molecule_far_from_the_origin(molecules: NDArray[np.float64]) -> None:
    X = molecules.copy()
    X[X[:, :, 0] > 0] += [0, 9e5, -9e5, 1e3]
    for moved, structure in zip(
        check_structures(X), check_structures(molecules), strict=True
    ):
        shift = moved.positions - structure.positions
        assert_allclose(shift, np.broadcast_to([9e5, -9e5, 1e3], shift.shape))


def test_many_molecules_are_checked_quickly(qm9) -> None:
    X = np.tile(qm9.data, (5, 1, 1))
    start = time.process_time()
    check_structures(X)
    # Takes a third of a second; a loop over pairs of atoms takes minutes.
    assert time.process_time() - start < 5


def test_large_molecule() -> None:
    corners = np.stack(np.meshgrid(*3 * [np.arange(20.0)], indexing="ij"), axis=-1)
    X = np.ones((1, 8000, 4))
    X[0, :, 1:] = 0.9 * corners.reshape(-1, 3)
    assert len(check_structures(X)[0].charges) == 8000
    X[0, 7999, 1:] = X[0, 4321, 1:] + 0.03
    with pytest.raises(ValueError, match="atom 4321 and atom 7999"):
        check_structures(X)


def test_pad_structures_of_atoms(molecules: NDArray[np.float64]) -> None:
    padded = pad_structures(to_atoms(molecules))
    n_atoms = padded.shape[1]
    assert_array_equal(padded, molecules[:, :n_atoms])
    assert not molecules[:, n_atoms:].any()


def test_pad_structures_refuses_crystals() -> None:
    with pytest.raises(ValueError, match=r"Molecule 1 is periodic.*pass the list"):
        pad_structures([ase.build.molecule("H2"), ase.build.bulk("Si")])


def test_pad_structures_of_nothing() -> None:
    with pytest.raises(ValueError, match="no molecules"):
        pad_structures([])


def test_pad_structures_of_an_iterator(molecules: NDArray[np.float64]) -> None:
    padded = pad_structures(atoms for atoms in to_atoms(molecules))
    assert_array_equal(padded, pad_structures(to_atoms(molecules)))


FRAMES = np.array([AMMONIA, AMMONIA, AMMONIA])
FRAMES[1:, :, 1:] *= 1.05


@pytest.mark.parametrize("container", [np.array, lambda x: np.array(x).tolist()])
def test_pad_structures_of_charges_and_positions(container) -> None:
    numbers, positions = FRAMES[0, :, 0].astype(int), FRAMES[:, :, 1:]
    assert_array_equal(pad_structures(container(numbers), container(positions)), FRAMES)
    numbers = FRAMES[:, :, 0].astype(int)
    assert_array_equal(pad_structures(container(numbers), container(positions)), FRAMES)


def test_pad_structures_of_padded_charges_and_positions() -> None:
    assert_array_equal(pad_structures(pair()[:, :, 0], pair()[:, :, 1:]), pair())


@pytest.mark.parametrize("container", [list, iter, lambda x: pd.Series(x).to_numpy()])
def test_pad_structures_of_frames_of_different_sizes(container) -> None:
    frames = [np.array(WATER[:3]), np.array(AMMONIA)]
    numbers = [frame[:, 0].astype(int) for frame in frames]
    positions = [frame[:, 1:] for frame in frames]
    padded = pad_structures(container(numbers), container(positions))
    assert_array_equal(padded, pair())


@pytest.mark.parametrize(
    ("numbers", "positions", "message"),
    [
        ([7, 1, 1], FRAMES[:, :, 1:], r"\(3,\).*\(3, 4, 3\) do not match"),
        ([[7, 1, 1, 1]], FRAMES[:, :, 1:], r"\(1, 4\).*\(3, 4, 3\) do not match"),
        ([7, 1, 1, 1], FRAMES[0, :, 1:], r"single frame.*positions\[np.newaxis\]"),
        ([7, 1, 1, 1], FRAMES, r"\(3, 4, 4\) do not match"),
        ([7, 1, 1, 1], FRAMES[:0, :, 1:], "no molecules"),
        ("NHHH", FRAMES[:, :, 1:], "numbers is not .* strings; pass nuclear charges"),
        (["N", "H", "H", "H"], FRAMES[:, :, 1:], "strings; pass nuclear charges"),
        ([7, 1, 1, 1], FRAMES[:, :, 1:] + 0j, "positions is not .* complex numbers"),
        ([7, 1, 1, 0], FRAMES[:, :, 1:], "Molecule 0, atom 3 has the charge 0"),
        ([[1], [1, 1]], [[[0, 0, 0]]], "for 2 molecules, and positions for 1"),
        ([[1], [1, 1]], [[[0, 0, 0]]] * 2, r"Molecule 1 has numbers of shape \(2,\)"),
        ([7, 1, 1, np.nan], FRAMES[:, :, 1:], "Molecule 0, atom 3 has the charge nan"),
        (np.ma.array([7, 1, 1, 1], mask=[0, 0, 0, 1]), FRAMES[:, :, 1:], "filled"),
        ([7, 1, 1, 1], np.ma.masked_equal(FRAMES[:, :, 1:], 0.1), "filled"),
        ([np.ma.masked_equal([7, 1, 1, 1], 7)] * 3, FRAMES[:, :, 1:], "filled"),
    ],
)
def test_charges_and_positions_that_do_not_match(
    numbers, positions, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pad_structures(numbers, positions)
