import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import pdist, squareform
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from skscatharm import KernelRegressor, MultilinearRegressor
from skscatharm.regression import gaussian_process

N_ATOMS = 4
FIXED = {"length_scale": 4.0, "alpha": 1e-6, "decay": 0.7, "gradient_weight": 1.0}


def draw_clusters(rng, n_samples):
    """Inverse distances of four atoms, Morse energies, and the derivatives of both."""
    corners = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    positions = corners + 0.1 * rng.normal(size=(n_samples, N_ATOMS, 3))
    X, jacobian, energies, gradients = [], [], [], []
    for atoms in positions:
        first, second = np.triu_indices(N_ATOMS, 1)
        bonds = atoms[first] - atoms[second]
        lengths = np.linalg.norm(bonds, axis=1)
        slopes = np.zeros((len(lengths), N_ATOMS, 3))
        pairs = np.arange(len(lengths))
        slopes[pairs, first] = bonds / lengths[:, None]
        slopes[pairs, second] = -bonds / lengths[:, None]
        decay = np.exp(-1.5 * (lengths - 1.4))
        X.append(1 / lengths)
        jacobian.append(-slopes / lengths[:, None, None] ** 2)
        energies.append(((1 - decay) ** 2).sum() - 100)
        gradients.append(np.tensordot(3 * (1 - decay) * decay, slopes, 1))
    return {
        "X": np.array(X),
        "y": np.array(energies),
        "jacobian": np.array(jacobian),
        "gradients": np.array(gradients),
    }


@pytest.fixture
def clusters(rng):
    return draw_clusters(rng, 25)


@pytest.fixture
def others(rng):
    return draw_clusters(rng, 100)


def errors(model, data):
    """Mean absolute errors of energies and gradients."""
    gradients = np.einsum(
        "npac,np->nac", data["jacobian"], model.predict_gradient(data["X"])
    )
    return (
        abs(model.predict(data["X"]) - data["y"]).mean(),
        abs(gradients - data["gradients"]).mean(),
    )


@parametrize_with_checks([KernelRegressor()])
def test_scikit_learn(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("kernel", "reference"), [("matern", Matern(nu=2.5)), ("gaussian", RBF())]
)
def test_values_alone(rng, kernel, reference) -> None:
    X = rng.normal(size=(30, 3)) * [1, 10, 100]
    y = np.sin(X[:, 0]) + 0.1 * X[:, 1]
    model = KernelRegressor(kernel, **FIXED | {"alpha": 1e-3}).fit(X, y)
    # The same with the coordinates of the fit, a wide prior of the intercept, and noise
    # relative to the variance over the samples.
    z = (X - X.mean(axis=0)) @ model.matrix_
    assert_allclose(
        z,
        model.positions_[np.argsort(model.positions_[:, 0])][
            np.argsort(np.argsort(z[:, 0]))
        ],
        atol=1e-12,
    )
    matrix = reference(z)
    noise = 1e-3 * (1 - matrix.mean())
    expected = GaussianProcessRegressor(1e5 + reference, alpha=noise, optimizer=None)
    new = rng.normal(size=(20, 3)) * [1, 10, 100]
    expected.fit(z, y - y.mean())
    found = expected.predict((new - X.mean(axis=0)) @ model.matrix_)
    assert_allclose(model.predict(new), found + y.mean(), atol=1e-4)


def test_length_scale_and_decay(rng) -> None:
    X = rng.normal(size=(40, 3)) * [1, 2, 3] @ rng.normal(size=(3, 3))
    model = KernelRegressor(length_scale=2.0, decay=0.4, alpha=0.1).fit(X, X[:, 0])
    # Half of the mean squared distance is the mean squared norm.
    distances = squareform(pdist(model.positions_)) ** 2
    assert distances.mean() / 2 == pytest.approx(1 / 4)
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    spectrum = np.linalg.eigvalsh(np.cov(standard.T, bias=True))[::-1]
    assert_allclose(
        model.positions_.std(axis=0) / model.positions_[:, 0].std(),
        (spectrum / spectrum[0]) ** 0.2,
    )


