r"""Mixed moments of free molecules: integrals of products of two fields of order 1.

For fields U and U' they are those of

.. math:: h_{q/2}(U) \, h_{q/2}(U')

with the softened powers h of moduli. The densities of channels with weights of both
signs, which have kinks, are softened too. A product vanishes where the narrower field
does, and is about as smooth. So pairs share the grid of the narrower width: on it, the
integrals of all pairs are a matrix product. Coefficients come from
:mod:`skscatharm.engine.products`, gradients of sums of them from
:mod:`skscatharm.engine.product_gradients`, and all derivatives from
:mod:`skscatharm.engine.product_jacobians`.

Where the grid is fine enough for paths of order 1 too, they share it. With the
softening :math:`\epsilon` of U, they are integrals of

.. math:: h_q(U) = h_{q/2}(U)^2 + 2 \epsilon^{q/2} h_{q/2}(U) .

So a constant field stands beside the others in products.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import hypot, pi
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.accuracy import DOUBLE, Accuracy
from skscatharm.engine.frame import Frame
from skscatharm.engine.pooling import AMPLITUDE, FLOOR, power_scales
from skscatharm.engine.product_fields import Basis
from skscatharm.engine.product_gradients import differentiate_products
from skscatharm.engine.product_jacobians import differentiate_all_products
from skscatharm.engine.products import integrate_products
from skscatharm.engine.protocol import Atoms, DifferentiableEngine, Engine
from skscatharm.engine.quadrature import Grid, product_grid, product_margin
from skscatharm.engine.tiles import Tile, cut_into_tiles
from skscatharm.transform.harmonics import wavelet_constant
from skscatharm.transform.paths import PairGroup, Path, group_pairs
from skscatharm.transform.transform import Transform

__all__ = ["MixedMoments", "MomentsEngine", "with_moments"]

_Array = NDArray[np.float64]
_Indices = NDArray[np.intp]
_Places = tuple[_Indices, _Indices]


class MixedMoments:
    """The mixed moments of a free molecule, and paths that share their grids.

    Parameters
    ----------
    atoms : Atoms
    transform : Transform
        With the pairs and these paths alone.
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
        of_kinds, kinds = np.unique(self.weights, axis=1, return_inverse=True)
        self.of_kinds, self.kinds = np.ascontiguousarray(of_kinds), kinds.ravel()

    @property
    def _shape(self) -> tuple[int, int, int]:
        n_integrands = len(self.transform.integrands)
        return n_integrands, len(self.weights), len(self._halves)

    def coefficients(self) -> _Array:
        """Compute all coefficients.

        Returns
        -------
        ndarray of shape (n_integrands, n_channels, n_exponents)
        """
        found = np.zeros(self._shape)
        for group in self._groups:
            fields = _Fields(self, group)
            sums = np.moveaxis(fields.products(), 0, -1)
            places, a, b = fields.places()
            found[places] = sums[a, b]
            places, a = fields.places_alone()
            found[places] = sums[a, a] + 2 * fields.low[a] * sums[a, -1]
        return found

    def jacobian(self) -> _Array:
        """Differentiate all coefficients.

        Returns
        -------
        ndarray of shape (n_integrands, n_channels, n_exponents, n_atoms, 3)
        """
        found = np.zeros((*self._shape, *self._frame.positions.shape))
        for group in self._groups:
            fields = _Fields(self, group)
            sums = fields.jacobian() @ self._frame.rotation.T
            places, a, b = fields.places()
            (g, one), (_, other) = map(fields.place_in_group, (a, b))
            found[places] = sums[g, :, one, other] + sums[g, :, other, one]
            places, a = fields.places_alone()
            g, one = fields.place_in_group(a)
            low = fields.low[a][..., np.newaxis, np.newaxis]
            found[places] = 2 * (sums[g, :, one, one] + low * sums[g, :, -1, one])
        return found

    def gradient(self, factors: _Array) -> _Array:
        """Differentiate the sum of all coefficients with factors.

        `factors` are of shape (n_integrands, n_channels, n_exponents).

        Returns
        -------
        ndarray of shape (n_atoms, 3)
        """
        total = np.zeros_like(self._frame.positions)
        factors = np.moveaxis(factors, -1, 0)
        for group in self._groups:
            fields = _Fields(self, group)
            n = len(fields.paths) * len(self.weights)
            # By exponent, field that is differentiated, and partner.
            of_pairs = np.zeros((len(self._halves), n, n + 1))
            places, a, b = fields.places()
            of_pairs[:, a, b] += factors[:, *places]
            of_pairs[:, b, a] += factors[:, *places]
            places, a = fields.places_alone()
            of_pairs[:, a, a] += 2 * factors[:, *places]
            of_pairs[:, a, -1] += 2 * factors[:, *places] * fields.low.T[:, a]
            total += fields.gradient(of_pairs)
        return total @ self._frame.rotation.T


