import os
import pickle
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skscatharm import CoefficientStore, StoreWarning
from skscatharm.store import files as module
from skscatharm.store.files import density_keys
from skscatharm.structures import Structure
from skscatharm.transform.paths import scattering_paths

PATHS = scattering_paths(J=1, L=1, max_order=2)
EXPONENTS = [1.0, 2.0]
SETTINGS = {"sigma": 0.5}


@pytest.fixture
def coefficients(tmp_path) -> CoefficientStore:
    return CoefficientStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def _new_process(monkeypatch) -> None:
    """Know nothing of any folder, as in a new process."""
    module._opened.cache_clear()


def some_keys(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    structures = [Structure(np.ones(2, int), rng.random((2, 3))) for _ in range(n)]
    return density_keys(structures, [np.array([[1.0, 1.0], [2.0, 3.0]])] * n, SETTINGS)


def some_values(n: int, n_channels: int = 1, seed: int = 0):
    shape = (n, n_channels, len(PATHS), len(EXPONENTS))
    return np.random.default_rng(seed).random(shape)


def filled(coefficients: CoefficientStore, n: int = 4, seed: int = 0):
    keys, values = some_keys(n, seed)[:, :1], some_values(n, seed=seed)
    coefficients.write(keys, PATHS, EXPONENTS, values, SETTINGS)
    return keys, values


def files(coefficients: CoefficientStore) -> list[Path]:
    return sorted(Path(coefficients.folder).iterdir())


class TestKeys:
    """What makes a difference to a key, and what does not."""

    STRUCTURE = Structure(np.array([1, 8]), np.array([[0.0, 0, 0], [0, 0, 1]]))
    WEIGHTS = np.array([[1.0, 8.0], [1.0, 6.0]])

    def keys(self, structure=STRUCTURE, weights=WEIGHTS, settings=SETTINGS):
        return density_keys([structure], [weights], settings)[0].tolist()

    def test_weights_count_and_not_their_place(self) -> None:
        first, second = self.keys()
        assert first != second
        assert self.keys(weights=self.WEIGHTS[::-1]) == [second, first]

    def test_positions_count(self) -> None:
        moved = Structure(self.STRUCTURE.charges, self.STRUCTURE.positions + 1e-12)
        assert not set(self.keys(moved)) & set(self.keys())

    def test_settings_count(self) -> None:
        assert not set(self.keys(settings={"sigma": 0.6})) & set(self.keys())


def test_an_empty_store_holds_nothing(coefficients) -> None:
    values = coefficients.read(some_keys(3), PATHS, EXPONENTS)
    assert values.shape == (3, 2, len(PATHS), 2)
    assert np.isnan(values).all()
    assert coefficients.contents() == []
    assert coefficients.size == 0
    assert not Path(coefficients.folder).exists()


def test_any_part_is_read_in_any_order(coefficients) -> None:
    keys, values = filled(coefficients)
    found = coefficients.read(keys[[2, 0]], PATHS[::-2], [2.0])
    assert_array_equal(found, values[[2, 0]][:, :, ::-2, 1:])


def test_parts_come_together(coefficients) -> None:
    keys, values = some_keys(6), some_values(6, 2)
    for rows, channel, paths, exponents in [
        (slice(4), 0, slice(3), slice(None)),
        (slice(4), 0, slice(3, None), slice(1)),
        (slice(4), 0, slice(3, None), slice(1, None)),
        (slice(4, None), 0, slice(None), slice(None)),
        (slice(None), 1, slice(None), slice(None)),
    ]:
        part = values[rows, channel, paths, exponents]
        coefficients.write(
            keys[rows, channel], PATHS[paths], EXPONENTS[exponents], part, SETTINGS
        )
    assert_array_equal(coefficients.read(keys, PATHS, EXPONENTS), values)
    module._opened.cache_clear()
    assert_array_equal(coefficients.read(keys, PATHS, EXPONENTS), values)


def test_what_is_missing_is_nan(coefficients) -> None:
    keys, values = filled(coefficients)
    others = some_keys(2, seed=1)[:, :1]
    more = [*PATHS, *scattering_paths(J=2, L=1, max_order=1)[-1:]]
    found = coefficients.read(np.concatenate([others, keys]), more, [*EXPONENTS, 3.0])
    assert_array_equal(found[2:, :, :-1, :-1], values)
    assert np.isnan(found[:2]).all()
    assert np.isnan(found[:, :, -1]).all()
    assert np.isnan(found[..., -1]).all()


def test_of_what_is_written_twice_something_whole_stays(coefficients) -> None:
    keys, values = filled(coefficients)
    coefficients.write(keys, PATHS, EXPONENTS, values + 1, SETTINGS)
    found = coefficients.read(keys, PATHS, EXPONENTS)
    assert any(np.array_equal(found, values + shift) for shift in (0, 1))


def test_gaps_are_filled_by_other_files(coefficients) -> None:
    keys, values = some_keys(4)[:, :1], some_values(4)
    even = np.arange(4)[:, None, None, None] % 2 == 0
    for part in (even, ~even):
        partly = np.where(part, values, np.nan)
        coefficients.write(keys, PATHS, EXPONENTS, partly, SETTINGS)
    assert_array_equal(coefficients.read(keys, PATHS, EXPONENTS), values)


def test_what_others_write_is_found(coefficients) -> None:
    keys, values = filled(coefficients)
    coefficients.read(keys, PATHS, EXPONENTS)
    new_keys, new_values = some_keys(3, seed=1)[:, :1], some_values(3, seed=1)
    other = get_context("spawn").Process(
        target=coefficients.write,
        args=(new_keys, PATHS, EXPONENTS, new_values, SETTINGS),
    )
    other.start()
    other.join()
    found = coefficients.read(np.concatenate([keys, new_keys]), PATHS, EXPONENTS)
    assert_array_equal(found, np.concatenate([values, new_values]))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("damage", ["short", "empty", "start", "middle", "end"])
def test_damage_is_found_and_said(damage, known, coefficients) -> None:
    keys, values = filled(coefficients)
    other_keys, other_values = filled(coefficients, seed=1)
    if known:  # this process has read the file; another has not
        assert_array_equal(coefficients.read(keys, PATHS, EXPONENTS), values)
    path = next(p for p in files(coefficients) if keys.tobytes() in p.read_bytes())
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    if damage in ("short", "empty"):
        data = data[: -1 if damage == "short" else 0]
    else:
        at = {"start": 0, "middle": len(data) // 2, "end": len(data) - 40}[damage]
        data[at : at + 30] = rng.bytes(30)
    path.write_bytes(data)
    module._opened.cache_clear()

    with pytest.warns(StoreWarning, match=f"{path.name} is damaged"):
        found = coefficients.read(keys, PATHS, EXPONENTS)
    assert np.isnan(found).all()
    assert not path.exists()
    assert_array_equal(coefficients.read(other_keys, PATHS, EXPONENTS), other_values)


def test_any_damaged_byte_is_found(coefficients) -> None:
    keys, values = filled(coefficients, n=1)
    (path,) = files(coefficients)
    whole = path.read_bytes()
    for i in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        module._opened.cache_clear()
        with pytest.warns(StoreWarning, match="damaged"):
            assert np.isnan(coefficients.read(keys, PATHS, EXPONENTS)).all()
    path.write_bytes(whole)
    assert_array_equal(coefficients.read(keys, PATHS, EXPONENTS), values)


def test_files_of_another_version_are_said_and_cleared(coefficients) -> None:
    keys, _ = filled(coefficients)
    (path,) = files(coefficients)
    path.rename(path.with_name(path.name.replace("-1.", "-0.")))
    with pytest.warns(StoreWarning, match="another version"):
        found = coefficients.read(keys, PATHS, EXPONENTS)
    assert np.isnan(found).all()
    coefficients.clear()
    assert files(coefficients) == []


def test_a_file_that_cannot_be_read_stays(coefficients, monkeypatch) -> None:
    keys, _ = filled(coefficients)

    def fail(*args):
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.warns(StoreWarning, match="not yours"):
        found = coefficients.read(keys, PATHS, EXPONENTS)
    assert np.isnan(found).all()
    assert len(files(coefficients)) == 1


def test_full_disk(coefficients, monkeypatch) -> None:
    filled(coefficients)

    def fill(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.warns(StoreWarning, match="No space left"):
        keys, _ = filled(coefficients, seed=1)
    assert len(files(coefficients)) == 1
    assert np.isnan(coefficients.read(keys, PATHS, EXPONENTS)).all()


def test_folder_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(StoreWarning, match="cannot be kept"):
        filled(CoefficientStore(tmp_path / "file" / "store"))


def test_the_longest_unused_go_first(coefficients) -> None:
    written = []
    for seed in range(5):
        before = set(files(coefficients)) if seed else set()
        written.append(filled(coefficients, seed=seed)[0])
        (new,) = set(files(coefficients)) - before
        os.utime(new, (seed, seed))
    coefficients.read(written[0], PATHS, EXPONENTS)  # which is a use
    coefficients.size_limit = round(coefficients.size * 0.9)
    filled(coefficients, seed=5)
    assert coefficients.size <= coefficients.size_limit
    kept = [
        not np.isnan(coefficients.read(keys, PATHS, EXPONENTS)).any()
        for keys in written
    ]
    assert kept == [True, False, False, True, True]


def test_more_than_is_kept_in_memory(coefficients, monkeypatch) -> None:
    monkeypatch.setattr(module, "_KEPT_IN_MEMORY", 0)
    keys, values = filled(coefficients)
    for _ in range(2):
        assert_array_equal(coefficients.read(keys, PATHS, EXPONENTS), values)


def test_nothing_else_in_the_folder_is_touched(coefficients) -> None:
    filled(coefficients)
    other = Path(coefficients.folder) / "thesis.npz"
    other.write_bytes(b"years of work")
    coefficients.size_limit = 1
    filled(coefficients, seed=1)
    coefficients.clear()
    assert files(coefficients) == [other]


def test_contents(coefficients) -> None:
    filled(coefficients, n=4)
    filled(coefficients, n=3, seed=1)
    keys = some_keys(2, seed=2)
    values = some_values(2, 2)
    values[0] = np.nan
    coefficients.write(keys, PATHS, EXPONENTS, values, {"sigma": 0.3})
    narrow, wide = coefficients.contents()
    assert narrow.settings == {"sigma": 0.3}
    assert wide.settings == SETTINGS
    assert wide.n_densities == 7
    assert wide.n_coefficients == 7 * len(PATHS) * 2
    assert narrow.n_coefficients == 2 * len(PATHS) * 2
    assert narrow.size + wide.size == coefficients.size
    coefficients.clear()
    assert coefficients.contents() == []


def test_pickle(coefficients) -> None:
    keys, values = filled(coefficients)
    copy = pickle.loads(pickle.dumps(coefficients))
    assert_array_equal(copy.read(keys, PATHS, EXPONENTS), values)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_files import *
for seed in range(10000):
    filled(CoefficientStore({folder!r}), n=2000, seed=seed)
    print(flush=True)
"""


def test_killed_writers_leave_nothing_wrong(coefficients) -> None:
    script = WRITER.format(tests=str(Path(__file__).parent), folder=coefficients.folder)
    command = [sys.executable, "-c", script]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for i, writer in enumerate(writers):
        writer.stdout.readline()
        time.sleep(0.1 * i)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    seed = 0
    while True:
        keys, values = some_keys(2000, seed)[:, :1], some_values(2000, seed=seed)
        found = coefficients.read(keys, PATHS, EXPONENTS)
        if np.isnan(found).all():
            break
        assert_array_equal(found, values)
        seed += 1
    assert seed > 0
