"""Derivatives in both engines, against references that share no code with them."""

import numpy as np
import pytest
from engines import ENGINES, engine_of
from numpy.testing import assert_allclose
from references import pair_sum, two_atoms

from skscatharm.engine import separable, tiles
from skscatharm.engine.protocol import Atoms
from skscatharm.transform.paths import Path, scattering_paths

POSITIONS = np.array([[0.0, 0.0, 0.1], [1.0, 0.3, -0.2], [-0.5, 0.9, 0.6]])
WEIGHTS = np.array([[6.0, 1.0, 8.0], [4.0, 1.0, 6.0]])
BATCH = [
    Atoms(POSITIONS, np.array([6, 1, 8]), WEIGHTS),
    Atoms(1.1 * POSITIONS[:2], np.array([6, 1]), WEIGHTS[:, :2]),
]
SIGNED = [Atoms(POSITIONS, np.array([6, 1, 8]), np.array([[6.0, -1.0, 2.0]]))]


def jacobian(batch, paths, **options):
    with np.errstate(all="ignore"):
        return engine_of(paths, **options).jacobian(batch)


def differences(function, positions, step=0.02):
    """Central differences of fourth order."""
    found = []
    for index in np.ndindex(positions.shape):
        moved = np.zeros_like(positions)
        moved[index] = step
        a, b, c, d = (function(positions + k * moved) for k in (1, -1, 2, -2))
        found.append((8 * (a - b) - (c - d)) / (12 * step))
    return np.moveaxis(found, 0, -1).reshape(*found[0].shape, *positions.shape)


def largest(derivatives):
    """Size of the derivatives of each coefficient."""
    return np.abs(derivatives).max(axis=(-2, -1), keepdims=True)


