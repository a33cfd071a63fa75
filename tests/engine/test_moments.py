"""Mixed moments of free molecules, against plain sums on a fine grid."""

import numpy as np
import pytest
from engines import library_of
from numpy.testing import assert_allclose, assert_array_equal
from references.formulas import amplitude, epsilon, power
from references.points import first_order

from skscatharm.engine import make_engine, moments, quadrature
from skscatharm.engine.dispatch import StructureEngine
from skscatharm.engine.protocol import Atoms
from skscatharm.structures import check_structures
from skscatharm.transform.paths import Pair, Path, field_pairs, scattering_paths
from skscatharm.transform.transform import Transform

SIGMA, SOFTENING = 0.5, 4.0
POSITIONS = np.array([[0.1, 0.0, -0.2], [0.9, 0.3, 0.1], [-0.4, 0.7, 0.6]])
WEIGHTS = np.array([[8.0, 1, 6], [6, 1, 4], [2, 1, 0]])
# One channel has both signs, and one has negative weights alone.
SIGNED = np.array([[8.0, 1, 6], [6, -4, 4], [-2, -1, 0]])
FIELDS = [Path((0,), 0), Path((0,), 2), Path((1,), 1)]
Q = (0.5, 1.0, 2.0, 5.0)


def engine_of(on_device=False, **settings):
    options = {
        "paths": tuple(FIELDS),
        "pairs": tuple(field_pairs(FIELDS, len(WEIGHTS))),
        "exponents": Q,
        "sigma": SIGMA,
        "tol": 1e-5,
        "softening": SOFTENING,
        "dtype": "float64",
        "engine": "separable",
    }
    transform = Transform(**options | settings)
    library = library_of(np, on_device)
    return StructureEngine(transform, library, make_engine(transform, library))


def atoms_of(positions=POSITIONS, weights=WEIGHTS):
    return Atoms(positions, np.array([8, 1, 6]), weights)


@pytest.fixture(scope="module", params=["positive", "signed"])
def squares(request):
    """Weights, squared moduli of each field and channel on a grid, the softening of
    densities in each channel, and the volume of a point.
    """
    weights = WEIGHTS if request.param == "positive" else SIGNED
    step = 0.13
    axes = [
        np.arange(x.min() - 5, x.max() + 5, step) for x in POSITIONS.astype(float).T
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    near = np.linalg.norm(points[..., None, :] - POSITIONS, axis=-1).min(-1) < 5
    found = [
        np.square(
            first_order(points[near], POSITIONS, w, path.scales, path.degree, SIGMA)
        ).sum(axis=0)
        for path in FIELDS
        for w in weights
    ]
    found = np.reshape(found, (len(FIELDS), len(weights), -1))
    softening = SOFTENING * np.any(weights < 0, axis=1) * np.any(weights > 0, axis=1)
    return weights, found, softening * amplitude((0,), 0, SIGMA), step**3


@pytest.mark.parametrize("on_device", [False, True])
def test_against_sums_on_a_fine_grid(on_device, squares) -> None:
    weights, squares, of_densities, volume = squares
    pairs = field_pairs(FIELDS, len(WEIGHTS))
    expected = np.empty((len(pairs), *WEIGHTS.shape[:1], len(Q)))
    for of_pair, (first, second, shift) in zip(expected, pairs, strict=True):
        for c, of_channel in enumerate(of_pair):
            for e, q in enumerate(Q):
                of_channel[e] = volume * np.prod(
                    [
                        power(
                            squares[FIELDS.index(path), channel],
                            q / 2,
                            epsilon(path.scales, path.degree, SIGMA, SOFTENING)
                            if path.degree
                            else of_densities[channel],
                        )
                        for path, channel in ((first, c), (second, (c + shift) % 3))
                    ],
                    axis=0,
                ).sum(axis=-1)
    engine = engine_of(on_device, signed=tuple(np.flatnonzero(of_densities)))
    (found,) = engine.coefficients([atoms_of(weights=weights)])
    assert_allclose(found[len(FIELDS) :], expected, rtol=1e-4)


@pytest.mark.parametrize("squares", ["positive"], indirect=True)
def test_paths_on_the_grids_of_pairs_against_sums_on_a_fine_grid(squares) -> None:
    weights, squares, _, volume = squares
    engine = engine_of()
    assert engine.transform.shares_grids
    (found,) = engine.coefficients([atoms_of(weights=weights)])
    for path, of_path, of_channels in zip(FIELDS, found, squares, strict=False):
        low = epsilon(path.scales, path.degree, SIGMA, SOFTENING)
        expected = [
            [volume * power(squared, q, low).sum() for q in Q]
            for squared in of_channels
        ]
        assert_allclose(of_path, expected, rtol=1e-4)


@pytest.mark.parametrize("tol", [1e-3, 1e-5])
@pytest.mark.parametrize("softening", [0.0, 4.0])
def test_paths_with_and_without_pairs(tol, softening, molecules) -> None:
    settings = {
        "paths": tuple(scattering_paths(J=1, L=3, max_order=1)[1:]),
        "exponents": (1.0, 2.0, 4.0),
        "sigma": 0.4,
        "tol": tol,
        "softening": softening,
    }
    settings["pairs"] = tuple(field_pairs(settings["paths"], 2))
    batch = [
        Atoms(s.positions, s.charges, np.stack([s.charges, np.ones(len(s.charges))]))
        for s in check_structures(molecules[:6])
    ]
    alone = engine_of(**settings | {"pairs": ()}).coefficients(batch)
    together = engine_of(**settings).coefficients(batch)
    assert_allclose(together[:, : alone.shape[1]], alone, rtol=2 * tol)


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({}, True),
        ({"path_exponents": (1.0, 2.0), "pair_exponents": (1.0, 2.0, 5.0)}, True),
        ({"path_exponents": (0.5, 1.0), "pair_exponents": (1.0, 2.0)}, False),
        ({"path_exponents": (2.0,), "pair_exponents": (2.0,)}, False),
        ({"signed": (1,)}, False),
        ({"engine": "fourier"}, False),
        ({"pairs": ()}, False),
    ],
)
def test_which_transforms_share_grids(settings, shared) -> None:
    transform = engine_of(**settings).transform
    assert transform.shares_grids == shared
    assert ("shares_grids" in transform.settings) == shared