@pytest.mark.parametrize("kernel", ["matern", "gaussian"])
def test_objective(clusters, kernel) -> None:
    """The coefficients solve the regularised problem of their own expansion."""
    model = KernelRegressor(kernel, **FIXED | {"alpha": 1e-4}).fit(**clusters)
    residuals = clusters["y"] - model.predict(clusters["X"])
    order = np.argsort(clusters["y"])
    # Residuals are noise times dual coefficients, which sum to zero.
    ratio = (
        residuals[order] / model.weights_[np.argsort(model.predict(_features(model)))]
    )
    assert_allclose(ratio, ratio.mean(), rtol=1e-6)
    assert ratio.mean() > 0
    assert model.weights_.sum() == pytest.approx(
        0, abs=1e-6 * abs(model.weights_).max()
    )
    slopes = np.einsum(
        "npac,np->nac", clusters["jacobian"], model.predict_gradient(clusters["X"])
    )
    left = clusters["gradients"] - slopes
    unit = (clusters["gradients"] ** 2).sum(axis=(1, 2)).mean() / clusters["y"].var()
    scaled = np.einsum("npac,pk->nkac", clusters["jacobian"], model.matrix_)
    expected = np.einsum("nkac,nac->nk", scaled, left) / (ratio.mean() * unit)
    found = model.slopes_[np.argsort(model.predict(_features(model)))]
    assert_allclose(found, expected[order], rtol=1e-5, atol=1e-6 * abs(found).max())


def _features(model):
    """Features of the training samples, in the order of the fit."""
    return model.positions_ @ np.linalg.pinv(model.matrix_) + model.mean_


def test_gradients_help(clusters, others) -> None:
    model = KernelRegressor().fit(**clusters)
    alone = KernelRegressor().fit(clusters["X"], clusters["y"])
    energy, gradient = errors(model, others)
    energy_alone, gradient_alone = errors(alone, others)
    assert energy < energy_alone / 5
    assert gradient < gradient_alone / 5
    assert energy < 0.02 * others["y"].std()
    assert gradient < 0.05 * others["gradients"].std()


@pytest.mark.parametrize(
    "model",
    [
        KernelRegressor(**FIXED, random_state=0),
        MultilinearRegressor(degree=2, n_components=None, alpha=1e-6, random_state=0),
    ],
)
def test_derivatives_that_have_no_room(model, clusters, others, monkeypatch) -> None:
    some = {name: array[:15] for name, array in clusters.items()}
    of_some = errors(model.fit(**some), others)
    # 25 targets, and 80 of 150 derivatives. All of 15 samples are 105 rows, too.
    monkeypatch.setattr(gaussian_process, "_MAX_ROWS", 105)
    with pytest.warns(UserWarning, match="25 samples .* 53% of the derivatives"):
        model.fit(**clusters)
    assert errors(model, others)[1] < of_some[1]


@pytest.mark.parametrize("kernel", ["matern", "gaussian"])
def test_predicted_gradients(clusters, others, kernel) -> None:
    model = KernelRegressor(kernel, **FIXED).fit(**clusters)
    x, step = others["X"][:5], 1e-4
    expected = np.stack(
        [
            (model.predict(x + shift) - model.predict(x - shift)) / (2 * step)
            for shift in step * np.eye(x.shape[1])
        ],
        axis=1,
    )
    found = model.predict_gradient(x)
    assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


def test_standard_deviations(clusters, others) -> None:
    model = KernelRegressor().fit(**clusters)
    y, std = model.predict(others["X"], return_std=True)
    assert_array_equal(y, model.predict(others["X"]))
    # Of 25 samples.
    assert 0.4 < (abs(y - others["y"]) < std).mean() < 0.95
    _, far = model.predict(others["X"] + 1.0, return_std=True)
    assert far.min() > 3 * std.mean()


