"""The columns of the coefficients: their order, and their names."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.transform.morlet import ImagePath
from skscatharm.transform.paths import Pair, Path

__all__ = [
    "Column",
    "Kept",
    "arrange",
    "column_names",
    "image_column_names",
    "list_columns",
    "path_names",
    "rearrange",
]


class Column(NamedTuple):
    """Indices of the path or pair, the channel and the exponent of a column."""

    path: int
    channel: int
    exponent: int


class Kept(NamedTuple):
    """Indices of the exponents of paths, and of those of pairs."""

    of_paths: tuple[int, ...]
    of_pairs: tuple[int, ...]


def list_columns(
    paths: Sequence[Path | Pair],
    n_channels: int,
    n_exponents: int,
    kept: Kept | None = None,
) -> list[Column]:
    """List the columns in their order: by order, channel, path, exponent.

    Pairs follow the paths of order 2. `kept` leaves out exponents; None keeps all.
    """
    if kept is None:
        kept = Kept(tuple(range(n_exponents)), tuple(range(n_exponents)))
    orders = [3 if isinstance(path, Pair) else len(path.scales) for path in paths]
    return [
        Column(path, channel, exponent)
        for order in range(4)
        for channel, path, exponent in product(
            range(n_channels),
            [i for i, o in enumerate(orders) if o == order],
            kept.of_pairs if order == 3 else kept.of_paths,
        )
    ]


def column_names(
    channels: Sequence[str],
    paths: Sequence[Path | Pair],
    exponents: Sequence[float],
    style: str = "plain",
    kept: Kept | None = None,
) -> list[str]:
    """Name the columns, each differently.

    Parameters
    ----------
    channels : sequence of str
    paths : sequence of Path or Pair
    exponents : sequence of float
    style : {"plain", "readable"}
        Plain names consist of letters, digits and underscores, which every library
        accepts.
    kept : Kept or None, default=None
        Exponents of paths and of pairs. None keeps all of both.

    Examples
    --------
    >>> from skscatharm.transform.columns import column_names
    >>> from skscatharm.transform.paths import scattering_paths
    >>> paths = scattering_paths(J=1, L=0, max_order=2)
    >>> column_names(["nuclear"], paths, [0.5])
    ['S0_nuclear_q0p5', 'S1_nuclear_j0_l0_q0p5', 'S1_nuclear_j1_l0_q0p5',
     'S2_nuclear_j0_j1_l0_q0p5']
    >>> column_names(["nuclear"], paths, [0.5], style="readable")[2:]
    ['S1[nuclear,j=1,l=0,q=0.5]', 'S2[nuclear,j=(0,1),l=0,q=0.5]']
    """
    powers = [repr(float(q)).removesuffix(".0") for q in exponents]
    fields = list_columns(paths, len(channels), 1)
    of_field = dict(zip(fields, path_names(channels, paths, style), strict=True))
    names = []
    for column in list_columns(paths, len(channels), len(exponents), kept):
        name, q = of_field[column._replace(exponent=0)], powers[column.exponent]
        names.append(
            f"{name}_q{q.replace('.', 'p')}"
            if style == "plain"
            else f"{name[:-1]},q={q}]"
        )
    return names


def path_names(
    channels: Sequence[str], paths: Sequence[Path | Pair], style: str = "plain"
) -> list[str]:
    """Name the fields whose powers are integrated, in the order of their columns.

    Parameters
    ----------
    channels, paths, style
        As for :func:`column_names`.

    Examples
    --------
    >>> from skscatharm.transform.columns import path_names
    >>> from skscatharm.transform.paths import scattering_paths
    >>> path_names(["nuclear"], scattering_paths(J=1, L=0, max_order=2))
    ['S0_nuclear', 'S1_nuclear_j0_l0', 'S1_nuclear_j1_l0', 'S2_nuclear_j0_j1_l0']

    Pairs have the names of both fields:

    >>> from skscatharm.transform.paths import field_pairs
    >>> pairs = field_pairs(scattering_paths(J=1, L=0, max_order=1))
    >>> path_names(["nuclear"], pairs)
    ['S1xS1_nuclear_j0_l0_j1_l0']
    >>> path_names(["nuclear"], pairs, style="readable")
    ['S1xS1[nuclear,j=0,l=0,j=1,l=0]']
    >>> paths = scattering_paths(J=0, L=0, max_order=1)
    >>> path_names(["nuclear", "valence", "bonding"], field_pairs(paths, 3))[0]
    'S1xS1_nuclear_j0_l0_valence_j0_l0'
    """
    if style == "plain":
        channels = _plain(channels)
    names = []
    for column in list_columns(paths, len(channels), 1):
        path, channel = paths[column.path], channels[column.channel]
        fields = path.fields if isinstance(path, Pair) else (path,)
        kind = "x".join(f"S{len(scales)}" for scales, _ in fields)
        where = [channel]
        for k, (scales, degree) in enumerate(fields):
            if k > 0 and isinstance(path, Pair) and path.shift > 0:
                where.append(channels[(column.channel + path.shift) % len(channels)])
            if style == "plain":
                where += [f"j{j}" for j in scales] + [f"l{degree}"] * (len(scales) > 0)
            elif scales:
                where += [f"j={_tuple(scales)}", f"l={degree}"]
        names.append(
            "_".join([kind, *where])
            if style == "plain"
            else f"{kind}[{','.join(where)}]"
        )
    return names


def image_column_names(
    paths: Sequence[ImagePath], pooled: tuple[int, int], style: str = "plain"
) -> list[str]:
    """Name the columns of images.

    Parameters
    ----------
    paths : sequence of ImagePath
    pooled : (int, int)
        Number of rows and columns of the coefficients of a path. If there is one of
        each, it is not named.
    style : {"plain", "readable"}

    Examples
    --------
    >>> from skscatharm.transform.columns import image_column_names
    >>> from skscatharm.transform.morlet import ImagePath
    >>> path = ImagePath((0, 2), (3, 1))
    >>> image_column_names([path], (1, 2))
    ['S2_j0_t3_j2_t1_y0_x0', 'S2_j0_t3_j2_t1_y0_x1']
    >>> image_column_names([path], (1, 1), style="readable")
    ['S2[j=(0,2),t=(3,1)]']
    """
    places = list(product(*map(range, pooled)))
    names = []
    for path in paths:
        order = len(path.scales)
        for y, x in places:
            if style == "plain":
                where = [f"j{j}_t{t}" for j, t in zip(*path, strict=True)]
                where += [f"y{y}_x{x}"] * (len(places) > 1)
                names.append("_".join([f"S{order}", *where]))
            else:
                where = [
                    f"{name}={_tuple(indices)}"
                    for name, indices in (("j", path.scales), ("t", path.orientations))
                    if order
                ]
                where += [f"y={y},x={x}"] * (len(places) > 1)
                names.append(f"S{order}[{','.join(where)}]")
    return names


def _tuple(indices: Sequence[int]) -> str:
    text = ",".join(map(str, indices))
    return text if len(indices) == 1 else f"({text})"


def _plain(names: Sequence[str]) -> list[str]:
    """Replace all but ASCII letters and digits, and keep names distinct."""
    plain: list[str] = []
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9_]", "_", name)
        number = 2
        candidate = safe
        while candidate in plain:
            candidate, number = f"{safe}_{number}", number + 1
        plain.append(candidate)
    return plain


def arrange(
    values: NDArray[np.float64],
    paths: Sequence[Path | Pair],
    kept: Kept | None = None,
) -> NDArray[np.float64]:
    """Bring coefficients, or derivatives of coefficients, into columns.

    Parameters
    ----------
    values : ndarray of shape (n_molecules, n_paths, n_channels, n_exponents, ...)
    paths : sequence of Path or Pair
    kept : Kept or None, default=None
        As for :func:`list_columns`.

    Returns
    -------
    ndarray of shape (n_molecules, n_columns, ...)
    """
    path, channel, exponent = _indices(tuple(paths), *values.shape[2:4], kept)
    return values[:, path, channel, exponent]


def rearrange(
    columns: NDArray[np.float64],
    paths: Sequence[Path | Pair],
    n_channels: int,
    n_exponents: int,
    kept: Kept | None = None,
) -> NDArray[np.float64]:
    """Undo :func:`arrange` for an array of shape (n_molecules, n_columns).

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        Zero where there is no column.
    """
    values = np.zeros((len(columns), len(paths), n_channels, n_exponents))
    path, channel, exponent = _indices(tuple(paths), n_channels, n_exponents, kept)
    values[:, path, channel, exponent] = columns
    return values


@lru_cache(maxsize=64)  # a search arranges the same columns many times
def _indices(
    paths: tuple[Path | Pair, ...],
    n_channels: int,
    n_exponents: int,
    kept: Kept | None,
) -> NDArray[np.intp]:
    """Return the indices of the path, the channel and the exponent of each column."""
    return np.array(list_columns(paths, n_channels, n_exponents, kept)).T
