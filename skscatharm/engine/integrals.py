"""Fields of a tile, computed and integrated in one compiled pass, for processors.

A block is worked on at a time. Its components, their squares, the modulus and its
powers stay in the cache of the processor. The same for any array library and
for derivatives is in :mod:`skscatharm.engine.fields` and
:mod:`skscatharm.engine.pooling`, as are windows in order 2.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine._numba import compile_loops
from skscatharm.engine.blocks import (
    as_matrix,
    cut_into_blocks,
    fill_distances,
    fill_near,
    fill_weights,
    near_atoms,
)
from skscatharm.engine.compiled import (
    CHUNK,
    add_powers,
    add_squares,
    end_of_run,
    fill_powers,
    fill_terms_of_rows,
    gaussian_factors,
    harmonics_of,
    other_exponents,
    square,
)
from skscatharm.engine.tiles import Tile

__all__ = [
    "FAR",
    "Powers",
    "integrate_atoms",
]

Array = NDArray[Any]

#: How far from an atom windows are evaluated, in their widths.
FAR = 8.5
# Exponents of Gaussians below this are as good as it. Two of them, or the powers of a
# modulus times them, are normal numbers in single precision.
_LOWEST = -40.0
_LEAST = 1e-20
_COLUMNS = 96  # along z, worked on at a time
_GROUP = 8  # rows of a banded matrix, which share its columns


class Powers(NamedTuple):
    """Powers of a modulus.

    Attributes
    ----------
    exponents, scales : ndarray of shape (n_exponents,)
        The powers are those of the modulus times the scale.
    epsilon : ndarray of shape (n_channels,)
        Softening of the modulus.
    floor : float
        Added to the square of the modulus.
    """

    exponents: Array
    scales: Array
    epsilon: Array
    floor: float

    def of_dtype(self, dtype: Any) -> tuple[Array, Array, Array | None, Array, Any]:
        """Return the attributes in the type of the fields, and other exponents."""
        return (
            self.exponents,
            self.scales.astype(dtype),
            other_exponents(self.exponents),
            self.epsilon.astype(dtype),
            dtype.type(self.floor),
        )


def integrate_atoms(
    positions: Array,
    weights: Array,
    tile: Tile,
    width: float,
    degree: int,
    cut: float,
    powers: Powers,
    smoothing: Sequence[Array],
    windows: Array | None,
    window_width: float,
) -> tuple[Array, Array]:
    """Integrate powers of the modulus of fields of atoms.

    Parameters
    ----------
    positions : ndarray of shape (3, n_atoms)
    weights : ndarray of shape (n_channels, n_atoms)
        Their type is that of the fields.
    tile : Tile
        Where to integrate.
    width : float
        Width of the field of an atom.
    degree : int
    cut : float
        Beyond it, in widths, factors of atoms are zero.
    powers : Powers
    smoothing : sequence of three ndarrays of shape (n, n_of_tile)
        Matrices that smooth the modulus along x, y and z. Those of shape (0, 0) do not.
    windows : ndarray of shape (3, n_windows) or None
        Centres of windows. None integrates over all of the tile.
    window_width : float
        They are Gaussians of this width, divided by their sum.

    Returns
    -------
    integrals : ndarray of shape (n_windows, n_channels, n_exponents)
        Without windows, of length 1 along the first axis.
    smooth : ndarray of shape (n_channels, n_x, n_z, n_y)
        The modulus, smoothed.
    """
    dtype = weights.dtype
    integrals, smooth = _integrate_atoms(
        positions,
        weights,
        tuple(axis.points for axis in tile.axes),
        tuple(axis.weights.astype(dtype) for axis in tile.axes),
        cut_into_blocks(tile, _COLUMNS, in_rows=True),
        width,
        degree + 1,
        cut,
        harmonics_of((degree,), dtype),
        *powers.of_dtype(dtype),
        *_in_groups(smoothing[0]),
        *smoothing[1:],
        windows,
        window_width,
    )
    return integrals, smooth[:, : len(smoothing[0])]


def _in_groups(matrix: Array) -> tuple[Array, Array]:
    """Cut a banded matrix into groups of rows.

    Returns
    -------
    groups : ndarray of shape (n_groups, n_columns, _GROUP)
        Each group transposed, filled up with zeros.
    supports : ndarray of int of shape (n_groups, 2)
        The columns that are not zero, from and to.
    """
    n_rows, n_columns = matrix.shape
    if not n_rows:
        return np.empty((0, 0, _GROUP), matrix.dtype), np.empty((0, 2), np.int64)
    filled = np.zeros((-(-n_rows // _GROUP) * _GROUP, n_columns), matrix.dtype)
    filled[:n_rows] = matrix
    groups = filled.reshape(-1, _GROUP, n_columns).transpose(0, 2, 1).copy()
    used = (groups != 0).any(axis=2)
    supports = np.empty((len(groups), 2), np.int64)
    supports[:, 0] = used.argmax(axis=1)
    supports[:, 1] = n_columns - used[:, ::-1].argmax(axis=1)
    return groups, supports


@compile_loops
def _keep_powers(
    squares: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    low: Any,
    moduli: Any,
    powers: Any,
    out: Any,
) -> None:
    """Compute a modulus and its powers; `out` has one exponent after the other."""
    n = len(squares)
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        fill_powers(squares[part], exponents, scales, others, low, moduli[part], powers)
        for e in range(len(exponents)):
            to, found = out[e * n + part.start : e * n + part.stop], powers[e]
            for k in range(len(to)):
                to[k] = found[k] + _LEAST


@compile_loops
def _fill_windows(
    centres: Any,
    width: float,
    points_x: Any,
    points_y: Any,
    points_z: Any,
    rows: Any,
    columns: Any,
    weights: Any,
    windows: Any,
) -> None:
    """Evaluate windows times weights: rows of points in z by columns in x and y."""
    n_windows, n, n_z = len(windows), len(rows), len(points_z)
    across, unit = np.empty((n_windows, n), windows.dtype), -1 / (2 * width**2)
    along = np.empty((n_windows, n_z), windows.dtype)
    for k in range(n):
        x, y = points_x[rows[k]], points_y[columns[k]]
        nearest = np.inf
        for i in range(n_windows):
            nearest = min(nearest, (x - centres[0, i]) ** 2 + (y - centres[1, i]) ** 2)
        for i in range(n_windows):
            square = (x - centres[0, i]) ** 2 + (y - centres[1, i]) ** 2
            # The same factor for all: of the nearest, it is one, wherever that is.
            across[i, k] = np.exp(max(unit * (square - nearest), _LOWEST))
    for i in range(n_windows):
        for j in range(n_z):
            square = (points_z[j] - centres[2, i]) ** 2
            along[i, j] = np.exp(max(unit * square, _LOWEST))
    total = np.empty(n, windows.dtype)
    for j in range(n_z):
        part = slice(j * n, (j + 1) * n)
        total[:] = 0
        for i in range(n_windows):
            factor, values, to = along[i, j], across[i], windows[i, part]
            for k in range(n):
                to[k] = factor * values[k]
                total[k] += to[k]
        weights_here = weights[part]
        for k in range(n):
            total[k] = weights_here[k] / total[k]
        for i in range(n_windows):
            to = windows[i, part]
            for k in range(n):
                to[k] *= total[k]


@compile_loops
def _integrate_atoms(
    positions: Any,
    atom_weights: Any,
    points: Any,
    axis_weights: Any,
    blocks: Any,
    width: float,
    n_powers: int,
    cut: float,
    harmonics: Any,
    exponents: Any,
    scales: Any,
    others: Any,
    epsilon: Any,
    floor: Any,
    groups_x: Any,
    supports_x: Any,
    along_y: Any,
    along_z: Any,
    centres: Any,
    window_width: float,
) -> Any:
    dtype = atom_weights.dtype
    points_x, points_y, points_z = points
    weights_x, weights_y, weights_z = axis_weights
    n_y, n_z = len(points_y), len(points_z)
    n_channels, n_atoms = atom_weights.shape
    x = gaussian_factors(positions[0], points_x, width, n_powers - 1, cut).astype(dtype)
    y = gaussian_factors(positions[1], points_y, width, n_powers - 1, cut).astype(dtype)
    z = gaussian_factors(positions[2], points_z, width, n_powers - 1, cut)
    axial = np.empty((n_powers, n_atoms, n_channels * n_z), dtype)
    for a in range(n_powers):
        for n in range(n_atoms):
            for c in range(n_channels):
                for k in range(n_z):
                    axial[a, n, c * n_z + k] = atom_weights[c, n] * z[a, n, k]
    # In loops, to take arrays out of tuples takes time.
    all_rows, all_columns, bounds = blocks.rows, blocks.columns, blocks.bounds
    powers_of_z, starts = harmonics.powers_of_z, harmonics.starts
    n_terms = len(powers_of_z)
    s_x, s_y, s_z = len(groups_x) * _GROUP, len(along_y), len(along_z)
    smooth = np.zeros((n_channels, len(points_x), s_z, n_y), dtype)
    to_z = along_z.T.copy()
    # Numba compiles no windows where there are none.
    n_exponents = len(exponents)
    if centres is None:
        integrals = np.zeros((1, n_channels, n_exponents))
    else:
        integrals = np.zeros((centres.shape[1], n_channels, n_exponents))
    size, n_most = blocks.n_columns, blocks.height * blocks.n_columns
    if centres is not None:
        powers = np.empty((n_exponents + 2, CHUNK), dtype)
        all_powers = np.empty(n_channels * n_exponents * n_most, dtype)
        all_windows = np.empty(len(integrals) * n_most, dtype)
        windowed = np.empty((len(integrals), n_channels * n_exponents), dtype)
    near, distances = np.empty(n_atoms, np.int64), np.empty(n_atoms)
    all_axial = np.empty(n_terms * n_atoms * n_channels * blocks.height, dtype)
    all_terms = np.empty(n_terms * n_atoms * size, dtype)
    squares = np.empty(n_channels * n_most, dtype)
    components = np.empty(n_channels * n_most, dtype)
    layers = np.empty(s_z * size, dtype)
    weights = np.empty(n_most, dtype)
    for b in range(len(bounds)):
        start, stop = bounds[b, 0], bounds[b, 1]
        bottom, top = bounds[b, 2], bounds[b, 3]
        rows, columns = all_rows[start:stop], all_columns[start:stop]
        n, n_here = stop - start, top - bottom
        n_rows, block = n_channels * n_here, n_here * n
        fill_distances(positions, points, rows, columns, bottom, top, distances)
        n_near = near_atoms(distances, cut * width, near)
        along_axis = as_matrix(all_axial, n_terms * n_near, n_rows)
        fill_near(axial, powers_of_z, near[:n_near], bottom, n_channels, along_axis)
        terms = as_matrix(all_terms, n_terms * n_near, n)
        fill_terms_of_rows(x, y, near[:n_near], rows, columns, harmonics, terms)
        component = as_matrix(components, n_rows, n)
        for m in range(len(starts) - 1):
            first, last = starts[m] * n_near, starts[m + 1] * n_near
            np.dot(along_axis[first:last].T, terms[first:last], component)
            if m == 0:
                square(components, floor, squares, n_rows * n)
            else:
                add_squares(components, squares, n_rows * n)
        fill_weights(
            rows, columns, weights_x, weights_y, weights_z[bottom:top], weights
        )
        for c in range(n_channels):
            part = slice(c * block, (c + 1) * block)
            # The modulus takes the place of the components.
            modulus = components[part]
            if centres is None:
                add_powers(
                    squares[part],
                    weights[:block],
                    exponents,
                    scales,
                    others,
                    epsilon[c],
                    modulus,
                    integrals[0, c],
                )
            else:
                in_all = c * n_exponents * block
                _keep_powers(
                    squares[part],
                    exponents,
                    scales,
                    others,
                    epsilon[c],
                    modulus,
                    powers,
                    all_powers[in_all : in_all + n_exponents * block],
                )
            if s_z > 0:
                layer = as_matrix(layers, s_z, n)
                np.dot(to_z[bottom:top].T, modulus.reshape(n_here, n), layer)
                first = np.int64(0)  # numba would compile once more for a literal
                while first < n:
                    last = end_of_run(rows, columns, first)
                    i, k = rows[first], columns[first]
                    for j in range(s_z):
                        to, found = smooth[c, i, j, k:], layer[j, first:last]
                        for column in range(last - first):
                            to[column] += found[column]
                    first = last
        if centres is not None:
            windows = as_matrix(all_windows, len(integrals), block)
            _fill_windows(
                centres,
                window_width,
                points_x,
                points_y,
                points_z[bottom:top],
                rows,
                columns,
                weights,
                windows,
            )
            of_rows = as_matrix(all_powers, n_channels * n_exponents, block)
            np.dot(windows, of_rows.T, windowed)
            for i in range(len(integrals)):
                for c in range(n_channels):
                    for e in range(n_exponents):
                        integrals[i, c, e] += windowed[i, c * n_exponents + e]
    result = np.empty((n_channels, s_x, s_z, s_y), dtype)
    if s_z > 0:
        smooth_x, to_y = np.empty((s_x, s_z * n_y), dtype), along_y.T.copy()
        for c in range(n_channels):
            for g in range(len(groups_x)):
                first, last = supports_x[g, 0], supports_x[g, 1]
                np.dot(
                    groups_x[g, first:last].T,
                    smooth[c, first:last].reshape(last - first, s_z * n_y),
                    smooth_x[g * _GROUP : (g + 1) * _GROUP],
                )
            np.dot(
                smooth_x.reshape(s_x * s_z, n_y),
                to_y,
                result[c].reshape(s_x * s_z, s_y),
            )
    return integrals, result
