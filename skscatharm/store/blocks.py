"""The files of a store.

A file has the format npz of NumPy and three members: `keys`, `coefficients` and a
`description` in JSON. Its name starts with a digest of its content.
"""

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from json import dumps, loads
from stat import S_ISREG
from time import time
from typing import IO, Any, NamedTuple
from uuid import uuid4
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from skscatharm.transform.paths import Path
from skscatharm.transform.transform import NUMERICS_VERSION

__all__ = [
    "ARRAY_SUFFIX",
    "DIGEST_SIZE",
    "SUFFIX",
    "Block",
    "UnusableFileError",
    "canonical",
    "encode",
    "encode_array",
    "file_size",
    "is_abandoned",
    "list_files",
    "load_array",
    "load_block",
    "load_keys",
    "remove",
    "write_file",
]

_FORMAT_VERSION = 1
SUFFIX = f".coefficients-{_FORMAT_VERSION}.{NUMERICS_VERSION}.npz"
ARRAY_SUFFIX = f".jacobian-{_FORMAT_VERSION}.{NUMERICS_VERSION}.npz"
_TEMPORARY = ".coefficients.tmp"
_NAME = re.compile(
    r"[0-9a-f]{32}\.(coefficients(-[0-9.]+\.npz|\.tmp)|jacobian-[0-9.]+\.npz)"
)
DIGEST_SIZE = 16  # bytes
_LARGEST = 2**30  # bytes; 512 molecules, 20 channels and 6,000 columns need half of it
_ABANDONED = 3600  # seconds; writers of temporary files are faster


class UnusableFileError(Exception):
    """A file does not have the content of a store, or is not a regular file."""


class Block(NamedTuple):
    """The content of a file.

    Attributes
    ----------
    keys : list of bytes
    paths : tuple of Path
    exponents : tuple of float
    settings : str
        Canonical JSON.
    values : ndarray of shape (n_keys, n_paths, n_exponents)
        Coefficients, and NaN where there are none.
    """

    keys: list[bytes]
    paths: tuple[Path, ...]
    exponents: tuple[float, ...]
    settings: str
    values: NDArray[np.float64]


def canonical(settings: Mapping[str, Any]) -> str:
    """Write settings as JSON, equal ones in the same way."""
    return dumps(dict(settings), sort_keys=True)


def encode(
    keys: NDArray[np.void],
    paths: Sequence[Path],
    exponents: Sequence[float],
    values: NDArray[np.float64],
    settings: Mapping[str, Any],
) -> bytes:
    """Write the content of a file."""
    description = {
        "paths": paths,
        "exponents": list(exponents),
        "settings": canonical(settings),
    }
    buffer = BytesIO()
    np.savez(
        buffer,
        keys=keys.ravel(),
        coefficients=values.reshape(keys.size, len(paths), len(exponents)),
        description=np.array(dumps(description)),
    )
    return buffer.getvalue()


def write_file(folder: str, data: bytes, name: str | None = None) -> None:
    """Write a file that appears in the folder as a whole or not at all.

    By default, its name is the digest of its content.
    """
    name = f"{_digest(data)}{SUFFIX}" if name is None else name
    temporary = os.path.join(folder, f"{uuid4().hex}{_TEMPORARY}")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, os.path.join(folder, name))
    except BaseException:
        remove(temporary)
        raise


