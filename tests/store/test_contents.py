"""The part of folders that a process has read."""

import os
from threading import Thread

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from stores import (
    EXPONENTS,
    PATHS,
    SETTINGS,
    files,
    filled,
    forget,
    read_times,
    some_keys,
    some_values,
)

from skscatharm import CoefficientStore
from skscatharm.store import contents, segments


def test_what_is_in_memory_needs_no_look_at_files(store, monkeypatch) -> None:
    keys, values = filled(store)
    store.read(keys, PATHS, EXPONENTS, SETTINGS)
    for module, name in ((os, "listdir"), (os, "lstat"), (contents, "open")):
        monkeypatch.setattr(module, name, pytest.fail, raising=False)
    assert_array_equal(read_times(3, store, keys), values)


def test_only_the_folder_of_the_settings_is_read(store, monkeypatch) -> None:
    keys, values = filled(store)
    store.write(some_keys(4, 1), PATHS, EXPONENTS, some_values(4, 2), {"sigma": 0.3})
    forget()
    read, load = [], contents.load
    monkeypatch.setattr(
        contents, "load", lambda file, r: read.append(r.settings) or load(file, r)
    )
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)
    assert read == [segments.canonical(SETTINGS)]
    assert len(contents._contents) == 1


def test_growth_is_read_alone(store, monkeypatch) -> None:
    loaded, load = [], contents.load
    monkeypatch.setattr(
        contents, "load", lambda file, r: loaded.append(r.offset) or load(file, r)
    )
    for seed in range(3):
        keys, values = filled(store, seed=seed)
        assert_array_equal(read_times(2, store, keys), values)
    assert len(loaded) == len(set(loaded)) == 3


def test_a_deleted_file_leaves_the_others_in_memory(store, monkeypatch) -> None:
    monkeypatch.setattr(contents, "_SEGMENT_SIZE", 1)
    written = [filled(store, seed=seed) for seed in range(3)]
    for keys, _ in written:
        store.read(keys, PATHS, EXPONENTS, SETTINGS)
    (gone,) = [p for p in files(store) if written[0][0].tobytes() in p.read_bytes()]
    gone.unlink()
    monkeypatch.setattr(contents, "open", pytest.fail, raising=False)
    keys, _ = written[0]
    assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()
    for keys, values in written[1:]:
        assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_keys_with_the_same_first_half(store) -> None:
    halves = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], dtype=np.uint64)
    keys = halves.view("V16").reshape(4, 1)
    values = some_values(4)
    store.write(keys[1:3], PATHS, EXPONENTS, values[1:3], SETTINGS)
    found = store.read(keys, PATHS, EXPONENTS, SETTINGS)
    for i in (0, 3):
        assert np.isnan(found[i]).all()
    assert_array_equal(found[2], values[2])
    # One of two such keys may be missed, but never gets the other's coefficients.
    assert np.isnan(found[1]).all() or np.array_equal(found[1], values[1])


def test_many_keys_and_few(store) -> None:
    # Either the keys of the file are looked for among those asked for, or vice versa.
    keys, values = filled(store, n=50)
    rng = np.random.default_rng(0)
    for n in (1, 5, 49, 50, 60, 200):
        chosen = rng.integers(0, 50, n)
        mixed = np.concatenate([some_keys(3, 1)[:, :1], keys[chosen]])
        found = store.read(mixed, PATHS, EXPONENTS, SETTINGS)
        assert np.isnan(found[:3]).all()
        assert_array_equal(found[3:], values[chosen])


def test_coefficients_in_memory_are_limited_over_all_folders(
    tmp_path, monkeypatch
) -> None:
    stores = [CoefficientStore(tmp_path / str(i)) for i in range(6)]
    keys, values = some_keys(100)[:, :1], some_values(100)
    limit = 2.5 * values.nbytes
    monkeypatch.setattr(contents, "_MAX_BYTES", limit)
    most = 0
    for store in stores * 3:
        filled(store, n=100)
        for _ in range(2):
            found = store.read(keys, PATHS, EXPONENTS, SETTINGS)
            assert_array_equal(found, values)
        used = sum(table.nbytes for table in contents._in_memory)
        assert used <= limit
        most = max(used, most)
    assert most == 2 * values.nbytes


