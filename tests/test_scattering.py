import pickle
import sys
import threading
import warnings
from itertools import combinations
from pathlib import Path

import ase
import numpy as np
import pandas as pd
import pytest
from ase.build import molecule as build
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
from skscatharm.structures import Structure

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
    return SolidHarmonicScattering(J=1, L=1, sigma=0.8)


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
    transformer = SolidHarmonicScattering(
        J, 2, sigma=1.0, max_order=max_order, tol=1e-3, names="readable"
    )
    names = transformer.get_feature_names_out()
    channels, Q = ["nuclear", "valence", "core", "bonding"], ["0.5", "1", "2", "3", "4"]
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
    if max_order > 0:
        fields = [f"j={j},l={degree}" for j in range(J + 1) for degree in range(3)]
        expected += [
            f"S1xS1[{c},{first},{second},q=2]"
            for c in channels
            for first, second in combinations(fields, 2)
        ]
    assert names.tolist() == expected
    assert transformer.transform(molecules[:1]).shape == (1, len(expected))


def test_plain_names_are_the_readable_ones_without_signs() -> None:
    channels = {"a b": {1: 1.0}, "a_b": {1: 2.0}}
    options = {"J": 1, "L": 1, "Q": (0.5, 1, 1.0000001), "channels": channels}
    plain, readable = (
        SolidHarmonicScattering(**options, names=names).get_feature_names_out()
        for names in ("plain", "readable")
    )
    assert len(set(plain)) == len(set(readable)) == len(plain) == len(readable)
    assert plain[[0, 5, 41, -1]].tolist() == [
        "S0_a_b_q0p5",
        "S0_a_b_2_q1p0000001",
        "S2_a_b_2_j0_j1_l1_q1p0000001",
        "S1xS1_a_b_2_j1_l0_j1_l1_q2",
    ]
    assert readable[[0, 5, 41, -1]].tolist() == [
        "S0[a b,q=0.5]",
        "S0[a_b,q=1.0000001]",
        "S2[a_b,j=(0,1),l=1,q=1.0000001]",
        "S1xS1[a_b,j=1,l=0,j=1,l=1,q=2]",
    ]


def test_settings() -> None:
    default = SolidHarmonicScattering()
    assert len(default.get_feature_names_out()) == 764
    mixed = SolidHarmonicScattering(**SETTINGS["mixed"])
    assert mixed.get_params() == default.get_params()
    soft = SolidHarmonicScattering(**SETTINGS["soft"])
    assert soft.get_params() == default.get_params() | {"mixed_moments": False}
    names = soft.get_feature_names_out().tolist()
    assert names == default.get_feature_names_out()[:500].tolist()
    published = SolidHarmonicScattering(**SETTINGS["published"])
    assert len(published.get_feature_names_out()) == 384 + 16
    assert {*published.get_feature_names_out()} < {*soft.get_feature_names_out()}
    changed = {"Q", "softening", "tol"}
    assert {
        name
        for name, value in published.get_params().items()
        if value != soft.get_params()[name]
    } == changed
    potential = SolidHarmonicScattering(**SETTINGS["potential"])
    names = potential.get_feature_names_out()
    # Paths of orders 0 and 1, and pairs of the 24 fields of order 1.
    assert len(names) == (9 * 3 + 24 * 23 // 2) * 3
    assert not any("core" in name for name in names)


def test_columns_are_what_they_are_called(molecules) -> None:
    large = SolidHarmonicScattering(2, 2, sigma=1.0, dtype="float64")
    small = SolidHarmonicScattering(
        1, 1, (1, 3), 1.0, channels=["core", "nuclear"], dtype="float64"
    )
    for transformer in (large, small):
        transformer.set_output(transform="pandas")
    whole, part = large.transform(molecules[:3]), small.transform(molecules[:3])
    is_mixed = part.columns.str.contains("xS1")
    assert is_mixed.sum() == 2 * 6
    exact = part.columns[~is_mixed]
    assert_allclose(part[exact], whole[exact], rtol=1e-12)
    assert_allclose(part, whole[part.columns], rtol=1e-5)


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
        int(J),
        int(L),
        reference["Q"],
        float(sigma),
        softening=0,
        mixed_moments=False,
        tol=2e-4,
        n_jobs=2,
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


CUBE = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
SHAPES = {
    "no symmetry": build("CH3CONH2"),
    "water": build("H2O"),
    "ammonia": build("NH3"),
    "methane": build("CH4"),
    "benzene": build("C6H6"),
    "cubane": ase.Atoms("C8H8", np.concatenate([0.785 * CUBE, 1.41 * CUBE])),
    "allene": build("C3H4_D2d"),
    "CO2": build("CO2"),
    "one atom": ase.Atoms("O"),
}


def copies(atoms):
    """Copies of a molecule that have its coefficients."""
    rng = np.random.default_rng(0)
    matrix = Rotation.random(None, 1).as_matrix()
    for turn, shift in [
        (matrix, 0),
        (Rotation.random(None, 2).as_matrix(), [0.1, -20, 3]),
        (np.diag([1, -1, 1]), 0),
        (-matrix, 5),
        (np.eye(3), [100.0, 0.2, -7]),
    ]:
        order = rng.permutation(len(atoms))
        yield ase.Atoms(atoms.numbers, atoms.positions @ turn.T + shift)[order]


class TestInvariance:
    """To rotations, reflections, translations and the order of the atoms."""

    @pytest.mark.parametrize("engine", ["separable", "fourier"])
    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize(
        ("options", "rtol"),
        [
            # A molecule and its copies stand on the same grids.
            ({"dtype": "float64", "softening": 0, "tol": 1e-3}, 1e-6),
            ({"dtype": "float64"}, 1e-8),
            ({"dtype": "float32"}, 1e-5),
        ],
    )
    def test_copies(self, options, rtol, name, engine) -> None:
        transformer = SolidHarmonicScattering(
            1, 2, sigma=1.0, engine=engine, channels=["nuclear"], **options
        )
        expected, *found = transformer.transform([SHAPES[name], *copies(SHAPES[name])])
        for coefficients in found:
            assert_allclose(coefficients, expected, rtol=rtol)

    @pytest.mark.parametrize("setting", SETTINGS)
    def test_settings(self, setting, molecules) -> None:
        transformer = SolidHarmonicScattering(**SETTINGS[setting])
        m = molecules[0]
        atoms = ase.Atoms(m[m[:, 0] > 0, 0], m[m[:, 0] > 0, 1:])
        copy = list(copies(atoms))[3]
        expected, found = transformer.transform([atoms, copy])
        assert_allclose(found, expected, rtol=transformer.tol)


@pytest.mark.filterwarnings("ignore::skscatharm.StructureWarning")
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
        1, 2, sigma=1.0, channels=["nuclear", "valence", "bonding"], tol=1e-3
    )
    atoms = np.array(atoms)
    # Structures are not checked for unlikely distances.
    structure = Structure(atoms[:, 0].astype(int), atoms[:, 1:])
    coefficients = transformer.transform([structure])
    assert np.all(np.isfinite(coefficients))
    assert np.all(coefficients > 0)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("J", -1),
        ("J", 11),
        ("J", 1.5),
        ("L", -1),
        ("L", 21),
        ("sigma", 0),
        ("max_order", 3),
        ("tol", 0),
        ("tol", 9e-9),
        ("tol", 0.011),
        ("names", "pretty"),
        ("softening", -1),
        ("softening", 1e-30),
        ("softening", 1.1e4),
        ("dtype", "float16"),
        ("engine", "spherical"),
        ("backend", "jax"),
        ("channels", "nuclear"),
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
        1,
        2,
        (0.5, 1, 1.5, 2, 3, 4),
        1.0,
        softening=softening,
        tol=1e-3,
        backend=backend,
    )
    found = transformer.set_params(engine="separable").transform(molecules[:2])
    double = transformer.set_params(dtype="float64").transform(molecules[:2])
    assert np.all(found > 0)
    assert_allclose(found, double, rtol=1e-5)


