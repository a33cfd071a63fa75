"""The part of a store that this process has read.

There is one :class:`Contents` for each folder of settings. The keys of its segments are
known. Coefficients are read when they are first asked for, and stay in memory up to a
limit for all folders together.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOENT, ESTALE
from functools import lru_cache
from itertools import chain, product
from json import loads
from random import Random
from threading import Lock, RLock
from typing import IO, Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from skscatharm.store.problems import report, report_once, solved, unlisted
from skscatharm.store.segments import (
    DamagedError,
    Record,
    append,
    canonical,
    create,
    is_of_this_machine,
    list_folders,
    list_segments,
    load,
    lock,
    scan,
)
from skscatharm.transform.paths import Pair, Path

__all__ = ["Contents", "coefficient_layout", "forget", "open_contents"]

_Array = NDArray[np.float64]
_Keys = NDArray[np.void]
_Indices = NDArray[np.intp]

_MAX_BYTES = 2**29  # of coefficients in memory, of all folders
_MAX_FOLDERS = 64
_SEGMENT_SIZE = 2**24  # bytes, at which a new segment is begun
_CACHED_ROWS = 256  # that the cache of a processor holds

_lock = Lock()
_contents: dict[str, "Contents"] = {}  # the least recently used first
_in_memory: "WeakSet[_Table]" = WeakSet()  # tables with coefficients
_random = Random()


def open_contents(folder: str) -> "Contents":
    """Return the contents of a folder, which all stores of this process share."""
    with _lock:
        known = _contents.pop(folder, None)
        _contents[folder] = contents = known or Contents(folder)
        if len(_contents) > _MAX_FOLDERS:
            del _contents[next(iter(_contents))]
    if known is None:
        _report_other_versions(os.path.dirname(folder))
    return contents


def forget(folder: str) -> None:
    """Forget all folders inside of a folder."""
    with _lock:
        for inner in [name for name in _contents if os.path.dirname(name) == folder]:
            del _contents[inner]


def _report_other_versions(folder: str) -> None:
    try:
        _, others = list_folders(folder)
    except OSError as error:
        report_once(folder, "list", unlisted(folder, error))
        return
    if others:
        report_once(
            folder,
            "version",
            f"{len(others)} files and folders in {folder} come from another version "
            "and cannot be used: their coefficients are computed again. The method "
            "clear of CoefficientStore deletes them.",
        )


def coefficient_layout(paths: Sequence[Path | Pair], exponents: Sequence[float]) -> str:
    """Describe the coefficients of a key."""
    return canonical({"paths": list(paths), "exponents": [float(q) for q in exponents]})


class Contents:
    """The segments in a folder of settings.

    Parameters
    ----------
    folder : str
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = RLock()
        self._segments: dict[str, _Segment] = {}
        self._time: int | None = None  # of the folder, when it was listed
        self._last = ""  # segment that was written

    def read(
        self, keys: _Keys, paths: Sequence[Path | Pair], exponents: Sequence[float]
    ) -> _Array:
        """Read coefficients.

        Returns
        -------
        ndarray of shape (n_keys, n_paths, n_exponents)
            NaN where there are none.
        """
        values = np.full((len(keys), len(paths) * len(exponents)), np.nan)
        asked = _Asked(keys)
        columns = tuple(paths), tuple(map(float, exponents))
        with self._lock:
            listed = self._time is None or self._time != self._folder_time()
            if listed:
                self.refresh()
            self._fill(values, asked, columns, self._segments.values())
            # Coefficients that were all found need no look at the sizes of files.
            if not listed and np.isnan(values).any():
                self._fill(values, asked, columns, self.refresh())
        if asked.repeats is not None:
            values = values[asked.repeats]
            # Of keys with the same first half, only the first is looked for.
            values[asked.second[asked.repeats] != asked.second] = np.nan
        return values.reshape(len(keys), len(paths), len(exponents))

    def read_arrays(self, keys: _Keys) -> list[_Array | None]:
        """Read arrays, with None where there is none."""
        names = [key.tobytes() for key in keys.reshape(-1)]
        found: dict[bytes, _Array] = {}
        with self._lock:
            self._load_arrays(found, set(names), self._segments.values())
            if found.keys() != set(names):
                self._load_arrays(found, set(names), self.refresh())
        # Equal names get arrays of their own, which can be changed.
        return [found[name].copy() if name in found else None for name in names]

    def _load_arrays(
        self,
        found: dict[bytes, _Array],
        names: set[bytes],
        segments: Iterable["_Segment"],
    ) -> None:
        """Add the arrays that were not found before."""
        for segment in segments:
            here = segment.arrays.keys() & names - found.keys()
            if here:
                with self._using(segment):
                    found |= segment.load_arrays(here)

    def records(self) -> Iterator[tuple[str, Record, _Array]]:
        """Read all records, with the names of their segments."""
        with self._lock:
            self.refresh()
            for segment in self._segments.values():
                with self._using(segment):
                    yield from [(segment.name, *one) for one in segment.load_all()]

    def append(
        self, data: bytes, size_limit: int, make_room: Callable[[int], None]
    ) -> None:
        """Write a record to a segment that no other process is writing to.

        Parameters
        ----------
        data : bytes
            The record.
        size_limit : int
            Bytes that all segments of the store may have.
        make_room : callable
            Called with the bytes that a new segment may get, before it is made.

        Raises
        ------
        OSError
        """
        largest = max(min(_SEGMENT_SIZE, size_limit // 16), len(data))
        with self._lock:
            last = self._segments.get(self._last)
            if last is not None and last.append(data, largest):
                return
            self.refresh()
            for segment in self._segments.values():
                if segment.append(data, largest):
                    self._last = segment.name
                    return
            make_room(largest)
            try:
                self._last = create(self._folder, data)
            except FileNotFoundError:  # another process has just removed the folder
                self._last = create(self._folder, data)

    def refresh(self) -> "list[_Segment]":
        """Look for segments that have appeared, grown or gone.

        Returns
        -------
        list of _Segment
            Those with new records.
        """
        try:
            time = self._folder_time()
            states = {} if time is None else list_segments(self._folder)
        except OSError as error:
            self._segments.clear()
            report_once(self._parent, "list", unlisted(self._folder, error))
            return []
        solved(self._parent, "list")
        self._time = time
        for name in self._segments.keys() - states.keys():
            del self._segments[name]
        grown = []
        for name, state in states.items():
            segment = self._segments.get(name)
            # Only other programs make a segment shorter than its records.
            if segment is None or state.st_size < segment.end:
                segment = self._segments[name] = _Segment(self._folder, name)
            if state.st_size != segment.size:
                with self._using(segment):
                    if segment.scan():
                        grown.append(segment)
        return grown

    @property
    def _parent(self) -> str:
        return os.path.dirname(self._folder)

    def _folder_time(self) -> int | None:
        try:
            return os.stat(self._folder).st_mtime_ns
        except OSError:  # if there cannot be one, writing reports why
            return None

    def _fill(
        self,
        values: _Array,
        asked: "_Asked",
        columns: tuple[tuple[Path | Pair, ...], tuple[float, ...]],
        segments: Iterable["_Segment"],
    ) -> None:
        """Copy coefficients to where there are none."""
        for segment in segments:
            for layout, table in segment.tables.items():
                to, origin = _common(layout, *columns)
                if isinstance(to, np.ndarray) and len(to) == 0:
                    continue
                at, rows = table.match(asked)
                if len(at) == 0:
                    continue
                with self._using(segment):
                    known = table.load()
                    for start in range(0, len(at), _CACHED_ROWS):
                        part = slice(start, start + _CACHED_ROWS)
                        new = known[rows[part]][:, origin]
                        where: Any = at[part], to
                        if isinstance(to, np.ndarray):
                            where = np.ix_(at[part], to)
                        filled = values[where]
                        np.copyto(filled, new, where=np.isnan(filled))
                        values[where] = filled
                _limit_memory()

    @contextmanager
    def _using(self, segment: "_Segment") -> Iterator[None]:
        """Drop a segment that cannot be read, and report it."""
        try:
            yield
        except OSError as error:
            segment.drop()
            if error.errno not in (ENOENT, ESTALE):
                report_once(
                    self._parent,
                    segment.name,
                    f"{segment.path} cannot be read: {error}. It is not used, and "
                    "stays where it is until it is deleted by hand.",
                )
        except DamagedError as error:
            message = f"{segment.path} is damaged: {error}. "
            try:
                if not segment.remove():
                    return
            except OSError:
                report_once(
                    self._parent,
                    segment.name,
                    f"{message}It is not used, and cannot be removed.",
                )
            else:
                report(
                    f"{message}It was removed. Its coefficients are computed again "
                    "when they are needed."
                )


class _Segment:
    """A segment, as far as it was read.

    Attributes
    ----------
    name, path : str
    tables : dict
        For each layout of coefficients, a table.
    arrays : dict
        For each key of an array, its record.
    end : int
        End of the last whole record.
    size : int
        Size when it was last read.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.name, self.path = name, os.path.join(folder, name)
        self.tables: dict[str, _Table] = {}
        self.arrays: dict[bytes, Record] = {}
        self.end = self.size = 0

    def scan(self) -> bool:
        """Find the records that are new, and return whether there are any."""
        with open(self.path, "rb") as file:
            return self._scan(file)

    def _scan(self, file: IO[bytes]) -> bool:
        self.size = os.fstat(file.fileno()).st_size
        records = scan(file, self.end)
        for record in records:
            if _shape(record.layout) is not None:
                for key in record.keys:
                    self.arrays.setdefault(key.tobytes(), record)
            else:
                if record.layout not in self.tables:
                    self.tables[record.layout] = _Table(self.path)
                self.tables[record.layout].add(record)
            self.end = record.offset + record.size
        return bool(records)

    def append(self, data: bytes, largest: int) -> bool:
        """Append a record if the segment stays small, and no other process writes."""
        if self.end + len(data) > largest or not is_of_this_machine(self.name):
            return False
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open(self.path, "r+b", buffering=0))
                lock(file)
            except OSError:
                return False
            self._scan(file)
            # A process may still write the first record without a lock.
            if self.end == 0 or self.end + len(data) > largest:
                return False
            append(file, self.end, data)
        return True

    def load_all(self) -> Iterator[tuple[Record, _Array]]:
        """Read the coefficients and arrays of all records."""
        of_tables = [table.records for table in self.tables.values()]
        with open(self.path, "rb") as file:
            for record in chain(*of_tables, self.arrays.values()):
                yield record, load(file, record)

    def load_arrays(self, names: Iterable[bytes]) -> dict[bytes, _Array]:
        """Read some arrays, which cannot be written to.

        Raises
        ------
        OSError, DamagedError
        """
        found = {}
        with open(self.path, "rb") as file:
            for name in names:
                record = self.arrays[name]
                found[name] = load(file, record).reshape(_shape(record.layout))
        _has_been_used(self.path)
        return found

    def remove(self) -> bool:
        """Remove the file, unless it proves to be sound.

        Raises
        ------
        OSError
            If that is impossible.
        """
        with open(self.path, "r+b") as file:
            try:
                lock(file)
            except BlockingIOError:
                return False  # another process is still writing it
            except OSError:
                pass
            try:
                for _ in self.load_all():
                    pass
            except DamagedError:
                self.drop()
                os.unlink(self.path)
                return True
        return False

    def drop(self) -> None:
        """Forget the records."""
        self.tables, self.arrays = {}, {}
        self.end = self.size = 0


class _Table:
    """The records of a segment that have the same layout.

    Each key has a row, in the order of the segment.
    """

    def __init__(self, path: str) -> None:
        self.records: list[Record] = []
        self._path = path
        self._n_indexed = 0  # records
        self._loaded: tuple[_Array | None, int] = (None, 0)  # and their number

    def add(self, record: Record) -> None:
        """Add a record that follows the others."""
        self.records.append(record)

    @property
    def nbytes(self) -> int:
        values, _ = self._loaded
        return 0 if values is None else values.nbytes

    def forget_values(self) -> None:
        """Free the memory. Coefficients are read again when they are needed."""
        self._loaded = None, 0

    def match(self, asked: "_Asked") -> tuple[_Indices, _Indices]:
        """Find keys.

        Returns
        -------
        at, rows : ndarray of int
            Indices in the keys that are asked for, and the rows of these keys.
        """
        if self._n_indexed < len(self.records):
            keys = np.concatenate([record.keys for record in self.records])
            first, self._second = _halves(keys)
            # The first of equal keys is found.
            self._first, self._rows = np.unique(first, return_index=True)
            self._n_indexed = len(self.records)
        if len(asked.sorted) < len(self._first):
            at, found = _search(self._first, asked.sorted)
            rows, at = self._rows[at], asked.order[found]
        else:
            at, found = _search(asked.sorted, self._first)
            rows, at = self._rows[found], asked.order[at]
        same = self._second[rows] == asked.second[at]
        return at[same], rows[same]

    def load(self) -> _Array:
        """Return the coefficients, of shape (n_rows, n_values).

        Raises
        ------
        OSError, DamagedError
        """
        values, n_loaded = self._loaded  # another thread may forget them meanwhile
        if values is not None and n_loaded == len(self.records):
            return values
        with open(self._path, "rb") as file:
            new = [load(file, record) for record in self.records[n_loaded:]]
        _has_been_used(self._path)
        values = np.concatenate(new if values is None else [values, *new])
        self._fill_gaps(values)
        with _lock:
            self._loaded = values, len(self.records)
            _in_memory.add(self)
        return values

    def _fill_gaps(self, values: _Array) -> None:
        """Complete the first row of each key with the others.

        There are others if two processes have computed the same.
        """
        if len(self._rows) == len(values):
            return
        first, _ = _halves(np.concatenate([record.keys for record in self.records]))
        rows = self._rows[np.searchsorted(self._first, first)]
        for other in np.flatnonzero(rows != np.arange(len(rows))):
            row = values[rows[other]]
            np.copyto(row, values[other], where=np.isnan(row))


class _Asked:
    """Keys that are asked for, sorted.

    Attributes
    ----------
    sorted : ndarray of uint64
        First halves of the keys, each once.
    order : ndarray of int
        Index of each of them in the keys that are asked for.
    second : ndarray of uint64
        Second halves of the keys, in the order in which they are asked for.
    repeats : ndarray of int or None
        For each key, the index of the first equal one; None if all are different.
    """

    def __init__(self, keys: _Keys) -> None:
        first, self.second = _halves(keys)
        self.sorted, self.order, inverse = np.unique(
            first, return_index=True, return_inverse=True
        )
        different = len(self.sorted) == len(keys)
        self.repeats = None if different else self.order[inverse]


def _halves(keys: _Keys) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    halves = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    return halves[:, 0], np.ascontiguousarray(halves[:, 1])


def _search(
    sorted_: NDArray[np.uint64], wanted: NDArray[np.uint64]
) -> tuple[_Indices, _Indices]:
    """Return the places of entries in a sorted array, and their indices."""
    places = np.searchsorted(sorted_, wanted)
    places[places == len(sorted_)] = 0
    found = np.flatnonzero(sorted_[places] == wanted)
    return places[found], found


def _has_been_used(path: str) -> None:
    """Make a file one of those that are removed last."""
    with suppress(OSError):
        os.utime(path)


def _limit_memory() -> None:
    """Forget the coefficients of some tables if there are more than the limit.

    They are chosen at random: to read more than the limit again and again, in the same
    order, would otherwise find none of them in memory.
    """
    with _lock:
        tables = list(_in_memory)
        excess = sum(table.nbytes for table in tables) - _MAX_BYTES
        _random.shuffle(tables)
        while excess > 0:
            table = tables.pop()
            excess -= table.nbytes
            table.forget_values()
            _in_memory.discard(table)


@lru_cache(maxsize=256)
def _layout(layout: str) -> dict[str, Any]:
    content: dict[str, Any] = loads(layout)
    return content


def _shape(layout: str) -> list[int] | None:
    """Return the shape of an array, or None for a layout of coefficients."""
    return _layout(layout).get("shape")


@lru_cache(maxsize=1024)
def _common(
    layout: str, paths: tuple[Path | Pair, ...], exponents: tuple[float, ...]
) -> tuple[_Indices | slice, _Indices | slice]:
    """Return the columns of common coefficients, in those asked for and in a layout."""
    known = _layout(layout)
    columns = {
        (_tuples(path), q): i
        for i, (path, q) in enumerate(
            product(known.get("paths", ()), known.get("exponents", ()))
        )
    }
    asked = product(paths, exponents)
    pairs = [(i, columns[key]) for i, key in enumerate(asked) if key in columns]
    to, origin = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return _sliced(to), _sliced(origin)


def _tuples(value: Any) -> Any:
    """Turn lists in lists into tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _sliced(indices: _Indices) -> _Indices | slice:
    """Turn indices that follow each other into a slice, which copies faster."""
    if len(indices) and np.array_equal(indices, indices[0] + np.arange(len(indices))):
        return slice(indices[0], indices[0] + len(indices))
    return indices
