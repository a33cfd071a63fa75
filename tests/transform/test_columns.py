import re
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skscatharm.transform.columns import (
    Kept,
    arrange,
    column_names,
    list_columns,
    rearrange,
)
from skscatharm.transform.paths import Path, field_pairs, scattering_paths

PATHS = scattering_paths(2, 2, 2)


@pytest.mark.parametrize("style", ["plain", "readable"])
@pytest.mark.parametrize(
    "channels",
    [
        ["nuclear", "valence"],
        ["a b", "a_b", "a-b", "a.b"],
        ["a", "a_2", "a ", "a_2_2", "a\t"],
        ["ρ", "σ", "_"],
        ["x_j0", "x", "x_j0_l1", "x[", "x,j=0"],
        ["a_j0", "a"],
    ],
)
@pytest.mark.parametrize("Q", [(1, 1.0000001, 10, 0.5), (1, 1.5, 15), (0.5, 5.0)])
def test_names_are_distinct(Q, channels, style) -> None:
    names = column_names(channels, PATHS, Q, style)
    assert len(names) == len(set(names)) == len(PATHS) * len(channels) * len(Q)
    if style == "plain":
        assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in names)
    else:
        for channel in channels:
            assert any(f"[{channel}," in name for name in names)


def test_plain_names() -> None:
    paths = [Path((), 0), Path((1,), 3), Path((0, 10), 12)]
    assert column_names(["a b"], paths, [0.5, 2, 1.0000001]) == [
        "S0_a_b_q0p5",
        "S0_a_b_q2",
        "S0_a_b_q1p0000001",
        "S1_a_b_j1_l3_q0p5",
        "S1_a_b_j1_l3_q2",
        "S1_a_b_j1_l3_q1p0000001",
        "S2_a_b_j0_j10_l12_q0p5",
        "S2_a_b_j0_j10_l12_q2",
        "S2_a_b_j0_j10_l12_q1p0000001",
    ]


def test_readable_names() -> None:
    paths = [Path((), 0), Path((1,), 3), Path((0, 10), 12)]
    assert column_names(["a b"], paths, [2.5], "readable") == [
        "S0[a b,q=2.5]",
        "S1[a b,j=1,l=3,q=2.5]",
        "S2[a b,j=(0,10),l=12,q=2.5]",
    ]


def test_columns_are_arranged_as_they_are_named() -> None:
    channels, Q = ["a", "b"], [0.5, 1, 3]
    shape = (4, len(PATHS), 2, 3)
    coefficients = np.arange(np.prod(shape), dtype=float).reshape(shape)
    table = dict(
        zip(
            column_names(channels, PATHS, Q),
            arrange(coefficients, PATHS).T,
            strict=True,
        )
    )
    for (p, path), c, q in product(enumerate(PATHS), range(2), range(3)):
        # The name of one column alone.
        (name,) = column_names([channels[c]], [path], [Q[q]])
        assert_array_equal(table[name], coefficients[:, p, c, q])


def test_pairs_with_exponents_of_their_own() -> None:
    paths = scattering_paths(J=0, L=1, max_order=1)
    integrands = [*paths, *field_pairs(paths)]
    kept = Kept((0, 1), (1, 2))
    names = column_names(["a"], integrands, [0.5, 1, 3], kept=kept)
    assert names[:3] == ["S0_a_q0p5", "S0_a_q1", "S1_a_j0_l0_q0p5"]
    assert names[-2:] == ["S1xS1_a_j0_l0_j0_l1_q1", "S1xS1_a_j0_l0_j0_l1_q3"]
    values = np.arange(1.0, 4 * 3 + 1).reshape(1, 4, 1, 3)
    columns = arrange(values, integrands, kept)
    assert len(columns[0]) == len(names) == 8
    back = rearrange(columns, integrands, 1, 3, kept)
    assert_array_equal(back[0, :3, 0, 2], 0)
    assert_array_equal(back[0, 3, 0, 0], 0)
    assert_array_equal(back[back != 0], values[back != 0])


def test_order_comes_before_channel_path_and_exponent() -> None:
    columns = list_columns(PATHS, 2, 3)
    keys = [(len(PATHS[c.path].scales), c.channel, c.path, c.exponent) for c in columns]
    assert keys == sorted(keys)
    assert len(set(columns)) == len(PATHS) * 6
