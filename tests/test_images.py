"""Images: against numbers of kymatio and direct sums, and as users see them."""

import pickle
from math import pi
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from skscatharm import ImageScattering
from skscatharm.engine import images as engine

FILE = Path(__file__).parent / "data" / "kymatio_images.npz"
with np.load(FILE) as file:
    KYMATIO = dict(file)
CASES = [name.removeprefix("images_") for name in KYMATIO if name.startswith("images")]


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).normal(size=(5, 20, 28))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("small", [0, 1000], ids=["ffts", "matrices"])
@pytest.mark.parametrize("case", CASES)
def test_kymatio(case, small, dtype, monkeypatch) -> None:
    monkeypatch.setattr(engine, "_SMALL", small)
    engine._make_engine.cache_clear()
    _, _, J, L, max_order = map(int, case.split("_"))
    scattering = ImageScattering(J, L, max_order, dtype=dtype)
    found = scattering.fit_transform(KYMATIO[f"images_{case}"])
    engine._make_engine.cache_clear()
    expected = KYMATIO[f"coefficients_{case}"]
    found = found.reshape(expected.shape)
    orders = [1, J * L, J * (J - 1) // 2 * L**2][: max_order + 1]
    start = 0
    for order, n in enumerate(orders):
        part = slice(start, start + n)
        # The filters of kymatio are larger.
        larger = (pi / 3.1415) ** (order + 1)
        largest = np.abs(expected[:, part]).max()
        assert_allclose(
            larger * found[:, part], expected[:, part], rtol=0, atol=2e-6 * largest
        )
        start += n
    assert start == found.shape[1]


def test_integrals(pictures) -> None:
    """Sums of the moduli over the image, of wavelets that are evaluated in space."""
    J, L = 2, 3
    scattering = ImageScattering(J, L, 1, pooling="integral", dtype="float64")
    found = scattering.fit_transform(pictures)
    assert found.shape == (5, 1 + J * L)
    assert_allclose(found[:, 0], pictures.sum(axis=(1, 2)))
    # Scale 0 is not subsampled.
    padded = np.pad(pictures, ((0, 0), (4, 4), (4, 4)), mode="reflect")
    y, x = np.meshgrid(np.arange(28), np.arange(36), indexing="ij")
    for t in range(L):
        theta = -t * pi / L
        sigma, xi, slant, wavelet = 0.8, 0.75 * pi, 4 / L, 0
        for a in range(-3, 4):
            for b in range(-3, 4):
                rows, columns = y - 28 * a, x - 36 * b
                along = np.cos(theta) * rows + np.sin(theta) * columns
                across = np.cos(theta) * columns - np.sin(theta) * rows
                envelope = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
                wavelet = wavelet + envelope * np.stack(
                    [np.exp(1j * xi * along), np.ones(along.shape)]
                )
        kappa = wavelet[0].sum() / wavelet[1].sum()
        wavelet = (wavelet[0] - kappa * wavelet[1]) * slant / (2 * pi * sigma**2)
        field = np.fft.ifft2(np.fft.fft2(padded) * np.fft.fft2(wavelet))
        expected = np.abs(field)[:, 4:-4, 4:-4].sum(axis=(1, 2))
        assert_allclose(found[:, 1 + t], expected, rtol=1e-8)


def test_integrals_do_not_see_shifts() -> None:
    image = np.zeros((64, 64))
    image[20:30, 24:30] = np.random.default_rng(0).normal(size=(10, 6))
    images = np.stack([image, np.roll(image, (8, 4), axis=(0, 1))])
    integrals = ImageScattering(2, 4, pooling="integral").fit_transform(images)
    assert_allclose(integrals[0], integrals[1], rtol=1e-4)


def test_the_range_of_an_image_is_a_factor(pictures) -> None:
    scattering = ImageScattering(2, 4)
    pixels = np.rint(40 * pictures).clip(-128, 127).astype(np.int8)
    whole = scattering.fit_transform(pixels)
    assert_allclose(scattering.transform(pixels / 128), whole / 128, rtol=1e-5)
    assert_array_equal(scattering.transform(pixels.tolist()), whole)


def test_constant_images() -> None:
    images = np.full((2, 16, 16), 3.0)
    found = ImageScattering(2, 4).fit_transform(images).reshape(2, -1, 16)
    assert_allclose(found[:, 0], 3, rtol=1e-6)
    assert_allclose(found[:, 1:], 0, atol=1e-5)


def test_names(pictures) -> None:
    scattering = ImageScattering(2, 2).fit(pictures)
    names = scattering.get_feature_names_out()
    assert len(names) == len(set(names)) == scattering.transform(pictures).shape[1]
    assert names[0] == "S0_y0_x0"
    assert names[5 * 7 + 7] == "S1_j0_t0_y1_x0"
    assert names[-1] == "S2_j0_t1_j1_t1_y4_x6"
    readable = ImageScattering(2, 2, names="readable").fit(pictures)
    assert readable.get_feature_names_out()[-1] == "S2[j=(0,1),t=(1,1),y=4,x=6]"
    integral = ImageScattering(2, 2, pooling="integral").fit(pictures)
    assert integral.get_feature_names_out().tolist()[-2:] == [
        "S2_j0_t1_j1_t0",
        "S2_j0_t1_j1_t1",
    ]


def test_rows_jobs_and_pickles(pictures) -> None:
    scattering = ImageScattering(2, 3, dtype="float64").fit(pictures)
    expected = scattering.transform(pictures)
    rows = pictures.reshape(5, -1)
    assert_array_equal(scattering.transform(rows), expected)
    by_rows = ImageScattering(2, 3, shape=[20, 28], dtype="float64", n_jobs=2)
    assert_allclose(by_rows.fit_transform(rows), expected, rtol=1e-12)
    again = pickle.loads(pickle.dumps(scattering))
    assert_array_equal(again.transform(pictures), expected)
    single = np.concatenate([scattering.transform(rows[[i]]) for i in range(5)])
    assert_allclose(single, expected, rtol=1e-12)


def test_orders_do_not_depend_on_each_other(pictures) -> None:
    whole = ImageScattering(3, 2).fit_transform(pictures)
    for order in (0, 1):
        part = ImageScattering(3, 2, order).fit_transform(pictures)
        assert_allclose(part, whole[:, : part.shape[1]], rtol=1e-6)


def test_torch(pictures) -> None:
    torch = pytest.importorskip("torch")
    for shape in ((5, 20, 28), (1, 100, 28)):  # matrices, and FFTs
        images = np.resize(pictures, shape)
        expected = ImageScattering(2, 3).fit_transform(images)
        found = ImageScattering(2, 3, backend="torch").fit_transform(
            torch.asarray(images)
        )
        assert isinstance(found, torch.Tensor)
        assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_search_on_digits() -> None:
    X, y = load_digits(return_X_y=True)
    model = make_pipeline(ImageScattering(shape=(8, 8)), RidgeClassifier())
    grid = {"imagescattering__J": [1, 2], "imagescattering__L": [2, 4]}
    search = GridSearchCV(model, grid, cv=3).fit(X[:600], y[:600])
    assert search.score(X[600:], y[600:]) > 0.93
    assert search.best_score_ > model[-1].fit(X[:400], y[:400]).score(
        X[400:600], y[400:600]
    )


def test_bad_images(pictures) -> None:
    scattering = ImageScattering(2, 2)
    with pytest.raises(NotFittedError):
        scattering.transform(pictures)
    with pytest.raises(ValueError, match=r"3 x 28 pixels are smaller than 2\*\*J = 4"):
        scattering.fit(pictures[:, :3])
    broken = pictures.copy()
    broken[3, 1, 2] = np.nan
    with pytest.raises(ValueError, match="Image 3 has NaN or infinite pixels"):
        scattering.fit(broken)
    with pytest.raises(ValueError, match="colour images"):
        scattering.fit(pictures[..., np.newaxis])
    with pytest.raises(ValueError, match=r"set shape=\(height, width\)"):
        scattering.fit(pictures.reshape(5, -1))
    with pytest.raises(ValueError, match=r"X\[np.newaxis\]"):
        scattering.fit(pictures[0, 0])
    with pytest.raises(ValueError, match="no images"):
        scattering.fit(pictures[:0])
    with pytest.raises(TypeError, match="pass real numbers"):
        scattering.fit(pictures * 1j)
    with pytest.raises(ValueError, match="different sizes"):
        scattering.fit([pictures[0], pictures[0, :10]])
    with pytest.raises(ValueError, match="not \\(20, 28\\)"):
        scattering.fit(pictures).transform(pictures[:, :10])
    with pytest.raises(ValueError, match="rows of 560 pixels"):
        ImageScattering(2, shape=(20, 20)).fit(pictures.reshape(5, -1))
    for shape in ((20,), (20, -1), (20, 2.5)):
        with pytest.raises(ValueError, match="two positive integers"):
            ImageScattering(2, shape=shape).fit(pictures)


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
def test_scikit_learn(check) -> None:
    check("ImageScattering", ImageScattering())
