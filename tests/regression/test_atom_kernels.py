"""Kernels of samples and of their atoms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skscatharm.regression import atom_kernels
from skscatharm.regression.atom_kernels import (
    AtomicKernels,
    Atoms,
    Term,
    sums_of_products,
)

NAMES = [
    "linear",
    "product",
    "atom_linear",
    "atom_product",
    "extent_linear",
    "extent_product",
]


@pytest.fixture
def kernels(rng) -> AtomicKernels:
    """Kernels of six samples, one of them without atoms of the element."""
    owners = np.repeat(np.arange(6), [1, 2, 0, 3, 1, 2])
    of = Atoms(rng.normal(size=(9, 4)), np.array([2, 1, 0.5, 0.2]), owners, np.ones(9))
    sums = {"atom": [of], "extent": [of._replace(factors=rng.uniform(1, 4, size=9))]}
    return AtomicKernels(rng.normal(size=(6, 3)), np.array([3, 1, 0.1]), sums, 2)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_of_some_samples(name, kernels, monkeypatch) -> None:
    monkeypatch.setattr(atom_kernels, "_ROWS", 4)
    some, terms = np.array([1, 3, 5]), {name: Term(2.0, 0.3)}
    found, expected = kernels.of(some).matrix(terms), kernels.matrix(terms)
    assert_allclose(found, expected[np.ix_(some, some)])
    assert_allclose(found, found.T)
    assert_allclose(kernels.columns(terms, some), expected[:, some])
    matrix, factor = kernels.of(some).scale(name, 0.3, centred=True)
    assert_allclose(2 * matrix, found)
    assert_allclose(factor * (np.trace(matrix) / 3 - matrix.mean()), 1)
    matrix, factor = kernels.of(some).scale(name, 0.3, centred=False)
    assert_allclose(factor * np.trace(matrix) / 3, 1)


def test_functions_of_the_kernel(kernels, rng, monkeypatch) -> None:
    """Values of the forms with dual coefficients are products with the matrix."""
    monkeypatch.setattr(atom_kernels, "_ATOMS", 4)
    dual = rng.normal(size=6)
    terms = {name: Term(1.0 + i, 0.3) for i, name in enumerate(NAMES)}
    found = kernels.evaluate(*kernels.function(terms, dual))
    assert_allclose(found, kernels.matrix(terms) @ dual)


def test_sums_of_products(rng) -> None:
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    factors = rng.normal(size=6)
    owners = np.repeat([0, 2], [4, 2])
    sums = sums_of_products(np.concatenate([x, y]), factors, owners, 3)
    assert sums.shape == (3, 6)
    products = np.outer(factors[:4], factors[4:]) * (x @ y.T) ** 2
    assert_allclose(sums[0] @ sums[2], products.sum())
    assert_allclose(sums[1], 0)
