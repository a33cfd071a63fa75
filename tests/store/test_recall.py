"""Scattering with a store: nothing is computed twice, and nothing changes."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stores import forget

from skscatharm import (
    STANDARD_CHANNELS,
    CoefficientStore,
    SolidHarmonicScattering,
    StoreWarning,
    scattering,
)
from skscatharm.store import recall
from skscatharm.store.recall import density_keys
from skscatharm.structures import Structure
from skscatharm.transform.columns import arrange


@pytest.fixture
def kept(tmp_path) -> SolidHarmonicScattering:
    """A fast transformer with a store."""
    return SolidHarmonicScattering(1, 1, sigma=0.8, memory=tmp_path / "store")


@pytest.fixture
def computed(monkeypatch):
    """List what the engine is asked to compute: (molecules, channels, paths, Q)."""
    calls = []

    def record(structures, weights, transform, library):
        paths, exponents = list(transform.paths), list(transform.exponents)
        calls.append((len(structures), len(weights[0]), paths, exponents))
        return original(structures, weights, transform, library)

    original = recall.scattering_batch
    monkeypatch.setattr(recall, "scattering_batch", record)
    return calls


def without(transformer: SolidHarmonicScattering) -> SolidHarmonicScattering:
    return clone(transformer).set_params(memory=None)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_are_the_same(n_jobs, molecules, kept) -> None:
    expected = without(kept).transform(molecules)
    kept.set_params(n_jobs=n_jobs)
    assert_array_equal(kept.fit_transform(molecules), expected)
    forget()
    assert_array_equal(kept.transform(molecules), expected)


@pytest.mark.parametrize(
    "less",
    [
        {"J": 0},
        {"L": 0},
        {"Q": (3, 1)},
        {"max_order": 1},
        {"channels": ["bonding", "nuclear"]},
        {"channels": {"Z": {1: 1, 6: 6, 7: 7, 8: 8, 9: 9}}},
    ],
)
def test_less_is_read(less, molecules, kept, computed) -> None:
    kept.set_params(J=2, L=2).set_output(transform="pandas")
    whole = kept.transform(molecules[::-1])
    computed.clear()
    part = kept.set_params(**less).transform(molecules)
    assert computed == []
    names = [name.replace("_Z_", "_nuclear_") for name in part.columns]
    assert_array_equal(part, whole[names][::-1])


def test_more_takes_what_is_missing(molecules, kept, computed) -> None:
    n = len(molecules)

    def new(**parameters):
        computed.clear()
        kept.set_params(**parameters).transform(molecules)
        assert sum(call[0] for call in computed) in (0, n)
        return {
            (n_channels, *map(len, path.scales and [path.scales]), path, *Q)
            for _, n_channels, paths, Q in computed
            for path in paths
        }

    def paths_of(found):
        return {(key[-len(Q) - 1].scales, key[-len(Q) - 1].degree) for key in found}

    Q = (1, 2, 0.5, 3, 4)
    found = new(Q=(1, 2), channels=["nuclear", "valence"])
    scales = [(), (0,), (0, 1), (0, 2), (0, 3), (1,), (1, 2), (1, 3)]
    assert paths_of(found) == {((), 0)} | set(product(scales[1:], [0, 1]))
    assert {key[0] for key in found} == {2}

    assert new(J=2, L=0) != set()  # the fields of scale 2
    found = new(J=1, L=2)
    assert paths_of(found) == set(product(scales[1:], [2]))
    assert new(Q=(0.5, 1, 3)) == set()
    found = new(channels=["nuclear", "valence", "bonding"])
    assert {key[0] for key in found} == {1}
    Q = (1.5,)
    found = new(Q=(1.5, 2), channels=["nuclear"], L=0)
    assert {key[-1] for key in found} == {1.5}


@pytest.mark.parametrize("first", [0, 1, 2])
def test_three_values_of_J_compute_each_field_once(
    first, molecules, kept, computed
) -> None:
    for J in range(first, first + 3):
        kept.set_params(J=J, sigma=1.0).transform(molecules[:1])
    scales = [path.scales for _, _, paths, _ in computed for path in paths]
    assert len(scales) == 2 * len(set(scales)) - 1  # two degrees, but for order 0
    assert max(max(s, default=0) for s in scales) == first + 2
    fields = [
        field
        for _, _, paths, _ in computed
        for field in {(path.scales[0], path.degree) for path in paths if path.scales}
    ]
    assert len(fields) == len(set(fields))


def test_new_molecules_are_computed(molecules, kept, computed) -> None:
    kept.transform(molecules[:8])
    computed.clear()
    kept.transform(molecules[4:12])
    assert sum(call[0] for call in computed) == 4


def test_same_molecules_are_computed_once(molecules, kept, computed) -> None:
    expected = without(kept).transform(molecules[:3])
    repeated = np.array([0, 1, 0, 2, 2, 0])
    found = kept.transform(molecules[repeated])
    assert sum(call[0] for call in computed) == 3
    assert_array_equal(found, expected[repeated])


def test_equal_channels(kept) -> None:
    # In hydrogen, all standard channels but the core electrons are equal.
    hydrogen = [[[1, 0, 0, 0], [1, 0, 0, 0.74]]]
    first = kept.transform(hydrogen)
    forget()
    assert_array_equal(kept.transform(hydrogen), first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_computed_together_does_not_matter(dtype, molecules) -> None:
    # Or an interrupted search would go on with other last digits.
    options = {"sigma": 0.6, "dtype": dtype, "mixed_moments": False}
    large = SolidHarmonicScattering(3, 2, **options)
    small = SolidHarmonicScattering(1, 1, **options)
    for transformer in (large, small):
        transformer.set_output(transform="pandas")
    whole, part = large.transform(molecules[:3]), small.transform(molecules[:3])
    assert_array_equal(part, whole[part.columns])


@pytest.mark.parametrize(
    "change", [{"sigma": 0.9}, {"tol": 1e-3}, {"softening": 1.0}, {"dtype": "float64"}]
)
def test_other_settings_are_computed(change, molecules, kept, computed) -> None:
    kept.transform(molecules[:2])
    computed.clear()
    found = kept.set_params(**change).transform(molecules[:2])
    assert len(computed) > 0
    assert_array_equal(found, without(kept).transform(molecules[:2]))


def test_invalid_molecules_are_found_with_a_store(molecules, kept) -> None:
    kept.fit_transform(molecules)
    wrong = molecules.copy()
    wrong[3, 1] = wrong[3, 0]
    for method in (kept.fit, kept.transform):
        with pytest.raises(ValueError, match="Molecule 3"):
            method(wrong)
    with pytest.raises(ValueError, match="Q"):
        kept.set_params(Q=(0.1,)).fit(molecules)


def test_lists_of_atoms(molecules, kept, computed) -> None:
    ase = pytest.importorskip("ase")
    atoms = [ase.Atoms(m[m[:, 0] > 0, 0], m[m[:, 0] > 0, 1:]) for m in molecules]
    expected = kept.transform(atoms)
    computed.clear()
    assert_array_equal(kept.transform(molecules), expected)
    assert computed == []


def test_computing_goes_on_without_a_place_to_store(molecules, kept, tmp_path) -> None:
    (tmp_path / "file").touch()
    kept.set_params(memory=CoefficientStore(tmp_path / "file" / "store"))
    with pytest.warns(StoreWarning, match="cannot be kept"):
        found = kept.transform(molecules[:3])
    assert_array_equal(found, without(kept).transform(molecules[:3]))


def test_computing_goes_on_with_a_store_that_is_too_small(molecules, kept) -> None:
    expected = without(kept).transform(molecules)
    kept.set_params(memory=CoefficientStore(kept.memory, size_limit=20_000))
    assert_array_equal(kept.transform(molecules), expected)
    assert kept.memory.size <= 20_000


def make_search(X, y, folder, n_jobs) -> GridSearchCV:
    """Search with a store, as the child processes below do."""
    memory = None if folder is None else CoefficientStore(folder, ahead=1)
    pipeline = make_pipeline(
        SolidHarmonicScattering(sigma=0.8, tol=5e-3, memory=memory),
        StandardScaler(),
        Ridge(),
    )
    grid = {
        "solidharmonicscattering__J": [0, 1],
        "solidharmonicscattering__L": [0, 1],
        "solidharmonicscattering__Q": [(1,), (0.5, 2)],
    }
    return GridSearchCV(pipeline, grid, cv=3, n_jobs=n_jobs).fit(X, y)


def test_a_search_computes_each_coefficient_once(qm9, tmp_path, computed) -> None:
    X, y = qm9.data[:12], qm9.target[:12, 7]
    with_store = make_search(X, y, tmp_path, None)
    asked = [
        (n_channels, path, q)
        for n, n_channels, paths, Q in computed
        for path, q in product(paths, Q)
        for _ in range(n)
    ]
    assert max(asked.count(one) for one in set(asked)) == len(X)
    (contents,) = CoefficientStore(tmp_path).contents()
    n_mixed = len(X) * 6  # pairs of the four fields of the largest J and L
    assert contents.n_coefficients == 4 * (len(asked) + n_mixed)

    computed.clear()
    again = make_search(X, y, tmp_path, None)
    assert computed == []
    without_store = make_search(X, y, None, None)
    scores = with_store.cv_results_["mean_test_score"]
    assert_array_equal(again.cv_results_["mean_test_score"], scores)
    assert_allclose(without_store.cv_results_["mean_test_score"], scores, rtol=1e-3)


SEARCH = """
import sys
sys.path.insert(0, {tests!r})
from test_recall import make_search
from skscatharm.datasets import load_qm9_sample
X, y = load_qm9_sample(return_X_y=True)
make_search(X[:12], y[:12], {folder!r}, 2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
def test_a_killed_search_resumes(qm9, tmp_path) -> None:
    X, y = qm9.data[:12], qm9.target[:12, qm9.target_names.index("U0")]
    expected = make_search(X, y, tmp_path / "undisturbed", None)
    folder = tmp_path / "store"
    script = SEARCH.format(tests=str(Path(__file__).parent), folder=str(folder))
    for i in range(2):
        before = CoefficientStore(folder).size
        with subprocess.Popen(
            [sys.executable, "-c", script], start_new_session=True
        ) as process:
            while CoefficientStore(folder).size <= before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.1 * i)
            os.killpg(process.pid, signal.SIGKILL)
    found = make_search(X, y, folder, 2)
    assert_array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert_array_equal(found.predict(X), expected.predict(X))


