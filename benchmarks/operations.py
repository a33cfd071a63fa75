"""Operations and bytes of the Fourier engine per QM9 molecule, and what they allow.

Run ``python benchmarks/operations.py`` in an environment with the package. It counts,
and measures nothing: the boxes are those that the engine makes for molecules of the
sample, and each step is counted as arrays are read and written once for each operation
of the array library. A device needs at least the time of its memory for the bytes, and
that of its arithmetic for the operations, whichever is longer, step by step.
"""

from collections import defaultdict
from math import log2, prod

import numpy as np

from skscatharm import SETTINGS
from skscatharm.datasets import load_qm9_sample
from skscatharm.engine import fourier
from skscatharm.engine.arrays import Library
from skscatharm.engine.protocol import Atoms
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import Path, scattering_paths
from skscatharm.transform.transform import Transform

N_MOLECULES = 512
PUBLISHED = SETTINGS["published"]
SIGMA, CHANNELS = PUBLISHED["sigma"], PUBLISHED["channels"]
PATHS = scattering_paths(PUBLISHED["J"], PUBLISHED["L"], PUBLISHED["max_order"])
TRANSFORM = Transform(
    paths=tuple(PATHS),
    exponents=PUBLISHED["Q"],
    sigma=SIGMA,
    tol=PUBLISHED["tol"],
    softening=PUBLISHED["softening"],
    dtype="float32",
    engine="fourier",
)
# Published by the vendor: bytes/s, operations/s in double and in single precision.
DEVICES = {
    "NVIDIA A100 80 GB": (2.04e12, 9.7e12, 19.5e12),
    "NVIDIA H100 SXM": (3.35e12, 34e12, 67e12),
    "NVIDIA RTX 4090": (1.01e12, 1.29e12, 82.6e12),
}


class Device(Library):
    """A device with much memory, on which nothing is computed."""

    def free_memory(self) -> int:
        return 2**40


class BoxesOnly(fourier.FourierEngine):
    """The engine with a list of the boxes that it makes, in place of fields.

    Attributes
    ----------
    boxes : list of (job, half_lengths, n_molecules)
    """

    def __init__(self) -> None:
        super().__init__(TRANSFORM, Device("numpy", "a device"))
        self.boxes = []

    def _compute(self, job, frames, weights, part):
        half_lengths = np.max([frames[i].half_lengths for i in part], axis=0)
        self.boxes.append((job, half_lengths, len(part)))
        return np.zeros((len(part), len(PATHS), len(job.channels), len(job.exponents)))


def boxes(batch: list[Atoms]) -> list:
    """List the boxes of molecules that are computed together."""
    engine = BoxesOnly()
    engine.coefficients(batch)
    return engine.boxes


def shape(job, half_lengths, path) -> tuple[int, int, int]:
    """Return the number of points along each axis of a box."""
    return fourier._shape(half_lengths, path, SIGMA, job.accuracy, job.spacing)


def n_points(job, half_lengths) -> int:
    """Add up the points of all components of all fields."""
    return sum(
        (2 * path.degree + 1) * prod(shape(job, half_lengths, path)) for path in PATHS
    )


def count(job, half_lengths, n_atoms: int, itemsize: int) -> dict[str, np.ndarray]:
    """Count operations and bytes of each step for a molecule."""
    steps = defaultdict(lambda: np.zeros(2))

    def add(step, operations, values):
        steps[step] += len(CHANNELS) * np.array([operations, values * itemsize])

    for path in PATHS:
        x, y, z = shape(job, half_lengths, path)
        k = z // 2 + 1
        n_real, n_complex = x * y * z, x * y * k
        if len(path.scales) < 2:
            # A complex product and a sum for each atom; the result is written.
            add("spectra of the atoms", 8 * n_atoms * n_complex, 2 * n_complex)
        else:
            a, b, c = shape(job, half_lengths, Path(path.scales[:1], path.degree))
            # One axis after another: real times complex, and twice complex.
            operations = 4 * a * b * c * k + 8 * a * b * k * y + 8 * a * k * y * x
            values = a * b * c + 4 * a * b * k + 4 * a * k * y + 2 * n_complex
            add("spectra of the moduli", operations, values)
        orders = 2 * path.degree + 1
        add("times the wavelets", orders * 2 * n_complex, orders * 4 * n_complex)
        # An inverse FFT is a pass along each axis, over about as many values.
        operations = 2.5 * n_real * log2(n_real)
        add("FFTs", orders * operations, orders * 6 * n_real)
        add("moduli", orders * 2 * n_real, orders * 5 * n_real)
        # The mask and the root; three powers that are to be made, and four sums.
        add("integrals", 9 * n_real, 4 * n_real + (2 + 3 + 4) * n_real)
    return steps


def main() -> None:
    structures = check_structures(load_qm9_sample().data[:N_MOLECULES])
    weights = channel_weights(resolve_channels(CHANNELS), structures)
    batch = [
        Atoms(s.positions, s.charges, w)
        for s, w in zip(structures, weights, strict=True)
    ]
    alone = [boxes([atoms])[0] for atoms in batch]
    n_alone = sum(n_points(job, half_lengths) for job, half_lengths, _ in alone)
    n_shared = sum(n * n_points(job, lengths) for job, lengths, n in boxes(batch))
    shared = n_shared / n_alone
    print(f"Points in shared boxes: {shared:.2f} times those in boxes of their own")

    for column, (name, itemsize) in enumerate({"double": 8, "single": 4}.items()):
        total = defaultdict(lambda: np.zeros(2))
        for (job, half_lengths, _), atoms in zip(alone, batch, strict=True):
            steps = count(job, half_lengths, len(atoms.charges), itemsize)
            for step, counts in steps.items():
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
