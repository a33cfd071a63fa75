r"""The separable engine: fields as sums of products of one-dimensional factors.

A solid harmonic times a Gaussian is a short sum of products of a function of x, one of
y and one of z. So the field of a molecule on a tensor grid is a matrix product, with
the atoms as the inner index; and the convolution of a field on a grid is three, one
along each axis. No density is put on a grid, and nothing is transformed.

The convolution of the Gaussian of an atom, of width :math:`\sigma`, with the wavelet
of scale s is :math:`(s / t)^l` times the wavelet of scale
:math:`t = (\sigma^2 + s^2)^{1/2}`, which gives the fields of order 1 at any point. And
the wavelet of scale s is :math:`(s / r)^l` times the wavelet of scale
:math:`r = (s^2 - \tau^2)^{1/2}` convolved with a Gaussian of width :math:`\tau`. With
this, order 2 goes from the fine grid that the modulus of order 1 needs to a coarse one,
which is enough for the convolution.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import compress
from math import hypot, inf, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine.accuracy import (
    DOUBLE,
    SMOOTHING,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library
from skscatharm.engine.fields import (
    AtomAdjoint,
    AtomFields,
    ConvolutionAdjoint,
    ConvolvedFields,
    Densities,
    Smooth,
    SmoothTile,
)
from skscatharm.engine.frame import Frame
from skscatharm.engine.integrals import FAR, Powers
from skscatharm.engine.points import Points
from skscatharm.engine.pooling import (
    AMPLITUDE,
    FLOOR,
    Block,
    PowerDerivatives,
    PowerIntegrals,
    WindowIntegrals,
    Windows,
    WindowsOnTile,
    power_scales,
)
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import (
    Grid,
    body_centred_grid,
    coarse_points,
    fine_grid,
    kink_grid,
)
from skscatharm.engine.tiles import Tile, cut_into_tiles
from skscatharm.transform.modulus import KinkRounding, path_peak, soften
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["SeparableEngine"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

# Values of a field, and derivatives, worked on at a time, so that they stay in cache.
_BLOCK, _SWEEP_BLOCK = 2**15, 2**16
_ALL = slice(None)
_OF_DENSITIES = 0.03  # tolerance of their derivatives


class SeparableEngine:
    """Computes molecules one by one, each on grids of its own.

    Parameters
    ----------
    transform : Transform
        What to compute.
    library : Library
        The array library that computes, and where.
    """

    def __init__(self, transform: Transform, library: Library) -> None:
        self.transform = transform
        self.library = library

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes of the largest array that a molecule needs.

        It holds the fields of order 1, at scale 0, on their way to order 2.
        """
        transform = self.transform
        degrees = [p.degree for p in transform.paths if len(p.scales) == 2]
        if not degrees:
            return 0.0
        frame = Frame(atoms.positions, atoms.charges, reference=atoms.reference)
        sigma, accuracy = transform.sigma, Accuracy(transform.tol)
        points = coarse_points(
            frame.half_lengths, sqrt(2) * sigma, 2 * sigma, max(degrees), accuracy
        )
        fields = len(atoms.weights) * float(np.prod(points))
        return fields * np.dtype(transform.dtype).itemsize

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        return self._coefficients(batch, [self._parts(atoms) for atoms in batch])

    def _coefficients(
        self,
        batch: Sequence[Atoms],
        parts: "Sequence[Iterable[tuple[Any, _Molecule]]]",
        keep: bool = False,
    ) -> _Array:
        found = np.zeros(self._shape(batch))
        for i, (atoms, of_molecule) in enumerate(zip(batch, parts, strict=True)):
            for where, molecule in of_molecule:
                found[i][where] = molecule.coefficients(keep)
            if atoms.reference is not None:
                # On the grids of their derivatives, so that these are exact.
                for where, molecule in self._parts(atoms, densities=True):
                    found[i][where] = molecule.coefficients()
        return found

    def windowed(
        self, batch: Sequence[Atoms], groups: Sequence[_Array]
    ) -> list[_Array]:
        """Integrate powers of fields times the windows of the transform.

        Parameters
        ----------
        batch : sequence of Atoms
        groups : sequence of ndarray of shape (n_groups, n_atoms)
            For each molecule, as in :class:`~skscatharm.engine.pooling.Windows`.

        Returns
        -------
        list of ndarray of shape (n_groups, n_paths, n_channels, n_exponents)
        """
        found, width = [], self.transform.window
        assert width is not None
        for atoms, of_molecule in zip(batch, groups, strict=True):
            found.append(np.zeros((len(of_molecule), *self._shape([atoms])[1:])))
            for where, molecule in self._parts(atoms, window=width):
                molecule.windows = Windows(molecule.frame.positions, width, of_molecule)
                for row, values in zip(found[-1], molecule.coefficients(), strict=True):
                    row[where] = values
        return found

    def jacobian(self, batch: Sequence[Atoms]) -> list[_Array]:
        """Differentiate the coefficients of molecules.

        Returns
        -------
        list of ndarray of shape (n_paths, n_channels, n_exponents, n_atoms, 3)
        """
        _, *shape = self._shape(batch)
        found = []
        for atoms in batch:
            found.append(np.zeros((*shape, *atoms.positions.shape)))
            parts = [*self._parts(atoms), *self._parts(atoms, densities=True)]
            for where, molecule in parts:
                found[-1][where] = molecule.jacobian()
        return found

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[_Array]
    ) -> list[_Array]:
        """Differentiate weighted sums of the coefficients of molecules.

        `weights` are of shape (n_paths, n_channels, n_exponents).

        Returns
        -------
        list of ndarray of shape (n_atoms, 3)
        """
        return [
            self._gradient(atoms, list(self._parts(atoms)), of_molecule)
            for atoms, of_molecule in zip(batch, weights, strict=True)
        ]

    def _gradient(
        self, atoms: Atoms, parts: "list[tuple[Any, _Molecule]]", weights: _Array
    ) -> _Array:
        order_0 = [not path.scales for path in self.transform.paths]
        others = weights.copy()
        others[order_0] = 0
        found = np.zeros_like(atoms.positions)
        for where, molecule in parts:
            found += molecule.gradient(others[where])
        for where, molecule in self._parts(atoms, densities=True):
            found += molecule.gradient(weights[where])
        return found

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[_Array]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments and results are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        parts = [list(self._parts(atoms)) for atoms in batch]
        coefficients = self._coefficients(batch, parts, keep=True)
        gradients = [
            self._gradient(atoms, of_molecule, weights)
            for atoms, of_molecule, weights in zip(
                batch, parts, weigh(coefficients), strict=True
            )
        ]
        return coefficients, gradients

    def fields(
        self, atoms: Atoms, points: Points, components: bool = False
    ) -> dict[Path, _Array]:
        """Compute the fields of all paths at points.

        Parameters
        ----------
        atoms : Atoms
        points : Points
            In the coordinates of the atoms.
        components : bool, default=False
            Whether to return the components in place of their softened modulus.

        Returns
        -------
        dict of ndarray of shape (n_channels, *shape of the points)
            For each path. With `components`, of shape (2 * degree + 1, n_channels,
            *shape of the points).
        """
        transform, found = self.transform, {}
        for path in transform.paths:
            orders = (2 * path.degree + 1,) if components else ()
            found[path] = np.zeros((*orders, len(atoms.weights), *points.shape))
        # The axes stay: turned into those of the molecule, a lattice would be none.
        for (_, channels, _), molecule in self._parts(atoms, turn=False):
            for path, part, values in molecule.fields(points):
                if not components:
                    softening = transform.softening if path.degree else 0.0
                    epsilon = softening * path_peak(path, transform.sigma)
                    values = soften((values**2).sum(axis=0), epsilon)[1]
                found[path][(..., channels.ravel(), *part)] = values
        return found

    def reach(self) -> float:
        """Return how far from an atom its density has an effect on fields."""
        accuracy, sigma = Accuracy(self.transform.tol), self.transform.sigma
        reaches = []
        for scales, degree in self.transform.paths:
            widths = [sigma * 2**j for j in scales]
            reaches.append(accuracy.cut(degree) * hypot(sigma, *widths[:1]))
            reaches[-1] += sum(accuracy.wavelet_cut(degree) * s for s in widths[1:])
        return max(reaches)

    def _shape(self, batch: Sequence[Atoms]) -> tuple[int, int, int, int]:
        n_paths, n_exponents = len(self.transform.paths), len(self.transform.exponents)
        return len(batch), n_paths, len(batch[0].weights), n_exponents

    def _parts(
        self,
        atoms: Atoms,
        densities: bool = False,
        turn: bool = True,
        window: float = inf,
    ) -> "Iterator[tuple[Any, _Molecule]]":
        """Yield what shares its grids, and where it stands among the coefficients.

        The integrals of high powers of densities hardly depend on the positions: for
        their derivatives, `densities` are integrated apart, and more exactly. Unless
        `turn`, the axes of the molecule stay those of its coordinates. Grids sample
        windows of the width `window`.
        """
        transform = self.transform
        chosen = [not densities or not path.scales for path in transform.paths]
        indices = np.flatnonzero(chosen)
        chosen_transform = replace(
            transform, paths=tuple(compress(transform.paths, chosen))
        )
        Q = np.asarray(transform.exponents)
        frame = Frame(atoms.positions, atoms.charges, turn, atoms.reference)
        for softness, signed, channels in weight_classes(
            atoms.weights, transform.softening
        ):
            # Without atoms in a channel, rounding would be all there is.
            channels = channels[atoms.weights[channels].any(axis=1)]
            if len(channels) == 0 or len(indices) == 0:
                continue
            for largest, exponents in exponent_classes(Q):
                # Densities of both signs may cancel.
                double = largest > DOUBLE or signed or densities
                exact = densities and not signed
                tol = transform.tol * (_OF_DENSITIES if exact else 1)
                molecule = _Molecule(
                    frame,
                    atoms.weights[channels],
                    Q[exponents],
                    Accuracy(
                        tol,
                        softness,
                        largest,
                        signed,
                        window=window,
                        smooth=frame.is_lattice,
                    ),
                    chosen_transform,
                    self.library.namespace(),
                    "float64" if double else transform.dtype,
                )
                yield np.ix_(indices, channels, exponents), molecule


