"""Paths: the wavelets of each coefficient."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, combinations_with_replacement, product
from typing import NamedTuple

__all__ = [
    "Pair",
    "PairGroup",
    "Path",
    "field_pairs",
    "group_pairs",
    "scattering_paths",
]


class Path(NamedTuple):
    """The scales and the degree of the wavelets of a coefficient.

    The scales are increasing indices j; their number is the order of the coefficient.
    """

    scales: tuple[int, ...]
    degree: int


class Pair(NamedTuple):
    """The paths of two fields whose product is integrated.

    The second field is that of the channel `shift` places after that of the first,
    and the first channel follows the last.
    """

    first: Path
    second: Path
    shift: int = 0

    @property
    def fields(self) -> tuple[Path, Path]:
        """Both paths."""
        return self.first, self.second


def scattering_paths(J: int, L: int, max_order: int) -> list[Path]:
    """List the paths of a transform, in the order of its columns.

    Parameters
    ----------
    J, L, max_order : int
        As in :class:`~skscatharm.SolidHarmonicScattering`.

    Returns
    -------
    list of Path
        Order 0 has a single path, ``Path((), 0)``.

    Examples
    --------
    >>> from skscatharm.transform.paths import scattering_paths
    >>> [path.scales for path in scattering_paths(J=1, L=0, max_order=2)]
    [(), (0,), (1,), (0, 1)]
    """
    return [Path((), 0)] + [
        Path(scales, degree)
        for order in range(1, max_order + 1)
        for scales, degree in product(combinations(range(J + 1), order), range(L + 1))
    ]


def field_pairs(paths: Sequence[Path], n_channels: int = 1) -> list[Pair]:
    """List all pairs of different fields of order 1, in the order of columns.

    Parameters
    ----------
    paths : sequence of Path
    n_channels : int, default=1
        Fields of so many channels are paired with each other. One makes the pairs of
        fields of the same channel.

    Examples
    --------
    >>> from skscatharm.transform.paths import field_pairs, scattering_paths
    >>> (pair,) = field_pairs(scattering_paths(J=1, L=0, max_order=2))
    >>> pair.first, pair.second
    (Path(scales=(0,), degree=0), Path(scales=(1,), degree=0))
    >>> [p.shift for p in field_pairs([pair.first], n_channels=5)]
    [1, 2]
    """
    fields = [path for path in paths if len(path.scales) == 1]
    pairs = [Pair(*both) for both in combinations(fields, 2)]
    for shift in range(1, n_channels // 2 + 1):
        # Half of the way around, each channel meets the same one in both directions.
        ordered = (
            combinations_with_replacement(fields, 2)
            if 2 * shift == n_channels
            else product(fields, repeat=2)
        )
        pairs += [Pair(first, second, shift) for first, second in ordered]
    return pairs


class PairGroup(NamedTuple):
    """Pairs whose narrower field has the same scale: they share a grid.

    Attributes
    ----------
    fields : list of Path
        All fields in them, in increasing order.
    places : list of (int, int, int)
        Index of each pair among all, and of both of its fields among these.
    """

    fields: list[Path]
    places: list[tuple[int, int, int]]

    @property
    def narrow(self) -> list[Path]:
        """The fields of the least scale, which are the first."""
        least = self.fields[0].scales
        return [path for path in self.fields if path.scales == least]


@lru_cache(maxsize=16)  # a step of molecular dynamics asks six times for the same
def group_pairs(pairs: tuple[Pair, ...]) -> tuple[PairGroup, ...]:
    """Group pairs of fields of order 1 by the scale of the narrower one.

    Examples
    --------
    >>> from skscatharm.transform.paths import Path, field_pairs, group_pairs
    >>> pairs = field_pairs([Path((j,), 0) for j in range(3)])
    >>> [group.places for group in group_pairs(tuple(pairs))]
    [[(0, 0, 1), (1, 0, 2)], [(2, 0, 1)]]
    """
    by_scale: dict[int, list[int]] = {}
    for i, pair in enumerate(pairs):
        narrow = min(path.scales[0] for path in pair.fields)
        by_scale.setdefault(narrow, []).append(i)
    groups = []
    for chosen in by_scale.values():
        fields = sorted({path for i in chosen for path in pairs[i].fields})
        place_of = {path: place for place, path in enumerate(fields)}
        places = [
            (i, place_of[pairs[i].first], place_of[pairs[i].second]) for i in chosen
        ]
        groups.append(PairGroup(fields, places))
    return tuple(groups)
