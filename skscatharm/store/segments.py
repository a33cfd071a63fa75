"""The files of a store: segments, which are sequences of records.

A record has the coefficients of a batch of molecules: a header with the digest of the
rest, a description in JSON, the keys, and the coefficients in double precision. Records
are appended and never change. So a killed writer leaves at most one unfinished record,
at the end of a segment: readers ignore it, and the next writer cuts it off.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from errno import ENOENT, ENOTSUP
from functools import lru_cache
from hashlib import blake2b
from json import dumps, loads
from platform import node
from re import compile as pattern
from stat import S_ISREG
from struct import Struct
from typing import IO, Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from skscatharm.transform.transform import NUMERICS_VERSION

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # as on Windows
    flock = None  # type: ignore[assignment]

__all__ = [
    "DIGEST_SIZE",
    "DamagedError",
    "Record",
    "append",
    "canonical",
    "create",
    "encode",
    "is_of_this_machine",
    "list_folders",
    "list_segments",
    "load",
    "lock",
    "remove_other_version",
    "scan",
    "settings_folder",
]

_FORMAT_VERSION = 2
_VERSION = f".coefficients-{_FORMAT_VERSION}.{NUMERICS_VERSION}"
# Earlier versions kept files of their own in the folder of the store.
_OTHER = pattern(
    r"[0-9a-f]{16}\.coefficients-[0-9.]+"
    r"|[0-9a-f]{32}\.(coefficients(-[0-9.]+\.npz|\.tmp)|jacobian-[0-9.]+\.npz)"
)
_SEGMENT = pattern(r"[0-9a-f]{8}-[0-9a-f]{32}\.segment")
DIGEST_SIZE = 16  # bytes
_MAGIC = b"\x93SKSCAT\n"
# Magic, digest of all that follows it, bytes after the header, bytes of the
# description, number of keys.
_HEADER = Struct("<8s16sQII")
_DIGESTED = len(_MAGIC) + DIGEST_SIZE


class DamagedError(Exception):
    """The content of a record does not match its digest."""


class Record(NamedTuple):
    """All of a record but its coefficients.

    Attributes
    ----------
    offset, size : int
        Its place in the segment, in bytes.
    header : bytes
    settings : str
        Canonical JSON.
    layout : str
        Canonical JSON: the coefficients of a key, or the shape of its array.
    keys : ndarray of shape (n_keys,)
    """

    offset: int
    size: int
    header: bytes
    settings: str
    layout: str
    keys: NDArray[np.void]


def canonical(content: Mapping[str, Any]) -> str:
    """Write a mapping as JSON, equal ones in the same way."""
    return dumps(dict(content), sort_keys=True)


def settings_folder(settings: str) -> str:
    """Name the folder of the segments of some settings."""
    return blake2b(settings.encode(), digest_size=8).hexdigest() + _VERSION


def encode(
    keys: NDArray[np.void], values: NDArray[np.float64], settings: str, layout: str
) -> bytes:
    """Write a record.

    Parameters
    ----------
    keys : ndarray of n keys, of any shape
    values : ndarray of n rows, of any shape
    settings, layout : str
    """
    description = dumps([settings, layout]).encode()
    description += b" " * (-len(description) % 8)
    body = b"".join(
        (
            description,
            keys.tobytes(),
            np.ascontiguousarray(values, dtype="<f8").tobytes(),
        )
    )
    sizes = _HEADER.pack(b"", b"", len(body), len(description), keys.size)[_DIGESTED:]
    return _MAGIC + _digest(sizes + body) + sizes + body


def scan(file: IO[bytes], start: int) -> list[Record]:
    """List the records from a place in a segment to the first unfinished one."""
    end = os.fstat(file.fileno()).st_size
    records: list[Record] = []
    while start + _HEADER.size < end:
        file.seek(start)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            break
        magic, _, size, n_description, n_keys = _HEADER.unpack(header)
        whole = _HEADER.size + size
        n_bytes = n_keys * DIGEST_SIZE
        n_values = size - n_description - n_bytes
        if (
            magic != _MAGIC
            or start + whole > end
            or not (n_keys and n_values > 0 and n_values % (8 * n_keys) == 0)
        ):
            break
        try:
            settings, layout = _parse(file.read(n_description))
        except ValueError:
            break
        keys = np.frombuffer(file.read(n_bytes), f"V{DIGEST_SIZE}")
        records.append(Record(start, whole, header, settings, layout, keys))
        start += whole
    return records


def load(file: IO[bytes], record: Record) -> NDArray[np.float64]:
    """Read the coefficients of a record, and check it.

    Returns
    -------
    ndarray of shape (n_keys, n_values)

    Raises
    ------
    DamagedError
    """
    file.seek(record.offset)
    data = file.read(record.size)
    if (
        data[: _HEADER.size] != record.header
        or len(data) != record.size
        or _digest(memoryview(data)[_DIGESTED:])
        != record.header[len(_MAGIC) : _DIGESTED]
    ):
        raise DamagedError("the content of a record does not match its digest")
    _, _, _, n_description, n_keys = _HEADER.unpack(record.header)
    start = _HEADER.size + n_description + n_keys * DIGEST_SIZE
    return np.frombuffer(data, "<f8", offset=start).reshape(n_keys, -1)


def lock(file: IO[bytes]) -> None:
    """Lock a segment until it is closed.

    Raises
    ------
    BlockingIOError
        If another process writes to it.
    OSError
        If the system or the file system has no locks, or the segment was deleted.
    """
    if flock is None:
        raise OSError(ENOTSUP, "no locks on this system")
    flock(file, LOCK_EX | LOCK_NB)
    if os.fstat(file.fileno()).st_nlink == 0:
        raise OSError(ENOENT, "deleted by another process")


def append(file: IO[bytes], end: int, data: bytes) -> None:
    """Write a record after the last whole one of a locked segment."""
    file.truncate(end)
    file.seek(end)
    try:
        _write(file, data)
    except BaseException:
        with suppress(OSError):
            file.truncate(end)
        raise


def create(folder: str, data: bytes) -> str:
    """Write the first record of a new segment, and return its name."""
    os.makedirs(folder, exist_ok=True)
    name = f"{_machine()}-{uuid4().hex}.segment"
    path = os.path.join(folder, name)
    try:
        with open(path, "xb", buffering=0) as file:
            with suppress(OSError):  # no other process appends before it is whole
                lock(file)
            _write(file, data)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    return name


def list_folders(folder: str) -> tuple[list[str], list[str]]:
    """List the folders of settings in a store, and files and folders of other versions.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    try:
        names = sorted(filter(_OTHER.fullmatch, os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):  # the first write makes the folder
        names = []
    current: list[str] = []
    others: list[str] = []
    for name in names:
        kind = current if name.endswith(_VERSION) else others
        kind.append(os.path.join(folder, name))
    return current, others


def remove_other_version(path: str) -> None:
    """Delete a file or folder of another version, unless it holds other files too."""
    if os.path.isdir(path):
        for name in filter(_SEGMENT.fullmatch, os.listdir(path)):
            os.unlink(os.path.join(path, name))
        with suppress(OSError):
            os.rmdir(path)
    else:
        os.unlink(path)


def list_segments(folder: str) -> dict[str, os.stat_result]:
    """Return the names of the segments in a folder, and their states.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    found: dict[str, os.stat_result] = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:  # another process has just removed it
        names = []
    for name in filter(_SEGMENT.fullmatch, names):
        with suppress(FileNotFoundError):
            state = os.lstat(os.path.join(folder, name))
            if S_ISREG(state.st_mode):
                found[name] = state
    return found


def is_of_this_machine(name: str) -> bool:
    """Recognize a segment that a process of this machine has made.

    Processes of other machines do not append to it: locks of some network file systems
    work on one machine only.
    """
    return name.startswith(_machine())


def _write(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:  # a call may write a part
        view = view[file.write(view) :]


@lru_cache
def _machine() -> str:
    return blake2b(node().encode(), digest_size=4).hexdigest()


@lru_cache
def _parse(description: bytes) -> tuple[str, str]:
    """Read settings and layout."""
    try:
        settings, layout = loads(description)
        if not isinstance(loads(settings), dict) or not isinstance(loads(layout), dict):
            raise ValueError("no mappings")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("no description of a record") from error
    return settings, layout


def _digest(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=DIGEST_SIZE).digest()
