"""Coefficients saved in a folder.

A store has a subfolder for each set of settings, with files that grow: segments. Each
batch of molecules is appended to one as a record. Processes lock a segment only to
append to it, and make another if it is locked or full, so none waits for the others.
A killed process leaves at most an unfinished record at the end of a segment. A segment
belongs to one machine, since locks of network file systems often work on one alone.

``benchmarks/store.py`` compares other designs. SQLite, a database in one file, needs
locks that work across machines, and one damaged page can destroy all of it. Parquet
files cannot grow, and require a large package.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from json import loads
from numbers import Integral, Real
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.store.contents import (
    Contents,
    coefficient_layout,
    forget,
    open_contents,
)
from skscatharm.store.problems import (
    StoreWarning,
    report,
    report_once,
    solved,
    unlisted,
)
from skscatharm.store.segments import (
    DIGEST_SIZE,
    canonical,
    encode,
    list_folders,
    list_segments,
    remove_other_version,
    settings_folder,
)
from skscatharm.transform.paths import Pair, Path

__all__ = [
    "CoefficientStore",
    "StoreWarning",
    "StoredCoefficients",
    "absolute_folder",
    "open_store",
]

_Array = NDArray[np.float64]

_UNITS = {"": 1, "b": 1} | {
    prefix + unit: base ** (1 + i)
    for unit, base in (("b", 1000), ("ib", 1024))
    for i, prefix in enumerate("kmgt")
}
_SMALLEST = 10_000  # bytes, about those of one molecule
_FURTHEST = 10  # scales


class StoredCoefficients(NamedTuple):
    """The coefficients in a store that were computed with the same settings.

    Attributes
    ----------
    settings : dict
        The width and the other settings that all of them share.
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

    As `memory` of :class:`SolidHarmonicScattering`, a store makes a search compute each
    coefficient once. Any number of processes may use a folder at the same time, on
    any number of machines that share it. Coefficients are identified by everything that
    they depend on: positions and weights of the atoms, width, tolerance, softening,
    precision, engine, and a version of the numerics.

    Parameters
    ----------
    folder : str or path-like
        Folder of the files. The first write creates it. ``~`` is the home folder. A
        relative path starts from the folder in which the store is created, also in
        other processes.
    size_limit : int or str, default="10 GiB"
        Size that the files may have in all, in bytes or with a unit, such as "500 MB"
        (10**6 bytes) or "10 GiB" (2**30 bytes). Beyond it, the files that have not been
        used for the longest time are deleted. At least 10 kB.
    ahead : int, default=2
        Number of scales beyond `J` to compute in advance, from 0 to 10. Second-order
        coefficients are cheap while their first-order field is in memory: with the
        default, a search over three values of J in increasing order computes each field
        once, and the first value takes a third to two thirds longer. Choose the
        difference between the largest and the smallest J of a search, and 0 for a
        single J.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid.

    Warns
    -----
    StoreWarning
        If a file is damaged (it is deleted then), comes from another version, or cannot
        be read or written; if the folder cannot be listed. The coefficients are
        computed again, or not kept. A process reports a problem that lasts once.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skscatharm import CoefficientStore, SolidHarmonicScattering
    >>> hydrogen = [[1, 0, 0, 0], [1, 0, 0, 0.74]]
    >>> with TemporaryDirectory() as folder:
    ...     store = CoefficientStore(folder, size_limit="500 MB")
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
        size_limit: int | str = 10 * 2**30,
        ahead: int = 2,
    ) -> None:
        self.folder = absolute_folder(folder)
        self.size_limit = _parse_size(size_limit)
        self.ahead = _check_ahead(ahead)

    def __repr__(self) -> str:
        return f"CoefficientStore({self.folder!r})"

    @property
    def size(self) -> int:
        """Size of all files, in bytes."""
        return sum(size for _, size, _ in self._files(self._folders()[0]))

    def contents(self) -> list[StoredCoefficients]:
        """List the coefficients in the store by the settings of their computation.

        Returns
        -------
        list of StoredCoefficients
            Sorted by settings.

        Warns
        -----
        StoreWarning
            If a file is damaged, or the folder cannot be listed.
        """
        found = []
        for folder in self._folders()[0]:
            sizes: dict[str, int] = {}
            densities: set[bytes] = set()
            n_coefficients, settings = 0, "{}"
            for name, record, values in Contents(folder).records():
                sizes[name] = os.path.getsize(os.path.join(folder, name))
                settings = record.settings
                if "paths" in loads(record.layout):
                    densities.update(record.keys.tolist())
                    n_coefficients += int(np.isfinite(values).sum())
            if sizes:
                size = sum(sizes.values())
                row = (len(densities), n_coefficients, size)
                found.append((settings, StoredCoefficients(loads(settings), *row)))
        return [stored for _, stored in sorted(found, key=lambda pair: pair[0])]

    def clear(self) -> None:
        """Delete all files of the store. Other files in the folder stay."""
        folders, others = self._folders()
        for path, _, _ in self._files(folders):
            with suppress(FileNotFoundError):
                os.unlink(path)
        for folder in folders:
            with suppress(OSError):  # another process has written to it
                os.rmdir(folder)
        for path in others:
            with suppress(FileNotFoundError):
                remove_other_version(path)
        forget(self.folder)

    def read(
        self,
        keys: NDArray[np.void],
        paths: Sequence[Path | Pair],
        exponents: Sequence[float],
        settings: Mapping[str, Any],
    ) -> _Array:
        """Read coefficients.

        Parameters
        ----------
        keys : ndarray
            Keys from :func:`~skscatharm.store.recall.density_keys`, of any shape.
        paths : sequence of Path or Pair
        exponents : sequence of float
        settings : mapping
            The settings that the keys were made with.

        Returns
        -------
        ndarray of shape (..., n_paths, n_exponents)
            NaN where the store has no coefficient.

        Warns
        -----
        StoreWarning
            If a file is damaged or comes from another version, or the folder cannot be
            listed.
        """
        contents = self._open(canonical(settings))
        values = contents.read(keys.ravel(), paths, exponents)
        return values.reshape(*keys.shape, *values.shape[1:])

    def write(
        self,
        keys: NDArray[np.void],
        paths: Sequence[Path | Pair],
        exponents: Sequence[float],
        coefficients: _Array,
        settings: Mapping[str, Any],
    ) -> None:
        """Keep coefficients.

        Parameters
        ----------
        keys : ndarray
            Keys from :func:`~skscatharm.store.recall.density_keys`, of any shape.
        paths : sequence of Path or Pair
        exponents : sequence of float
        coefficients : ndarray of shape (..., n_paths, n_exponents)
            NaN where nothing is to be kept.
        settings : mapping
            The settings that the keys were made with.

        Warns
        -----
        StoreWarning
            If the files cannot be written, as on a full disk.
        """
        self._write(keys, coefficients, settings, coefficient_layout(paths, exponents))

    def read_arrays(
        self, names: Sequence[str], settings: Mapping[str, Any]
    ) -> list[_Array | None]:
        """Read arrays by their names.

        Parameters
        ----------
        names : sequence of str
            A hexadecimal digest of all that an array depends on, for each.
        settings : mapping
            The settings that they depend on.

        Returns
        -------
        list of ndarray or None
            None where there is none.

        Warns
        -----
        StoreWarning
            If a file is damaged or cannot be read.
        """
        keys = np.concatenate([_key(name) for name in names])
        return self._open(canonical(settings)).read_arrays(keys)

    def write_array(
        self, name: str, array: _Array, settings: Mapping[str, Any]
    ) -> None:
        """Keep an array, as for :meth:`read_arrays`.

        Warns
        -----
        StoreWarning
            If the file cannot be written, as on a full disk.
        """
        layout = canonical({"shape": list(array.shape)})
        self._write(_key(name), array, settings, layout)

    def _write(
        self,
        keys: NDArray[np.void],
        values: _Array,
        settings: Mapping[str, Any],
        layout: str,
    ) -> None:
        if values.size == 0:
            return
        written = canonical(settings)
        record = encode(keys, values, written, layout)
        try:
            self._open(written).append(record, self.size_limit, self._make_room)
        except OSError as error:
            report_once(
                self.folder,
                "write",
                f"Coefficients cannot be kept in {self.folder}: {error}. They are "
                "computed all the same.",
            )
        else:
            solved(self.folder, "write")

    def _open(self, settings: str) -> Contents:
        return open_contents(os.path.join(self.folder, settings_folder(settings)))

    def _make_room(self, size: int) -> None:
        """Delete the least recently used files until there is room for a new one."""
        files = sorted(self._files(self._folders()[0]), key=lambda file: file[2])
        excess = sum(size for _, size, _ in files) + size - self.size_limit
        if excess > 0:
            excess += self.size_limit // 10  # so that it is not every time
        for path, size, _ in files:
            if excess <= 0:
                break
            with suppress(OSError):
                os.unlink(path)
                excess -= size

    def _folders(self) -> tuple[list[str], list[str]]:
        """List the folders of settings, and what comes from other versions."""
        try:
            return list_folders(self.folder)
        except OSError as error:
            report(unlisted(self.folder, error))
            return [], []

    def _files(self, folders: list[str]) -> list[tuple[str, int, float]]:
        """List the files in folders: paths, sizes and times of last use."""
        files = []
        for folder in folders:
            try:
                states = list_segments(folder)
            except OSError as error:
                report(unlisted(folder, error))
                continue
            files += [
                (os.path.join(folder, name), state.st_size, state.st_mtime)
                for name, state in states.items()
            ]
        return files


