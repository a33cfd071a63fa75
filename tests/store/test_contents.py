"""The part of folders that a process has read."""

import gc
import os
import shutil
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from stores import EXPONENTS, PATHS, files, filled, read_times, some_keys, some_values

from skscatharm import CoefficientStore
from skscatharm.store import contents


@pytest.fixture
def listed(monkeypatch) -> list[str]:
    """The folders that are listed."""
    calls, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda f: calls.append(f) or listdir(f))
    return calls


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that shows its last entry."""
    times = [1000.0]
    monkeypatch.setattr(contents, "monotonic", lambda: times[-1])
    return times


def set_time(store, time: float) -> None:
    os.utime(store.folder, (time, time))


def test_a_folder_is_listed_when_its_time_changes(store, listed, clock) -> None:
    keys, values = filled(store)
    set_time(store, 10)
    store.read(keys, PATHS, EXPONENTS)
    clock.append(1005.0)
    store.read(keys, PATHS, EXPONENTS)
    listed.clear()
    assert_array_equal(read_times(5, store, keys), values)
    assert listed == []

    (path,) = files(store)
    path.unlink()
    set_time(store, 11)
    assert np.isnan(read_times(5, store, keys)).all()
    assert len(listed) > 0


def test_files_that_come_with_the_same_time_are_found(store, clock) -> None:
    # As where the time of a folder is in seconds, and two files come in one.
    keys, _ = filled(store)
    set_time(store, 10)
    store.read(keys, PATHS, EXPONENTS)
    shutil.copytree(store.folder, other := store.folder + "-other")
    more = filled(CoefficientStore(other), seed=1)
    for path in Path(other).iterdir():
        shutil.copy(path, store.folder)
    set_time(store, 10)
    clock.append(1000.5)
    assert_array_equal(store.read(more[0], PATHS, EXPONENTS), more[1])


def test_folders_whose_time_never_changes(store, clock) -> None:
    # As on some network file systems: own files are found at once, others later.
    keys, _ = filled(store)
    set_time(store, 10)
    store.read(keys, PATHS, EXPONENTS)
    clock.append(1005.0)
    store.read(keys, PATHS, EXPONENTS)
    more = filled(store, seed=1)
    set_time(store, 10)
    assert_array_equal(store.read(more[0], PATHS, EXPONENTS), more[1])
    shutil.copytree(store.folder, other := store.folder + "-other")
    more = filled(CoefficientStore(other), seed=2)
    for path in Path(other).iterdir():
        shutil.copy(path, store.folder)
    set_time(store, 10)
    clock.append(1100.0)
    assert_array_equal(store.read(more[0], PATHS, EXPONENTS), more[1])


def test_a_file_is_read_once(store, monkeypatch) -> None:
    loaded, load = [], contents.load_block
    monkeypatch.setattr(
        contents, "load_block", lambda path: loaded.append(path) or load(path)
    )
    for seed in range(3):
        keys, values = filled(store, seed=seed)
    assert_array_equal(read_times(5, store, keys), values)
    assert len(loaded) == 1


def test_coefficients_in_memory_are_limited_over_all_folders(
    tmp_path, monkeypatch
) -> None:
    stores = [CoefficientStore(tmp_path / str(i)) for i in range(4)]
    keys, values = filled(stores[0], n=100)
    stores[0].read(keys, PATHS, EXPONENTS)
    (one,) = contents._contents.values()
    size = one.nbytes
    assert values.nbytes < size < 3 * values.nbytes
    monkeypatch.setattr(contents, "_MAX_BYTES", 2 * size)
    for store in stores:
        filled(store, n=100)
        for _ in range(2):
            assert_array_equal(store.read(keys, PATHS, EXPONENTS), values)
    assert [c.nbytes for c in contents._contents.values()] == [0, 0, size, size]
    assert_array_equal(stores[0].read(keys, PATHS, EXPONENTS), values)
    assert [c.nbytes for c in contents._contents.values()] == [0, 0, size, size]


def test_a_folder_with_more_than_the_limit(store, monkeypatch) -> None:
    monkeypatch.setattr(contents, "_MAX_BYTES", 0)
    keys, values = filled(store)
    assert_array_equal(read_times(3, store, keys), values)
    assert contents._contents[store.folder].nbytes == 0


def test_folders_that_are_gone_are_forgotten(tmp_path) -> None:
    for i in range(5):
        store = CoefficientStore(tmp_path / str(i))
        keys, _ = filled(store)
        store.read(keys, PATHS, EXPONENTS)
        shutil.rmtree(store.folder)
    gc.collect()
    assert list(contents._contents) == [store.folder]


def test_the_number_of_folders_is_limited(tmp_path) -> None:
    for i in range(contents._MAX_FOLDERS + 5):
        filled(CoefficientStore(tmp_path / str(i)))
    assert len(contents._contents) == contents._MAX_FOLDERS


def test_threads_share_a_store(tmp_path, monkeypatch) -> None:
    stores = [CoefficientStore(tmp_path / str(i)) for i in range(2)]
    for store in stores:
        for seed in range(10):
            filled(store, seed=seed)
    monkeypatch.setattr(contents, "_MAX_BYTES", 20_000)
    wrong = []

    def read(number: int) -> None:
        for i in range(100):
            seed = (i * 7 + number) % 10
            keys, values = some_keys(4, seed)[:, :1], some_values(4, seed=seed)
            found = stores[i % 2].read(keys, PATHS, EXPONENTS)
            if not np.array_equal(found, values):
                wrong.append((number, i))

    threads = [Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
