"""Coefficients kept between calls, in a folder.

Each batch of molecules becomes one file in NumPy's format npz, which appears in the
folder as a whole or not at all, is never written to again, and is named after a digest
of its content. So there are no locks, which the file systems that the nodes of a
cluster share often lack; a process that is killed leaves nothing half done; and a file
that was damaged is known by its name, and costs its batch only.

``benchmarks/store.py`` compares. A database in one file, SQLite, takes a fifth more
space and writes ten times slower; it needs locks that work, and one damaged page can
cost all of it. Parquet files are as fast as these, for a large dependency.
"""

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import blake2b
from io import BytesIO
from itertools import product
from json import dumps, loads
from pathlib import Path as FilePath
from threading import RLock
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skscatharm.structures import Structure
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import NUMERICS_VERSION

__all__ = ["CoefficientStore", "StoreWarning", "StoredCoefficients", "density_keys"]

_Array = NDArray[np.float64]
_Keys = NDArray[np.void]

_FORMAT_VERSION = 1
_SUFFIX = f".coefficients-{_FORMAT_VERSION}.{NUMERICS_VERSION}.npz"
_NAME = re.compile(r"[0-9a-f]{32}\.coefficients(-[0-9.]+\.npz|\.tmp)")
_DIGEST_SIZE = 16
_KEPT_IN_MEMORY = 2**29  # bytes
_CACHED_ROWS = 256  # that the cache of a processor holds


class StoreWarning(UserWarning):
    """Something is wrong with a store; coefficients are computed in its place."""


class StoredCoefficients(NamedTuple):
    """What a store holds that was computed with the same settings.

    Attributes
    ----------
    settings : dict
        The width and whatever else all of it has in common.
    n_densities : int
        Number of densities, that is, of molecules in each channel.
    n_coefficients : int
        Number of coefficients.
    size : int
        Bytes.
    """

    settings: dict[str, Any]
    n_densities: int
    n_coefficients: int
    size: int


