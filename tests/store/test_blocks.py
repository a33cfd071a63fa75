"""Files that no store writes: found, reported, removed, and computed again."""

import os
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from time import time

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
)

from skscatharm import StoreWarning
from skscatharm.store import blocks, contents


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("damage", ["short", "empty", "start", "middle", "end"])
def test_damage_is_reported_and_removed(damage, known, store) -> None:
    keys, values = filled(store)
    other_keys, other_values = filled(store, seed=1)
    if known:  # another process damages a file whose keys this one has read
        store.read(other_keys, PATHS, EXPONENTS)
    path = next(p for p in files(store) if keys.tobytes() in p.read_bytes())
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    if damage in ("short", "empty"):
        data = data[: -1 if damage == "short" else 0]
    else:
        at = {"start": 0, "middle": len(data) // 2, "end": len(data) - 40}[damage]
        data[at : at + 30] = rng.bytes(30)
    path.write_bytes(data)

    with pytest.warns(StoreWarning, match=f"{path.name} is damaged") as caught:
        found = store.read(keys, PATHS, EXPONENTS)
    assert len(caught) == 1
    assert np.isnan(found).all()
    assert not path.exists()
    assert_array_equal(store.read(other_keys, PATHS, EXPONENTS), other_values)
    filled(store)
    assert_array_equal(store.read(keys, PATHS, EXPONENTS), values)


def test_any_damaged_byte_is_found(store) -> None:
    keys, values = filled(store, n=1)
    (path,) = files(store)
    whole = path.read_bytes()
    for i in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        forget()
        with pytest.warns(StoreWarning, match="damaged"):
            assert np.isnan(store.read(keys, PATHS, EXPONENTS)).all()
    path.write_bytes(whole)
    assert_array_equal(store.read(keys, PATHS, EXPONENTS), values)


def test_many_damaged_files_are_one_warning(store) -> None:
    # The keys of the first are known, those of the others are not.
    keys, _ = filled(store)
    store.read(some_keys(4, 1), PATHS, EXPONENTS)
    for seed in range(1, 5):
        filled(store, seed=seed)
    for path in files(store):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(StoreWarning, match="4 more") as caught:
        store.read(keys, PATHS, EXPONENTS)
    assert len(caught) == 1
    assert files(store) == []


def test_a_damaged_file_is_removed_where_warnings_are_errors(store) -> None:
    keys, _ = filled(store)
    (path,) = files(store)
    path.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StoreWarning, match="damaged"):
            store.read(keys, PATHS, EXPONENTS)
        assert not path.exists()
        assert np.isnan(store.read(keys, PATHS, EXPONENTS)).all()


def members(keys) -> dict:
    """Return the members of a file for keys."""
    data = blocks.encode(keys, PATHS, EXPONENTS, np.ones((len(keys), 7, 2)), SETTINGS)
    with np.load(BytesIO(data)) as file:
        return dict(file)


def put(store, data: bytes) -> Path:
    """Put content into a store, with the digest that belongs to it."""
    path = Path(store.folder, blocks._digest(data) + blocks.SUFFIX)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def saved(save=np.savez, **content) -> bytes:
    buffer = BytesIO()
    save(buffer, **content)
    return buffer.getvalue()


