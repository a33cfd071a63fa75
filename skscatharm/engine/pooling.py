"""Pooling: from the values of a field on a grid to numbers.

The separable engine makes its fields block by block, and hands each block to whatever
wants it: to an integral of powers, to the smoothing for order 2, or to both. Another
pooling, such as integrals weighted with windows around atoms, is another class with the
method `add`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import to_numpy
from skscatharm.transform.modulus import KinkRounding

__all__ = ["AMPLITUDE", "FLOOR", "Block", "PowerDerivatives", "PowerIntegrals"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

# Fields are computed times this, from weights that add up to at most 1: their cubes
# just fit into float32, and where they decay to nothing they end before the subnormal
# numbers begin, which processors handle a hundred times slower than others. For larger
# exponents, the amplitude is lowered.
AMPLITUDE = 2.0**36
# Added to fields, for the same reason; far below any error.
FLOOR = 1e-9


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
    """

    def __init__(self, *powers: Any, scales: _Array) -> None:
        super().__init__(*powers)
        self._scales = scales
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

    def total(self, weights: _Array, n_channels: int) -> _Array:
        """Integrate over the rows, which are channels by points of a weight.

        Returns
        -------
        ndarray of shape (n_channels, n_exponents)
        """
        xp = self._xp
        shape = (len(self._exponents), n_channels, -1)
        return (to_numpy(xp.reshape(self._over_columns, shape)) @ weights).T


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
