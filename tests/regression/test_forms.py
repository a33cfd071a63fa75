import numpy as np
import pytest
from numpy.testing import assert_allclose
from synthetic import smooth_problem

from skscatharm.regression import forms
from skscatharm.regression.forms import Prior, fit_form
from skscatharm.regression.polynomial import differentiate, evaluate

PRIOR = Prior(0.5, 0.3, 0.2, 0.01, 2.0)


@pytest.fixture
def problem(rng):
    return smooth_problem(rng, 12)._replace(
        weight=rng.uniform(0.5, 2, size=12),
        deviations=np.array([1.0, 0.3]),
        slope_unit=3.0,
    )


def design(z, factors, product_factors, curvature):
    """All features of a form: linear ones, and products of two coordinates."""
    scaled = z * product_factors
    products = np.einsum("ni,nj->nij", scaled, scaled).reshape(len(z), -1)
    return np.hstack([z * factors, np.sqrt(curvature) * products])


@pytest.mark.parametrize("degree", [1, 2])
def test_dense_solution(problem, degree, monkeypatch) -> None:
    monkeypatch.setattr(forms, "_START", PRIOR)
    monkeypatch.setattr(forms, "_GRIDS", dict.fromkeys(forms._GRIDS, ()))
    monkeypatch.setattr(forms, "search", lambda score, start, grids: start)
    some = np.array([0, 3, 4])
    polynomial, prior, errors = fit_form(
        problem, degree, None, None, np.random.RandomState(0), some
    )
    z = problem.points.positions
    curvature = 0.2 if degree == 2 else 0.0
    assert prior == PRIOR._replace(curvature=curvature)
    factors, product_factors = (
        np.array([1, 0.3**decay]) / np.hypot(1, 0.3**decay) for decay in (0.5, 0.3)
    )
    # Ridge regression of all features and their differences.
    features = design(z, factors, product_factors, curvature)
    step = 1e-5
    slopes = np.stack(
        [
            design(z + shift, factors, product_factors, curvature)
            - design(z - shift, factors, product_factors, curvature)
            for shift in step * np.eye(2)
        ],
        axis=1,
    ) / (2 * step)
    noise = 0.01 * (features - features.mean(axis=0)).var(axis=0).sum() / problem.weight
    both = np.vstack([features, slopes.reshape(24, -1)])
    variance = np.r_[noise, np.repeat(noise, 2) * 9 / 2]
    ones = np.r_[np.ones(12), np.zeros(24)]
    rows = np.c_[ones, both]
    penalty = np.diag(np.r_[0, np.ones(both.shape[1])])
    solution = np.linalg.solve(
        (rows.T / variance) @ rows + penalty, rows.T @ (problem.sides / variance)
    )
    # Without a sample and its two derivatives.
    for i, error in zip(some, errors, strict=True):
        kept = np.delete(np.arange(36), [i, 12 + 2 * i, 13 + 2 * i])
        part, inverse = rows[kept], 1 / variance[kept]
        without = np.linalg.solve(
            (part.T * inverse) @ part + penalty,
            part.T @ (inverse * problem.sides[kept]),
        )
        assert error == pytest.approx(problem.y[i] - rows[i] @ without)
    new = np.random.default_rng(1).normal(size=(7, 2))
    expected = solution[0] + (
        design(new, factors, product_factors, curvature) @ solution[1:]
    )
    assert_allclose(evaluate(new, polynomial)[:, 0], expected, rtol=1e-6)
    # The derivatives of the form, by its features.
    moved = [
        design(new + shift, factors, product_factors, curvature)
        - design(new - shift, factors, product_factors, curvature)
        for shift in step * np.eye(2)
    ]
    assert_allclose(
        differentiate(new, polynomial)[:, 0],
        np.stack([m @ solution[1:] for m in moved], axis=1) / (2 * step),
        rtol=1e-5,
        atol=1e-8,
    )


@pytest.mark.parametrize("degree", [1, 2])
def test_given_parameters(problem, degree) -> None:
    _, prior, _ = fit_form(
        problem, degree, 0.3, 0.7, np.random.RandomState(0), np.arange(2)
    )
    assert (prior.alpha, prior.gradient_weight) == (0.3, 0.7)


@pytest.mark.parametrize("degree", [1, 2])
def test_no_penalty(problem, degree) -> None:
    with pytest.raises(ValueError, match="alpha=0 is too small"):
        fit_form(problem, degree, 0, None, np.random.RandomState(0), np.arange(2))


def test_quadratic_forms_are_found(rng) -> None:
    problem = smooth_problem(rng, 30)
    z = problem.points.positions
    y = z[:, 0] * z[:, 1]
    slopes = z[:, ::-1].ravel()
    problem = problem._replace(y=(y - y.mean()) / y.std(), slopes=slopes / y.std())
    polynomial, _, _ = fit_form(
        problem, 2, None, None, np.random.RandomState(0), np.arange(2)
    )
    found = evaluate(np.array([[1.0, 2.0], [0.0, 0.0]]), polynomial)[:, 0]
    assert found[0] - found[1] == pytest.approx(2 / y.std(), rel=1e-3)


def test_cross_validation(problem) -> None:
    unseen = forms._cross_validation(problem, np.random.RandomState(0), lambda: None)
    prior = PRIOR._replace(curvature=0.0)
    found = unseen(prior)
    folds = np.random.RandomState(0).permutation(12) % 5
    z = problem.points.positions * np.array([1, 0.3**0.5]) / np.hypot(1, 0.3**0.5)
    slopes = problem.points.directions.reshape(12, 2, 2)
    slopes = slopes * np.array([1, 0.3**0.5]) / np.hypot(1, 0.3**0.5)
    aims = problem.slopes.reshape(12, 2)
    variance = 0.01 * z.var(axis=0).sum() / problem.weight
    for i in range(12):
        seen = folds != folds[i]
        # Rows of the penalty follow: least squares for both.
        rows = [np.c_[np.ones(seen.sum()), z[seen]] / np.sqrt(variance[seen, None])]
        sides = [problem.y[seen] / np.sqrt(variance[seen])]
        for k in np.flatnonzero(seen):
            size = np.sqrt(variance[k] * 9 / 2)
            rows.append(np.c_[np.zeros(2), slopes[k]] / size)
            sides.append(aims[k] / size)
        rows.append(np.eye(3)[1:])
        sides.append(np.zeros(2))
        fit = np.linalg.lstsq(np.concatenate(rows), np.concatenate(sides))[0]
        assert found.values[i] == pytest.approx(problem.y[i] - fit[0] - z[i] @ fit[1:])
        error = np.linalg.norm(aims[i] - slopes[i] @ fit[1:])
        assert found.slopes[i] == pytest.approx(error)


def test_noisy_derivatives_weigh_less(rng) -> None:
    problem = smooth_problem(rng, 40)
    z = problem.points.positions
    weights = {}
    for noisy in ("values", "slopes"):
        y, slopes = z @ [1.0, 2.0], np.tile([1.0, 2.0], 40)
        if noisy == "values":
            y = y + rng.normal(size=40)
        else:
            slopes = slopes + rng.normal(size=80)
        _, prior, _ = fit_form(
            problem._replace(y=y - y.mean(), slopes=slopes, slope_unit=2.2),
            1,
            None,
            None,
            np.random.RandomState(0),
            np.arange(2),
        )
        weights[noisy] = prior.gradient_weight
    assert weights["slopes"] < 0.1 * weights["values"]
