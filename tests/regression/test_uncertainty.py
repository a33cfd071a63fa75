import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist

from skscatharm.regression import uncertainty
from skscatharm.regression.uncertainty import (
    choose_references,
    deviations,
    error_rates,
)


@pytest.fixture
def heteroscedastic(rng):
    """Coordinates of 600 samples, errors, and their standard deviations."""
    coordinates = rng.normal(size=(600, 3)) / np.sqrt(3)
    scale = np.exp(coordinates[:, 0])
    return coordinates, scale * rng.normal(size=600), scale


def test_errors_that_are_normal(heteroscedastic) -> None:
    coordinates, errors, scale = heteroscedastic
    rates = error_rates(coordinates[:400], errors[:400, None], np.ones(400))
    std = deviations(coordinates[400:], coordinates[:400], rates)[:, 0]
    ratio = std / scale[400:]
    assert np.median(ratio) == pytest.approx(1, abs=0.15)
    # Better than one standard deviation for all.
    assert np.log(ratio).std() < 0.75 * np.log(scale).std()


def test_formula(heteroscedastic, rng, monkeypatch) -> None:
    """The same by a full matrix of distances."""
    monkeypatch.setattr(uncertainty, "_NEIGHBOURS", 7)
    coordinates, errors, _ = heteroscedastic
    references, new = coordinates[:50], coordinates[50:]
    errors = np.column_stack([errors[:50], 3 * errors[50:100]])
    weight = rng.uniform(0.5, 2, size=50)
    rates = error_rates(references, errors, weight)
    absolute = abs(errors) + 10 / 7 * abs(errors).mean(axis=0)

    def expected(distances, values):
        nearest = np.argsort(distances, axis=1)[:, :7]
        mean = np.take_along_axis(distances, nearest, axis=1).mean(axis=1)
        return (mean[:, None] + 0.2) * values[nearest].mean(axis=1)

    others = cdist(references, references)
    np.fill_diagonal(others, np.inf)
    factors = rates / absolute
    assert_allclose(factors, np.broadcast_to(factors[0], (50, 2)))
    # Of the references, 68 % of the weight is covered.
    covered = abs(errors) <= (1 + 1e-9) * expected(others, rates)
    share = weight @ covered / weight.sum()
    assert (share >= 0.6827).all()
    assert (share < 0.6827 + weight.max() / weight.sum()).all()
    assert_allclose(
        deviations(new, references, rates), expected(cdist(new, references), rates)
    )


def test_distance(heteroscedastic) -> None:
    coordinates, errors, _ = heteroscedastic
    rates = error_rates(coordinates, errors[:, None], np.ones(600))
    far = np.array([[0.0, 10, 0], [0, 20, 0], [0, 40, 0]])
    std = deviations(far, coordinates, rates)[:, 0]
    assert_allclose(std[1:] / std[:-1], 2, rtol=0.2)


def test_awkward_errors(rng) -> None:
    same = np.zeros((20, 3))
    errors = np.column_stack([np.zeros(20), np.eye(20)[3], rng.normal(size=20)])
    rates = error_rates(same, errors, np.ones(20))
    std = deviations(same[:1], same, rates)[0]
    assert_array_equal(std[:2], 0)
    assert 0.5 < std[2] < 2
    alone = error_rates(same[:1], errors[:1], np.ones(1))
    assert np.isnan(deviations(same, same[:1], alone)).all()


def test_choose_references(monkeypatch) -> None:
    assert_array_equal(choose_references(30, 30), np.arange(30))
    for n_samples, n_rows, size in [
        (3000, 3000, 1000),
        (3000, 9000, 333),
        (600, 120_000, 50),
        (20, 4000, 20),
    ]:
        references = choose_references(n_samples, n_rows)
        assert len(references) == size
        assert (np.diff(references) > 0).all()
        assert references[-1] < n_samples
    # From all over the samples, which are sorted.
    assert choose_references(3000, 3000).mean() == pytest.approx(1500, rel=0.1)
