"""What both engines do alike."""

import numpy as np
import pytest
from engines import ENGINES, engine_of, scatter, scatter_batch
from numpy.testing import assert_allclose, assert_array_equal
from references import dense, one_atom, pair_sum, two_atoms
from scipy.spatial.transform import Rotation

from skscatharm.engine.protocol import Atoms
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import Path, scattering_paths

SIGMA = 0.6
EXPONENTS = (0.5, 1, 1.5, 2, 3, 4, 8)
PATHS = scattering_paths(1, 2, 2)
WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])

pytestmark = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def batch(molecules):
    """Positions and weights of the four channels of molecules of QM9."""
    structures = check_structures(molecules)
    tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
    return [s.positions for s in structures], channel_weights(tables, structures)


def signed(weights):
    """Four channels, of which one changes sign and one is empty."""
    weights = weights.copy()
    weights[0, 0] *= -1
    weights[1] = 0
    return weights


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize("degree", [0, 1, 3, 6, 12])
def test_one_atom(degree, softening, engine) -> None:
    paths = [Path((j,), degree) for j in (0, 2)]
    tol = 1e-5 if softening else 1e-3
    found = scatter(
        np.ones((1, 3)),
        [[6.0]],
        paths,
        Q=EXPONENTS,
        tol=tol,
        softening=softening,
        engine=engine,
    )
    for path, values in zip(paths, found[:, 0], strict=True):
        expected = [
            one_atom(6.0, path.scales, degree, q, SIGMA, softening) for q in EXPONENTS
        ]
        assert_allclose(values, expected, rtol=2 * tol)


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_squares_are_sums_over_pairs(degree, engine, batch) -> None:
    paths = [Path((1,), degree), *([Path((), 0)] if degree == 0 else [])]
    molecules = [
        (batch[0][0], batch[1][0], 1e-5),
        (batch[0][7], batch[1][7], 1e-5),
        (WATER, np.array([[8.0, 1, -1], [-3, 2, 2]]), 1e-3),
    ]
    for positions, weights, tol in molecules:
        found = scatter(positions, weights, paths, Q=(2,), tol=tol, engine=engine)
        for path, values in zip(paths, found[:, :, 0], strict=True):
            expected = [
                pair_sum(positions, w, path.scales, degree, SIGMA) for w in weights
            ]
            assert_allclose(values, expected, rtol=0.3 * tol)


@pytest.mark.parametrize("weights", [(1.0, -1.0), (1.0, -0.7), (6.0, -1.0)])
def test_two_atoms_of_opposite_signs(weights, engine) -> None:
    distance, Q = 1.1, (0.5, 1, 3)
    turn = Rotation.random(None, 0)
    positions = turn.apply([[0, 0, 0], [0, 0, distance]])
    paths = [Path((), 0), Path((0,), 0), Path((0,), 2)]
    found = scatter(positions, [weights], paths, Q=Q, tol=1e-4, engine=engine)[:, 0]
    for path, values in zip(paths, found, strict=True):
        expected = [
            two_atoms(distance, weights, path.scales, path.degree, q, SIGMA, 4.0)
            for q in Q
        ]
        assert_allclose(values, expected, rtol=1e-4)


@pytest.mark.parametrize("degree", [1, 3])
def test_a_molecule_on_a_uniform_grid(degree, engine) -> None:
    weights, Q = [[8.0, 1, 1], [1, -1, 0.5]], (0.5, 1, 3)
    expected = dense(WATER, weights, [(0,), (0, 1)], degree, Q, SIGMA, 4.0)
    for path, values in expected.items():
        found = scatter(WATER, weights, [Path(path, degree)], Q=Q, engine=engine)
        assert_allclose(found[0], values, rtol=2e-5)


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_order_2_of_degree_0_is_a_density_of_another_width(tol, engine, batch) -> None:
    positions, weights = batch[0][0], batch[1][0]
    options = {"engine": engine, "tol": tol, "Q": (0.5, 1, 3, 5)}
    scales = [(0, 1), (0, 2), (1, 2)]
    found = scatter(positions, weights, [Path(s, 0) for s in scales], **options)
    for pair, values in zip(scales, found, strict=True):
        sigma = SIGMA * np.sqrt(1 + sum(4**j for j in pair))
        density = scatter(positions, weights, [Path((), 0)], sigma=sigma, **options)
        assert_allclose(values, density[0], rtol=2 * tol)


def test_softening_leaves_squares_and_degree_0(engine, batch) -> None:
    hard, soft = (
        scatter(batch[0][0], batch[1][0], PATHS, tol=1e-5, softening=s, engine=engine)
        for s in (0.0, 4.0)
    )
    for i, path in enumerate(PATHS):
        if path.degree == 0:
            assert_allclose(soft[i], hard[i], rtol=1e-6)
        elif len(path.scales) == 1:
            assert_allclose(soft[i, :, 2], hard[i, :, 2], rtol=1e-5)
            assert np.all(soft[i, :, [0, 1]] < 0.95 * hard[i, :, [0, 1]])


def test_little_softening_changes_little(engine, batch) -> None:
    hard, soft = (
        scatter(
            batch[0][0],
            batch[1][0],
            PATHS,
            Q=(1, 2, 3),
            tol=1e-3,
            softening=s,
            engine=engine,
        )
        for s in (0.0, 1e-4)
    )
    assert_allclose(soft, hard, rtol=5e-3)