def test_units_do_not_matter(clusters, others) -> None:
    model = KernelRegressor().fit(**clusters)
    scale = 10.0 ** np.arange(-3, 3)
    scaled = KernelRegressor().fit(
        clusters["X"] * scale,
        23 * clusters["y"] + 7,
        jacobian=clusters["jacobian"] * scale[:, None, None] * 0.529,
        gradients=clusters["gradients"] * 23 * 0.529,
    )
    y, std = model.predict(others["X"], return_std=True)
    found, deviation = scaled.predict(others["X"] * scale, return_std=True)
    assert_allclose(found, 23 * y + 7, rtol=1e-6)
    assert_allclose(deviation, 23 * std, rtol=1e-3)


def test_order_and_padding_do_not_matter(clusters, others, rng) -> None:
    model = KernelRegressor(random_state=0).fit(**clusters)
    order = rng.permutation(25)
    shuffled = {name: array[order] for name, array in clusters.items()}
    shuffled["jacobian"] = np.pad(shuffled["jacobian"], [(0, 0)] * 2 + [(0, 2), (0, 0)])
    shuffled["gradients"] = np.pad(shuffled["gradients"], [(0, 0), (0, 2), (0, 0)])
    other = KernelRegressor(random_state=0).fit(**shuffled)
    assert_allclose(other.predict(others["X"]), model.predict(others["X"]), rtol=1e-6)


def test_sample_weight(clusters, others, rng) -> None:
    weight = rng.integers(0, 3, size=25)
    model = KernelRegressor(random_state=0).fit(**clusters, sample_weight=weight)
    repeated = {name: np.repeat(a, weight, axis=0) for name, a in clusters.items()}
    copies = KernelRegressor(random_state=0).fit(**repeated)
    assert_allclose(copies.predict(others["X"]), model.predict(others["X"]), rtol=1e-9)


def test_bad_derivatives(clusters) -> None:
    model = KernelRegressor(**FIXED).fit(**clusters)
    before = model.weights_.copy()
    del clusters["jacobian"]
    with pytest.raises(ValueError, match="gradients needs jacobian"):
        model.fit(**clusters)
    assert_array_equal(model.weights_, before)


def test_penalty_too_small(rng) -> None:
    X = rng.normal(size=(20, 1))
    with pytest.raises(ValueError, match="alpha=1e-30 is too small"):
        KernelRegressor(alpha=1e-30, length_scale=100.0).fit(X, X[:, 0])


def test_not_fitted() -> None:
    with pytest.raises(NotFittedError):
        KernelRegressor().predict_gradient([[1.0]])


def test_copies(clusters, others) -> None:
    model = KernelRegressor(random_state=0).fit(**clusters)
    expected = model.predict(others["X"])
    again = clone(model).fit(**clusters)
    for copy in (pickle.loads(pickle.dumps(model)), again):
        assert_array_equal(copy.predict(others["X"]), expected)
    assert clone(model).get_params() == model.get_params()


def test_search(clusters) -> None:
    search = GridSearchCV(
        KernelRegressor(**FIXED), {"kernel": ["matern", "gaussian"]}, cv=2
    )
    search.fit(**clusters)
    assert search.best_score_ > 0.9


@pytest.mark.parametrize("n_samples", [1, 2, 3])
def test_few_samples(clusters, n_samples) -> None:
    few = {name: array[:n_samples] for name, array in clusters.items()}
    model = KernelRegressor().fit(**few)
    y, std = model.predict(clusters["X"], return_std=True)
    assert np.isfinite(y).all()
    # A single sample has no neighbours.
    assert np.isfinite(std).all() if n_samples > 1 else np.isnan(std).all()


def test_constant_target(clusters) -> None:
    model = KernelRegressor().fit(clusters["X"], np.full(25, 3.0))
    assert_allclose(model.predict(clusters["X"]), 3)
    assert_allclose(model.predict_gradient(clusters["X"]), 0, atol=1e-12)


def test_parameters_set_after_the_fit(clusters, others) -> None:
    model = KernelRegressor("matern", **FIXED).fit(**clusters)
    expected = model.predict(others["X"])
    model.set_params(kernel="gaussian", length_scale=1.0)
    assert_array_equal(model.predict(others["X"]), expected)
