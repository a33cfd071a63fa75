import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import gamma

from skscatharm.engine import fourier, separable
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.harmonics import wavelet_constant
from skscatharm.transform.paths import Path, scattering_paths

SIGMA = 0.22
DEFAULTS = {
    "Q": (0.5, 1, 2, 3),
    "sigma": SIGMA,
    "tol": 2e-4,
    "softening": 0.0,
    "xp": np,
}


def scattering(positions, weights, paths, dtype="float32", **options):
    """Call the engine with defaults."""
    options = DEFAULTS | options
    options["dtype"] = getattr(options["xp"], dtype)
    return fourier.scattering(positions, weights, paths, **options)


@pytest.fixture(scope="module")
def batch(molecules):
    """Positions and weights of the four channels of molecules of QM9."""
    structures = check_structures(molecules)
    tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
    return [s.positions for s in structures], channel_weights(tables, structures)


@pytest.mark.parametrize(
    ("index", "J", "dtype", "options"),
    [
        (0, 2, "float32", {}),
        (3, 2, "float32", {}),
        (5, 1, "float32", {"Q": (1, 1.5, 4)}),
        (2, 1, "float64", {"tol": 5e-5}),
        (4, 2, "float32", {"tol": 1e-5, "softening": 4.0}),
        (1, 1, "float64", {"tol": 5e-5, "softening": 0.5}),
    ],
)
def test_engines_agree(index, J, dtype, options, batch) -> None:
    (positions,), (weights,) = batch[0][index : index + 1], batch[1][index : index + 1]
    paths = scattering_paths(J, 3, 2)
    options = DEFAULTS | options | {"dtype": getattr(np, dtype)}
    expected = separable.scattering(positions, weights, paths, **options)
    (found,) = fourier.scattering([positions], [weights], paths, **options)
    errors = np.abs(found / expected - 1)
    # Each has its own error, and not every molecule is a typical one.
    assert errors.max() < 3 * options["tol"]
    assert np.median(errors) < 0.1 * options["tol"]


EXPONENTS = (0.5, 1, 1.5, 2, 3, 4)


@pytest.mark.parametrize("degree", range(7))
@pytest.mark.parametrize("j", range(3))
def test_order_1_of_an_atom(degree, j) -> None:
    weight, q = 6.0, np.array(EXPONENTS)
    found = scattering(
        [np.ones((1, 3))], [np.array([[weight]])], [Path((j,), degree)], Q=EXPONENTS
    )
    t = SIGMA * np.hypot(1, 2**j)
    constant = weight * (2**j * SIGMA / t) ** degree * wavelet_constant(degree)
    constant *= t**-3 * np.sqrt((2 * degree + 1) / (4 * np.pi))
    n = (3 + q * degree) / 2
    radial = 4 * np.pi * t**3 * gamma(n) * (2 / q) ** n / 2
    assert_allclose(found[0, 0, 0], constant**q * radial, rtol=1e-4)


def test_degree_0_gives_densities_of_other_widths(batch) -> None:
    # Gaussians all the way.
    positions, weights = batch[0][:1], batch[1][:1]
    paths = [
        Path((), 0),
        Path((0,), 0),
        *(Path(s, 0) for s in combinations(range(3), 2)),
    ]
    found = scattering(positions, weights, paths, sigma=0.6)
    for i, path in enumerate(paths):
        sigma = 0.6 * np.sqrt(1 + sum(4**j for j in path.scales))
        density = scattering(positions, weights, [Path((), 0)], sigma=sigma)
        assert_allclose(found[:, i], density[:, 0], rtol=5e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-5), ("float64", 1e-6)])
def test_batches_do_not_matter(dtype, rtol, batch) -> None:
    positions = [*batch[0][:3], np.array([[0, 0, 0], [0, 0, 25.0]])]
    weights = [*batch[1][:3], np.ones((4, 2))]
    paths = scattering_paths(1, 2, 2)
    options = {"sigma": 0.8, "Q": (1, 2, 3) if dtype == "float32" else (0.5, 1, 2, 3)}
    together = scattering(positions, weights, paths, dtype, **options)
    for i, (r, w) in enumerate(zip(positions, weights, strict=True)):
        alone = scattering([r], [w], paths, dtype, **options)
        assert_allclose(together[i], alone[0], rtol=rtol)


