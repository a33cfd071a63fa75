r"""Fields as Fourier series, and derivatives of their integrals.

The spectrum of a source times that of a wavelet is the spectrum of a field of order 1,
and a real FFT gives the values. The spectrum of their modulus is a matrix product along
each edge of the box; it is taken only at the wavevectors that the next wavelet leaves
over, which are few, and those of another box.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

from skscatharm.engine import compiled, portable
from skscatharm.engine.accuracy import SOFT, Accuracy
from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.fourier_transform import to_points, to_waves
from skscatharm.engine.lattice import Lattice, Resolution
from skscatharm.engine.pooling import AMPLITUDE, power_scales
from skscatharm.engine.protocol import Derivatives
from skscatharm.engine.sources import AtomSource, Source, phases, sum_over_points
from skscatharm.engine.squares import Square
from skscatharm.transform.harmonics import (
    wavelet_gradients_in_frequency,
    wavelets_in_frequency,
)
from skscatharm.transform.modulus import (
    KinkRounding,
    path_peak,
    power_derivative,
    soften,
)
from skscatharm.transform.paths import Path

__all__ = ["Field", "FieldSettings", "SpectralFields"]

_Array = NDArray[np.float64]
Array = Any  # of the array library that computes

_NOISE = {"float32": 1e-6, "float64": 3e-15}  # of FFTs, in largest values of a field


class FieldSettings(NamedTuple):
    """What is computed, and how finely.

    Attributes
    ----------
    paths : tuple of Path
    exponents : ndarray of shape (n_exponents,)
    sigma : float
        Width of the Gaussian of an atom.
    softening : float
    accuracy : Accuracy
    spacing : float
        Distance of neighbouring atoms, or less.
    density : float, default=0
        Number of atoms per volume of a crystal.
    common : Resolution or None, default=None
        What the grid of all fields has to be, if they are multiplied with each other.
    """

    paths: tuple[Path, ...]
    exponents: _Array
    sigma: float
    softening: float
    accuracy: Accuracy
    spacing: float
    density: float = 0.0
    common: Resolution | None = None

    def width(self, path: Path) -> float:
        """Width of the field of a path, at least."""
        return _path_width(path, self.sigma)

    def resolution(self, path: Path) -> Resolution:
        """Return what the field of a path asks of its grid."""
        if self.common is not None:
            return self.common
        width = self.width(path)
        order, degree = max(1, len(path.scales)), path.degree
        step = self.accuracy.step(order, degree, self.spacing / width)
        return Resolution(
            step * self.accuracy.overlap(degree, self.density * width**3) * width,
            self.spectral_step(path),
            self.accuracy.margin(degree) * width,
        )

    def spectral_step(self, path: Path, power: int = 1) -> float:
        """Return the step of a grid that holds the spectrum of the field of a path.

        With a `power` of 2, it is that of its square.
        """
        return self.accuracy.spectral_step(path.degree, power) * self.width(path)

    def count_points(self, lattice: Callable[[Resolution], Lattice]) -> int:
        """Count the points of the finest grid that `lattice` makes."""
        return max(
            (prod(lattice(self.resolution(path)).shape) for path in self.paths),
            default=0,
        )


class Field(NamedTuple):
    """A modulus on a grid, of shape (n_molecules, n_channels, n_x, n_y, n_z).

    Attributes
    ----------
    modulus : array
    moments : ndarray of shape (n_molecules, n_channels, n_exponents)
        Integrals of its powers.
    squared : array
        For derivatives, the square of the field; 0 where it is nothing but noise.
    epsilon : ndarray of shape (n_molecules, n_channels, 1, 1, 1)
        Softening.
    lattice : Lattice
    spectrum : array or None
        For derivatives, the spectrum of what met the last wavelets.
    components : sequence of array
        For derivatives, the components of the field. A density that changes sign has
        itself and the sum of the moduli of its atoms.
    kinks : float or None
        For a density that changes sign, the width of the kernel that rounds kinks.
    """

    modulus: Array
    moments: _Array
    squared: Array
    epsilon: _Array
    lattice: Lattice
    spectrum: Array | None
    components: Sequence[Array]
    kinks: float | None = None


class SpectralFields:
    """The fields of a source, in boxes that its samples share.

    Fields come without what is common to all their points: a power of the scales and
    the units of the weights.

    Parameters
    ----------
    source : Source
        For derivatives, an :class:`~skscatharm.engine.sources.AtomSource`.
    settings : FieldSettings
    xp : module
        Namespace of the array library.
    dtype : {"float32", "float64"}
        Precision of the fields.
    derivatives : bool, default=False
        Keep what derivatives need.
    """

    def __init__(
        self,
        source: Source,
        settings: FieldSettings,
        xp: Any,
        dtype: str,
        derivatives: bool = False,
    ) -> None:
        self.source = source
        self.settings = settings
        self.accuracy = settings.accuracy
        self.Q = settings.exponents
        self.rounding = KinkRounding(self.Q, self.accuracy.kink_kernel[0])
        self.xp = xp
        self.dtype = getattr(xp, dtype)
        self.scales = power_scales(self.Q)
        self.kernels: Any = compiled if is_numpy_namespace(xp) else portable
        self.noise = _NOISE[dtype]
        self.derivatives = derivatives
        self._kept: Any = None

    def coefficients(self) -> _Array:
        """Compute all paths, each field of order 1 once.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        found = {}
        for first, field, seconds in self._fields():
            found[first] = self._units(first) * field.moments
            for path in seconds:
                last = self.convolution(field, path)
                found[path] = self._units(path) * last.moments
        return np.stack([found[path] for path in self.settings.paths], axis=1)

    def jacobian(self) -> Derivatives:
        """Differentiate all paths.

        Returns
        -------
        Derivatives
            Of shapes (n_molecules, n_paths, n_channels, n_exponents, n_atoms, 3) and
            (n_molecules, n_paths, n_channels, n_exponents, 3, 3).
        """
        found: dict[Path, list[Derivatives]] = {}
        each = np.broadcast_to(
            np.eye(len(self.Q))[:, np.newaxis, np.newaxis],
            (len(self.Q), *self.source.unit.shape[:2], len(self.Q)),
        )
        none = np.zeros_like(each[0])
        for first, field, seconds in self._fields():
            if first in self.settings.paths:
                found[first] = [self.atoms_back(first, field, e, None) for e in each]
            for path in seconds:
                last = self.convolution(field, path)
                found[path] = []
                for e in each:
                    onto, strain = self.convolution_back(field, path, last, e)
                    positions, of_first = self.atoms_back(first, field, none, onto)
                    found[path].append(Derivatives(positions, of_first + strain))

        def stack(kind: int) -> _Array:
            of_paths = [
                np.stack([derivatives[kind] for derivatives in found[path]], axis=2)
                for path in self.settings.paths
            ]
            return np.stack(of_paths, axis=1)

        return Derivatives(stack(0), stack(1))

    def gradient(self, factors: _Array) -> Derivatives:
        """Differentiate the sums of all paths with factors.

        `factors` are of shape (n_molecules, n_paths, n_channels, n_exponents).

        Returns
        -------
        Derivatives
            Of shapes (n_molecules, n_atoms, 3) and (n_molecules, 3, 3).
        """
        positions: Any = 0.0
        strain: Any = 0.0
        of_path = dict(zip(self.settings.paths, factors.swapaxes(0, 1), strict=True))
        for first, field, seconds in self._fields():
            onto: Any = None
            for path in seconds:
                last = self.convolution(field, path)
                found, of_path_strain = self.convolution_back(
                    field, path, last, of_path[path]
                )
                onto = found if onto is None else onto + found
                strain = strain + of_path_strain
            of_first = of_path.get(first, np.zeros_like(factors[:, 0]))
            derivatives = self.atoms_back(first, field, of_first, onto)
            positions = positions + derivatives.positions
            strain = strain + derivatives.strain
        return Derivatives(positions.sum(axis=1), strain.sum(axis=1))

    def _fields(self) -> Iterator[tuple[Path, Field, list[Path]]]:
        """Compute each field of order 0 and 1 once; yield it with the paths of order 2
        that start from it.
        """
        paths = self.settings.paths
        for first in sorted({self._first(path) for path in paths}):
            seconds = [
                path for path in paths if self._first(path) == first and path != first
            ]
            yield first, self.atoms(first), seconds

    def _first(self, path: Path) -> Path:
        """Return the path of the field of the atoms that a path starts from.

        Without a change of sign, fields of degree 0 are Gaussians all the way, and
        there is nothing for the modulus to change.
        """
        if path.degree == 0 and not self.accuracy.signed:
            return path
        return Path(path.scales[:1], path.degree)

    def _units(self, path: Path) -> _Array:
        """Units of moments, of shape (n_molecules, n_channels, n_exponents)."""
        units: _Array = (self.source.unit * self.constant(path)) ** self.Q
        return units

    def constant(self, path: Path) -> float:
        """Return the factor that is common to all points of a field."""
        sigma = self.settings.sigma
        width = _path_width(self._first(path), sigma)
        ratio = sqrt(1 - (sigma / width) ** 2)  # of scale and width
        return ratio**path.degree * width**-3

    def _is_soft(self, path: Path) -> bool:
        return path.degree > 0 and self.accuracy.softness >= SOFT

    def epsilon(self, path: Path) -> _Array:
        """Softening, of shape (n_molecules, n_channels, 1, 1, 1)."""
        softening, sigma = self.settings.softening, self.settings.sigma
        if path.degree == 0:
            softening = 0.0
        unit = self.source.unit * self.constant(path)
        epsilon: _Array = softening * path_peak(path, sigma) / unit
        return epsilon[..., np.newaxis, np.newaxis]

    def atoms(self, path: Path) -> Field:
        """Compute the fields of the atoms, of order 0 or 1."""
        lattice = self._lattice(path)
        if self.source.is_periodic and not self.derivatives:
            squared = self.square(path).all()
            if self.is_noisy(path, self.Q.min()):
                squared *= self._near(path, lattice, squared)
            return self._field(squared, path, lattice)
        width = _path_width(path, self.settings.sigma)
        factor = self._atom_factor(path)
        if not self._rounds(path):
            spectrum = self.source.spectrum(lattice, factor)
            return self._modulus(spectrum, path, width, lattice)
        near = self._near(path, lattice)
        values, envelope = (
            next(self._components(spectrum, path, width, lattice)) * near
            for spectrum in (
                self._atoms.spectrum(lattice, factor),
                self._atoms.spectrum(lattice, factor, moduli=True),
            )
        )
        envelope = self.xp.abs(envelope)
        kinks, _ = self._atoms.kinks(width, self.accuracy)
        modulus, powers = self.rounding.powers(values, envelope, kinks)
        sums = np.stack([self._sums(p) for p in powers], axis=-1)
        return Field(
            modulus,
            lattice.volume * sums,
            values * values,
            self.epsilon(path),
            lattice,
            None,
            [values, envelope] * self.derivatives,
            kinks,
        )

    def square(self, path: Path) -> Square:
        """Prepare the square of the fields of the atoms of a crystal."""
        xp, lattice = self.xp, self._lattice(path)
        width = _path_width(path, self.settings.sigma)
        n_components, n_points = 2 * path.degree + 1, prod(lattice.shape)
        # The square of a field with few waves is known from a coarse grid, and one
        # transform takes it to a finer one. Its noise is that of its maximum.
        of_square = lattice.with_waves(self.settings.spectral_step(path, power=2))
        coarse = of_square.coarsest()._replace(n_waves=lattice.n_waves)
        fits = all(
            n <= m for n, m in zip(of_square.n_waves, lattice.shape, strict=True)
        )
        n_coarse = (n_components + 1) * prod(coarse.shape)
        if self._is_soft(path) and fits and n_coarse < (n_components - 1) * n_points:

            def spectrum_of_square() -> Array:
                squared = self._sum_of_squares(path, coarse)
                return to_waves(squared, of_square, xp) / prod(coarse.shape)

            spectrum = self._atoms.shared(path, of_square, spectrum_of_square)
            return Square([spectrum * n_points], of_square, xp, is_squared=True)
        atoms = self._atom_spectrum(path, lattice)
        return Square(self._products(atoms, path, width, lattice), lattice, xp)

    def is_noisy(self, path: Path, exponent: float) -> bool:
        """Whether the noise of FFTs, to a low power, would add up to something."""
        return exponent < 1 and not self._is_soft(path)

    def least_square(self, path: Path) -> Array:
        """Find the least square of a field of a crystal that is more than noise."""
        squared = self._sum_of_squares(path, self._lattice(path).coarsest())
        return self.noise**2 * self.xp.max(squared, axis=(-3, -2, -1), keepdims=True)

    def _sum_of_squares(self, path: Path, lattice: Lattice) -> Array:
        """Add up the squares of the components of the atoms on another grid."""
        width = _path_width(path, self.settings.sigma)
        atoms = self._atom_spectrum(path, lattice)
        components = self._components(atoms, path, width, lattice)
        return sum(values * values for values in components)

    def atoms_back(
        self, path: Path, field: Field, factors: _Array, onto: Array | None
    ) -> Derivatives:
        """Differentiate sums of moments with respect to the positions of the atoms.

        Parameters
        ----------
        path : Path
        field : Field
            The fields of the atoms.
        factors : ndarray of shape (n_molecules, n_channels, n_exponents)
            Factors of the moments.
        onto : array or None
            Derivatives with respect to the moduli, which are added.

        Returns
        -------
        Derivatives
            Of shapes (n_molecules, n_channels, n_atoms, 3) and
            (n_molecules, n_channels, 3, 3).
        """
        width, lattice = _path_width(path, self.settings.sigma), field.lattice
        derivatives = self._derivatives(path, field, factors, onto)
        factor = self._atom_factor(path)
        if field.kinks is None:
            total, strain = self._components_back(derivatives, field, path, width)
            if field.spectrum is not None:
                strain += self._volume_strain(field, factors, path)
                # The volume of the box, by which spectra are divided.
                along = self.xp.real(total * field.spectrum)
                strain -= self._sums(along)[..., np.newaxis, np.newaxis] * np.eye(3)
            return Derivatives(self._atoms.back(total, lattice, factor), strain)
        found: Any = 0.0
        for values, moduli in zip(derivatives, (False, True), strict=True):
            total, strain = self._components_back(iter([values]), field, path, width)
            found = found + self._atoms.back(total, lattice, factor, moduli)
        return Derivatives(found, strain)

    @property
    def _atoms(self) -> AtomSource:
        assert isinstance(self.source, AtomSource)
        return self.source

    def _atom_spectrum(self, path: Path, lattice: Lattice) -> Array:
        return self.source.spectrum(lattice, self._atom_factor(path))

    def _atom_factor(self, path: Path) -> complex:
        width = _path_width(path, self.settings.sigma)
        return complex((-1j) ** path.degree * width**3)

    def _rounds(self, path: Path) -> bool:
        """Whether the kinks of densities that change sign are rounded on a path."""
        return self.accuracy.signed and path.degree == 0 and len(path.scales) < 2

    def convolution(self, field: Field, path: Path) -> Field:
        """Convolve fields with the last wavelets of a path."""
        lattice = self._lattice(path)
        phases_of_field = self._field_phases(field, path, lattice)
        spectrum = sum_over_points(field.modulus, *phases_of_field, self.xp)
        return self._modulus(spectrum, path, self._scale(path), lattice)

    def convolution_back(
        self, field: Field, path: Path, result: Field, factors: _Array
    ) -> tuple[Array, _Array]:
        """Differentiate sums of moments of order 2 with respect to moduli of order 1.

        Parameters
        ----------
        field, path
            As for :meth:`convolution`.
        result : Field
            What it has returned.
        factors : ndarray of shape (n_molecules, n_channels, n_exponents)
            Factors of the moments.

        Returns
        -------
        array of the shape of the fields
        ndarray of shape (n_molecules, n_channels, 3, 3)
            The derivative with respect to strain while the moduli stay.
        """
        xp = self.xp
        derivatives = self._derivatives(path, result, factors, None)
        spectrum, strain = self._components_back(
            derivatives, result, path, self._scale(path)
        )
        if result.spectrum is not None:
            strain += self._volume_strain(result, factors, path)
        x, y, z = self._field_phases(field, path, result.lattice)
        batch, (n_x, n_y, n_z) = field.modulus.shape[:2], field.lattice.shape
        spectrum = xp.matmul(x, xp.reshape(spectrum, (*batch, x.shape[1], -1)))
        spectrum = xp.reshape(spectrum, (-1, y.shape[1], z.shape[1]))
        spectrum = xp.reshape(xp.matmul(y, spectrum), (-1, z.shape[1]))
        values = xp.matmul(xp.real(spectrum), xp.real(z).T)
        values = values - xp.matmul(xp.imag(spectrum), xp.imag(z).T)
        return xp.reshape(values, (*batch, n_x, n_y, n_z)), strain

    def _field_phases(
        self, field: Field, path: Path, lattice: Lattice
    ) -> tuple[Array, Array, Array]:
        """Make the matrices from points of a field to wavevectors along each axis."""
        x, y, z = (
            phases(coordinates, indices, self.xp, self.dtype)
            for coordinates, indices in zip(
                field.lattice.points_in(lattice), lattice.indices(), strict=True
            )
        )
        return x, y, (-1j) ** path.degree * field.lattice.volume * z

    def _scale(self, path: Path) -> float:
        """Return the last scale of a path."""
        return self.settings.sigma * 2 ** path.scales[-1]

    def _sums(self, values: Array) -> _Array:
        """Add up the values of fields, or of their spectra."""
        return to_numpy(self.xp.sum(values, axis=(-3, -2, -1)))

    def _square(
        self, components: Iterable[Array], path: Path, lattice: Lattice
    ) -> Array:
        """Add up the squares of components, which are overwritten."""
        squared: Array = 0.0
        for values in components:
            values *= values
            squared += values
        squared *= self._near(path, lattice, squared)
        return squared

    def _modulus(
        self, spectrum: Array, path: Path, scale: float, lattice: Lattice
    ) -> Field:
        """Convolve with the wavelets of a scale, and take the modulus."""
        components: Iterable[Array] = self._components(spectrum, path, scale, lattice)
        kept = []
        if self.derivatives:
            kept = list(components)
            components = (values + 0 for values in kept)
        squared = self._square(components, path, lattice)
        keep = self.derivatives and self.source.is_periodic
        return self._field(squared, path, lattice, spectrum if keep else None, kept)

    def _field(
        self,
        squared: Array,
        path: Path,
        lattice: Lattice,
        spectrum: Array | None = None,
        components: Sequence[Array] = (),
    ) -> Field:
        """Take the modulus of a field from its square; integrate its powers."""
        epsilon = self.epsilon(path)
        scaled = squared
        if self.derivatives:
            scaled = squared * AMPLITUDE**2
        else:
            scaled *= AMPLITUDE**2
        # Rows are planes.
        rows = self.xp.reshape(scaled, (-1, prod(lattice.shape[1:])))
        modulus, integrals = self.kernels.integrate_powers(
            rows,
            self.xp.ones(rows.shape[1], dtype=self.dtype),
            self.Q,
            self.scales,
            np.repeat(epsilon * AMPLITUDE, lattice.shape[0]),
        )
        modulus /= AMPLITUDE
        shape = (len(self.Q), *squared.shape[:2], lattice.shape[0])
        sums = to_numpy(integrals).reshape(shape).sum(axis=-1, dtype=np.float64)
        units = lattice.volume * (AMPLITUDE * self.scales) ** -self.Q
        return Field(
            self.xp.reshape(modulus, squared.shape),
            units * np.moveaxis(sums, 0, -1),
            squared,
            epsilon,
            lattice,
            spectrum,
            components,
        )

    def _derivatives(
        self, path: Path, field: Field, factors: _Array, onto: Array | None
    ) -> Iterator[Array]:
        """Differentiate sums of moments with respect to the components of fields.

        Parameters
        ----------
        path : Path
        field : Field
        factors : ndarray of shape (n_molecules, n_channels, n_exponents)
            Factors of the moments.
        onto : array or None
            Derivatives with respect to the moduli, which are added.
        """
        xp = self.xp
        factors = factors * self._units(path) * field.lattice.volume
        terms = [
            (e, q, self._array(factors[..., e, np.newaxis, np.newaxis, np.newaxis]))
            for e, q in enumerate(self.Q.tolist())
            if factors[..., e].any()
        ]
        if field.kinks is not None:
            density, envelope = field.components
            slopes = self.rounding.derivatives(density, envelope, field.kinks)
            for of_modulus, *of_powers in slopes:
                total: Any = 0.0 if onto is None else onto * of_modulus
                for e, _, factor in terms:
                    total = total + factor * of_powers[e]
                yield xp.where(envelope > 0, total, xp.zeros_like(total))
            return
        root, _ = soften(field.squared, self._array(field.epsilon))
        total = 0.0 if onto is None else onto / root
        for _, q, factor in terms:
            # Twice, as the derivative of a square is twice a component.
            total = total + 2 * factor * power_derivative(root, q)
        total = xp.where(field.squared > 0, total, xp.zeros_like(root))
        for values in field.components:
            yield total * values

    def _components(
        self, spectrum: Array, path: Path, scale: float, lattice: Lattice
    ) -> Iterator[Array]:
        """Convolve with each of the wavelets of a scale."""
        for product in self._products(spectrum, path, scale, lattice):
            yield to_points(product, lattice, self.xp)

    def _products(
        self, spectrum: Array, path: Path, scale: float, lattice: Lattice
    ) -> Iterator[Array]:
        """Multiply a spectrum by that of each of the wavelets of a scale."""
        return wavelets_in_frequency(
            path.degree,
            scale,
            self._wavevectors(lattice),
            self.xp,
            spectrum / lattice.volume,
        )

    def _components_back(
        self,
        derivatives: Iterator[Array],
        field: Field,
        path: Path,
        scale: float,
    ) -> tuple[Array, _Array]:
        r"""Take derivatives with respect to components back to the spectrum.

        Returns
        -------
        array
            D, for which the derivative of the sum is the real part of the sum of
            :math:`D \, dS` over half of the wavevectors of a spectrum S.
        ndarray of shape (n_molecules, n_channels, 3, 3)
            The derivative with respect to the strain of the wavevectors, if the field
            keeps its spectrum; otherwise zeros.
        """
        xp, lattice = self.xp, field.lattice
        half = self._half(lattice)
        strain = np.zeros((*self.source.unit.shape[:2], 3, 3))
        total: Any = 0.0
        along: list[Any] = [0.0, 0.0, 0.0]
        # A density that changes sign, of degree 0, has its components taken in turn.
        for (wavelet, slopes), values in zip(
            self._wavelets(path.degree, scale, lattice), derivatives, strict=True
        ):
            spectrum = xp.conj(to_waves(values, lattice, xp))
            total = total + spectrum * wavelet
            if field.spectrum is not None:
                for b, slope in enumerate(slopes):
                    along[b] = along[b] + spectrum * slope
        if field.spectrum is not None:
            # A strain e turns a wavevector k into k - e k.
            for b, values in enumerate(along):
                values = xp.real(values * field.spectrum) * half
                for a, k in enumerate(self._wavevectors(lattice)):
                    strain[..., a, b] -= self._sums(values * k)
        return total * half, (strain + strain.mT) / 2

    def _wavelets(
        self, degree: int, scale: float, lattice: Lattice
    ) -> list[tuple[Array, tuple[Array, ...]]]:
        """Return wavelets and, in crystals, their gradients; the last ones are kept."""
        key = degree, scale, lattice.n_waves, lattice.cell.tobytes()
        if self._kept is None or self._kept[0] != key:
            of_wavelets = degree, scale, self._wavevectors(lattice), self.xp
            wavelets = [*wavelets_in_frequency(*of_wavelets)]
            slopes: list[tuple[Array, ...]] = [()] * len(wavelets)
            if self.source.is_periodic:
                slopes = [*wavelet_gradients_in_frequency(*of_wavelets)]
            self._kept = key, list(zip(wavelets, slopes, strict=True))
        return self._kept[1]

    def _half(self, lattice: Lattice) -> Array:
        """Return factors of the half of all wavevectors that spectra hold."""
        # All wavevectors but zero stand for two.
        twice = np.full(lattice.n_waves[2] // 2 + 1, 2.0)
        twice[0] = 1.0
        box = lattice.volume * prod(lattice.shape)
        return self._array(twice / box)

    def _volume_strain(self, field: Field, factors: _Array, path: Path) -> _Array:
        """Differentiate the volume of the points with respect to strain."""
        sums = np.sum(factors * self._units(path) * field.moments, axis=-1)
        strain: _Array = sums[..., np.newaxis, np.newaxis] * np.eye(3)
        return strain

    def _wavevectors(self, lattice: Lattice) -> list[Array]:
        return [self._array(k) for k in lattice.wavevectors()]

    def _near(
        self, path: Path, lattice: Lattice, squared: Array | None = None
    ) -> Array:
        """Return 1 where a channel has fields, and 0 where FFTs leave their noise.

        Low powers of the noise would add up to something.
        """
        width = _path_width(path, self.settings.sigma)
        reach = self.accuracy.margin(path.degree)
        near = self.source.near(lattice, width, reach)
        if near is None:
            peak = self.xp.max(squared, axis=(-3, -2, -1), keepdims=True)
            near = self._array(squared > self.noise**2 * peak)
        return near

    def _lattice(self, path: Path) -> Lattice:
        resolution = self.settings.resolution(path)
        if self._rounds(path):
            width = _path_width(path, self.settings.sigma)
            step = self._atoms.kinks(width, self.accuracy)[1]
            resolution = resolution._replace(step=min(resolution.step, step))
        lattice: Lattice = self.source.lattice(resolution)
        if self.settings.common is not None:
            # Wide fields have few waves, however fine the common grid is.
            return lattice.limited(self.settings.spectral_step(path))
        return lattice

    def _array(self, values: Any) -> Array:
        """Move an array to where the fields are computed, or change its type there."""
        return self.xp.asarray(values, dtype=self.dtype)


def _path_width(path: Path, sigma: float) -> float:
    """Width of a field: that of an atom, and of all wavelets it has met."""
    return sigma * sqrt(1 + sum(4**j for j in path.scales))