class TestKeys:
    """Keys depend on everything that coefficients depend on, and on nothing else."""

    STRUCTURE = Structure(np.array([1, 8]), np.array([[0.0, 0, 0], [0, 0, 1]]))
    WEIGHTS = np.array([[1.0, 8.0], [1.0, 6.0]])
    SETTINGS = MappingProxyType({"sigma": 0.5})

    def keys(self, structure=STRUCTURE, weights=WEIGHTS, settings=SETTINGS):
        return density_keys([structure], [weights], settings)[0].tolist()

    def test_weights_matter_and_their_row_does_not(self) -> None:
        first, second = self.keys()
        assert first != second
        assert self.keys(weights=self.WEIGHTS[::-1]) == [second, first]

    def test_positions_matter(self) -> None:
        moved = Structure(self.STRUCTURE.charges, self.STRUCTURE.positions + 1e-12)
        assert not set(self.keys(moved)) & set(self.keys())

    def test_settings_matter(self) -> None:
        assert not set(self.keys(settings={"sigma": 0.6})) & set(self.keys())


class Table(Mapping):
    """A mapping that does not show its content."""

    def __init__(self, weights):
        self.weights = weights

    def __getitem__(self, Z):
        return self.weights[Z]

    def __iter__(self):
        return iter(self.weights)

    def __len__(self):
        return len(self.weights)

    def __repr__(self):
        return "Table()"


