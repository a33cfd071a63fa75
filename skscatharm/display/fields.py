"""Pictures of densities and moduli around a molecule."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from math import hypot, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skscatharm.display.figures import create_axes, take_axes
from skscatharm.display.planes import (
    View,
    best_view,
    mark_atoms,
    side_views,
    view_of_atoms,
)
from skscatharm.display.surfaces import draw_surfaces
from skscatharm.scattering import SolidHarmonicScattering
from skscatharm.structures import Structure, check_structures
from skscatharm.structures.channels import resolve_channels
from skscatharm.transform.columns import list_columns
from skscatharm.transform.paths import Path, scattering_paths

__all__ = ["FieldDisplay", "panel_size", "read_molecule", "regular_lattice"]

_Array = NDArray[np.float64]

_UNIT = "charge/Å³"
_WIDTHS = 3.0  # of the widest field, that a picture shows beyond the atoms
_N_SURFACE = 48  # points along the longest axis of a lattice for surfaces


class FieldDisplay:
    r"""Picture of the densities and moduli of a molecule: interference patterns.

    Create one with :meth:`from_estimator`. Requires matplotlib, and plotly for surfaces
    that turn.

    Each panel shows a field in a plane through the molecule: the density
    :math:`|\rho|` of a channel, or a modulus :math:`U_1[j, l]` or
    :math:`U_2[j_1, j_2, l]`, whose powers are integrated. Symbols are atoms within
    0.3 Å of the plane, rings are other atoms. The colours are those of the field
    divided by its maximum in the panel, which the title names. They grow with the
    square root, to show faint parts.

    Parameters
    ----------
    scattering : SolidHarmonicScattering
        The transformer.
    molecule : ase.Atoms, array-like of shape (n_atoms, 4) or Structure
        A single molecule.
    paths : sequence of str, default=None
        Names of :meth:`SolidHarmonicScattering.get_path_names_out`. None means all of
        order 1 of the first channel, or its density if `max_order` is 0.
    plane : sequence of three int, default=None
        Indices of three atoms, counted from 0: the picture is in their plane. None
        means the plane that fits the nuclei best.
    offset : float, default=0.0
        Distance of the picture from the plane, in Å.
    margin : float, default=None
        How far the picture reaches beyond the atoms, in Å. None means three widths of
        the widest field.

    Attributes
    ----------
    values_ : ndarray of shape (n_paths, n_y, n_x)
        The fields in the plane, in the unit of the weights per Å\ :sup:`3`.
    points_ : ndarray of shape (n_y, n_x, 3)
        The points, in Å, in the coordinates of the molecule.
    figure_ : matplotlib.figure.Figure or plotly.graph_objects.Figure
        The figure.
    axes_ : ndarray of matplotlib.axes.Axes of shape (n_paths,)
        The axes; for surfaces without plotly, of shape (3 * n_paths,).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm import FieldDisplay, SolidHarmonicScattering
    >>> display = FieldDisplay.from_estimator(
    ...     SolidHarmonicScattering(), molecule("CH4"), paths=["S1_nuclear_j1_l2"]
    ... )
    >>> print(display.axes_[0].get_title())
    nuclear, j = 1, l = 2
    maximum 0.406 charge/Å³
    """

    def __init__(
        self,
        scattering: SolidHarmonicScattering,
        molecule: Any,
        *,
        paths: Sequence[str] | None = None,
        plane: Sequence[int] | None = None,
        offset: float = 0.0,
        margin: float | None = None,
    ) -> None:
        self.scattering = scattering
        self.molecule = molecule
        self.paths = paths
        self.plane = plane
        self.offset = offset
        self.margin = margin

    @classmethod
    def from_estimator(
        cls,
        scattering: SolidHarmonicScattering,
        molecule: Any,
        *,
        paths: Sequence[str] | None = None,
        plane: Sequence[int] | None = None,
        offset: float = 0.0,
        margin: float | None = None,
        kind: str = "plane",
        n_points: int = 200,
        level: float = 0.3,
        axes: Any = None,
    ) -> Self:
        """Draw fields of a molecule.

        Parameters
        ----------
        scattering, molecule, paths, plane, offset, margin
            As for :class:`FieldDisplay`.
        kind, n_points, level, axes
            As for :meth:`plot`.

        Returns
        -------
        display : FieldDisplay

        Raises
        ------
        TypeError
            If `scattering` is not a SolidHarmonicScattering.
        ValueError
            If the molecule cannot be computed, a path is unknown, or as for
            :meth:`plot`.
        """
        display = cls(
            scattering,
            molecule,
            paths=paths,
            plane=plane,
            offset=offset,
            margin=margin,
        )
        return display.plot(kind=kind, n_points=n_points, level=level, axes=axes)

    def plot(
        self,
        *,
        kind: str = "plane",
        n_points: int = 200,
        level: float = 0.3,
        axes: Any = None,
    ) -> Self:
        """Draw the picture.

        Parameters
        ----------
        kind : {"plane", "surface"}, default="plane"
            "plane" shows the fields in a plane. "surface" shows surfaces on which the
            fields are equal; they turn in a notebook if plotly is installed
            (``pip install plotly``). Otherwise, three planes at right angles through
            the middle of the molecule replace them.
        n_points : int, default=200
            Number of points along the longer side of a plane.
        level : float, default=0.3
            Value on the surfaces, as a share of the maximum, between 0 and 1.
        axes : array-like of matplotlib.axes.Axes, default=None
            Axes to draw on, one for each path; not for surfaces. None creates a figure.

        Returns
        -------
        display : FieldDisplay

        Raises
        ------
        TypeError
            If `scattering` is not a SolidHarmonicScattering.
        ValueError
            If a parameter is out of range.

        Warns
        -----
        UserWarning
            If planes replace surfaces, as plotly is not installed.
        """
        if not isinstance(self.scattering, SolidHarmonicScattering):
            raise TypeError(
                f"{type(self.scattering).__name__} has no fields in space: pass a "
                "SolidHarmonicScattering, such as the first step of a pipeline, "
                "pipeline[0]."
            )
        if kind not in ("plane", "surface"):
            raise ValueError(f"kind={kind!r} is unknown: choose 'plane' or 'surface'.")
        if n_points < 2:
            raise ValueError(f"n_points={n_points} is too small: pass 2 or more.")
        if not 0 < level < 1:
            raise ValueError(
                f"level={level} is out of range: pass a share of the maximum between "
                "0 and 1."
            )
        structure = read_molecule(self.molecule)
        view = (
            best_view(structure)
            if self.plane is None
            else view_of_atoms(structure, self.plane)
        )
        known = self._known()
        if self.paths is None:
            first = next(iter(known.values()))[0]
            order = min(self.scattering.max_order, 1)
            names = [
                name
                for name, (channel, path) in known.items()
                if channel == first and len(path.scales) == order
            ]
        else:
            names = list(self.paths)
        if kind == "plane":
            self._plot_planes(view, names, n_points, axes)
        elif find_spec("plotly") is None:
            warnings.warn(
                "plotly is not installed: the picture shows three planes in place of "
                "surfaces. Install it with pip install plotly.",
                UserWarning,
                stacklevel=2,
            )
            self._plot_sides(view, names, n_points)
        else:
            self._plot_surfaces(view, names, level)
        return self

    def _known(self) -> dict[str, tuple[str, Path]]:
        """Return the channel and the path of each name."""
        scattering = self.scattering
        names = scattering.get_path_names_out()
        channels = [*resolve_channels(scattering.channels)]
        paths = scattering_paths(scattering.J, scattering.L, scattering.max_order)
        columns = list_columns(paths, len(channels), 1)
        return {
            name: (channels[column.channel], paths[column.path])
            for name, column in zip(names, columns, strict=True)
        }

    def _margin(self, names: Sequence[str]) -> float:
        if self.margin is not None:
            return self.margin
        known, sigma = self._known(), self.scattering.sigma
        # The fields check the names, and say more of them.
        scales = {known[name][1].scales for name in names if name in known} or {()}
        return _WIDTHS * max(hypot(sigma, *(sigma * 2**j for j in s)) for s in scales)

    def _title(self, name: str, maximum: float) -> str:
        channel, path = self._known()[name]
        scales = ", ".join(map(str, path.scales))
        where = f", j = {scales}, l = {path.degree}" if path.scales else ""
        return f"{channel}{where}\nmaximum {maximum:.3g} {_UNIT}"

    def _slice(
        self, view: View, names: Sequence[str], n_points: int, offset: float
    ) -> tuple[_Array, _Array, _Array]:
        """Compute fields in a plane: coordinates along x and y, values (n, y, x)."""
        x, y = regular_lattice(view, self._margin(names), n_points)[:2]
        values = self.scattering.fields(view.structure, (x, y, [offset]), names)
        return x, y, np.asarray(values)[..., 0].swapaxes(1, 2)

    def _plot_planes(
        self, view: View, names: Sequence[str], n_points: int, axes: Any
    ) -> None:
        x, y, self.values_ = self._slice(view, names, n_points, self.offset)
        grid = np.stack(np.broadcast_arrays(x, y[:, np.newaxis], self.offset), axis=-1)
        self.points_ = view.to_given(grid)
        if axes is None:
            n_columns = self._n_columns(names)
            size = panel_size(x, y, 3.5 if len(names) <= 2 else 2.0)
            axes = create_axes(len(names), n_columns, size, bar=True)
        self.axes_ = take_axes(axes, len(names), "one for each path")
        self.figure_ = self.axes_[0].figure
        images = [
            _draw(ax, x, y, values, view.structure, self.offset, ("x (Å)", "y (Å)"))
            for ax, values in zip(self.axes_, self.values_, strict=True)
        ]
        for ax, name, values in zip(self.axes_, names, self.values_, strict=True):
            ax.set_title(
                self._title(name, values.max()), fontsize="small", parse_math=False
            )
        self._add_bar(images)

    def _plot_sides(self, view: View, names: Sequence[str], n_points: int) -> None:
        sides = side_views(view)
        slices = [self._slice(side, names, n_points, 0.0) for side in sides]
        x, y, self.values_ = slices[0]
        grid = np.stack(np.broadcast_arrays(x, y[:, np.newaxis], 0.0), axis=-1)
        self.points_ = view.to_given(grid)
        sizes = [panel_size(*side[:2]) for side in slices]
        self.axes_ = create_axes(
            3 * len(names), 3, tuple(np.max(sizes, axis=0)), bar=True
        )
        self.figure_ = self.axes_[0].figure
        images = []
        labels = [("x (Å)", "y (Å)"), ("x (Å)", "z (Å)"), ("y (Å)", "z (Å)")]
        for i, name in enumerate(names):
            maximum = max(values[i].max() for _, _, values in slices)
            for k, (side, (x, y, values), label) in enumerate(
                zip(sides, slices, labels, strict=True)
            ):
                ax = self.axes_[3 * i + k]
                structure = side.structure
                images.append(
                    _draw(ax, x, y, values[i], structure, 0.0, label, maximum)
                )
                ax.set_title(
                    self._title(name, maximum), fontsize="small", parse_math=False
                )
        self._add_bar(images)

    def _plot_surfaces(self, view: View, names: Sequence[str], level: float) -> None:
        lattice = regular_lattice(view, self._margin(names), _N_SURFACE)
        values = np.asarray(self.scattering.fields(view.structure, lattice, names))
        titles = [
            self._title(name, v.max()) for name, v in zip(names, values, strict=True)
        ]
        levels = [[level * v.max()] for v in values]
        self.values_ = values
        grid = np.stack(np.meshgrid(*lattice, indexing="ij"), axis=-1)
        self.points_ = view.to_given(grid)
        self.figure_ = draw_surfaces(
            view.structure, lattice, values, levels, titles, _UNIT
        )

    def _n_columns(self, names: Sequence[str]) -> int:
        """Choose the number of columns: one for each degree, if there are all."""
        degrees = {self._known()[name][1].degree for name in names}
        if len(names) % len(degrees) == 0 and 1 < len(degrees) <= 5:
            return len(degrees)
        return min(4, round(sqrt(len(names)) + 0.4))

    def _add_bar(self, images: Sequence[Any]) -> None:
        self.figure_.colorbar(
            images[0],
            ax=list(self.axes_),
            label="Share of the maximum",
            ticks=[0, 0.1, 0.3, 0.6, 1],
        )


def read_molecule(molecule: Any) -> Structure:
    """Check a single molecule.

    Raises
    ------
    TypeError, ValueError
        As :func:`~skscatharm.structures.check_structures`, or if there are several.
    """
    several = not hasattr(molecule, "positions") and np.ndim(molecule) > 2
    if several or (isinstance(molecule, list) and hasattr(molecule[0], "positions")):
        raise ValueError(
            f"The picture is of one molecule, but {len(molecule)} were given: pass "
            "one, such as X[0]."
        )
    return check_structures([molecule])[0]


def regular_lattice(
    view: View, margin: float, n_points: int
) -> tuple[_Array, _Array, _Array]:
    """Return coordinates of equal steps around a molecule.

    `n_points` is their number along the longest axis, `margin` their reach beyond the
    atoms, in Å.
    """
    ranges = view.ranges(margin)
    step = float(np.ptp(ranges, axis=1).max()) / (n_points - 1)
    x, y, z = (
        np.linspace(low, high, max(2, round((high - low) / step) + 1))
        for low, high in ranges
    )
    return x, y, z


def panel_size(x: _Array, y: _Array, longest: float = 2.0) -> tuple[float, float]:
    """Return width and height of a panel, in inches, with its labels.

    `longest` is the longer side of the map, in inches.
    """
    width, height = float(np.ptp(x)), float(np.ptp(y))
    scale = longest / max(width, height)
    return max(0.7 + scale * width, 1.9), 1.0 + scale * height


def _draw(
    ax: Any,
    x: _Array,
    y: _Array,
    values: _Array,
    structure: Structure,
    offset: float,
    labels: tuple[str, str],
    maximum: float | None = None,
) -> Any:
    from matplotlib.colors import PowerNorm

    largest = values.max() if maximum is None else maximum
    image = ax.pcolormesh(
        x,
        y,
        values / (largest or 1.0),
        cmap="magma",
        norm=PowerNorm(0.5, 0, 1),
        shading="gouraud",
        rasterized=True,
    )
    ax.set_aspect("equal")
    mark_atoms(ax, structure, offset)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    return image
