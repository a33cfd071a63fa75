"""Scattering with a store: nothing is computed twice, and nothing changes."""

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skscatharm import CoefficientStore, SolidHarmonicScattering, StoreWarning
from skscatharm.store import contents, recall


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
    contents._contents.clear()
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
    names = [name.replace("[Z,", "[nuclear,") for name in part.columns]
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

    Q = (1, 2, 0.5, 3)
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
    contents._contents.clear()
    assert_array_equal(kept.transform(hydrogen), first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_computed_together_does_not_matter(dtype, molecules) -> None:
    # Or an interrupted search would go on with other last digits.
    large = SolidHarmonicScattering(3, 2, sigma=0.6, dtype=dtype)
    small = SolidHarmonicScattering(1, 1, sigma=0.6, dtype=dtype)
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
    assert contents.n_coefficients == 4 * len(asked)

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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
def test_a_killed_search_resumes(qm9, tmp_path) -> None:
    X, y = qm9.data[:12], qm9.target[:12, qm9.target_names.index("U0")]
    expected = make_search(X, y, tmp_path / "undisturbed", None)
    folder = tmp_path / "store"
    script = SEARCH.format(tests=str(Path(__file__).parent), folder=str(folder))
    for i in range(2):
        before = set(folder.glob("*.npz"))
        with subprocess.Popen(
            [sys.executable, "-c", script], start_new_session=True
        ) as process:
            while set(folder.glob("*.npz")) <= before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.1 * i)
            os.killpg(process.pid, signal.SIGKILL)
    found = make_search(X, y, folder, 2)
    assert_array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert_array_equal(found.predict(X), expected.predict(X))
