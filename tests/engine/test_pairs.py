"""Products of fields of crystals, against plain sums on a fine grid."""

from itertools import combinations, product

import numpy as np
import pytest
from engines import library_of
from numpy.testing import assert_allclose
from references.formulas import attenuation, epsilon, power, wavelet_constant, width
from scipy.special import sph_harm_y

from skscatharm.engine.accuracy import Accuracy
from skscatharm.engine.arrays import to_numpy
from skscatharm.engine.crystal import Crystal
from skscatharm.engine.crystals import CrystalEngine
from skscatharm.engine.lattice import Resolution
from skscatharm.engine.protocol import Atoms
from skscatharm.engine.sources import AtomSource
from skscatharm.engine.spectral import FieldSettings, SpectralFields
from skscatharm.transform.paths import Path, field_pairs
from skscatharm.transform.transform import Transform

SIGMA = 0.5
CELL = np.array([[2.6, 0.3, 0], [0, 2.9, -0.2], [0.4, 0, 3.1]])
POSITIONS = np.array([[0.1, 0.2, 0.3], [1.5, 1.4, 1.2], [0.4, 2.2, 2.5]])
WEIGHTS = np.array([[6.0, 8, 1], [1, 0, 3]])
FIELDS = [Path((0,), 0), Path((0,), 2), Path((1,), 1)]
Q = (0.5, 1.0, 2.0, 5.0)


def engine_of(xp=np, **settings):
    options = {
        "exponents": Q,
        "sigma": SIGMA,
        "tol": 1e-5,
        "softening": 4.0,
        "dtype": "float64",
        "engine": "separable",
    }
    transform = Transform(
        paths=tuple(FIELDS), pairs=tuple(field_pairs(FIELDS)), **options | settings
    )
    return CrystalEngine(transform, library_of(xp))


def atoms_of(pbc=(True, True, True)):
    return Atoms(POSITIONS, np.array([6, 8, 1]), WEIGHTS, CELL, pbc)


def squared_modulus(path, points):
    """Squares of the fields of both channels, as sums over atoms and images."""
    t, degree = width(path.scales, SIGMA), path.degree
    components = 0.0
    for images in product(range(-3, 4), repeat=3):
        for position, weights in zip(POSITIONS, WEIGHTS.T, strict=True):
            vectors = (points - position - np.array(images) @ CELL) / t
            r = np.linalg.norm(vectors, axis=-1)
            if r.min() > 6:
                continue
            polar = np.arccos(vectors[..., 2] / r)
            azimuth = np.arctan2(vectors[..., 1], vectors[..., 0])
            orders = np.arange(-degree, degree + 1)[:, None, None, None]
            values = r**degree * np.exp(-(r**2) / 2)
            values = values * sph_harm_y(degree, orders, polar, azimuth)
            components = components + np.multiply.outer(weights, values)
    constant = wavelet_constant(degree) * attenuation(path.scales, degree, SIGMA)
    return np.sum(np.abs(components * constant * t**-3) ** 2, axis=1)


def test_products_on_a_fine_grid() -> None:
    n, softening = 20, 4.0
    shifts = np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing="ij"), axis=-1)
    squares = [squared_modulus(path, shifts @ CELL) for path in FIELDS]
    expected = np.empty((3, 2, len(Q)))
    for pair, (a, b) in zip(expected, combinations(range(3), 2), strict=True):
        for e, q in enumerate(Q):
            first, second = (
                power(squares[i], q / 2, epsilon(*FIELDS[i], SIGMA, softening))
                for i in (a, b)
            )
            pair[:, e] = np.sum(first * second, axis=(1, 2, 3))
    expected *= np.linalg.det(CELL) / n**3
    (found,) = engine_of().coefficients([atoms_of()])
    assert_allclose(found[len(FIELDS) :], expected, rtol=2e-5)


@pytest.mark.parametrize("degree", [0, 2, 3])
def test_squares_on_coarse_grids(xp, degree) -> None:
    path = Path((1,), degree)
    source = AtomSource([Crystal(atoms_of())], [WEIGHTS], xp, xp.float64)
    accuracy = Accuracy(1e-7, softness=0.5)
    fine = Resolution(0.1, accuracy.spectral_step(degree) * width((1,), SIGMA), 5.0)
    settings = FieldSettings(
        (path,), np.ones(1), SIGMA, 4.0, accuracy, spacing=1.5, common=fine
    )
    fields = SpectralFields(source, settings, xp, "float64")
    square = fields.square(path)
    whole = to_numpy(square.all())[0]
    assert_allclose(to_numpy(square.planes(2, 4))[0], whole[:, 2:4], rtol=1e-12)
    shifts = [np.arange(n) / n for n in square.lattice.shape]
    shifts = np.stack(np.meshgrid(*shifts, indexing="ij"), axis=-1)
    expected = squared_modulus(path, (shifts @ CELL)[::3, ::3, ::3])
    units = (source.unit[0] * fields.constant(path))[..., None, None] ** 2
    found = (whole * units)[:, ::3, ::3, ::3]
    assert_allclose(found, expected, rtol=0, atol=1e-6 * expected.max())


def test_they_do_not_depend_on_others() -> None:
    (expected,) = engine_of().coefficients([atoms_of()])
    few = Transform(
        paths=tuple(FIELDS[1:]),
        pairs=tuple(field_pairs(FIELDS[1:])),
        exponents=(1.0,),
        sigma=SIGMA,
        tol=1e-5,
        softening=4.0,
        dtype="float64",
        engine="separable",
    )
    (found,) = CrystalEngine(few, library_of(np)).coefficients([atoms_of()])
    assert_allclose(found[2, :, 0], expected[5, :, 1], rtol=1e-12)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)])
def test_array_libraries_agree(xp, pbc, rng) -> None:
    options = {"exponents": (1.0, 3.0), "tol": 1e-3}
    atoms, weights = atoms_of(pbc), [rng.normal(size=(6, 2, 2))]
    with np.errstate(all="ignore"):
        expected, found = (
            (
                *engine.coefficients([atoms]),
                *engine.jacobian([atoms])[0],
                *engine.gradient([atoms], weights)[0],
            )
            for engine in (engine_of(**options), engine_of(xp, **options))
        )
    for values, wanted in zip(found, expected, strict=True):
        assert_allclose(values, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())
