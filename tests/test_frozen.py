"""Coefficients stay the same, or stores learn that they do not."""

import numpy as np
import pytest
from freeze import CASES, FILE, compute
from numpy.testing import assert_allclose

from skscatharm.transform.transform import NUMERICS_VERSION

ADVICE = "raise NUMERICS_VERSION and run tests/freeze.py"
# Sums are taken in another order by other processors and libraries.
RTOL = {"float32": 2e-6, "float64": 1e-9}


@pytest.fixture(scope="module")
def frozen():
    with np.load(FILE) as data:
        return dict(data)


def test_version(frozen) -> None:
    assert frozen["version"] == NUMERICS_VERSION, "run tests/freeze.py"


@pytest.mark.parametrize("case", CASES)
def test_coefficients(case, frozen) -> None:
    rtol = RTOL[CASES[case].get("dtype", "float32")]
    assert_allclose(compute(case), frozen[case], rtol=rtol, err_msg=ADVICE)