def claiming(shape: str, dtype: str = "<f8") -> bytes:
    """Write an array whose header claims a shape that its content does not have."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def archive(compression=zipfile.ZIP_STORED, **content: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in content.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def raw(keys) -> dict:
    with zipfile.ZipFile(BytesIO(saved(**members(keys)))) as file:
        return {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}


def changed(keys, /, **changes):
    return saved(**{**members(keys), **changes})


def without(keys, name):
    content = members(keys)
    del content[name]
    return saved(**content)


BAD = {
    "text": lambda keys: b"no zip file",
    "no keys": lambda keys: without(keys, "keys"),
    "no coefficients": lambda keys: without(keys, "coefficients"),
    "no description": lambda keys: without(keys, "description"),
    "empty archive": lambda keys: archive(),
    "fewer rows": lambda keys: changed(keys, coefficients=np.ones((3, 7, 2))),
    "fewer paths": lambda keys: changed(keys, coefficients=np.ones((4, 6, 2))),
    "flat": lambda keys: changed(keys, coefficients=np.ones(56)),
    "a number": lambda keys: changed(keys, coefficients=np.float64(1)),
    "float32": lambda keys: changed(keys, coefficients=np.ones((4, 7, 2), "f4")),
    "complex": lambda keys: changed(keys, coefficients=np.ones((4, 7, 2), "c16")),
    "objects": lambda keys: changed(keys, coefficients=np.full((4, 7, 2), None)),
    "objects as keys": lambda keys: changed(keys, keys=np.array([None] * 4)),
    "objects as description": lambda keys: changed(keys, description=np.array({})),
    "short keys": lambda keys: changed(keys, keys=keys.view("V8")),
    "two-dimensional keys": lambda keys: changed(keys, keys=keys[:, None]),
    "nothing": lambda keys: changed(
        keys, keys=keys[:0], coefficients=np.ones((0, 7, 2))
    ),
    "no JSON": lambda keys: changed(keys, description=np.array("{")),
    "a list": lambda keys: changed(keys, description=np.array("[]")),
    "deep JSON": lambda keys: changed(keys, description=np.array("[" * 10**5)),
    "wrong paths": lambda keys: changed(
        keys,
        description=np.array('{"paths": [1], "exponents": [1], "settings": "{}"}'),
    ),
    "wrong settings": lambda keys: changed(
        keys,
        description=np.array(
            '{"paths": [[[], 0]], "exponents": [1], "settings": "sigma"}'
        ),
        coefficients=np.ones((4, 1, 1)),
    ),
    "compressed": lambda keys: saved(np.savez_compressed, **members(keys)),
    "bomb": lambda keys: saved(
        np.savez_compressed, **members(keys) | {"coefficients": np.zeros((4, 7, 10**5))}
    ),
    "bomb of keys": lambda keys: saved(
        np.savez_compressed, **members(keys) | {"keys": np.zeros(10**5, "V16")}
    ),
    "huge claim": lambda keys: archive(
        **raw(keys) | {"coefficients": claiming("(4, 7, 2305843009213693951)")}
    ),
    "huge claim of keys": lambda keys: archive(
        **raw(keys) | {"keys": claiming("(1152921504606846976,)", "|V16")}
    ),
    "later version": lambda keys: archive(
        **raw(keys) | {"keys": b"\x93NUMPY\x09\x00" + raw(keys)["keys"][8:]}
    ),
    "no array": lambda keys: archive(**raw(keys) | {"coefficients": b""}),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("ask", ["read", "contents"])
def test_bad_content_under_its_own_digest(ask, bad, store) -> None:
    keys, values = filled(store)
    path = put(store, BAD[bad](keys.ravel()))
    with pytest.warns(StoreWarning, match=f"{path.name} is damaged") as caught:
        found = store.read(keys, PATHS, EXPONENTS)
    assert len(caught) == 1
    assert not path.exists()
    assert_array_equal(found, values)
    put(store, BAD[bad](keys.ravel()))
    with pytest.warns(StoreWarning, match=f"{path.name} is damaged"):
        (found,) = store.contents()
    assert found.n_densities == 4
    assert not path.exists()


def test_order_of_an_array_in_memory_does_not_matter(store) -> None:
    keys, values = some_keys(4)[:, 0], np.arange(4 * 7 * 2.0).reshape(4, 7, 2)
    for order in "CF":
        data = changed(keys, coefficients=np.asarray(values, order=order))
        put(store, data)
        forget()
        assert_array_equal(store.read(keys, PATHS, EXPONENTS), values)
        store.clear()


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to nothing", "link"])
def test_other_things_than_files(kind, store, tmp_path) -> None:
    keys, values = filled(store)
    path = Path(store.folder, "0" * 32 + blocks.SUFFIX)
    if kind == "fifo":
        if not hasattr(os, "mkfifo"):
            pytest.skip("There are no FIFOs on this system")
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "other").write_bytes(b"of somebody else")
        path.symlink_to(tmp_path / "other")
    else:
        path.symlink_to(tmp_path / "nothing")
    with pytest.warns(StoreWarning, match="not a regular file") as caught:
        found = read_times(2, store, keys)
    assert_array_equal(found, values)
    contents._contents.clear()
    assert_array_equal(store.read(keys, PATHS, EXPONENTS), values)
    assert len(caught) == 1
    assert os.path.lexists(path)
    assert store.size == files(store)[1].stat().st_size
    store.size_limit = 1
    filled(store, seed=1)
    store.clear()
    assert files(store) == [path]


def test_a_huge_sparse_file(store) -> None:
    keys, values = filled(store)
    path = Path(store.folder, "0" * 32 + blocks.SUFFIX)
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.warns(StoreWarning, match=f"{path.name} is damaged"):
        assert_array_equal(store.read(keys, PATHS, EXPONENTS), values)
    assert not path.exists()


def test_a_file_that_cannot_be_read_stays(store, monkeypatch) -> None:
    keys, _ = filled(store)

    def refuse(path, mode):
        raise PermissionError("not yours")

    monkeypatch.setattr(blocks, "open", refuse, raising=False)
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
    path.write_bytes(b"")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.warns(StoreWarning, match="damaged") as caught:
        found = read_times(3, store, keys)
    assert np.isnan(found).all()
    assert len(caught) == 1


@pytest.mark.parametrize("ask", ["read", "write"])
def test_temporary_files_of_killed_writers_are_removed(ask, store) -> None:
    keys, _ = filled(store)
    abandoned, fresh = (
        Path(store.folder, f"{digit * 32}.coefficients.tmp") for digit in "ab"
    )
    for path, age in ((abandoned, 4000), (fresh, 1000)):
        path.write_bytes(b"half of a file")
        os.utime(path, (time() - age, time() - age))
    forget()
    if ask == "read":
        store.read(keys, PATHS, EXPONENTS)
    else:
        filled(store, seed=1)
    assert not abandoned.exists()
    assert fresh.exists()
