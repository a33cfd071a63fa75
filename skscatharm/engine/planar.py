r"""The planar engine: molecules in a plane, in two dimensions.

A circular harmonic times a Gaussian is a sum of products of a function of x and one of
y, as in :mod:`skscatharm.engine.separable`. So a field of order 1 is a matrix product
over the atoms, and the convolution for order 2 is two, one along each axis.

In two dimensions the calls would take more time than the arithmetic. So molecules of
about the same size share their grids, and are computed together. The grids depend on
the molecule alone, not on the others of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import ceil, floor, log, pi, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine import compiled, portable
from skscatharm.engine.accuracy import (
    DOUBLE,
    SMOOTHING,
    Accuracy,
    exponent_classes,
    weight_classes,
)
from skscatharm.engine.arrays import Library
from skscatharm.engine.compiled import gaussian_factors
from skscatharm.engine.frame import Frame
from skscatharm.engine.pooling import (
    AMPLITUDE,
    FLOOR,
    PowerIntegrals,
    power_scales,
)
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.quadrature import (
    KNEE,
    Axis,
    coarse_rule,
    kink_step,
    stretched_axis,
)
from skscatharm.transform.harmonics import circular_harmonics, wavelet_constant
from skscatharm.transform.modulus import KinkRounding, path_peak
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["PlanarEngine"]

Array = Any  # of the array library that computes
_Array = NDArray[np.float64]

# Values of a field of all molecules that are computed together: on a CPU they stay in
# its cache, and a device is busy with them.
_VALUES = {False: 2**19, True: 2**26}
_LENGTH = 2  # widths of an atom: half of the lengths are multiples of it
_SPACING = 1.1  # ratio of the distances of neighbours that share a grid


class PlanarEngine:
    """Computes molecules of about the same size together.

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
        """Estimate the bytes of the fields of order 1 of a degree."""
        frame = Frame(atoms.positions, atoms.charges)
        size = _Size.of(frame, self.transform.sigma)
        n_values = max(
            self._n_values(size, accuracy) * len(channels)
            for accuracy, channels, _ in self._classes(atoms.weights)
        )
        return 4 * n_values * np.dtype("float64").itemsize

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        transform = self.transform
        Q = np.asarray(transform.exponents)
        found = np.zeros(
            (len(batch), len(transform.paths), len(batch[0].weights), len(Q))
        )
        frames = [Frame(atoms.positions, atoms.charges) for atoms in batch]
        groups: dict[Any, list[int]] = {}
        for i, (atoms, frame) in enumerate(zip(batch, frames, strict=True)):
            size = _Size.of(frame, transform.sigma)
            for accuracy, channels, exponents in self._classes(atoms.weights):
                # The grid of a density that changes sign depends on the molecule.
                alone = i if accuracy.signed else -1
                key = (size, accuracy, tuple(channels), tuple(exponents), alone)
                groups.setdefault(key, []).append(i)
        for (size, accuracy, channels, exponents, _), molecules in groups.items():
            n_values = self._n_values(size, accuracy) * len(channels)
            step = max(1, int(_VALUES[self.library.on_device] / n_values))
            for start in range(0, len(molecules), step):
                part = molecules[start : start + step]
                fields = _Batch(
                    [frames[i].positions[:, :2] for i in part],
                    [batch[i].weights[list(channels)] for i in part],
                    size,
                    accuracy,
                    transform,
                    Q[list(exponents)],
                    self.library,
                )
                where = np.ix_(part, range(len(transform.paths)), channels, exponents)
                found[where] = fields.coefficients()
        return found

    def _classes(
        self, weights: _Array
    ) -> Iterator[tuple[Accuracy, NDArray[np.intp], NDArray[np.intp]]]:
        """Group channels and exponents that share grids, whichever are asked for."""
        Q = np.asarray(self.transform.exponents)
        for softness, signed, channels in weight_classes(
            weights, self.transform.softening
        ):
            # Without atoms in a channel, rounding would be all there is.
            channels = channels[weights[channels].any(axis=1)]
            if len(channels):
                for largest, exponents in exponent_classes(Q):
                    accuracy = Accuracy(
                        self.transform.tol, softness, largest, signed, dimension=2
                    )
                    yield accuracy, channels, exponents

    def _n_values(self, size: "_Size", accuracy: Accuracy) -> float:
        """Estimate the number of points of the largest grid."""
        return max(
            prod(_Grid.fine(size, path, self.transform.sigma, accuracy).shape)
            for path in self.transform.paths
        )


