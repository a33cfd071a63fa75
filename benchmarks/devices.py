"""Molecules of QM9 per second on the CPU and on a device.

    python benchmarks/devices.py FILE.csv

runs in an environment with the package, and with CuPy or PyTorch and a GPU. The table
goes into ``doc/measured/devices.csv``. It measures three settings with both engines and
precisions, on each array library that finds a device, and with NumPy on one core and on
all. The first call compiles and is not measured. Each row is written when it is
known, with the largest difference of a coefficient from those of the separable engine
on the CPU. Molecules are those of the sample, repeated.
"""

import argparse
import csv
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
from joblib import cpu_count

from skscatharm import SETTINGS, SolidHarmonicScattering
from skscatharm.datasets import load_qm9_sample

N_COMPARED = 64
QM9 = 130_831
CHOSEN = ("mixed", "soft", "published")  # settings
FIELDS = (
    "library",
    "device",
    "engine",
    "setting",
    "dtype",
    "molecules",
    "molecules/s",
    "minutes for QM9",
    "difference",
    "GB",
)


class Device:
    """A device of CuPy or PyTorch."""

    def __init__(self, library: str) -> None:
        self.library = library
        if library == "cupy":
            import cupy

            if not cupy.cuda.is_available():
                raise RuntimeError("CuPy finds no device")
            self._pool = cupy.get_default_memory_pool()
            name = cupy.cuda.runtime.getDeviceProperties(0)["name"]
            self.name = name.decode() if isinstance(name, bytes) else name
        else:
            import torch

            self.name = torch.cuda.get_device_name()
            self._torch = torch.cuda

    def reset(self) -> None:
        """Forget the memory that was needed so far."""
        if self.library == "cupy":
            self._pool.free_all_blocks()
        else:
            self._torch.empty_cache()
            self._torch.reset_peak_memory_stats()

    def peak(self) -> float:
        """Return the bytes that were needed."""
        if self.library == "cupy":
            return self._pool.total_bytes()
        return self._torch.max_memory_reserved()


def devices() -> list[Device]:
    found = []
    for library in ("cupy", "torch"):
        try:
            found.append(Device(library))
        except Exception as error:
            print(f"{library}: {error}")
    return found


def seconds(transformer: SolidHarmonicScattering, X: np.ndarray) -> float:
    start = perf_counter()
    transformer.transform(X)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--molecules", type=int, default=32768, help="with CuPy")
    parser.add_argument("--torch", type=int, default=8192, help="with PyTorch")
    parser.add_argument("--fourier", type=int, default=512, help="with FFTs")
    parser.add_argument("--cpu", type=int, default=512, help="on all cores of the CPU")
    arguments = parser.parse_args()
    sample = load_qm9_sample().data
    most = max(arguments.molecules, arguments.torch)
    X = np.concatenate([sample] * -(-most // len(sample)))[:most]

    with arguments.file.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()

        def write(library, device, engine, setting, dtype, n, time, found, peak=0.0):
            difference = np.abs(found / expected[setting, "float64"] - 1).max()
            row = (
                library,
                device,
                engine,
                setting,
                dtype,
                n,
                f"{n / time:.4g}",
                f"{QM9 * time / n / 60:.3g}",
                f"{difference:.2g}",
                f"{peak / 1e9:.3g}",
            )
            table.writerow(dict(zip(FIELDS, row, strict=True)))
            file.flush()
            print(*row, flush=True)

        expected = {}
        for setting, dtype in product(CHOSEN, ("float64", "float32")):
            cpu = SolidHarmonicScattering(
                **SETTINGS[setting], dtype=dtype, backend="numpy", n_jobs=-1
            )
            expected[setting, dtype] = cpu.transform(X[:N_COMPARED])
            if arguments.cpu:
                n = arguments.cpu
                found = expected[setting, dtype]
                for n_jobs, part in ((1, n // cpu_count()), (-1, n)):
                    cores = 1 if n_jobs == 1 else cpu_count()
                    name = f"{cores} core" + "s" * (cores > 1)
                    time = seconds(cpu.set_params(n_jobs=n_jobs), X[:part])
                    write("numpy", name, "separable", setting, dtype, part, time, found)
        for device, engine, setting, dtype in product(
            devices(), ("separable", "fourier"), CHOSEN, ("float32", "float64")
        ):
            sizes = {"cupy": arguments.molecules, "torch": arguments.torch}
            n = arguments.fourier if engine == "fourier" else sizes[device.library]
            if not n:
                continue
            transformer = SolidHarmonicScattering(
                **SETTINGS[setting], dtype=dtype, engine=engine, backend=device.library
            )
            found = transformer.transform(X[:N_COMPARED])
            device.reset()
            time = seconds(transformer, X[:n])
            write(
                device.library,
                device.name,
                engine,
                setting,
                dtype,
                n,
                time,
                found,
                device.peak(),
            )


if __name__ == "__main__":
    main()
