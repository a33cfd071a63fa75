"""Primitive cells: compared with the cells that the structures were made from."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.structures.cells import PrimitiveCell, primitive_cell, reduce_lattice
from skscatharm.structures.structure import Structure

SUPERCELLS = [
    np.eye(3, dtype=int),
    np.diag([2, 1, 1]),
    np.diag([2, 2, 2]),
    np.array([[2, 1, 0], [-1, 3, 5], [0, 0, -2]]),
    np.array([[1, 4, -7], [0, 1, 9], [0, 0, 1]]),
]


def crystals() -> dict[str, Atoms]:
    triclinic = Atoms(
        "OCN",
        [[0, 0, 0], [1.3, 0.2, 0.1], [0.4, 1.6, 2.2]],
        cell=[[3.1, 0, 0], [0.7, 3.6, 0], [-0.4, 1.1, 4.3]],
        pbc=True,
    )
    return {
        "fcc": bulk("Cu"),
        "bcc": bulk("Fe"),
        "hcp": bulk("Mg"),
        "diamond": bulk("Si"),
        "rocksalt": bulk("NaCl", "rocksalt", 5.64),
        "triclinic": triclinic,
    }


def structure_of(atoms: Atoms) -> Structure:
    return Structure(
        atoms.numbers.astype(np.int64),
        atoms.get_positions(),
        np.array(atoms.cell),
        tuple(bool(periodic) for periodic in atoms.pbc),
    )


def described_otherwise(atoms: Atoms, matrix: np.ndarray, seed: int) -> Atoms:
    """Repeat, rotate and shift a crystal, and put its atoms into any images."""
    rng = np.random.default_rng(seed)
    if np.linalg.det(matrix) < 0:
        matrix = -matrix
    atoms = make_supercell(atoms, matrix)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cell = np.array(atoms.cell) @ rotation
    positions = atoms.positions @ rotation + rng.normal(scale=10, size=3)
    positions += rng.integers(-3, 4, size=positions.shape) @ cell
    order = rng.permutation(len(atoms))
    return Atoms(atoms.numbers[order], positions[order], cell=cell, pbc=True)


def check(found: PrimitiveCell, structure: Structure) -> None:
    """Check that the copies of the primitive cell are the structure."""
    vectors, positions, members = found
    assert_array_equal(np.sort(members, axis=None), np.arange(len(structure.charges)))
    charges = structure.charges[members]
    assert_array_equal(charges, np.broadcast_to(charges[0], charges.shape))
    numbers = (structure.positions[members] - positions) @ np.linalg.pinv(vectors)
    gaps = structure.positions[members] - positions - np.rint(numbers) @ vectors
    assert np.abs(gaps).max() < 2e-6
    inside = positions @ np.linalg.pinv(vectors)
    assert inside.min() > -1e-9
    assert inside.max() < 1 + 1e-9
    # The cell of the structure is a cell of the lattice, of as many copies.
    multiples = structure.cell[list(structure.pbc)] @ np.linalg.pinv(vectors)
    assert_allclose(multiples, np.rint(multiples), atol=1e-6)
    volumes = np.sqrt(np.linalg.det(multiples @ multiples.T))
    assert volumes == pytest.approx(len(members))


@pytest.mark.parametrize("name", crystals())
@pytest.mark.parametrize("matrix", SUPERCELLS, ids=range(len(SUPERCELLS)))
def test_every_description_has_the_same_cell(name: str, matrix: np.ndarray) -> None:
    atoms = crystals()[name]
    expected = reduce_lattice(np.array(atoms.cell))
    structure = structure_of(described_otherwise(atoms, matrix, seed=len(name)))
    found = primitive_cell(structure)
    check(found, structure)
    assert found.members.shape[1] == len(atoms)
    assert_allclose(
        found.vectors @ found.vectors.T, expected @ expected.T, rtol=1e-6, atol=1e-6
    )
    assert np.linalg.det(found.vectors) > 0


def test_defects_are_seen() -> None:
    perfect = bulk("NaCl", "rocksalt", 5.64, cubic=True) * (3, 2, 2)
    vacancy = perfect.copy()
    del vacancy[17]
    moved = perfect.copy()
    moved.positions[5, 1] += 3e-6
    replaced = perfect.copy()
    replaced.numbers[8] += 1
    for atoms in (vacancy, moved, replaced):
        found = primitive_cell(structure_of(atoms))
        assert found.members.shape == (1, len(atoms))
        check(found, structure_of(atoms))
    within = perfect.copy()
    within.positions[5, 1] += 3e-7
    assert primitive_cell(structure_of(within)).members.shape == (48, 2)


def test_every_second_layer_differs() -> None:
    atoms = bulk("Cu", cubic=True) * (4, 2, 2)
    atoms.positions[:, 1] += 0.2 * np.cos(np.pi * atoms.positions[:, 0] / 3.61)
    found = primitive_cell(structure_of(atoms))
    check(found, structure_of(atoms))
    # The pattern repeats after two cells along x; a face is centred in each layer.
    assert found.members.shape == (16, 4)


def test_slab() -> None:
    slab = fcc111("Al", (4, 3, 3), a=4.05, vacuum=5)
    structure = structure_of(slab)
    found = primitive_cell(structure)
    check(found, structure)
    assert found.members.shape == (12, 3)
    d = 4.05 / np.sqrt(2)
    assert_allclose(
        found.vectors @ found.vectors.T, d**2 * np.array([[1, 0.5], [0.5, 1]])
    )
    # Translations out of the plane are none, whatever the third vector is.
    slab.cell[2] = [0, 0, 4.05 / np.sqrt(3)]
    assert_allclose(primitive_cell(structure_of(slab)).vectors, found.vectors)


def test_wire() -> None:
    wire = Atoms("HOHO", [[0, 0, 0], [2, 0, 1], [0, 0, 3], [2, 0, 4]])
    wire.cell = [[9, 9, 0], [1, 0, 0], [0, 0, -6]]
    wire.pbc = (False, False, True)
    found = primitive_cell(structure_of(wire))
    check(found, structure_of(wire))
    assert found.members.shape == (2, 2)
    assert_allclose(np.abs(found.vectors), [[0, 0, 3]], atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_reduced_vectors_are_the_shortest(k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(20):
        short = rng.normal(size=(k, 3)) * rng.uniform(0.5, 4, size=(k, 1))
        skewed = short.copy()
        for i, j in product(range(k), repeat=2):
            if i != j:
                skewed[i] += rng.integers(-9, 10) * skewed[j]
        reduced = reduce_lattice(skewed)
        change = reduced @ np.linalg.pinv(skewed)
        assert_allclose(change, np.rint(change), atol=1e-6)
        assert abs(np.linalg.det(np.rint(change))) == pytest.approx(1)
        # All vectors of the lattice in a range that holds the shortest ones.
        numbers = np.array(list(product(range(-6, 7), repeat=k)))
        lengths = np.sort(np.linalg.norm(numbers @ reduced, axis=1))
        assert np.linalg.norm(reduced[0]) == pytest.approx(lengths[1])
        for i, row in enumerate(reduced):
            moved = row + numbers[:, :i] @ reduced[:i]
            assert np.linalg.norm(moved, axis=1).min() > np.linalg.norm(row) - 1e-9
