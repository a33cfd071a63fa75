"""Surfaces of equal values, which turn in a notebook. Requires plotly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.structures import Structure
from skscatharm.structures.elements import SYMBOLS

__all__ = ["draw_surfaces"]

_Array = NDArray[np.float64]

# Of negative and of positive values: blue and orange differ for the colour-blind too.
_COLOURS = ("#0072B2", "#D55E00")


def draw_surfaces(
    structure: Structure,
    lattice: tuple[_Array, _Array, _Array],
    values: _Array,
    levels: Sequence[Sequence[float]],
    titles: Sequence[str],
    unit: str | None,
) -> Any:
    """Draw surfaces of fields, side by side.

    Parameters
    ----------
    structure : Structure
        In the axes of the lattice.
    lattice : three ndarrays
        Coordinates along the axes, in Å.
    values : ndarray of shape (n_fields, n_x, n_y, n_z)
    levels : sequence of sequence of float
        Values on the surfaces of each field. Those of negative values are blue.
    titles : sequence of str
    unit : str or None
        Unit of the values.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    n = len(values)
    figure = make_subplots(
        1,
        n,
        specs=[[{"type": "scene"}] * n],
        subplot_titles=[title.replace("\n", "<br>") for title in titles],
    )
    x, y, z = (array.ravel() for array in np.meshgrid(*lattice, indexing="ij"))
    for column, (field, of_field) in enumerate(zip(values, levels, strict=True), 1):
        for level in of_field:
            figure.add_trace(
                graph_objects.Isosurface(
                    x=x,
                    y=y,
                    z=z,
                    value=field.ravel(),
                    isomin=level,
                    isomax=level,
                    surface_count=1,
                    opacity=0.5,
                    colorscale=[
                        [0, _COLOURS[int(level > 0)]],
                        [1, _COLOURS[int(level > 0)]],
                    ],
                    showscale=False,
                    caps={"x_show": False, "y_show": False, "z_show": False},
                    name=f"{level:.3g} {unit or ''}".strip(),
                ),
                row=1,
                col=column,
            )
        positions = structure.positions
        figure.add_trace(
            graph_objects.Scatter3d(
                x=positions[:, 0],
                y=positions[:, 1],
                z=positions[:, 2],
                mode="markers+text",
                text=[SYMBOLS[Z] for Z in structure.charges],
                marker={"size": 4, "color": "black"},
                showlegend=False,
            ),
            row=1,
            col=column,
        )
    figure.update_scenes(
        aspectmode="data",
        xaxis_title="x (Å)",
        yaxis_title="y (Å)",
        zaxis_title="z (Å)",
    )
    return figure
