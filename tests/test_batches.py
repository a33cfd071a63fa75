import os
from threading import Barrier

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skscatharm import batches

X = np.arange(10.0)


@pytest.mark.parametrize("on_device", [True, False])
def test_results_are_in_order(on_device, monkeypatch) -> None:
    monkeypatch.setattr(batches, "_DEVICE_BATCH", 3)
    found = batches.in_batches(
        lambda x: x**2, X, on_device=on_device, n_jobs=1, verbose=0
    )
    assert_array_equal(found, X**2)


def test_one_molecule_stays_in_this_process() -> None:
    found = batches.in_batches(
        lambda x: np.full(len(x), os.getpid()),
        X[:1],
        on_device=False,
        n_jobs=2,
        verbose=0,
    )
    assert found == os.getpid()


def test_the_host_prepares_a_batch_while_a_device_computes(monkeypatch) -> None:
    monkeypatch.setattr(batches, "_DEVICE_BATCH", 5)
    both = Barrier(2, timeout=20)

    def wait_for_the_other(x):
        both.wait()
        return x

    found = batches.in_batches(
        wait_for_the_other, X, on_device=True, n_jobs=1, verbose=0
    )
    assert_array_equal(found, X)
