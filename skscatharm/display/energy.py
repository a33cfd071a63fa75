"""Maps that show where a prediction comes from."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from skscatharm.display.expansion import choose_target, expand, split_model
from skscatharm.display.fields import panel_size, read_molecule, regular_lattice
from skscatharm.display.figures import create_axes, take_axes, with_unit
from skscatharm.display.planes import View, best_view, mark_atoms, view_of_atoms
from skscatharm.display.surfaces import draw_surfaces
from skscatharm.engine.shared_grid import shared_grid
from skscatharm.scattering import SolidHarmonicScattering
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.structures.elements import SYMBOLS
from skscatharm.transform.columns import list_columns, rearrange
from skscatharm.transform.modulus import path_peak, power, soften
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["EnergyMapDisplay"]

_Array = NDArray[np.float64]
_Lattice = tuple[_Array, _Array, _Array]

_TOL = 1e-5  # of the integrals of powers
_LARGEST_ERROR = 1e-3  # of such an integral; a larger one is reported
_MOST_POINTS = 2**25
_BYTES = 2**28  # of the fields that are computed at a time
_KINDS = ("projection", "plane", "atoms", "surface")
_LINEAR = 1 / 30  # of the largest value, up to which colours are linear
_N_PLANE = 200  # points along the longest axis of a plane
_N_SURFACE = 48  # and of a lattice for surfaces
_LEVEL = 0.1  # value on surfaces, as a share of the largest


class _Products(NamedTuple):
    """Products of fields that a model uses.

    Attributes
    ----------
    fields : list of (Path, int)
        Path and channel of each field.
    halves : list of float
        The powers of both fields.
    factors : ndarray of shape (n_exponents, n_fields, n_fields)
        Zero where there is no product.
    """

    fields: list[tuple[Path, int]]
    halves: list[float]
    factors: _Array


class EnergyMapDisplay:
    r"""Map of a prediction: which part of space contributes how much.

    Create one with :meth:`from_estimator`. Requires matplotlib, and plotly for surfaces
    that turn.

    A coefficient is an integral of a power of a field over space. So is a weighted sum
    of coefficients: a linear model with coefficients b predicts

    .. math::

        f = f_0 + \int \sum_c b_c \, U_c(u)^{q_c} \, du ,

    where :math:`f_0` is the prediction if all coefficients are 0. For mixed moments,
    products of two fields replace the powers. The map is the integrand. A model that is
    not linear, such as :class:`MultilinearRegressor` of degree 2 or 3, is replaced by
    its linearisation at the molecule: :math:`b_c` is the derivative of the prediction
    with respect to the coefficient. The prediction is then :math:`f_0` plus the
    integral plus a rest.

    Contributions of atoms are integrals of the map times windows that add up to 1. The
    window of atom a is :math:`g_a(u) / \sum_b g_b(u)`, with Gaussians
    :math:`g_a` of width `window` around the atoms.

    Parameters
    ----------
    estimator : Pipeline
        A fitted pipeline that begins with a :class:`SolidHarmonicScattering` and ends
        with a regressor. Its steps must be linear, or have ``predict_gradient``, as
        :class:`MultilinearRegressor` has.
    molecule : ase.Atoms, array-like of shape (n_atoms, 4) or Structure
        A single molecule.
    target : int, default=None
        Index of the target, if the model predicts several.
    unit : str, default=None
        Unit of the target, for labels.
    window : float, default=0.3
        Width of the Gaussians that divide space among the atoms, in Å. 0 gives each
        point to the nearest atom.
    plane : sequence of three int, default=None
        Indices of three atoms, counted from 0: pictures are seen from above their
        plane. None means the plane that fits the nuclei best.

    Attributes
    ----------
    prediction_ : float
        The prediction.
    intercept_ : float
        The prediction if all coefficients are 0.
    rest_ : float
        The prediction minus intercept and linear terms: 0 for linear models, up to
        rounding errors.
    values_ : ndarray of shape (n_x, n_y, n_z)
        The map, in the unit of the target per Å\ :sup:`3`.
    volumes_ : ndarray of shape (n_x, n_y, n_z)
        Volumes of the points, in Å\ :sup:`3`:
        ``(values_ * volumes_).sum() + intercept_ + rest_`` is the prediction.
    points_ : ndarray of shape (n_x, n_y, n_z, 3)
        The points, in Å, in the coordinates of the molecule.
    contributions_ : ndarray of shape (n_atoms,)
        Contributions of the atoms, in the order of the molecule. They add up to the sum
        over the points.
    figure_ : matplotlib.figure.Figure or plotly.graph_objects.Figure
        The figure.
    ax_ : matplotlib.axes.Axes
        The axes. Surfaces have none.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skscatharm import EnergyMapDisplay, SolidHarmonicScattering
    >>> from skscatharm.datasets import load_qm9_sample
    >>> X, y = load_qm9_sample(return_X_y=True)
    >>> scattering = SolidHarmonicScattering(J=0, L=1, Q=(1, 2), sigma=0.5)
    >>> model = make_pipeline(scattering, StandardScaler(), Ridge()).fit(X[:50], y[:50])
    >>> display = EnergyMapDisplay.from_estimator(model, X[60], unit="kcal/mol")
    >>> total = display.intercept_ + (display.values_ * display.volumes_).sum()
    >>> bool(abs(total - model.predict(X[60:61])[0]) < 1e-4 * abs(total))
    True
    """

    def __init__(
        self,
        estimator: Any,
        molecule: Any,
        *,
        target: int | None = None,
        unit: str | None = None,
        window: float = 0.3,
        plane: Sequence[int] | None = None,
    ) -> None:
        self.estimator = estimator
        self.molecule = molecule
        self.target = target
        self.unit = unit
        self.window = window
        self.plane = plane

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        molecule: Any,
        *,
        target: int | None = None,
        unit: str | None = None,
        window: float = 0.3,
        plane: Sequence[int] | None = None,
        kind: str = "projection",
        ax: Any = None,
    ) -> Self:
        """Compute and draw the map of a prediction.

        Parameters
        ----------
        estimator, molecule, target, unit, window, plane
            As for :class:`EnergyMapDisplay`.
        kind, ax
            As for :meth:`plot`.

        Returns
        -------
        display : EnergyMapDisplay

        Raises
        ------
        NotFittedError
            If the pipeline is not fitted.
        TypeError
            If it does not begin with a SolidHarmonicScattering or does not end with a
            regressor.
        ValueError
            If a step is not linear, the molecule cannot be computed or is too large, or
            a parameter is out of range.

        Warns
        -----
        UserWarning
            If a coefficient differs from the integral over the points of the map by
            more than 1e-3.
        """
        display = cls(
            estimator,
            molecule,
            target=target,
            unit=unit,
            window=window,
            plane=plane,
        )
        return display.plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "projection", ax: Any = None) -> Self:
        """Draw the map.

        Parameters
        ----------
        kind : {"projection", "plane", "atoms", "surface"}, default="projection"
            "projection" integrates the map along the normal of the plane: the integral
            of the picture is the prediction minus intercept and rest. "plane" shows the
            map in the plane. "atoms" shows the contributions of the atoms as bars.
            "surface" shows surfaces of equal positive and negative values, which turn
            in a notebook; it requires plotly (``pip install plotly``).
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; not for surfaces. None creates a figure.

        Returns
        -------
        display : EnergyMapDisplay

        Raises
        ------
        ImportError
            If surfaces are asked for, and plotly is not installed.
        NotFittedError, TypeError, ValueError
            As for :meth:`from_estimator`.

        Warns
        -----
        UserWarning
            As for :meth:`from_estimator`.
        """
        if kind not in _KINDS:
            raise ValueError(
                f"kind={kind!r} is unknown: choose one of "
                f"{', '.join(map(repr, _KINDS))}."
            )
        if kind == "surface" and find_spec("plotly") is None:
            raise ImportError(
                "Surfaces need plotly: install it with pip install plotly, or choose "
                "kind='projection'."
            )
        if not hasattr(self, "values_"):
            self._compute()
        if kind == "surface":
            self._plot_surfaces()
            return self
        if ax is None:
            x, y, _ = self._view.ranges(self._reach)
            size = (
                (1.4 + 0.4 * len(self.contributions_), 3.4)
                if kind == "atoms"
                else panel_size(x, y, longest=4.0)
            )
            (ax,) = create_axes(1, size=size, bar=kind != "atoms")
        (self.ax_,) = take_axes(ax, 1, "for the map")
        self.figure_ = self.ax_.figure
        if kind == "atoms":
            self._plot_atoms()
        elif kind == "projection":
            x, y, _ = regular_lattice(self._view, self._reach, _N_PLANE)
            projected = self.values_ @ self._z_weights
            spline = RectBivariateSpline(*self._lattice[:2], projected)
            self._plot_map(x, y, spline(x, y).T, None, "Å²")
        else:
            x, y, _ = regular_lattice(self._view, self._reach, _N_PLANE)
            values = self._evaluate((x, y, np.zeros(1)))[:, :, 0].T
            self._plot_map(x, y, values, 0.0, "Å³")
        return self

    def _compute(self) -> None:
        """Compute the prediction, its linearisation and the map."""
        if not (np.isfinite(self.window) and self.window >= 0):
            raise ValueError(
                f"window={self.window} is out of range: pass a width in Å, 0 or more."
            )
        scattering, model = split_model(self.estimator)
        if not isinstance(scattering, SolidHarmonicScattering):
            raise TypeError(
                f"{type(scattering).__name__} has no fields in space: use "
                "SolidHarmonicScattering as the first step of the pipeline."
            )
        structure = read_molecule(self.molecule)
        if any(structure.pbc):
            raise ValueError(
                "The molecule is periodic, and maps are of free molecules: pass a "
                "cluster with pbc=False."
            )
        view = (
            best_view(structure)
            if self.plane is None
            else view_of_atoms(structure, self.plane)
        )
        features = scattering.transform([structure])
        values, slopes = expand(model, features)
        slope = choose_target(slopes, self.target)[0]
        at_zero = expand(model, features * 0).values
        self.prediction_ = float(choose_target(values, self.target)[0])
        self.intercept_ = float(choose_target(at_zero, self.target)[0])
        coefficients = np.asarray(features, dtype=np.float64)
        self.rest_ = self.prediction_ - self.intercept_ - float(coefficients[0] @ slope)
        if scattering.normalize == "atom":  # weights and values of the integrals
            slope = slope / len(structure.charges)
            coefficients = coefficients * len(structure.charges)

        tables = resolve_channels(scattering.channels)
        transform = scattering._transform(tables)
        self._scattering, self._transform = scattering, transform
        factors_of, integrals_of = (
            rearrange(row, *transform.layout(len(tables)))[0]
            for row in (slope[np.newaxis], coefficients)
        )
        # Each field of which the model uses a power.
        self._used: dict[str, tuple[Path, _Array]] = {}
        integrals = {}
        names = {}
        for name, column in zip(
            scattering.get_path_names_out(),
            list_columns(transform.paths, len(tables), 1),
            strict=True,
        ):
            path = transform.paths[column.path]
            names[path, column.channel] = name
            factors = factors_of[column.path, column.channel]
            if factors.any():
                self._used[name] = path, factors
                integrals[name] = integrals_of[column.path, column.channel]
        n_paths = len(transform.paths)
        self._products, of_products = _find_products(
            transform, factors_of[n_paths:], integrals_of[n_paths:]
        )
        self._names = [names[field] for field in self._products.fields]
        self._place_points(view, channel_weights(tables, [structure])[0])
        self.values_ = self._evaluate(self._lattice, (integrals, of_products))
        self._split()

    def _place_points(self, view: View, weights: _Array) -> None:
        """Choose the points of the map."""
        scattering, paths = self._scattering, self._transform.paths
        positions = view.structure.positions
        middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
        used = {path for path, _ in (*self._used.values(), *self._products.fields)}
        transform = replace(
            self._transform,
            paths=tuple(path for path in paths if path in used) or tuple(paths[:1]),
            tol=min(self._transform.tol, _TOL),
            dtype="float64",
            engine="separable",
        )
        centred = view.structure._replace(positions=positions - middle)
        grid = shared_grid(centred, weights, transform)
        n_points = np.prod([float(len(axis.points)) for axis in grid])
        if n_points > _MOST_POINTS:
            raise ValueError(
                f"The map of this molecule would have {n_points:.3g} points (at most "
                f"{_MOST_POINTS:.3g} are allowed). Choose a larger sigma of the "
                "scattering, or a smaller molecule."
            )
        x, y, z = (
            axis.points + shift for axis, shift in zip(grid, middle, strict=True)
        )
        self._view, self._lattice, self._z_weights = view, (x, y, z), grid[2].weights
        by_axis = [axis.weights for axis in grid]
        self.volumes_ = np.einsum("x,y,z->xyz", *by_axis)
        self.points_ = view.to_given(np.stack(np.meshgrid(x, y, z, indexing="ij"), -1))
        self._reach = 3 * float(scattering.sigma) * 2.0 ** min(scattering.J, 1)

    def _evaluate(
        self,
        lattice: _Lattice,
        integrals: tuple[dict[str, _Array], _Array] | None = None,
    ) -> _Array:
        """Evaluate the map on a lattice, in the axes of the view.

        With `integrals` of powers and of products, the lattice is that of the points.
        Then the factors are scaled such that sums over the points are the coefficients
        that the model has seen: both have errors, and large terms of a model would
        cancel but for these.
        """
        total = np.zeros(tuple(map(len, lattice)))
        sigma, softening = self._transform.sigma, self._transform.softening
        largest_error = 0.0
        # Fields of order 2 come together with those of order 1 that they start from.
        names = sorted(
            self._used,
            key=lambda name: (self._used[name][0].scales[:1], self._used[name][0]),
        )
        n = max(1, _BYTES // (8 * total.size))
        for start in range(0, len(names), n):
            part = names[start : start + n]
            moduli = self._scattering.fields(self._view.structure, lattice, part)
            for name, modulus in zip(part, moduli, strict=True):
                path, factors = self._used[name]
                epsilon = softening * path_peak(path, sigma) if path.degree else 0.0
                root = modulus + epsilon
                squared = modulus * (root + epsilon)
                for e, q in enumerate(self._transform.exponents):
                    if factors[e] == 0:
                        continue
                    values = power(squared, root, modulus, epsilon, q)
                    if integrals is not None and integrals[0][name][e] != 0:
                        ratio = float(np.vdot(values, self.volumes_))
                        ratio /= integrals[0][name][e]
                        largest_error = max(largest_error, abs(ratio - 1))
                        factors[e] /= ratio
                    total += factors[e] * values
        if self._names:
            factors = self._products.factors
            if integrals is not None:
                expected = integrals[1]
                ratios = np.ones_like(expected)
                np.divide(
                    self._integrate_products(lattice),
                    expected,
                    out=ratios,
                    where=(factors != 0) & (expected != 0),
                )
                largest_error = max(largest_error, np.abs(ratios - 1).max())
                factors /= ratios
            for planes, powers in self._powers(lattice):
                values = np.sum((factors @ powers) * powers, axis=(0, 1))
                total[planes] += values.reshape(total[planes].shape)
        if largest_error > _LARGEST_ERROR:
            warnings.warn(
                f"Coefficients differ by up to {largest_error:.1g} from integrals over "
                "the points of the map, which is scaled accordingly. A channel with "
                "weights of both signs, or no softening, has this effect.",
                UserWarning,
                stacklevel=4,
            )
        return total

    def _integrate_products(self, lattice: _Lattice) -> _Array:
        """Integrate products, of shape (n_exponents, n_fields, n_fields)."""
        sums: Any = 0.0
        for planes, powers in self._powers(lattice):
            weighed = powers * self.volumes_[planes].ravel()
            sums = sums + weighed @ powers.swapaxes(1, 2)
        return np.asarray(sums)

    def _powers(self, lattice: _Lattice) -> Iterator[tuple[slice, _Array]]:
        """Compute the powers of fields that are multiplied, some planes at a time.

        Yields
        ------
        planes : slice
        powers : ndarray of shape (n_exponents, n_fields, n_points)
        """
        x, y, z = lattice
        transform, products = self._transform, self._products
        size = 8 * (1 + len(products.halves)) * len(self._names) * len(y) * len(z)
        n = max(1, _BYTES // size)
        for start in range(0, len(x), n):
            planes = slice(start, start + n)
            moduli = self._scattering.fields(
                self._view.structure, (x[planes], y, z), self._names
            )
            powers = np.empty((len(products.halves), len(moduli), moduli[0].size))
            for f, (path, channel) in enumerate(products.fields):
                modulus = moduli[f].ravel()
                epsilon = transform.product_softening(path, channel)
                # Fields of degree 0 come without softening.
                squared = modulus * (modulus + 2 * epsilon * (path.degree > 0))
                root, modulus = soften(squared, epsilon)
                for e, half in enumerate(products.halves):
                    powers[e, f] = power(squared, root, modulus, epsilon, half)
            yield planes, powers

    def _split(self) -> None:
        """Divide the integral of the map among the atoms."""
        positions = self._view.structure.positions
        self.contributions_ = np.zeros(len(positions))
        amounts = self.values_ * self.volumes_
        x, y, z = self._lattice
        for i, of_plane in enumerate(amounts):
            squares = (
                (x[i] - positions[:, 0, None, None]) ** 2
                + (y[:, np.newaxis] - positions[:, 1, None, None]) ** 2
                + (z - positions[:, 2, None, None]) ** 2
            )
            squares -= squares.min(axis=0)
            if self.window > 0:
                shares = np.exp(-squares / (2 * self.window**2))
            else:
                shares = (squares == 0).astype(np.float64)
            shares /= shares.sum(axis=0)
            self.contributions_ += np.tensordot(shares, of_plane, 2)

    def _plot_map(
        self, x: _Array, y: _Array, values: _Array, offset: float | None, per: str
    ) -> None:
        from matplotlib.colors import SymLogNorm

        largest = float(np.abs(values).max()) or 1.0
        image = self.ax_.pcolormesh(
            x,
            y,
            values,
            cmap="RdBu_r",
            norm=SymLogNorm(_LINEAR * largest, vmin=-largest, vmax=largest),
            shading="gouraud",
            rasterized=True,
        )
        self.ax_.set(
            xlabel="x (Å)", ylabel="y (Å)", aspect="equal", title=self._title()
        )
        mark_atoms(self.ax_, self._view.structure, offset)
        unit = f"{self.unit}/{per}" if self.unit else f"1/{per}"
        self.figure_.colorbar(image, ax=self.ax_, label=with_unit("Contribution", unit))

    def _plot_atoms(self) -> None:
        from matplotlib import colormaps

        charges = self._view.structure.charges
        heights = self.contributions_
        colors = colormaps["RdBu_r"](np.where(heights > 0, 0.9, 0.1))
        self.ax_.bar(range(len(heights)), heights, color=colors)
        self.ax_.axhline(0, color="black", lw=0.8)
        self.ax_.set_xticks(
            range(len(heights)), [f"{SYMBOLS[Z]}\n{i}" for i, Z in enumerate(charges)]
        )
        self.ax_.set(
            xlabel="Atom",
            ylabel=with_unit("Contribution", self.unit),
            title=self._title(),
        )

    def _plot_surfaces(self) -> None:
        lattice = regular_lattice(self._view, self._reach, _N_SURFACE)
        values = self._evaluate(lattice)
        level = _LEVEL * float(np.abs(values).max())
        self.figure_ = draw_surfaces(
            self._view.structure,
            lattice,
            values[np.newaxis],
            [[-level, level]],
            [self._title()],
            f"{self.unit}/Å³" if self.unit else None,
        )

    def _title(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        constant = self.intercept_ + self.rest_
        return (
            f"prediction {self.prediction_:.6g}{unit}\n"
            f"map {self.prediction_ - constant:.6g}, constant {constant:.6g}"
        )


def _find_products(
    transform: Transform, factors: _Array, integrals: _Array
) -> tuple[_Products, _Array]:
    """Find the products of fields that a model uses, and their integrals.

    Both arrays are of shape (n_pairs, n_channels, n_exponents).
    """
    n_channels = factors.shape[1]
    exponents = list(transform.kept.of_pairs)
    halves = [transform.exponents[e] / 2 for e in exponents]
    both = {
        (i, c): ((pair.first, c), (pair.second, (c + pair.shift) % n_channels))
        for i, pair in enumerate(transform.pairs)
        for c in range(n_channels)
        if factors[i, c].any()
    }
    fields = sorted({field for pair in both.values() for field in pair})
    found = np.zeros((2, len(halves), len(fields), len(fields)))
    for (i, c), (first, second) in both.items():
        place = fields.index(first), fields.index(second)
        found[0, :, *place] = factors[i, c, exponents]
        found[1, :, *place] = integrals[i, c, exponents]
    return _Products(fields, halves, found[0]), found[1]
