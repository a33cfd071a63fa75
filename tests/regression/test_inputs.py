import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skscatharm.regression.inputs import check_weight, real_numbers


@pytest.mark.parametrize(
    "weight",
    [
        2,
        2.0,
        np.float32(2),
        np.array(2.0),
        [2, 2, 2],
        np.full(3, 2, dtype=np.int8),
        pd.Series([2.0, 2.0, 2.0]),
        np.ma.array([2.0, 2.0, 2.0]),
    ],
)
def test_weights(weight) -> None:
    found = check_weight(weight, 3)
    assert found.dtype == np.float64
    assert_array_equal(found, [2, 2, 2])


def test_no_weights() -> None:
    assert_array_equal(check_weight(None, 3), [1, 1, 1])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 1], r"has shape \(2,\).*3 samples"),
        (np.ones((3, 1)), r"has shape \(3, 1\).*3 samples"),
        ("heavy", "must hold real numbers"),
        (["a", "b", "c"], "must hold real numbers"),
        ([[1], [1, 2], 1], "must hold real numbers"),
        ({"a": 1}, "must hold real numbers"),
        (1j, "must hold real numbers"),
        ([1j, 1, 1], "must hold real numbers"),
        (np.array([1j, 1, 1]), "complex128"),
        (np.ma.masked_equal([1, 2, 3], 2), "masked"),
        (np.nan, "NaN"),
        ([1, np.nan, 1], "NaN"),
        (np.inf, "infinity"),
        (-1, "[Nn]egative"),
        ([1, -1, 1], "[Nn]egative"),
        (0, "zero"),
        ([0, 0, 0], "zero"),
    ],
)
def test_refused_weights(weight, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_weight(weight, 3)
    assert "sample_weight" in str(error.value)


def test_anything_but_arrays_is_left() -> None:
    for value in (None, [1, 2], "text", pd.Series([1])):
        assert real_numbers(value, "X") is value
    array = np.ones(3)
    assert real_numbers(array, "X") is array


def test_masked_entries() -> None:
    with pytest.raises(ValueError, match=r"y has masked entries.*y\.filled"):
        real_numbers(np.ma.masked_equal([1, 2], 2), "y")


def test_complex_entries(xp) -> None:
    with pytest.raises(ValueError, match=r"Complex data.*y has type .*complex64"):
        real_numbers(xp.ones(3, dtype=xp.complex64), "y")


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn"])
def test_narrow_tensors(name) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    values = torch.tensor([0.5, -3.0, 16.0])
    found = real_numbers(values.to(getattr(torch, name)), "X")
    assert found.dtype == torch.float32
    assert_array_equal(found.numpy(), values.numpy())
    for kept in (torch.float32, torch.float64, torch.int64):
        assert real_numbers(values.to(kept), "X").dtype == kept
