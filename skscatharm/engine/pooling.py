"""Pooling: from the values of a field on a grid to numbers.

The separable engine makes its fields block by block, and hands each block to whatever
wants it: to an integral of powers, to the smoothing for order 2, or to both. The
integral is over all of space (:class:`PowerIntegrals`), or weighted with windows around
atoms (:class:`WindowIntegrals`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.quadrature import Axis
from skscatharm.transform.modulus import KinkRounding, power, soften

__all__ = [
    "AMPLITUDE",
    "FLOOR",
    "Block",
    "PowerDerivatives",
    "PowerIntegrals",
    "WindowIntegrals",
    "Windows",
    "WindowsOnTile",
    "power_scales",
]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

# Fields are computed times this, from weights that add up to at most 1: their cubes
# just fit into float32, and where they decay to nothing they end before the subnormal
# numbers begin, which processors handle a hundred times slower than others.
AMPLITUDE = 2.0**36
# Added to fields, for the same reason; far below any error.
FLOOR = 1e-9
# Windows further than this from others, in their widths, and their exponents below the
# least, are nothing.
_FAR, _LEAST = 7.0, -30.0


def power_scales(Q: _Array) -> _Array:
    """Return factors that lower the amplitude of fields for exponents above 3."""
    scales: _Array = np.minimum(AMPLITUDE ** (3 / Q - 1), 1.0)
    return scales


class Block(NamedTuple):
    """A field at some points: rows along one axis, columns along two others.

    Attributes
    ----------
    components : sequence of (array of shape (n_rows, k), array of shape (k, n_columns))
        For each component, matrices whose product it is.
    weights : array of shape (n_columns,)
        Weights of the columns as a quadrature rule.
    part : slice
        Which of the columns of a tile these are.
    kinks : float or None
        For a density that changes sign, the width of the kernel that rounds kinks. The
        components are then the density and the sum of the moduli of the atoms.
    """

    components: list[tuple[Array, Array]]
    weights: Array
    part: slice
    kinks: float | None = None


class _Powers:
    """Powers of a modulus, and functions for the values of a field.

    Parameters
    ----------
    exponents : ndarray of shape (n_exponents,)
    epsilon : ndarray of shape (n_rows,)
        Softening of the modulus.
    rounding : KinkRounding
        Rounds the kinks of densities that change sign.
    kernels : module
        :mod:`skscatharm.engine.compiled` or :mod:`skscatharm.engine.portable`.
    xp : module
        Namespace of the array library.
    """

    def __init__(
        self,
        exponents: _Array,
        epsilon: _Array,
        rounding: KinkRounding,
        kernels: Any,
        xp: Any,
    ) -> None:
        self._exponents = exponents
        self._epsilon = epsilon
        self._rounding = rounding
        self._kernels = kernels
        self._xp = xp


class PowerIntegrals(_Powers):
    """Integrals of the powers of a modulus, over blocks with the same rows.

    Parameters
    ----------
    *powers
        As for :class:`_Powers`.
    scales : ndarray of shape (n_exponents,)
        The powers are those of the modulus times the scale.
    weights : ndarray of shape (n,)
        Weights of the rows of a channel as a quadrature rule.
    """

    def __init__(self, *powers: Any, scales: _Array, weights: _Array) -> None:
        super().__init__(*powers)
        self._scales = scales
        self._weights = weights
        self._over_columns: Array = 0.0

    def add(self, squared: Array, weights: Array) -> Array:
        """Add integrals over columns, and return the modulus on them.

        Parameters
        ----------
        squared : array of shape (n_rows, n_columns)
            The square of the field, summed over its components.
        weights : array of shape (n_columns,)
            Weights of the columns as a quadrature rule.
        """
        modulus, integrals = self._kernels.integrate_powers(
            squared, weights, self._exponents, self._scales, self._epsilon
        )
        self._over_columns += integrals
        return modulus

    def add_rounded(
        self, density: Array, envelope: Array, kinks: float, weights: Array
    ) -> Array:
        """Do the same for a density that changes sign.

        `envelope` is the sum of the moduli of the atoms, and `kinks` the width of the
        kernel that rounds kinks.
        """
        modulus, powers = self._rounding.powers(density, envelope, kinks, self._scales)
        self._over_columns += self._xp.stack([p @ weights for p in powers])
        return modulus

    def total(self) -> _Array:
        """Integrate over the rows, which are channels by points of a weight.

        Returns
        -------
        ndarray of shape (n_channels, n_exponents)
        """
        xp = self._xp
        shape = (len(self._exponents), -1, len(self._weights))
        return (to_numpy(xp.reshape(self._over_columns, shape)) @ self._weights).T


class Windows(NamedTuple):
    r"""Windows around atoms, which add up to one everywhere.

    With Gaussians of a width, they are

    .. math:: w_a(u) = g(u - r_a) \Big/ \sum_b g(u - r_b) .

    Attributes
    ----------
    positions : ndarray of shape (n_atoms, 3)
    width : float
    groups : ndarray of shape (n_groups, n_atoms)
        Shares of the windows of atoms in those that are asked for, such as an identity
        matrix, or a row with ones at the atoms of an element.
    """

    positions: _Array
    width: float
    groups: _Array

    def near(self, axes: Sequence[Axis], reach: float) -> "Windows":
        """Leave out atoms whose windows vanish wherever others are within reach."""
        reach = reach + _FAR * self.width
        low, high = np.array([axis.points[[0, -1]] for axis in axes]).T
        near = (self.positions > low - reach) & (self.positions < high + reach)
        chosen = near.all(axis=1)
        return Windows(self.positions[chosen], self.width, self.groups[:, chosen])


class WindowsOnTile:
    """Windows on a tile: their values on rows and columns, times weights of the rows.

    Parameters
    ----------
    windows : Windows
    rows : ndarray of shape (n_rows,)
        Coordinates of the rows.
    columns : sequence of two ndarrays of shape (n_columns,)
        Coordinates of the columns.
    axes : sequence of three ints
        The axis of the rows, and those of the columns.
    weights : ndarray of shape (n_rows,)
        Weights of the rows as a quadrature rule.
    array : callable
        Moves an array to where fields are computed.
    """

    def __init__(
        self,
        windows: Windows,
        rows: _Array,
        columns: Sequence[_Array],
        axes: Sequence[int],
        weights: _Array,
        array: Callable[[_Array], Array],
    ) -> None:
        along, *across = (
            (windows.positions[:, axis, np.newaxis] - points) ** 2
            for axis, points in zip(axes, (rows, *columns), strict=True)
        )
        unit = 2 * windows.width**2
        self._rows = array(-along[..., np.newaxis] / unit)
        self._columns = array(-(across[0] + across[1])[:, np.newaxis] / unit)
        self._weights = array(weights[:, np.newaxis])
        self._here = np.flatnonzero(windows.groups.any(axis=1))
        groups = windows.groups[self._here]
        alone = np.array_equal(groups, np.eye(len(groups)))
        self._groups = None if alone else array(groups)
        self._n_groups = len(windows.groups)
        self._last: tuple[slice, Array] | None = None

    def on(self, part: slice) -> Array:
        """Return values on some columns, of shape (n_groups_here, n_rows * n)."""
        if self._last is not None and self._last[0] == part:
            return self._last[1]
        xp = array_namespace(self._rows)
        exponents = self._rows + self._columns[..., part]
        # Far from all atoms, the ratio of Gaussians is still one of numbers near one;
        # exponents below the least would only be slow.
        exponents -= xp.max(exponents, axis=0)
        values = xp.exp(
            xp.maximum(exponents, _LEAST * xp.ones_like(exponents[:1, :1, :1]))
        )
        values *= self._weights / xp.sum(values, axis=0)
        values = xp.reshape(values, (values.shape[0], -1))
        if self._groups is not None:
            values = self._groups @ values
        self._last = (part, values)
        return values

    def spread(self, values: _Array) -> _Array:
        """Put values of groups that are here, (n_groups_here, ...), among all."""
        spread = np.zeros((self._n_groups, *values.shape[1:]))
        spread[self._here] = values
        return spread


class WindowIntegrals(_Powers):
    """Integrals of the powers of a modulus times windows, over blocks with the same
    rows, which follow each other.

    Parameters
    ----------
    *powers
        As for :class:`_Powers`.
    scales : ndarray of shape (n_exponents,)
        The powers are those of the modulus times the scale.
    windows : WindowsOnTile
    """

    def __init__(self, *powers: Any, scales: _Array, windows: WindowsOnTile) -> None:
        super().__init__(*powers)
        self._scales = scales
        self._windows = windows
        self._next = 0
        self._integrals: Array = 0.0

    def add(self, squared: Array, weights: Array) -> Array:
        """Add integrals, as :meth:`PowerIntegrals.add`."""
        low = self._xp.asarray(self._epsilon[:, np.newaxis], dtype=squared.dtype)
        root, modulus = soften(squared, low)
        powers = [
            power(squared * s**2, root * s, modulus * s, low * s, q)
            for q, s in zip(
                self._exponents.tolist(), self._scales.tolist(), strict=True
            )
        ]
        self._add(powers, weights)
        return modulus

    def add_rounded(
        self, density: Array, envelope: Array, kinks: float, weights: Array
    ) -> Array:
        """Add integrals, as :meth:`PowerIntegrals.add_rounded`."""
        modulus, powers = self._rounding.powers(density, envelope, kinks, self._scales)
        self._add(powers, weights)
        return modulus

    def _add(self, powers: Sequence[Array], weights: Array) -> None:
        part = slice(self._next, self._next + weights.shape[0])
        self._next = part.stop
        windows = self._windows.on(part)
        stacked = self._xp.stack([p * weights for p in powers])
        stacked += 1e-24  # keeps products with small windows normal numbers
        stacked = self._xp.reshape(stacked, (-1, windows.shape[1]))
        self._integrals += to_numpy(windows @ stacked.T)

    def total(self) -> _Array:
        """Return the integrals.

        Returns
        -------
        ndarray of shape (n_groups, n_channels, n_exponents)
        """
        found = self._windows.spread(np.asarray(self._integrals))
        found = found.reshape(len(found), len(self._exponents), -1)
        return found.swapaxes(1, 2)


class PowerDerivatives(_Powers):
    r"""Derivatives of sums of integrals of powers with respect to the field.

    In units of `peak`, the components are v and the modulus is u. The derivatives of

    .. math:: \sum_q b_q \int u^q + \int B u

    are taken for several sets of b and B, the sweeps.

    Parameters
    ----------
    *powers
        As for :class:`_Powers`.
    factors : array of shape (n_sweeps, n_exponents, n_rows)
        The numbers b, times the weights of the rows as a quadrature rule.
    peak : float
        Unit of the field.
    """

    def __init__(self, *powers: Any, factors: Array, peak: float) -> None:
        super().__init__(*powers)
        self._factors = factors
        self._peak = peak

    def of(self, block: Block, onto_modulus: Array | None) -> Iterator[Array]:
        """Yield the derivatives with respect to each component.

        Parameters
        ----------
        block : Block
        onto_modulus : array of shape (n_sweeps, n_rows, n_columns) or None
            The field B, times the weights of a quadrature rule.

        Yields
        ------
        array of shape (n_sweeps, n_rows, n_columns)
        """
        components = self._kernels.products(block.components)
        if block.kinks is not None:
            yield from self._rounded(components, block, block.kinks, onto_modulus)
            return
        common = self._kernels.power_derivatives(
            components,
            block.weights,
            self._exponents,
            self._factors,
            self._epsilon,
            FLOOR**2,
            self._peak,
            onto_modulus,
        )
        for component in components:
            yield common * component

    def _rounded(
        self, components: Array, block: Block, kinks: float, onto: Array | None
    ) -> Iterator[Array]:
        density, envelope = (c / self._peak for c in components)
        slopes = self._rounding.derivatives(density, envelope, kinks)
        for of_modulus, *of_powers in slopes:
            total: Any = 0.0
            for e, of_power in enumerate(of_powers):
                total = total + self._factors[:, e, :, None] * (
                    of_power * block.weights
                )
            if onto is not None:
                total = total + onto * of_modulus
            yield total
