"""Operations and bytes of the Fourier engine per QM9 molecule, and what they allow.

Run ``python benchmarks/operations.py`` in an environment with the package. It counts,
and measures nothing: the boxes are those that the engine makes for molecules of the
sample, and each step is counted as arrays are read and written once for each operation
of the array library. A device needs at least the time of its memory for the bytes, and
that of its arithmetic for the operations, whichever is longer, step by step.
"""

from collections import defaultdict
from math import log2, prod
from unittest import mock

import numpy as np

from skscatharm.datasets import load_qm9_sample
from skscatharm.engine import fourier, scattering_batch
from skscatharm.engine.arrays import Library
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import Path, scattering_paths

N_MOLECULES = 512
CHANNELS = ("nuclear", "valence", "core", "bonding")
PATHS = scattering_paths(J=2, L=3, max_order=2)
SIGMA, TOL, SOFTENING = 0.22, 2e-4, 0.0
# Published by the vendor: bytes/s, operations/s in double and in single precision.
DEVICES = {
    "NVIDIA A100 80 GB": (2.04e12, 9.7e12, 19.5e12),
    "NVIDIA H100 SXM": (3.35e12, 34e12, 67e12),
    "NVIDIA RTX 4090": (1.01e12, 1.29e12, 82.6e12),
}


def count(extent, n_atoms: int, itemsize: int) -> dict[str, np.ndarray]:
    """Count operations and bytes of each step for a molecule."""
    steps = defaultdict(lambda: np.zeros(2))
    n_channels = len(CHANNELS)

    def add(step, operations, values):
        steps[step] += n_channels * np.array([operations, values * itemsize])

    def shape(path):
        return fourier._shape(extent, path, SIGMA, TOL, SOFTENING)

    for path in PATHS:
        x, y, z = shape(path)
        k = z // 2 + 1
        n_points, n_complex = x * y * z, x * y * k
        if len(path.scales) < 2:
            # A complex product and a sum for each atom; the result is written.
            add("spectra of the atoms", 8 * n_atoms * n_complex, 2 * n_complex)
        else:
            a, b, c = shape(Path(path.scales[:1], path.degree))
            # One axis after another: real times complex, and twice complex.
            operations = 4 * a * b * c * k + 8 * a * b * k * y + 8 * a * k * y * x
            values = a * b * c + 4 * a * b * k + 4 * a * k * y + 2 * n_complex
            add("spectra of the moduli", operations, values)
        orders = 2 * path.degree + 1
        add("times the wavelets", orders * 2 * n_complex, orders * 4 * n_complex)
        # An inverse FFT is a pass along each axis, over about as many values.
        operations = 2.5 * n_points * log2(n_points)
        add("FFTs", orders * operations, orders * 6 * n_points)
        add("moduli", orders * 2 * n_points, orders * 5 * n_points)
        # The mask and the root; three powers that are to be made, and four sums.
        add("integrals", 9 * n_points, 4 * n_points + (2 + 3 + 4) * n_points)
    return steps


def padding(structures, weights) -> float:
    """Compare the points of boxes that molecules share with those of their own."""
    extents = np.stack([fourier.extent(s.positions) for s in structures])

    def n_points(extent):
        return sum(
            (2 * path.degree + 1)
            * prod(fourier._shape(extent, path, SIGMA, TOL, SOFTENING))
            for path in PATHS
        )

    shared = 0

    def scattering(positions, *args, **options):
        nonlocal shared
        batch = np.stack([fourier.extent(r) for r in positions])
        shared += len(batch) * n_points(batch.max(axis=0))
        return 0

    with (
        mock.patch.object(fourier, "scattering", scattering),
        mock.patch.object(Library, "free_memory", return_value=2**40),
    ):
        scattering_batch(
            structures,
            weights,
            PATHS,
            engine="fourier",
            library=Library("numpy", "a device"),
            dtype="float32",
            Q=(0.5, 1, 2, 3),
            sigma=SIGMA,
            tol=TOL,
            softening=SOFTENING,
        )
    return shared / sum(map(n_points, extents))


def main() -> None:
    structures = check_structures(load_qm9_sample().data[:N_MOLECULES])
    weights = channel_weights(resolve_channels(CHANNELS), structures)
    shared = padding(structures, weights)
    print(f"Points in shared boxes: {shared:.2f} times those in boxes of their own")

    for column, (name, itemsize) in enumerate({"double": 8, "single": 4}.items()):
        total = defaultdict(lambda: np.zeros(2))
        for structure in structures:
            extent = fourier.extent(structure.positions)
            for step, counts in count(extent, len(structure.charges), itemsize).items():
                total[step] += shared * counts / N_MOLECULES
        print(f"\n{name} precision      10^9 operations  10^9 bytes")
        for step, (operations, n_bytes) in total.items():
            print(f"{step:22s}  {operations / 1e9:14.2f}  {n_bytes / 1e9:10.2f}")
        operations, n_bytes = sum(total.values())
        print(f"{'all':22s}  {operations / 1e9:14.2f}  {n_bytes / 1e9:10.2f}")
        for device, (bandwidth, *peaks) in DEVICES.items():
            peak = peaks[column]
            seconds = sum(
                max(n_bytes / bandwidth, operations / peak)
                for operations, n_bytes in total.values()
            )
            print(
                f"{device} ({bandwidth / 1e12:.2f} TB/s, {peak / 1e12:.1f} Tflop/s): "
                f"{1e3 * seconds:.1f} ms per molecule"
            )


if __name__ == "__main__":
    main()
