import pickle
import sys
from itertools import combinations
from pathlib import Path

import ase
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils._param_validation import InvalidParameterError

from skscatharm import SETTINGS, SolidHarmonicScattering, scattering

METHANE = [
    [6, 0, 0, 0],
    [1, 0.63, 0.63, 0.63],
    [1, -0.63, -0.63, 0.63],
    [1, -0.63, 0.63, -0.63],
    [1, 0.63, -0.63, -0.63],
]


@pytest.fixture
def fast() -> SolidHarmonicScattering:
    """A transformer that takes little time."""
    return SolidHarmonicScattering(J=1, L=1, sigma=0.6)


# parametrize_with_checks leaves out estimators of 3-D input; these checks need no data.
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_scikit_learn(check) -> None:
    check("SolidHarmonicScattering", SolidHarmonicScattering())


@pytest.mark.parametrize("max_order", [0, 1, 2])
@pytest.mark.parametrize("J", [0, 1, 3])
def test_feature_names(J, max_order, molecules) -> None:
    transformer = SolidHarmonicScattering(J, 2, sigma=0.6, max_order=max_order)
    names = transformer.get_feature_names_out()
    channels, Q = ["nuclear", "valence", "core", "bonding"], ["0.5", "1", "2", "3"]
    expected = [f"S0[{c},q={q}]" for c in channels for q in Q]
    if max_order > 0:
        expected += [
            f"S1[{c},j={j},l={degree},q={q}]"
            for c in channels
            for j in range(J + 1)
            for degree in range(3)
            for q in Q
        ]
    if max_order > 1:
        expected += [
            f"S2[{c},j=({j1},{j2}),l={degree},q={q}]"
            for c in channels
            for j1, j2 in combinations(range(J + 1), 2)
            for degree in range(3)
            for q in Q
        ]
    assert names.tolist() == expected
    assert transformer.transform(molecules[:1]).shape == (1, len(expected))


def test_default_has_400_coefficients() -> None:
    assert len(SolidHarmonicScattering().get_feature_names_out()) == 400


def test_settings() -> None:
    published = SolidHarmonicScattering(**SETTINGS["published"])
    assert published.get_params() == SolidHarmonicScattering().get_params()
    assert len(published.get_feature_names_out()) == 384 + 16
    soft = SolidHarmonicScattering(**SETTINGS["soft"])
    assert {*published.get_feature_names_out()} < {*soft.get_feature_names_out()}


def test_columns_are_what_they_are_called(molecules) -> None:
    large = SolidHarmonicScattering(2, 2, sigma=0.6, dtype="float64")
    small = SolidHarmonicScattering(
        1, 1, (1, 3), 0.6, channels=["core", "nuclear"], dtype="float64"
    )
    for transformer in (large, small):
        transformer.set_output(transform="pandas")
    whole, part = large.transform(molecules[:3]), small.transform(molecules[:3])
    assert_allclose(part, whole[part.columns], rtol=1e-9)


def test_set_output(molecules, fast) -> None:
    array = fast.transform(molecules)
    frame = clone(fast).set_output(transform="pandas").fit_transform(molecules)
    assert isinstance(frame, pd.DataFrame)
    assert_array_equal(frame.columns, fast.get_feature_names_out())
    assert_array_equal(frame.to_numpy(), array)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_batches_and_jobs_do_not_matter(n_jobs, molecules, fast) -> None:
    together = clone(fast).set_params(n_jobs=n_jobs).transform(molecules)
    alone = np.concatenate([fast.transform(molecules[[i]]) for i in range(20)])
    assert_array_equal(together, alone)


def test_fit_transform_is_transform(molecules, fast) -> None:
    once = clone(fast).fit_transform(molecules)
    assert_array_equal(once, fast.transform(molecules))
    assert_array_equal(once, fast.fit(molecules).transform(molecules))


@pytest.mark.parametrize("engine", ["separable", "fourier"])
def test_clone_and_pickle(engine, molecules, fast) -> None:
    fast.set_params(engine=engine)
    expected = fast.fit_transform(molecules[:3])
    copy = pickle.loads(pickle.dumps(fast))
    assert_array_equal(copy.transform(molecules[:3]), expected)
    assert_array_equal(clone(fast).transform(molecules[:3]), expected)


