"""Axes and labels of pictures."""

from typing import Any

import numpy as np

__all__ = ["create_axes", "take_axes", "with_unit"]


def create_axes(
    n: int,
    n_columns: int = 3,
    size: tuple[float, float] = (4.5, 3.8),
    *,
    bar: bool = False,
) -> Any:
    """Create a figure with n axes, row by row.

    Parameters
    ----------
    n : int
    n_columns : int
        Largest number of columns.
    size : (float, float)
        Width and height of each of the axes, in inches.
    bar : bool
        Whether to leave space for a common colour bar on the right.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, of shape (n,)
    """
    from matplotlib import pyplot as plt

    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        squeeze=False,
        figsize=(size[0] * n_columns + 1.2 * bar, size[1] * n_rows),
        layout="constrained",
    )
    for ax in axes.flat[n:]:
        figure.delaxes(ax)
    return axes.flat[:n]


def take_axes(axes: Any, n: int, contents: str) -> Any:
    """Check axes that a user passes.

    Parameters
    ----------
    axes : array-like of matplotlib.axes.Axes
    n : int
        How many there should be.
    contents : str
        What they are for, for the message.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, of shape (n,)

    Raises
    ------
    ValueError
    """
    taken = np.asarray(axes, dtype=object).ravel()
    if len(taken) != n:
        raise ValueError(f"axes must hold {n} axes, {contents}; got {len(taken)}.")
    return taken


def with_unit(name: str, unit: str | None) -> str:
    """Add a unit to the name of a quantity, if there is one."""
    return f"{name} ({unit})" if unit else name
