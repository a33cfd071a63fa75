"""A potential as a calculator of ASE."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from surfaces import Morse, shaken
from test_potentials import WATER, make_potential, make_scattering

from skscatharm import ScatteringPotential
from skscatharm.ase import ScatteringCalculator


@pytest.fixture(scope="module")
def potential() -> ScatteringPotential:
    return make_potential().fit(shaken(WATER, 40, 0.04, seed=0))


@pytest.fixture
def atoms(potential) -> Atoms:
    atoms = shaken(WATER, 1, 0.04, seed=1)[0]
    atoms.calc = ScatteringCalculator(potential)
    return atoms


def test_results(atoms, potential) -> None:
    expected = potential.evaluate([atoms])
    energy = atoms.get_potential_energy()
    assert energy == pytest.approx(expected.energies[0], abs=1e-3)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert_allclose(atoms.get_forces(), expected.forces[0], atol=2e-3)
    uncertainty = atoms.calc.results["energy_uncertainty"]
    assert uncertainty == pytest.approx(expected.uncertainties[0], rel=0.01)


def test_forces_are_derivatives_of_the_energy(atoms) -> None:
    start, forces = atoms.positions.copy(), atoms.get_forces()
    slopes = np.zeros_like(forces)
    # Fourth order: the energy is far from a parabola.
    step, factors = 2e-3, {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    for index in np.ndindex(forces.shape):
        for n, factor in factors.items():
            atoms.positions = start
            atoms.positions[index] += n * step
            slopes[index] -= factor / step * atoms.get_potential_energy()
    assert_allclose(forces, slopes, atol=3e-5)


def test_forces_turn_with_the_molecule(atoms) -> None:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    turn = Rotation.random(None, 0).as_matrix()
    atoms.positions = atoms.positions @ turn + [1, 2, 3]
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    assert_allclose(atoms.get_forces(), forces @ turn, atol=1e-5)


def test_computes_once_and_only_what_is_asked(atoms, monkeypatch) -> None:
    calls = []
    evaluate = atoms.calc.potential.evaluate

    def counted(X, *, forces=True, stresses=False):
        calls.append(forces)
        return evaluate(X, forces=forces, stresses=stresses)

    monkeypatch.setattr(atoms.calc.potential, "evaluate", counted)
    atoms.get_potential_energy()
    atoms.get_potential_energy()
    assert calls == [False]
    atoms.get_forces()
    atoms.get_forces()
    atoms.get_potential_energy()
    assert calls == [False, True]
    atoms.rattle(0.01)
    atoms.get_forces()
    atoms.get_potential_energy()
    assert calls == [False, True, True]


def test_optimisation(atoms) -> None:
    assert BFGS(atoms, logfile=None).run(fmax=0.005, steps=50)
    reference = atoms.copy()
    reference.calc = Morse()
    BFGS(reference, logfile=None).run(fmax=1e-4, steps=100)
    assert_allclose(atoms.get_all_distances(), reference.get_all_distances(), atol=0.02)


def test_vibrations(atoms, tmp_path: Path) -> None:
    found = []
    for name, calculator in (("potential", atoms.calc), ("reference", Morse())):
        atoms.calc = calculator
        assert BFGS(atoms, logfile=None).run(fmax=2e-4, steps=50)
        vibrations = Vibrations(atoms, name=tmp_path / name)
        vibrations.run()
        found.append(abs(vibrations.get_frequencies()))
    # Translations and rotations are as near to zero as those of the reference, which
    # has the same steps.
    assert found[0][:6].max() < 40 < 2000 < found[0][6]
    assert_allclose(found[0], found[1], rtol=0.02, atol=5)


def test_dynamics_conserves_energy(atoms) -> None:
    widths = np.sqrt(300 * units.kB * atoms.get_masses())
    momenta = np.random.default_rng(0).normal(size=(3, 3)) * widths[:, np.newaxis]
    atoms.set_momenta(momenta)
    dynamics = VelocityVerlet(atoms, timestep=0.25 * units.fs)
    energies, kinetic = [], []
    for _ in dynamics.irun(100):
        energies.append(atoms.get_total_energy())
        kinetic.append(atoms.get_kinetic_energy())
    assert np.ptp(energies) < 0.03 * np.ptp(kinetic)
    assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-3)


def test_thermostat(atoms) -> None:
    Langevin(
        atoms,
        timestep=0.25 * units.fs,
        temperature_K=300,
        friction=0.01 / units.fs,
        rng=np.random.default_rng(0),
        fixcm=False,
    ).run(5)
    assert np.isfinite(atoms.positions).all()


@pytest.mark.parametrize("extension", ["xyz", "traj", "json"])
def test_results_are_written(extension, atoms, tmp_path: Path) -> None:
    path = tmp_path / f"atoms.{extension}"
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    ase.io.write(path, atoms)
    copy = ase.io.read(path)
    assert_allclose(copy.get_potential_energy(), energy)
    assert_allclose(copy.get_forces(), forces, atol=1e-7)


def test_a_regressor_without_uncertainty() -> None:
    frames = shaken(WATER, 10, 0.04, seed=0)
    energies = [frame.get_potential_energy() for frame in frames]
    potential = ScatteringPotential(make_scattering(), Ridge(1e-3))
    frames[0].calc = ScatteringCalculator(potential.fit(frames, energies))
    assert "energy_uncertainty" not in frames[0].calc.results
    with pytest.raises(PropertyNotImplementedError):
        frames[0].calc.get_property("energy_uncertainty", frames[0])


def test_potential_is_not_fitted(potential) -> None:
    with pytest.raises(NotFittedError):
        ScatteringCalculator(clone(potential))


def test_unknown_element(potential) -> None:
    atoms = molecule("CO2")
    atoms.calc = ScatteringCalculator(potential)
    with pytest.raises(ValueError, match="Molecule 0, atom 0 is C"):
        atoms.get_potential_energy()
