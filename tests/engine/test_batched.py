import tracemalloc

import numpy as np
import pytest
from engines import engine_of, scatter, scatter_batch
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.engine import batch_fields, batched
from skscatharm.engine.protocol import Atoms
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import field_pairs, scattering_paths

PATHS = scattering_paths(2, 2, 2)
OPTIONS = {"sigma": 0.8, "tol": 1e-3, "Q": (0.5, 1, 1.5, 2, 3, 4)}
# Of the fields of the same channel, or of all four.
PAIRS = {n: field_pairs(scattering_paths(1, 2, 1), n) for n in (1, 4)}


@pytest.fixture(scope="module")
def batch(molecules):
    """Positions and weights of the four channels of molecules of QM9."""
    structures = check_structures(molecules[:8])
    tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
    return [s.positions for s in structures], channel_weights(tables, structures)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 2e-5)])
def test_same_as_one_by_one(softening, dtype, rtol, batch) -> None:
    options = OPTIONS | {"softening": softening, "dtype": dtype}
    expected = scatter_batch(*batch, PATHS, **options)
    found = scatter_batch(*batch, PATHS, on_device=True, **options)
    assert_allclose(found, expected, rtol=rtol)


def test_order_2_skips_a_scale(batch) -> None:
    paths = [path for path in PATHS if path.scales == (0, 2)]
    expected = scatter_batch(*batch, paths, **OPTIONS)
    found = scatter_batch(*batch, paths, on_device=True, **OPTIONS)
    assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("degree", [0, 5, 8])
def test_degrees(degree, batch) -> None:
    paths = [p for p in scattering_paths(1, degree, 2) if p.degree == degree]
    expected = scatter_batch(*batch, paths, **OPTIONS)
    found = scatter_batch(*batch, paths, on_device=True, **OPTIONS)
    assert_allclose(found, expected, rtol=2e-5)


def test_large_exponents_and_empty_channels(batch) -> None:
    positions, weights = batch
    weights = [w.copy() for w in weights]
    weights[0][1] = 0
    weights[2][3] = 0
    options = OPTIONS | {"Q": (1, 4.5, 9), "dtype": "float32"}
    expected = scatter_batch(positions, weights, PATHS, **options)
    found = scatter_batch(positions, weights, PATHS, on_device=True, **options)
    assert_allclose(found, expected, rtol=2e-5)
    assert np.all(found[0, :, 1] == 0)


def test_both_signs_and_large_molecules_are_computed_one_by_one(
    batch, monkeypatch
) -> None:
    positions, weights = batch
    weights = [w.copy() for w in weights]
    weights[1][0, 0] *= -1
    expected = scatter_batch(positions, weights, PATHS, **OPTIONS)
    sizes = []
    original = batched.BatchedEngine._compute

    def record(engine, *arguments):
        sizes.append(len(arguments[-1]))
        original(engine, *arguments)

    monkeypatch.setattr(batched.BatchedEngine, "_compute", record)
    found = scatter_batch(positions, weights, PATHS, on_device=True, **OPTIONS)
    assert sizes == [7]
    assert_allclose(found, expected, rtol=2e-5)
    monkeypatch.setattr(batched, "_LARGE", 0)
    found = scatter_batch(positions, weights, PATHS, on_device=True, **OPTIONS)
    assert sizes == [7]
    assert_array_equal(found, expected)


def test_groups_do_not_matter(batch, monkeypatch) -> None:
    options = OPTIONS | {"on_device": True}
    together = scatter_batch(*batch, PATHS, **options)
    monkeypatch.setattr(batched, "_GROUP", 2)
    pairs = scatter_batch(*batch, PATHS, **options)
    assert_allclose(pairs, together, rtol=1e-9)
    alone = scatter(batch[0][0], batch[1][0], PATHS, **options)
    assert_allclose(alone, together[0], rtol=1e-9)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-10)])
