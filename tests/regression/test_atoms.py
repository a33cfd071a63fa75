"""Sums over atoms of quadratic forms, beside kernels summed over all pairs of atoms."""

import numpy as np
from numpy.testing import assert_allclose

from skscatharm.regression import atoms
from skscatharm.regression.atom_kernels import sum_over_atoms
from skscatharm.regression.atoms import evaluate_atoms, fit_atoms

N_AXES = 3  # of the four features of an atom


def draw(n: int, rng: np.random.Generator):
    """Draw samples of one to five atoms of two elements, and of their features."""
    owners = np.repeat(np.arange(n), rng.integers(1, 6, size=n))
    charges = rng.choice([1, 8], size=len(owners))
    rows = rng.normal(size=(len(owners), 4)) * [1, 1, 0.5, 0.1] + charges[:, None]
    features = sum_over_atoms(rows, owners, n) + rng.normal(size=(n, 4))
    return features, rows, charges, owners


def fit_sums(features, rows, charges, owners, y, weight, **params):
    ones = {"atom": np.ones(len(owners))}
    return fit_atoms(
        features,
        rows,
        charges,
        owners,
        y,
        weight,
        ones,
        **{"n_axes": N_AXES, "alpha": None, "seed": 0} | params,
    )


def additive(rows, charges, owners, n):
    """Sum over atoms, of other quadratic forms for each element."""
    of_atoms = np.where(charges == 1, rows[:, 0] * rows[:, 1], rows[:, 2] ** 2)
    return 3 + sum_over_atoms(of_atoms + rows[:, 3], owners, n)


def predict(fit, features, rows, charges, owners):
    form, forms, _ = fit
    found = form.evaluate(features)
    values = evaluate_atoms(forms["atom"], rows, charges)
    return found + sum_over_atoms(values, owners, len(features))


def coordinates(features, of, decay):
    """Principal components with the deviations to a power, and mean square 1."""
    deviation = of.std(axis=0)
    _, singular, axes = np.linalg.svd(
        (of - of.mean(axis=0)) / deviation, full_matrices=False
    )
    deviations = singular / np.sqrt(len(of))
    scales = (deviations / deviations[0]) ** decay
    scales /= np.linalg.norm(scales)
    return (features - of.mean(axis=0)) / deviation @ axes.T / deviations * scales


def test_fit_is_that_of_the_kernel(rng) -> None:
    """The forms predict as kernel ridge regression does with sums over pairs."""
    features, rows, charges, _ = train = draw(40, rng)
    others = draw(10, rng)
    y = additive(*train[1:], 40) + features[:, 0] ** 2 + rng.normal(size=40)
    weight = np.ones(40)
    fit = fit_sums(*train, y, weight, alpha=0.1)
    prior = fit[-1]

    def kernels(left, right):
        x, z = (coordinates(s[0], features, prior.linear_decay) for s in (left, right))
        linear = x @ z.T
        x, z = (coordinates(s[0], features, prior.product_decay) for s in (left, right))
        found = [linear, (x @ z.T) ** 2, np.zeros_like(linear), np.zeros_like(linear)]
        for element in (1, 8):
            of = rows[charges == element]
            of_left, of_right = (
                (coordinates(s[1][here], of, prior.atom_decay), s[3][here])
                for s, here in ((s, s[2] == element) for s in (left, right))
            )
            for x, i in zip(*of_left, strict=True):
                for z, j in zip(*of_right, strict=True):
                    found[2][i, j] += 1 + x @ z
                    found[3][i, j] += (x[:N_AXES] @ z[:N_AXES]) ** 2
        return found

    own, between = kernels(train, train), kernels(others, train)
    weights = (prior.linear, prior.product, prior.atom_linear, 1)
    sizes = [
        w / (np.trace(k) / 40 - k.mean()) for w, k in zip(weights, own, strict=True)
    ]
    own, between = (
        sum(s * k for s, k in zip(sizes, ks, strict=True)) for ks in (own, between)
    )
    # The intercept is free: a border of ones.
    matrix = np.ones((41, 41))
    matrix[:40, :40] = own + prior.alpha * np.eye(40)
    matrix[40, 40] = 0
    *dual, intercept = np.linalg.solve(matrix, np.append(y, 0))
    assert sum(w > 0 for w in weights) >= 3
    assert_allclose(predict(fit, *others), between @ dual + intercept, rtol=1e-6)


