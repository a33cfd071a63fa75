"""CPU times of the coefficients of crystals, by the size of the cell.

    python benchmarks/crystals/times.py

runs in an environment with the package and ASE, and takes about two minutes. Each cell
is a supercell of a perfect crystal whose atoms are displaced at random (0.05 Å), so
that it is primitive. The table of CPU times of one thread, the fastest of three, and of
the memory of the process so far goes into ``doc/measured/crystals_times.csv``.
"""

import csv
import os
import resource

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

from pathlib import Path  # noqa: E402
from time import process_time  # noqa: E402

from ase import Atoms  # noqa: E402
from ase.build import bulk  # noqa: E402

from skscatharm import SolidHarmonicScattering  # noqa: E402

TABLE = Path(__file__).resolve().parents[2] / "doc" / "measured" / "crystals_times.csv"
UNITS = {
    "Si": bulk("Si", cubic=True),
    "NaCl": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
}
CELLS = (("Si", 2), ("NaCl", 2), ("Si", 4))
TRANSFORMERS = {
    "default": SolidHarmonicScattering(),
    "mixed_moments=False": SolidHarmonicScattering(mixed_moments=False),
}
N_RUNS = 3


def seconds(transformer: SolidHarmonicScattering, crystal: Atoms) -> float:
    """CPU time of a transform, the fastest of a few."""
    transformer.fit_transform([bulk("Si")])  # compiles
    times = []
    for _ in range(N_RUNS):
        start = process_time()
        transformer.transform([crystal])
        times.append(process_time() - start)
    return min(times)


def main() -> None:
    header = ["Crystal", "Atoms", *(f"{name} (s)" for name in TRANSFORMERS)]
    rows = [[*header, "Memory (MB)"]]
    for name, n in CELLS:
        crystal = UNITS[name] * (n, n, n)
        crystal.rattle(0.05, seed=0)
        found = [f"{seconds(t, crystal):.1f}" for t in TRANSFORMERS.values()]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        rows.append([name, str(len(crystal)), *found, str(memory)])
        print(*rows[-1], flush=True)
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