class _Second(NamedTuple):
    """A field of order 2: the modulus of a first field, convolved with wavelets.

    Attributes
    ----------
    path : Path
    width : float
        Width of the field.
    constant : float
        Factor that is common to all of its points, but for the units of the weights.
    """

    path: Path
    width: float
    constant: float


class _First(NamedTuple):
    """A field of atoms, and the fields of order 2 that start from it.

    The attributes are those of :class:`_Second`. Without a change of sign, fields of
    degree 0 are Gaussians all the way, and there is nothing for the modulus to change:
    then they are fields of atoms on all paths.
    """

    path: Path
    width: float
    constant: float
    seconds: tuple[_Second, ...] = ()


def _plan(paths: Sequence[Path], sigma: float, signed: bool) -> list[_First]:
    """List the fields of the paths, each of order 1 once."""

    def width(scales: Sequence[int]) -> float:
        return hypot(sigma, *(sigma * 2**j for j in scales))

    plan = [
        _First(path, width(path.scales), width(path.scales) ** -3)
        for path in paths
        if path.degree == 0 and (not path.scales or not signed)
    ]
    for j1, degree in sorted({(p.scales[0], p.degree) for p in paths if p.scales}):
        if degree == 0 and not signed:
            continue
        width1 = width((j1,))
        constant = (sigma * 2**j1 / width1) ** degree * width1**-3
        growth = (1 - SMOOTHING**2) ** (-degree / 2)
        seconds = tuple(
            _Second(path, width(path.scales), constant * growth)
            for path in sorted(paths)
            if path.degree == degree and path.scales[:-1] == (j1,)
        )
        plan.append(_First(Path((j1,), degree), width1, constant, seconds))
    return plan


