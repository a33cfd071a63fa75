"""Derivatives as users ask for them."""

import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from skscatharm import (
    CoefficientStore,
    SolidHarmonicScattering,
    StoreWarning,
    derivatives,
    engine,
    pad_structures,
)
from skscatharm.structures import Structure

MOLECULES = [molecule(name) for name in ("H2O", "H2", "CH4", "H", "C2H2")]


@pytest.fixture
def fast() -> SolidHarmonicScattering:
    return SolidHarmonicScattering(J=1, L=1, Q=(1, 2), sigma=0.5, dtype="float64")


@pytest.fixture
def jacobian(fast):
    return fast.jacobian(MOLECULES)


def test_differences(fast, jacobian, rng) -> None:
    X = pad_structures(MOLECULES)
    step = rng.normal(size=(*X.shape[:2], 3)) * (X[:, :, :1] > 0)
    # A coefficient changes by its derivatives along the way.
    moved = [X + np.dstack([0 * X[:, :, :1], k * step]) for k in (3e-3, -3e-3)]
    change = fast.transform(moved[0]) - fast.transform(moved[1])
    expected = 6e-3 * np.einsum("mcnx,mnx->mc", jacobian, step)
    scale = np.abs(expected).max(axis=0)
    assert_allclose(change, expected, atol=1e-3 * scale.max())
    assert_array_equal(fast.jacobian(X), jacobian)


@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_derivatives_with_a_reference_are_exact(tol, fast, rng) -> None:
    scattering = fast.set_params(tol=tol, mixed_moments="channels")
    charges, positions = MOLECULES[2].numbers, MOLECULES[2].positions
    reference = positions + 0.1 * rng.normal(size=positions.shape)
    step = 0.01 * rng.normal(size=positions.shape)

    def moved(k: int) -> Structure:
        return Structure(charges, positions + k * step, reference=reference)

    coefficients = scattering.transform([moved(0)._replace(reference=None), moved(0)])
    assert_allclose(coefficients[1], coefficients[0], rtol=2 * tol)
    (jacobian,) = scattering.jacobian([moved(0)])
    a, b, c, d = scattering.transform([moved(k) for k in (-2, -1, 1, 2)])
    found = np.einsum("cnx,nx->c", jacobian, step)
    scale = np.abs(jacobian).max(axis=(1, 2)) * np.linalg.norm(step)
    error = np.abs((8 * (c - b) - (d - a)) / 12 - found)
    assert (error < 1e-5 * scale + 1e-8 * coefficients[0]).all()


def test_padding(fast, jacobian) -> None:
    for derivatives_, atoms in zip(jacobian, MOLECULES, strict=True):
        assert not derivatives_[:, len(atoms) :].any()
    padded = np.pad(pad_structures(MOLECULES), ((0, 0), (0, 2), (0, 0)))
    assert_array_equal(fast.jacobian(padded)[:, :, :-2], jacobian)
    assert fast.gradient(padded, np.ones(jacobian.shape[:2])).shape == (5, 7, 3)


def test_a_single_atom_has_no_derivatives(jacobian) -> None:
    assert not jacobian[3].any()


def test_integrals_of_densities_are_constant(fast, jacobian) -> None:
    names = fast.get_feature_names_out()
    constant = [n.endswith("_q1") and ("S0" in n or "_l0_" in n) for n in names]
    assert sum(constant) == 16
    assert not jacobian[:, constant].any()
    assert jacobian[4, ~np.array(constant)].any(axis=(1, 2)).all()


def test_forces_and_torques_add_up_to_zero(jacobian) -> None:
    for of_molecule, atoms in zip(jacobian, MOLECULES, strict=True):
        of_atoms = of_molecule[:, : len(atoms)]
        bound = 1e-12 * np.abs(of_atoms).max()
        assert_allclose(of_atoms.sum(axis=1), 0, atol=bound)
        torques = np.cross(atoms.positions, of_atoms).sum(axis=1)
        assert_allclose(torques, 0, atol=bound)
    # The bond of a linear molecule still has a derivative.
    assert jacobian[[1, 4]].any(axis=(1, 2, 3)).all()


