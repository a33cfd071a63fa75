"""Segments: records that are appended, and content that no store writes."""

import fcntl
import os
import warnings
from pathlib import Path

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

from skscatharm import CoefficientStore, StoreWarning
from skscatharm.store import contents, segments
from skscatharm.store.contents import coefficient_layout

LAYOUT = coefficient_layout(PATHS, EXPONENTS)


def test_batches_are_appended_to_one_file(store) -> None:
    written = [filled(store, seed=seed) for seed in range(20)]
    forget()  # as if another process went on
    written += [filled(store, seed=seed) for seed in range(20, 30)]
    assert len(files(store)) == 1
    for keys, values in written:
        assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_a_full_segment_is_followed_by_another(store, monkeypatch) -> None:
    filled(store)
    size = store.size
    monkeypatch.setattr(contents, "_SEGMENT_SIZE", 3 * size)
    for seed in range(1, 9):
        filled(store, seed=seed)
    assert [path.stat().st_size for path in files(store)] == [3 * size] * 3


def test_a_segment_that_is_being_written_is_left_alone(store) -> None:
    filled(store)
    (path,) = files(store)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        filled(store, seed=1)
        assert len(files(store)) == 2
    filled(store, seed=2)
    assert len(files(store)) == 2


def test_segments_of_other_machines_are_read_only(store, monkeypatch) -> None:
    keys, values = filled(store)
    (path,) = files(store)
    before = path.read_bytes()
    forget()
    monkeypatch.setattr(segments, "_machine", lambda: "0" * 8)
    filled(store, seed=1)
    assert path.read_bytes() == before
    assert len(files(store)) == 2
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_without_locks_each_batch_has_a_file(store, monkeypatch) -> None:
    monkeypatch.setattr(segments, "flock", None)
    written = [filled(store, seed=seed) for seed in range(3)]
    assert len(files(store)) == 3
    for keys, values in written:
        assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)
    path = files(store)[0]
    damage(path)
    forget()
    every = np.concatenate([keys for keys, _ in written])
    with pytest.warns(StoreWarning, match="damaged"):
        store.read(every, PATHS, EXPONENTS, SETTINGS)
    assert not path.exists()


@pytest.mark.parametrize("left", [1, 30, 100, -1])
def test_an_unfinished_record_is_ignored_and_cut_off(left, store) -> None:
    # As a killed writer leaves it.
    first = filled(store)
    (path,) = files(store)
    size = path.stat().st_size
    second = filled(store, seed=1)
    os.truncate(path, size + left if left > 0 else path.stat().st_size - 1)
    forget()
    assert_array_equal(store.read(first[0], PATHS, EXPONENTS, SETTINGS), first[1])
    assert np.isnan(store.read(second[0], PATHS, EXPONENTS, SETTINGS)).all()
    third = filled(store, seed=2)
    assert files(store) == [path]
    assert path.stat().st_size == 2 * size
    for _ in range(2):
        for keys, values in (first, third):
            assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)
        forget()


def test_a_segment_without_a_whole_record_is_left_alone(store) -> None:
    # The process that made it may be writing, before it has the lock.
    filled(store)
    (path,) = files(store)
    os.truncate(path, 100)
    forget()
    filled(store, seed=1)
    assert path.stat().st_size == 100
    assert len(files(store)) == 2


def test_a_disk_that_is_full_amid_a_record(store, monkeypatch) -> None:
    first = filled(store)
    (path,) = files(store)
    whole = path.read_bytes()
    write = segments._write

    def fill(file, data):
        write(file, data[:50])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segments, "_write", fill)
        with pytest.warns(StoreWarning, match="No space left"):
            filled(store, seed=1)
        with pytest.warns(StoreWarning, match="No space left"):
            filled(CoefficientStore(store.folder + "-other"))
    assert path.read_bytes() == whole
    assert files(CoefficientStore(store.folder + "-other")) == []
    assert_array_equal(store.read(first[0], PATHS, EXPONENTS, SETTINGS), first[1])


def damage(path: Path) -> None:
    """Change a coefficient."""
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("known", [True, False])
def test_damage_is_reported_and_removed(known, store, monkeypatch) -> None:
    monkeypatch.setattr(contents, "_SEGMENT_SIZE", 1)
    keys, values = filled(store)
    (path,) = files(store)
    other_keys, other_values = filled(store, seed=1)
    if known:  # another process damages a file whose keys this one has read
        store.read(other_keys, PATHS, EXPONENTS, SETTINGS)
    damage(path)

    with pytest.warns(StoreWarning, match=f"{path.name} is damaged") as caught:
        found = store.read(keys, PATHS, EXPONENTS, SETTINGS)
    assert len(caught) == 1
    assert np.isnan(found).all()
    assert not path.exists()
    found = store.read(other_keys, PATHS, EXPONENTS, SETTINGS)
    assert_array_equal(found, other_values)
    filled(store)
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_no_damaged_byte_changes_a_coefficient(store) -> None:
    keys, values = filled(store, n=1)
    (path,) = files(store)
    whole = path.read_bytes()
    reported = 0
    for i in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        forget()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()
        reported += len(caught)
        assert path.exists() == (not caught)
    assert reported > 30  # all but those of keys, header and description
    path.write_bytes(whole)
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_a_record_that_another_process_is_writing_is_no_damage(store) -> None:
    # Network file systems may show its end before its beginning.
    keys, values = filled(store)
    (path,) = files(store)
    whole = path.read_bytes()
    damage(path)
    forget()
    with path.open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()
        writer.write(whole)
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_a_file_that_others_replace_is_read_again(store) -> None:
    keys, _ = filled(store)
    store.read(keys, PATHS, EXPONENTS, SETTINGS)
    (path,) = files(store)
    other = CoefficientStore(store.folder + "-other")
    new_keys, new_values = filled(other, n=2, seed=1)
    path.write_bytes(files(other)[0].read_bytes())
    found = store.read(new_keys, PATHS, EXPONENTS, SETTINGS)
    assert_array_equal(found, new_values)
    assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()


