from dataclasses import replace

import numpy as np
import pytest

from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform, check_exponents


@pytest.mark.parametrize(
    "Q", [(0.5, 32), [1], np.array([2, 1.5]), range(1, 4), np.float32([0.5, 1])]
)
def test_exponents(Q) -> None:
    found = check_exponents(Q)
    assert found == tuple(float(q) for q in Q)
    assert all(type(q) is float for q in found)


@pytest.mark.parametrize(
    ("Q", "message"),
    [
        ((), "a sequence of exponents"),
        (2, "a sequence of exponents"),
        ([[1, 2]], "a sequence of exponents"),
        ({1, 2}, "sets and mappings have no order"),
        ({1: 2}, "sets and mappings have no order"),
        ("soft", "a sequence of exponents"),
        (None, "a sequence of exponents"),
        ((0.49, 1), "out of range"),
        ((1, 32.1), "out of range"),
        ((1, np.nan), "out of range"),
        ((np.inf,), "out of range"),
        ((-1,), "out of range"),
        ((1, 2, 1.0), "twice"),
    ],
)
def test_exponents_that_are_refused(Q, message) -> None:
    with pytest.raises(ValueError, match=rf"Q.*{message}|{message}.*Q") as caught:
        check_exponents(Q)
    assert repr(Q) in str(caught.value)


def test_settings_are_all_but_paths_and_exponents() -> None:
    paths = tuple(scattering_paths(1, 1, 1))
    transform = Transform(paths, (1.0,), 0.5, 1e-5, 4.0, "float32", "separable")
    assert transform.settings == {
        "sigma": 0.5,
        "tol": 1e-5,
        "softening": 4.0,
        "dtype": "float32",
        "engine": "separable",
    }
    transform = replace(transform, window=0.7, signed=(1,))
    assert transform.settings["window"] == 0.7
    assert transform.settings["signed"] == [1]
    fields = set(Transform.__dataclass_fields__)
    assert fields - set(transform.settings) == {
        "paths",
        "pairs",
        "exponents",
        "path_exponents",
        "pair_exponents",
    }


def test_exponents_of_paths_and_of_pairs() -> None:
    paths = tuple(scattering_paths(1, 1, 1))
    transform = Transform(paths, (1.0, 3.0, 2.0), 0.5, 1e-5, 4.0, "float32", "fourier")
    assert transform.kept == ((0, 1, 2), (0, 1, 2))
    transform = replace(transform, path_exponents=(1.0, 3.0), pair_exponents=(2.0, 1.0))
    assert transform.kept == ((0, 1), (0, 2))
