from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.spatial.distance import pdist, squareform
from scipy.special import eval_genlaguerre, gamma

from skscatharm.engine import separable
from skscatharm.engine.separable import grid_memory
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.harmonics import solid_harmonics, wavelet_constant
from skscatharm.transform.paths import Path, scattering_paths

SIGMA = 0.22
EXPONENTS = (0.5, 1, 1.5, 2, 3, 4)


def scattering(positions, weights, J=2, L=3, max_order=2, **options):
    """Call the engine with defaults, and arrange its results by order."""
    defaults = {
        "Q": (0.5, 1, 2, 3),
        "sigma": SIGMA,
        "tol": 2e-4,
        "softening": 0.0,
        "xp": np,
        "dtype": "float32",
    }
    paths = scattering_paths(J, L, max_order)
    found = separable.scattering(positions, weights, paths, **(defaults | options))
    found = found.swapaxes(0, 1)
    shape = (len(weights), -1, L + 1, found.shape[-1])
    n = 1 + (J + 1) * (L + 1) if max_order else 1
    return found[:, 0], found[:, 1:n].reshape(shape), found[:, n:].reshape(shape)


@pytest.fixture(scope="module")
def molecule(molecules):
    """Positions and weights of the four channels of a molecule of QM9."""
    structures = check_structures(molecules[:1])
    tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
    return structures[0].positions, channel_weights(tables, structures)[0]


WEIGHT = 6.0


@pytest.fixture(scope="module")
def atom():
    """Coefficients of one atom."""
    return scattering(np.ones((1, 3)), np.array([[WEIGHT]]), L=6, Q=EXPONENTS)


class TestClosedForms:
    @pytest.mark.parametrize(("i", "q"), list(enumerate(EXPONENTS)))
    def test_order_0_of_an_atom(self, i, q, atom) -> None:
        height = WEIGHT * (2 * np.pi * SIGMA**2) ** -1.5
        expected = height**q * (2 * np.pi * SIGMA**2 / q) ** 1.5
        assert_allclose(atom[0][0, i], expected, rtol=2e-5)

    @pytest.mark.parametrize("j", range(3))
    @pytest.mark.parametrize("degree", range(7))
    @pytest.mark.parametrize(("i", "q"), list(enumerate(EXPONENTS)))
    def test_order_1_of_an_atom(self, i, q, degree, j, atom) -> None:
        t = SIGMA * np.hypot(1, 2**j)
        constant = WEIGHT * (2**j * SIGMA / t) ** degree * wavelet_constant(degree)
        constant *= t**-3 * np.sqrt((2 * degree + 1) / (4 * np.pi))
        n = (3 + q * degree) / 2
        radial = 4 * np.pi * t**3 * gamma(n) * (2 / q) ** n / 2
        assert_allclose(atom[1][0, j, degree, i], constant**q * radial, rtol=1e-4)

    def test_order_2_of_degree_0(self, molecule) -> None:
        # Gaussians all the way: order 2 is the density of a larger width.
        positions, weights = molecule
        order2 = scattering(positions, weights, L=0)[2]
        for pair, (j1, j2) in enumerate(combinations(range(3), 2)):
            width = SIGMA * np.sqrt(1 + 4**j1 + 4**j2)
            density = scattering(positions, weights, sigma=width, max_order=0)[0]
            assert_allclose(order2[:, pair, 0], density, rtol=2e-5)

    @pytest.mark.parametrize("index", range(10))
    def test_order_1_pair_sums(self, index, molecules) -> None:
        structures = check_structures(molecules[[index]])
        tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
        weights = channel_weights(tables, structures)[0]
        order1 = scattering(structures[0].positions, weights, max_order=1, Q=(2,))[1]
        r2 = squareform(pdist(structures[0].positions, "sqeuclidean"))
        for j in range(3):
            t = SIGMA * np.hypot(1, 2**j)
            k = 2**j * SIGMA / t
            for degree in range(4):
                x = r2 / (4 * t * t)
                kernel = np.exp(-x) * eval_genlaguerre(degree, 0.5, x)
                kernel *= (
                    (wavelet_constant(degree) * k**degree) ** 2
                    * t**-3
                    * (2 * degree + 1)
                    / (4 * np.pi)
                    * 2
                    * np.pi
                    * gamma(degree + 1.5)
                    / eval_genlaguerre(degree, 0.5, 0)
                )
                expected = np.einsum("cn,nm,cm->c", weights, kernel, weights)
                assert_allclose(order1[:, j, degree, 0], expected, rtol=1e-5)


