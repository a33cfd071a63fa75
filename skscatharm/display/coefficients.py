"""Pictures of coefficients, and of the use that a model makes of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skscatharm.display.expansion import choose_target, expand, split_model
from skscatharm.display.figures import create_axes, take_axes, with_unit
from skscatharm.planar import PlanarScattering
from skscatharm.scattering import MoleculeScattering
from skscatharm.structures.channels import resolve_channels
from skscatharm.transform.columns import Kept, rearrange
from skscatharm.transform.paths import Pair, Path

__all__ = ["CoefficientDisplay"]

_Array = NDArray[np.float64]


class _Maps(NamedTuple):
    """A column of panels, one for each channel.

    Attributes
    ----------
    title : str
    exponent : int
        Index.
    cells : ndarray of shape (n_channels, n_rows, n_columns)
    x_ticks, y_ticks : (sequence of int, list of str)
    x_label : str
    """

    title: str
    exponent: int
    cells: _Array
    x_ticks: tuple[Sequence[int], list[str]]
    y_ticks: tuple[Sequence[int], list[str]]
    x_label: str


class CoefficientDisplay:
    r"""Picture of the coefficients of a molecule, or of their use in a model.

    Create one with :meth:`from_estimator`. Requires matplotlib.

    Of a transformer, the picture shows the coefficients of one molecule. Of a fitted
    pipeline, it shows how much the coefficients contribute to the differences between
    the predictions for several molecules. The contribution of coefficient c to the
    prediction f for molecule i is

    .. math::

        a_{ic} = \frac{\partial f}{\partial S_c}(S_i) \, (S_{ic} - \bar S_c) ,

    with the mean :math:`\bar S_c` over the molecules. For a linear model,
    :math:`\sum_c a_{ic}` is the deviation of the prediction from the mean prediction.
    Contributions of a group of coefficients are added before their root mean square
    over the molecules is taken, since contributions of similar coefficients often
    cancel.

    Parameters
    ----------
    values : ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        Coefficients of one molecule, or contributions for several.
    paths : sequence of Path or Pair
        Scales and degrees, and pairs of fields of a channel whose products are
        integrated.
    channels : sequence of str
        Names of the channels.
    exponents : sequence of float
        Exponents q.
    label : str or sequence of str
        Name of root mean squares of the contributions, with their unit; or the units of
        the coefficients, one for each exponent.
    kept : Kept or None, default=None
        Indices of the exponents of paths, and of those of pairs. None means all.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    axes_ : ndarray of matplotlib.axes.Axes
        The axes: of shape (n_channels, n_exponents) for maps, and (5,) for bars. The
        exponents of mixed moments follow those of the others.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm import CoefficientDisplay, SolidHarmonicScattering
    >>> scattering = SolidHarmonicScattering(J=1, L=1, sigma=0.5, channels=["nuclear"])
    >>> display = CoefficientDisplay.from_estimator(scattering, [molecule("H2O")])
    >>> [ax.get_title() for ax in display.axes_[0]]
    ['q = 0.5', 'q = 1', 'q = 2', 'q = 3', 'q = 4', 'mixed, q = 2']
    """

    def __init__(
        self,
        values: _Array,
        paths: Sequence[Path | Pair],
        channels: Sequence[str],
        exponents: Sequence[float],
        *,
        label: str | Sequence[str],
        kept: Kept | None = None,
    ) -> None:
        every = tuple(range(len(exponents)))
        self.values = values
        self.paths = paths
        self.channels = channels
        self.exponents = exponents
        self.label = label
        self.kept = kept or Kept(every, every)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        target: int | None = None,
        unit: str | None = None,
        kind: str | None = None,
        axes: Any = None,
    ) -> Self:
        """Draw the coefficients of a molecule, or the contributions to a prediction.

        Parameters
        ----------
        estimator : SolidHarmonicScattering, PlanarScattering or Pipeline
            A transformer, or a fitted pipeline that begins with one and ends with a
            regressor. The steps of the pipeline must be linear or have
            ``predict_gradient``, as :class:`MultilinearRegressor` has.
        X : array-like of shape (n_molecules, n_atoms, 4) or sequence of ase.Atoms
            One molecule for a transformer, and two or more for a pipeline, such as
            those of the test set.
        target : int, default=None
            Index of the target, if the model predicts several.
        unit : str, default=None
            Unit of the target, for labels.
        kind : {"map", "bars"}, default=None
            As for :meth:`plot`.
        axes : array-like of matplotlib.axes.Axes, default=None
            As for :meth:`plot`.

        Returns
        -------
        display : CoefficientDisplay

        Raises
        ------
        NotFittedError
            If the pipeline is not fitted.
        TypeError
            If `estimator` is neither a transformer nor such a pipeline.
        ValueError
            If the number of molecules is wrong, a step is not linear, the model
            predicts several targets and none is chosen, or mixed moments belong to two
            channels.
        """
        model = None
        scattering = estimator
        if not isinstance(estimator, MoleculeScattering):
            scattering, model = split_model(estimator)
        tables = resolve_channels(scattering.channels)
        transform = scattering._transform(tables)
        if transform.joins_channels:
            raise ValueError(
                "The picture has one panel for each channel, and some mixed moments "
                "belong to two: choose mixed_moments=True or False."
            )
        if model is None:
            values = np.asarray(scattering.transform(X), dtype=np.float64)
            if len(values) != 1:
                raise ValueError(
                    f"X gives {len(values)} rows of coefficients: pass a list of one "
                    "molecule, or a fitted pipeline to see how it uses those of many."
                )
        else:
            features = scattering.transform(X)
            if len(features) < 2:
                raise ValueError(
                    "X has 1 molecule: pass two or more, since the picture shows what "
                    "makes predictions differ. EnergyMapDisplay shows one molecule."
                )
            slopes = choose_target(expand(model, features).slopes, target)
            array = np.asarray(features, dtype=np.float64)
            values = slopes * (array - array.mean(axis=0))
        label: str | list[str]
        if scattering is estimator:
            label = [_name_unit(scattering, q) for q in transform.exponents]
        else:
            label = with_unit("RMS contribution", unit)
        display = cls(
            rearrange(values, *transform.layout(len(tables))),
            transform.integrands,
            [*tables],
            transform.exponents,
            label=label,
            kept=transform.kept,
        )
        return display.plot(kind=kind, axes=axes)

    def plot(self, *, kind: str | None = None, axes: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        kind : {"map", "bars"}, default=None
            "map" shows each coefficient: a panel for each channel and exponent, a row
            for each scale or pair of scales, a column for each degree. Panels of mixed
            moments have a row and a column for each scale and degree. "bars" shows
            contributions by order, scales, degree, exponent and channel, with one bar
            for mixed moments where they have two scales or degrees; a dashed line
            marks that of all coefficients. None means "map" for coefficients and
            "bars" for contributions.
        axes : array-like of matplotlib.axes.Axes, default=None
            Axes to draw on: of shape (n_channels, n_exponents) for maps, and (5,) for
            bars. None creates a figure.

        Returns
        -------
        display : CoefficientDisplay

        Raises
        ------
        ValueError
            If `kind` is unknown, bars are asked for coefficients, or the number of
            axes is wrong.
        """
        kind = kind or ("bars" if isinstance(self.label, str) else "map")
        if kind not in ("map", "bars"):
            raise ValueError(f"kind={kind!r} is unknown: choose 'map' or 'bars'.")
        if kind == "bars" and not isinstance(self.label, str):
            raise ValueError(
                "Coefficients of different exponents have different units, and are not "
                "added: choose kind='map', or pass a fitted pipeline."
            )
        if kind == "map":
            has_pairs = any(isinstance(path, Pair) for path in self.paths)
            n_columns = len(self.kept.of_paths) + has_pairs * len(self.kept.of_pairs)
            shape = len(self.channels), n_columns
            contents = "one for each channel and exponent"
            if axes is None:
                axes = create_axes(shape[0] * shape[1], shape[1], (1.7, 1.8))
            axes = take_axes(axes, shape[0] * shape[1], contents).reshape(shape)
        else:
            if axes is None:
                axes = create_axes(5, size=(2.8, 2.6))
            axes = take_axes(axes, 5, "one for each property of a path")
        self.figure_, self.axes_ = axes.flat[0].figure, axes
        if kind == "map":
            self._plot_maps()
        else:
            self._plot_bars(str(self.label))
        return self

    def _plot_maps(self) -> None:
        from matplotlib.colors import LogNorm, Normalize

        columns = [*self._maps_of_paths(), *self._maps_of_pairs()]
        contributions = isinstance(self.label, str)
        if not contributions:
            for column in columns:  # no such electrons: nothing to draw
                column.cells[column.cells <= 0] = np.nan
        for column, axes in zip(columns, self.axes_.T, strict=True):
            # Coefficients of different exponents have different units.
            shown = columns if contributions else [column]
            cells = np.concatenate([c.cells.ravel() for c in shown])
            finite = cells[np.isfinite(cells)]
            low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 1.0)
            norm = Normalize(0, high) if contributions else LogNorm(low, high)
            for ax, panel in zip(axes, column.cells, strict=True):
                image = ax.imshow(
                    np.ma.masked_invalid(panel),
                    cmap="viridis",
                    norm=norm,
                    aspect="auto",
                )
                ax.set_facecolor("0.9")
                ax.set_xticks(*column.x_ticks)
                ax.set_yticks(*column.y_ticks)
                ax.tick_params(labelbottom=ax is axes[-1])
            axes[0].set_title(column.title)
            axes[-1].set_xlabel(column.x_label)
            if not contributions:
                self.figure_.colorbar(
                    image,
                    ax=list(axes),
                    location="bottom",
                    label=self.label[column.exponent],
                )
        if contributions:
            self.figure_.colorbar(image, ax=list(self.axes_.flat), label=self.label)
        for ax in self.axes_[:, 1 : len(self.kept.of_paths)].flat:
            ax.tick_params(labelleft=False)
        for channel, axes in zip(self.channels, self.axes_, strict=True):
            axes[0].set_ylabel(f"{channel}\nScales j", parse_math=False)

    def _maps_of_paths(self) -> "list[_Maps]":
        """Place paths by their scales and degrees."""
        sizes = {
            path: size
            for path, size in zip(self.paths, self._sizes(), strict=True)
            if isinstance(path, Path)
        }
        rows = list(dict.fromkeys(path.scales for path in sizes))
        n_degrees = 1 + max(path.degree for path in sizes)
        shape = len(self.channels), len(rows), n_degrees
        cells = np.full((len(self.exponents), *shape), np.nan)
        for path, size in sizes.items():
            cells[:, :, rows.index(path.scales), path.degree] = size.T
        x_ticks = range(n_degrees), list(map(str, range(n_degrees)))
        y_ticks = range(len(rows)), list(map(_name_scales, rows))
        return [
            _Maps(
                f"q = {self.exponents[e]:g}", e, cells[e], x_ticks, y_ticks, "Degree l"
            )
            for e in self.kept.of_paths
        ]

    def _maps_of_pairs(self) -> "list[_Maps]":
        """Place mixed moments by both of their fields."""
        sizes = {
            pair: size
            for pair, size in zip(self.paths, self._sizes(), strict=True)
            if isinstance(pair, Pair)
        }
        fields = sorted({path for pair in sizes for path in pair.fields})
        shape = len(self.channels), len(fields), len(fields)
        cells = np.full((len(self.exponents), *shape), np.nan)
        for pair, size in sizes.items():
            first, second = map(fields.index, pair.fields)
            cells[:, :, second, first] = size.T
        # A tick at the first degree of each scale.
        scales = [path.scales for path in fields]
        starts = [i for i, s in enumerate(scales) if s not in scales[:i]]
        ticks = starts, [_name_scales(scales[i]) for i in starts]
        return [
            _Maps(
                f"mixed, q = {self.exponents[e]:g}",
                e,
                cells[e],
                ticks,
                ticks,
                "Scale j, degree l",
            )
            for e in (self.kept.of_pairs if sizes else ())
        ]

    def _sizes(self) -> _Array:
        """Return root mean squares, of shape (n_paths, n_channels, n_exponents)."""
        sizes: _Array = np.sqrt((self.values**2).mean(axis=0))
        return sizes

    def _plot_bars(self, label: str) -> None:
        total = self.values.sum(axis=(1, 2, 3))
        by_path = self.values.sum(axis=(2, 3))

        def grouped(of: Callable[[Path], str]) -> dict[str, _Array]:
            groups: dict[str, Any] = {}
            for path, column in zip(self.paths, by_path.T, strict=True):
                group = "mixed" if isinstance(path, Pair) else of(path)
                groups[group] = groups.get(group, 0) + column
            return groups

        panels: dict[str, dict[str, _Array]] = {
            "Order": grouped(lambda path: str(len(path.scales))),
            "Scales j": grouped(lambda path: _name_scales(path.scales)),
            "Degree l": grouped(lambda path: str(path.degree)),
            "Exponent q": {
                f"{q:g}": column
                for q, column in zip(
                    self.exponents, self.values.sum(axis=(1, 2)).T, strict=True
                )
            },
            "Channel": dict(
                zip(self.channels, self.values.sum(axis=(1, 3)).T, strict=True)
            ),
        }
        heights = [
            [_root_mean_square(group) for group in groups.values()]
            for groups in panels.values()
        ]
        overall = _root_mean_square(total)
        highest = max(overall, *(max(of_panel) for of_panel in heights))
        for ax, (name, groups), of_panel in zip(
            self.axes_, panels.items(), heights, strict=True
        ):
            ax.bar(range(len(groups)), of_panel)
            ax.axhline(overall, color="black", ls="--", lw=1)
            tilted = sum(map(len, groups)) > 14
            ax.set_xticks(
                range(len(groups)),
                groups,
                rotation=45 if tilted else 0,
                ha="right" if tilted else "center",
                rotation_mode="anchor",
                parse_math=False,
            )
            ax.set_ylim(0, 1.05 * highest)
            ax.set(xlabel=name, ylabel=label.replace(" (", "\n("))


def _root_mean_square(values: _Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _name_scales(scales: Sequence[int]) -> str:
    return ", ".join(map(str, scales)) or "none"


def _name_unit(scattering: MoleculeScattering, exponent: float) -> str:
    """Name the unit of coefficients of an exponent, as a formula of matplotlib."""
    charge = "" if exponent == 1 else f"$^{{{exponent:g}}}$"
    dimension = 2 if isinstance(scattering, PlanarScattering) else 3
    length = dimension * (1 - exponent)
    normalize = getattr(scattering, "normalize", None)
    if normalize == "volume":
        length -= dimension
    return (
        f"charge{charge}"
        + (f" Å$^{{{length:g}}}$" if length else "")
        + " per atom" * (normalize == "atom")
    )
