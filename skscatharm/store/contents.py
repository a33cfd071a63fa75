"""The part of a folder that this process has read.

The keys of all files are known. Coefficients are read when they are first asked for,
and stay in memory up to a limit for all folders together.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from errno import ENOENT, ESTALE
from itertools import product
from threading import Lock, RLock
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm.store.blocks import (
    ARRAY_SUFFIX,
    SUFFIX,
    UnusableFileError,
    file_size,
    is_abandoned,
    list_files,
    load_block,
    load_keys,
    remove,
)
from skscatharm.store.problems import report, report_once, solved
from skscatharm.transform.paths import Path

__all__ = ["Damage", "FolderContents", "list_folder", "open_contents"]

_Array = NDArray[np.float64]
_Loaded = TypeVar("_Loaded")

_MAX_BYTES = 2**29  # of coefficients, in all folders
_MAX_FOLDERS = 32
_CACHED_ROWS = 256  # that the cache of a processor holds
# File systems give folders times that are up to 2 s coarse. A few never change them.
_COARSE, _TRUSTED = 2.0, 60.0  # seconds

_lock = Lock()
_contents: dict[str, "FolderContents"] = {}  # the least recently used first


def open_contents(folder: str) -> "FolderContents":
    """Return the contents of a folder, which all stores of this process share."""
    with _lock:
        contents = _contents.pop(folder, None)
        if contents is None:
            contents = FolderContents(folder)
            for other in list(_contents):
                if len(_contents) >= _MAX_FOLDERS or not os.path.isdir(other):
                    del _contents[other]
        _contents[folder] = contents
        return contents


def _limit_memory() -> None:
    """Forget the coefficients of the least recently used folders beyond the limit."""
    with _lock:
        excess = sum(contents.nbytes for contents in _contents.values()) - _MAX_BYTES
        for contents in _contents.values():
            if excess > 0:
                excess -= contents.nbytes
                contents.forget_coefficients()


class FolderContents:
    """The part of a folder that this process has read.

    Parameters
    ----------
    folder : str

    Attributes
    ----------
    nbytes : int
        Size of the coefficients in memory.
    allowances : dict
        For each limit of the size, the bytes that this process may still write before
        it lists the sizes of all files again.
    """

    def __init__(self, folder: str) -> None:
        self.nbytes = 0
        self.allowances: dict[int, float] = {}
        self._folder = folder
        self._lock = RLock()
        self._files: dict[str, list[bytes]] = {}  # keys, none of an unusable file
        self._time: int | None = None  # of the folder, when it was listed
        self._time_seen = self._listed = 0.0
        self.forget_coefficients()

    def forget_coefficients(self) -> None:
        """Free the memory. Files are read again when they are needed."""
        with self._lock:
            self.nbytes = 0
            self._tables: dict[tuple[Any, Any], _Table] = {}
            self._numbers: dict[bytes, int] = {}  # of the keys, from 1
            # Files that hold more for a key: most often one, so no set.
            self._unread: dict[bytes, tuple[str, ...]] = {}
            for name, keys in self._files.items():
                self._add_unread(name, keys)

    def changed(self) -> None:
        """List the folder at the next reading, even if its time has not changed."""
        self._time = None

    def read(
        self, keys: list[bytes], paths: Sequence[Path], exponents: Sequence[float]
    ) -> _Array:
        """Read coefficients.

        Returns
        -------
        ndarray of shape (n_keys, n_paths, n_exponents)
            NaN where there are none.
        """
        damage = Damage(self._folder)
        with self._lock:
            self._look_around(damage)
            if self._unread:
                unread = [self._unread[key] for key in keys if key in self._unread]
                self._load(set[str]().union(*unread), damage)
            values = np.full((len(keys), len(paths), len(exponents)), np.nan)
            numbers = np.array([self._numbers.get(key, 0) for key in keys])
            for (known_paths, known_exponents), table in self._tables.items():
                to_path, from_path = _common(paths, known_paths)
                to_q, from_q = _common(exponents, known_exponents)
                columns = list(
                    zip(product(to_path, to_q), product(from_path, from_q), strict=True)
                )
                if not columns:
                    continue
                for part in gen_batches(len(keys), _CACHED_ROWS):
                    known = table.take(numbers[part])
                    # Column by column is faster than all of them at once.
                    for to, origin in columns:
                        column = values[part, *to]
                        np.copyto(column, known[:, *origin], where=np.isnan(column))
            self.nbytes = sum(table.nbytes for table in self._tables.values())
        _limit_memory()
        damage.report()
        return values

    def _look_around(self, damage: "Damage") -> None:
        """Find the files that have appeared or gone."""
        try:
            time = os.stat(self._folder).st_mtime_ns
        except OSError:
            time = None
        now = monotonic()
        if time is None or time != self._time:
            self._time, self._time_seen = time, now
        # A list made soon after a change may lack files that came with the same time.
        elif self._listed - self._time_seen > _COARSE and now - self._listed < _TRUSTED:
            return
        self._listed = now
        # If there is no folder, and there cannot be one, writing reports why.
        names = list_folder(self._folder) if os.path.isdir(self._folder) else []
        if names is None:
            return
        known = (SUFFIX, ARRAY_SUFFIX, ".tmp")
        others = sum(not name.endswith(known) for name in names)
        if others:
            report_once(
                self._folder,
                "version",
                f"{others} files in {self._folder} come from another version and "
                "cannot be used. The method clear of CoefficientStore deletes them.",
            )
        current = {name for name in names if name.endswith(SUFFIX)}
        gone = self._files.keys() - current
        if gone:
            for name in gone:
                del self._files[name]
            self.forget_coefficients()
        new = current - self._files.keys()
        for name, keys in damage.load(new, load_keys):
            self._files[name] = keys
            self._add_unread(name, keys)
        for name in new - self._files.keys():
            if os.path.lexists(os.path.join(self._folder, name)):
                self._files[name] = []

    def _add_unread(self, name: str, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._unread[key] = (*self._unread.get(key, ()), name)

    def _load(self, names: Iterable[str], damage: "Damage") -> None:
        for name, block in damage.load(names, load_block):
            with suppress(OSError):
                os.utime(os.path.join(self._folder, name))  # it has been used
            for key in block.keys:
                others = tuple(n for n in self._unread.pop(key, ()) if n != name)
                if others:
                    self._unread[key] = others
            numbers = [
                self._numbers.setdefault(key, 1 + len(self._numbers))
                for key in block.keys
            ]
            layout = (block.paths, block.exponents)
            if layout not in self._tables:
                self._tables[layout] = _Table(*map(len, layout))
            self._tables[layout].append(np.array(numbers), block.values)


class _Table:
    """Coefficients of the same paths and exponents, from any number of files."""

    def __init__(self, n_paths: int, n_exponents: int) -> None:
        # Row 0 is that of all keys that have none.
        self._rows = np.zeros(1, dtype=np.int64)  # by the number of a key
        self._values = np.full((1, n_paths, n_exponents), np.nan)
        self._length = 1

    def append(self, numbers: NDArray[np.int64], values: _Array) -> None:
        """Add the coefficients of some keys."""
        self._rows = _grown(self._rows, numbers.max() + 1)
        self._values = _grown(self._values, self._length + len(numbers))
        # If two processes have computed the same, the first stays.
        numbers, values = numbers[::-1], values[::-1]
        new = numbers[self._rows[numbers] == 0]
        self._rows[new] = self._length + np.arange(len(new))
        self._values[self._length : self._length + len(new)] = np.nan
        self._length += len(new)
        rows = self._rows[numbers]
        old = self._values[rows]
        self._values[rows] = np.where(np.isnan(old), values, old)

    def take(self, numbers: NDArray[np.int64]) -> _Array:
        """Return the coefficients of keys, NaN where there are none."""
        self._rows = _grown(self._rows, numbers.max() + 1)
        return self._values[self._rows[numbers]]

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._values.nbytes


def _grown(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Append zeros to an array, at once so many that it is seldom done."""
    if length <= len(array):
        return array
    length = max(length, 2 * len(array))
    grown = np.zeros((length, *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown


def _common(asked: Sequence[Any], known: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Return the indices of common entries in both sequences."""
    where = {value: i for i, value in enumerate(known)}
    indices = [(i, where[value]) for i, value in enumerate(asked) if value in where]
    return [i for i, _ in indices], [i for _, i in indices]


def list_folder(folder: str, *, again: bool = False) -> list[str] | None:
    """List the files of a store, and remove those that killed writers left behind.

    Parameters
    ----------
    folder : str
    again : bool, default=False
        Report that the folder cannot be listed even if this has been reported.

    Returns
    -------
    list of str or None
        None if the folder cannot be listed, which is reported.
    """
    try:
        names = list_files(folder)
    except OSError as error:
        if again:
            solved(folder, "list")
        report_once(
            folder,
            "list",
            f"{folder} cannot be listed, and its coefficients cannot be used: {error}. "
            "Give this process the right to read the folder, or choose another one.",
        )
        return None
    solved(folder, "list")
    return [
        name
        for name in names
        if not (is_abandoned(path := os.path.join(folder, name)) and remove(path))
    ]


class Damage:
    """Collects files that cannot be used, to report them together."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._removed: list[str] = []
        self._left: list[str] = []

    def load(
        self, names: Iterable[str], load: Callable[[str], _Loaded]
    ) -> Iterator[tuple[str, _Loaded]]:
        """Load files one after the other, and remove those that are damaged.

        A file that another process has removed is left out.
        """
        for name in sorted(names):
            path = os.path.join(self._folder, name)
            try:
                loaded = load(path)
            except OSError as error:
                if error.errno not in (ENOENT, ESTALE):
                    self._left.append(f"{path} cannot be read: {error}")
            except UnusableFileError as error:
                removed = file_size(path) is not None and remove(path)
                (self._removed if removed else self._left).append(
                    f"{path} is damaged: {error}"
                )
            else:
                yield name, loaded

    def report(self) -> None:
        """Warn once for all files. Where warnings are errors, nothing happens later."""
        if self._left:
            report_once(
                self._folder,
                self._left[0],
                f"{_first(self._left)}. Such files are not used, and stay where they "
                "are until they are deleted by hand.",
            )
        if self._removed:
            report(
                f"{_first(self._removed)}. Damaged files were removed. Their "
                "coefficients are computed again when they are needed."
            )


def _first(problems: Sequence[str]) -> str:
    others = len(problems) - 1
    return problems[0] + (f"; {others} more as well" if others else "")
