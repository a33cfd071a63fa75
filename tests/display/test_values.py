from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import Lasso, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import STANDARD_CHANNELS
from skscatharm.display.values import Values, label_values


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.1, 1.0, 10], ["0.1", "1", "10"]),
        ([1.0, 1.0000001, 2.0], ["1", "1.0000001", "2"]),
        ([None, True, "auto"], ["None", "True", "auto"]),
        ([(1, 2), [0.5, 1, 2]], ["1, 2", "0.5, 1, 2"]),
        ([((1, 2), (3, 4))], ["(1, 2), (3, 4)"]),
        ([Ridge(), Lasso()], ["Ridge", "Lasso"]),
        ([Ridge(), Ridge(alpha=2)], ["Ridge()", "Ridge(alpha=2)"]),
        ([make_pipeline(StandardScaler(), Ridge())], ["StandardScaler + Ridge"]),
        ([np.log, len, Ridge], ["log", "len", "Ridge"]),
        ([partial(np.add, 1), partial(np.add, 2)], ["add (1)", "add (2)"]),
        ([lambda x: x, lambda x: -x], ["<lambda> (1)", "<lambda> (2)"]),
        ([{"a": {1: 1.0}}, ["nuclear"]], ["a", "nuclear"]),
        ([{"a": 1}, {"a": 2}], ["a: 1", "a: 2"]),
        ([np.array([1.0, 2.0]), np.float32(3)], ["1, 2", "3"]),
        (["None", None], ["None (1)", "None (2)"]),
    ],
)
def test_labels(values, labels) -> None:
    assert label_values(values) == labels


@pytest.mark.parametrize(
    "value",
    [
        STANDARD_CHANNELS,
        tuple(range(100)),
        np.arange(1e4),
        make_pipeline(*[StandardScaler() for _ in range(9)], Ridge()),
        "a long name " * 99,
        [[{"a": [1, 2, 3]}] * 9] * 9,
    ],
    ids=["channels", "tuple", "array", "pipeline", "string", "nested"],
)
def test_long_values_have_short_labels(value) -> None:
    (label,) = label_values([value])
    assert 10 <= len(label) <= 28
    one, other, third = label_values([value, "b", value])
    assert len({one, other, third}) == 3
    assert max(map(len, (one, other, third))) <= 32


def test_neighbouring_floats_differ() -> None:
    low, high = label_values([0.1, np.nextafter(0.1, 1)])
    assert float(low) == 0.1
    assert float(high) == np.nextafter(0.1, 1)


def test_numbers_are_sorted_and_equal_ones_are_one() -> None:
    values = Values([10, 0.5, 10.0, np.float64(2), np.int64(10)])
    assert values.numeric
    assert values.labels == ["0.5", "2", "10"]
    assert values.places == [2, 0, 2, 1, 2]
    assert_array_equal(values.on_axis(True), [0.5, 2, 10])
    assert_array_equal(values.on_axis(False), [0, 1, 2])


def test_other_values_keep_their_order_and_equal_ones_are_one() -> None:
    values = Values([[2, 1], Ridge(), [2, 1], Ridge(), None, 1, True, {"a": [1]}])
    assert not values.numeric
    assert values.places == [0, 1, 0, 1, 2, 3, 4, 5]
    assert values.labels == ["2, 1", "Ridge", "None", "1", "True", "a"]
    assert_array_equal(values.on_axis(False), range(6))
