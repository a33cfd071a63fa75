r"""Channels: the weights that atoms have in the surrogate densities of a molecule.

In channel :math:`k` a molecule is the density

.. math:: \rho_k(u) = \sum_n w_k(Z_n) \, g_\sigma(u - r_n),

with :math:`g_\sigma` a normalised Gaussian: a channel is a table from nuclear charge to
weight, in units of charge.
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures.molecules import Structure

__all__ = ["STANDARD_CHANNELS", "channel_weights", "resolve_channels"]

_SYMBOLS = (  # noqa: SIM905 (a list would take 118 lines)
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn "
    "Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce "
    "Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At "
    "Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn "
    "Nh Fl Mc Lv Ts Og"
).split()
_N_ELEMENTS = len(_SYMBOLS)


def _valence_electrons() -> dict[int, float]:
    """Count the valence electrons of the main groups (1, 2 and 13 to 18)."""
    # A period starts after one noble gas with groups 1 and 2, and ends at the next
    # with groups 13 to 18, of 3 to 8 electrons; the first holds only H and He.
    noble = (0, 2, 10, 18, 36, 54, 86, 118)
    valence: dict[int, float] = {gas + v: v for gas in noble[:-1] for v in (1, 2)}
    valence |= {gas - 8 + v: v for gas in noble[2:] for v in range(3, 9)}
    return dict(sorted(valence.items()))


_VALENCE = _valence_electrons()

#: The standard channels, each a table from nuclear charge to weight. All but
#: ``nuclear`` know the main groups only: elsewhere the count of valence electrons, and
#: more so of bonds, is a matter of convention.
#:
#: ``nuclear``
#:     The nuclear charge Z.
#: ``valence``
#:     The valence electrons: H 1, C 4, N 5, O 6, F 7, S 6, Cl 7 ...
#: ``core``
#:     The other electrons, Z minus valence.
#: ``bonding``
#:     The usual number of covalent bonds, which either use up or complete the valence
#:     shell: H 1, B 3, C 4, N 3, O 2, F 1, S 2, Cl 1 ..., noble gases 0.
STANDARD_CHANNELS: dict[str, dict[int, float]] = {
    "nuclear": {Z: Z for Z in range(1, _N_ELEMENTS + 1)},
    "valence": _VALENCE,
    "core": {Z: Z - v for Z, v in _VALENCE.items()},
    "bonding": {Z: min(v, (2 if Z <= 2 else 8) - v) for Z, v in _VALENCE.items()},
}


def resolve_channels(channels: Any) -> dict[str, Mapping[int, float]]:
    """Check channels and return the table of each.

    Parameters
    ----------
    channels : sequence of str or mapping
        Names of standard channels (``"nuclear"``, ``"valence"``, ``"core"``,
        ``"bonding"``), or a mapping from a name to a table {Z: weight} for every
        channel. Weights are finite real numbers of any sign.

    Returns
    -------
    tables : dict of str to mapping
        The table {Z: weight} of each channel, in the order given.

    Raises
    ------
    TypeError
        If `channels`, a name, a table, a nuclear charge or a weight is of the wrong
        type.
    ValueError
        If there are no channels, a name is unknown or given twice, a table is empty,
        a nuclear charge is no element or a weight is not finite.

    Examples
    --------
    >>> from skscatharm.structures.channels import STANDARD_CHANNELS, resolve_channels
    >>> list(resolve_channels(["nuclear", "bonding"]))
    ['nuclear', 'bonding']

    Standard tables and own ones go together, or are extended:

    >>> bonding = STANDARD_CHANNELS["bonding"] | {30: 2}  # zinc
    >>> resolve_channels({"bonding": bonding, "polarity": {1: 0.5, 8: -1}})["polarity"]
    {1: 0.5, 8: -1}
    """
    if isinstance(channels, Mapping):
        tables = dict(channels)
        for name, table in tables.items():
            _check_name(name)
            _check_table(name, table)
    elif isinstance(channels, str) or not hasattr(channels, "__iter__"):
        raise TypeError(
            f"channels must be a sequence of names, as in ('nuclear',), or a mapping "
            f"from names to tables {{Z: weight}}; got {channels!r}."
        )
    else:
        tables = {}
        for name in channels:
            _check_name(name)
            if name not in STANDARD_CHANNELS:
                raise ValueError(
                    f"channel {name!r} is unknown; the standard channels are "
                    f"{', '.join(STANDARD_CHANNELS)}. Give an own channel as a mapping "
                    "{name: {Z: weight}}."
                )
            if name in tables:
                raise ValueError(f"channel {name!r} is given twice; name it once.")
            tables[name] = STANDARD_CHANNELS[name]
    if not tables:
        raise ValueError("channels is empty; give at least one channel.")
    return tables


def channel_weights(
    tables: Mapping[str, Mapping[int, float]], structures: Sequence[Structure]
) -> list[NDArray[np.float64]]:
    """Look up the weights of the atoms of molecules.

    Parameters
    ----------
    tables : mapping of str to mapping
        The table {Z: weight} of each channel, from :func:`resolve_channels`.
    structures : sequence of Structure
        Molecules, from :func:`~skscatharm.structures.check_structures`.

    Returns
    -------
    weights : list of ndarray of shape (n_channels, n_atoms)
        One array for each molecule.

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
    weights = np.full((len(tables), _N_ELEMENTS + 1), np.nan)
    for row, table in zip(weights, tables.values(), strict=True):
        row[list(table)] = list(table.values())

    present = np.unique(np.concatenate([s.charges for s in structures]))
    missing = np.argwhere(np.isnan(weights[:, present]))
    if len(missing):
        channel, Z = list(tables)[missing[0, 0]], int(present[missing[0, 1]])
        molecule = next(i for i, s in enumerate(structures) if Z in s.charges)
        raise ValueError(
            f"Molecule {molecule} holds {_SYMBOLS[Z - 1]} (Z = {Z}), for which the "
            f"channel {channel!r} has no weight. Leave the channel out, or pass as "
            f"channels a mapping {{name: {{Z: weight}}}} in which {channel!r} has a "
            f"weight for {Z}."
        )
    return [weights[:, s.charges] for s in structures]


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a channel must be a string; got {name!r}.")


def _check_table(name: str, table: Any) -> None:
    if not isinstance(table, Mapping):
        raise TypeError(
            f"channel {name!r} must be a table {{Z: weight}}; got {table!r}."
        )
    if not table:
        raise ValueError(f"channel {name!r} has an empty table; give it weights.")
    for Z, weight in table.items():
        if isinstance(Z, bool) or not isinstance(Z, Integral):
            raise TypeError(
                f"channel {name!r}: {Z!r} is no nuclear charge; the keys of a table "
                "are integers."
            )
        if not 1 <= int(Z) <= _N_ELEMENTS:
            raise ValueError(
                f"channel {name!r}: no element has the nuclear charge {Z}; they go "
                f"from 1 to {_N_ELEMENTS}."
            )
        symbol = _SYMBOLS[int(Z) - 1]
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise TypeError(
                f"channel {name!r}: the weight of {symbol} must be a real number; got "
                f"{weight!r}."
            )
        if not np.isfinite(float(weight)):
            raise ValueError(
                f"channel {name!r}: the weight of {symbol} must be finite; got "
                f"{weight}."
            )