def test_input_stays_as_it_is(molecules, fast) -> None:
    before = molecules.copy()
    fast.fit_transform(molecules)
    assert_array_equal(molecules, before)


def test_padding_does_not_matter(molecules, fast) -> None:
    padded = np.pad(molecules, ((0, 0), (0, 7), (0, 0)))
    assert_array_equal(fast.transform(padded), fast.transform(molecules))


def test_ase_atoms_are_taken(molecules, fast) -> None:
    atoms = [ase.Atoms(m[m[:, 0] > 0, 0], m[m[:, 0] > 0, 1:]) for m in molecules]
    assert_array_equal(fast.transform(atoms), fast.transform(molecules))


@pytest.mark.parametrize("configuration", ["", "_wide"])
def test_agrees_with_kymatio(configuration) -> None:
    with np.load(Path(__file__).parent / "data" / "kymatio.npz") as data:
        reference = dict(data)
    sigma, J, L = (reference[name + configuration] for name in ("sigma", "J", "L"))
    transformer = SolidHarmonicScattering(
        int(J), int(L), reference["Q"], float(sigma), n_jobs=2
    )
    found = transformer.transform(reference["molecules"])
    expected = np.concatenate(
        [
            reference[f"order{order}{configuration}"].reshape(len(found), -1)
            for order in range(3)
        ],
        axis=1,
    )
    assert_allclose(found, expected, rtol=2e-3)
    assert np.median(np.abs(found / expected - 1)) < 2e-5


class TestInvariance:
    """Of the default coefficients, for molecules of QM9."""

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls, molecules):
        return SolidHarmonicScattering().transform(molecules[:2])

    @staticmethod
    def moved(molecules, rotation, shift):
        X = molecules[:2].copy()
        atoms = X[:, :, 0] > 0
        X[atoms, 1:] = X[atoms, 1:] @ rotation.T + shift
        return SolidHarmonicScattering().transform(X)

    @pytest.mark.parametrize("seed", range(2))
    def test_rotation(self, seed, molecules, expected) -> None:
        found = self.moved(molecules, Rotation.random(None, seed).as_matrix(), 0)
        assert_allclose(found, expected, rtol=1e-3)
        assert np.median(np.abs(found / expected - 1)) < 1e-5

    def test_reflection(self, molecules, expected) -> None:
        found = self.moved(molecules, np.diag([1, -1, 1]), 0)
        assert_allclose(found, expected, rtol=1e-3)

    def test_translation(self, molecules, expected) -> None:
        found = self.moved(molecules, np.eye(3), [0.1, -20, 3])
        assert_allclose(found, expected, rtol=1e-4)

    def test_order_of_the_atoms(self, molecules, expected) -> None:
        X = molecules[:2].copy()
        for molecule in X:
            n = np.count_nonzero(molecule[:, 0])
            molecule[:n] = molecule[np.random.default_rng(0).permutation(n)]
        found = SolidHarmonicScattering().transform(X)
        assert_allclose(found, expected, rtol=1e-4)

    def test_any_motion_with_softened_moduli(self, molecules) -> None:
        X = molecules[:2].copy()
        transformer = SolidHarmonicScattering(**SETTINGS["soft"])
        expected = transformer.transform(X)
        atoms = X[:, :, 0] > 0
        X[atoms, 1:] = -X[atoms, 1:] @ Rotation.random(None, 0).as_matrix().T + 5
        assert_allclose(transformer.transform(X), expected, rtol=1e-4)

    def test_symmetric_top(self) -> None:
        # Its principal axes are not unique: only the quadrature is invariant.
        X = np.array([METHANE])
        expected = SolidHarmonicScattering().transform(X)
        soft = SolidHarmonicScattering(**SETTINGS["soft"]).transform(X)
        X[..., 1:] = X[..., 1:] @ Rotation.random(None, 1).as_matrix().T
        assert_allclose(SolidHarmonicScattering().transform(X), expected, rtol=1e-3)
        turned = SolidHarmonicScattering(**SETTINGS["soft"]).transform(X)
        assert_allclose(turned, soft, rtol=5e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 6, 7, 8, 9, 16, 17]),
            *[st.integers(-4, 4).map(float)] * 3,
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda atom: atom[1:],
    )
)
def test_any_arrangement_of_atoms_has_positive_coefficients(atoms) -> None:
    transformer = SolidHarmonicScattering(
        1, 2, sigma=1.0, channels=["nuclear", "valence", "bonding"]
    )
    coefficients = transformer.transform([atoms])
    assert np.all(np.isfinite(coefficients))
    assert np.all(coefficients > 0)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("J", -1),
        ("J", 1.5),
        ("L", -1),
        ("sigma", 0),
        ("max_order", 3),
        ("tol", 0),
        ("softening", -1),
        ("softening", 1e-30),
        ("dtype", "float16"),
        ("engine", "spherical"),
        ("backend", "jax"),
        ("channels", "nuclear"),
        ("Q", 2),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_invalid_parameters(method, parameter, value, molecules) -> None:
    transformer = SolidHarmonicScattering(**{parameter: value})
    with pytest.raises(InvalidParameterError, match=parameter):
        getattr(transformer, method)(molecules)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("softening", [1e-6, 1e4])
