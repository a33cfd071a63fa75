r"""Single atoms: fields that depend on the distance alone, integrated along it.

The moduli of all fields of an atom are functions of the distance r. Order 1 is known.
For order 2, the wavelet of degree l is a derivative of a Gaussian,

.. math:: |u|^l Y_{lm}(u / |u|) e^{-|u|^2 / 2 s^2}
    = (-s^2)^l \, Y_{lm}(\nabla) \, e^{-|u|^2 / 2 s^2} ,

and :math:`Y_{lm}(\nabla) h(r) = Y_{lm} r^l (r^{-1} d/dr)^l h(r)` for the convolution h
of the modulus with the Gaussian, itself a one-dimensional integral. The result vanishes
on whole spheres, where powers of a modulus have kinks that no grid samples finely
enough: integrals are split there.

In a plane it is the same, with circles in place of spheres.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from math import ceil, comb, hypot, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ive

from skscatharm.engine.protocol import Atoms
from skscatharm.transform.harmonics import harmonic_norm, wavelet_constant
from skscatharm.transform.modulus import path_peak, power, soften
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["RadialEngine"]

_Array = NDArray[np.float64]
_Radial = Callable[[_Array], _Array]

_REACH = 13.0  # widths, beyond the peak, that integrals extend to
_N_NODES = 24  # of a panel of one width


class RadialEngine:
    """Computes single atoms, in double precision and to rounding.

    Parameters
    ----------
    transform : Transform
        What to compute.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def memory(self, atoms: Atoms) -> float:
        """Return 0: a few arrays along a line."""
        return 0.0

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of atoms.

        Returns
        -------
        ndarray of shape (n_atoms, n_paths, n_channels, n_exponents)
        """
        integrals = cache(self._integrals)  # many atoms have the same weights
        return np.array(
            [
                [
                    [integrals(path, abs(float(w))) for (w,) in atoms.weights]
                    for path in self.transform.paths
                ]
                for atoms in batch
            ]
        )

    def _integrals(self, path: Path, weight: float) -> _Array:
        Q, sigma = self.transform.exponents, self.transform.sigma
        if weight == 0:
            return np.zeros(len(Q))
        first, width = self._first_order(path, weight)
        epsilon = self._epsilon(Path(path.scales[:1], path.degree))
        if len(path.scales) < 2:
            r, weights = _nodes(_edges(path.degree, width))
            values = first(r)
        else:
            scale = sigma * 2 ** path.scales[1]

            def modulus(v: _Array) -> _Array:
                return soften(first(v) ** 2, epsilon)[1]

            r, weights, values = _second_order(
                modulus, path.degree, width, scale, self.transform.dimension
            )
            epsilon = self._epsilon(path)
        squared = values**2
        softened = soften(squared, epsilon)
        shells = weights * _shell(r, self.transform.dimension)
        return np.array([shells @ power(squared, *softened, epsilon, q) for q in Q])

    def _epsilon(self, path: Path) -> float:
        if path.degree == 0:
            return 0.0
        transform = self.transform
        return transform.softening * path_peak(
            path, transform.sigma, transform.dimension
        )

    def _first_order(self, path: Path, weight: float) -> tuple[_Radial, float]:
        """Return the modulus of order 0 or 1, and its width."""
        sigma, degree = self.transform.sigma, path.degree
        dimension = self.transform.dimension
        scale = sigma * 2 ** path.scales[0] if path.scales else 0.0
        width = hypot(sigma, scale)
        constant = weight * (scale / width) ** degree * _norm(degree, dimension)
        constant *= width**-dimension

        def modulus(r: _Array) -> _Array:
            return constant * (r / width) ** degree * np.exp(-((r / width) ** 2) / 2)

        return modulus, width


def _norm(degree: int, dimension: int) -> float:
    r"""Modulus of :math:`c_l Y_{lm}` over all m."""
    return wavelet_constant(degree, dimension) * harmonic_norm(degree, dimension)


def _shell(r: _Array, dimension: int) -> _Array:
    """Area of a sphere, or length of a circle."""
    return 2 * pi * (dimension - 1) * r ** (dimension - 1)


def _second_order(
    modulus: _Radial, degree: int, width: float, scale: float, dimension: int
) -> tuple[_Array, _Array, _Array]:
    """Convolve a radial function of a width with the wavelets of a scale.

    Returns
    -------
    r, weights, values : ndarray of shape (n,)
        Distances, their weights as a quadrature rule, and the result there. The rule is
        split where the result vanishes.
    """
    edges, x, kernel = _kernel(degree, width / scale, dimension)
    v, v_weights = (scale * a for a in x)
    values = modulus(v) * v_weights * _shell(v, dimension)

    def at(distance: float) -> float:
        (row,) = _kernel_rows(np.array([distance]), x[0], degree, dimension)
        return float(row @ values)

    r, weights = _nodes(edges)
    found = kernel @ values
    changes = np.flatnonzero(found[1:] * found[:-1] < 0)
    if len(changes):
        roots = [brentq(at, r[i], r[i + 1], xtol=1e-13) for i in changes]
        touched = np.unique(np.searchsorted(edges, roots) - 1)
        r, weights, found = (
            np.delete(a.reshape(-1, _N_NODES), touched, axis=0).ravel()
            for a in (r, weights, found)
        )
        for panel in touched:
            low, high = edges[panel : panel + 2]
            inside = [root for root in roots if low < root < high]
            new, new_weights = _nodes(np.array([low, *inside, high]))
            r, weights = np.append(r, new), np.append(weights, new_weights)
            rows = _kernel_rows(new, x[0], degree, dimension)
            found = np.append(found, rows @ values)
    return scale * r, scale * weights, found * scale**-dimension


@lru_cache(maxsize=32)
def _kernel(
    degree: int, width: float, dimension: int
) -> tuple[_Array, tuple[_Array, _Array], _Array]:
    """Prepare the convolution of functions of a width with wavelets of scale 1.

    Returns
    -------
    edges : ndarray of shape (n_panels + 1,)
        Edges of the panels of the result.
    nodes : (ndarray, ndarray) of shape (n_v,)
        Distances of the function, and their weights as a quadrature rule.
    kernel : ndarray of shape (n_panels * n_nodes, n_v)
    """
    edges = _edges(degree, hypot(1, width))
    nodes = _nodes(_edges(degree, width))
    r, _ = _nodes(edges)
    return edges, nodes, _kernel_rows(r, nodes[0], degree, dimension)


def _kernel_rows(r: _Array, v: _Array, degree: int, dimension: int) -> _Array:
    """Average wavelets at distances v from the centre over all directions.

    The averages of Gaussians are modified Bessel functions, spherical ones in space,
    and so are their derivatives.
    """
    r = r[:, np.newaxis]
    x = r * v
    kernel = np.zeros_like(x)
    for j in range(degree + 1):
        spherical = dimension == 3
        bessel = ive(j + spherical / 2, x)
        if spherical:
            bessel *= np.sqrt(pi / (2 * x))
        sign = (-1) ** (degree - j) * comb(degree, j)
        kernel += sign * v ** (2 * j) * bessel / x**j
    kernel *= _norm(degree, dimension) * r**degree * np.exp(-((r - v) ** 2) / 2)
    return kernel


def _edges(degree: int, width: float) -> _Array:
    """Edges of panels that cover a function of a width."""
    return width * np.arange(ceil(_REACH + sqrt(degree)) + 1.0)


def _nodes(edges: _Array) -> tuple[_Array, _Array]:
    """Make a quadrature rule for fractional powers that vanish at the edges."""
    x, weights = _crowded_rule()
    lengths = np.diff(edges)[:, np.newaxis]
    return (edges[:-1, np.newaxis] + lengths * x).ravel(), (lengths * weights).ravel()


@cache
def _crowded_rule() -> tuple[_Array, _Array]:
    """Gauss-Legendre nodes after a map from 0 to 1 with three vanishing derivatives."""
    t, weights = np.polynomial.legendre.leggauss(_N_NODES)
    t, weights = (t + 1) / 2, weights / 2
    x = t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
    return x, weights * 140 * t**3 * (1 - t) ** 3