def test_array_libraries_agree(xp, softening, dtype, rtol, batch) -> None:
    positions, weights = (part[:2] for part in batch)
    options = OPTIONS | {"softening": softening, "dtype": dtype, "on_device": True}
    options["Q"] = (*OPTIONS["Q"], 7)
    expected = scatter_batch(positions, weights, PATHS, **options)
    found = scatter_batch(positions, weights, PATHS, xp=xp, **options)
    assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_mixed_moments(softening, n_channels, batch) -> None:
    positions, weights = batch
    weights = [w.copy() for w in weights]
    weights[0][1] = 0
    # The grids of the engines differ, and the errors of both are up to the tolerance.
    tol = 1e-4 if softening else 1e-3
    options = OPTIONS | {"tol": tol, "softening": softening, "dtype": "float32"}
    options |= {"pairs": PAIRS[n_channels], "Q": (1, 2, 4)}
    expected = scatter_batch(positions, weights, PATHS[:3], **options)
    found = scatter_batch(positions, weights, PATHS[:3], on_device=True, **options)
    has_atom = np.array([w.any(axis=1) for w in weights])
    shifts = [0] * 3 + [pair.shift for pair in options["pairs"]]
    here = np.stack([has_atom & np.roll(has_atom, -s, axis=1) for s in shifts], axis=1)
    assert not here.all()
    assert_array_equal(found[~here], 0)
    assert_allclose(found[here], expected[here], rtol=2 * tol)


@pytest.mark.parametrize("n_channels", [1, 4])
def test_mixed_moments_of_groups_and_layers(n_channels, batch, monkeypatch) -> None:
    options = OPTIONS | {"Q": (1, 2, 6), "pairs": PAIRS[n_channels]}
    expected = scatter_batch(*batch, (), **options)
    options["on_device"] = True
    together = scatter_batch(*batch, (), **options)
    monkeypatch.setattr(batched, "_GROUP", 3)
    monkeypatch.setattr(batch_fields, "LAYERS", 30)
    assert_allclose(scatter_batch(*batch, (), **options), together, rtol=1e-9)
    monkeypatch.setattr(batched, "_LARGE", 0)
    assert_array_equal(scatter_batch(*batch, (), **options), expected)


@pytest.mark.parametrize(
    ("dtype", "rtol", "n_channels"), [("float32", 1e-5, 4), ("float64", 1e-10, 1)]
)
def test_array_libraries_agree_on_mixed_moments(
    xp, dtype, rtol, n_channels, batch
) -> None:
    positions, weights = (part[:2] for part in batch)
    pairs = field_pairs(scattering_paths(1, 1, 1), n_channels)
    options = OPTIONS | {"dtype": dtype, "pairs": pairs, "Q": (1, 2, 4, 7)}
    expected = scatter_batch(positions, weights, (), on_device=True, **options)
    found = scatter_batch(positions, weights, (), xp=xp, on_device=True, **options)
    assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("Q", [(2,), (1, 2, 4)])
def test_memory_of_mixed_moments_is_estimated(
    Q, n_channels, batch, monkeypatch
) -> None:
    options = {"Q": Q, "tol": 2e-4, "sigma": 0.3, "dtype": "float32"}
    pairs = field_pairs(scattering_paths(0, 3, 1), n_channels)
    _check_memory(
        engine_of((), on_device=True, pairs=pairs, **options), batch, monkeypatch
    )


@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_memory_is_estimated(softening, batch, monkeypatch) -> None:
    options = {"Q": (0.5, 1, 2, 3), "tol": 2e-4, "sigma": 0.3, "dtype": "float32"}
    paths = scattering_paths(1, 3, 2)
    engine = engine_of(paths, softening=softening, on_device=True, **options)
    _check_memory(engine, batch, monkeypatch)


def _check_memory(engine, batch, monkeypatch):
    atoms = [Atoms(r, np.ones(len(r)), w) for r, w in zip(*batch, strict=True)]
    estimates = []
    original = engine._group_memory

    def record(*arguments):
        estimates.append(original(*arguments))
        return estimates[-1]

    monkeypatch.setattr(engine, "_group_memory", record)
    engine.coefficients(atoms[:1])
    estimates.clear()
    tracemalloc.start()
    engine.coefficients(atoms)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(estimates) == 1
    assert 0.4 < peak / estimates[0] < 1.05


def test_running_out_of_memory(batch, monkeypatch) -> None:
    expected = scatter_batch(*batch, PATHS, on_device=True, **OPTIONS)
    sizes = []
    original = batched.BatchedEngine._compute

    def record(engine, *arguments):
        sizes.append(len(arguments[-1]))
        if sizes[-1] > 2:
            raise MemoryError
        original(engine, *arguments)

    monkeypatch.setattr(batched.BatchedEngine, "_compute", record)
    found = scatter_batch(*batch, PATHS, on_device=True, **OPTIONS)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert_allclose(found, expected, rtol=1e-9)