def test_extreme_softening(softening, backend, molecules) -> None:
    if backend == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    transformer = SolidHarmonicScattering(
        1, 2, (0.5, 1, 1.5, 2, 3, 4), 0.6, softening=softening, backend=backend
    )
    found = transformer.set_params(engine="separable").transform(molecules[:2])
    double = transformer.set_params(dtype="float64").transform(molecules[:2])
    assert np.all(found > 0)
    assert_allclose(found, double, rtol=1e-5)


@pytest.mark.parametrize("Q", [(), (0.25,), (1, 1), (np.inf,), [[1, 2]]])
def test_invalid_exponents(Q, molecules) -> None:
    with pytest.raises(ValueError, match="Q"):
        SolidHarmonicScattering(Q=Q).fit(molecules)


def test_element_that_a_channel_does_not_know(molecules) -> None:
    iron = molecules.copy()
    iron[3, 0, 0] = 26
    with pytest.raises(ValueError, match=r"Molecule 3 holds Fe.*'valence'"):
        SolidHarmonicScattering().transform(iron)


def test_own_channels(molecules, fast) -> None:
    hydrogens = {1: 1.0, 6: 0, 7: 0, 8: 0, 9: 0}
    fast.set_params(channels={"H": hydrogens}, Q=(1,), max_order=0)
    counts = np.count_nonzero(molecules[:, :, 0] == 1, axis=1)
    assert fast.get_feature_names_out().tolist() == ["S0[H,q=1]"]
    assert_allclose(fast.transform(molecules)[:, 0], counts, rtol=1e-4, atol=1e-6)


def test_molecule_that_does_not_fit_into_memory() -> None:
    X = np.array([METHANE, METHANE], dtype=float)
    X[1, :, 1:] *= 1000
    with pytest.raises(ValueError, match=r"Molecule 1 .* GiB .* larger sigma"):
        SolidHarmonicScattering().fit(X)


