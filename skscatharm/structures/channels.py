r"""Channels: the weights of atoms in the surrogate densities of a molecule.

In channel :math:`k`, the density of a molecule is

.. math:: \rho_k(u) = \sum_n w_k(Z_n) \, g_\sigma(u - r_n),

with a normalised Gaussian :math:`g_\sigma`. A channel is a table of weights
:math:`w_k(Z)`, in units of charge.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.elements import N_ELEMENTS, NOBLE_GASES, SYMBOLS
from skscatharm.structures.structure import Structure

__all__ = [
    "STANDARD_CHANNELS",
    "channel_weights",
    "element_channels",
    "resolve_channels",
]

# Weight of an element in its channel, where others weigh 1, and how many elements have
# one beside the standard channels: the number of products of fields grows with the
# square.
_EMPHASIS, _MAX_ELEMENTS = 4.0, 3


def _valence_electrons() -> dict[int, float]:
    """Count the valence electrons of the main groups (1, 2 and 13 to 18)."""
    # A period starts with groups 1 and 2, after the last noble gas. It ends with groups
    # 13 to 18, of 3 to 8 electrons. The first period holds only H and He.
    starts = (0, *NOBLE_GASES[:-1])
    valence: dict[int, float] = {gas + v: v for gas in starts for v in (1, 2)}
    valence |= {gas - 8 + v: v for gas in NOBLE_GASES[1:] for v in range(3, 9)}
    return dict(sorted(valence.items()))


_VALENCE = _valence_electrons()

#: The standard channels: tables {Z: weight}. ``nuclear`` covers all elements. The other
#: tables cover the main groups, as the numbers of valence electrons and bonds of
#: transition metals, lanthanides and actinides depend on convention.
#:
#: ``nuclear``
#:     The nuclear charge Z.
#: ``valence``
#:     The valence electrons: H 1, C 4, N 5, O 6, F 7, S 6, Cl 7 ...
#: ``core``
#:     The other electrons, Z minus valence.
#: ``bonding``
#:     The usual number of covalent bonds. It uses up or completes the valence shell:
#:     H 1, B 3, C 4, N 3, O 2, F 1, S 2, Cl 1 ..., noble gases 0.
STANDARD_CHANNELS: dict[str, dict[int, float]] = {
    "nuclear": {Z: Z for Z in range(1, N_ELEMENTS + 1)},
    "valence": _VALENCE,
    "core": {Z: Z - v for Z, v in _VALENCE.items()},
    "bonding": {Z: min(v, (2 if Z <= 2 else 8) - v) for Z, v in _VALENCE.items()},
}


def resolve_channels(channels: Any) -> dict[str, dict[int, float]]:
    """Check channels and return a copy of the table of each.

    Parameters
    ----------
    channels : sequence of str or mapping
        Names of standard channels (``"nuclear"``, ``"valence"``, ``"core"``,
        ``"bonding"``), or a mapping from names to tables {Z: weight}. Weights are
        finite real numbers of any sign.

    Returns
    -------
    tables : dict of str to dict
        The table {int: float} of each channel, in the order given. Later changes of
        `channels` do not change it.

    Raises
    ------
    TypeError
        If `channels`, a name, a table, a nuclear charge or a weight is of the wrong
        type.
    ValueError
        If there are no channels, a name is unknown or repeated, a table is empty, a
        nuclear charge is no element or a weight is not finite.

    Examples
    --------
    >>> from skscatharm.structures.channels import STANDARD_CHANNELS, resolve_channels
    >>> list(resolve_channels(["nuclear", "bonding"]))
    ['nuclear', 'bonding']

    A mapping combines standard tables, extended ones and new ones:

    >>> bonding = STANDARD_CHANNELS["bonding"] | {30: 2}  # zinc
    >>> resolve_channels({"bonding": bonding, "polarity": {1: 0.5, 8: -1}})["polarity"]
    {1: 0.5, 8: -1.0}
    """
    if isinstance(channels, Mapping):
        tables = {name: _table(name, table) for name, table in channels.items()}
    elif isinstance(channels, str | set | frozenset) or not hasattr(
        channels, "__iter__"
    ):
        raise TypeError(
            "channels must be a sequence of names, as in ('nuclear',), or a mapping "
            f"from names to tables {{Z: weight}}; got {channels!r}."
        )
    else:
        tables = {}
        for name in channels:
            _check_name(name)
            if name not in STANDARD_CHANNELS:
                raise ValueError(
                    f"channel {name!r} is unknown; the standard channels are "
                    f"{', '.join(STANDARD_CHANNELS)}. Pass a mapping {{name: {{Z: "
                    "weight}} to define others."
                )
            if name in tables:
                raise ValueError(f"channel {name!r} is repeated; name it once.")
            tables[name] = _table(name, STANDARD_CHANNELS[name])
    if not tables:
        raise ValueError("channels is empty; pass at least one channel.")
    return tables


def element_channels(
    charges: Iterable[int], standard: bool | None = None
) -> dict[str, dict[int, float]]:
    r"""Make channels for potentials of molecules and crystals of some elements.

    With the standard channels ``nuclear``, ``valence`` and ``bonding``, each of the
    three commonest of three elements or more has a channel of its own, in which it
    weighs 4 and the others 1, unless that equals ``bonding``.

    Without them, all elements weigh 4 in the channel ``atoms``, and each of two or more
    has a channel of its own.

    The squared modulus of a field is

    .. math:: U_k^2 = \sum_{ab} w_k(Z_a) \, w_k(Z_b) \, V_a \cdot V_b

    with the fields :math:`V_a` of the atoms of each element. Of n elements, there are
    n (n + 1) / 2 products: three channels determine those of two elements, and six
    those of three.

    Parameters
    ----------
    charges : iterable of int
        Nuclear charges of atoms. Of elements that occur equally often, the lightest
        come first.
    standard : bool or None, default=None
        Whether to use the standard channels, which need elements of the main groups.
        None uses them for such elements. In crystals, other channels predict better.

    Returns
    -------
    tables : dict of str to dict
        The table {Z: weight} of each channel, for these elements.

    Raises
    ------
    ValueError
        If `standard` is True and a standard channel has no weight for an element.

    Examples
    --------
    >>> from skscatharm import element_channels
    >>> ethanol = [6, 6, 8, 1, 1, 1, 1, 1, 1]
    >>> tables = element_channels(ethanol)
    >>> list(tables)
    ['nuclear', 'valence', 'bonding', 'H', 'C', 'O']
    >>> tables["C"]
    {1: 1.0, 6: 4.0, 8: 1.0}

    Copper and gold:

    >>> element_channels([29, 79])
    {'atoms': {29: 4.0, 79: 4.0}, 'Cu': {29: 4.0, 79: 1.0}, 'Au': {29: 1.0, 79: 4.0}}
    """
    numbers = Counter(int(Z) for Z in charges)
    elements = sorted(numbers)
    missing = [SYMBOLS[Z] for Z in elements if Z not in _VALENCE]
    if standard and missing:
        raise ValueError(
            f"the standard channel 'valence' has no weight for {', '.join(missing)}. "
            "Choose standard=False, or pass channels with tables of your own."
        )
    if standard or (standard is None and not missing):
        tables = {
            name: {Z: STANDARD_CHANNELS[name][Z] for Z in elements}
            for name in ("nuclear", "valence", "bonding")
        }
        commonest = sorted(elements, key=lambda Z: -numbers[Z])[:_MAX_ELEMENTS]
        own = sorted(commonest) if len(elements) > 2 else []
    else:
        tables, own = {"atoms": dict.fromkeys(elements, _EMPHASIS)}, elements
    for Z in own:
        table = dict.fromkeys(elements, 1.0) | {Z: _EMPHASIS}
        if table not in tables.values():
            tables[SYMBOLS[Z]] = table
    return tables


def channel_weights(
    tables: Mapping[str, Mapping[int, float]], structures: Sequence[Structure]
) -> list[NDArray[np.float64]]:
    """Look up the weights of all atoms.

    Parameters
    ----------
    tables : mapping of str to mapping
        The table {Z: weight} of each channel, from :func:`resolve_channels`.
    structures : sequence of Structure
        Molecules, from :func:`~skscatharm.structures.check_structures`.

    Returns
    -------
    weights : list of ndarray of shape (n_channels, n_atoms)
        One for each molecule.

    Raises
    ------
    ValueError
        If a channel has no weight for an element of a molecule.

    Examples
    --------
    >>> from skscatharm.structures.channels import channel_weights, resolve_channels
    >>> from skscatharm.structures import check_structures
    >>> tables = resolve_channels(["nuclear", "valence"])
    >>> hydrogen_fluoride = [[9, 0, 0, 0], [1, 0, 0, 0.92]]
    >>> channel_weights(tables, check_structures([hydrogen_fluoride]))
    [array([[9., 1.],
           [7., 1.]])]
    """
    weights = np.full((len(tables), N_ELEMENTS + 1), np.nan)
    for row, table in zip(weights, tables.values(), strict=True):
        row[list(table)] = list(table.values())

    present = np.unique(np.concatenate([s.charges for s in structures]))
    missing = np.argwhere(np.isnan(weights[:, present]))
    if len(missing):
        channel, Z = list(tables)[missing[0, 0]], int(present[missing[0, 1]])
        molecule = next(i for i, s in enumerate(structures) if Z in s.charges)
        raise ValueError(
            f"Molecule {molecule} holds {SYMBOLS[Z]} (Z = {Z}), for which the "
            f"channel {channel!r} has no weight. Leave the channel out, pass channels "
            f"as a mapping {{name: {{Z: weight}}}} in which {channel!r} has a weight "
            f"for {Z}, or use skscatharm.element_channels."
        )
    return [weights[:, s.charges] for s in structures]


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a channel must be a string; got {name!r}.")


def _table(name: Any, table: Any) -> dict[int, float]:
    """Check a channel and copy its table."""
    _check_name(name)
    if not isinstance(table, Mapping):
        raise TypeError(
            f"channel {name!r} must be a table {{Z: weight}}; got {table!r}."
        )
    if not table:
        raise ValueError(f"channel {name!r} has an empty table; add weights.")
    items = [item for Z in table for item in (Z, table[Z])]
    try:
        return dict(_checked(name, *items))
    except TypeError:  # an item has no hash, or is of a wrong type
        return _checked.__wrapped__(name, *items)


@lru_cache(maxsize=64, typed=True)
def _checked(name: str, *items: Any) -> dict[int, float]:
    """Check charges and weights, which alternate: a search passes the same ones."""
    return {
        _charge(name, Z): _weight(name, Z, weight)
        for Z, weight in zip(items[::2], items[1::2], strict=True)
    }


def _charge(name: str, Z: Any) -> int:
    if isinstance(Z, bool) or not isinstance(Z, Integral):
        raise TypeError(
            f"channel {name!r}: {Z!r} is no nuclear charge; the keys of a table are "
            "integers."
        )
    if not 1 <= int(Z) <= N_ELEMENTS:
        raise ValueError(
            f"channel {name!r}: no element has the nuclear charge {Z}; pass charges "
            f"from 1 to {N_ELEMENTS}."
        )
    return int(Z)


def _weight(name: str, Z: Any, weight: Any) -> float:
    which = f"channel {name!r}: the weight of {SYMBOLS[int(Z)]}"
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeError(f"{which} must be a real number; got {weight!r}.")
    try:
        number = float(weight)
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(f"{which} must be finite; got {number:g}.")
    return number
