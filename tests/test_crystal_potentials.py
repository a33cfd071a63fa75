"""Potentials of crystals, learned from the energies of the EMT of ASE."""

import warnings

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge
from surfaces import shaken, strained

from skscatharm import KernelRegressor, ScatteringPotential, SolidHarmonicScattering
from skscatharm.ase import ScatteringCalculator

COPPER = bulk("Cu")
HYDROGEN = Atoms("HH", [[0, 0, 0], [0, 0, 0.88]])


def make_potential() -> ScatteringPotential:
    scattering = SolidHarmonicScattering(
        J=1,
        L=2,
        Q=(1, 2, 3),
        sigma=0.6,
        mixed_moments=False,
        channels=["nuclear"],
        softening=20,
        tol=1e-5,
        dtype="float64",
    )
    regressor = KernelRegressor(
        length_scale=16, alpha=1e-7, decay=0.5, gradient_weight=1
    )
    return ScatteringPotential(scattering, regressor)


def results_of(frames, name: str) -> list:
    return [frame.calc.results[name] for frame in frames]


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    return strained(COPPER, 18, 0.03, seed=0)


@pytest.fixture(scope="module")
def others() -> list[Atoms]:
    return strained(COPPER, 6, 0.03, seed=1)


@pytest.fixture(scope="module")
def fitted(frames) -> ScatteringPotential:
    return make_potential().fit(frames)


def test_predictions(fitted, others) -> None:
    found = fitted.evaluate(others, stresses=True)
    counts = np.array([len(frame) for frame in others])
    energies = np.array(results_of(others, "energy"))
    errors = (found.energies - energies) / counts
    assert abs(errors).mean() < 0.1 * (energies / counts).std()
    stresses = np.array(results_of(others, "stress"))
    assert abs(found.stresses - stresses).mean() < 0.05 * abs(stresses).mean()
    forces = np.concatenate(results_of(others, "forces"))
    predicted = np.concatenate(
        [rows[:n] for rows, n in zip(found.forces, counts, strict=True)]
    )
    assert abs(predicted - forces).mean() < 0.2 * abs(forces).mean()
    assert_array_equal(fitted.predict_stresses(others), found.stresses)


def test_supercells(fitted, others) -> None:
    once, twice = others[:2], [frame * (1, 2, 1) for frame in others[:2]]
    found, expected = (fitted.evaluate(X, stresses=True) for X in (twice, once))
    assert_allclose(found.energies, 2 * expected.energies, atol=1e-6)
    assert_allclose(found.stresses, expected.stresses, rtol=1e-6, atol=1e-9)
    assert_allclose(found.uncertainties, 2 * expected.uncertainties, rtol=1e-4)
    for i, frame in enumerate(once):
        forces = np.tile(expected.forces[i, : len(frame)], (2, 1))
        assert_allclose(found.forces[i, : 2 * len(frame)], forces, atol=1e-6)


def test_forces_and_stresses_are_derivatives_of_energies(fitted, others, rng) -> None:
    frame, step = others[2], 5e-4
    found = fitted.evaluate([frame], stresses=True)
    shift = rng.normal(size=(len(frame), 3))
    strain = rng.normal(size=(3, 3))
    strain += strain.T
    moved = []
    for sign in (1, -1):
        copy = frame.copy()
        copy.positions += sign * step * shift
        moved.append(copy)
        copy = frame.copy()
        matrix = np.eye(3) + sign * step * strain
        copy.set_cell(frame.cell @ matrix, scale_atoms=True)
        moved.append(copy)
    energies = fitted.predict(moved).reshape(2, 2)
    slopes = (energies[0] - energies[1]) / (2 * step)
    assert_allclose(-np.sum(found.forces[0] * shift), slopes[0], rtol=1e-3)
    xx, yy, zz, yz, xz, xy = found.stresses[0]
    matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    virial = frame.get_volume() * np.sum(matrix * strain)
    assert_allclose(virial, slopes[1], rtol=1e-3)


def test_stresses_teach(frames, others) -> None:
    energies = results_of(frames, "energy")
    stresses = results_of(frames, "stress")
    errors = []
    for given in (None, stresses):
        potential = make_potential().fit(frames, energies, stresses=given)
        predicted = potential.predict_stresses(others)
        errors.append(abs(predicted - results_of(others, "stress")).mean())
    assert errors[1] < 0.5 * errors[0]