def test_nothing_is_computed_before_all_is_checked(molecules, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise AssertionError("computed too early")

    monkeypatch.setattr(scattering, "scattering_batch", fail)
    wrong = molecules.copy()
    wrong[-1, 0, 1] = np.nan
    with pytest.raises(ValueError, match="Molecule 19, atom 0 has NaN"):
        SolidHarmonicScattering().transform(wrong)


def test_progress(molecules, fast, capsys) -> None:
    fast.transform(molecules)
    assert capsys.readouterr().err == ""
    fast.set_params(verbose=1).transform(molecules)
    assert "20/20" in capsys.readouterr().err


class TestEnginesAndBackends:
    def test_engines_agree(self, molecules, fast) -> None:
        separable = fast.transform(molecules[:5])
        fourier = fast.set_params(engine="fourier").transform(molecules[:5])
        assert_allclose(fourier, separable, rtol=3e-4)
        assert np.any(fourier != separable)

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_fourier_engine_gives_frames(self, n_jobs, molecules, fast) -> None:
        fast.set_params(engine="fourier", n_jobs=n_jobs)
        array = fast.transform(molecules[:4])
        frame = fast.set_output(transform="pandas").transform(molecules[:4])
        assert_array_equal(frame.columns, fast.get_feature_names_out())
        assert_allclose(frame.to_numpy(), array)

    @pytest.mark.parametrize("engine", ["separable", "fourier"])
    @pytest.mark.parametrize("backend", ["auto", "numpy", "torch"])
    def test_torch_in_torch_out(self, backend, engine, molecules, fast) -> None:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        fast.set_params(engine=engine, sigma=1.0)
        expected = fast.transform(molecules[:2])
        tensor = torch.asarray(molecules[:2].copy(), requires_grad=True)
        found = fast.set_params(backend=backend).fit_transform(tensor)
        assert isinstance(found, torch.Tensor)
        assert found.device == tensor.device
        assert_allclose(found.numpy(), expected, rtol=2e-5)

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_numpy_in_numpy_out(self, n_jobs, molecules, fast) -> None:
        pytest.importorskip("torch", reason="torch is not installed")
        expected = fast.transform(molecules[:2])
        found = fast.set_params(backend="torch", n_jobs=n_jobs).transform(molecules[:2])
        assert isinstance(found, np.ndarray)
        assert_allclose(found, expected, rtol=2e-5)

    @pytest.mark.parametrize("engine", ["separable", "fourier"])
    def test_cupy_in_cupy_out(self, engine, molecules, fast) -> None:
        cupy = pytest.importorskip("cupy", reason="cupy is not installed")
        if not cupy.cuda.is_available():
            pytest.skip("CuPy finds no CUDA device")
        fast.set_params(engine=engine)
        found = fast.transform(cupy.asarray(molecules))
        assert isinstance(found, cupy.ndarray)
        expected = fast.set_params(backend="numpy").transform(molecules)
        assert_allclose(found.get(), expected, rtol=2e-5)

    @pytest.mark.parametrize("method", ["fit", "transform"])
    def test_cupy_is_missing(self, method, molecules, fast, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "cupy", None)
        fast.fit(molecules)
        fast.set_params(backend="cupy")
        with pytest.raises(ImportError, match="pip install"):
            getattr(fast, method)(molecules)

    def test_molecule_too_large_for_the_fourier_engine(self) -> None:
        X = np.array([METHANE], dtype=float)
        X[:, :, 1:] *= 60
        transformer = SolidHarmonicScattering(engine="fourier")
        with pytest.raises(
            ValueError, match=r"Molecule 0 .* GiB .* engine='separable'"
        ):
            transformer.fit(X)
        transformer.set_params(engine="separable").fit(X)

    def test_search_over_engines(self, qm9) -> None:
        pipeline = make_pipeline(
            SolidHarmonicScattering(J=1, L=1, sigma=1.0), StandardScaler(), Ridge()
        )
        grid = {"solidharmonicscattering__engine": ["separable", "fourier"]}
        search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2)
        search.fit(qm9.data[:20], qm9.target[:20, 7])
        scores = search.cv_results_["mean_test_score"]
        assert_allclose(scores[0], scores[1], rtol=1e-2)


def test_search_gives_the_same_on_two_jobs(qm9) -> None:
    X, y = qm9.data[:20], qm9.target[:20, 7]
    pipeline = make_pipeline(
        SolidHarmonicScattering(J=1, L=1), StandardScaler(), Ridge()
    )
    grid = {
        "solidharmonicscattering__sigma": [0.8, 1.0],
        "solidharmonicscattering__Q": [(1,), (1, 2)],
        "ridge__alpha": [1e-3, 1],
    }
    one, two = (
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2)
    )
    assert one.best_params_ == two.best_params_
    assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )
    assert_array_equal(one.predict(X), two.predict(X))
