import time

import ase
import ase.build
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from sklearn.utils import _safe_indexing

from skscatharm import pad_structures
from skscatharm.structures import Structure, check_structures

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
    """Padded molecules, atoms on a lattice so that none are close, and their sizes."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    padding = draw(st.integers(0, 3))
    X = np.zeros((len(sizes), max(sizes) + padding, 4))
    corner = st.tuples(*3 * [st.integers(-3, 3)])
    for molecule, size in zip(X, sizes, strict=True):
        charges = st.lists(st.integers(1, 118), min_size=size, max_size=size)
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
    [list, tuple, lambda atoms: pd.Series(atoms, dtype=object).to_numpy()],
    ids=["list", "tuple", "object array"],
)
def test_containers_of_atoms(container, molecules: NDArray[np.float64]) -> None:
    structures = check_structures(container(to_atoms(molecules)))
    assert_same(structures, check_structures(molecules))


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
        (np.ones((2, 5, 3)), r"shape \(2, 5, 3\)"),
        (np.ones((1, 2, 5, 4)), r"shape \(1, 2, 5, 4\)"),
        ([WATER, AMMONIA[:2]], "not an array of numbers.*padded"),
        (["CCO", "C"], "not an array of numbers"),
        (pair().astype(complex), "not an array of numbers"),
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
            "Molecule 0, atom 0 and atom [12] are only 0.0968 Å apart.*in Å",
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
        (ase.build.bulk("Si"), r"Molecule 1 is periodic.*atoms.pbc = False"),
        (
            ase.Atoms("He", cell=[5, 5, 5], pbc=[0, 0, 1]),
            r"Molecule 1 is periodic \(pbc=\[False, False, True\]\)",
        ),
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
        (iter([WATER]), "iterator"),
        (ase.build.molecule("H2O"), r"single ase.Atoms; pass a list"),
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
    near[0, 1, 1], far[0, 1, 1] = 0.0999, 0.1001
    check_structures(far)
    with pytest.raises(ValueError, match="apart"):
        check_structures(near)


def test_many_molecules_are_checked_quickly(qm9) -> None:
    X = np.tile(qm9.data, (5, 1, 1))
    start = time.process_time()
    check_structures(X)
    # Takes a third of a second; a loop over pairs of atoms takes minutes.
    assert time.process_time() - start < 5


def test_large_molecule() -> None:
    corners = np.stack(np.meshgrid(*3 * [np.arange(20.0)], indexing="ij"), axis=-1)
    X = np.ones((1, 8000, 4))
    X[0, :, 1:] = 1.2 * corners.reshape(-1, 3)
    assert len(check_structures(X)[0].charges) == 8000
    X[0, 7999, 1:] = X[0, 4321, 1:] + 0.03
    with pytest.raises(ValueError, match="atom 4321 and atom 7999"):
        check_structures(X)


def test_pad_structures_of_atoms(molecules: NDArray[np.float64]) -> None:
    padded = pad_structures(to_atoms(molecules))
    n_atoms = padded.shape[1]
    assert_array_equal(padded, molecules[:, :n_atoms])
    assert not molecules[:, n_atoms:].any()


def test_pad_structures_checks_atoms() -> None:
    with pytest.raises(ValueError, match="Molecule 0 is periodic"):
        pad_structures([ase.build.bulk("Si")])


def test_pad_structures_of_nothing() -> None:
    with pytest.raises(ValueError, match="no molecules"):
        pad_structures([])
