from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer

from skscatharm.structures import check_structures
from skscatharm.structures.channels import (
    STANDARD_CHANNELS,
    channel_weights,
    element_channels,
    resolve_channels,
)

MAIN_GROUPS = set(STANDARD_CHANNELS["valence"])


def lone_atoms(*charges: int):
    return check_structures([[[Z, 0, 0, 0]] for Z in charges])


@pytest.mark.parametrize(
    ("Z", "valence", "bonding"),
    [
        (1, 1, 1),  # H
        (2, 2, 0),  # He
        (3, 1, 1),  # Li
        (5, 3, 3),  # B
        (6, 4, 4),  # C
        (7, 5, 3),  # N
        (8, 6, 2),  # O
        (9, 7, 1),  # F
        (10, 8, 0),  # Ne
        (12, 2, 2),  # Mg
        (14, 4, 4),  # Si
        (15, 5, 3),  # P
        (16, 6, 2),  # S
        (17, 7, 1),  # Cl
        (20, 2, 2),  # Ca
        (31, 3, 3),  # Ga
        (34, 6, 2),  # Se
        (35, 7, 1),  # Br
        (53, 7, 1),  # I
        (54, 8, 0),  # Xe
        (82, 4, 4),  # Pb
    ],
)
def test_standard_weights(Z: int, valence: int, bonding: int) -> None:
    (weights,) = channel_weights(resolve_channels(STANDARD_CHANNELS), lone_atoms(Z))
    assert_array_equal(weights, [[Z], [valence], [Z - valence], [bonding]])


def test_nuclear_covers_all_elements() -> None:
    assert STANDARD_CHANNELS["nuclear"] == {Z: Z for Z in range(1, 119)}


def test_main_groups() -> None:
    transition = {*range(21, 31), *range(39, 49), *range(57, 81), *range(89, 113)}
    assert set(range(1, 119)) - transition == MAIN_GROUPS


@pytest.mark.parametrize("Z", [21, 30, 57, 80, 92, 112])
@pytest.mark.parametrize("channel", ["valence", "core", "bonding"])
def test_missing_weight_names_molecule_element_and_channel(
    Z: int, channel: str
) -> None:
    structures = lone_atoms(6, 1, Z, Z)
    symbol = {21: "Sc", 30: "Zn", 57: "La", 80: "Hg", 92: "U", 112: "Cn"}[Z]
    message = rf"Molecule 2 holds {symbol} \(Z = {Z}\).*'{channel}'.*mapping"
    with pytest.raises(ValueError, match=message):
        channel_weights(resolve_channels(["nuclear", channel]), structures)


def test_core_is_nuclear_minus_valence(qm9) -> None:
    structures = check_structures(qm9.data[:100])
    names = ["nuclear", "valence", "core"]
    for nuclear, valence, core in channel_weights(resolve_channels(names), structures):
        assert_array_equal(core, nuclear - valence)


def test_weights_follow_molecules_and_channels(molecules) -> None:
    structures = check_structures(molecules)
    own = {1: -0.5, 6: 0, 7: 1e3, 8: np.float32(2.5), 9: 1}
    tables = resolve_channels({"own": own, "bonding": STANDARD_CHANNELS["bonding"]})
    for weights, structure in zip(
        channel_weights(tables, structures), structures, strict=True
    ):
        assert weights.shape == (2, len(structure.charges))
        assert_array_equal(weights[0], [own[Z] for Z in structure.charges])
        bonding = STANDARD_CHANNELS["bonding"]
        assert_array_equal(weights[1], [bonding[Z] for Z in structure.charges])


@given(st.lists(st.sampled_from(list(STANDARD_CHANNELS)), min_size=1, unique=True))
def test_order_of_names_is_kept(names: list[str]) -> None:
    assert list(resolve_channels(names)) == names


