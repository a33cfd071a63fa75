"""Dipole moments: charges learned from vectors and from norms."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from skscatharm.regression import atoms
from skscatharm.regression.atom_kernels import sum_over_atoms
from skscatharm.regression.atoms import evaluate_atoms
from skscatharm.regression.dipoles import fit_dipoles

fit = partial(fit_dipoles, n_axes=4, alpha=None, seed=0)


def draw(n: int, rng: np.random.Generator):
    """Draw atoms of two elements with charges of both signs, and their vectors."""
    sizes = rng.integers(2, 7, size=n)
    owners = np.repeat(np.arange(n), sizes)
    # Each sample has atoms of both elements.
    charges = np.concatenate([[1, 8, *rng.choice([1, 8], size=s - 2)] for s in sizes])
    rows = rng.normal(size=(len(owners), 4)) * [1, 1, 0.5, 0.1]
    positions = rng.normal(size=(len(owners), 3))
    of_atoms = np.where(charges == 1, 1 + 0.5 * rows[:, 0], -1 + 0.3 * rows[:, 1] ** 2)
    moments = sum_over_atoms(positions * of_atoms[:, np.newaxis], owners, n)
    return (rows, positions, charges, owners), moments


def predict(forms, rows, positions, charges, owners):
    values = evaluate_atoms(forms, rows, charges)
    return sum_over_atoms(positions * values[:, np.newaxis], owners, owners[-1] + 1)


def test_learns_vectors(rng) -> None:
    (train, y), (others, expected) = draw(60, rng), draw(50, rng)
    forms, _ = fit(*train, y, np.ones(60))
    assert abs(predict(forms, *others) - expected).max() < 1e-3 * expected.std()


def test_learns_norms(rng) -> None:
    """Norms tell the charges but for their sign."""
    (train, y), (others, expected) = draw(300, rng), draw(50, rng)
    forms, _ = fit(*train, np.linalg.norm(y, axis=1), np.ones(300))
    found = predict(forms, *others)
    found *= np.sign(np.einsum("ik,ik->", found, expected))
    assert abs(found - expected).max() < 1e-2 * expected.std()


@pytest.mark.parametrize("has_vectors", [True, False])
def test_turned_samples(rng, has_vectors) -> None:
    """Norms do not depend on how samples are turned, nor charges on the vectors'."""
    train, y = draw(40, rng)
    rows, positions, charges, owners = train
    turns = Rotation.random(40, random_state=1)
    turned = turns[owners].apply(positions)
    targets, after = (
        (y, turns.apply(y)) if has_vectors else (np.linalg.norm(y, axis=1),) * 2
    )
    weight = np.ones(40)
    forms, _ = fit(*train, targets, weight, alpha=0.1)
    other, _ = fit(rows, turned, charges, owners, after, weight, alpha=0.1)
    # Components along random directions choose the prior.
    rtol = 0.05 if has_vectors else 1e-6
    expected = evaluate_atoms(forms, rows, charges)
    found = evaluate_atoms(other, rows, charges)
    assert_allclose(found, expected, atol=rtol * abs(expected).max())


def test_fit_of_vectors_is_that_of_the_kernel(rng) -> None:
    """The residuals are alpha times the duals, which span the charges."""
    (train, y), (others, _) = draw(25, rng), draw(8, rng)
    rows, charges = others[0], others[2]
    y += rng.normal(size=y.shape)
    unit = np.sqrt((y**2).sum(axis=1).mean())
    forms, prior = fit(*train, y, np.ones(25), alpha=0.1)
    dual = (y - predict(forms, *train)) / unit / prior.alpha
    pulls = np.einsum("ak,ak->a", train[1] / unit, dual[train[3]])
    values = evaluate_atoms(forms, rows, charges)
    for z in (1, 8):
        old, new = train[2] == z, charges == z
        linear, square = _terms(train[0][old], rows[new], prior.atom_decay)
        # Factors of the terms depend on the random directions that choose the prior.
        columns = np.column_stack([linear @ pulls[old], square @ pulls[old]])
        solution, *_ = np.linalg.lstsq(columns, values[new])
        assert_allclose(columns @ solution, values[new], rtol=1e-6)
        assert (solution >= 0).all()


def _terms(of, rows, decay):
    """Kernels of rows with those of an element."""
    deviation = of.std(axis=0)
    _, singular, axes = np.linalg.svd(
        (of - of.mean(axis=0)) / deviation, full_matrices=False
    )
    deviations = singular / np.sqrt(len(of))
    scales = (deviations / deviations[0]) ** decay / deviations
    scales /= np.linalg.norm(scales * deviations)
    x, y = ((s - of.mean(axis=0)) / deviation @ axes.T * scales for s in (rows, of))
    return 1 + x @ y.T, (x @ y.T) ** 2


@pytest.mark.parametrize("has_vectors", [True, False])
def test_iterations_find_the_direct_fit(rng, monkeypatch, has_vectors) -> None:
    (train, y), (others, _) = draw(200, rng), draw(50, rng)
    y += 0.1 * rng.normal(size=y.shape)
    targets = y if has_vectors else np.linalg.norm(y, axis=1)
    weight = rng.uniform(0.5, 2, size=200)
    direct, _ = fit(*train, targets, weight, alpha=0.1)
    monkeypatch.setattr(atoms, "_DIRECT_SIZE", 50)
    monkeypatch.setattr(atoms, "_PRECONDITIONER_SIZE", 20)
    steps = []
    found, _ = fit(*train, targets, weight, alpha=0.1, progress=lambda: steps.append(1))
    assert steps
    assert_allclose(
        predict(found, *others), predict(direct, *others), atol=1e-2 * y.std()
    )


@pytest.mark.parametrize("y", [np.zeros(3), np.ones(3), np.ones((3, 3))])
def test_samples_without_extent(y) -> None:
    """Single atoms have no dipole moment, whatever the targets are."""
    rows, charges, owners = np.ones((3, 2)), np.ones(3, dtype=int), np.arange(3)
    forms, _ = fit(rows, np.zeros((3, 3)), charges, owners, y, np.ones(3))
    assert np.isfinite(evaluate_atoms(forms, rows, charges)).all()