@pytest.fixture
def checks(monkeypatch):
    """List how many molecules are checked, each time that some are."""
    calls, check = [], scattering.check_structures
    monkeypatch.setattr(
        scattering, "check_structures", lambda X: calls.append(len(X)) or check(X)
    )
    return calls


class TestKnownKeys:
    """The keys of an array that comes again are remembered, but only of this one."""

    @pytest.fixture
    def sums(self, tmp_path):
        """Compute sums of weights: order 0 with the exponent 1."""

        def compute(channels, X):
            transformer = SolidHarmonicScattering(
                0, 0, (1,), 0.5, channels=channels, max_order=0, memory=tmp_path / "s"
            )
            return transformer.transform(X)

        return compute

    X = np.array([[[8, 0, 0, 0.12], [1, 0, 0.76, -0.48], [1, 0, -0.76, -0.48]]])

    def test_edited_standard_channel(self, sums, monkeypatch) -> None:
        assert_allclose(sums(["nuclear"], self.X), [[10]], rtol=1e-5)
        monkeypatch.setitem(STANDARD_CHANNELS["nuclear"], 8, 6)
        assert_allclose(sums(["nuclear"], self.X), [[8]], rtol=1e-5)

    @pytest.mark.parametrize("kind", [lambda weights: weights, Table, MappingProxyType])
    def test_edited_mapping(self, kind, sums) -> None:
        weights = {1: 1.0, 8: 2.0}
        channels = {"own": kind(weights)}
        assert_allclose(sums(channels, self.X), [[4]], rtol=1e-5)
        weights[8] = 3.0
        assert_allclose(sums(channels, self.X), [[5]], rtol=1e-5)
        weights[8], weights[1] = 1.0, 3.0
        assert_allclose(sums(channels, self.X), [[7]], rtol=1e-5)

    def test_new_mappings(self, sums) -> None:
        for i in range(20):
            found = sums({"own": Table({1: 1.0, 8: 1.0 + i})}, self.X)
            assert_allclose(found, [[3 + i]], rtol=1e-5)

    def test_order_of_channels(self, sums) -> None:
        one, two = Table({1: 1.0, 8: 1.0}), Table({1: 2.0, 8: 2.0})
        assert_allclose(sums({"a": one, "b": two}, self.X), [[3, 6]], rtol=1e-5)
        assert_allclose(sums({"a": two, "b": one}, self.X), [[6, 3]], rtol=1e-5)

    def test_edited_array(self, sums) -> None:
        X = self.X.copy()
        assert_allclose(sums(["nuclear"], X), [[10]], rtol=1e-5)
        X[0, 0, 0] = 9
        assert_allclose(sums(["nuclear"], X), [[11]], rtol=1e-5)
        with pytest.raises(ValueError, match="Molecule 0"):
            sums(["nuclear"], np.concatenate([X[:, :1], X[:, :1]], axis=1))

    @pytest.mark.parametrize(
        "form",
        [
            lambda X: X,
            np.asfortranarray,
            lambda X: X.astype(np.float32),
            lambda X: np.repeat(X, 2, axis=0)[::2],
            lambda X: X.astype(">f8"),
        ],
    )
    def test_an_array_is_checked_once(self, form, molecules, kept, checks) -> None:
        X = form(molecules[:3])
        kept.transform(X)
        checks.clear()
        found = kept.fit(X).transform(X)
        assert checks == []
        assert_array_equal(found, without(kept).transform(X))

    def test_types_of_equal_bytes(self) -> None:
        X = np.zeros((1, 1, 4))
        X.view(np.int64)[0, 0, 0] = 6
        for array in (X, X.view(np.int64)):
            recall.known_keys(array, partial(self.check, array), {"a": {6: 1}}, {})
        assert len(recall._known_keys) == 2

    def test_masked_arrays_are_checked_each_time(self, molecules, kept, checks) -> None:
        kept.transform(molecules[:2])
        checks.clear()
        with suppress(TypeError, ValueError):
            kept.transform(np.ma.masked_array(molecules[:2]))
        assert checks != []

    def test_size_is_limited(self, monkeypatch) -> None:
        monkeypatch.setattr(recall, "_KNOWN_BYTES", 1000)
        rng = np.random.default_rng(0)
        arrays = rng.random((50, 10, 1, 4))
        for array in arrays:
            check = partial(self.check, array)
            keys = recall.known_keys(array, check, {"a": {1: 1}}, {})
            again = recall.known_keys(array, pytest.fail, {"a": {1: 1}}, {})
            assert_array_equal(again, keys)
        assert sum(k.nbytes for k in recall._known_keys.values()) <= 1000
        assert len(recall._known_keys) == 6
        monkeypatch.setattr(recall, "_KNOWN_ARRAYS", 3)
        recall.known_keys(arrays[0], partial(self.check, arrays[0]), {"a": {1: 1}}, {})
        assert len(recall._known_keys) == 3

    def test_threads(self) -> None:
        arrays = np.random.default_rng(0).random((40, 10, 1, 4))
        expected = [density_keys(*self.check(array), {}).tolist() for array in arrays]
        wrong = []

        def ask(number: int) -> None:
            for i in np.random.default_rng(number).integers(0, 40, 400):
                check = partial(self.check, arrays[i])
                keys = recall.known_keys(arrays[i], check, {"a": {1: 1}}, {})
                if keys.tolist() != expected[i]:
                    wrong.append(i)

        threads = [Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @staticmethod
    def check(array):
        structures = [Structure(np.ones(1, int), molecule[:, 1:]) for molecule in array]
        return structures, [np.ones((1, 1))] * len(array)


class TestFolder:
    """The folder of `memory` is the same one in every process."""

    def test_a_pickle_has_the_absolute_folder(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        for memory in ("coefficients", Path("coefficients")):
            transformer = SolidHarmonicScattering(memory=memory)
            copy = pickle.loads(pickle.dumps(transformer))
            assert copy.memory == str(tmp_path / "coefficients")
            assert transformer.memory == memory
            assert clone(transformer).memory == memory
        store = CoefficientStore("coefficients", size_limit="1 MB", ahead=1)
        copy = pickle.loads(pickle.dumps(SolidHarmonicScattering(memory=store)))
        assert vars(copy.memory) == vars(store)

    @pytest.mark.parametrize("memory", [None, 3, ""])
    def test_other_values_survive_a_pickle(self, memory) -> None:
        transformer = SolidHarmonicScattering(memory=memory)
        assert pickle.loads(pickle.dumps(transformer)).memory == memory

    def test_workers_that_started_in_another_folder(self, tmp_path) -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", IN_B], cwd=tmp_path / "a", check=True)
        assert not (tmp_path / "a" / "store").exists()
        (found,) = CoefficientStore(tmp_path / "b" / "store").contents()
        assert found.n_densities == 4 * 6

    def test_home(self, molecules, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        SolidHarmonicScattering(0, 0, sigma=0.8, memory="~/store").transform(
            molecules[:1]
        )
        assert CoefficientStore(tmp_path / "store").size > 0


IN_B = """
import os
import joblib
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skscatharm import SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

X, y = load_qm9_sample(return_X_y=True)
joblib.Parallel(2)(joblib.delayed(abs)(i) for i in range(4))  # workers start in a
os.chdir("../b")
scattering = SolidHarmonicScattering(0, 0, sigma=0.8, memory="store")
pipeline = make_pipeline(scattering, Ridge())
GridSearchCV(pipeline, {"ridge__alpha": [1, 2]}, cv=2, n_jobs=2).fit(X[:6], y[:6])
"""


def test_a_killed_worker_is_explained(molecules, kept, monkeypatch) -> None:
    def fail(function, *columns, **options):
        function(*(column[:4] for column in columns))
        raise TerminatedWorkerError("A worker process was killed.")

    with monkeypatch.context() as patch:
        patch.setattr(scattering, "in_batches", fail)
        with pytest.raises(TerminatedWorkerError) as caught:
            kept.transform(molecules)
    text = str(caught.value)
    assert "A worker process was killed." in text
    assert CoefficientStore(kept.memory).folder in text
    (found,) = CoefficientStore(kept.memory).contents()
    assert found.n_densities == 4 * 4
    assert_array_equal(kept.transform(molecules), without(kept).transform(molecules))


def test_a_damaged_file_is_computed_again(molecules, kept) -> None:
    expected = kept.transform(molecules)
    forget()
    (path,) = Path(kept.memory).rglob("*.segment")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.warns(StoreWarning, match="damaged") as caught:
        assert_array_equal(kept.transform(molecules), expected)
    assert len(caught) == 1
    forget()
    assert_array_equal(kept.transform(molecules), expected)


def test_any_store_will_do(molecules, kept) -> None:
    class Memory(dict):
        def read(self, keys, paths, exponents, settings):
            return np.array(
                [
                    [[self.get((key, p, q), np.nan) for q in exponents] for p in paths]
                    for key in keys.ravel().tolist()
                ]
            ).reshape(*keys.shape, len(paths), len(exponents))

        def write(self, keys, paths, exponents, coefficients, settings):
            for row, key in zip(
                coefficients.reshape(keys.size, -1), keys.ravel().tolist(), strict=True
            ):
                columns = product(paths, exponents)
                for value, (p, q) in zip(row, columns, strict=True):
                    if not np.isnan(value):
                        self[key, p, q] = value

    expected, store, calls = without(kept).transform(molecules[:5]), Memory(), []
    for _ in range(2):
        found = transform_with(store, kept, molecules[:5], calls)
        assert_array_equal(found, expected)
    assert len(calls) == 1


def transform_with(store, transformer, X, calls):
    """Transform with a store that is not a folder."""
    task = scattering._Task(transformer, X)

    def in_batches(function, *columns):
        calls.append(len(columns[0]))
        return function(*columns)

    options = task.recalled | {"wider": task.transform}
    coefficients = recall.recall(store, **options, in_batches=in_batches)
    return arrange(coefficients, task.transform.integrands, task.transform.kept)
