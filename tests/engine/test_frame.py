import numpy as np
import pytest
from ase.build import molecule as build
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from skscatharm.engine.frame import Frame

CUBE = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
OCTAHEDRON = np.concatenate([np.eye(3), -np.eye(3)])


def of_ase(name):
    atoms = build(name)
    return atoms.numbers, atoms.positions


MOLECULES = {
    "no symmetry": of_ase("CH3CH2OH"),
    "chiral": (np.arange(1, 6), np.random.default_rng(1).normal(size=(5, 3))),
    "one plane": of_ase("CH3CHO"),
    "water": of_ase("H2O"),
    "ammonia": of_ase("NH3"),
    "ethane": of_ase("C2H6"),
    "allene": of_ase("C3H4_D2d"),
    "benzene": of_ase("C6H6"),
    "square": (
        np.full(4, 6),
        np.array([[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]),
    ),
    "methane": of_ase("CH4"),
    "chloromethane": of_ase("CH3Cl"),
    "cubane": (np.repeat([6, 1], 8), np.concatenate([0.785 * CUBE, 1.41 * CUBE])),
    "SF6": (np.repeat([16, 9], [1, 6]), np.vstack([np.zeros(3), 1.56 * OCTAHEDRON])),
    "fullerene": of_ase("C60"),
    "CO": of_ase("CO"),
    "CO2": of_ase("CO2"),
    "one atom": (np.array([8]), np.zeros((1, 3))),
    # Equal moments, where only the charges tell the corners apart.
    "marked tetrahedron": (np.array([6, 1, 1, 9, 17]), of_ase("CH4")[1]),
    "marked cube": (np.array([1, 6, 1, 1, 7, 1, 1, 8]), 1.0 * CUBE),
}
MOTIONS = {
    "rotation": (Rotation.random(None, 0).as_matrix(), 0.0),
    "another rotation": (Rotation.random(None, 5).as_matrix(), 0.0),
    "quarter turn": (Rotation.from_euler("x", 90, degrees=True).as_matrix(), 0.0),
    "reflection": (np.diag([1.0, -1.0, 1.0]), 0.0),
    "inversion": (-Rotation.random(None, 1).as_matrix(), 0.0),
    "shift": (np.eye(3), np.array([0.3, -20.0, 100.0])),
}


def in_order(charges, positions):
    """Sort atoms that come in any order; coordinates are equal up to rounding."""
    rounded = np.round(positions, 6) + 0.0
    return np.lexsort((*rounded.T, charges))


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("name", MOLECULES)
def test_a_molecule_stands_as_its_copies_do(name, motion) -> None:
    charges, positions = MOLECULES[name]
    expected = Frame(positions, charges).positions
    matrix, shift = MOTIONS[motion]
    order = np.random.default_rng(0).permutation(len(charges))
    moved = (positions @ matrix.T + shift)[order]
    found = Frame(moved, charges[order]).positions
    # As sets: which of some equivalent atoms stands where does not matter.
    i, j = in_order(charges, expected), in_order(charges[order], found)
    assert np.array_equal(charges[i], charges[order][j])
    assert_allclose(found[j], expected[i], atol=2e-7)


@pytest.mark.parametrize("name", MOLECULES)
def test_rotation_and_centre(name) -> None:
    charges, positions = MOLECULES[name]
    given = positions @ Rotation.random(None, 3).as_matrix() + [1.0, 2.0, 3.0]
    frame = Frame(given, charges)
    assert_allclose(
        (given - frame.centre) @ frame.rotation, frame.positions, atol=1e-12
    )
    assert_allclose(frame.rotation.T @ frame.rotation, np.eye(3), atol=1e-12)
    # The box is centred.
    low, high = frame.positions.min(axis=0), frame.positions.max(axis=0)
    assert_allclose(low, -high, atol=1e-12)
    assert_allclose(frame.half_lengths, high, atol=1e-12)


def test_nearly_symmetric_molecules_may_stand_as_their_moments_say(rng) -> None:
    # Noise far above the limit of symmetry, and far below it.
    charges, positions = MOLECULES["methane"]
    for size in (1e-3, 1e-9):
        noisy = positions + size * rng.normal(size=positions.shape)
        expected = Frame(noisy, charges).positions
        turned = noisy @ Rotation.random(None, 7).as_matrix().T
        found = Frame(turned, charges).positions
        i, j = in_order(charges, expected), in_order(charges, found)
        assert_allclose(found[j], expected[i], atol=1e-6)


def test_the_box_is_small() -> None:
    rod = np.outer(np.linspace(-5, 5, 11), [1, 1, 1])
    half_lengths = Frame(rod, np.ones(11)).half_lengths
    assert_allclose(half_lengths, [5 * np.sqrt(3), 0, 0], atol=1e-9)
    plane = Rotation.random(None, 2).apply(MOLECULES["benzene"][1])
    assert Frame(plane, MOLECULES["benzene"][0]).half_lengths[2] < 1e-9


def test_spacing() -> None:
    line = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [6, 0, 0]])
    assert Frame(line, np.ones(4)).spacing == pytest.approx(1.5)  # of 1, 1, 2 and 3
    assert Frame(line[:1], np.ones(1)).spacing == np.inf


def test_axes_turn_with_a_molecule_as_its_reference(rng) -> None:
    charges, reference = MOLECULES["benzene"]
    positions = reference + 0.05 * rng.normal(size=reference.shape)
    turn = Rotation.random(None, 3).as_matrix()
    frame = Frame(positions, charges, reference=reference)
    turned = Frame(positions @ turn.T + [1, 2, 3], charges, reference=reference)
    assert_allclose(turned.positions, frame.positions, atol=1e-9)
    assert_allclose(turned.centre, turn @ frame.centre + [1, 2, 3], atol=1e-9)
    assert_allclose(positions - frame.centre, frame.positions @ frame.rotation.T)
    # No other rotation brings it closer to the reference.
    aligned, _ = Rotation.align_vectors(
        reference - reference.mean(axis=0), frame.positions
    )
    expected = Frame(reference, charges, reference=reference)
    assert_allclose(
        aligned.apply(frame.positions) @ expected.rotation, frame.positions, atol=1e-9
    )
    assert frame.spacing == expected.spacing