SOFT = {"softening": 4.0, "tol": 1e-5}


@pytest.fixture(scope="module")
def soft_atom():
    """Coefficients of one atom with softened moduli."""
    return scattering(np.ones((1, 3)), np.array([[WEIGHT]]), L=6, Q=EXPONENTS, **SOFT)


class TestSoftening:
    @pytest.mark.parametrize("j", range(3))
    @pytest.mark.parametrize("degree", range(7))
    @pytest.mark.parametrize(("i", "q"), list(enumerate(EXPONENTS)))
    def test_order_1_of_an_atom(self, i, q, degree, j, soft_atom) -> None:
        t = SIGMA * np.hypot(1, 2**j)
        constant = (2**j * SIGMA / t) ** degree * wavelet_constant(degree)
        constant *= t**-3 * np.sqrt((2 * degree + 1) / (4 * np.pi))
        peak = constant * degree ** (degree / 2) * np.exp(-degree / 2)
        epsilon = 4 * peak if degree > 0 else 0

        def shell(r):
            modulus = WEIGHT * constant * r**degree * np.exp(-(r**2) / 2)
            powers = (modulus**2 + epsilon**2) ** (q / 2) - epsilon**q
            return 4 * np.pi * r**2 * powers

        # Beyond, cancellation would take over.
        expected = t**3 * quad(shell, 0, 7 if degree else 13, limit=200)[0]
        rtol = 1e-5 if degree else 2e-5
        assert_allclose(soft_atom[1][0, j, degree, i], expected, rtol=rtol)

    def test_squares_of_order_1_and_degree_0_stay(self, molecule) -> None:
        positions, weights = molecule
        hard, soft = (
            scattering(positions, weights, softening=s, tol=1e-5) for s in (0.0, 4.0)
        )
        assert_allclose(soft[0], hard[0], rtol=1e-6)
        for order in (1, 2):
            assert_allclose(soft[order][:, :, 0], hard[order][:, :, 0], rtol=1e-6)
        assert_allclose(soft[1][..., 2], hard[1][..., 2], rtol=1e-5)
        assert np.all(soft[1][:, :, 1:, 0] < 0.9 * hard[1][:, :, 1:, 0])

    @pytest.mark.parametrize("softening", [0.5, 4.0])
    def test_tolerance_is_kept(self, softening, molecule) -> None:
        positions, weights = molecule

        def compute(**options):
            options |= {"J": 1, "softening": softening}
            orders = scattering(positions, weights[:2], **options)
            return np.concatenate([order.ravel() for order in orders])

        exact = compute(tol=2e-6, dtype="float64")
        for tol in (2e-4, 5e-5, 1e-5):
            errors = np.abs(compute(tol=tol) / exact - 1)
            assert errors.max() < 3 * tol
            assert np.median(errors) < 0.2 * tol

    def test_little_softening_changes_little(self, molecule) -> None:
        positions, weights = molecule
        hard, soft = (
            scattering(positions, weights, J=1, softening=s) for s in (0.0, 1e-4)
        )
        for few, many in zip(soft, hard, strict=True):
            # Low powers count the nearly empty space most, where it changes more.
            assert_allclose(few[..., 1:], many[..., 1:], rtol=5e-3)