class _Size(NamedTuple):
    """What molecules have in common that share grids, in widths of an atom.

    Attributes
    ----------
    x, y : int
        Half of the lengths.
    spacing : float
        Distance of neighbouring atoms, or less.
    """

    x: int
    y: int
    spacing: float

    @classmethod
    def of(cls, frame: Frame, sigma: float) -> "_Size":
        """Round the lengths of a molecule up, and its spacing down."""
        x, y, _ = (
            _LENGTH * ceil(length / (_LENGTH * sigma)) for length in frame.half_lengths
        )
        spacing = min(frame.spacing / sigma, 1e3)
        return cls(x, y, _SPACING ** floor(log(spacing) / log(_SPACING)))

    def extents(self, unit: float) -> tuple[float, float]:
        """Return half of the lengths in another unit."""
        return self.x * unit, self.y * unit


class _Batch:
    """Molecules that share their grids, and the array library that computes.

    Fields come without what is common to all their points: a power of the scales, the
    units of the weights and the amplitude.
    """

    def __init__(
        self,
        positions: Sequence[_Array],
        weights: Sequence[_Array],
        size: _Size,
        accuracy: Accuracy,
        transform: Transform,
        Q: _Array,
        library: Library,
    ) -> None:
        # Molecules are filled up with atoms of weight zero.
        n_atoms = max(len(r) for r in positions)
        self.positions = np.zeros((len(positions), n_atoms, 2))
        self.weights = np.zeros((len(weights), n_atoms, len(weights[0])))
        for i, (r, w) in enumerate(zip(positions, weights, strict=True)):
            self.positions[i, : len(r)] = r
            self.weights[i, : len(r)] = w.T
        n_present = np.array([len(r) for r in positions])[:, np.newaxis, np.newaxis]
        unit = np.abs(self.weights).max(axis=1, keepdims=True) * n_present
        self.weights *= AMPLITUDE / unit
        self.size = size
        self.accuracy = accuracy
        self.transform = transform
        self.Q = Q
        self.scales = power_scales(Q)
        # Of fields as they are computed, and of those that are raised to powers.
        self.field_unit = unit.reshape(-1, 1) / (2 * pi * AMPLITUDE)
        self.power_unit = self.field_unit / self.scales
        self.xp = library.namespace()
        # Densities of both signs may cancel.
        double = accuracy.exponent > DOUBLE or accuracy.signed
        self.precision = "float64" if double else transform.dtype
        self.dtype = getattr(self.xp, self.precision)
        self.kernels = compiled if is_numpy_namespace(self.xp) else portable
        self.rounding = KinkRounding(Q, accuracy.kink_kernel[0])

    def coefficients(self) -> _Array:
        """Compute all paths, each field of order 1 once.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        paths = self.transform.paths
        found = {}
        for first in {Path(path.scales[:1], path.degree) for path in paths}:
            of_field = [p for p in paths if (p.scales[:1], p.degree) == first]
            # A positive density: Gaussians all the way, of which the modulus changes
            # nothing.
            direct = first.degree == 0 and not self.accuracy.signed
            field = None
            for path in of_field if direct else [first]:
                found[path], field = self.atoms(path)
            for path in of_field:
                if path not in found:
                    assert field is not None
                    found[path] = self.convolution(field, path)
        values = np.stack([found[path] for path in paths], axis=1)
        values = values.reshape(len(self.positions), -1, *values.shape[1:])
        return values.swapaxes(1, 2)

    def atoms(self, path: Path) -> "tuple[_Array, _Field]":
        """Compute the fields of Gaussian atoms, and integrate their powers.

        Returns
        -------
        moments : ndarray of shape (n_molecules * n_channels, n_exponents)
        field : _Field
        """
        xp, degree, sigma = self.xp, path.degree, self.transform.sigma
        width, grid = _width(path, sigma), self._grid(path)
        ratio = sqrt(1 - (sigma / width) ** 2)  # of scale and width
        constant = ratio**degree * width**-2
        terms = [self._factors(path, grid, axis) for axis in (0, 1)]
        if degree == 0 and self.accuracy.signed:
            values, envelope = (
                xp.reshape(xp.matmul(*self._components(0, terms, weights)[0]), (1, -1))
                for weights in (self.weights, np.abs(self.weights))
            )
            kinks = (values, envelope, self._kink_width(width))
            return self._integrate(None, kinks, grid, path, constant)
        components = self._components(degree, terms, self.weights)
        squared = self.kernels.sum_of_squares(components, FLOOR * FLOOR)
        return self._integrate(squared, None, grid, path, constant)

    def convolution(self, field: "_Field", path: Path) -> _Array:
        """Convolve fields with the last wavelets of a path, and integrate powers.

        Returns
        -------
        moments : ndarray of shape (n_molecules * n_channels, n_exponents)
        """
        xp, degree, grid = self.xp, path.degree, self._grid(path)
        accuracy, sigma = self.accuracy, self.transform.sigma
        scale = sigma * 2 ** path.scales[-1]
        first = Path(path.scales[:1], degree)
        coarse = _Grid.coarse(self.size, first, scale, sigma, accuracy)
        smoothing, cut = SMOOTHING * scale, accuracy.smoothing_cut(degree)
        x, y = (
            self._array(matrix)
            for matrix in _smoothing_matrices(
                field.grid, coarse, smoothing, cut, self.precision
            )
        )
        values = xp.reshape(field.modulus, (-1, *field.grid.shape))
        values = xp.matmul(x, xp.matmul(values, y))
        rest = sqrt(scale**2 - smoothing**2)
        constant = field.constant * (scale / rest) ** degree
        along_x, along_y = _wavelet_matrices(
            coarse, grid, rest, degree, accuracy.wavelet_cut(degree), self.precision
        )
        values = xp.matmul(xp.expand_dims(values, axis=1), self._array(along_y))
        values = xp.reshape(values, (values.shape[0], -1, values.shape[3]))
        # Even powers of y come first: those of the real part.
        components, start = [], 0
        for matrix in along_x:
            stop = start + matrix.shape[1]
            components.append((self._array(matrix), values[:, start:stop, :]))
            start = stop
        squared = self.kernels.sum_of_squares(components, FLOOR * FLOOR)
        return self._integrate(squared, None, grid, path, constant)[0]

    def _factors(self, path: Path, grid: "_Grid", axis: int) -> Array:
        """Evaluate powers of distances times Gaussians along an axis.

        Returns
        -------
        array of shape (degree + 1, n_molecules, n_atoms, n_points)
        """
        factors = self.kernels.gaussian_factors(
            self.to_library(self.positions[:, :, axis].ravel()),
            self.to_library(_axes(grid)[axis].points),
            _width(path, self.transform.sigma),
            path.degree,
            self.accuracy.cut(path.degree),
        )
        shape = (path.degree + 1, *self.positions.shape[:2], -1)
        return self._array(self.xp.reshape(factors, shape))

    def _components(
        self, degree: int, factors: Sequence[Array], weights: _Array
    ) -> list[tuple[Array, Array]]:
        """Write real and imaginary part of fields as matrix products over the atoms."""
        xp, (x, y) = self.xp, factors
        constant = 2 * pi * wavelet_constant(degree, dimension=2)
        w = self._array(constant * weights[..., np.newaxis])
        components = []
        for harmonic in _parts(degree):
            left = [
                p * w * xp.expand_dims(x[a, ...], axis=2)
                for (a, _), p in harmonic.items()
            ]
            right = [y[b, ...] for _, b in harmonic]
            n_inner = len(harmonic) * w.shape[1]
            rows = xp.reshape(xp.stack(left, axis=1), (len(w), n_inner, -1))
            columns = xp.reshape(xp.stack(right, axis=1), (len(w), n_inner, -1))
            components.append((xp.matrix_transpose(rows), columns))
        return components

    def _integrate(
        self,
        squared: Array | None,
        kinks: tuple[Array, Array, float] | None,
        grid: "_Grid",
        path: Path,
        constant: float,
    ) -> "tuple[_Array, _Field]":
        """Integrate the powers of the moduli of fields."""
        xp = self.xp
        weights = self._array(_weights(grid, self.precision))
        epsilon = np.zeros(len(self.field_unit))
        if path.degree:
            peak = path_peak(path, self.transform.sigma, dimension=2)
            epsilon = (
                self.transform.softening * peak / (self.field_unit[:, 0] * constant)
            )
        powers = (self.Q, epsilon, self.rounding, self.kernels, xp)
        integrals = PowerIntegrals(*powers, scales=self.scales, weights=np.ones(1))
        if kinks is not None:
            modulus = integrals.add_rounded(*kinks, weights)
        else:
            squared = xp.reshape(squared, (-1, weights.shape[0]))
            modulus = integrals.add(squared, weights)
        moments = (self.power_unit * constant) ** self.Q * integrals.total()
        return moments, _Field(modulus, grid, constant)

    def _kink_width(self, width: float) -> float:
        """Width of the kernel for a density that changes sign, which is alone here."""
        return self.accuracy.kink_width(self.positions[0], self.weights[0, :, 0], width)

    def _grid(self, path: Path) -> "_Grid":
        """Make the grid of a field."""
        sigma, accuracy = self.transform.sigma, self.accuracy
        grid = _Grid.fine(self.size, path, sigma, accuracy)
        if path.degree == 0 and accuracy.signed and len(path.scales) < 2:
            width, weights = _width(path, sigma), self.weights[0, :, 0]
            kinks = self._kink_width(width)
            step = kink_step(self.positions[0], weights, width, kinks, accuracy)
            grid = grid._replace(step=step, outer=step)
        return grid

    def to_library(self, values: _Array) -> Array:
        """Move an array to where the fields are computed, in double precision."""
        return self.xp.asarray(values)

    def _array(self, values: Any) -> Array:
        """Move an array to where the fields are computed, in their precision."""
        return self.xp.asarray(values, dtype=self.dtype)


class _Grid(NamedTuple):
    """A grid around the origin, as the arguments of
    :func:`~skscatharm.engine.quadrature.stretched_axis`.

    Attributes
    ----------
    extents : (float, float)
        Half of the lengths of the molecules along x and y, in widths.
    width : float
    step, margin, outer, knee, sharpness : float
    """

    extents: tuple[float, float]
    width: float
    step: float
    margin: float
    outer: float
    knee: float
    sharpness: float

    @classmethod
    @lru_cache(maxsize=4096)
    def fine(cls, size: _Size, path: Path, sigma: float, accuracy: Accuracy) -> "_Grid":
        """Make the grid on which the modulus of a field is integrated."""
        width, degree = _width(path, sigma), path.degree
        order, crowding = max(1, len(path.scales)), size.spacing * sigma / width
        return cls(
            size.extents(sigma / width),
            width,
            accuracy.step(order, degree, crowding),
            accuracy.margin(degree),
            accuracy.outer_step(order, degree, crowding),
            KNEE + sqrt(max(degree, 1)),
            accuracy.sharpness,
        )

    @classmethod
    def coarse(
        cls,
        size: _Size,
        path: Path,
        scale: float,
        sigma: float,
        accuracy: Accuracy,
    ) -> "_Grid":
        """Make the grid of fields that are smoothed for wavelets of a scale."""
        width, degree = _width(path, sigma), path.degree
        step, margin, width = coarse_rule(width, scale, degree, accuracy)
        return cls(size.extents(sigma / width), width, step, margin, step, KNEE, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of points along x and y."""
        x, y = (len(axis.points) for axis in _axes(self))
        return x, y