@pytest.mark.parametrize("softening", [0.0, 4.0])
class TestWhatElseIsComputedDoesNotMatter:
    @staticmethod
    def options(softening, engine):
        return {"softening": softening, "engine": engine, "tol": 1e-3, "sigma": 1.0}

    def test_paths_channels_and_exponents(self, softening, engine, batch) -> None:
        options = self.options(softening, engine)
        positions = batch[0][0]
        weights = batch[1][0] * [[1], [-1], [30], [1]]
        weights[3, 0] *= -1
        whole = scatter(positions, weights, PATHS, Q=(0.5, 1, 2, 3, 4, 6), **options)
        for path in (Path((0, 1), 1), Path((1,), 2), Path((), 0), Path((0, 1), 0)):
            for channel, (q, Q) in enumerate([(1, 1), (0, 0.5), (5, 6), (3, 3)]):
                alone = scatter(
                    positions, weights[[channel]], [path], Q=(Q,), **options
                )
                expected = whole[PATHS.index(path), channel, q]
                assert_allclose(alone[0, 0, 0], expected, rtol=1e-12)

    def test_order_of_paths(self, softening, engine, batch) -> None:
        options = self.options(softening, engine)
        every = scatter(batch[0][0], batch[1][0][:1], PATHS, **options)
        some = [Path((0, 1), 1), Path((0,), 2), Path((), 0), Path((1,), 0)]
        found = scatter(batch[0][0], batch[1][0][:1], some, **options)
        expected = every[[PATHS.index(path) for path in some]]
        assert_allclose(found, expected, rtol=1e-12)

    def test_other_molecules(self, softening, engine, batch) -> None:
        options = self.options(softening, engine)
        # Some with other signs and sizes of weights, and one that is long.
        positions = [*batch[0][:2], np.array([[0, 0, 0], [0, 0, 7.0]]), WATER]
        weights = [
            batch[1][0],
            batch[1][1] * 10,
            np.array([[1.0, 1], [0, 0], [1, -1], [100, 1]]),
            np.array([[8.0, 1, 1], [3, 2, -1], [0, 1, 1], [-3, -1, -1]]),
        ]
        together = scatter_batch(positions, weights, PATHS, **options)
        for i, (r, w) in enumerate(zip(positions, weights, strict=True)):
            alone = scatter(r, w, PATHS, **options)
            assert_allclose(together[i], alone, rtol=1e-12)


def test_weights_of_any_sign_and_size(engine) -> None:
    weights = np.array([[8.0, -1, 1], [0, 0, 0], [3, 2, -1]])
    options = {"engine": engine, "softening": 0.0, "tol": 1e-3, "dtype": "float32"}
    Q = np.array([0.5, 1, 2, 3])
    first = scatter(WATER, weights, PATHS, Q=Q, **options)
    second = scatter(WATER, -1e6 * weights, PATHS, Q=Q, **options)
    assert np.all(np.isfinite(first))
    assert_array_equal(first[:, 1], 0)
    assert np.all(np.delete(first, 1, axis=1) > 0)
    assert_allclose(first * 1e6**Q, second, rtol=1e-5)


@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_units_of_length(softening, engine) -> None:
    # A coefficient has the unit of length to the power 3 - 3q.
    Q, unit, weights = np.array([0.5, 1, 2, 3, 5]), 1.8897, [[8.0, 1, 1]]
    options = {"Q": Q, "tol": 1e-3, "softening": softening, "engine": engine}
    first = scatter(WATER, weights, PATHS, sigma=0.5, **options)
    second = scatter(unit * WATER, weights, PATHS, sigma=0.5 * unit, **options)
    assert_allclose(second, first * unit ** (3 - 3 * Q), rtol=1e-9)


@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_atoms_far_apart_do_not_interact(softening, engine) -> None:
    # The grid is nearly empty, and what FFTs leave there would show.
    tol = 1e-4 if softening else 1e-3
    options = {"tol": tol, "softening": softening, "engine": engine, "dtype": "float32"}
    atom = scatter(np.zeros((1, 3)), np.ones((1, 1)), PATHS, **options)
    pair = np.array([[0, 0, 0], [9.0, 9.0, 12.0]])
    atoms = scatter(pair, np.ones((1, 2)), PATHS, **options)
    assert_allclose(atoms, 2 * atom, rtol=3 * tol)


@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_precisions_agree(softening, engine, batch) -> None:
    Q = (0.5, 1, 2, 3, 4, 8)
    single, double = (
        scatter(
            batch[0][2],
            batch[1][2],
            PATHS,
            Q=Q,
            tol=1e-3,
            softening=softening,
            engine=engine,
            dtype=dtype,
        )
        for dtype in ("float32", "float64")
    )
    assert_allclose(single, double, rtol=5e-6)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.usefixtures("whole_grids")
def test_array_libraries_agree(xp, softening, dtype, rtol, engine, batch) -> None:
    positions, weights = batch[0][1], batch[1][1]
    if engine == "separable" and dtype == "float64":
        positions, weights = WATER, np.array([[8.0, -1, 1], [3, 2, 1]])
    options = {
        "Q": (0.5, 1, 1.5, 2, 3, 4, 7),
        "tol": 1e-3,
        "sigma": 0.8,
        "softening": softening,
        "dtype": dtype,
        "engine": engine,
    }
    expected = scatter(positions, weights, PATHS, **options)
    found = scatter(positions, weights, PATHS, xp=xp, **options)
    assert_allclose(found, expected, rtol=rtol)


def test_memory_grows_with_the_molecule(engine, batch) -> None:
    def memory(factor, dtype):
        atoms = Atoms(factor * batch[0][0], np.ones(len(batch[0][0])), batch[1][0])
        return engine_of(PATHS, Q=(1, 2), engine=engine, dtype=dtype).memory(atoms)

    small = memory(1, "float32")
    assert 1e5 < small < 1e8
    assert memory(1, "float64") == 2 * small
    assert memory(100, "float32") > 5e3 * small
