r"""Fields on tiles of a grid, and the way back from fields to their sources.

The components of a field are linear functions of a source, computed as matrix products
along the axes. Each of these maps stands beside its adjoint, which takes derivatives
with respect to the components back to the source:

- :class:`AtomFields` start from the atoms. The adjoint ends at their positions, as
  the derivative of a factor is a factor again.
- :class:`Smooth` fields are fields convolved with a Gaussian, on a coarse grid.
- :class:`ConvolvedFields` are smooth fields convolved with wavelets.

Derivatives come in sweeps: several at a time, of several functions of the same fields.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import pi, sqrt
from typing import Any

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine import compiled, portable
from skscatharm.engine.accuracy import SMOOTHING, Accuracy
from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.compiled import gaussian_factors
from skscatharm.engine.convolutions import integrate_convolutions
from skscatharm.engine.frame import Frame
from skscatharm.engine.integrals import Powers, integrate_atoms
from skscatharm.engine.pooling import FLOOR, Block, Windows
from skscatharm.engine.quadrature import Axis, coarse_grid
from skscatharm.engine.tiles import Tile, cut, cut_grid, window
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant

__all__ = [
    "AtomAdjoint",
    "AtomFields",
    "ConvolutionAdjoint",
    "ConvolvedFields",
    "Densities",
    "Smooth",
    "SmoothTile",
]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes


class Densities:
    """The densities of a molecule, and the array library that computes their fields.

    Parameters
    ----------
    frame : Frame
    weights : ndarray of shape (n_channels, n_atoms)
        Weights of the atoms, in the units of the fields.
    accuracy : Accuracy
    xp : module
        Namespace of the array library.
    dtype : {"float32", "float64"}
    """

    def __init__(
        self, frame: Frame, weights: _Array, accuracy: Accuracy, xp: Any, dtype: str
    ) -> None:
        self.frame = frame
        self.weights = weights
        self.accuracy = accuracy
        self.xp = xp
        self.dtype = getattr(xp, dtype)
        self.kernels: Any = compiled if is_numpy_namespace(xp) else portable

    def array(self, values: _Array) -> Array:
        """Move an array to where the fields are computed."""
        return self.xp.asarray(values, dtype=self.dtype)


class AtomFields:
    """Fields of atoms on a tile: rows are channels and points in z, columns are points
    in x and y.

    Parameters
    ----------
    densities : Densities
    tile : Tile
    degree : int
    width : float
        Width of the field of an atom.
    kinks : float or None
        For a density that changes sign, the width of the kernel that rounds kinks. Its
        second component is then the sum of the moduli of the atoms.
    """

    def __init__(
        self,
        densities: Densities,
        tile: Tile,
        degree: int,
        width: float,
        kinks: float | None,
    ) -> None:
        self.densities = densities
        self.tile = tile
        self.degree = degree
        self.width = width
        self.kinks = kinks
        weights = densities.weights[:, tile.atoms]
        weights = weights * ((2 * pi) ** 1.5 * wavelet_constant(degree))
        #: Weights of the atoms in each component.
        self.weights = [weights] * (2 * degree + 1)
        if kinks is not None:
            self.weights.append(np.abs(weights))

    @cached_property
    def factors(self) -> list[_Array]:
        """Powers of the distance times a Gaussian along each axis, one power more than
        the degree: (n_powers, n_atoms, n_points).
        """
        return [
            gaussian_factors(r, axis.points, self.width, self.degree + 1, self._cut)
            for axis, r in zip(self.tile.axes, self._positions, strict=True)
        ]

    @property
    def _positions(self) -> _Array:
        # Contiguous, as all that compiled functions get: they are compiled once.
        return np.ascontiguousarray(self.densities.frame.positions[self.tile.atoms].T)

    @property
    def _cut(self) -> float:
        return self.densities.accuracy.cut(self.degree)

    @property
    def harmonics(self) -> list[Any]:
        """The solid harmonic of each component."""
        found = list(solid_harmonics(self.degree))
        return found * 2 if self.kinks is not None else found

    def blocks(self, n_values: int) -> Iterator[Block]:
        """Yield the fields block by block, of about some number of values."""
        x, y, z = (self.densities.array(f[:-1]) for f in self.factors)
        planar, axial, weights = self.planar(x, y), self._axial(z), self._weights
        for part in cut(weights.shape[0], n_values // axial[0].shape[1]):
            components = [(a.T, p[:, part]) for a, p in zip(axial, planar, strict=True)]
            yield Block(components, weights[part], part, self.kinks)

    def integrate(
        self,
        powers: Powers,
        smooth: "SmoothTile | None",
        windows: Windows | None = None,
    ) -> _Array:
        """Integrate powers of the modulus in one compiled pass.

        The modulus is added to smooth fields. Kinks are not rounded.

        Returns
        -------
        ndarray of shape (n_channels, n_exponents)
            With windows, of shape (n_groups, n_channels, n_exponents).
        """
        none = np.empty((0, 0), self.densities.dtype)
        integrals, modulus = integrate_atoms(
            self._positions,
            self.densities.array(self.weights[0]),
            self.tile,
            self.width,
            self.degree,
            self._cut,
            powers,
            (none, none, none) if smooth is None else smooth.matrices,
            None if windows is None else windows.positions.T.copy(),
            1.0 if windows is None else windows.width,
        )
        if smooth is not None:
            smooth.add(modulus.swapaxes(1, 2))
        if windows is None:
            return np.asarray(integrals[0])
        return np.tensordot(windows.groups, integrals, 1)

    @property
    def _weights(self) -> Array:
        """Weights of the columns as a quadrature rule."""
        wx, wy, _ = (axis.weights for axis in self.tile.axes)
        return self.densities.array(wx[self.tile.rows] * wy[self.tile.columns])

    def planar(self, x: Array, y: Array) -> list[Array]:
        """Evaluate the harmonics without their powers of z, from factors in x and y."""
        rows, columns = self.tile.rows, self.tile.columns
        terms: list[Array] = self.densities.kernels.atom_terms(
            x, y, rows, columns, self.degree
        )
        return terms * 2 if self.kinks is not None else terms

    def _axial(self, z: Array) -> list[Array]:
        """Weigh the powers of z of each component: (n_powers * n_atoms, n_rows)."""
        xp, n_atoms = self.xp, len(self.tile.atoms)
        found = []
        for weights, harmonic in zip(self.weights, self.harmonics, strict=True):
            w = self.densities.array(weights.T[:, :, np.newaxis])
            powers = [xp.reshape(w * z[c, :, None, :], (n_atoms, -1)) for c in harmonic]
            found.append(_concat(powers, 0, xp))
        return found

    @property
    def xp(self) -> Any:
        return self.densities.xp


class AtomAdjoint:
    """Takes derivatives with respect to fields of atoms back to their positions.

    Parameters
    ----------
    fields : AtomFields
    n_sweeps : int
    """

    def __init__(self, fields: AtomFields, n_sweeps: int) -> None:
        self._fields = fields
        xp, array = fields.xp, fields.densities.array
        (x, y, _), (dx, dy, _) = (
            [array(f) for f in factors]
            for factors in ([f[:-1] for f in fields.factors], self._derivatives)
        )
        # Side by side, so that one product serves the three axes.
        self._planar = [
            xp.concat(terms, axis=0)
            for terms in zip(
                fields.planar(dx, y),
                fields.planar(x, dy),
                fields.planar(x, y),
                strict=True,
            )
        ]
        n_rows = len(fields.densities.weights) * len(fields.tile.axes[2].points)
        self._sums = [
            xp.zeros((n_sweeps, n_rows, p.shape[0]), dtype=fields.densities.dtype)
            for p in self._planar
        ]

    @cached_property
    def _derivatives(self) -> list[_Array]:
        """Derivatives of the factors with respect to the position of the atom."""
        powers = np.arange(self._fields.degree + 1)[:, np.newaxis, np.newaxis]
        return [
            (powers * np.roll(f, 1, axis=0)[:-1] - f[1:]) / self._fields.width
            for f in self._fields.factors
        ]

    def add(self, block: Block, derivatives: Iterator[Array]) -> None:
        """Add the derivatives, of shape (n_sweeps, n_rows, n_columns), with respect to
        each component on a block.
        """
        xp = self._fields.xp
        for sums, planar, d in zip(self._sums, self._planar, derivatives, strict=True):
            columns = planar[:, block.part]
            product = xp.matmul(xp.reshape(d, (-1, d.shape[-1])), columns.T)
            sums += xp.reshape(product, sums.shape)

    def total(self) -> _Array:
        """Return the derivatives with respect to positions.

        Returns
        -------
        ndarray of shape (n_sweeps, n_channels, n_atoms_of_tile, 3)
        """
        fields, xp = self._fields, self._fields.xp
        n_atoms, n_z = fields.factors[2].shape[1:]
        z, dz = fields.factors[2][:-1], self._derivatives[2]
        total: Any = 0.0
        for sums, harmonic, weights in zip(
            self._sums, fields.harmonics, fields.weights, strict=True
        ):
            powers = list(harmonic)
            # (n_axes, n_powers, n_atoms, n_z)
            axial = fields.densities.array(np.stack([z[powers], z[powers], dz[powers]]))
            axial = xp.permute_dims(axial, (3, 0, 1, 2))
            shape = (sums.shape[0], len(weights), n_z, 3, len(powers), n_atoms)
            products = xp.reshape(sums, shape) * axial
            along = to_numpy(
                xp.sum(products, axis=(2, 4))
            )  # sweeps, channels, 3, atoms
            total = total + along.swapaxes(2, 3) * weights[..., np.newaxis]
        return np.asarray(total)


class Smooth:
    """Fields convolved with a Gaussian, on a coarse grid, for wavelets of a scale.

    Parameters
    ----------
    densities : Densities
    width : float
        Width of the fields before.
    scale : float
        Scale of the wavelets.
    degree : int

    Attributes
    ----------
    width : float
        Width of the Gaussian.
    values : array of shape (n_x, n_channels, n_y, n_z)
    """

    def __init__(
        self, densities: Densities, width: float, scale: float, degree: int
    ) -> None:
        frame, accuracy = densities.frame, densities.accuracy
        self.grid = coarse_grid(frame, width, scale, degree, accuracy)
        self.width = SMOOTHING * scale
        self.densities = densities
        self.values = self.zeros()
        self._field_width = width
        self._scale = scale
        self._degree = degree

    def zeros(self, *shape: int) -> Array:
        """Make an array of the shape of the values, after other axes."""
        n_x, n_y, n_z = (len(axis.points) for axis in self.grid)
        shape = (*shape, n_x, len(self.densities.weights), n_y, n_z)
        return self.densities.xp.zeros(shape, dtype=self.densities.dtype)

    @property
    def cut(self) -> float:
        """Where Gaussians that smooth are cut, in their width."""
        return self.densities.accuracy.smoothing_cut(self._degree)

    def coarser(self) -> "Smooth":
        """Smooth the fields further, for wavelets of twice the scale."""
        xp = self.densities.xp
        result = Smooth(
            self.densities, self._field_width, 2 * self._scale, self._degree
        )
        for part, from_window, (x, y, z) in self._parts(result):
            values = self.values[from_window[0], :, from_window[1], from_window[2]]
            values = xp.matmul(y, xp.matmul(values, z.T))
            shape = (x.shape[0], *values.shape[1:])
            values = xp.matmul(x, xp.reshape(values, (x.shape[1], -1)))
            result.values[part[0], :, part[1], part[2]] = xp.reshape(values, shape)
        return result

    def finer(self, derivatives: Array, coarser: "Smooth") -> Array:
        """Take derivatives with respect to coarser fields back to these.

        `derivatives` are of shape (n_sweeps, n_x, n_channels, n_y, n_z).
        """
        xp = self.densities.xp
        result = self.zeros(derivatives.shape[0])
        for part, to_window, (x, y, z) in self._parts(coarser):
            d = derivatives[:, part[0], :, part[1], part[2]]
            shape = (d.shape[0], x.shape[1], *d.shape[2:])
            d = xp.matmul(x.T, xp.reshape(d, (d.shape[0], x.shape[0], -1)))
            d = xp.matmul(y.T, xp.matmul(xp.reshape(d, shape), z))
            result[:, to_window[0], :, to_window[1], to_window[2]] += d
        return result

    def _parts(
        self, coarser: "Smooth"
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], list[Array]]]:
        """Yield parts of a coarser grid, the window of this one that is within their
        reach, and the matrices that lead from one to the other along each axis.
        """
        width = sqrt(coarser.width**2 - self.width**2)
        for part, axes in cut_grid(coarser.grid):
            within = window(self.grid, axes, self.cut * width)
            yield (
                part,
                within,
                [
                    self.factors(to.points, axis.part(w), width)
                    for to, axis, w in zip(axes, self.grid, within, strict=True)
                ],
            )

    def factors(self, points: _Array, axis: Axis, width: float) -> Array:
        """Make the matrix that convolves with a Gaussian along an axis."""
        factors = gaussian_factors(points, axis.points, width, 0, self.cut)
        return self.densities.array(
            factors[0] * (axis.weights / (sqrt(2 * pi) * width))
        )


class SmoothTile:
    """The share of a tile in smooth fields, and the way back to the tile.

    Parameters
    ----------
    smooth : Smooth
    tile : Tile
    """

    def __init__(self, smooth: Smooth, tile: Tile) -> None:
        self._smooth = smooth
        self._tile = tile
        self._window = window(smooth.grid, tile.axes, smooth.cut * smooth.width)
        self._x, self._y, self._z = (
            smooth.factors(to.part(part).points, axis, smooth.width)
            for to, part, axis in zip(smooth.grid, self._window, tile.axes, strict=True)
        )

    @property
    def matrices(self) -> tuple[Array, Array, Array]:
        """The matrices that smooth along the axes, of shape (n, n_of_tile)."""
        return self._x, self._y, self._z

    def along_z(self, fields: Array) -> Array:
        """Smooth fields, of shape (n_channels * n_z, n_columns), along z.

        Returns
        -------
        array of shape (n_channels, n_z_of_smooth, n_columns)
        """
        xp = self._smooth.densities.xp
        shape = (-1, self._z.shape[1], fields.shape[1])
        return xp.matmul(self._z, xp.reshape(fields, shape))

    def add_columns(self, layers: Sequence[Array]) -> None:
        """Add fields that are smooth along z, (n_channels, n_z, n_columns), in parts
        of the columns.
        """
        densities, tile = self._smooth.densities, self._tile
        xp = densities.xp
        field = densities.kernels.spread(
            _concat(layers, 2, xp),
            tile.rows,
            tile.columns,
            self._x.shape[1],
            self._y.shape[1],
        )
        self.add(xp.matmul(xp.matmul(self._x, field), self._y.T))

    def add(self, field: Array) -> None:
        """Add a field that is smooth along all axes: (n_channels, n_z, n_x, n_y)."""
        x, y, z = self._window
        field = self._smooth.densities.xp.permute_dims(field, (2, 0, 3, 1))
        self._smooth.values[x, :, y, z] += field

    def back(self, derivatives: Array) -> "Callable[[slice], Array]":
        """Take derivatives with respect to smooth fields back to the tile.

        Returns
        -------
        callable
            Returns them on some columns: an array of shape (n_sweeps, n_rows, n).
        """
        xp = self._smooth.densities.xp
        x, y, z = self._window
        d = xp.permute_dims(derivatives[:, x, :, y, z], (0, 2, 4, 1, 3))
        d = xp.matmul(xp.matmul(self._x.T, d), self._y)
        index = xp.asarray(self._tile.rows * self._y.shape[1] + self._tile.columns)
        columns = xp.take(xp.reshape(d, (*d.shape[:3], -1)), index, axis=3)

        def on(part: slice) -> Array:
            rows = xp.matmul(self._z.T, columns[..., part])
            return xp.reshape(rows, (d.shape[0], -1, rows.shape[-1]))

        return on


class ConvolvedFields:
    """Smooth fields convolved with wavelets on a tile: rows are points in x, columns
    are points in y and z.

    Parameters
    ----------
    smooth : Smooth
    tile : Tile
    degree : int
    scale : float
        Scale of the wavelets that are left after smoothing.
    """

    def __init__(self, smooth: Smooth, tile: Tile, degree: int, scale: float) -> None:
        densities = smooth.densities
        self.smooth = smooth
        self.densities = densities
        self.degree = degree
        self._tile = tile
        self._scale = scale
        self._cut = densities.accuracy.wavelet_cut(degree)
        self.window = window(smooth.grid, tile.axes, self._cut * scale)
        x, y, z = (
            axis.part(w) for axis, w in zip(smooth.grid, self.window, strict=True)
        )
        self._coarse = x, y, z
        self._t_x, self._t_y, _ = (len(axis.points) for axis in tile.axes)
        self._n_x, _, self._n_z = (len(axis.points) for axis in self._coarse)

    @cached_property
    def _factors(self) -> list[Array]:
        """Powers of the distance times the wavelet along each axis:
        (degree + 1, n_of_tile, n).
        """
        return [
            self.densities.array(
                gaussian_factors(
                    to.points, axis.points, self._scale, self.degree, self._cut
                )
                * (axis.weights / self._scale)
            )
            for to, axis in zip(self._tile.axes, self._coarse, strict=True)
        ]

    @cached_property
    def _along_x(self) -> list[Array]:
        """For each component, the factor along x: (n_x_of_tile, n_powers * n_x)."""
        constant, xp = wavelet_constant(self.degree), self.densities.xp
        x = self._factors[0]
        return [
            _concat([constant * x[a, ...].T for a in harmonic], 0, xp).T
            for harmonic in solid_harmonics(self.degree)
        ]

    @property
    def _powers(self) -> list[int]:
        """Powers of y, even ones first: those of a harmonic then follow each other."""
        return [*range(0, self.degree + 1, 2), *range(1, self.degree + 1, 2)]

    @cached_property
    def _along_y(self) -> Array:
        """Factors along y: (n_powers * n_y_of_tile, n_y)."""
        xp, y = self.densities.xp, self._factors[1]
        factors = xp.stack([y[b, ...] for b in self._powers], axis=1)
        return xp.reshape(factors, (-1, y.shape[2]))

    @cached_property
    def _along_z(self) -> list[list[tuple[slice, Array]]]:
        """For each power of x in each component, the range of powers of y, and the
        factor along z for them: (n_powers * n_z, n_z_of_tile).
        """
        degree, z, n_z = self.degree, self._factors[2], self._n_z
        found = []
        for harmonic in solid_harmonics(degree):
            terms = []
            for a, polynomial in harmonic.items():
                # Powers in between that do not occur have the factor zero.
                where = [self._powers.index(b) for b, _ in polynomial]
                first, last = min(where), max(where) + 1
                factors = [
                    polynomial.get((b, degree - a - b), 0.0) * z[degree - a - b, ...].T
                    for b in self._powers[first:last]
                ]
                rows = slice(first * n_z, last * n_z)
                terms.append((rows, _concat(factors, 0, self.densities.xp)))
            found.append(terms)
        return found

    def integrate(self, powers: Powers) -> _Array:
        """Integrate powers of the modulus in one compiled pass.

        Returns
        -------
        ndarray of shape (n_channels, n_exponents)
        """
        return integrate_convolutions(
            np.ascontiguousarray(self._values.transpose(1, 0, 3, 2)),
            self._coarse,
            self._tile,
            self._scale,
            self.degree,
            self._cut,
            powers,
        )

    @property
    def _values(self) -> Array:
        """The smooth fields within reach: (n_x, n_channels, n_y, n_z)."""
        x, y, z = self.window
        return self.smooth.values[x, :, y, z] + FLOOR

    def blocks(self, n_values: int) -> Iterator[tuple[slice, Iterator[Block]]]:
        """Yield each channel, as a slice, and its fields block by block."""
        xp = self.densities.xp
        along_y = xp.matmul(self._along_y, self._values)
        along_y = xp.reshape(along_y, (-1, (self.degree + 1) * self._n_z))
        # The last and longest matrix products are along x, the axis of the harmonics.
        components = [
            (
                axial,
                _concat(
                    [
                        xp.reshape(xp.matmul(along_y[:, b], terms), (self._n_x, -1))
                        for b, terms in along_z
                    ],
                    0,
                    xp,
                ),
            )
            for axial, along_z in zip(self._along_x, self._along_z, strict=True)
        ]
        _, wy, wz = (axis.weights for axis in self._tile.axes)
        weights = self.densities.array(np.outer(wy, wz).ravel())
        n_columns = weights.shape[0]

        def of_channel(start: int) -> Iterator[Block]:
            for part in cut(n_columns, n_values // self._t_x):
                columns = slice(start + part.start, start + part.stop)
                factors = [(a, p[:, columns]) for a, p in components]
                yield Block(factors, weights[part], part)

        for channel in range(len(self.densities.weights)):
            yield slice(channel, channel + 1), of_channel(channel * n_columns)


class ConvolutionAdjoint:
    """Takes derivatives with respect to convolved fields back to the smooth ones.

    Parameters
    ----------
    fields : ConvolvedFields
    derivatives : array of shape (n_sweeps, n_x, n_channels, n_y, n_z)
        Derivatives with respect to the smooth fields: they are added here.
    """

    def __init__(self, fields: ConvolvedFields, derivatives: Array) -> None:
        self._fields = fields
        self._derivatives = derivatives
        self._new_channel()

    def _new_channel(self) -> None:
        self._parts: list[list[Array]] = [[] for _ in self._fields._along_x]

    def add(self, derivatives: Iterator[Array]) -> None:
        """Take the derivatives, of shape (n_sweeps, n_rows, n), with respect to each
        component on the next n columns of a channel.
        """
        xp = self._fields.densities.xp
        for parts, axial, d in zip(
            self._parts, self._fields._along_x, derivatives, strict=True
        ):
            parts.append(xp.matmul(axial.T, d))

    def finish(self, channel: slice) -> None:
        """Add the derivatives of a channel."""
        fields, xp = self._fields, self._fields.densities.xp
        n_sweeps, n_z = self._derivatives.shape[0], fields._n_z
        along_y: Any = xp.zeros(
            (n_sweeps * fields._n_x * fields._t_y, (fields.degree + 1) * n_z),
            dtype=fields.densities.dtype,
        )
        for parts, along_z in zip(self._parts, fields._along_z, strict=True):
            planar = _concat(parts, 2, xp)
            planar = xp.reshape(planar, (n_sweeps, len(along_z), fields._n_x, -1))
            for i, (b, terms) in enumerate(along_z):
                d = xp.reshape(planar[:, i, ...], (-1, terms.shape[1]))
                along_y[:, b] += xp.matmul(d, terms.T)
        along_y = xp.reshape(along_y, (n_sweeps, fields._n_x, 1, -1, n_z))
        x, y, z = fields.window
        self._derivatives[:, x, channel, y, z] += xp.matmul(fields._along_y.T, along_y)
        self._new_channel()


def _concat(arrays: Sequence[Array], axis: int, xp: Any) -> Array:
    """Concatenate without a copy of what is one already."""
    return arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=axis)
