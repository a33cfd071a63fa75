"""Up to a million small molecules, through chunks, dask workers and Parquet files.

    python benchmarks/scale.py FOLDER --molecules 10000 100000 1000000

runs in an environment with the package, dask[distributed], pandas and pyarrow, on a
system with process groups. The molecules are those of the sample of QM9, with their
atoms displaced at random by 0.05 Å along each axis. The coefficients are few (J = 1,
L = 1, two exponents, one channel), so what each molecule costs besides them shows. Each
worker transforms chunks of 5,000 molecules, and writes each to a file that gets its
name when it is complete.

Every run is killed with all its processes when half of its chunks are written, and
started again: it goes on with the chunks that are missing. The folder is emptied before
each run.

Each run adds its row to the table ``doc/measured/scale.csv``, with the rates after the
kill, without the start of the processes: molecules per second of CPU time of workers
and scheduler, and per second and worker. Other programs on the machine disturb the
latter.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL
from tempfile import mkdtemp
from time import monotonic, process_time, sleep

import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster, as_completed

from skscatharm import SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

TABLE = Path(__file__).resolve().parents[1] / "doc" / "measured" / "scale.csv"
HEADER = [
    "Molecules",
    "Workers",
    "After the kill",
    "Molecules per CPU second",
    "Molecules per second and worker",
]
CHUNK = 5000
DISPLACEMENT = 0.05  # Å


def molecules(chunk: int, n: int) -> np.ndarray:
    """Draw the molecules of a chunk, always the same ones."""
    rng = np.random.default_rng(chunk)
    sample = load_qm9_sample().data
    drawn = sample[rng.integers(len(sample), size=n)]
    moved = rng.normal(0, DISPLACEMENT, (*drawn.shape[:2], 3))
    drawn[..., 1:] += moved * (drawn[..., :1] > 0)
    return drawn


def transform_chunk(chunk: int, n: int, folder: Path) -> float:
    """Write the coefficients of a chunk, and return the CPU time."""
    start = process_time()
    scattering = SolidHarmonicScattering(
        1, 1, (1, 2), 0.8, channels=["nuclear"], tol=1e-3, mixed_moments=False
    )
    table = scattering.set_output(transform="pandas").transform(molecules(chunk, n))
    path = folder / f"{chunk:06}.parquet"
    unfinished = path.with_suffix(".unfinished")
    table.to_parquet(unfinished)
    unfinished.replace(path)
    return process_time() - start


def transform_all(n: int, n_workers: int, folder: Path) -> dict[str, float]:
    """Transform the chunks that are missing, with dask workers."""
    sizes = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
    missing = [
        i for i in range(len(sizes)) if not (folder / f"{i:06}.parquet").exists()
    ]
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1) as cluster,
        Client(cluster) as client,
    ):
        # Imports, and loops from the cache, are not measured.
        client.run(transform_chunk, 0, 3, Path(mkdtemp(dir=folder.parent)))
        start, cpu = monotonic(), process_time()
        futures = [client.submit(transform_chunk, i, sizes[i], folder) for i in missing]
        of_workers = sum(future.result() for future in as_completed(futures))
        return {
            "molecules": sum(sizes[i] for i in missing),
            "cpu": of_workers + process_time() - cpu,
            "seconds": monotonic() - start,
        }


def measure(n: int, n_workers: int, folder: Path) -> list[str]:
    """Transform, kill it half-way, go on, and return a row of the table."""
    shutil.rmtree(folder, ignore_errors=True)
    parquet = folder / "parquet"
    parquet.mkdir(parents=True)
    command = [sys.executable, __file__, str(folder), "--child", str(n), str(n_workers)]
    with subprocess.Popen(command, start_new_session=True) as child:
        while len(list(parquet.glob("*.parquet"))) < -(-n // CHUNK) // 2:
            if child.poll() is not None:
                sys.exit(f"failed: {command}")
            sleep(0.05)
        os.killpg(child.pid, SIGKILL)
    again = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = json.loads(again.stdout.splitlines()[-1])
    table = pd.read_parquet(parquet)
    assert len(table) == n
    assert np.isfinite(table.to_numpy()).all()
    return [
        f"{n:,}",
        str(n_workers),
        f"{found['molecules']:,}",
        f"{found['molecules'] / found['cpu']:.0f}",
        f"{found['molecules'] / found['seconds'] / n_workers:.0f}",
    ]


def write(row: list[str]) -> None:
    """Add a row to the table, or replace the one of the same run."""
    rows = {}
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            rows = {tuple(old[:2]): old for old in list(csv.reader(file))[1:]}
    rows[tuple(row[:2])] = row
    ordered = sorted(rows.values(), key=lambda r: (r[1], int(r[0].replace(",", ""))))
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *ordered])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--molecules", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        n, n_workers = options.child
        found = transform_all(n, n_workers, options.folder / "parquet")
        print(json.dumps(found))
        return
    for n in options.molecules:
        for n_workers in options.workers:
            row = measure(n, n_workers, options.folder)
            print(dict(zip(HEADER, row, strict=True)), flush=True)
            write(row)
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