def test_each_pair_of_fields_occurs_once() -> None:
    pairs = field_pairs(FIELDS, 3)
    seen = [
        frozenset({(first, c), (second, (c + shift) % 3)})
        for first, second, shift in pairs
        for c in range(3)
    ]
    assert len(seen) == len(set(seen)) == 9 * 8 // 2
    assert all(len(both) == 2 for both in seen)


@pytest.mark.parametrize("weights", [WEIGHTS, SIGNED])
def test_derivatives(weights, rng) -> None:
    # Densities of both signs have kinks unless they are multiplied.
    engine, h = engine_of(tol=1e-7, signed=(1,), paths=tuple(FIELDS[1:])), 1e-3
    (jacobian,) = engine.jacobian([atoms_of(weights=weights)])
    direction = rng.normal(size=POSITIONS.shape)
    moved = [atoms_of(POSITIONS + sign * h * direction, weights) for sign in (1, -1)]
    after, before = engine.coefficients(moved)
    expected = (after - before) / (2 * h)
    found = np.sum(jacobian.positions * direction, axis=(-2, -1))
    assert_allclose(found, expected, rtol=1e-4, atol=2e-6 * np.abs(after).max())
    factors = rng.normal(size=expected.shape)
    (gradient,) = engine.gradient([atoms_of(weights=weights)], [factors])
    summed = np.tensordot(factors, jacobian.positions, 3)
    assert_allclose(gradient.positions, summed, atol=1e-9 * np.abs(summed).max())