@pytest.mark.parametrize("Q", [(1, 2, 3), (0.5,)])
def test_atoms_far_apart_do_not_interact(Q) -> None:
    # The box is nearly empty: what FFTs leave there would show.
    options = {"paths": scattering_paths(1, 2, 2), "Q": Q, "sigma": 0.4}
    atom = scattering([np.zeros((1, 3))], [np.ones((1, 1))], **options)
    pair = np.array([[0, 0, 0], [12.0, 12.0, 16.0]])
    atoms = scattering([pair], [np.ones((1, 2))], **options)
    assert_allclose(atoms, 2 * atom, rtol=3e-4)


def test_single_precision_does_not_bias_low_exponents(batch) -> None:
    paths = scattering_paths(1, 2, 2)
    single, double = (
        scattering(batch[0][:2], batch[1][:2], paths, dtype, sigma=0.6)
        for dtype in ("float32", "float64")
    )
    assert_allclose(single, double, rtol=1e-6)


def test_weights_of_any_sign_and_size(batch) -> None:
    weights = batch[1][0].copy()
    weights[:, ::2] *= -1
    weights[1] = 0
    paths = scattering_paths(1, 2, 2)
    first = scattering(batch[0][:1], [weights], paths, sigma=0.8)
    second = scattering(batch[0][:1], [-1e6 * weights], paths, sigma=0.8)
    assert np.all(np.isfinite(first))
    assert np.all(first[:, :, 1] == 0)
    assert np.all(np.delete(first, 1, axis=2) > 0)
    assert_allclose(first * 1e6 ** np.array([0.5, 1, 2, 3]), second, rtol=1e-9)


def test_paths_in_any_order_and_number(batch) -> None:
    positions, weights = batch[0][:1], batch[1][:1]
    every = scattering_paths(2, 2, 2)
    expected = scattering(positions, weights, every, "float64", sigma=1.0)
    some = [Path((1, 2), 1), Path((0,), 2), Path((), 0), Path((0, 2), 2)]
    found = scattering(positions, weights, some, "float64", sigma=1.0)
    assert_allclose(found, expected[:, [every.index(p) for p in some]], rtol=1e-9)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize(
    ("dtype", "Q", "rtol"),
    [("float32", (1, 2, 3, 4), 2e-5), ("float64", (0.5, 1, 2, 3, 4), 1e-9)],
)
def test_array_libraries_agree(xp, softening, dtype, Q, rtol, batch) -> None:
    paths = scattering_paths(1, 2, 2)
    options = {"Q": Q, "sigma": 1.0, "softening": softening, "dtype": dtype}
    expected = scattering(batch[0][:2], batch[1][:2], paths, **options)
    found = scattering(batch[0][:2], batch[1][:2], paths, xp=xp, **options)
    assert_allclose(found, expected, rtol=rtol)


def test_wavevectors_of_an_oblique_box() -> None:
    cell = np.array([[4.0, 0, 0], [1.0, 3.0, 0], [-0.5, 0.7, 5.0]])
    lattice = fourier._Lattice(cell, (6, 5, 8), np.zeros(3))
    k = np.stack(np.broadcast_arrays(*lattice.wavevectors()), axis=-1)
    assert k.shape == (6, 5, 5, 3)
    # A wavevector turns by a whole number of cycles along each edge.
    cycles = k @ cell.T / (2 * np.pi)
    assert_allclose(cycles, np.round(cycles), atol=1e-12)
    assert_allclose(cycles[-1, 1, 3], [-1, 1, 3], atol=1e-12)
    # Seen from any position, as the phases of the atoms have it.
    r = np.array([0.3, -1.2, 0.8])
    phases = np.exp(-2j * np.pi * (cycles @ lattice.fractional(r)))
    assert_allclose(phases, np.exp(-1j * k @ r), atol=1e-12)


@pytest.mark.parametrize("Q", [(0.5, 1, 2, 3), (1, 2, 3)])
def test_memory_is_estimated(Q, batch) -> None:
    options = DEFAULTS | {"Q": Q, "dtype": np.float32, "sigma": 0.6}
    paths = scattering_paths(1, 2, 2)
    tracemalloc.start()
    fourier.scattering(batch[0][:1], batch[1][:1], paths, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    extent = fourier.extent(batch[0][0])
    assert 0.5 < peak / fourier.field_memory(extent, 4, paths, **options) < 1