def _key(name: str) -> NDArray[np.void]:
    return np.frombuffer(bytes.fromhex(name), f"V{DIGEST_SIZE}")


def absolute_folder(folder: str | os.PathLike[str]) -> str:
    """Expand ``~``, and make a path absolute.

    Raises
    ------
    TypeError, ValueError
        If it is no path.
    """
    name: Any = os.fspath(folder) if hasattr(folder, "__fspath__") else folder
    if not isinstance(name, str):
        raise TypeError(f"folder must be a string or a path; got {folder!r}.")
    if not name or "\0" in name:
        raise ValueError(f"folder must be the path of a folder; got {name!r}.")
    try:
        return str(FilePath(name).expanduser().absolute())
    except RuntimeError as error:
        raise ValueError(f"folder {name!r}: {error} Give an absolute path.") from error


def _check_ahead(ahead: Any) -> int:
    message = (
        f"ahead, the number of scales beyond J to compute in advance, must be an "
        f"integer from 0 to {_FURTHEST}; got {ahead!r}."
    )
    if isinstance(ahead, bool) or not isinstance(ahead, Integral):
        raise TypeError(message)
    if not 0 <= int(ahead) <= _FURTHEST:
        raise ValueError(message)
    return int(ahead)


def _parse_size(size: Any) -> int:
    """Read a number of bytes, as in ``"10 GB"``."""
    form = 'a number of bytes, or a string such as "500 MB" or "10 GiB"'
    number: Any = size
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", size.lower())
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"size_limit must be {form}; got {size!r}.")
        number = float(match[1]) * _UNITS[match[2]]
    elif isinstance(size, bool) or not isinstance(size, Real):
        raise TypeError(f"size_limit must be {form}; got {size!r}.")
    if not _SMALLEST <= number < float("inf"):
        raise ValueError(
            f"size_limit must be at least {_SMALLEST} bytes, which is about one "
            f"molecule, and finite; got {size!r}."
        )
    return int(number)


def open_store(memory: str | os.PathLike[str] | CoefficientStore) -> CoefficientStore:
    """Return a store as it is, and that of a folder with the default options."""
    return memory if isinstance(memory, CoefficientStore) else CoefficientStore(memory)
