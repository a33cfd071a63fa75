"""Size and speed of stores of coefficients, of several kinds.

Run ``python benchmarks/store.py`` in an environment with the package and pyarrow. Each
kind gets the same random numbers, in batches as a transformer writes them, and is then
read in another process's place, for a part of the molecules in random order: the page
cache of the system is warm, what the process knows is not. ``--molecules 130000`` is
the whole of QM9, and takes 1 GB for each kind.
"""

import argparse
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from skscatharm import CoefficientStore
from skscatharm.store import contents
from skscatharm.transform.paths import scattering_paths

N_CHANNELS = 4
N_EXPONENTS = 4
PATHS = scattering_paths(J=4, L=3, max_order=2)  # 61, so 976 columns
BATCH = 32


class Segments:
    """Files of the package."""

    name = "segments"

    def __init__(self, folder: Path) -> None:
        self.store = CoefficientStore(folder)

    def write(self, keys, values) -> None:
        self.store.write(keys, PATHS, range(N_EXPONENTS), values, {})

    def close(self) -> None:
        contents._contents.clear()

    def read(self, keys):
        return self.store.read(keys, PATHS, range(N_EXPONENTS), {})


class Sqlite:
    """One database, one row for each density, with a checksum."""

    journal = "delete"
    name = "SQLite, rollback journal"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "database"
        self.connection = sqlite3.connect(self.file)
        self.connection.execute("pragma page_size = 16384")
        self.connection.execute(f"pragma journal_mode = {self.journal}")
        self.connection.execute(
            "create table if not exists coefficients "
            "(key blob primary key, data blob, checksum blob) without rowid"
        )

    def write(self, keys, values) -> None:
        with self.connection:
            self.connection.executemany(
                "insert or ignore into coefficients values (?, ?, ?)",
                (
                    (key.tobytes(), data := value.tobytes(), checksum(data))
                    for key, value in zip(
                        keys.ravel(), values.reshape(keys.size, -1), strict=True
                    )
                ),
            )

    def close(self) -> None:
        self.connection.close()

    def read(self, keys):
        self.__init__(self.file.parent)
        values = np.full((keys.size, len(PATHS), N_EXPONENTS), np.nan)
        for value, key in zip(values, keys.ravel(), strict=True):
            ((data, digest),) = self.connection.execute(
                "select data, checksum from coefficients where key = ?",
                (key.tobytes(),),
            )
            assert checksum(data) == digest
            value[:] = np.frombuffer(data).reshape(value.shape)
        return values.reshape(*keys.shape, *values.shape[1:])


class SqliteWal(Sqlite):
    journal = "wal"
    name = "SQLite, write-ahead log"


class Parquet:
    """A file for each batch, with checksums of its pages."""

    name = "Parquet files"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n = 0

    def write(self, keys, values) -> None:
        n = keys.size
        arrays = [
            pa.array([key.tobytes() for key in keys.ravel()], pa.binary(16)),
            pa.FixedSizeListArray.from_arrays(values.ravel(), values.size // n),
        ]
        pq.write_table(
            pa.table(arrays, ["key", "data"]),
            self.folder / f"{self.n}.parquet",
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
        )
        self.n += 1

    def close(self) -> None: ...

    def read(self, keys):
        wanted = pa.array([key.tobytes() for key in keys.ravel()], pa.binary(16))
        form = ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                page_checksum_verification=True
            )
        )
        table = ds.dataset(self.folder, format=form).to_table(
            filter=ds.field("key").isin(wanted)
        )
        data = table["data"].combine_chunks().flatten().to_numpy()
        rows = {key.as_py(): i for i, key in enumerate(table["key"])}
        order = [rows[key.tobytes()] for key in keys.ravel()]
        return data.reshape(len(rows), len(PATHS), N_EXPONENTS)[order].reshape(
            *keys.shape, len(PATHS), N_EXPONENTS
        )


def checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()


def batches(n_molecules: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random coefficients in batches, always the same."""
    rng = np.random.default_rng(0)
    for start in range(0, n_molecules, BATCH):
        n = min(BATCH, n_molecules - start)
        keys = np.frombuffer(rng.bytes(16 * n * N_CHANNELS), "V16")
        shape = (n, N_CHANNELS, len(PATHS), N_EXPONENTS)
        yield keys.reshape(n, N_CHANNELS), rng.random(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=20_000)
    parser.add_argument("--read", type=int, default=10_000)
    options = parser.parse_args()
    n_columns = N_CHANNELS * len(PATHS) * N_EXPONENTS
    print(
        f"{options.molecules} molecules, {n_columns} columns, {options.read} are read"
    )
    print("kind                       size (MB)  write (s)   read (s)")
    for kind in (Segments, Sqlite, SqliteWal, Parquet):
        with TemporaryDirectory() as name:
            folder = Path(name)
            backend, write, chosen = kind(folder), 0.0, []
            for keys, values in batches(options.molecules):
                start = perf_counter()
                backend.write(keys, values)
                write += perf_counter() - start
                chosen.append((keys, values[:, 0, 0, 0]))
            backend.close()
            size = sum(
                path.stat().st_size for path in folder.rglob("*") if path.is_file()
            )
            keys, expected = map(np.concatenate, zip(*chosen, strict=True))
            order = np.random.default_rng(1).permutation(len(keys))[: options.read]
            start = perf_counter()
            found = backend.read(keys[order])
            read = perf_counter() - start
            assert np.array_equal(found[:, 0, 0, 0], expected[order])
            print(f"{kind.name:25}  {size / 1e6:9.0f}  {write:9.1f}  {read:9.2f}")


if __name__ == "__main__":
    main()
