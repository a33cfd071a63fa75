import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
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
from skscatharm.transform.paths import scattering_paths

KEYS = some_keys(4)[:, :1]  # of what is filled in


def test_an_empty_store_holds_nothing(store) -> None:
    values = store.read(some_keys(3), PATHS, EXPONENTS, SETTINGS)
    assert values.shape == (3, 2, len(PATHS), 2)
    assert np.isnan(values).all()
    assert store.contents() == []
    assert store.size == 0
    assert not Path(store.folder).exists()


def test_any_part_is_read_in_any_order(store) -> None:
    keys, values = filled(store)
    found = store.read(keys[[2, 0]], PATHS[::-2], [2.0], SETTINGS)
    assert_array_equal(found, values[[2, 0]][:, :, ::-2, 1:])


def test_parts_come_together(store) -> None:
    keys, values = some_keys(6), some_values(6, 2)
    for rows, channel, paths, exponents in [
        (slice(4), 0, slice(3), slice(None)),
        (slice(4), 0, slice(3, None), slice(1)),
        (slice(4), 0, slice(3, None), slice(1, None)),
        (slice(4, None), 0, slice(None), slice(None)),
        (slice(None), 1, slice(None), slice(None)),
    ]:
        part = values[rows, channel, paths, exponents]
        store.write(
            keys[rows, channel], PATHS[paths], EXPONENTS[exponents], part, SETTINGS
        )
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)
    forget()
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_missing_coefficients_are_nan(store) -> None:
    keys, values = filled(store)
    others = some_keys(2, seed=1)[:, :1]
    more = [*PATHS, *scattering_paths(J=2, L=1, max_order=1)[-1:]]
    found = store.read(
        np.concatenate([others, keys]), more, [*EXPONENTS, 3.0], SETTINGS
    )
    assert_array_equal(found[2:, :, :-1, :-1], values)
    assert np.isnan(found[:2]).all()
    assert np.isnan(found[:, :, -1]).all()
    assert np.isnan(found[..., -1]).all()


def test_one_of_two_values_stays_whole(store) -> None:
    keys, values = filled(store)
    store.write(keys, PATHS, EXPONENTS, values + 1, SETTINGS)
    found = store.read(keys, PATHS, EXPONENTS, SETTINGS)
    assert any(np.array_equal(found, values + shift) for shift in (0, 1))


def test_gaps_are_filled_by_other_files(store) -> None:
    keys, values = some_keys(4)[:, :1], some_values(4)
    even = np.arange(4)[:, None, None, None] % 2 == 0
    for part in (even, ~even):
        partly = np.where(part, values, np.nan)
        store.write(keys, PATHS, EXPONENTS, partly, SETTINGS)
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_files_of_other_processes_are_found(store) -> None:
    keys, values = filled(store)
    store.read(keys, PATHS, EXPONENTS, SETTINGS)
    new_keys, new_values = some_keys(3, seed=1)[:, :1], some_values(3, seed=1)
    other = get_context("spawn").Process(
        target=store.write,
        args=(new_keys, PATHS, EXPONENTS, new_values, SETTINGS),
    )
    other.start()
    other.join()
    found = store.read(np.concatenate([keys, new_keys]), PATHS, EXPONENTS, SETTINGS)
    assert_array_equal(found, np.concatenate([values, new_values]))


@pytest.mark.parametrize("ask", [filled, lambda store: read_times(1, store, KEYS)])
def test_other_versions_are_reported_once_and_cleared(ask, store) -> None:
    filled(store)
    (path,) = files(store)
    folder = path.parent
    folder.rename(folder.with_name(folder.name.replace("-2.", "-9.")))
    for name in ("coefficients-1.3.npz", "jacobian-1.3.npz", "coefficients.tmp"):
        Path(store.folder, f"{'a' * 32}.{name}").touch()
    forget()
    with pytest.warns(StoreWarning, match="4 files .* another version"):
        ask(store)
    store.read(KEYS, PATHS, EXPONENTS, SETTINGS)  # without another warning
    store.clear()
    assert list(Path(store.folder).iterdir()) == []


def test_a_full_disk_is_reported_once(store, monkeypatch) -> None:
    filled(store)

    def fill(file, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segments, "_write", fill)
        with pytest.warns(StoreWarning, match="No space left") as caught:
            keys = [filled(store, seed=seed)[0] for seed in range(1, 4)]
    assert len(caught) == 1
    assert np.isnan(store.read(keys[0], PATHS, EXPONENTS, SETTINGS)).all()

    filled(store, seed=4)  # there is space again
    monkeypatch.setattr(segments, "_write", fill)
    with pytest.warns(StoreWarning, match="No space left"):
        filled(store, seed=5)


