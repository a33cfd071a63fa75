r"""Integrals of products of two fields, and their derivatives.

For fields U and U' of order 1, they are those of

.. math:: h_{q/2}(U) \, h_{q/2}(U')

with the softened powers h of moduli. Products belong to the finer grid of both, so
fields are computed once for each width of the narrower field. On a grid, the integrals
of all pairs are a matrix product.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.lattice import Lattice, Resolution
from skscatharm.engine.protocol import Derivatives
from skscatharm.engine.sources import Source
from skscatharm.engine.spectral import Field, FieldSettings, SpectralFields
from skscatharm.engine.squares import Square
from skscatharm.transform.modulus import power, soften
from skscatharm.transform.paths import Pair, Path, group_pairs

__all__ = ["PairFields", "share_grids"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes


class _Group(NamedTuple):
    """Pairs on a common grid.

    Attributes
    ----------
    settings : FieldSettings
        Of the fields, which are its paths. Of their moduli alone, not of powers.
    pairs : list of (int, int, int)
        Index of each pair among all, and of both of its fields among the paths.
    """

    settings: FieldSettings
    pairs: list[tuple[int, int, int]]


def share_grids(settings: FieldSettings, pairs: Sequence[Pair]) -> list[_Group]:
    """Group pairs by the width of the narrower field.

    Parameters
    ----------
    settings : FieldSettings
        Its paths have no effect.
    pairs : sequence of Pair
    """
    groups = []
    for paths, places in group_pairs(pairs):
        steps, spectral_steps, reaches = zip(
            *map(settings.resolution, paths), strict=True
        )
        of_group = settings._replace(
            paths=tuple(paths),
            exponents=np.ones(1),
            common=Resolution(min(steps), min(spectral_steps), max(reaches)),
        )
        groups.append(_Group(of_group, places))
    return groups


class _Factor(NamedTuple):
    """One field of products.

    Attributes
    ----------
    square : Square
    epsilon : ndarray of shape (n_molecules, n_channels, 1, 1, 1)
        Softening.
    least : array or None
        The least square that is more than noise, where noise matters.
    """

    square: Square
    epsilon: _Array
    least: Array | None

    def powers(
        self, start: int, stop: int, exponents: Iterable[float], xp: Any
    ) -> Iterator[Array]:
        """Compute the powers of the moduli in some planes."""
        squared = self.square.planes(start, stop)
        if self.least is not None:
            squared *= xp.asarray(squared > self.least, dtype=squared.dtype)
        epsilon = _like(self.epsilon, squared, xp)
        root, modulus = soften(squared, epsilon)
        for p in exponents:
            yield power(squared, root, modulus, epsilon, p)


class _Products(NamedTuple):
    """The fields of a group, and the integrals of products.

    Attributes
    ----------
    spectral : SpectralFields
    group : _Group
    fields : list of _Factor
    lattice : Lattice
    factors : ndarray of shape (n_fields, n_fields, n_molecules, n_channels, \
n_exponents)
        Volume of a point times the units of a product.
    """

    spectral: SpectralFields
    group: _Group
    fields: list[_Factor]
    lattice: Lattice
    factors: _Array


class PairFields:
    """The products of fields of a source.

    Parameters
    ----------
    source, settings, xp, dtype
        As for :class:`~skscatharm.engine.spectral.SpectralFields`.
    pairs : sequence of Pair
    double : Source
        The same in double precision, for densities. They are not softened, and beside a
        field that vanishes at the atoms their tails count, where single precision has
        but noise.
    """

    def __init__(
        self,
        source: Source,
        settings: FieldSettings,
        pairs: Sequence[Pair],
        xp: Any,
        dtype: str,
        double: Source,
    ) -> None:
        self.source = source
        self.xp = xp
        self._halves = settings.exponents / 2
        n_molecules, n_channels, _ = source.unit.shape
        self._shape = n_molecules, len(pairs), n_channels, len(self._halves)
        self._groups = [
            (
                SpectralFields(source, group.settings, xp, dtype, True),
                SpectralFields(double, group.settings, xp, "float64", True),
                group,
            )
            for group in share_grids(settings, pairs)
        ]

    def coefficients(self) -> _Array:
        """Compute all pairs.

        Returns
        -------
        ndarray of shape (n_molecules, n_pairs, n_channels, n_exponents)
        """
        found = np.zeros(self._shape)
        for products in self._products():
            slabs = products.fields[0].square.slabs()
            powers = (self._powers(products, *slab) for slab in slabs)
            self._integrate(products, powers, found)
        return found

    def jacobian(self) -> Derivatives:
        """Differentiate all pairs.

        Returns
        -------
        Derivatives
            Of shapes (n_molecules, n_pairs, n_channels, n_exponents, n_atoms, 3) and
            (n_molecules, n_pairs, n_channels, n_exponents, 3, 3).
        """
        integrals = np.zeros(self._shape)
        found: Any = None
        for products in self._products():
            powers = self._all_powers(products)
            self._integrate(products, [powers], integrals)
            for a, path, field, slopes in self._sweeps(products):
                for i, b in _partners(products.group, a):
                    for e, slope in enumerate(slopes):
                        factors = self._array(products.factors[a, b, ..., e])
                        onto = factors * slope * powers[e][:, :, b, ...]
                        of_one = self._back(products.spectral, path, field, onto)
                        if found is None:
                            found = Derivatives(
                                *(
                                    np.zeros((*self._shape, *d.shape[2:]))
                                    for d in of_one
                                )
                            )
                        for total, part in zip(found, of_one, strict=True):
                            total[:, i, :, e] += part
        return Derivatives(found.positions, found.strain + _of_volume(integrals))

    def gradient(self, factors: _Array) -> Derivatives:
        """Differentiate the sums of all pairs with factors.

        `factors` are of shape (n_molecules, n_pairs, n_channels, n_exponents).

        Returns
        -------
        Derivatives
            Of shapes (n_molecules, n_atoms, 3) and (n_molecules, 3, 3).
        """
        integrals = np.zeros(self._shape)
        positions: Any = 0.0
        strain: Any = 0.0
        for products in self._products():
            powers = self._all_powers(products)
            self._integrate(products, [powers], integrals)
            for a, path, field, slopes in self._sweeps(products):
                onto: Any = 0.0
                for e, slope in enumerate(slopes):
                    others: Any = 0.0
                    for i, b in _partners(products.group, a):
                        scaled = products.factors[a, b, ..., e] * factors[:, i, :, e]
                        others = others + self._array(scaled) * powers[e][:, :, b, ...]
                    onto = onto + slope * others
                of_field = self._back(products.spectral, path, field, onto)
                positions = positions + of_field.positions.sum(axis=1)
                strain = strain + of_field.strain.sum(axis=1)
        sums = np.sum(factors * integrals, axis=(1, 2, 3))
        return Derivatives(positions, strain + _of_volume(sums))

    def _products(self) -> Iterator[_Products]:
        for spectral, densities, group in self._groups:
            paths = group.settings.paths
            fields = [
                self._factor(spectral if path.degree else densities, path)
                for path in paths
            ]
            units = np.stack(
                [
                    (self.source.unit * spectral.constant(path)) ** self._halves
                    for path in paths
                ]
            )
            lattice = fields[0].square.lattice
            factors = lattice.volume * units[:, np.newaxis] * units
            yield _Products(spectral, group, fields, lattice, factors)

    def _factor(self, fields: SpectralFields, path: Path) -> _Factor:
        is_noisy = fields.is_noisy(path, self._halves.min())
        least = fields.least_square(path) if is_noisy else None
        return _Factor(fields.square(path), fields.epsilon(path), least)

    def _all_powers(self, products: _Products) -> list[Array]:
        return self._powers(products, 0, products.lattice.shape[0])

    def _powers(self, products: _Products, start: int, stop: int) -> list[Array]:
        """Compute half of the powers of products, of all fields in some planes.

        Returns
        -------
        list of array of shape (n_molecules, n_channels, n_fields, stop - start, n_y, \
n_z)
            By exponent.
        """
        n_molecules, _, n_channels, _ = self._shape
        planes = stop - start, *products.lattice.shape[1:]
        shape = n_molecules, n_channels, len(products.fields), *planes
        found = [
            self.xp.empty(shape, dtype=products.spectral.dtype) for _ in self._halves
        ]
        for f, field in enumerate(products.fields):
            powers = field.powers(start, stop, self._halves.tolist(), self.xp)
            for of_exponent, values in zip(found, powers, strict=True):
                of_exponent[:, :, f, ...] = self.xp.asarray(
                    values, dtype=of_exponent.dtype
                )
        return found

    def _integrate(
        self, products: _Products, parts: Iterable[list[Array]], found: _Array
    ) -> None:
        """Integrate products of powers, which come in parts, for all pairs."""
        xp = self.xp
        for powers in parts:
            for e, of_exponent in enumerate(powers):
                rows = xp.reshape(of_exponent, (*of_exponent.shape[:3], -1))
                sums = to_numpy(rows @ xp.matrix_transpose(rows))
                for i, a, b in products.group.pairs:
                    found[:, i, :, e] += (
                        sums[..., a, b] * products.factors[a, b, ..., e]
                    )

    def _sweeps(
        self, products: _Products
    ) -> Iterator[tuple[int, Path, Field, list[Array]]]:
        """Yield each field, with derivatives of its powers with respect to the modulus.

        Only the components of one field are held at a time.
        """
        for a, path in enumerate(products.group.settings.paths):
            field = products.spectral.atoms(path)
            root, _ = soften(
                field.squared, _like(field.epsilon, field.squared, self.xp)
            )
            none = self.xp.zeros_like(root)
            slopes = [
                self.xp.where(field.squared > 0, p * root ** (p - 1), none)
                for p in self._halves.tolist()
            ]
            yield a, path, field, slopes

    def _back(
        self, spectral: SpectralFields, path: Path, field: Field, onto: Array
    ) -> Derivatives:
        none = np.zeros((*field.squared.shape[:2], 1))
        return spectral.atoms_back(path, field, none, onto)

    def _array(self, factors: _Array) -> Array:
        """Shape factors of molecules and channels like fields."""
        values = factors[..., np.newaxis, np.newaxis, np.newaxis]
        return self.xp.asarray(values, dtype=self._groups[0][0].dtype)


def _like(epsilon: _Array, squared: Array, xp: Any) -> Array | float:
    """Return softening as an array like squares, or 0 if there is none."""
    return xp.asarray(epsilon, dtype=squared.dtype) if epsilon.any() else 0.0


def _partners(group: _Group, field: int) -> list[tuple[int, int]]:
    """Return indices of the pairs of a field, and of the other fields in them."""
    return [(i, a + b - field) for i, a, b in group.pairs if field in (a, b)]


def _of_volume(integrals: _Array) -> _Array:
    """Differentiate the volume of the points with respect to strain."""
    strain: _Array = integrals[..., np.newaxis, np.newaxis] * np.eye(3)
    return strain