@pytest.mark.parametrize("n_kinds", [1, 2, 3])
def test_many_channels_of_few_kinds_of_atoms(n_kinds, rng) -> None:
    """Each channel is as it would be among few channels."""
    positions = np.vstack([POSITIONS, POSITIONS[:, ::-1] + [1.0, -0.5, 1.5]])
    kinds = np.arange(6) % n_kinds
    weights = np.vstack([rng.uniform(1, 8, size=(6, 3)), WEIGHTS[:1]])[:, kinds]
    weights[:, kinds == 0] = 8.0  # the same grids for all
    pairs = tuple(field_pairs(FIELDS))
    everything = engine_of(pairs=pairs, tol=1e-4)
    found, derivatives = [], []
    for channels in (slice(7), slice(3), slice(3, 6), slice(6, 7)):
        atoms = Atoms(positions, np.array([8, 1, 6])[kinds], weights[channels])
        found.extend(everything.coefficients([atoms]))
        (jacobian,) = everything.jacobian([atoms])
        derivatives.append(jacobian.positions)
        factors = rng.normal(size=found[-1].shape)
        (gradient,) = everything.gradient([atoms], [factors])
        expected = np.tensordot(factors, jacobian.positions, 3)
        atol = 1e-9 * np.abs(expected).max()
        assert_allclose(gradient.positions, expected, atol=atol)
    assert_allclose(found[0], np.concatenate(found[1:], axis=1), rtol=1e-7)
    expected = np.concatenate(derivatives[1:], axis=1)
    assert_allclose(derivatives[0], expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("tol", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("exponents", [(1.0, 2.0), (2.0, 4.0)])
@pytest.mark.parametrize("J", [0, 2, 3])
def test_little_lies_beyond_the_grids(J, exponents, tol, monkeypatch) -> None:
    paths = tuple(Path((j,), d) for j in range(J + 1) for d in range(4))
    settings = {"paths": paths, "pairs": tuple(field_pairs(paths)), "tol": tol}
    engine = engine_of(exponents=exponents, **settings)
    found = engine.coefficients([atoms_of()])
    margin = quadrature.product_margin
    for module in (moments, quadrature):
        monkeypatch.setattr(module, "product_margin", lambda *rule: 1.0 + margin(*rule))
    expected = engine.coefficients([atoms_of()])
    assert np.any(found != expected)
    assert_allclose(found, expected, rtol=0.5 * tol)


def test_a_chain_longer_than_fields_reach() -> None:
    """Atoms far from a point are left out, and those that matter are not."""
    sigma, step, exponents = 0.3, 0.09, (1.0, 2.0, 4.0)
    fields = [Path((0,), 2), Path((0,), 3), Path((1,), 3)]
    along = 1.2 * np.arange(5.0)
    chain = np.stack([along, 0.3 * np.cos(along), 0.3 * np.sin(2 * along)], axis=1)
    weights = np.array([[6.0, 1, 8, 1, 6]])
    axes = [np.arange(x.min() - 3, x.max() + 3, step) for x in chain.T]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    points = points[np.linalg.norm(points[..., None, :] - chain, axis=-1).min(-1) < 3]
    moduli: dict[float, dict[Path, np.ndarray]] = {q: {} for q in exponents}
    for path in fields:
        components = first_order(
            points, chain, weights[0], path.scales, path.degree, sigma
        )
        low = epsilon(path.scales, path.degree, sigma, SOFTENING)
        squared = (components**2).sum(axis=0)
        for q, of_q in moduli.items():
            of_q[path] = power(squared, q / 2, low)
    pairs = field_pairs(fields)
    settings = {"paths": tuple(fields), "pairs": tuple(pairs), "sigma": sigma}
    atoms = Atoms(chain, weights[0].astype(int), weights)
    for q, of_q in moduli.items():
        expected = [
            step**3 * (of_q[first] * of_q[second]).sum() for first, second, _ in pairs
        ]
        for tol in (1e-3, 1e-4, 1e-5):
            engine = engine_of(exponents=(q,), tol=tol, **settings)
            (found,) = engine.coefficients([atoms])
            assert_allclose(found[len(fields) :, 0, 0], expected, rtol=tol)


@pytest.mark.parametrize("tol", [1e-3, 1e-4])
def test_products_across_channels(tol, molecules) -> None:
    paths = tuple(Path((j,), d) for j in (0, 1) for d in (1, 2, 3))
    settings = {"paths": paths, "pairs": tuple(field_pairs(paths, 2)), "sigma": 0.25}
    batch = [
        Atoms(s.positions, s.charges, np.stack([s.charges, np.ones(len(s.charges))]))
        for s in check_structures(molecules[:6])
    ]
    for q in (1.0, 2.0, 4.0):
        expected = engine_of(exponents=(q,), tol=1e-6, **settings).coefficients(batch)
        found = engine_of(exponents=(q,), tol=tol, **settings).coefficients(batch)
        assert_allclose(found, expected, rtol=tol)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("joined", [False, True])
def test_derivatives_in_single_precision(joined, unit, molecules) -> None:
    pairs = tuple(field_pairs(FIELDS, 2 if joined else 1))
    settings = {"paths": tuple(FIELDS[:2]), "pairs": pairs, "tol": 1e-4}
    settings |= {"exponents": (1.0, 2.0, 4.0), "softening": SOFTENING * unit}
    batch = [
        Atoms(
            s.positions,
            s.charges,
            unit * np.stack([s.charges, np.ones(len(s.charges))]),
        )
        for s in check_structures(molecules[:6])
    ]
    engine = engine_of(**settings)
    single = engine_of(dtype="float32", **settings).jacobian(batch)
    double, coefficients = engine.jacobian(batch), engine.coefficients(batch)
    for found, expected, values in zip(single, double, coefficients, strict=True):
        error = np.abs(found.positions - expected.positions).max(axis=(-2, -1))
        largest = np.abs(expected.positions).max(axis=(-2, -1))
        # Terms nearly cancel where a coefficient hardly changes.
        assert np.all(error <= 1e-5 * largest + 1e-6 * values)
        assert np.any(error > 1e-12 * values)


def test_coefficients_and_gradients_together(rng) -> None:
    engine, batch = engine_of(tol=1e-3), [atoms_of(), atoms_of(1.1 * POSITIONS)]
    expected = engine.coefficients(batch)
    coefficients, found = engine.linearize(batch, np.cos)
    assert_allclose(coefficients, expected, rtol=1e-12)
    gradients = engine.gradient(batch, list(np.cos(expected)))
    for of_one, wanted in zip(found, gradients, strict=True):
        assert_allclose(of_one.positions, wanted.positions, rtol=1e-9, atol=1e-9)


def test_exponents_of_pairs_on_a_device() -> None:
    everything = engine_of(on_device=True)
    some = engine_of(on_device=True, path_exponents=(1.0,), pair_exponents=(2.0, 5.0))
    (expected,), (found,) = (e.coefficients([atoms_of()]) for e in (everything, some))
    kept = np.zeros(found.shape, dtype=bool)
    kept[: len(FIELDS), :, 1] = kept[len(FIELDS) :, :, 2:] = True
    assert_allclose(found[kept], expected[kept], rtol=2e-5)
    assert_array_equal(found[~kept], 0)


def test_derivatives_on_a_device(rng) -> None:
    engine, other = (engine_of(on_device, tol=1e-3) for on_device in (True, False))
    weights = rng.normal(size=other.coefficients([atoms_of()]).shape)
    for found, expected in (
        (engine.jacobian([atoms_of()]), other.jacobian([atoms_of()])),
        (engine.gradient([atoms_of()], weights), other.gradient([atoms_of()], weights)),
    ):
        assert_array_equal(found[0].positions, expected[0].positions)
    for found, expected in zip(
        engine.linearize([atoms_of()], lambda _: weights),
        other.linearize([atoms_of()], lambda _: weights),
        strict=True,
    ):
        assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("on_device", [False, True])
def test_fields_of_no_atom_have_no_moments(on_device) -> None:
    pair = Pair(FIELDS[1], FIELDS[2], 1)
    atoms = Atoms(POSITIONS[:2], np.array([8, 1]), np.array([[8.0, 1], [0, 0]]))
    transform = {"paths": (), "pairs": (pair,), "tol": 1e-3}
    engine = engine_of(on_device, **transform)
    (found,) = engine.coefficients([atoms])
    assert_array_equal(found, 0)
    (jacobian,) = engine.jacobian([atoms])
    assert_allclose(jacobian.positions, 0, atol=1e-12)


def test_a_single_atom() -> None:
    engine = engine_of()
    atom = Atoms(np.array([[1.0, 2, 3]]), np.array([8]), WEIGHTS[:, :1])
    pair = Atoms(
        np.array([[1.0, 2, 3], [9, 9, 9]]), np.array([8, 8]), WEIGHTS[:, [0, 0]]
    )
    one, two = engine.coefficients([atom, pair])
    assert_allclose(2 * one, two, rtol=1e-4)
    (jacobian,) = engine.jacobian([atom])
    assert_array_equal(jacobian.positions, 0)


def test_single_precision_on_several_tiles() -> None:
    """A chain is so long that its grids are cut; a more exact one is the reference."""
    steps = np.arange(24.0)
    positions = np.stack([1.4 * steps, np.sin(steps), np.cos(2 * steps)], axis=1)
    weights = np.array([1.0, 6, 8])[np.arange(24) % 3]
    chain = Atoms(positions, weights.astype(int), np.stack([weights, 9 - weights]))
    settings = {"pairs": tuple(field_pairs(FIELDS)), "exponents": (2.0,), "sigma": 0.3}
    (expected,) = engine_of(tol=1e-7, **settings).coefficients([chain])
    (found,) = engine_of(dtype="float32", **settings).coefficients([chain])
    assert_allclose(found, expected, rtol=1e-5)