def test_folder_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        store = CoefficientStore(folder)
        assert np.isnan(store.read(some_keys(2), PATHS, EXPONENTS, SETTINGS)).all()
        with pytest.warns(StoreWarning, match="cannot be kept") as caught:
            assert [filled(store) for _ in range(2)]
        assert len(caught) == 1


def test_a_folder_that_cannot_be_listed_is_reported(store, monkeypatch) -> None:
    keys, values = filled(store)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        with pytest.warns(StoreWarning, match="cannot be listed") as caught:
            found = read_times(3, store, keys)
        assert np.isnan(found).all()
        assert len(caught) == 1
        for ask in (store.contents, store.clear, lambda: store.size):
            with pytest.warns(StoreWarning, match="cannot be listed"):
                ask()
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


def test_a_folder_that_is_removed_while_it_is_written(store, monkeypatch) -> None:
    makedirs, calls = os.makedirs, []

    def make_and_remove(folder, **options):
        makedirs(folder, **options)
        if not calls:
            shutil.rmtree(store.folder)
        calls.append(folder)

    monkeypatch.setattr(os, "makedirs", make_and_remove)
    keys, values = filled(store)
    assert len(calls) > 1
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


@pytest.mark.parametrize("how", ["clear", "rmtree", "other process"])
def test_a_store_that_was_emptied_is_filled_again(how, store) -> None:
    keys, values = filled(store)
    store.read(keys, PATHS, EXPONENTS, SETTINGS)
    if how == "clear":
        store.clear()
    elif how == "rmtree":
        shutil.rmtree(store.folder)
    else:
        known, contents._contents = contents._contents, {}
        store.clear()
        contents._contents = known
    assert np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).all()
    filled(store)
    forget()
    assert_array_equal(store.read(keys, PATHS, EXPONENTS, SETTINGS), values)


class TestParameters:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (10**6, 10**6),
            (2e9, 2 * 10**9),
            ("500 MB", 500 * 10**6),
            ("10 GB", 10**10),
            ("1GB", 10**9),
            ("10 GiB", 10 * 2**30),
            (" 20 kib ", 20 * 2**10),
            ("1.5TB", 1_500_000_000_000),
            ("123456", 123456),
            ("123456 B", 123456),
        ],
    )
    def test_size_limit(self, given, expected) -> None:
        assert CoefficientStore("folder", size_limit=given).size_limit == expected

    @pytest.mark.parametrize(
        "wrong",
        [
            *[-1, 0, 100, True, np.inf, np.nan, None, [1]],
            *["0 GB", "-1 GB", "1 kB", "ten GB", "10 GX", "GB", "", "1e400"],
        ],
    )
    def test_wrong_size_limit(self, wrong) -> None:
        with pytest.raises((TypeError, ValueError), match="size_limit"):
            CoefficientStore("folder", size_limit=wrong)

    @pytest.mark.parametrize("wrong", [-1, 1.5, 2.0, 10**9, "2", None, True, np.nan])
    def test_wrong_ahead(self, wrong) -> None:
        with pytest.raises((TypeError, ValueError), match="ahead"):
            CoefficientStore("folder", ahead=wrong)

    @pytest.mark.parametrize("ahead", [0, np.int64(3), 10])
    def test_ahead(self, ahead) -> None:
        assert CoefficientStore("folder", ahead=ahead).ahead == ahead

    @pytest.mark.parametrize("wrong", [None, 3, b"folder", "", "a\0b", "~nobody-3/a"])
    def test_wrong_folder(self, wrong) -> None:
        with pytest.raises((TypeError, ValueError), match="folder"):
            CoefficientStore(wrong)

    def test_home_and_relative_folders(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        home = CoefficientStore("~/coefficients").folder
        assert home == str(tmp_path / "home" / "coefficients")
        assert CoefficientStore("a/b").folder == str(tmp_path / "a" / "b")


@pytest.fixture
def small_segments(monkeypatch) -> None:
    """Each batch gets a segment of its own."""
    monkeypatch.setattr(contents, "_SEGMENT_SIZE", 1)


@pytest.mark.usefixtures("small_segments")
def test_the_longest_unused_go_first(store) -> None:
    written = []
    for seed in range(5):
        before = set(files(store)) if seed else set()
        written.append(filled(store, seed=seed)[0])
        (new,) = set(files(store)) - before
        os.utime(new, (seed, seed))
    store.read(written[0], PATHS, EXPONENTS, SETTINGS)  # which is a use
    store.size_limit = round(store.size * 0.9)
    filled(store, seed=5)
    assert store.size <= store.size_limit
    forget()
    kept = [
        not np.isnan(store.read(keys, PATHS, EXPONENTS, SETTINGS)).any()
        for keys in written
    ]
    assert kept == [True, False, False, True, True]


def test_the_limit_is_over_all_settings(store) -> None:
    store.size_limit = 20_000
    keys, values = some_keys(4)[:, :1], some_values(4)
    for i in range(60):
        store.write(keys, PATHS, EXPONENTS, values, {"sigma": i})
        assert store.size <= store.size_limit
    assert store.size > 0.7 * store.size_limit
    assert store.contents()[-1].settings == {"sigma": 59}


def test_a_write_needs_no_look_at_the_other_files(store, monkeypatch) -> None:
    filled(store)
    filled(store, seed=1)
    for name in ("listdir", "scandir", "stat"):
        monkeypatch.setattr(os, name, pytest.fail)
    for seed in range(2, 20):
        filled(store, seed=seed)
    monkeypatch.undo()
    assert len(files(store)) == 1


def test_writers_share_a_limit(store) -> None:
    # Each process makes room only for its own segments.
    filled(store)
    size = store.size
    others = [pickle.loads(pickle.dumps(store)) for _ in range(4)]
    for other in others:
        other.size_limit = 30 * size
    views = [{} for _ in others]
    for seed in range(100):
        i = seed % len(others)
        contents._contents, views[i] = views[i], contents._contents
        filled(others[i], seed=seed)
        contents._contents, views[i] = views[i], contents._contents
        assert store.size <= 32 * size
    assert store.size > 20 * size


def test_deletion_by_others_is_no_problem(store) -> None:
    # Several processes delete the same files, and read others meanwhile.
    script = SMALL.format(tests=str(Path(__file__).parent), folder=store.folder)
    command = [sys.executable, "-W", "error", "-c", script]
    writers = [
        subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE) for i in range(3)
    ]
    assert [writer.communicate()[1] for writer in writers] == [b""] * 3
    assert 0 < store.size <= 22_000


