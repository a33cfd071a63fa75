"""The frames are tested against physics, which shares no code with their script."""

import sys
from importlib.resources import files

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from skscatharm.datasets import load_malonaldehyde_forces
from skscatharm.structures import check_structures

FILE = files("skscatharm.datasets") / "data" / "malonaldehyde.npz"
KT = 8.617333262e-5 * 500  # eV
OXYGEN, PROTON = [0, 4], 5


@pytest.fixture(scope="module")
def sample():
    return load_malonaldehyde_forces()


@pytest.fixture(scope="module")
def positions(sample):
    return sample.data[..., 1:]


def distances(positions, first, second):
    return np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)


def test_shapes(sample) -> None:
    assert sample.data.shape == (300, 9, 4)
    assert sample.energies.shape == (300,)
    assert sample.forces.shape == (300, 9, 3)
    for array in (sample.data, sample.energies, sample.forces):
        assert array.dtype == np.float64
        assert np.isfinite(array).all()


def test_atoms_have_one_order(sample) -> None:
    charges = [8, 6, 6, 6, 8, 1, 1, 1, 1]
    assert_array_equal(sample.data[..., 0], np.tile(charges, (300, 1)))
    assert len(check_structures(sample.data)) == 300


def test_bonds_have_lengths_in_angstrom(positions) -> None:
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 4)):  # O-C-C-C-O
        assert_allclose(distances(positions, a, b).mean(), 1.32, atol=0.12)
    for a, b in ((1, 6), (2, 7), (3, 8)):  # C-H
        assert_allclose(distances(positions, a, b).mean(), 1.09, atol=0.03)


def test_proton_is_on_both_sides(sample, positions) -> None:
    to_first, to_second = (distances(positions, o, PROTON) for o in OXYGEN)
    assert_allclose(np.minimum(to_first, to_second).mean(), 1.03, atol=0.06)
    on_first = to_first < to_second
    assert 0.4 < on_first.mean() < 0.6
    assert (on_first[1:] != on_first[:-1]).sum() == 35  # as the description states
    # Both sides have the same energy; the means have errors of about 0.015 eV.
    sides = sample.energies[on_first].mean(), sample.energies[~on_first].mean()
    assert_allclose(*sides, rtol=0, atol=0.05)


def test_no_force_and_torque_on_the_molecule(sample, positions) -> None:
    # Rounding leaves 1e-6 eV/Å an atom.
    assert_allclose(sample.forces.sum(axis=1), 0, atol=1e-5)
    torques = np.cross(positions, sample.forces).sum(axis=1)
    assert_allclose(torques, 0, atol=1e-4)


def test_virial_has_the_temperature(sample, positions) -> None:
    # <r dE/dr> = (3 n_atoms - 3) kT, for a molecule that does not fall apart. This
    # shows the sign and the unit of the forces, as the error of the mean is a third.
    virials = -(positions * sample.forces).sum(axis=(1, 2))
    error = virials.std() / np.sqrt(len(virials))
    assert error < 0.35 * 24 * KT
    assert abs(virials.mean() - 24 * KT) < 2 * error


def test_energies_have_the_temperature(sample) -> None:
    # The energies of 21 harmonic vibrations have a standard deviation of sqrt(21/2) kT.
    assert_allclose(sample.energies.std(), np.sqrt(21 / 2) * KT, rtol=0.15)


def test_energies_of_successive_frames_are_independent(sample) -> None:
    assert abs(np.corrcoef(sample.energies[:-1], sample.energies[1:])[0, 1]) < 0.15


def test_forces_are_slopes_of_the_energies(sample, positions) -> None:
    # Between close frames, turned onto each other, the trapezoidal rule integrates the
    # forces. It is exact for harmonic energies.
    between = np.array([pdist(frame) for frame in positions])
    _, nearest = KDTree(between).query(between, k=2)
    energies, work = [], []
    for i, j in nearest:
        turn, _ = Rotation.align_vectors(positions[i], positions[j])
        step = positions[i] - turn.apply(positions[j])
        force = (sample.forces[i] + turn.apply(sample.forces[j])) / 2
        energies.append(sample.energies[i] - sample.energies[j])
        work.append((force * step).sum())
    slope, _ = np.polyfit(energies, work, 1)
    assert_allclose(slope, -1, atol=0.1)
    assert np.corrcoef(energies, work)[0, 1] < -0.9


def test_frames_as_atoms(sample) -> None:
    frames = load_malonaldehyde_forces(as_atoms=True)
    assert_array_equal(frames.energies, sample.energies)
    assert len(frames.data) == 300
    for atoms, molecule, energy, forces in zip(
        frames.data, sample.data, sample.energies, sample.forces, strict=True
    ):
        assert_array_equal(atoms.numbers, molecule[:, 0])
        assert_array_equal(atoms.positions, molecule[:, 1:])
        assert atoms.get_potential_energy() == energy
        assert_array_equal(atoms.get_forces(), forces)


def test_missing_ase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ase") as raised:
        load_malonaldehyde_forces(as_atoms=True)
    assert raised.value.name == "ase"


def test_description(sample) -> None:
    for text in ("GFN2-xTB", "500 K", "eV/Å", "0.5 ps", "35 times", "draw_sample.py"):
        assert text in sample.DESCR


def test_file_is_small() -> None:
    assert len(FILE.read_bytes()) < 200_000


def test_tblite_gives_the_same(sample) -> None:
    tblite = pytest.importorskip("tblite.ase")
    for atoms, energy, forces in zip(
        load_malonaldehyde_forces(as_atoms=True).data[::50],
        sample.energies[::50],
        sample.forces[::50],
        strict=True,
    ):
        atoms.calc = tblite.TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
        assert_allclose(atoms.get_potential_energy(), energy, atol=1e-6)
        assert_allclose(atoms.get_forces(), forces, atol=1e-5)