@pytest.mark.parametrize(
    "Q", [2, (), (0.25,), (1, 1), (1, 32.5), (np.inf,), [[1, 2]], {1, 2}]
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_invalid_exponents(method, Q, molecules) -> None:
    with pytest.raises(ValueError, match="Q"):
        getattr(SolidHarmonicScattering(Q=Q), method)(molecules)
    with pytest.raises(ValueError, match="Q"):
        SolidHarmonicScattering(Q=Q).get_feature_names_out()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 1e-7}, "tol=1e-07 .*dtype='float32'.* 2e-06.*dtype='float64'"),
        ({"tol": 2e-6, "L": 12}, "tol=2e-06 .*L=12.*a smaller L"),
        ({"tol": 1e-7, "dtype": "float64", "engine": "fourier"}, "'separable'"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_tolerance_that_cannot_be_kept(method, options, message, molecules) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(SolidHarmonicScattering(**options), method)(molecules)


def test_exponents_at_the_limits(molecules) -> None:
    transformer = SolidHarmonicScattering(1, 1, (0.5, 32), 1.0)
    single = transformer.transform(molecules[:2])
    double = transformer.set_params(dtype="float64").transform(molecules[:2])
    assert np.all(single > 0)
    assert_allclose(single, double, rtol=1e-5)


def test_element_that_a_channel_does_not_know(molecules) -> None:
    iron = molecules.copy()
    iron[3, 0, 0] = 26
    with pytest.raises(ValueError, match=r"Molecule 3 holds Fe.*'valence'"):
        SolidHarmonicScattering().transform(iron)


def test_own_channels(molecules, fast) -> None:
    hydrogens = {1: 1.0, 6: 0, 7: 0, 8: 0, 9: 0}
    fast.set_params(channels={"H": hydrogens}, Q=(1,), max_order=0)
    counts = np.count_nonzero(molecules[:, :, 0] == 1, axis=1)
    assert fast.get_feature_names_out().tolist() == ["S0_H_q1"]
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


@pytest.mark.parametrize("engine", ["separable", "fourier"])
def test_settings_of_numpy_for_errors_do_not_matter(engine, molecules, fast) -> None:
    fast.set_params(engine=engine)
    expected = fast.transform(molecules[:2])
    with np.errstate(all="raise"), warnings.catch_warnings(action="error"):
        assert_array_equal(fast.transform(molecules[:2]), expected)


def test_no_thread_starts_without_a_progress_bar(molecules, fast, monkeypatch) -> None:
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda t: (started.append(t), start(t))
    )
    fast.transform(molecules)
    assert started == []


def test_progress(molecules, fast, capsys) -> None:
    fast.transform(molecules)
    assert capsys.readouterr().err == ""
    fast.set_params(verbose=1).transform(molecules)
    assert "20/20" in capsys.readouterr().err


class TestEnginesAndBackends:
    def test_engines_agree(self, molecules, fast) -> None:
        separable = fast.transform(molecules[:5])
        fourier = fast.set_params(engine="fourier").transform(molecules[:5])
        assert_allclose(fourier, separable, rtol=3e-5)
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
        tensor = torch.asarray(molecules[:2].copy())
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