def test_more_than_the_limit_is_read_from_memory_in_part(store, monkeypatch) -> None:
    monkeypatch.setattr(contents, "_SEGMENT_SIZE", 1)
    written = [filled(store, seed=seed) for seed in range(20)]
    keys = np.concatenate([keys for keys, _ in written])
    values = np.concatenate([values for _, values in written])
    monkeypatch.setattr(contents, "_MAX_BYTES", values.nbytes // 2)
    loaded, load = [], contents.load
    monkeypatch.setattr(
        contents, "load", lambda file, r: loaded.append(file.name) or load(file, r)
    )
    n_reads = 10
    assert_array_equal(read_times(n_reads, store, keys), values)
    assert 20 < len(loaded) < 0.9 * 20 * n_reads


def test_no_room_in_memory_at_all(store, monkeypatch) -> None:
    monkeypatch.setattr(contents, "_MAX_BYTES", 0)
    keys, values = filled(store)
    assert_array_equal(read_times(3, store, keys), values)
    assert list(contents._in_memory) == []


class TestArrays:
    """Arrays of any shape, by a name."""

    NAMES = ("0" * 32, "1" * 32, "2" * 32)

    def read(self, store, *names: str, settings=SETTINGS):
        return store.read_arrays(names, settings)

    def test_they_are_kept(self, store) -> None:
        rng = np.random.default_rng(0)
        arrays = [rng.random((5, n_atoms, 3)) for n_atoms in (2, 4, 2)]
        keys, values = filled(store)
        for name, array in zip(self.NAMES, arrays, strict=True):
            assert self.read(store, name) == [None]
            store.write_array(name, array, SETTINGS)
        for _ in range(2):
            for found, array in zip(self.read(store, *self.NAMES), arrays, strict=True):
                assert_array_equal(found, array)
            assert self.read(store, self.NAMES[0], settings={"sigma": 0.4}) == [None]
            forget()
        assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)
        (found,) = store.contents()
        assert found.n_densities == len(keys)
        assert found.size == store.size

    def test_some_are_kept_in_several_segments(self, store, monkeypatch) -> None:
        monkeypatch.setattr(contents, "_SEGMENT_SIZE", 1)
        for name, value in zip(self.NAMES[::2], (1.0, 2.0), strict=True):
            store.write_array(name, np.full((2, 1), value), SETTINGS)
        assert len(files(store)) == 2
        first, none, last = self.read(store, *self.NAMES)
        assert none is None
        assert_array_equal(first, [[1], [1]])
        assert_array_equal(last, [[2], [2]])

    def test_what_is_read_can_be_changed(self, store) -> None:
        store.write_array(self.NAMES[0], np.ones((2, 3)), SETTINGS)
        first, again = self.read(store, self.NAMES[0], self.NAMES[0])
        first[:] = 0
        assert_array_equal(again, np.ones((2, 3)))
        assert_array_equal(self.read(store, self.NAMES[0])[0], np.ones((2, 3)))

    def test_an_array_is_no_coefficient(self, store) -> None:
        keys, _ = some_keys(1)[:, :1], store.write_array
        store.write_array(keys.tobytes().hex(), np.ones((7, 1, 2)), SETTINGS)
        assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()
        filled(store, n=1, seed=3)
        name = some_keys(1, 3)[:, :1].tobytes().hex()
        assert self.read(store, name) == [None]


def test_the_number_of_folders_is_limited(tmp_path) -> None:
    for i in range(contents._MAX_FOLDERS + 5):
        filled(CoefficientStore(tmp_path / str(i)))
    assert len(contents._contents) == contents._MAX_FOLDERS


def test_threads_share_a_store(tmp_path, monkeypatch) -> None:
    stores = [CoefficientStore(tmp_path / str(i)) for i in range(2)]
    monkeypatch.setattr(contents, "_SEGMENT_SIZE", 2000)
    monkeypatch.setattr(contents, "_MAX_BYTES", 5000)
    for store in stores:
        for seed in range(10):
            filled(store, seed=seed)
    wrong = []

    def read(number: int) -> None:
        for i in range(100):
            seed = (i * 7 + number) % 10
            keys, values = some_keys(4, seed)[:, :1], some_values(4, seed=seed)
            found = stores[i % 2].read(keys, PATHS, EXPONENTS, SETTINGS)
            if not np.array_equal(found, values):
                wrong.append((number, i))

    threads = [Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
