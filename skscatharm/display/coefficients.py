"""Pictures of coefficients, and of the use that a model makes of them."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skscatharm.display.expansion import (
    choose_target,
    expand,
    refuse_mixed_moments,
    split_model,
)
from skscatharm.display.figures import create_axes, take_axes, with_unit
from skscatharm.planar import PlanarScattering
from skscatharm.scattering import MoleculeScattering
from skscatharm.structures.channels import resolve_channels
from skscatharm.transform.columns import rearrange
from skscatharm.transform.paths import Path, scattering_paths
from skscatharm.transform.transform import check_exponents

__all__ = ["CoefficientDisplay"]

_Array = NDArray[np.float64]


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
    paths : sequence of Path
        Scales and degrees.
    channels : sequence of str
        Names of the channels.
    exponents : sequence of float
        Exponents q.
    label : str or sequence of str
        Name of root mean squares of the contributions, with their unit; or the units of
        the coefficients, one for each exponent.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure.
    axes_ : ndarray of matplotlib.axes.Axes
        The axes: of shape (n_channels, n_exponents) for maps, and (5,) for bars.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm import CoefficientDisplay, SolidHarmonicScattering
    >>> scattering = SolidHarmonicScattering(J=1, L=1, sigma=0.5, channels=["nuclear"])
    >>> display = CoefficientDisplay.from_estimator(scattering, [molecule("H2O")])
    >>> [ax.get_title() for ax in display.axes_[0]]
    ['q = 0.5', 'q = 1', 'q = 2', 'q = 3', 'q = 4']
    """

    def __init__(
        self,
        values: _Array,
        paths: Sequence[Path],
        channels: Sequence[str],
        exponents: Sequence[float],
        *,
        label: str | Sequence[str],
    ) -> None:
        self.values = values
        self.paths = paths
        self.channels = channels
        self.exponents = exponents
        self.label = label

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
            predicts several targets and none is chosen, or there are mixed moments.
        """
        model = None
        scattering = estimator
        if not isinstance(estimator, MoleculeScattering):
            scattering, model = split_model(estimator)
        refuse_mixed_moments(scattering)
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
        paths = scattering_paths(scattering.J, scattering.L, scattering.max_order)
        channels = [*resolve_channels(scattering.channels)]
        exponents = check_exponents(scattering.Q)
        label: str | list[str]
        if scattering is estimator:
            label = [_name_unit(scattering, q) for q in exponents]
        else:
            label = with_unit("RMS contribution", unit)
        arranged = rearrange(values, paths, len(channels), len(exponents))
        display = cls(arranged, paths, channels, exponents, label=label)
        return display.plot(kind=kind, axes=axes)

    def plot(self, *, kind: str | None = None, axes: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        kind : {"map", "bars"}, default=None
            "map" shows each coefficient: a panel for each channel and exponent, a row
            for each scale or pair of scales, a column for each degree. "bars" shows
            contributions by order, scales, degree, exponent and channel; a dashed line
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
            shape = len(self.channels), len(self.exponents)
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

        rows = list(dict.fromkeys(path.scales for path in self.paths))
        n_degrees = 1 + max(path.degree for path in self.paths)
        cells = np.full((*self.axes_.shape, len(rows), n_degrees), np.nan)
        sizes = np.sqrt((self.values**2).mean(axis=0))
        for path, size in zip(self.paths, sizes, strict=True):
            cells[:, :, rows.index(path.scales), path.degree] = size
        contributions = isinstance(self.label, str)
        if not contributions:
            cells[cells <= 0] = np.nan  # no such electrons: nothing to draw
        for column, axes in enumerate(self.axes_.T):
            # Coefficients of different exponents have different units.
            shown = cells if contributions else cells[:, column]
            finite = shown[np.isfinite(shown)]
            low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 1.0)
            norm = Normalize(0, high) if contributions else LogNorm(low, high)
            for ax, panel in zip(axes, cells[:, column], strict=True):
                image = ax.imshow(
                    np.ma.masked_invalid(panel),
                    cmap="viridis",
                    norm=norm,
                    aspect="auto",
                )
                ax.set_facecolor("0.9")
                ax.set_xticks(range(n_degrees))
                ax.set_yticks(range(len(rows)), map(_name_scales, rows))
                ax.label_outer()
            axes[0].set_title(f"q = {self.exponents[column]:g}")
            axes[-1].set_xlabel("Degree l")
            if not contributions:
                self.figure_.colorbar(
                    image,
                    ax=list(axes),
                    location="bottom",
                    label=self.label[column],
                )
        if contributions:
            self.figure_.colorbar(image, ax=list(self.axes_.flat), label=self.label)
        for channel, axes in zip(self.channels, self.axes_, strict=True):
            axes[0].set_ylabel(f"{channel}\nScales j", parse_math=False)

    def _plot_bars(self, label: str) -> None:
        total = self.values.sum(axis=(1, 2, 3))
        by_path = self.values.sum(axis=(2, 3))

        def grouped(of: Callable[[Path], Any]) -> dict[Any, _Array]:
            groups: dict[Any, Any] = {}
            for path, column in zip(self.paths, by_path.T, strict=True):
                groups[of(path)] = groups.get(of(path), 0) + column
            return groups

        scales = grouped(lambda path: path.scales)
        panels: dict[str, dict[str, _Array]] = {
            "Order": {str(k): v for k, v in grouped(lambda p: len(p.scales)).items()},
            "Scales j": {_name_scales(k): v for k, v in scales.items()},
            "Degree l": {str(k): v for k, v in grouped(lambda p: p.degree).items()},
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
            tilted = sum(map(len, groups)) > 16
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