class CoefficientStore:
    """Scattering coefficients of molecules, kept in a folder.

    As `memory` of :class:`SolidHarmonicScattering`, it makes a search compute each
    coefficient once. Any number of processes may use a folder at the same time, on
    any number of machines that share it. Coefficients are found by what they depend on:
    positions and weights of the atoms, width, tolerance and precision, and a version of
    the numerics.

    Parameters
    ----------
    folder : str or path-like
        Where the files are. It is made when the first is written.
    size_limit : int, default=10 * 2**30
        Bytes that the files may take. Beyond, those that have not been used for the
        longest time are deleted.
    ahead : int, default=2
        With a field of order 1 at hand, further coefficients of order 2 cost little,
        and without it much. So where nothing is stored yet, they are computed up to
        this many scales beyond `J`: then a search over increasing J computes each
        field once. Set it to the difference between the largest and the smallest J of
        a search, and to 0 if there is only one.

    Warns
    -----
    StoreWarning
        If a file is damaged (it is deleted then), comes from another version, or cannot
        be written. The coefficients are computed again, or not kept.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skscatharm import CoefficientStore, SolidHarmonicScattering
    >>> hydrogen = [[1, 0, 0, 0], [1, 0, 0, 0.74]]
    >>> with TemporaryDirectory() as folder:
    ...     store = CoefficientStore(folder)
    ...     scattering = SolidHarmonicScattering(J=1, L=1, sigma=0.5, memory=store)
    ...     first = scattering.fit_transform([hydrogen])
    ...     second = scattering.fit_transform([hydrogen])  # read from the folder
    ...     (contents,) = store.contents()
    >>> (first == second).all()
    np.True_
    >>> contents.settings["sigma"]
    0.5
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        size_limit: int = 10 * 2**30,
        ahead: int = 2,
    ) -> None:
        self.folder = str(FilePath(folder).absolute())
        self.size_limit = size_limit
        self.ahead = ahead

    def __repr__(self) -> str:
        return f"CoefficientStore({self.folder!r})"

    @property
    def size(self) -> int:
        """Bytes that the files take."""
        return sum(stat.st_size for _, stat in self._files())

    def contents(self) -> list[StoredCoefficients]:
        """List what the store holds, by the settings that it was computed with.

        Returns
        -------
        list of StoredCoefficients
            Sorted by settings.

        Warns
        -----
        StoreWarning
            If a file is damaged.
        """
        densities: dict[str, set[bytes]] = defaultdict(set)
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for path, stat in self._files():
            if path.name.endswith(_SUFFIX) and (block := _load(path)):
                densities[block.settings].update(block.keys)
                totals[block.settings][0] += int(np.isfinite(block.values).sum())
                totals[block.settings][1] += stat.st_size
        return [
            StoredCoefficients(loads(settings), len(densities[settings]), *total)
            for settings, total in sorted(totals.items())
        ]

    def clear(self) -> None:
        """Delete everything that the store holds."""
        for path, _ in self._files():
            path.unlink(missing_ok=True)

    def read(
        self, keys: _Keys, paths: Sequence[Path], exponents: Sequence[float]
    ) -> _Array:
        """Read coefficients.

        Parameters
        ----------
        keys : ndarray
            What :func:`~skscatharm.store.density_keys` returns, of any shape.
        paths : sequence of Path
        exponents : sequence of float

        Returns
        -------
        ndarray of shape (..., n_paths, n_exponents)
            NaN stands for what the store does not hold.

        Warns
        -----
        StoreWarning
            If a file is damaged, or comes from another version.
        """
        contents = _opened(self.folder)
        data = keys.tobytes()
        starts = range(0, len(data), _DIGEST_SIZE)
        values = contents.read(
            [data[i : i + _DIGEST_SIZE] for i in starts], paths, exponents
        )
        return values.reshape(*keys.shape, *values.shape[1:])

    def write(
        self,
        keys: _Keys,
        paths: Sequence[Path],
        exponents: Sequence[float],
        coefficients: _Array,
        settings: Mapping[str, Any],
    ) -> None:
        """Keep coefficients.

        Parameters
        ----------
        keys : ndarray
            What :func:`~skscatharm.store.density_keys` returns, of any shape.
        paths : sequence of Path
        exponents : sequence of float
        coefficients : ndarray of shape (..., n_paths, n_exponents)
            Where it is NaN, nothing is kept.
        settings : mapping
            What the keys were made with.

        Warns
        -----
        StoreWarning
            If that is not possible, as on a full disk.
        """
        description = {
            "paths": paths,
            "exponents": list(exponents),
            "settings": _canonical(settings),
        }
        buffer = BytesIO()
        np.savez(
            buffer,
            keys=keys.ravel(),
            coefficients=coefficients.reshape(keys.size, len(paths), len(exponents)),
            description=np.array(dumps(description)),
        )
        data = buffer.getvalue()
        folder = FilePath(self.folder)
        temporary = folder / f"{uuid4().hex}.coefficients.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(folder / f"{_digest(data)}{_SUFFIX}")
        except OSError as error:
            _warn(f"Coefficients cannot be kept in {folder}: {error}.")
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._evict()

    def _evict(self) -> None:
        files = self._files()
        excess = sum(stat.st_size for _, stat in files) - self.size_limit
        if excess <= 0:
            return
        excess += self.size_limit // 10  # so that it is not every time
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
            with suppress(OSError):
                path.unlink()
                excess -= stat.st_size
            if excess <= 0:
                return

    def _files(self) -> list[tuple[FilePath, os.stat_result]]:
        files = []
        for name in _list(self.folder):
            path = FilePath(self.folder, name)
            with suppress(OSError):  # another process has deleted it
                files.append((path, path.stat()))
        return files


def density_keys(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    settings: Mapping[str, Any],
) -> _Keys:
    """Digest all that the coefficients of molecules depend on.

    Parameters
    ----------
    structures : sequence of Structure
    weights : sequence of ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    settings : mapping
        Everything else, such as the width: what JSON can write.

    Returns
    -------
    ndarray of shape (n_molecules, n_channels)
    """
    common = blake2b(_canonical(settings).encode(), digest_size=_DIGEST_SIZE)
    digests = []
    for structure, rows in zip(structures, weights, strict=True):
        molecule = common.copy()
        molecule.update(structure.positions.tobytes())
        for row in rows:
            density = molecule.copy()
            density.update(row.tobytes())
            digests.append(density.digest())
    keys = np.frombuffer(b"".join(digests), dtype=f"V{_DIGEST_SIZE}")
    return keys.reshape(len(structures), -1)


class _Block(NamedTuple):
    """The content of a file."""

    keys: list[bytes]
    paths: tuple[Path, ...]
    exponents: tuple[float, ...]
    settings: str
    values: _Array  # of shape (n_keys, n_paths, n_exponents)


class _Table:
    """Coefficients of the same paths and exponents, from any number of files."""

    def __init__(self, n_paths: int, n_exponents: int) -> None:
        # Row 0 is that of all keys which have none.
        self._rows = np.zeros(1, dtype=np.int64)  # by the number of a key
        self._values = np.full((1, n_paths, n_exponents), np.nan)
        self._length = 1

    def append(self, numbers: NDArray[np.int64], values: _Array) -> None:
        """Add the coefficients of some keys."""
        self._rows = _grown(self._rows, numbers.max() + 1)
        self._values = _grown(self._values, self._length + len(numbers))
        # Of what has been computed twice, as by two processes, the first stays.
        numbers, values = numbers[::-1], values[::-1]
        new = numbers[self._rows[numbers] == 0]
        self._rows[new] = self._length + np.arange(len(new))
        self._values[self._length : self._length + len(new)] = np.nan
        self._length += len(new)
        rows = self._rows[numbers]
        old = self._values[rows]
        self._values[rows] = np.where(np.isnan(old), values, old)

    def take(self, numbers: NDArray[np.int64]) -> _Array:
        """Take the coefficients of keys, NaN where there are none."""
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


class _Contents:
    """What this process knows of a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = RLock()
        self._forget()

    def _forget(self) -> None:
        self._known: set[str] = set()
        self._numbers: dict[bytes, int] = {}  # of the keys, in order of appearance
        self._unread: dict[bytes, set[str]] = {}  # files that hold more for a key
        self._tables: dict[tuple[Any, Any], _Table] = {}

    def read(
        self, keys: list[bytes], paths: Sequence[Path], exponents: Sequence[float]
    ) -> _Array:
        with self._lock:
            self._look_around()
            if self._unread:
                unread = [self._unread[key] for key in keys if key in self._unread]
                self._take_in(sorted(set[str]().union(*unread)))
            values = np.full((len(keys), len(paths), len(exponents)), np.nan)
            numbers = np.array([self._numbers.get(key, 0) for key in keys])
            for (known_paths, known_exponents), table in self._tables.items():
                to_path, from_path = _common(paths, known_paths)
                to_q, from_q = _common(exponents, known_exponents)
                if not (to_path and to_q):
                    continue
                columns = list(
                    zip(product(to_path, to_q), product(from_path, from_q), strict=True)
                )
                for part in gen_batches(len(keys), _CACHED_ROWS):
                    known = table.take(numbers[part])
                    # Column by column is faster than all of them at once.
                    for to, origin in columns:
                        column = values[part, *to]
                        np.copyto(column, known[:, *origin], where=np.isnan(column))
            if sum(table.nbytes for table in self._tables.values()) > _KEPT_IN_MEMORY:
                self._forget()
            return values

    def _look_around(self) -> None:
        """Learn which files have appeared, and forget all if some have gone."""
        names = _list(self._folder)
        others = [name for name in names if not name.endswith((_SUFFIX, ".tmp"))]
        if others and not self._known:
            _warn(
                f"{len(others)} files in {self._folder} come from another version, and "
                "cannot be used. The method clear of CoefficientStore deletes them."
            )
        current = {name for name in names if name.endswith(_SUFFIX)}
        if self._known - current:
            self._forget()
        for name in current - self._known:
            path = FilePath(self._folder, name)
            try:
                with path.open("rb") as opened, np.load(opened) as file:
                    keys = file["keys"].tolist()
            except Exception:  # whatever damage does to a zip file
                block = _load(path)
                if block is None:
                    continue
                keys = block.keys
            self._known.add(name)
            for key in keys:
                self._unread.setdefault(key, set()).add(name)

    def _take_in(self, names: list[str]) -> None:
        for name in names:
            block = _load(FilePath(self._folder, name))
            if block is None:
                continue
            for key in block.keys:
                files = self._unread.get(key, set())
                files.discard(name)
                if not files:
                    self._unread.pop(key, None)
            numbers = [
                self._numbers.setdefault(key, 1 + len(self._numbers))
                for key in block.keys
            ]
            layout = (block.paths, block.exponents)
            if layout not in self._tables:
                self._tables[layout] = _Table(*map(len, layout))
            self._tables[layout].append(np.array(numbers), block.values)