def remove(path: str) -> bool:
    """Remove a file if possible, and return whether it is gone."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def list_files(folder: str) -> list[str]:
    """List the names of the files of a store, and of temporary ones.

    Other files in the folder are ignored.
    """
    try:
        return [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except FileNotFoundError:  # the first write makes the folder
        return []


def file_size(path: str) -> tuple[int, float] | None:
    """Return size and time of the last use; None for all but regular files."""
    try:
        status = os.lstat(path)
    except OSError:  # another process has removed it
        return None
    return (status.st_size, status.st_mtime) if S_ISREG(status.st_mode) else None


def is_abandoned(path: str) -> bool:
    """Recognize a temporary file of a process that was killed while it wrote it."""
    if not path.endswith(_TEMPORARY):
        return False
    found = file_size(path)
    return found is not None and time() - found[1] > _ABANDONED


def load_block(path: str) -> Block:
    """Read a file and check it.

    Raises
    ------
    UnusableFileError
        If its content does not match the digest in its name, or is not that of a store.
    OSError
        If it cannot be read.
    """
    with _open(path) as file:
        data = file.read()
    if not os.path.basename(path).startswith(_digest(data)):
        raise UnusableFileError("its content does not match the digest in its name")
    try:
        return _decode(data)
    except MemoryError:  # the file may be intact
        raise
    except Exception as error:
        raise UnusableFileError(str(error) or type(error).__name__) from error


def load_keys(path: str) -> list[bytes]:
    """Read only the keys of a file. They are not checked against its digest.

    Raises
    ------
    UnusableFileError, OSError
        As :func:`load_block`.
    """
    try:
        with _open(path) as file, ZipFile(file) as archive:
            return _read_keys(archive)
    except MemoryError:
        raise
    except Exception:  # damage to a zip file raises errors of many types
        return load_block(path).keys


def encode_array(array: NDArray[np.float64]) -> bytes:
    """Write the content of a file with a single array."""
    buffer = BytesIO()
    np.savez(buffer, array=array)
    return buffer.getvalue()


def load_array(path: str) -> NDArray[np.float64]:
    """Read a file with a single array.

    Raises
    ------
    UnusableFileError
        If it is damaged, or not a regular file.
    OSError
        If it cannot be read.
    """
    with _open(path) as file:
        data = file.read()
    try:
        with ZipFile(BytesIO(data)) as archive:  # which compares check sums
            array = _read_array(archive, "array")
    except MemoryError:  # the file may be intact
        raise
    except Exception as error:
        raise UnusableFileError(str(error) or type(error).__name__) from error
    if array.dtype != np.float64 or array.ndim != 3:
        raise UnusableFileError(f"its array is {array.dtype} of shape {array.shape}")
    return np.array(array)


def _open(path: str) -> IO[bytes]:
    status = os.lstat(path)  # as to open a FIFO would wait for a writer
    if not S_ISREG(status.st_mode):
        raise UnusableFileError("it is not a regular file")
    if status.st_size > _LARGEST:
        raise UnusableFileError(f"it has {status.st_size} bytes")
    return open(path, "rb")


def _decode(data: bytes) -> Block:
    with ZipFile(BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise ValueError("it is compressed")
        keys = _read_keys(archive)
        values = _read_array(archive, "coefficients")
        description = _read_array(archive, "description")
    paths, exponents, settings = _parse(description.item())
    shape = (len(keys), len(paths), len(exponents))
    if values.shape != shape or values.dtype != np.float64 or values.size == 0:
        raise ValueError(
            f"its coefficients are {values.dtype} of shape {values.shape}, not float64 "
            f"of shape {shape}"
        )
    return Block(keys, paths, exponents, settings, values)


def _read_keys(archive: ZipFile) -> list[bytes]:
    keys = _read_array(archive, "keys")
    if keys.dtype != f"V{DIGEST_SIZE}" or keys.ndim != 1 or keys.size == 0:
        raise ValueError(f"its keys are {keys.dtype} of shape {keys.shape}")
    return keys.tolist()


def _read_array(archive: ZipFile, name: str) -> NDArray[Any]:
    """Read an array, and no more than its bytes: its header may be wrong."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size != info.compress_size:
        raise ValueError("it is compressed")
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"its member {name} has another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        content = member.read()
    array = np.frombuffer(content, dtype)  # which refuses objects
    return array.reshape(shape, order="F" if fortran else "C")


@lru_cache
def _parse(description: str) -> tuple[tuple[Path, ...], tuple[float, ...], str]:
    """Read the paths, the exponents and the settings of a file."""
    content = loads(description)
    if not isinstance(loads(content["settings"]), dict):
        raise ValueError("its settings are not an object of JSON")
    return (
        tuple(
            Path(tuple(map(int, scales)), int(degree))
            for scales, degree in content["paths"]
        ),
        tuple(map(float, content["exponents"])),
        content["settings"],
    )


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_SIZE).hexdigest()
