"""Coefficients saved in a folder.

Each batch of molecules becomes one file. A file appears in the folder when it is
complete, never changes, and has a digest of its content as its name. So the store needs
no locks, which shared file systems often lack. A killed process leaves no incomplete
file. The name of a damaged file does not match its content, and only its batch is lost.

``benchmarks/store.py`` compares other designs. SQLite, a database in one file, needs a
fifth more space and writes ten times slower. It needs locks, and one damaged page can
destroy all of it. Parquet files are as fast, but require a large package.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from json import loads
from numbers import Integral, Real
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skscatharm.store.blocks import (
    ARRAY_SUFFIX,
    DIGEST_SIZE,
    SUFFIX,
    encode,
    encode_array,
    file_size,
    load_array,
    load_block,
    remove,
    write_file,
)
from skscatharm.store.contents import Damage, list_folder, open_contents
from skscatharm.store.problems import StoreWarning, report_once, solved
from skscatharm.transform.paths import Path

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
        return sum(size for _, size, _ in self._files(again=True))

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
        densities: dict[str, set[bytes]] = defaultdict(set)
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        sizes = {
            os.path.basename(path): size for path, size, _ in self._files(again=True)
        }
        names = (name for name in sizes if name.endswith(SUFFIX))
        damage = Damage(self.folder)
        for name, block in damage.load(names, load_block):
            densities[block.settings].update(block.keys)
            totals[block.settings][0] += int(np.isfinite(block.values).sum())
            totals[block.settings][1] += sizes[name]
        damage.report()
        return [
            StoredCoefficients(loads(settings), len(densities[settings]), *total)
            for settings, total in sorted(totals.items())
        ]

    def clear(self) -> None:
        """Delete all files of the store. Other files in the folder stay."""
        for path, _, _ in self._files(again=True):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def read(
        self, keys: NDArray[np.void], paths: Sequence[Path], exponents: Sequence[float]
    ) -> _Array:
        """Read coefficients.

        Parameters
        ----------
        keys : ndarray
            Keys from :func:`~skscatharm.store.recall.density_keys`, of any shape.
        paths : sequence of Path
        exponents : sequence of float

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
        data = keys.tobytes()
        values = open_contents(self.folder).read(
            [data[i : i + DIGEST_SIZE] for i in range(0, len(data), DIGEST_SIZE)],
            paths,
            exponents,
        )
        return values.reshape(*keys.shape, *values.shape[1:])

    def write(
        self,
        keys: NDArray[np.void],
        paths: Sequence[Path],
        exponents: Sequence[float],
        coefficients: _Array,
        settings: Mapping[str, Any],
    ) -> None:
        """Keep coefficients.

        Parameters
        ----------
        keys : ndarray
            Keys from :func:`~skscatharm.store.recall.density_keys`, of any shape.
        paths : sequence of Path
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
        self._write(encode(keys, paths, exponents, coefficients, settings))

    def read_array(self, name: str) -> _Array | None:
        """Read an array by its name.

        Parameters
        ----------
        name : str
            A hexadecimal digest of all that the array depends on.

        Returns
        -------
        ndarray or None
            None if there is none.

        Warns
        -----
        StoreWarning
            If its file is damaged or cannot be read.
        """
        damage = Damage(self.folder)
        found = dict(damage.load([f"{name}{ARRAY_SUFFIX}"], load_array))
        damage.report()
        for file in found:
            with suppress(OSError):
                os.utime(os.path.join(self.folder, file))  # it has been used
        return next(iter(found.values()), None)

    def write_array(self, name: str, array: _Array) -> None:
        """Keep an array of three dimensions, as for :meth:`read_array`.

        Warns
        -----
        StoreWarning
            If the file cannot be written, as on a full disk.
        """
        self._write(encode_array(array), f"{name}{ARRAY_SUFFIX}")

    def _write(self, data: bytes, name: str | None = None) -> None:
        try:
            try:
                write_file(self.folder, data, name)
            except FileNotFoundError:  # another process has just emptied the folder
                write_file(self.folder, data, name)
        except OSError as error:
            report_once(
                self.folder,
                "write",
                f"Coefficients cannot be kept in {self.folder}: {error}. They are "
                "computed all the same.",
            )
            return
        solved(self.folder, "write")
        open_contents(self.folder).changed()
        self._limit_size(len(data))

    def _limit_size(self, written: int) -> None:
        """Delete the least recently used files beyond the limit.

        Listing the files and their sizes is slow on network file systems. It is done
        again when this process has written an eighth of the remaining space, since
        other processes write too.
        """
        allowances = open_contents(self.folder).allowances
        left = allowances.get(self.size_limit, 0) - written
        allowances[self.size_limit] = left
        if left >= 0:
            return
        files = sorted(self._files(), key=lambda file: file[2])
        room = self.size_limit - sum(size for _, size, _ in files)
        if room < 0:
            for path, size, _ in files:
                # Temporary files are still being written.
                if not path.endswith(".tmp") and remove(path):
                    room += size
                if room >= self.size_limit // 10:  # so that it is not every time
                    break
        allowances[self.size_limit] = max(room / 8, min(room, self.size_limit / 100))

    def _files(self, *, again: bool = False) -> list[tuple[str, int, float]]:
        """List the regular files of the store: paths, sizes and times of last use."""
        files = []
        for name in list_folder(self.folder, again=again) or ():
            path = os.path.join(self.folder, name)
            found = file_size(path)
            if found is not None:
                files.append((path, *found))
        return files


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