def test_derivatives_turn_with_the_molecule(fast, jacobian, rng) -> None:
    turn = Rotation.random(rng=rng).as_matrix()
    water = MOLECULES[0].copy()
    water.positions = water.positions @ turn.T + 3
    (found,) = fast.jacobian([water])
    expected = jacobian[0, :, :3] @ turn.T
    assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_order_of_atoms(fast, jacobian) -> None:
    (found,) = fast.jacobian([MOLECULES[0][[2, 0, 1]]])
    expected = jacobian[0][:, [2, 0, 1]]
    assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_batches_and_jobs(n_jobs, fast, jacobian, rng) -> None:
    fast.set_params(n_jobs=n_jobs)
    assert_array_equal(fast.jacobian(MOLECULES), jacobian)
    batches = list(fast.iter_jacobian(MOLECULES, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert_array_equal(np.concatenate(batches), jacobian)
    weights = rng.normal(size=jacobian.shape[:2])
    gradient = fast.gradient(MOLECULES, weights)
    expected = np.einsum("mc,mcnx->mnx", weights, jacobian)
    assert_allclose(gradient, expected, atol=1e-9 * np.abs(expected).max())


def test_linearize(fast) -> None:
    coefficients, gradient = fast.linearize(MOLECULES, np.cos)
    assert_allclose(coefficients, fast.transform(MOLECULES), rtol=1e-12)
    # The weights are the derivatives of the sum of sin(S).
    expected = fast.gradient(MOLECULES, np.cos(coefficients))
    assert_allclose(gradient, expected, atol=1e-10 * np.abs(expected).max())


class TestStore:
    def test_jacobians_are_kept(self, fast, jacobian, tmp_path, monkeypatch) -> None:
        fast.set_params(memory=tmp_path)
        assert_array_equal(fast.jacobian(MOLECULES), jacobian)
        monkeypatch.setattr(derivatives, "jacobian_batch", None)  # nothing is computed
        assert_array_equal(fast.jacobian(MOLECULES[::-1]), jacobian[::-1])
        with pytest.raises(TypeError):
            fast.set_params(Q=(2, 1)).jacobian(MOLECULES)

    def test_damage(self, fast, jacobian, tmp_path) -> None:
        fast.set_params(memory=tmp_path)
        fast.jacobian(MOLECULES)
        (file,) = tmp_path.rglob("*.segment")
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
        with pytest.warns(StoreWarning, match="is damaged"):
            assert_array_equal(fast.jacobian(MOLECULES), jacobian)
        assert_array_equal(fast.jacobian(MOLECULES), jacobian)

    def test_limit_and_clear(self, fast, tmp_path) -> None:
        store = CoefficientStore(tmp_path, size_limit="20 kB")
        fast.set_params(memory=store).jacobian(MOLECULES)
        size = sum(file.stat().st_size for file in tmp_path.rglob("*.segment"))
        assert 0 < size < 25_000
        fast.transform(MOLECULES)  # the files of Jacobians are no trouble
        store.clear()
        assert not list(tmp_path.iterdir())


class TestBadInput:
    def test_size(self, fast, monkeypatch) -> None:
        monkeypatch.setattr(derivatives, "_LARGEST", 1000)
        with pytest.raises(ValueError, match=r"5 molecules, with .* iter_jacobian"):
            fast.jacobian(MOLECULES)

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (np.ones((4, 80)), "5 molecules, with 80"),
            (np.ones((5, 79)), "5 molecules, with 80"),
            (np.full((5, 80), np.nan), "weights contains NaN"),
        ],
    )
    def test_weights(self, weights, message, fast) -> None:
        with pytest.raises(ValueError, match=message):
            fast.gradient(MOLECULES, weights)

    def test_batch_size(self, fast) -> None:
        with pytest.raises(ValueError, match="batch_size"):
            next(fast.iter_jacobian(MOLECULES, batch_size=0))

    def test_all_is_checked_before(self, fast, monkeypatch) -> None:
        monkeypatch.setattr(engine, "make_engine", None)
        bad = [*MOLECULES, molecule("H2")]
        bad[-1].positions[0] = np.nan
        for call in (
            fast.jacobian,
            lambda X: next(fast.iter_jacobian(X)),
            lambda X: fast.gradient(X, np.ones((6, 56))),
            lambda X: fast.linearize(X, np.cos),
        ):
            with pytest.raises(ValueError, match="Molecule 5"):
                call(bad)


class TestPyTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="torch is not installed")

    def test_backward(self, torch, fast, jacobian, rng) -> None:
        X = torch.tensor(pad_structures(MOLECULES), requires_grad=True)
        weights = rng.normal(size=jacobian.shape[:2])
        (fast.transform(X) * torch.tensor(weights)).sum().backward()
        expected = np.einsum("mc,mcnx->mnx", weights, jacobian)
        found = X.grad.numpy()
        assert_allclose(found[..., 1:], expected, atol=1e-9 * np.abs(expected).max())
        assert not found[..., 0].any()

    def test_single_precision(self, torch, fast) -> None:
        X = torch.tensor(pad_structures(MOLECULES), dtype=torch.float32)
        fast.transform(X.requires_grad_()).sum().backward()
        assert X.grad.dtype == torch.float32

    def test_without_gradients(self, torch, fast) -> None:
        X = torch.tensor(pad_structures(MOLECULES), requires_grad=True)
        with torch.no_grad():
            assert not fast.transform(X).requires_grad
        assert fast.transform(X).requires_grad
        assert isinstance(fast.jacobian(X.detach()), torch.Tensor)
        with pytest.raises(ValueError, match="pass its detach"):
            fast.jacobian(X)

    def test_once_only(self, torch, fast) -> None:
        X = torch.tensor(pad_structures(MOLECULES), requires_grad=True)
        weights = torch.ones((5, 80), dtype=torch.float64, requires_grad=True)
        energy = (fast.transform(X) * weights).sum()
        (slope,) = torch.autograd.grad(energy, X, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            slope.sum().backward()