@pytest.mark.parametrize("degree", [0, 1, 3, 6])
@pytest.mark.parametrize("engine", ENGINES)
def test_squares_are_sums_over_pairs(degree, engine) -> None:
    (found,) = jacobian(BATCH[:1], [Path((1,), degree)], Q=[2], engine=engine)
    expected = [
        differences(lambda r, w=w: pair_sum(r, w, (1,), degree, 0.6), POSITIONS, 1e-3)
        for w in WEIGHTS
    ]
    assert_allclose(found[0, :, 0], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("path", "degree"), [((0,), 0), ((0,), 1), ((0,), 2), ((1,), 3)]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_two_atoms(path, degree, engine) -> None:
    weights, softening, step = (6.0, 1.0), 4.0, 1e-3
    direction = np.array([2.0, -1.0, 2.0]) / 3
    atoms = Atoms(
        np.array([np.zeros(3), 1.1 * direction]), np.array([6, 1]), np.array([weights])
    )
    Q = (0.5, 1.5, 3.0)
    (found,) = jacobian(
        [atoms], [Path(path, degree)], Q=Q, softening=softening, engine=engine
    )
    for q, derivatives in zip(Q, found[0, 0], strict=True):
        further, nearer = (
            two_atoms(1.1 + d, weights, path, degree, q, 0.6, softening)
            for d in (step, -step)
        )
        slope = (further - nearer) / (2 * step)
        assert_allclose(derivatives[1] @ direction, slope, rtol=3e-4)
        assert_allclose(derivatives[0] @ direction, -slope, rtol=3e-4)
        across = derivatives - np.outer(derivatives @ direction, direction)
        assert_allclose(across, 0, atol=1e-4 * abs(slope))


@pytest.mark.parametrize(("softening", "tol"), [(0.0, 1e-4), (4.0, 1e-6)])
def test_differences_of_coefficients(softening, tol) -> None:
    paths = scattering_paths(1, 2, 2)
    options = {"Q": (0.5, 1, 2, 3, 5), "softening": softening}
    exact = engine_of(paths, tol=tol / 5, **options)
    (found,) = jacobian(BATCH[:1], paths, tol=tol, **options)

    def coefficients(positions):
        with np.errstate(all="ignore"):
            return exact.coefficients([BATCH[0]._replace(positions=positions)])[0]

    expected = differences(coefficients, POSITIONS)
    # Integrals of densities are constant; nothing else is.
    varies = np.ones(found.shape[:3], dtype=bool)
    varies[[i for i, path in enumerate(paths) if path.degree == 0], :, 1] = False
    error = (np.abs(found - expected) / largest(expected))[varies]
    # Kinks of unsoftened moduli cost most.
    assert error.max() < (2e-4 if softening else 0.2)
    assert np.median(error.max(axis=(1, 2))) < (1e-6 if softening else 1e-3)


@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_engines_agree(softening) -> None:
    paths = scattering_paths(1, 2, 2)
    options = {"Q": (0.5, 2, 3, 5), "softening": softening, "tol": 1e-4, "sigma": 0.8}
    separable, fourier = (
        jacobian(BATCH, paths, engine=engine, **options) for engine in ENGINES
    )
    for a, b in zip(separable, fourier, strict=True):
        error = np.abs(a - b) / largest(a)
        assert np.median(error) < (1e-4 if softening else 3e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_signed_densities(engine) -> None:
    paths = [Path((), 0), Path((0,), 0), Path((0, 1), 0)]
    options = {"Q": (0.5, 1, 3), "tol": 1e-4, "sigma": 0.8}
    (found,) = jacobian(SIGNED, paths, engine=engine, **options)
    exact = engine_of(paths, **{**options, "tol": 1e-5})

    def coefficients(positions):
        with np.errstate(all="ignore"):
            return exact.coefficients([SIGNED[0]._replace(positions=positions)])[0]

    expected = differences(coefficients, POSITIONS)
    assert_allclose((found - expected) / largest(expected), 0, atol=3e-3)


@pytest.mark.parametrize("batch", [BATCH, SIGNED], ids=["positive", "signed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_array_libraries_agree(xp, batch, engine) -> None:
    paths = [Path((), 0), Path((0, 1), 0), Path((0,), 1), Path((0, 1), 1)]
    options = {"Q": (0.5, 1, 3, 4, 5), "tol": 1e-3, "sigma": 0.8, "engine": engine}
    for a, b in zip(
        jacobian(batch, paths, **options),
        jacobian(batch, paths, xp=xp, **options),
        strict=True,
    ):
        assert_allclose(a, b, atol=1e-9 * np.abs(a).max())
        assert np.abs((a - b) / largest(a))[:, :, 2:].max() < 1e-7


@pytest.mark.parametrize("batch", [BATCH, SIGNED], ids=["positive", "signed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_sums_of_jacobians(batch, engine, rng) -> None:
    options = {"Q": (0.5, 2, 5), "tol": 1e-3, "sigma": 0.8, "engine": engine}
    paths = [Path((), 0), Path((0, 1), 0), *scattering_paths(2, 1, 2)[-3:]]
    built = engine_of(paths, **options)
    with np.errstate(all="ignore"):
        jacobians = built.jacobian(batch)
        weights = np.array([rng.normal(size=j.shape[:3]) for j in jacobians])
        weights /= np.array([largest(j)[..., 0, 0] for j in jacobians])
        gradients = built.gradient(batch, weights)
        coefficients, linear = built.linearize(batch, lambda values: weights / values)
        plain = built.coefficients(batch)
        divided = built.gradient(batch, weights / plain)
    assert_allclose(coefficients, plain, rtol=1e-12)
    for j, w, g, a, b in zip(
        jacobians, weights, gradients, linear, divided, strict=True
    ):
        assert_allclose(g, np.einsum("pkq,pkqnx->nx", w, j), atol=1e-7)
        assert_allclose(a, b, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize("engine", ENGINES)
def test_channel_without_some_atoms(engine) -> None:
    far = np.vstack([POSITIONS, [[6.0, 0, 0]]])
    atoms = Atoms(far, np.array([6, 1, 8, 1]), np.array([[2.0, 0, 2.0, 0]]))
    options = {"Q": (0.5, 3), "engine": engine, "tol": 1e-4}
    few = Atoms(POSITIONS[::2], np.array([6, 8]), np.array([[2.0, 2.0]]))
    paths = [Path((), 0), Path((0,), 1), Path((0, 1), 0)]
    (found,) = jacobian([atoms], paths, **options)
    (expected,) = jacobian([few], paths, **options)
    assert not found[..., 1::2, :].any()
    error = (found[..., ::2, :] - expected) / largest(expected)
    assert_allclose(error, 0, atol=5e-3)


def test_paths_of_order_2_alone() -> None:
    everything = scattering_paths(2, 1, 2)
    chosen = [path for path in everything if path.scales in ((0, 2), (1,))]
    options = {"Q": (1, 2), "tol": 1e-3, "sigma": 0.8}
    where = [everything.index(path) for path in chosen]
    for engine in ENGINES:
        found = jacobian(BATCH[:1], chosen, engine=engine, **options)[0]
        whole = jacobian(BATCH[:1], everything, engine=engine, **options)[0]
        assert_allclose(found, whole[where], atol=1e-9 * np.abs(whole).max())


def test_tiles_and_blocks_do_not_matter(molecules, monkeypatch) -> None:
    charges = molecules[0, :, 0][molecules[0, :, 0] > 0]
    positions = molecules[0, : len(charges), 1:]
    batch = [Atoms(positions, charges, charges[np.newaxis])]
    paths = scattering_paths(2, 2, 2)
    options = {"tol": 1e-4, "sigma": 0.8, "Q": (0.5, 1, 2, 5)}
    (whole,) = jacobian(batch, paths, **options)
    monkeypatch.setattr(tiles, "_SIDE", 13)
    monkeypatch.setattr(separable, "_SWEEP_BLOCK", 5000)
    (cut,) = jacobian(batch, paths, **options)
    assert np.any(cut != whole)
    error = np.abs(cut - whole) / largest(whole)
    assert np.median(error.max(axis=(3, 4))) < 1e-5


def test_single_precision(molecules) -> None:
    charges = molecules[0, :, 0][molecules[0, :, 0] > 0]
    positions = molecules[0, : len(charges), 1:]
    batch = [Atoms(positions, charges, charges[np.newaxis])]
    paths = [path for path in scattering_paths(2, 3, 2) if path.degree]
    options = {"sigma": 0.4, "Q": (0.5, 1, 2, 3, 4)}
    single, double = (
        jacobian(batch, paths, dtype=dtype, **options)[0]
        for dtype in ("float32", "float64")
    )
    assert (np.abs(single - double) / largest(double)).max() < 2e-5
