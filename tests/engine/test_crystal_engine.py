"""The engine of crystals, against sums over images and transforms of a fine grid."""

from itertools import product

import numpy as np
import pytest
from engines import library_of
from numpy.testing import assert_allclose
from references.formulas import epsilon, power, wavelet_constant
from scipy.special import sph_harm_y

from skscatharm.engine.crystals import CrystalEngine
from skscatharm.engine.protocol import Atoms
from skscatharm.transform.paths import Path, scattering_paths
from skscatharm.transform.transform import Transform

SIGMA = 0.5
CELL = np.array([[2.6, 0, 0], [0, 2.9, 0], [0, 0, 3.1]])
POSITIONS = np.array([[0.1, 0.2, 0.3], [1.5, 1.4, 1.2], [0.4, 2.2, 2.5]])
WEIGHTS = np.array([[6.0, 8, 1], [1, 2, 3]])


def engine_of(paths, xp=np, **settings):
    options = {
        "exponents": (0.5, 1.0, 3.0),
        "sigma": SIGMA,
        "tol": 1e-5,
        "softening": 4.0,
        "dtype": "float64",
        "engine": "separable",
    }
    return CrystalEngine(
        Transform(paths=tuple(paths), **options | settings), library_of(xp)
    )


def atoms_of(cell=CELL, pbc=(True, True, True)):
    return Atoms(POSITIONS, np.array([6, 8, 1]), WEIGHTS, cell, pbc)


def wavelets(degree, scale, vectors, *, transformed=False):
    """Values of wavelets at points, or of their transforms, for all orders m."""
    r = np.linalg.norm(vectors, axis=-1)
    polar = np.arccos(np.divide(vectors[..., 2], r, out=np.ones_like(r), where=r > 0))
    azimuth = np.arctan2(vectors[..., 1], vectors[..., 0])
    x = r * scale if transformed else r / scale
    factor = (-1j) ** degree * (2 * np.pi) ** 1.5 if transformed else scale**-3
    radial = factor * wavelet_constant(degree) * x**degree * np.exp(-(x**2) / 2)
    return [
        radial * sph_harm_y(degree, m, polar, azimuth)
        for m in range(-degree, degree + 1)
    ]


@pytest.mark.parametrize("softening", [4.0, 0.0])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_fields_on_a_fine_grid(degree, softening) -> None:
    n = 36
    axes = [np.arange(n) / n * length for length in np.diag(CELL)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    k = [2 * np.pi * np.fft.fftfreq(n, length / n) for length in np.diag(CELL)]
    k = np.stack(np.meshgrid(*k, indexing="ij"), axis=-1)
    volume, width = np.linalg.det(CELL) / n**3, np.sqrt(2) * SIGMA
    tol, Q = (1e-5, (0.5, 1.0, 3.0)) if softening else (2e-4, (1.0, 3.0))
    paths = [Path((0,), degree), Path((0, 1), degree)]
    engine = engine_of(paths, softening=softening, tol=tol, exponents=Q)
    (found,) = engine.coefficients([atoms_of()])
    of_atoms = np.zeros((len(POSITIONS), 2 * degree + 1, n, n, n), complex)
    for fields, position in zip(of_atoms, POSITIONS, strict=True):
        for image in product((-2, -1, 0, 1, 2), repeat=3):
            from_atom = points - position - np.array(image) @ CELL
            fields += wavelets(degree, width, from_atom)
    of_atoms *= (SIGMA / width) ** degree
    for channel, weights in enumerate(WEIGHTS):
        fields = np.einsum("n,nmxyz->mxyz", weights, of_atoms)
        squared = np.sum(np.abs(fields) ** 2, axis=0)
        eps = epsilon((0,), degree, SIGMA, softening)
        expected = [volume * power(squared, q, eps).sum() for q in Q]
        assert_allclose(found[0, channel], expected, rtol=tol)
        spectrum = np.fft.fftn(power(squared, 1, eps))
        squared = sum(
            np.abs(np.fft.ifftn(spectrum * psi)) ** 2
            for psi in wavelets(degree, 2 * SIGMA, k, transformed=True)
        )
        eps = epsilon((0, 1), degree, SIGMA, softening)
        expected = [volume * power(squared, q, eps).sum() for q in Q]
        assert_allclose(found[1, channel], expected, rtol=tol)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_array_libraries_agree(xp, pbc) -> None:
    skewed = CELL + np.array([[0, 0.3, 0], [0, 0, -0.2], [0.5, 0, 0]])
    atoms, paths = atoms_of(skewed, pbc), scattering_paths(1, 2, 2)
    options = {"exponents": (0.5, 1.0, 2.0, 7.0), "tol": 1e-3}
    with np.errstate(all="ignore"):
        expected, found = (
            (*engine.coefficients([atoms]), *engine.jacobian([atoms])[0])
            for engine in (
                engine_of(paths, **options),
                engine_of(paths, xp, **options),
            )
        )
    for values, wanted in zip(found, expected, strict=True):
        assert_allclose(values, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())