def test_forms_of_stresses(frames, others, tmp_path) -> None:
    frames = frames[:6]
    expected = make_potential().fit(frames).predict_stresses(others)
    labels = results_of(frames, "energy"), results_of(frames, "forces")
    rows = np.array(results_of(frames, "stress"))
    matrices = rows[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    ase.io.write(tmp_path / "frames.xyz", frames)
    for potential in (
        make_potential().fit(frames, *labels, stresses=rows),
        make_potential().fit(frames, *labels, stresses=matrices),
        make_potential().fit(ase.io.read(tmp_path / "frames.xyz", index=":")),
    ):
        assert_allclose(potential.predict_stresses(others), expected, atol=1e-5)


def test_molecules_and_crystals(frames) -> None:
    molecules = shaken(HYDROGEN, 8, 0.04, seed=2)
    slab = fcc111("Cu", (1, 1, 2))
    slab.calc = EMT()
    mixed = [*molecules, slab, *frames[:8]]
    energies = [frame.get_potential_energy() for frame in mixed]
    potential = make_potential().fit(mixed, energies)
    assert potential.scattering_.normalize == "atom"
    assert_allclose(potential.predict(mixed), energies, atol=0.1)
    # The stress is known where there is a volume.
    read = make_potential().fit([*molecules, *frames[:8]])
    assert_allclose(read.predict(mixed[:8]), energies[:8], atol=0.1)


def test_parts_are_not_modified(frames) -> None:
    potential = make_potential()
    potential.fit(frames[:4], results_of(frames[:4], "energy"))
    assert potential.scattering.normalize is None
    assert potential.scattering_.normalize == "atom"


class TestBadInput:
    def test_per_volume(self, frames) -> None:
        potential = make_potential().set_params(scattering__normalize="volume")
        with pytest.raises(ValueError, match=r"per volume.*normalize='atom'"):
            potential.fit(frames)

    def test_a_potential_of_molecules(self) -> None:
        potential = make_potential().fit(shaken(HYDROGEN, 6, 0.04, seed=2))
        crystal = Atoms("H", cell=[2, 2, 2], pbc=True)
        with pytest.raises(ValueError, match="Molecule 1 is periodic, but the pot"):
            potential.predict([HYDROGEN, crystal])

    def test_no_volume(self, fitted) -> None:
        slab = fcc111("Cu", (1, 1, 2))
        with pytest.raises(ValueError, match="Molecule 1 has no volume, and so no st"):
            fitted.predict_stresses([COPPER, slab])
        assert np.isfinite(fitted.predict([slab])).all()

    def test_a_regressor_that_cannot_learn_from_stresses(self, frames) -> None:
        potential = make_potential().set_params(regressor=Ridge())
        energies, stresses = (results_of(frames, name) for name in ("energy", "stress"))
        with pytest.raises(TypeError, match="Ridge cannot learn from forces and str"):
            potential.fit(frames, energies, stresses=stresses)

    def test_stresses_without_energies(self, frames) -> None:
        with pytest.raises(ValueError, match="stresses are given without energies"):
            make_potential().fit(frames, stresses=results_of(frames, "stress"))

    @pytest.mark.parametrize(
        ("factor", "message"),
        [(-1, "stresses .* wrong sign"), (160.2, "stresses .* factor of about 1.*GPa")],
    )
    def test_implausible_stresses(self, factor, message) -> None:
        # Ten frames of one composition.
        alike = strained(COPPER, 30, 0.03, seed=2)[::3]
        energies, stresses = (results_of(alike, name) for name in ("energy", "stress"))
        with pytest.warns(UserWarning, match=message):
            make_potential().fit(alike, energies, stresses=factor * np.array(stresses))

    @pytest.mark.parametrize(
        ("crystal", "factor"),
        [(bulk("Al"), 1), (bulk("Al"), -1), (bulk("Cu", a=3.8), 1)],
    )
    def test_forces_of_crystals_of_different_volumes(self, crystal, factor) -> None:
        """Energies that depend on the volume above all do not contradict the forces."""
        alike = strained(crystal, 36, 0.03, seed=0)[2::3]
        energies, forces, stresses = (
            results_of(alike, name) for name in ("energy", "forces", "stress")
        )
        forces = factor * np.array(forces)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", UserWarning)
            make_potential().fit(alike, energies, forces, stresses=stresses)
        messages = [str(warning.message) for warning in found]
        assert any("forces seem to have the wrong sign" in m for m in messages) == (
            factor < 0
        )


class TestCalculator:
    def test_results(self, fitted, others) -> None:
        expected = fitted.evaluate(others[1:2], stresses=True)
        atoms = others[1].copy()
        atoms.calc = ScatteringCalculator(fitted)
        assert_array_equal(atoms.get_stress(), expected.stresses[0])
        assert_array_equal(atoms.calc.results["forces"], expected.forces[0])
        assert atoms.get_potential_energy() == expected.energies[0]

    def test_slabs_have_forces_and_no_stress(self, fitted) -> None:
        slab = fcc111("Cu", (1, 1, 2), vacuum=5)
        slab.calc = ScatteringCalculator(fitted)
        assert slab.get_forces().shape == (2, 3)
        with pytest.raises(PropertyNotImplementedError, match="no volume"):
            slab.get_stress()

    def test_relaxation_of_atoms_and_cell(self, fitted) -> None:
        found = []
        for calculator in (ScatteringCalculator(fitted), EMT()):
            atoms = COPPER * (2, 1, 1)
            atoms.set_cell(atoms.cell * [1.03, 0.98, 1.01], scale_atoms=True)
            atoms.positions[1] += [0.05, -0.03, 0.02]
            atoms.calc = calculator
            assert BFGS(FrechetCellFilter(atoms), logfile=None).run(0.02, 100)
            found.append(atoms.cell.cellpar())
        assert_allclose(found[0], found[1], rtol=0.01)