class _Fields:
    """The fields of a group on its grid.

    Attributes
    ----------
    paths : list of Path
        The narrowest come first.
    low : ndarray of shape (n_fields, n_exponents)
        Powers of the softening, to half of the exponents.
    """

    def __init__(self, moments: MixedMoments, group: PairGroup) -> None:
        transform = moments.transform
        sigma = transform.sigma
        self._moments = moments
        self._group = group
        self.paths = group.fields
        self._scales = sorted({path.scales[0] for path in self.paths})
        # The scale and the degree of each field.
        places = [
            (self._scales.index(path.scales[0]), path.degree) for path in self.paths
        ]
        self._degrees = max(path.degree for path in self.paths)
        # Its index among those of all degrees, by width.
        self._columns = np.array(places) @ [self._degrees + 1, 1]
        self._widths = np.array([hypot(sigma, sigma * 2**j) for j in self._scales])
        degrees = np.arange(self._degrees + 1)
        scales = sigma * 2.0 ** np.array(self._scales)[:, np.newaxis]
        widths = self._widths[:, np.newaxis]
        # Factors of solid harmonics times Gaussians, both in widths.
        self._constants = (scales / widths) ** degrees / widths**3
        # The constants of the wavelets of each degree.
        self._of_degrees = [wavelet_constant(d) for d in range(len(degrees))]
        self._softening = np.array(
            [
                [self._softening_of(Path((j,), d)) for d in range(len(degrees))]
                for j in self._scales
            ]
        )
        # Softened densities need the grid of other softened fields.
        self._smoothness = max(self._degrees, 1 if transform.signed else 0)
        self._rule = (
            self._widths.tolist(),
            self._smoothness,
            transform.exponents,
            moments._accuracy,
        )
        self._margin = product_margin(*self._rule)
        self._cut = moments._accuracy.product_cut(self._degrees, self._margin)
        epsilon = np.array([self._softening_of(path) for path in self.paths])
        self.low = epsilon.reshape(-1, 1) ** moments._halves

    def _softening_of(self, path: Path) -> list[float]:
        """Return the softening of a modulus in each channel."""
        soften = self._moments.transform.product_softening
        return [soften(path, c) for c in range(len(self._moments.weights))]

    def places(self) -> tuple[_Places, _Indices, _Indices]:
        """Return where all pairs are (integrands, channels), and their two fields.

        Arrays are of shape (n_pairs, n_channels), or broadcast to it.
        """
        n_channels = len(self._moments.weights)
        transform = self._moments.transform
        pairs, first, second = np.array(self._group.places).T[..., np.newaxis]
        shifts = [[transform.pairs[i].shift] for i, _, _ in self._group.places]
        channels = np.arange(n_channels)
        others = (channels + shifts) % n_channels
        places = len(transform.paths) + pairs, channels
        return places, first * n_channels + channels, second * n_channels + others

    def places_alone(self) -> tuple[_Places, _Indices]:
        """Return the same for paths of the least width, and their fields."""
        channels = np.arange(len(self._moments.weights))
        paths, narrow = self._moments.transform.paths, self._group.narrow
        these = [i for i, path in enumerate(paths) if path in narrow]
        fields = [narrow.index(paths[i]) for i in these]
        rows = np.array([these, fields], dtype=np.intp)[..., np.newaxis]
        return (rows[0], channels), rows[1] * len(channels) + channels

    def grids(self) -> tuple[Grid, Grid]:
        """Make the two grids of a body-centred one for the least width."""
        return product_grid(self._moments._frame, *self._rule)

    def products(self) -> _Array:
        """Integrate the products of two fields, one of them of the least width.

        Returns
        -------
        ndarray of shape (n_exponents, n_fields, n_fields + 1)
            Fields are paths by channels; the last one is constant. Other products are
            zero, as are those across channels where no pair needs them.
        """
        moments, transform = self._moments, self._moments.transform
        weights, positions = moments.weights, moments._frame.positions
        exponents, halves = np.asarray(transform.exponents), moments._halves
        # As in `separable`, weights are such that fields fit into single precision.
        unit = np.abs(weights).max(axis=1, keepdims=True) * weights.shape[1]
        is_empty = unit[:, 0] == 0
        unit[is_empty] = 1.0
        field_unit = unit * ((2 * pi) ** -1.5 / AMPLITUDE)
        scales = power_scales(exponents) ** halves
        softening = self._softening / self._constants[..., np.newaxis]
        basis = Basis.of(moments.of_kinds / unit * AMPLITUDE, moments.kinds)
        products: Any = 0.0
        alone: Any = 0.0
        for tile in self._tiles():
            of_tile = integrate_products(
                np.ascontiguousarray(positions[tile.atoms].T),
                basis.take(tile.atoms, self._dtype),
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
            products, alone = products + of_tile[0], alone + of_tile[1]
        # By channel, width and degree.
        units = (field_unit[:, :, np.newaxis] * self._constants).reshape(
            len(weights), -1
        )
        units = units ** halves[:, None, None] / scales[:, None, None]
        units[:, is_empty] = 0.0
        return self._in_order(products, alone, units)

    def gradient(self, factors: _Array) -> _Array:
        """Differentiate the sum of products of two fields with factors.

        `factors` are of shape (n_exponents, n_fields, n_fields + 1): of the derivative
        of the first field times the second.

        Returns
        -------
        ndarray of shape (n_atoms, 3)
            In the frame of the molecule.
        """
        moments, n_fields = self._moments, self._softening.size
        # By width, degree and channel.
        channels = np.arange(len(moments.weights))
        place = (self._columns[:, np.newaxis] * len(channels) + channels).ravel()
        of_fields = np.zeros((len(factors), n_fields, n_fields + 1))
        partners = np.append(place, n_fields)
        of_fields[:, place[:, np.newaxis], partners] = factors
        n_narrow = n_fields // len(self._widths)
        of_narrow, of_wide = np.split(of_fields, [n_narrow], axis=1)
        positions = moments._frame.positions
        basis = Basis.of(moments.of_kinds, moments.kinds)
        total = np.zeros_like(positions)
        for tile in self._tiles():
            total[tile.atoms] += differentiate_products(
                np.ascontiguousarray(positions[tile.atoms].T),
                basis.take(tile.atoms, np.float64),
                tile,
                self._widths,
                self._constants * self._of_degrees,
                self._cut,
                moments._halves,
                self._softening,
                np.ascontiguousarray(of_narrow),
                np.ascontiguousarray(of_wide[..., :n_narrow]),
            )
        return total

    def jacobian(self) -> _Array:
        """Differentiate the integrals of products with respect to one of the fields.

        Returns
        -------
        ndarray of shape (n_groups, n_exponents, n_fields + 1, n_fields, n_atoms, 3)
            By group of channels, exponent, partner, and field that is differentiated,
            in the frame of the molecule. :meth:`place_in_group` says where fields are.
        """
        moments, transform = self._moments, self._moments.transform
        halves, positions = moments._halves, moments._frame.positions
        # Fields fit into single precision where no weight is larger than 1.
        unit = np.abs(moments.weights).max() or 1.0
        basis = Basis.of(moments.of_kinds / unit, moments.kinds)
        n = self._softening.size // self._n_groups
        total = np.zeros((self._n_groups, len(halves), n + 1, n, *positions.shape))
        for tile in self._tiles():
            total[..., tile.atoms, :] += differentiate_all_products(
                np.ascontiguousarray(positions[tile.atoms].T),
                basis.take(tile.atoms, np.float64),
                tile,
                self._widths,
                self._constants * self._of_degrees,
                self._cut,
                halves,
                self._softening / unit,
                transform.joins_channels,
                self._dtype,
            )
        powers = (unit**halves)[:, *[np.newaxis] * 4]
        total *= powers
        total[:, :, :-1] *= powers  # the last partner is one everywhere
        return total

    @property
    def _dtype(self) -> str:
        """Type of numbers whose products are summed."""
        transform = self._moments.transform
        return "float64" if max(transform.exponents) > DOUBLE else transform.dtype

    @property
    def _n_groups(self) -> int:
        """Number of groups of channels whose fields are multiplied with each other."""
        moments = self._moments
        return 1 if moments.transform.joins_channels else len(moments.weights)

    def place_in_group(self, fields: _Indices) -> tuple[_Indices, _Indices]:
        """Return where fields are in :meth:`jacobian`: their groups and indices."""
        n_channels = len(self._moments.weights)
        in_group = n_channels // self._n_groups
        paths, channels = np.divmod(fields, n_channels)
        groups, places = np.divmod(channels, in_group)
        return groups, self._columns[paths] * in_group + places

    def _tiles(self) -> Iterator[Tile]:
        """Yield the tiles of both grids."""
        reach, effect = self._margin * self._widths[0], self._cut * self._widths[-1]
        for grid in self.grids():
            yield from cut_into_tiles(
                grid, self._moments._frame.positions, reach, effect
            )

    def _in_order(self, products: _Array, alone: _Array, units: _Array) -> _Array:
        """Bring products to the order of the fields, and give them their units."""
        n_exponents, n_groups = products.shape[:2]
        n_channels, n_degrees = len(self._moments.weights), self._degrees + 1
        by_channel = np.zeros((n_exponents, n_channels, n_degrees, *units.shape[1:]))
        shape = n_channels // n_groups, n_degrees, n_channels // n_groups, -1
        for g, of_group in enumerate(np.moveaxis(products, 1, 0)):
            these = slice(None) if n_groups == 1 else slice(g, g + 1)
            by_channel[:, these, :, these] = of_group.reshape(n_exponents, *shape)
        of_narrow = units[:, :, :n_degrees]
        by_channel *= of_narrow[..., None, None] * units[:, None, None]
        alone = alone.reshape(of_narrow.shape) * of_narrow
        columns = self._columns
        narrow = columns[: len(self._group.narrow)]
        of_pairs = by_channel[:, :, narrow][..., columns]
        found = np.zeros((n_exponents, *2 * (len(columns), n_channels)))
        found[:, : len(narrow)] = of_pairs.transpose(0, 2, 1, 4, 3)
        found[:, :, :, : len(narrow)] = of_pairs.transpose(0, 4, 3, 2, 1)
        with_constant = np.zeros(found.shape[:3])
        with_constant[:, : len(narrow)] = alone[..., narrow].swapaxes(1, 2)
        n = len(columns) * n_channels
        return np.concatenate(
            [
                found.reshape(n_exponents, n, n),
                with_constant.reshape(n_exponents, n, 1),
            ],
            axis=2,
        )


def with_moments(make: Callable[[Transform], Engine], transform: Transform) -> Engine:
    """Make an engine of paths that computes pairs too, if there are any."""
    return MomentsEngine(transform, make) if transform.pairs else make(transform)


class MomentsEngine:
    """Computes free molecules and single atoms: pairs here, and paths elsewhere.

    Parameters
    ----------
    transform : Transform
        With the pairs.
    make : callable
        Makes the engine of the paths that do not share the grids of pairs. Only a
        :class:`~skscatharm.engine.protocol.DifferentiableEngine` differentiates.
    """

    def __init__(
        self, transform: Transform, make: Callable[[Transform], Engine]
    ) -> None:
        self.transform = transform
        shared = _shared_paths(transform)
        others = tuple(path for path in transform.paths if path not in shared)
        self._engine = make(replace(transform, paths=others))
        # Where the integrands of the engine are, and those of mixed moments.
        self._others = [transform.paths.index(path) for path in others]
        self._here = [
            i for i in range(len(transform.integrands)) if i not in self._others
        ]
        self._of_pairs = list(transform.kept.of_pairs)
        exponents = tuple(transform.exponents[i] for i in self._of_pairs)
        self._pairs = replace(
            transform,
            paths=shared,
            exponents=exponents,
            path_exponents=None,
            pair_exponents=None,
        )

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
            here = np.zeros((len(self._here), *of_paths.shape[1:]))
            here[:, :, self._of_pairs] = self._moments(atoms).jacobian()
            found.append(self._joined(of_paths, here))
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
        others = [of_molecule[self._others] for of_molecule in weights]
        return self._added(batch, weights, self._differentiable.gradient(batch, others))

    def linearize(
        self, batch: Sequence[Atoms], weigh: Callable[[_Array], _Array]
    ) -> tuple[_Array, list[_Array]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        The arguments and results are those of
        :meth:`~skscatharm.engine.protocol.DifferentiableEngine.linearize`.
        """
        coefficients = weights = np.empty(0)

        def weigh_paths(of_paths: _Array) -> _Array:
            nonlocal coefficients, weights
            coefficients = self._completed(batch, of_paths)
            weights = weigh(coefficients)
            return weights[:, self._others]

        _, of_paths = self._differentiable.linearize(batch, weigh_paths)
        return coefficients, self._added(batch, weights, of_paths)

    @property
    def _differentiable(self) -> DifferentiableEngine:
        return cast(DifferentiableEngine, self._engine)

    def _moments(self, atoms: Atoms) -> MixedMoments:
        return MixedMoments(atoms, self._pairs)

    def _completed(self, batch: Sequence[Atoms], of_paths: _Array) -> _Array:
        shape = len(self._here), len(batch[0].weights), len(self.transform.exponents)
        found = []
        for others, atoms in zip(of_paths, batch, strict=True):
            here = np.zeros(shape)
            here[..., self._of_pairs] = self._moments(atoms).coefficients()
            found.append(self._joined(others, here))
        return np.stack(found)

    def _joined(self, others: _Array, here: _Array) -> _Array:
        """Join what belongs to each integrand."""
        found = np.empty((len(self.transform.integrands), *here.shape[1:]))
        found[self._here] = here
        if self._others:
            found[self._others] = others
        return found

    def _added(
        self,
        batch: Sequence[Atoms],
        weights: Sequence[_Array] | _Array,
        of_paths: Sequence[_Array],
    ) -> list[_Array]:
        return [
            gradient
            + self._moments(atoms).gradient(
                of_molecule[self._here][..., self._of_pairs]
            )
            for atoms, of_molecule, gradient in zip(
                batch, weights, of_paths, strict=True
            )
        ]


def _shared_paths(transform: Transform) -> tuple[Path, ...]:
    """List the paths whose moduli are integrated on the grids of pairs."""
    if not transform.shares_grids:
        return ()
    narrow = {path for group in group_pairs(transform.pairs) for path in group.narrow}
    return tuple(path for path in transform.paths if path in narrow)
