r"""Mixed moments of free molecules: integrals of products of two fields of order 1.

For fields U and U' they are those of

.. math:: h_{q/2}(U) \, h_{q/2}(U')

with the softened powers h of moduli. The densities of channels with weights of both
signs, which have kinks, are softened too. A product vanishes where the narrower field
does, and is about as smooth. So pairs share the grid of the narrower width: on it, the
integrals of all pairs are a matrix product. Coefficients come from
:mod:`skscatharm.engine.products`, and derivatives from
:mod:`skscatharm.engine.point_sums`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import hypot, pi
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine import point_sums
from skscatharm.engine.accuracy import DOUBLE, Accuracy
from skscatharm.engine.frame import Frame
from skscatharm.engine.point_sums import AtomWavelets, monomials_of_harmonics
from skscatharm.engine.pooling import AMPLITUDE, FLOOR, power_scales
from skscatharm.engine.products import integrate_products
from skscatharm.engine.protocol import Atoms, DifferentiableEngine, Engine
from skscatharm.engine.quadrature import Grid, product_grid, product_margin
from skscatharm.engine.tiles import cut, cut_into_tiles
from skscatharm.transform.harmonics import wavelet_constant
from skscatharm.transform.paths import PairGroup, Path, group_pairs
from skscatharm.transform.transform import Transform

__all__ = ["MixedMoments", "MomentsEngine"]

_Array = NDArray[np.float64]

# Points that are worked on at a time, so that arrays stay in cache.
_POINTS = 512
_LEAST = 1e-200  # added to squared moduli: low powers have no derivative at zero


class MixedMoments:
    """The mixed moments of a free molecule of two atoms or more.

    Parameters
    ----------
    atoms : Atoms
    transform : Transform
        With the pairs.
    """

    def __init__(self, atoms: Atoms, transform: Transform) -> None:
        self.weights = np.ascontiguousarray(atoms.weights, dtype=np.float64)
        self.transform = transform
        self._frame = Frame(atoms.positions, atoms.charges, reference=atoms.reference)
        self._halves = np.asarray(transform.exponents) / 2
        softness = transform.softening / max(np.abs(self.weights).max(), 1.0)
        self._accuracy = Accuracy(
            transform.tol,
            softness,
            max(transform.exponents),
            smooth=self._frame.is_lattice,
        )
        self._groups = group_pairs(transform.pairs)

    @property
    def _shape(self) -> tuple[int, int, int]:
        n_pairs = len(self.transform.pairs)
        return n_pairs, len(self.weights), len(self._halves)

    def coefficients(self) -> _Array:
        """Compute all mixed moments.

        Returns
        -------
        ndarray of shape (n_pairs, n_channels, n_exponents)
        """
        found = np.zeros(self._shape)
        for group in self._groups:
            fields = _Fields(self, group)
            sums = fields.products()
            for index, a, b in fields.places():
                found[index] = sums[:, a, b]
        return found

    def jacobian(self) -> _Array:
        """Differentiate all mixed moments.

        Returns
        -------
        ndarray of shape (n_pairs, n_channels, n_exponents, n_atoms, 3)
        """
        found = np.zeros((*self._shape, *self._frame.positions.shape))
        n_exponents = len(self._halves)
        for group in self._groups:
            fields = _Fields(self, group)
            n = len(fields.paths) * len(self.weights)
            # By exponent and both fields, where the first one is differentiated.
            sums = np.zeros((n, n_exponents * n, found[0, 0, 0].size))
            for chunk in fields.chunks():
                weighed = chunk.powers * chunk.weights
                gradients = fields.gradients(chunk)
                for a in range(n):
                    factors = weighed * chunk.slopes[:, a, np.newaxis]
                    sums[a] += factors.reshape(-1, factors.shape[-1]) @ gradients[a].T
            sums = sums.reshape(n, n_exponents, n, -1, 3) @ self._frame.rotation.T
            for index, a, b in fields.places():
                found[index] = sums[a, :, b] + sums[b, :, a]
        return found

    def gradient(self, factors: _Array) -> _Array:
        """Differentiate the sum of all mixed moments with factors.

        `factors` are of shape (n_pairs, n_channels, n_exponents).

        Returns
        -------
        ndarray of shape (n_atoms, 3)
        """
        total = np.zeros_like(self._frame.positions)
        for group in self._groups:
            fields = _Fields(self, group)
            n = len(fields.paths) * len(self.weights)
            symmetric = np.zeros((len(self._halves), n, n))
            for index, a, b in fields.places():
                symmetric[:, a, b] += factors[index]
                symmetric[:, b, a] += factors[index]
            for chunk in fields.chunks():
                partners = (symmetric @ chunk.powers) * chunk.slopes
                fields.add_gradient(chunk, partners.sum(axis=0) * chunk.weights, total)
        return total @ self._frame.rotation.T


class _Chunk(NamedTuple):
    """Fields at some points.

    Attributes
    ----------
    points : ndarray of shape (3, n_points)
    weights : ndarray of shape (n_points,)
        Weights of a quadrature rule.
    components : ndarray of shape (n_scales, n_harmonics, n_channels, n_points)
    powers : ndarray of shape (n_exponents, n_fields, n_points)
        Softened powers of half of the exponents, of paths by channels.
    slopes : ndarray of shape (n_exponents, n_fields, n_points)
        Times a component, their derivatives with respect to it.
    """

    points: _Array
    weights: _Array
    components: _Array
    powers: _Array
    slopes: _Array


class _Fields:
    """The fields of a group on its grid."""

    def __init__(self, moments: MixedMoments, group: PairGroup) -> None:
        transform = moments.transform
        sigma = transform.sigma
        self._moments = moments
        self._group = group
        self.paths = group.fields
        self._scales = sorted({path.scales[0] for path in self.paths})
        self._degrees = max(path.degree for path in self.paths)
        self._widths = np.array([hypot(sigma, sigma * 2**j) for j in self._scales])
        degrees = np.arange(self._degrees + 1)
        scales = sigma * 2.0 ** np.array(self._scales)[:, np.newaxis]
        widths = self._widths[:, np.newaxis]
        # Factors of solid harmonics times Gaussians, both in widths.
        self._constants = (scales / widths) ** degrees / widths**3
        self._softening = np.array(
            [
                [self._softening_of(Path((j,), d)) for d in range(len(degrees))]
                for j in self._scales
            ]
        )
        norms = self._constants / widths**degrees
        norms *= [wavelet_constant(d) for d in range(len(degrees))]
        norms = np.repeat(norms, 2 * degrees + 1, axis=1)
        # Softened densities need the grid of other softened fields.
        self._smoothness = max(self._degrees, 1 if transform.signed else 0)
        exponents, accuracy = transform.exponents, moments._accuracy
        self._margin = product_margin(self._smoothness, exponents, accuracy)
        self._cut = self._margin + 0.5
        epsilon = np.array([self._softening_of(path) for path in self.paths])
        self._squared_epsilon = epsilon.reshape(-1, 1) ** 2
        of_kinds, kinds = np.unique(moments.weights, axis=1, return_inverse=True)
        self._wavelets = AtomWavelets(
            moments._frame.positions,
            np.ascontiguousarray(of_kinds),
            kinds.ravel(),
            self._widths,
            self._cut,
            *monomials_of_harmonics(self._degrees),
            norms,
        )

    def _softening_of(self, path: Path) -> list[float]:
        """Return the softening of a modulus in each channel."""
        soften = self._moments.transform.product_softening
        return [soften(path, c) for c in range(len(self._moments.weights))]

    def places(self) -> Iterator[tuple[tuple[int, int], int, int]]:
        """Yield the index of each moment (pair, channel), and of both of its fields."""
        n_channels = len(self._moments.weights)
        for i, first, second in self._group.places:
            shift = self._moments.transform.pairs[i].shift
            for c in range(n_channels):
                other = (c + shift) % n_channels
                yield (i, c), first * n_channels + c, second * n_channels + other

    def chunks(self) -> Iterator[_Chunk]:
        """Compute the fields, some points at a time."""
        halves = self._moments._halves[:, np.newaxis, np.newaxis]
        for points, weights in self._points():
            these = np.ascontiguousarray(points.T)
            of_kinds = point_sums.components(these, self._wavelets)
            components = np.matmul(self._wavelets.weights, of_kinds)
            squared = np.concatenate([self._squares(components, p) for p in self.paths])
            squared += self._squared_epsilon + _LEAST
            root = np.sqrt(squared)
            # NumPy is fast for powers that are the same for a whole array.
            powers = np.stack([root**half for half in halves.ravel().tolist()])
            slopes = powers * (halves / squared)
            powers -= self._squared_epsilon ** (halves / 2)
            yield _Chunk(these, weights, components, powers, slopes)

    def gradients(self, chunk: _Chunk) -> _Array:
        """Differentiate half of the squared moduli with respect to positions.

        Returns
        -------
        ndarray of shape (n_fields, 3 * n_atoms, n_points)
        """
        fields = np.array(
            [(self._scales.index(p.scales[0]), p.degree) for p in self.paths]
        )
        found: _Array = point_sums.gradients(
            chunk.points, self._wavelets, chunk.components, fields
        )
        return found

    def add_gradient(self, chunk: _Chunk, factors: _Array, total: _Array) -> None:
        """Add the derivatives of a sum over points of half of the squared moduli.

        `factors` are of shape (n_fields, n_points).
        """
        onto = np.zeros_like(chunk.components)
        n_channels = len(self._moments.weights)
        for k, path in enumerate(self.paths):
            where = self._where(path)
            of_path = factors[k * n_channels : (k + 1) * n_channels]
            onto[where] = chunk.components[where] * of_path
        of_kinds = np.matmul(self._wavelets.weights.T, onto)
        point_sums.add_gradient(chunk.points, self._wavelets, of_kinds, total)

    def _where(self, path: Path) -> tuple[int, slice]:
        """Return where the components of a path are."""
        degree = path.degree
        harmonics = slice(degree**2, (degree + 1) ** 2)
        return self._scales.index(path.scales[0]), harmonics

    def _squares(self, components: _Array, path: Path) -> _Array:
        squares: _Array = np.square(components[self._where(path)]).sum(axis=0)
        return squares

    def grids(self) -> tuple[Grid, Grid]:
        """Make the two grids of a body-centred one for the least width."""
        moments, width = self._moments, self._widths[0]
        exponents = moments.transform.exponents
        return product_grid(
            moments._frame, width, self._smoothness, exponents, moments._accuracy
        )

    def _points(self) -> Iterator[tuple[_Array, _Array]]:
        """Yield points of the grid, without those far from atoms, and their weights."""
        reach = self._margin * self._widths[0]
        positions = self._moments._frame.positions
        for grid in self.grids():
            for tile in cut_into_tiles(grid, positions, reach):
                x, y, z = tile.axes
                along_z = np.ones(len(z.points))
                points = np.stack(
                    [
                        np.outer(x.points[tile.rows], along_z),
                        np.outer(y.points[tile.columns], along_z),
                        np.broadcast_to(z.points, (len(tile.rows), len(z.points))),
                    ],
                    axis=-1,
                ).reshape(-1, 3)
                of_columns = x.weights[tile.rows] * y.weights[tile.columns]
                weights = np.outer(of_columns, z.weights).ravel()
                near = point_sums.near(points, positions[tile.atoms], reach)
                points, weights = points[near], weights[near]
                for part in cut(len(points), _POINTS):
                    yield points[part], weights[part]

    def products(self) -> _Array:
        """Integrate the products of two fields, one of them of the least width.

        Returns
        -------
        ndarray of shape (n_exponents, n_fields, n_fields)
            Fields are paths by channels. Other products are zero, as are those across
            channels where no pair needs them.
        """
        moments, transform = self._moments, self._moments.transform
        weights, positions = moments.weights, moments._frame.positions
        exponents, halves = np.asarray(transform.exponents), moments._halves
        dtype = "float64" if exponents.max() > DOUBLE else transform.dtype
        # As in `separable`, weights are such that fields fit into single precision.
        unit = np.abs(weights).max(axis=1, keepdims=True) * weights.shape[1]
        is_empty = unit[:, 0] == 0
        unit[is_empty] = 1.0
        field_unit = unit * ((2 * pi) ** -1.5 / AMPLITUDE)
        scales = power_scales(exponents) ** halves
        softening = self._softening / self._constants[..., np.newaxis]
        reach, effect = self._margin * self._widths[0], self._cut * self._widths[-1]
        total: Any = 0.0
        for grid in self.grids():
            for tile in cut_into_tiles(grid, positions, reach, effect):
                total = total + integrate_products(
                    np.ascontiguousarray(positions[tile.atoms].T),
                    (weights / unit * AMPLITUDE)[:, tile.atoms].astype(dtype),
                    tile,
                    self._widths,
                    self._degrees,
                    self._cut,
                    halves,
                    scales,
                    softening / field_unit[:, 0],
                    FLOOR**2,
                    transform.joins_channels,
                )
        # By channel, width and degree.
        units = (field_unit[:, :, np.newaxis] * self._constants).reshape(
            len(weights), -1
        )
        units = units ** halves[:, None, None] / scales[:, None, None]
        units[:, is_empty] = 0.0
        return self._in_order(total, units)

    def _in_order(self, products: _Array, units: _Array) -> _Array:
        """Bring products to the order of the fields, and give them their units."""
        n_exponents, n_groups = products.shape[:2]
        n_channels, n_degrees = len(self._moments.weights), self._degrees + 1
        by_channel = np.zeros((n_exponents, n_channels, n_degrees, *units.shape[1:]))
        shape = n_channels // n_groups, n_degrees, n_channels // n_groups, -1
        for g, of_group in enumerate(np.moveaxis(products, 1, 0)):
            these = slice(None) if n_groups == 1 else slice(g, g + 1)
            by_channel[:, these, :, these] = of_group.reshape(n_exponents, *shape)
        by_channel *= units[:, :, :n_degrees, None, None] * units[:, None, None]
        columns = [
            self._scales.index(p.scales[0]) * n_degrees + p.degree for p in self.paths
        ]
        narrow = [k for k, column in enumerate(columns) if column < n_degrees]
        chosen = by_channel[:, :, [columns[k] for k in narrow]][..., columns]
        found = np.zeros((n_exponents, *2 * (len(columns), n_channels)))
        found[:, narrow] = chosen.transpose(0, 2, 1, 4, 3)
        found[:, :, :, narrow] = chosen.transpose(0, 4, 3, 2, 1)
        return found.reshape(n_exponents, *2 * (len(columns) * n_channels,))


class MomentsEngine:
    """Adds mixed moments to the coefficients of free molecules and single atoms.

    Parameters
    ----------
    transform : Transform
        With the pairs.
    engine : Engine
        Computes the paths of the transform. Only a
        :class:`~skscatharm.engine.protocol.DifferentiableEngine` differentiates.
    """

    def __init__(self, transform: Transform, engine: Engine) -> None:
        self.transform = transform
        self._engine = engine
        self._of_pairs = list(transform.kept.of_pairs)
        exponents = tuple(transform.exponents[i] for i in self._of_pairs)
        self._pairs = replace(transform, exponents=exponents)

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a molecule needs at least."""
        return self._engine.memory(atoms)

    def coefficients(self, batch: Sequence[Atoms]) -> _Array:
        """Compute the coefficients of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_integrands, n_channels, n_exponents)
        """
        return self._completed(batch, self._engine.coefficients(batch))

    def jacobian(self, batch: Sequence[Atoms]) -> list[_Array]:
        """Differentiate the coefficients of molecules.

        Returns
        -------
        list of ndarray of shape (n_integrands, n_channels, n_exponents, n_atoms, 3)
        """
        found = []
        for atoms, of_paths in zip(
            batch, self._differentiable.jacobian(batch), strict=True
        ):
            of_pairs = np.zeros((len(self.transform.pairs), *of_paths.shape[1:]))
            of_pairs[:, :, self._of_pairs] = self._moments(atoms).jacobian()
            found.append(np.concatenate([of_paths, of_pairs]))
        return found

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[_Array]
    ) -> list[_Array]:
        """Differentiate weighted sums of the coefficients of molecules.

        `weights` are of shape (n_integrands, n_channels, n_exponents).

        Returns
        -------
        list of ndarray of shape (n_atoms, 3)
        """
        n_paths = len(self.transform.paths)
        of_paths = self._differentiable.gradient(batch, [w[:n_paths] for w in weights])
        return self._added(batch, weights, of_paths)

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[_Array]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments and results are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        n_paths = len(self.transform.paths)
        coefficients = weights = np.empty(0)

        def weigh_paths(of_paths: _Array) -> _Array:
            nonlocal coefficients, weights
            coefficients = self._completed(batch, of_paths)
            weights = weigh(coefficients)
            return weights[:, :n_paths]

        _, of_paths = self._differentiable.linearize(batch, weigh_paths)
        return coefficients, self._added(batch, weights, of_paths)

    @property
    def _differentiable(self) -> DifferentiableEngine:
        return cast(DifferentiableEngine, self._engine)

    def _moments(self, atoms: Atoms) -> MixedMoments:
        return MixedMoments(atoms, self._pairs)

    def _completed(self, batch: Sequence[Atoms], of_paths: _Array) -> _Array:
        n_paths, transform = len(self.transform.paths), self.transform
        shape = len(batch[0].weights), len(transform.exponents)
        found = np.zeros((len(batch), len(transform.integrands), *shape))
        if n_paths:
            found[:, :n_paths] = of_paths
        for of_molecule, atoms in zip(found[:, n_paths:], batch, strict=True):
            of_molecule[..., self._of_pairs] = self._moments(atoms).coefficients()
        return found

    def _added(
        self,
        batch: Sequence[Atoms],
        weights: Sequence[_Array] | _Array,
        of_paths: Sequence[_Array],
    ) -> list[_Array]:
        n_paths = len(self.transform.paths)
        return [
            gradient
            + self._moments(atoms).gradient(of_molecule[n_paths:][..., self._of_pairs])
            for atoms, of_molecule, gradient in zip(
                batch, weights, of_paths, strict=True
            )
        ]