@cache
def _opened(folder: str) -> _Contents:
    """Share what is known of a folder among all stores of this process."""
    return _Contents(folder)


def _common(asked: Sequence[Any], known: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Indices in both sequences of what they have in common."""
    where = {value: i for i, value in enumerate(known)}
    indices = [(i, where[value]) for i, value in enumerate(asked) if value in where]
    return [i for i, _ in indices], [i for _, i in indices]


def _list(folder: str) -> list[str]:
    """Names of the files of a store; nothing else in its folder is touched."""
    try:
        return [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except OSError:  # not there yet, most often; writing says what is wrong
        return []


def _load(path: FilePath) -> _Block | None:
    """Read a file and check it; None if that fails."""
    try:
        data = path.read_bytes()
        with suppress(OSError):
            os.utime(path)  # it has been used
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"{path} cannot be read: {error}.")
        return None
    if not path.name.startswith(_digest(data)):
        _warn(f"{path} is damaged: what it held has to be computed again.")
        with suppress(OSError):
            path.unlink()
        return None
    with np.load(BytesIO(data)) as file:
        return _Block(
            file["keys"].tolist(),
            *_described(file["description"].item()),
            file["coefficients"],
        )


@lru_cache
def _described(description: str) -> tuple[tuple[Path, ...], tuple[float, ...], str]:
    """Read the paths, the exponents and the settings of a file."""
    content = loads(description)
    return (
        tuple(Path(tuple(scales), degree) for scales, degree in content["paths"]),
        tuple(content["exponents"]),
        content["settings"],
    )


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGEST_SIZE).hexdigest()


def _canonical(settings: Mapping[str, Any]) -> str:
    return dumps(dict(settings), sort_keys=True)


def _warn(message: str) -> None:
    warnings.warn(message, StoreWarning, stacklevel=2)