def test_learns_sums_over_atoms(rng) -> None:
    train, others = draw(120, rng), draw(50, rng)
    y, expected = (additive(*s[1:], len(s[0])) for s in (train, others))
    fit = fit_sums(*train, y, np.ones(120), n_axes=4)
    assert abs(predict(fit, *others) - expected).max() < 1e-3 * expected.std()


def test_largest_of_equal_penalties(rng, monkeypatch) -> None:
    train = draw(100, rng)
    y = additive(*train[1:], 100)

    def penalty(equal: float) -> float:
        monkeypatch.setattr(atoms, "_EQUAL", equal)
        return fit_sums(*train, y, np.ones(100), n_axes=4)[2].alpha

    assert penalty(1.0) <= penalty(1.01) < penalty(100.0)


def test_samples_of_little_weight(rng) -> None:
    train = draw(30, rng)
    y = additive(*train[1:], 30) + rng.normal(size=30)
    weight = np.where(np.arange(30) < 10, 1e-12, 1.0)
    fit = fit_sums(*train, y, weight, n_axes=4, alpha=1e-6)
    residuals = abs(predict(fit, *train) - y)
    assert residuals[10:].max() < 1e-2 * residuals[:10].max()


def test_elements_without_axes(rng) -> None:
    """One atom of an element, or equal ones, do not vary."""
    features, rows, charges, owners = draw(20, rng)
    rows[charges == 8] = 1.5
    charges[3] = 6
    y = features[:, 0]
    fit = fit_sums(features, rows, charges, owners, y, np.ones(20), n_axes=5)
    found = predict(fit, features, rows, charges, owners)
    assert abs(found - y).max() < 1e-2


def test_iterations_find_the_direct_fit(rng, monkeypatch) -> None:
    train, others = draw(300, rng), draw(50, rng)
    y = additive(*train[1:], 300) + rng.normal(size=300)
    weight = rng.uniform(0.5, 2, size=300)

    def fit():
        found = fit_sums(*train, y, weight, alpha=0.1)
        return predict(found, *others)

    direct = fit()
    monkeypatch.setattr(atoms, "_DIRECT_SIZE", 100)
    monkeypatch.setattr(atoms, "_PRECONDITIONER_SIZE", 20)
    assert_allclose(fit(), direct, atol=1e-3 * y.std())


def test_extents(rng) -> None:
    """Forms that are multiplied by factors of the atoms are told from those of sums."""
    train, others = draw(150, rng), draw(50, rng)
    squares = [rng.uniform(0, 9, size=len(s[1])) for s in (train, others)]

    def extents(factors, features, rows, charges, owners):
        form = np.where(charges == 1, rows[:, 0], rows[:, 1] ** 2)
        return sum_over_atoms(factors * form, owners, len(features))

    y, expected = (
        additive(*s[1:], len(s[0])) + extents(f, *s)
        for f, s in zip(squares, (train, others), strict=True)
    )
    factors = {"atom": np.ones(len(squares[0])), "extent": squares[0]}
    form, forms, prior = fit_atoms(
        *train, y, np.ones(150), factors, n_axes=4, alpha=None, seed=0
    )
    _, rows, charges, owners = others
    values = squares[1] * evaluate_atoms(forms["extent"], rows, charges)
    found = predict((form, forms, prior), *others) + sum_over_atoms(values, owners, 50)
    assert prior.extent > 0
    assert abs(found - expected).max() < 1e-2 * expected.std()