def fourier_scattering(
    positions, weights, J, L, Q, sigma, softening=0.0, n=90, step=0.17
):
    """Follow the definition on a periodic grid, with FFTs in double precision."""
    u = step * (np.arange(n) - n // 2)
    grid = np.stack(np.meshgrid(u, u, u, indexing="ij"))
    k = 2 * np.pi * np.stack(np.meshgrid(*[np.fft.fftfreq(n, step)] * 3, indexing="ij"))
    k2 = (k**2).sum(axis=0)

    def wavelets(degree, scale):
        # Transform of (|u| / s)^l Y_lm exp(-|u|^2 / 2 s^2), but for a phase.
        radial = (2 * np.pi) ** 1.5 * wavelet_constant(degree) * scale**degree
        for harmonic in solid_harmonics(degree):
            polynomial = sum(
                p * k[0] ** a * k[1] ** b * k[2] ** c
                for c, terms in harmonic.items()
                for (a, b), p in terms.items()
            )
            yield radial * polynomial * np.exp(-k2 * scale**2 / 2) * (-1j) ** degree

    def modulus(field, degree, j, epsilon):
        transform = np.fft.fftn(field)
        squares = sum(
            np.fft.ifftn(transform * wavelet).real ** 2
            for wavelet in wavelets(degree, sigma * 2**j)
        )
        return np.sqrt(squares + epsilon**2) - epsilon

    def largest(degree, *scales):
        """Largest modulus of an atom of weight 1, from the definition of epsilon."""
        if degree == 0:
            return 0.0
        squares = np.cumsum([sigma**2, *((sigma * 2**j) ** 2 for j in scales)])
        ratios = 1 - squares[:-1] / squares[1:]
        radial = np.exp(-degree / 2) * (degree * ratios.prod()) ** (degree / 2)
        radial *= wavelet_constant(degree) * np.sqrt((2 * degree + 1) / (4 * np.pi))
        return radial * squares[-1] ** -1.5

    def pool(field, epsilon=0.0):
        return [((field + epsilon) ** q - epsilon**q).sum() * step**3 for q in Q]

    density = np.zeros((n, n, n))
    for r, w in zip(positions, weights, strict=True):
        squares = ((grid - r[:, None, None, None]) ** 2).sum(axis=0)
        density += w * np.exp(-squares / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5
    order1 = {
        (degree, j): modulus(density, degree, j, softening * largest(degree, j))
        for degree in range(L + 1)
        for j in range(J + 1)
    }
    return (
        np.array(pool(density)),
        np.array(
            [
                [
                    pool(order1[degree, j], softening * largest(degree, j))
                    for degree in range(L + 1)
                ]
                for j in range(J + 1)
            ]
        ),
        np.array(
            [
                [
                    pool(modulus(order1[degree, j1], degree, j2, low), low)
                    for degree in range(L + 1)
                    for low in [softening * largest(degree, j1, j2)]
                ]
                for j1, j2 in combinations(range(J + 1), 2)
            ]
        ),
    )


@pytest.mark.parametrize(
    ("softening", "worst", "median"), [(0.0, 2e-3, 5e-5), (4.0, 4e-4, 4e-5)]
)
def test_agrees_with_the_definition_on_a_grid(softening, worst, median) -> None:
    water = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    options = {"J": 1, "L": 3, "Q": (1, 2, 3), "sigma": 0.5, "softening": softening}
    expected = fourier_scattering(water, np.array([8.0, 1.0, 1.0]), **options)
    orders = scattering(water, np.array([[8.0, 1.0, 1.0]]), **options)
    for order, values in zip(orders, expected, strict=True):
        assert_allclose(order[0], values, rtol=worst)
        assert np.median(np.abs(order[0] / values - 1)) < median


@pytest.mark.parametrize(
    ("dtype", "tol", "worst", "median"),
    [("float32", 2e-4, 1e-3, 2e-5), ("float64", 5e-5, 3e-4, 5e-6)],
)
def test_tolerance_is_kept(dtype, tol, worst, median, molecule) -> None:
    positions, weights = molecule
    exact = scattering(positions, weights, tol=5e-6, dtype="float64", J=1)
    found = scattering(positions, weights, tol=tol, dtype=dtype, J=1)
    errors = np.concatenate(
        [np.abs(f / e - 1).ravel() for f, e in zip(found, exact, strict=True)]
    )
    assert errors.max() < worst
    assert np.median(errors) < median


@pytest.mark.parametrize("smaller", [{"J": 1}, {"L": 1}, {"Q": (1, 3)}, {"J": 0}])
def test_smaller_sets_are_the_same_numbers(smaller, molecule) -> None:
    positions, weights = molecule
    large = scattering(positions, weights[:2], dtype="float64")
    small = scattering(positions, weights[:1], dtype="float64", **smaller)
    J, L, Q = smaller.get("J", 2), smaller.get("L", 3), smaller.get("Q")
    columns = [1, 3] if Q else slice(None)
    pairs = [i for i, (_, j2) in enumerate(combinations(range(3), 2)) if j2 <= J]
    large = (large[0], large[1][:, : J + 1, : L + 1], large[2][:, pairs, : L + 1])
    for few, many in zip(small, large, strict=True):
        assert_allclose(few, many[:1, ..., columns], rtol=1e-9)


def test_blocks_do_not_matter(molecule, monkeypatch) -> None:
    positions, weights = molecule
    whole = scattering(positions, weights, J=1, dtype="float64")
    monkeypatch.setattr(separable, "_SIDE", 13)
    monkeypatch.setattr(separable, "_BLOCK", 5000)
    cut = scattering(positions, weights, J=1, dtype="float64")
    for a, b in zip(whole, cut, strict=True):
        assert_allclose(a, b, rtol=1e-5)


def test_weights_of_any_sign_and_size(molecule) -> None:
    positions, weights = molecule
    signs = np.where(np.arange(len(positions)) % 2, -1.0, 1.0)
    first = scattering(positions, weights[:1] * signs, J=1)
    second = scattering(positions, -1e6 * weights[:1] * signs, J=1)
    for a, b in zip(first, second, strict=True):
        assert np.all(np.isfinite(a))
        assert np.all(a > 0)
        assert_allclose(a * 1e6 ** np.array([0.5, 1, 2, 3]), b, rtol=1e-5)


def test_channel_of_zeros(molecule) -> None:
    positions, weights = molecule
    with_zeros = np.stack([weights[0], 0 * weights[0]])
    for order in scattering(positions, with_zeros, J=1, L=1):
        assert np.all(order[1] == 0)
        assert np.all(order[0] > 0)


def test_atoms_far_apart_do_not_interact() -> None:
    atom = scattering(np.zeros((1, 3)), np.ones((1, 1)), J=1)
    atoms = scattering(np.array([[0, 0, 0], [0, 0, 30.0]]), np.ones((1, 2)), J=1)
    for one, two in zip(atom, atoms, strict=True):
        assert_allclose(two, 2 * one, rtol=1e-3)


def test_paths_in_any_order_and_number(molecule) -> None:
    positions, weights = molecule
    options = {"Q": (1,), "sigma": 0.5, "tol": 2e-4, "softening": 0.0}
    options |= {"xp": np, "dtype": "float64"}
    every = scattering_paths(2, 2, 2)
    expected = separable.scattering(positions, weights, every, **options)
    some = [Path((1, 2), 1), Path((0,), 2), Path((), 0), Path((0, 2), 2)]
    found = separable.scattering(positions, weights, some, **options)
    assert_allclose(found, expected[[every.index(p) for p in some]], rtol=1e-9)


@pytest.mark.parametrize("max_order", [0, 1])
def test_lower_orders_only(max_order, molecule) -> None:
    positions, weights = molecule
    orders = scattering(positions, weights, max_order=max_order)
    assert orders[1].size == (0 if max_order == 0 else 4 * 3 * 4 * 4)
    assert orders[2].size == 0


def test_memory_grows_with_the_molecule(molecule) -> None:
    positions, _ = molecule
    small = grid_memory(positions, 4, SIGMA, "float32")
    assert 1e5 < small < 1e8
    assert grid_memory(positions, 4, SIGMA, "float64") == 2 * small
    assert grid_memory(100 * positions, 4, SIGMA, "float32") > 1e4 * small


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-5), ("float64", 1e-10)])
def test_array_libraries_agree(xp, softening, dtype, rtol, molecule) -> None:
    positions, weights = molecule
    options = {"J": 1, "Q": (0.5, 1, 2, 3, 4), "softening": softening}
    expected = scattering(positions, weights, dtype=dtype, **options)
    found = scattering(positions, weights, xp=xp, dtype=getattr(xp, dtype), **options)
    for a, b in zip(found, expected, strict=True):
        assert_allclose(a, b, rtol=rtol)
