"""Kernels of values and derivatives, against finite differences of other libraries."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.gaussian_process.kernels import RBF, DotProduct, Matern

from skscatharm.regression.kernels import (
    Kernel,
    Points,
    expand,
    gaussian,
    linear,
    matern,
    square,
    without_directions,
)

KERNELS = {
    "gaussian": (gaussian, True, RBF()),
    "matern": (matern, True, Matern(nu=2.5)),
    "linear": (linear, False, DotProduct(0)),
    "square": (square, False, DotProduct(0) ** 2),
}
STEP = 1e-3


@pytest.fixture(params=KERNELS)
def kernels(request, rng):
    """A kernel with factors and amplitude, and a function that computes the same."""
    profile, stationary, reference = KERNELS[request.param]
    factors = rng.uniform(0.5, 1.5, size=3)

    def compute(a, b):
        return 2.5 * reference(np.atleast_2d(a) * factors, np.atleast_2d(b) * factors)

    return Kernel(profile, factors, stationary, 2.5), compute


def draw(rng, counts):
    """Samples with some numbers of directions."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return Points(
        rng.normal(size=(len(counts), 3)), rng.normal(size=(len(owners), 3)), owners
    )


def differences(compute, a, b):
    """Central differences along the directions of the first argument."""
    centre = a.positions[a.owners]
    shift = STEP * a.directions
    return (compute(centre + shift, b) - compute(centre - shift, b)) / (2 * STEP)


def reference_matrix(compute, a, b):
    """All blocks, from values of the kernel alone."""

    def transposed(x, y):
        return compute(y, x).T

    both = np.empty((len(a.owners), len(b.owners)))
    for column, (owner, direction) in enumerate(
        zip(b.owners, b.directions, strict=True)
    ):
        both[:, column] = sum(
            sign
            * differences(compute, a, b.positions[owner] + sign * STEP * direction)[
                :, 0
            ]
            for sign in (1, -1)
        ) / (2 * STEP)
    return np.block(
        [
            [
                compute(a.positions, b.positions),
                differences(transposed, b, a.positions).T,
            ],
            [differences(compute, a, b.positions), both],
        ]
    )


def test_covariance(kernels, rng) -> None:
    kernel, compute = kernels
    a, b = draw(rng, [2, 0, 3]), draw(rng, [1, 4])
    assert_allclose(kernel.covariance(a, b), reference_matrix(compute, a, b), atol=1e-4)


def test_covariance_of_equal_samples(kernels, rng) -> None:
    # The Matérn kernel has a root there.
    kernel, compute = kernels
    a = draw(rng, [2, 2])
    found = kernel.covariance(a, a)
    assert_allclose(found, reference_matrix(compute, a, a), atol=1e-2)
    assert_allclose(found, found.T, atol=1e-14)
    assert np.linalg.eigvalsh(found).min() > -1e-12


def test_expansion(kernels, rng, monkeypatch) -> None:
    monkeypatch.setattr("skscatharm.regression.kernels._BATCH", 2)
    kernel, compute = kernels
    points, dual = draw(rng, [2, 0, 3]), rng.normal(size=8)
    where = rng.normal(size=(5, 3))
    expected = reference_matrix(compute, without_directions(where), points) @ dual
    expansion = expand(kernel, points, dual)
    assert_allclose(expansion.evaluate(where), expected, atol=1e-4)
    slopes = np.stack(
        [
            expansion.evaluate(where + shift) - expansion.evaluate(where - shift)
            for shift in STEP * np.eye(3)
        ],
        axis=1,
    )
    assert_allclose(expansion.gradient(where), slopes / (2 * STEP), atol=1e-4)


def test_parts(rng) -> None:
    points = draw(rng, [2, 0, 3, 1])
    for found, samples in [
        (points.part(slice(1, 3)), [1, 2]),
        (points.rows(np.array([3, 0]))[1], [3, 0]),
    ]:
        assert_allclose(found.positions, points.positions[samples])
        for i, sample in enumerate(samples):
            assert_allclose(
                found.directions[found.owners == i],
                points.directions[points.owners == sample],
            )
