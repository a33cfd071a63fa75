"""Densities on a grid: against atoms, numbers of kymatio, and as users see them."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io.cube import read_cube, write_cube
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from skscatharm import STANDARD_CHANNELS, SolidHarmonicScattering, VoxelScattering
from skscatharm.engine import voxels as voxel_module

CHANNELS = ["nuclear", "bonding"]
SMALL = {"J": 0, "L": 1, "Q": (1, 2), "sigma": 0.6, "spacing": 0.3}


def gaussians(positions, weights, sigma, axes):
    """Sample normalised Gaussians on a tensor grid; weights are (n_channels, n)."""
    density = np.zeros((len(weights), *map(len, axes)))
    for position, of_channels in zip(positions, weights.T, strict=True):
        x, y, z = (
            np.exp(-((axis - along) ** 2) / (2 * sigma**2))
            for axis, along in zip(axes, position, strict=True)
        )
        density += np.einsum("k,x,y,z->kxyz", of_channels, x, y, z)
    return density / (2 * np.pi * sigma**2) ** 1.5


def box(positions, spacing, margin):
    """Coordinates of voxels around atoms."""
    low, high = positions.min(axis=0) - margin, positions.max(axis=0) + margin
    steps = np.broadcast_to(spacing, 3)
    return [np.arange(a, b, step) for a, b, step in zip(low, high, steps, strict=True)]


def weights_of(numbers, channels=CHANNELS):
    tables = [STANDARD_CHANNELS[channel] for channel in channels]
    return np.array([[table[Z] for Z in numbers] for table in tables], dtype=float)


@pytest.mark.parametrize(
    ("options", "rtol"),
    [
        ({"J": 2, "L": 3}, 1e-5),
        ({"J": 1, "L": 2, "softening": 0, "tol": 2e-4, "Q": (1, 2, 3)}, 2e-4),
        ({"J": 0, "L": 1, "tol": 1e-6, "dtype": "float64", "Q": (1, 6)}, 1e-6),
    ],
)
def test_atoms_of_a_molecule(options, rtol) -> None:
    sigma, spacing = 0.5, np.array([0.22, 0.2, 0.18])
    atoms = molecule("CH3OH")
    atoms.positions = Rotation.random(None, 0).apply(atoms.positions)
    axes = box(atoms.positions, spacing, 6.5 * sigma)
    density = gaussians(atoms.positions, weights_of(atoms.numbers), sigma, axes)
    found = VoxelScattering(sigma=sigma, spacing=spacing, **options).fit_transform(
        density[np.newaxis]
    )
    exact = {**options, "tol": min(options.get("tol", 1e-5), 1e-5), "dtype": "float64"}
    expected = SolidHarmonicScattering(
        sigma=sigma, channels=CHANNELS, mixed_moments=False, **exact
    )
    assert_allclose(found, expected.transform([atoms]), rtol=rtol)


@pytest.mark.parametrize("name", ["Si", "NaCl"])
def test_atoms_of_a_crystal(name) -> None:
    atoms = bulk("Si") if name == "Si" else bulk("NaCl", "rocksalt", 5.6, cubic=True)
    sigma = 0.6
    shape = np.array([16, 16, 18] if name == "Si" else [24, 24, 24])
    edges = np.array(atoms.cell) / shape[:, np.newaxis]
    density = np.zeros((1, *shape))
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ edges
    for shift in product((-2, -1, 0, 1, 2), repeat=3):
        for Z, position in zip(atoms.numbers, atoms.positions, strict=True):
            offset = places - position - shift @ atoms.cell
            density += Z * np.exp(-(offset**2).sum(axis=-1) / (2 * sigma**2))
    density /= (2 * np.pi * sigma**2) ** 1.5
    options = {"J": 1, "L": 2, "Q": (1, 2, 3), "sigma": sigma, "tol": 1e-4}
    voxels = VoxelScattering(spacing=edges, periodic=True, **options)
    found = voxels.fit_transform(density[np.newaxis])
    crystals = SolidHarmonicScattering(
        channels=["nuclear"], mixed_moments=False, **options
    )
    expected = crystals.transform([atoms])
    # Coefficients that vanish by symmetry are left out.
    large = expected > 1e-6 * expected.max(axis=1, keepdims=True)
    assert_allclose(found[large], expected[large], rtol=1e-4)
    moved = np.roll(density, (3, 5, -2), axis=(1, 2, 3))
    assert_allclose(voxels.transform(moved[np.newaxis]), found, rtol=1e-4, atol=1e-9)


def test_kymatio() -> None:
    with np.load(Path(__file__).parent / "data" / "kymatio.npz") as data:
        reference = dict(data)
    sigma, J, L = (reference[f"{name}_wide"] for name in ("sigma", "J", "L"))
    spacing = 0.7 * float(sigma)
    densities = []
    chosen = [0, 4]
    for padded in reference["molecules"][chosen]:
        atoms = padded[padded[:, 0] > 0]
        axes = box(atoms[:, 1:], spacing, 6 * sigma)
        weights = reference["weights"][:, atoms[:, 0].astype(int)]
        densities.append(gaussians(atoms[:, 1:], weights, sigma, axes))
    # In units of the voxels, as kymatio has them.
    scattering = VoxelScattering(
        int(J),
        int(L),
        reference["Q"],
        sigma=float(sigma) / spacing,
        spacing=1.0,
        softening=0,
        tol=2e-4,
    )
    found = scattering.fit_transform([density * spacing**3 for density in densities])
    expected = np.concatenate(
        [
            (
                reference[f"order{order}_wide"][chosen]
                * spacing ** (3 * reference["Q"] - 3)
            ).reshape(len(found), -1)
            for order in range(3)
        ],
        axis=1,
    )
    assert_allclose(found, expected, rtol=3e-3)
    assert np.median(np.abs(found / expected - 1)) < 1e-4


@pytest.fixture(scope="module")
def densities():
    """Two samples with two channels."""
    axes = [0.3 * np.arange(-10, 11)] * 3
    positions = np.array([[-0.5, 0, 0.1], [0.6, 0.2, 0]])
    weights = np.array([[1.0, 2], [3, 1]])
    return np.stack(
        [gaussians(scale * positions, weights, 0.6, axes) for scale in (1, 1.5)]
    )


def test_names_and_columns(densities) -> None:
    scattering = VoxelScattering(**SMALL, channels=["a", "b"]).fit(densities)
    names = scattering.get_feature_names_out()
    assert names[0] == "S0_a_q1"
    found = dict(zip(names, scattering.transform(densities).T, strict=True))
    # Integrals of densities are sums of weights.
    assert_allclose(found["S0_a_q1"], 3, rtol=1e-4)
    assert_allclose(found["S1_b_j0_l0_q1"], 4, rtol=1e-4)
    default = VoxelScattering(**SMALL, names="readable").fit(densities)
    assert default.get_feature_names_out()[-1] == "S1[c1,j=0,l=1,q=2]"


def test_samples_do_not_depend_on_others(densities) -> None:
    scattering = VoxelScattering(**SMALL)
    together = scattering.fit_transform(densities)
    assert_array_equal(scattering.transform(densities[1:]), together[1:])
    larger = np.pad(densities[0], [(0, 0), (0, 4), (2, 0), (1, 1)])
    listed = scattering.transform([larger, densities[1]])
    assert_allclose(listed, together, rtol=1e-6)


def test_zero_channel(densities) -> None:
    densities = densities.copy()
    densities[0, 1] = 0
    scattering = VoxelScattering(**SMALL).fit(densities)
    names = scattering.get_feature_names_out().astype(str)
    found = scattering.transform(densities)[0]
    assert_array_equal(found[np.char.find(names, "_c1_") >= 0], 0)
    assert np.all(found[np.char.find(names, "_c0_") >= 0] > 0)


def test_density_that_is_sharper_than_sigma() -> None:
    # A point charge on a voxel: the field of order 1 is the wavelet itself.
    density = np.zeros((1, 1, 5, 5, 5))
    density[0, 0, 2, 2, 2] = 1 / 0.2**3
    scattering = VoxelScattering(
        J=0, L=2, Q=(1,), sigma=0.8, spacing=0.2, softening=0, tol=1e-4
    )
    found = scattering.fit_transform(density)[0]
    assert_allclose(found, 1, rtol=1e-3)  # the norm of the wavelets


def test_torch(densities) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    expected = VoxelScattering(**SMALL, backend="numpy").fit_transform(densities)
    tensor = torch.asarray(densities)
    for backend in ("numpy", "torch"):
        found = VoxelScattering(**SMALL, backend=backend).fit_transform(tensor)
        assert isinstance(found, torch.Tensor)
        assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_cube_file(tmp_path) -> None:
    atoms = molecule("H2O")
    atoms.center(vacuum=3)
    n = 28
    edges = np.diag(atoms.cell) / n
    axes = [np.arange(n) * edge for edge in edges]
    density = gaussians(atoms.positions, weights_of(atoms.numbers), 0.6, axes)
    path = tmp_path / "water.cube"
    with path.open("w") as file:
        write_cube(file, atoms, density[0])
    with path.open() as file:
        cube = read_cube(file)
    spacing = np.diag(cube["spacing"])
    assert_allclose(spacing, edges, rtol=1e-5)
    options = {**SMALL, "spacing": spacing}
    found = VoxelScattering(**options).fit_transform(cube["data"][None, None])
    expected = VoxelScattering(**options).fit_transform(density[np.newaxis, :1])
    assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"shape \(2, 21, 21, 21\); pass an array.*X\[:, np.newaxis\]"),
        (lambda x: x[0, 0], r"shape \(21, 21, 21\).*X\[np.newaxis, np.newaxis\]"),
        (lambda x: x[:0], "X holds no densities"),
        (lambda x: np.where(x > x.max() / 2, np.nan, x), "Sample 0 has NaN"),
        (lambda x: x - 0.1, r"Sample 0 has negative densities, down to -0.1.*two chan"),
        (lambda x: [x[0], x[1, :1]], "Sample 1 has 1 channels, and sample 0 has 2"),
        (lambda x: [x[0], x[1, 0]], r"Sample 1 has shape \(21, 21, 21\)"),
    ],
)
def test_bad_densities(densities, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        VoxelScattering(**SMALL).fit(change(densities))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"spacing": 0.5},
            r"0.5 Å is too coarse for sigma=0.6: choose sigma=0.77 or more, a spacing "
            r"of 0.39",
        ),
        ({"spacing": [0.2, 0.2]}, "is no spacing of voxels: pass a positive number"),
        ({"spacing": np.eye(3) + 0.1}, "with periodic=True, the edges of a voxel"),
        ({"spacing": [0.2, 0.2, -1]}, "is no spacing of voxels"),
        ({"channels": ["a"]}, r"channels=\['a'\] do not name the 2 channels"),
        ({"channels": ["a", "a"]}, "all different"),
        ({"Q": (0.1,)}, "Q is out of range"),
        ({"sigma": -1}, "'sigma' parameter"),
    ],
)
def test_bad_parameters(densities, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        VoxelScattering(**{**SMALL, **options}).fit(densities)


def test_least_sigma_is_accepted(densities) -> None:
    VoxelScattering(**{**SMALL, "spacing": 0.5, "sigma": 0.77}).fit(densities)


def test_other_errors(densities, monkeypatch) -> None:
    with pytest.raises(TypeError, match=r"Sample 0 has the type complex128"):
        VoxelScattering(**SMALL).fit(densities * 1j)
    with pytest.raises(NotFittedError):
        VoxelScattering().transform(densities)
    fitted = VoxelScattering(**SMALL).fit(densities)
    with pytest.raises(ValueError, match=r"X has 1 channels.* fitted to 2"):
        fitted.transform(densities[:, :1])
    monkeypatch.setattr(voxel_module, "_MEMORY", 1000)
    with pytest.raises(ValueError, match=r"Sample 0 of shape \(2, 21, 21, 21\) would"):
        fitted.transform(densities)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
    ],
)
def test_estimator(check) -> None:
    check("VoxelScattering", VoxelScattering())
