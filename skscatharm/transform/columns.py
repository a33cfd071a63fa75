"""The columns of the coefficients: their order, and their names."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.transform.paths import Path

__all__ = ["Column", "arrange", "column_names", "list_columns"]


class Column(NamedTuple):
    """Indices of the path, the channel and the exponent of a column."""

    path: int
    channel: int
    exponent: int


def list_columns(
    paths: Sequence[Path], n_channels: int, n_exponents: int
) -> list[Column]:
    """List the columns in their order: by order, channel, path, exponent."""
    orders = [len(path.scales) for path in paths]
    return [
        Column(path, channel, exponent)
        for order in range(3)
        for channel, path, exponent in product(
            range(n_channels),
            [i for i, o in enumerate(orders) if o == order],
            range(n_exponents),
        )
    ]


def column_names(
    channels: Sequence[str], paths: Sequence[Path], exponents: Sequence[float]
) -> list[str]:
    """Name the columns.

    Examples
    --------
    >>> from skscatharm.transform.columns import column_names
    >>> from skscatharm.transform.paths import scattering_paths
    >>> column_names(["nuclear"], scattering_paths(J=1, L=0, max_order=2), [0.5])[1:]
    ['S1[nuclear,j=0,l=0,q=0.5]', 'S1[nuclear,j=1,l=0,q=0.5]',
     'S2[nuclear,j=(0,1),l=0,q=0.5]']
    """
    names = []
    for column in list_columns(paths, len(channels), len(exponents)):
        scales, degree = paths[column.path]
        j = ",".join(map(str, scales))
        where = ("", f"j={j},l={degree},", f"j=({j}),l={degree},")[len(scales)]
        q = f"{exponents[column.exponent]:g}"
        names.append(f"S{len(scales)}[{channels[column.channel]},{where}q={q}]")
    return names


def arrange(
    coefficients: NDArray[np.float64], paths: Sequence[Path]
) -> NDArray[np.float64]:
    """Bring coefficients into columns.

    Parameters
    ----------
    coefficients : ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    paths : sequence of Path

    Returns
    -------
    ndarray of shape (n_molecules, n_columns)
    """
    columns = list_columns(paths, *coefficients.shape[2:])
    path, channel, exponent = np.array(columns).T
    return coefficients[:, path, channel, exponent]
