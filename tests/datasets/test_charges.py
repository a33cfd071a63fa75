"""Charges are tested against chemistry, which shares no code with their script."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist

from skscatharm import LocalScattering
from skscatharm.datasets import load_qm9_charges, load_qm9_sample


def test_rows_are_those_of_local_scattering() -> None:
    sample = load_qm9_charges()
    X, _ = load_qm9_sample(return_X_y=True)
    assert_array_equal(sample.data, X[:500])
    ids = LocalScattering().molecule_ids(sample.data)
    assert_array_equal(sample.molecule_ids, ids)
    for array in (sample.target, sample.atomic_numbers):
        assert array.shape == ids.shape
    data, target = load_qm9_charges(return_X_y=True)
    assert_array_equal(data, sample.data)
    assert_array_equal(target, sample.target)


def test_charges_are_those_of_the_atoms() -> None:
    sample = load_qm9_charges()
    totals = np.bincount(sample.molecule_ids, sample.target)
    assert_allclose(totals, 0, atol=2e-4)
    means = {Z: sample.target[sample.atomic_numbers == Z].mean() for Z in (1, 7, 8, 9)}
    assert means[8] < means[7] < 0 < means[1]
    # Hydrogen at oxygen has lost more than hydrogen at carbon.
    by_neighbour: dict[int, list[float]] = {6: [], 8: []}
    for i in range(100):
        rows = sample.data[i][sample.data[i, :, 0] > 0]
        charges = sample.target[sample.molecule_ids == i]
        heavy = rows[:, 0] > 1
        nearest = cdist(rows[:, 1:], rows[heavy, 1:]).argmin(axis=1)
        for Z, neighbour, charge in zip(
            rows[:, 0], rows[heavy][nearest, 0], charges, strict=True
        ):
            if Z == 1 and neighbour in by_neighbour:
                by_neighbour[int(neighbour)].append(charge)
    assert min(by_neighbour[8]) > np.mean(by_neighbour[6]) + 0.1


def test_description() -> None:
    sample = load_qm9_charges()
    assert f"from {sample.target.min()} to {sample.target.max()}" in sample.DESCR
    assert "Ramakrishnan" in sample.DESCR