def test_a_damaged_file_is_removed_where_warnings_are_errors(store) -> None:
    keys, _ = filled(store)
    (path,) = files(store)
    damage(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StoreWarning, match="damaged"):
            store.read(keys, PATHS, EXPONENTS, SETTINGS)
        assert not path.exists()
        assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()


def record(
    keys=None, values=None, settings='{"sigma": 0.5}', layout=LAYOUT, **header
) -> bytes:
    """Write a record, with the digest that belongs to it."""
    keys = some_keys(4)[:, :1] if keys is None else keys
    values = some_values(4) if values is None else values
    data = segments.encode(keys, values, settings, layout)
    if header:
        names = ("magic", "digest", "size", "n_description", "n_keys")
        old = dict(zip(names, segments._HEADER.unpack(data[:40]), strict=True))
        new = segments._HEADER.pack(*(old | header).values())
        body = data[40:]
        digest = segments._digest(new[24:] + body)
        data = new[:8] + digest + new[24:] + body
    return data


BAD = {
    "text": b"no record of a store" * 9,
    "zeros": bytes(1000),
    "other magic": record(magic=b"\x93SKSCAT2"),
    "no keys": record(n_keys=0),
    "many keys": record(n_keys=2**32 - 1),
    "keys that do not divide": record(n_keys=3),
    "long description": record(n_description=2**32 - 1),
    "short description": record(n_description=8),
    "huge": record(size=2**63),
    "nothing": record(size=0),
    "no JSON": record(settings="{"),
    "deep JSON": record(settings="[" * 10**5),
    "a list": record(settings="[]"),
    "a number as layout": record(layout="1"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("ask", ["read", "contents"])
def test_bad_content(ask, bad, store) -> None:
    keys, values = filled(store, seed=1)
    (path,) = files(store)
    with path.open("ab") as file:
        file.write(BAD[bad])
    forget()
    if ask == "read":
        assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)
        others = some_keys(4)[:, :1]
        assert np.isnan(store.read(others, PATHS, EXPONENTS, SETTINGS)).all()
    else:
        (found,) = store.contents()
        assert found.n_densities == 4
    filled(store, seed=2)
    forget()
    for seed in (1, 2):
        keys = some_keys(4, seed)[:, :1]
        found = store.read(keys, PATHS, EXPONENTS, SETTINGS)
        assert_array_equal(found, some_values(4, seed=seed))


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to nothing", "link"])
def test_other_things_than_files(kind, store, tmp_path) -> None:
    keys, values = filled(store)
    (segment,) = files(store)
    path = segment.with_name(segment.name[:9] + "0" * 32 + ".segment")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "other").write_bytes(b"of somebody else")
        path.symlink_to(tmp_path / "other")
    else:
        path.symlink_to(tmp_path / "nothing")
    forget()
    assert_array_equal(read_times(2, store, keys), values)
    assert store.size == segment.stat().st_size
    store.size_limit = 1
    filled(store, seed=1)
    store.clear()
    assert os.path.lexists(path)
    assert not segment.exists()


def test_a_huge_sparse_file(store) -> None:
    keys, values = filled(store)
    (segment,) = files(store)
    path = segment.with_name(segment.name[:9] + "0" * 32 + ".segment")
    with path.open("wb") as file:
        file.truncate(2**40)
    forget()
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_a_file_that_cannot_be_read_stays(store, monkeypatch) -> None:
    keys, _ = filled(store)
    forget()

    def refuse(path, *options, **more):
        raise PermissionError("not yours")

    monkeypatch.setattr(contents, "open", refuse, raising=False)
    with pytest.warns(StoreWarning, match="not yours") as caught:
        found = read_times(3, store, keys)
    assert np.isnan(found).all()
    assert len(caught) == 1
    assert len(files(store)) == 1


def test_a_damaged_file_that_cannot_be_removed_is_reported_once(
    store, monkeypatch
) -> None:
    keys, _ = filled(store)
    (path,) = files(store)
    damage(path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.warns(StoreWarning, match="damaged") as caught:
        found = read_times(3, store, keys)
    assert np.isnan(found).all()
    assert len(caught) == 1