@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_containers_of_names(container) -> None:
    names = ["bonding", "nuclear"]
    assert list(resolve_channels(container(names))) == names


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.dictionaries(
            st.integers(1, 118),
            st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
            min_size=1,
            max_size=5,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_own_channels(channels: dict[str, dict[int, float]]) -> None:
    assert resolve_channels(channels) == channels


def test_tables_are_copies() -> None:
    own = {1: 1, 8: np.float32(0.5)}
    for channels, name in (({"own": own}, "own"), (["valence"], "valence")):
        tables = resolve_channels(channels)
        tables[name][8] = 9.0
        assert resolve_channels(channels)[name][8] != 9
    tables = resolve_channels({"own": own})
    own[8] = 2
    assert tables == {"own": {1: 1, 8: 0.5}}
    assert [type(entry) for entry in (*tables["own"], *tables["own"].values())] == [
        int,
        int,
        float,
        float,
    ]


def test_mappings_other_than_dicts() -> None:
    own = MappingProxyType({np.int64(1): Fraction(1, 2)})
    assert resolve_channels(MappingProxyType({"own": own})) == {"own": {1: 0.5}}


def test_standard_channels_survive_clone() -> None:
    params = {"channels": STANDARD_CHANNELS}
    cloned = clone(FunctionTransformer(kw_args=params))
    assert cloned.kw_args == params


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([], "empty"),
        ({}, "empty"),
        (["charge"], "'charge' is unknown; .* nuclear, valence, core, bonding"),
        (["core", "core"], "'core' is repeated"),
        ({"own": {}}, "'own' has an empty table"),
        ({"own": {0: 1.0}}, "nuclear charge 0"),
        ({"own": {119: 1.0}}, "nuclear charge 119"),
        ({"own": {6: np.nan}}, "'own': the weight of C must be finite; got nan"),
        (
            {"own": {6: 1, 7: -np.inf}},
            "the weight of N must be finite; got -inf",
        ),
        ({"own": {6: 10**400}}, "'own': the weight of C must be finite; got inf"),
    ],
)
def test_invalid_channels(channels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_channels(channels)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ("nuclear", r"sequence of names"),
        (None, "sequence of names"),
        ({"core", "nuclear"}, "sequence of names"),
        (4, "sequence of names"),
        ([4], "name of a channel must be a string; got 4"),
        ([["nuclear"]], "name of a channel must be a string"),
        ({4: {1: 1}}, "name of a channel must be a string; got 4"),
        ({"own": 4}, "'own' must be a table"),
        ({"own": "nuclear"}, "'own' must be a table"),
        ({"own": {"C": 4}}, "'C' is no nuclear charge"),
        ({"own": {6.0: 4}}, "6.0 is no nuclear charge"),
        ({"own": {True: 4}}, "True is no nuclear charge"),
        ({"own": {6: "4"}}, "weight of C must be a real number; got '4'"),
        ({"own": {6: 1j}}, "weight of C must be a real number"),
        ({"own": {6: None}}, "weight of C must be a real number; got None"),
    ],
)
def test_wrong_type_of_channels(channels, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        resolve_channels(channels)


@pytest.mark.parametrize(
    "charges", [(1, 8), (7, 1), (1, 6, 7), (1, 6, 8), (6, 7, 8), (1, 16, 15)]
)
def test_element_channels_determine_all_products(charges) -> None:
    weights = [
        [table[Z] for Z in charges] for table in element_channels(charges).values()
    ]
    products = np.array([np.outer(row, row).ravel() for row in weights])
    n = len(charges)
    assert len(products) == n * (n + 1) / 2
    assert np.linalg.matrix_rank(products, tol=1e-3) == len(products)


def test_channels_of_the_commonest_elements() -> None:
    charges = [6] * 5 + [1] * 4 + [7, 16, 8]
    tables = element_channels(charges)
    assert list(tables) == ["nuclear", "valence", "bonding", "H", "C", "N"]
    assert tables["N"] == {1: 1, 6: 1, 7: 4, 8: 1, 16: 1}
    assert tables["nuclear"] == {Z: Z for Z in (1, 6, 7, 8, 16)}
    assert tables == element_channels(charges[::-1])


def test_no_channel_twice() -> None:
    # That of carbon is the bonding channel.
    assert list(element_channels([1, 6, 9])) == [
        "nuclear",
        "valence",
        "bonding",
        "H",
        "F",
    ]


@pytest.mark.parametrize("charges", [(29,), (29, 79), (1, 26), (6, 8, 26), (6, 13)])
def test_element_channels_without_the_standard_ones(charges) -> None:
    tables = element_channels(charges, standard=False)
    assert next(iter(tables)) == "atoms"
    weights = np.array([[table[Z] for Z in charges] for table in tables.values()])
    n = len(charges)
    assert len(weights) == (n + 1 if n > 1 else 1)
    # No two elements are alike, and none is unseen.
    assert len(np.unique(weights, axis=1).T) == n
    assert np.all(weights > 0)
    by_default = element_channels(charges)
    assert (by_default == tables) == (not {*charges} <= {*STANDARD_CHANNELS["valence"]})


def test_no_standard_channels_of_transition_metals() -> None:
    with pytest.raises(ValueError, match="'valence' has no weight for Fe, Cu"):
        element_channels([29, 1, 26, 8], standard=True)
