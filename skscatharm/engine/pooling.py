"""Pooling: from the values of a field on a grid to numbers.

The separable engine makes its fields block by block, and hands each block to whatever
wants it: to an integral of powers, to the smoothing for order 2, or to both. Another
pooling, such as integrals weighted with windows around atoms, is another class with the
method `add`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import to_numpy
from skscatharm.transform.modulus import KinkRounding

__all__ = ["AMPLITUDE", "FLOOR", "Block", "PowerIntegrals"]

Array = Any  # of the array library that computes

# Fields are computed times this, from weights that add up to at most 1: their cubes
# just fit into float32, and where they decay to nothing they end before the subnormal
# numbers begin, which processors handle a hundred times slower than others. For larger
# exponents, the amplitude is lowered.
AMPLITUDE = 2.0**36
# Added to fields, for the same reason; far below any error.
FLOOR = 1e-9


class Block(NamedTuple):
    """Values of a field at some points: rows along one axis, columns along two others.

    Attributes
    ----------
    squared : array of shape (n_rows, n_columns)
        The square of the field, summed over its components.
    weights : array of shape (n_columns,)
        Weights of the columns as a quadrature rule.
    kinks : tuple or None
        For a density that changes sign, its values, those of the sum of the moduli of
        the atoms, and the width of the kernel that rounds kinks.
    """

    squared: Array
    weights: Array
    kinks: tuple[Array, Array, float] | None = None


class PowerIntegrals:
    """Integrals of the powers of a modulus, over blocks with the same rows.

    Parameters
    ----------
    exponents, scales : ndarray of shape (n_exponents,)
        The powers are those of the modulus times the scale.
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
        exponents: NDArray[np.float64],
        scales: NDArray[np.float64],
        epsilon: NDArray[np.float64],
        rounding: KinkRounding,
        kernels: Any,
        xp: Any,
    ) -> None:
        self._exponents = exponents
        self._scales = scales
        self._epsilon = epsilon
        self._rounding = rounding
        self._kernels = kernels
        self._xp = xp
        self._over_columns: Array = 0.0

    def add(self, block: Block) -> Array:
        """Add the integrals over a block, and return the modulus on it."""
        if block.kinks is not None:
            modulus, powers = self._rounding.powers(*block.kinks, self._scales)
            integrals = self._xp.stack([p @ block.weights for p in powers])
        else:
            modulus, integrals = self._kernels.integrate_powers(
                block.squared,
                block.weights,
                self._exponents,
                self._scales,
                self._epsilon,
            )
        self._over_columns += integrals
        return modulus

    def total(self, weights: Array, n_channels: int) -> NDArray[np.float64]:
        """Integrate over the rows, which are channels by points of a weight.

        Returns
        -------
        ndarray of shape (n_channels, n_exponents)
        """
        xp = self._xp
        shape = (len(self._exponents), n_channels, -1)
        return to_numpy(xp.matmul(xp.reshape(self._over_columns, shape), weights)).T