SMALL = """
import sys
sys.path.insert(0, {tests!r})
from stores import *
store = CoefficientStore({folder!r}, size_limit=20_000)
for seed in range(40):
    keys, values = filled(store, seed=seed)
    for old in range(max(0, seed - 5), seed):
        found = store.read(some_keys(4, old)[:, :1], PATHS, EXPONENTS, SETTINGS)
        assert np.isnan(found).all() or (found == some_values(4, seed=old)).all()
    if seed == 20 and sys.argv[1] == "0":
        store.clear()
"""


def test_nothing_else_in_the_folder_is_touched(store) -> None:
    filled(store)
    other = Path(store.folder) / "thesis.npz"
    other.write_bytes(b"years of work")
    store.size_limit = 1
    filled(store, seed=1)
    store.clear()
    assert files(store) == [other]
    assert not list(Path(store.folder).glob("*.coefficients-*"))


def test_contents(store) -> None:
    filled(store, n=4)
    filled(store, n=3, seed=1)
    keys = some_keys(2, seed=2)
    values = some_values(2, 2)
    values[0] = np.nan
    store.write(keys, PATHS, EXPONENTS, values, {"sigma": 0.3})
    narrow, wide = store.contents()
    assert narrow.settings == {"sigma": 0.3}
    assert wide.settings == SETTINGS
    assert wide.n_densities == 7
    assert wide.n_coefficients == 7 * len(PATHS) * 2
    assert narrow.n_coefficients == 2 * len(PATHS) * 2
    assert narrow.size + wide.size == store.size
    store.clear()
    assert store.contents() == []


def test_pickle(store) -> None:
    keys, values = filled(store)
    copy = pickle.loads(pickle.dumps(store))
    assert_array_equal(copy.read(keys, PATHS, EXPONENTS, SETTINGS), values)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from stores import *
for seed in range(10000):
    filled(CoefficientStore({folder!r}), n=2000, seed=seed)
    print(flush=True)
"""


@pytest.mark.slow
def test_killed_writers_leave_nothing_wrong(store) -> None:
    script = WRITER.format(tests=str(Path(__file__).parent), folder=store.folder)
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
        found = store.read(keys, PATHS, EXPONENTS, SETTINGS)
        if np.isnan(found).all():
            break
        assert_array_equal(found, values)
        seed += 1
    assert seed > 0