@lru_cache(maxsize=512)
def _axes(grid: _Grid) -> tuple[Axis, Axis]:
    x, y = (Axis(*stretched_axis(extent, *grid[1:])) for extent in grid.extents)
    return x, y


@lru_cache(maxsize=512)
def _weights(grid: _Grid, dtype: str) -> NDArray[Any]:
    """Weights of all points as a quadrature rule."""
    x, y = _axes(grid)
    return np.outer(x.weights, y.weights).ravel().astype(dtype)


class _Field(NamedTuple):
    """Moduli of order 1.

    Attributes
    ----------
    modulus : array of shape (n_molecules * n_channels, n_points)
    grid : _Grid
    constant : float
        Common factor that was left out.
    """

    modulus: Array
    grid: _Grid
    constant: float


def _width(path: Path, sigma: float) -> float:
    """Width of a field: that of an atom, and of all wavelets it has met."""
    return sigma * sqrt(1 + sum(4**j for j in path.scales))


def _parts(degree: int) -> list[Mapping[tuple[int, int], float]]:
    """Return real and imaginary part of a harmonic; of degree 0, there is one."""
    return [part for part in circular_harmonics(degree) if part]


@lru_cache(maxsize=512)
def _smoothing_matrices(
    grid: _Grid, to: _Grid, width: float, cut: float, dtype: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make the matrices that convolve with a Gaussian, from a grid to another.

    Returns
    -------
    along_x : ndarray of shape (n_x of the result, n_x)
    along_y : ndarray of shape (n_y, n_y of the result)
    """
    x, y = (
        gaussian_factors(new.points, axis.points, width, 0, cut)[0]
        * (axis.weights / (sqrt(2 * pi) * width))
        for new, axis in zip(_axes(to), _axes(grid), strict=True)
    )
    return x.astype(dtype), np.ascontiguousarray(y.T.astype(dtype))


@lru_cache(maxsize=512)
def _wavelet_matrices(
    grid: _Grid, to: _Grid, scale: float, degree: int, cut: float, dtype: str
) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Make the matrices that convolve with wavelets, from a grid to another.

    Returns
    -------
    along_x : list of ndarray of shape (n_x of the result, n_powers * n_x)
        For real and imaginary part, matrices to apply after those along y.
    along_y : ndarray of shape (degree + 1, n_y, n_y of the result)
        Matrices for each power of y: those of the real part first.
    """
    x, y = (
        gaussian_factors(new.points, axis.points, scale, degree, cut)
        * (axis.weights / scale)
        for new, axis in zip(_axes(to), _axes(grid), strict=True)
    )
    constant = wavelet_constant(degree, dimension=2)
    parts = _parts(degree)
    along_x = [
        np.concatenate([constant * p * x[a] for (a, _), p in part.items()], axis=1)
        for part in parts
    ]
    along_y = np.stack([y[b].T for part in parts for _, b in part])
    return [matrix.astype(dtype) for matrix in along_x], along_y.astype(dtype)