class _Molecule:
    """A molecule whose coefficients share their grids.

    Fields come without what is common to all their points: a power of the scales, the
    units of the weights and the amplitude.
    """

    def __init__(
        self,
        frame: Frame,
        weights: _Array,
        Q: _Array,
        accuracy: Accuracy,
        transform: Transform,
        xp: Any,
        dtype: str,
    ) -> None:
        unit = np.abs(weights).max(axis=1, keepdims=True) * weights.shape[1]
        self.frame = frame
        self.densities = Densities(
            frame, weights / unit * AMPLITUDE, accuracy, xp, dtype
        )
        self.accuracy = accuracy
        self.paths = transform.paths
        self.sigma = transform.sigma
        self.softening = transform.softening
        self.plan = _plan(self.paths, self.sigma, accuracy.signed)
        self.Q = Q
        self.scales = power_scales(Q)
        # Of fields whose largest value is about 1, of fields as they are computed, and
        # of those that are raised to powers.
        self.peak_unit = unit * (2 * pi) ** -1.5
        self.field_unit = self.peak_unit / AMPLITUDE
        self.power_unit = self.field_unit / self.scales
        self.rounding = KinkRounding(Q, accuracy.kink_kernel[0])
        #: Windows that fields are integrated with; None are integrals over all space.
        self.windows: Windows | None = None
        self._kept: dict[Path, dict[int, Smooth]] = {}

    def coefficients(self, keep: bool = False) -> _Array:
        """Compute all paths; keep the smooth fields for derivatives.

        Returns
        -------
        ndarray of shape (n_paths, n_channels, n_exponents)
            With windows, of shape (n_groups, n_paths, n_channels, n_exponents).
        """
        found = {}
        for first in self.plan:
            moments, levels = self.atoms(first)
            if keep:
                self._kept[first.path] = levels
            found[first.path] = self._scaled(moments, first)
            for second in first.seconds:
                moments = self.convolution(levels[second.path.scales[1]], second)
                found[second.path] = self._scaled(moments, second)
        return np.stack([found[path] for path in self.paths], axis=-3)

    def jacobian(self) -> _Array:
        """Differentiate all paths.

        Returns
        -------
        ndarray of shape (n_paths, n_channels, n_exponents, n_atoms, 3)
        """
        found = {}
        # One sweep for each exponent.
        each = np.repeat(np.eye(len(self.Q))[:, np.newaxis], len(self.peak_unit), 1)
        for first in self.plan:
            if first.path in self.paths:
                found[first.path] = self.atoms_back(first, each)
            levels = self.atoms(first)[1] if first.seconds else {}
            for second in first.seconds:
                onto = self.convolutions_back(levels, {second: each})
                found[second.path] = self.atoms_back(first, np.zeros_like(each), onto)
        # Sweeps are exponents.
        return np.stack([found[path].swapaxes(0, 1) for path in self.paths])

    def gradient(self, weights: _Array) -> _Array:
        """Differentiate the sum of all paths with weights.

        `weights` are of shape (n_paths, n_channels, n_exponents).

        Returns
        -------
        ndarray of shape (n_atoms, 3)
        """
        total = np.zeros_like(self.frame.positions)
        of_path = {p: w[np.newaxis] for p, w in zip(self.paths, weights, strict=True)}
        for first in self.plan:
            onto = None
            if first.seconds:
                levels = self._kept.get(first.path) or self.atoms(first)[1]
                onto = self.convolutions_back(
                    levels, {second: of_path[second.path] for second in first.seconds}
                )
            # A field of order 1 may be there for others alone.
            factors = of_path.get(first.path, np.zeros((1, *weights.shape[1:])))
            if onto is None and not factors.any():
                continue
            total += self.atoms_back(first, factors, onto)[0].sum(axis=0)
        return total

    def fields(self, points: Points) -> "Iterator[tuple[Path, Any, _Array]]":
        """Compute the fields of all paths at points.

        Yields
        ------
        Path
        tuple of slice
            Where the points of this part are.
        ndarray of shape (2 * degree + 1, n_channels, *shape of these points)
            The components, in the unit of the weights per cubic unit of length.
        """
        points = points.seen_from(self.frame.centre)
        unit = self.field_unit[:, 0].reshape(-1, *[1] * len(points.shape))
        for first in self.plan:
            path = first.path
            if path in self.paths:
                for part, values in points.atom_fields(
                    self.densities, path.degree, first.width
                ):
                    yield path, part, unit * first.constant * values
            levels = self.atoms(first)[1] if first.seconds else {}
            for second in first.seconds:
                path = second.path
                for part, values in points.convolved_fields(
                    levels[path.scales[1]], path.degree, self._left_scale(second)
                ):
                    yield path, part, unit * second.constant * values

    def atoms(self, first: _First) -> tuple[_Array, dict[int, Smooth]]:
        """Integrate the moduli of the fields of the atoms, and smooth them for order 2.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
            Integrals of the powers of the moduli; with windows, one for each group.
        levels : dict
            The moduli convolved with Gaussians, by the index of the scale of the
            wavelets that contain them.
        """
        moments = self._no_moments()
        smooth = self._smooth(first) if first.seconds else None
        for tile, fields in self._atom_tiles(first):
            part = None if smooth is None else SmoothTile(smooth, tile)
            if fields.kinks is None and self._in_one_pass(first):
                near = self._windows_near(first, tile)
                moments += fields.integrate(self._one_pass(first), part, near)
                continue
            x, y, z = tile.axes
            columns = (x.points[tile.rows], y.points[tile.columns])
            windows = self._windows_on(first, tile, (2, 0, 1), columns)
            integrals = self._integrals(first, _ALL, z.weights, windows)
            layers = []
            for block in fields.blocks(_BLOCK):
                modulus = self._add(integrals, block)
                if part is not None:
                    layers.append(part.along_z(modulus))
            if part is not None:
                part.add_columns(layers)
            moments += integrals.total()
        levels = {}
        if smooth is not None:
            lowest = first.path.scales[0] + 1
            levels[lowest] = smooth
            for j in range(lowest, first.seconds[-1].path.scales[1]):
                levels[j + 1] = levels[j].coarser()
        return moments, levels

    def atoms_back(
        self,
        first: _First,
        factors: _Array,
        onto: tuple[Smooth, Array] | None = None,
    ) -> _Array:
        """Differentiate sums of moments of the fields of the atoms.

        Parameters
        ----------
        first : _First
        factors : ndarray of shape (n_sweeps, n_channels, n_exponents)
            Factors of the moments.
        onto : (Smooth, array of shape (n_sweeps, n_x, n_channels, n_y, n_z)) or None
            Derivatives with respect to the smooth moduli, which are added.

        Returns
        -------
        ndarray of shape (n_sweeps, n_channels, n_atoms, 3)
        """
        n_sweeps = len(factors)
        total = np.zeros((n_sweeps, *self.densities.weights.shape, 3))
        for tile, fields in self._atom_tiles(first):
            derivatives = self._derivatives(first, _ALL, tile.axes[2].weights, factors)
            adjoint = AtomAdjoint(fields, n_sweeps)
            on = onto and SmoothTile(onto[0], tile).back(onto[1])
            for block in fields.blocks(_SWEEP_BLOCK // n_sweeps):
                modulus = on and on(block.part)
                adjoint.add(block, derivatives.of(block, modulus))
            total[:, :, tile.atoms] += adjoint.total()
        return total / AMPLITUDE @ self.frame.rotation.T

    def convolution(self, smooth: Smooth, second: _Second) -> _Array:
        """Integrate the moduli of smooth fields convolved with wavelets.

        Returns
        -------
        moments : ndarray of shape (n_channels, n_exponents)
            With windows, of shape (n_groups, n_channels, n_exponents).
        """
        moments = self._no_moments()
        for tile, fields in self._convolved_tiles(smooth, second):
            if self._in_one_pass(second):
                moments += fields.integrate(self._one_pass(second))
                continue
            x, y, z = tile.axes
            columns = [
                c.ravel() for c in np.meshgrid(y.points, z.points, indexing="ij")
            ]
            windows = self._windows_on(second, tile, (0, 1, 2), columns)
            channels, blocks = zip(*fields.blocks(_BLOCK), strict=True)
            integrals = [
                self._integrals(second, channel, x.weights, windows)
                for channel in channels
            ]
            # The channels share the windows on a block.
            for of_channels in zip(*blocks, strict=True):
                for integral, block in zip(integrals, of_channels, strict=True):
                    self._add(integral, block)
            for channel, integral in zip(channels, integrals, strict=True):
                moments[..., channel, :] += integral.total()
        return moments

    def convolutions_back(
        self, levels: dict[int, Smooth], factors: dict[_Second, _Array]
    ) -> tuple[Smooth, Array]:
        """Differentiate sums of moments of order 2 with respect to smooth fields.

        Parameters
        ----------
        levels : dict
            From :meth:`atoms`.
        factors : dict of ndarray of shape (n_sweeps, n_channels, n_exponents)
            Factors of the moments of each path.

        Returns
        -------
        Smooth
            The finest of the fields.
        array of shape (n_sweeps, n_x, n_channels, n_y, n_z)
        """
        of_level = {s.path.scales[1]: (s, f) for s, f in factors.items()}
        (n_sweeps,) = {len(f) for f in factors.values()}
        derivatives: Any = None
        for j in range(max(of_level), min(levels) - 1, -1):
            smooth = levels[j]
            if derivatives is None:
                derivatives = smooth.zeros(n_sweeps)
            else:
                derivatives = smooth.finer(derivatives, levels[j + 1])
            if j in of_level:
                self._convolution_back(smooth, *of_level[j], derivatives)
        return smooth, derivatives

    def _convolution_back(
        self, smooth: Smooth, second: _Second, factors: _Array, derivatives: Array
    ) -> None:
        n_sweeps = len(factors)
        for tile, fields in self._convolved_tiles(smooth, second):
            wx = tile.axes[0].weights
            adjoint = ConvolutionAdjoint(fields, derivatives)
            for channel, blocks in fields.blocks(_SWEEP_BLOCK // n_sweeps):
                of_channel = self._derivatives(second, channel, wx, factors)
                for block in blocks:
                    adjoint.add(of_channel.of(block, None))
                adjoint.finish(channel)

    def _smooth(self, first: _First) -> Smooth:
        j, degree = first.path.scales[0], first.path.degree
        return Smooth(self.densities, first.width, self.sigma * 2 ** (j + 1), degree)

    def _atom_tiles(self, first: _First) -> Iterator[tuple[Tile, AtomFields]]:
        degree, width, accuracy = first.path.degree, first.width, self.accuracy
        kinks = None
        if degree == 0 and accuracy.signed:
            (weights,) = self.densities.weights
            kinks = accuracy.kink_width(self.frame.positions, weights, width)
            grids = [kink_grid(self.frame, weights, width, kinks, accuracy)]
        else:
            grids = [*body_centred_grid(self.frame, width, 1, degree, accuracy)]
        for tile in self._tiles(grids, degree, width):
            yield tile, AtomFields(self.densities, tile, degree, width, kinks)

    def _convolved_tiles(
        self, smooth: Smooth, second: _Second
    ) -> Iterator[tuple[Tile, ConvolvedFields]]:
        degree, width = second.path.degree, second.width
        scale = self._left_scale(second)
        grid = fine_grid(self.frame, width, 2, degree, self.accuracy)
        for tile in self._tiles([grid], degree, width):
            yield tile, ConvolvedFields(smooth, tile, degree, scale)

    def _left_scale(self, second: _Second) -> float:
        """Scale of the wavelet without the Gaussian that has smoothed the field."""
        scale: float = self.sigma * 2 ** second.path.scales[1]
        return scale * sqrt(1 - SMOOTHING**2)

    def _tiles(
        self, grids: Sequence[Grid], degree: int, width: float
    ) -> Iterator[Tile]:
        reach = self._reach(degree, width)
        for grid in grids:
            yield from cut_into_tiles(grid, self.frame.positions, reach)

    def _reach(self, degree: int, width: float) -> float:
        """Distance from the atoms up to which fields are integrated."""
        return self.accuracy.margin(degree) * width

    def _epsilon(self, field: _First | _Second) -> _Array:
        """Softening of the moduli of each channel."""
        if field.path.degree == 0:
            return np.zeros(len(self.densities.weights))
        peak = path_peak(field.path, self.sigma)
        epsilon: _Array = (
            self.softening * peak / (self.field_unit[:, 0] * field.constant)
        )
        return epsilon

    def _scaled(self, moments: _Array, field: _First | _Second) -> _Array:
        """Give moments their units."""
        scaled: _Array = (self.power_unit * field.constant) ** self.Q * moments
        return scaled

    def _powers(self, field: _First | _Second, channels: slice, n: int) -> Any:
        """What all poolings need, for rows that are channels by n points."""
        epsilon = np.repeat(self._epsilon(field)[channels], n)
        kernels, xp = self.densities.kernels, self.densities.xp
        return self.Q, epsilon, self.rounding, kernels, xp

    def _in_one_pass(self, field: _First | _Second) -> bool:
        """Whether compiled loops compute and integrate the fields in one pass."""
        if self.windows is not None:
            reach = self._reach(field.path.degree, field.width)
            if isinstance(field, _Second) or reach > FAR * self.windows.width:
                return False
        return is_numpy_namespace(self.densities.xp)

    def _one_pass(self, field: _First | _Second) -> Powers:
        return Powers(self.Q, self.scales, self._epsilon(field), FLOOR**2)

    def _no_moments(self) -> _Array:
        groups = () if self.windows is None else (len(self.windows.groups),)
        return np.zeros((*groups, len(self.densities.weights), len(self.Q)))

    def _windows_near(self, field: _First | _Second, tile: Tile) -> Windows | None:
        if self.windows is None:
            return None
        reach = self._reach(field.path.degree, field.width)
        return self.windows.near(tile.axes, reach)

    def _windows_on(
        self,
        field: _First | _Second,
        tile: Tile,
        axes: tuple[int, int, int],
        columns: Sequence[_Array],
    ) -> WindowsOnTile | None:
        """Take windows to a tile: `axes` are those of its rows, and of its columns."""
        near = self._windows_near(field, tile)
        if near is None:
            return None
        rows = tile.axes[axes[0]]
        array = self.densities.array
        return WindowsOnTile(near, rows.points, columns, axes, rows.weights, array)

    def _integrals(
        self,
        field: _First | _Second,
        channels: slice,
        weights: _Array,
        windows: WindowsOnTile | None,
    ) -> PowerIntegrals | WindowIntegrals:
        """Make integrals; rows are channels by points of a weight."""
        powers = self._powers(field, channels, len(weights))
        if windows is None:
            return PowerIntegrals(*powers, scales=self.scales, weights=weights)
        return WindowIntegrals(*powers, scales=self.scales, windows=windows)

    def _add(self, integrals: PowerIntegrals | WindowIntegrals, block: Block) -> Array:
        """Add the integrals over a block, and return the modulus on it."""
        kernels = self.densities.kernels
        if block.kinks is None:
            squared = kernels.sum_of_squares(block.components, FLOOR**2)
            return integrals.add(squared, block.weights)
        density, envelope = kernels.products(block.components)
        return integrals.add_rounded(density, envelope, block.kinks, block.weights)

    def _derivatives(
        self,
        field: _First | _Second,
        channels: slice,
        weights: _Array,
        factors: _Array,
    ) -> PowerDerivatives:
        """Differentiate moments with factors; rows are channels by points of a weight.

        `factors` are of shape (n_sweeps, n_channels, n_exponents).
        """
        units = (self.peak_unit * field.constant) ** self.Q
        of_rows = np.moveaxis((factors * units)[:, channels], 2, 1)[..., np.newaxis]
        of_rows = (of_rows * weights).reshape(len(factors), len(self.Q), -1)
        return PowerDerivatives(
            *self._powers(field, channels, len(weights)),
            factors=self.densities.array(of_rows),
            peak=AMPLITUDE,
        )
