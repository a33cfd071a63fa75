"""Solid harmonic scattering of molecules by kymatio, in skscatharm's units.

    python kymatio_worker.py input.npz output.npz

runs in an environment with kymatio and PyTorch (see ``kymatio_requirements.txt``) and
exchanges arrays with whoever calls it by files. The input holds

``molecules``
    (n, n_atoms, 4): nuclear charge, x, y, z (Å) of each atom; rows of zeros pad.
``weights``
    (K, Z_max + 1): the weight of an atom in each channel, by nuclear charge.
``J``, ``L``, ``Q``, ``sigma``
    the transform: largest scale and degree, powers, width of an atom (Å).
``step``, ``gap``
    the grid: its step, and the empty space between a molecule and its periodic
    images, both in units of sigma. One grid serves all molecules of a file, as
    kymatio computes its wavelets once for each shape.
``dtype``, ``threads``
    "float32" (kymatio's habit) or "float64", and PyTorch's threads.

The output holds ``order0`` (n, K, Q), ``order1`` (n, K, J+1, L+1, Q), ``order2``
(n, K, pairs, L+1, Q), ``pairs``, the ``seconds`` that each molecule took, the
``setup_seconds`` for the wavelets, the ``shape`` of the grid, and the version of
kymatio.
"""

import sys
import time
from itertools import combinations

import kymatio
import numpy as np
import torch
from kymatio.scattering3d.backend.torch_backend import TorchBackend3D
from kymatio.scattering3d.utils import generate_weighted_sum_of_gaussians
from kymatio.torch import HarmonicScattering3D


def fast_length(n: int) -> int:
    """The least even number >= n that has no prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and n % 2 == 0:
            return n
        n += 1


def centred(positions: np.ndarray) -> np.ndarray:
    """Move the middle of a molecule near the origin, by whole grid steps.

    Positions are in grid steps: the place of the atoms between the grid points
    is the caller's choice, and stays.
    """
    return positions - np.rint((positions.min(0) + positions.max(0)) / 2)


def scattering(
    molecules: np.ndarray,
    weights: np.ndarray,
    *,
    J: int,
    L: int,
    Q: np.ndarray,
    sigma: float,
    step: float,
    gap: float,
    dtype: str = "float64",
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Coefficients of molecules, in Å; see the module for arguments and result."""
    torch.set_num_threads(threads)
    # kymatio allocates its wavelets and its integrals in the default precision.
    # (The wavelets' values are rounded to float32 when computed, whatever we do.)
    torch.set_default_dtype(getattr(torch, dtype))

    # kymatio's grid has step 1, so lengths go in as multiples of our step h.
    h = step * sigma
    atoms = [molecule[molecule[:, 0] > 0] for molecule in molecules]
    charges = [a[:, 0].astype(int) for a in atoms]
    positions = [centred(a[:, 1:] / h) for a in atoms]
    extent = np.max([np.ptp(p, axis=0) for p in positions], axis=0)
    shape = [fast_length(int(np.ceil(e + gap / step))) for e in extent]
    grid = np.mgrid[tuple(slice(-n // 2, -n // 2 + n) for n in shape)].astype(dtype)

    start = time.perf_counter()
    transform = HarmonicScattering3D(
        J=J, shape=shape, L=L, sigma_0=1 / step, integral_powers=list(Q)
    )
    setup_seconds = time.perf_counter() - start

    order0, order12, seconds = [], [], []
    for charge, position in zip(charges, positions, strict=True):
        start = time.perf_counter()
        for weight in weights[:, charge]:
            # kymatio takes a weight of zero for the end of the molecule, but
            # hydrogen weighs nothing in the core channel: leave such atoms out.
            there = weight != 0
            density = torch.from_numpy(
                generate_weighted_sum_of_gaussians(
                    grid, position[None, there], weight[None, there], 1 / step
                ).astype(dtype)
            )
            with torch.no_grad():
                order12.append(transform(density)[0].numpy())
            order0.append(TorchBackend3D.compute_integrals(density, Q)[0].numpy())
        seconds.append(time.perf_counter() - start)

    # With unit step, densities and fields (charge / length^3) come out h^3 times
    # ours; summing their q-th powers over points h^3 apart rather than
    # integrating divides by h^3: kymatio's numbers are h^(3q - 3) times ours.
    # Nothing else differs. Its wavelets are of scale sigma 2^j, and normalised
    # like ours: the integral of their modulus, summed over m, is one.
    units = h ** (3 - 3 * Q)
    n, K = len(molecules), len(weights)
    order12 = np.reshape(order12, (n, K, -1, L + 1, len(Q))) * units
    return {
        "order0": np.reshape(order0, (n, K, len(Q))) * units,
        "order1": order12[:, :, : J + 1],
        # Order 2 follows: j1 < j2, in the order of two nested loops.
        "order2": order12[:, :, J + 1 :],
        "pairs": np.array(list(combinations(range(J + 1), 2))),
        "seconds": np.array(seconds),
        "setup_seconds": np.array(setup_seconds),
        "shape": np.array(shape),
        "version": np.array(kymatio.__version__),
    }


def main(source: str, target: str) -> None:
    """Read a file of molecules, write a file of coefficients."""
    with np.load(source) as file:
        arguments = {name: file[name] for name in file.files}
    scalars = {k: v.item() for k, v in arguments.items() if v.ndim == 0}
    np.savez(target, **scattering(**{**arguments, **scalars}))


if __name__ == "__main__":
    main(*sys.argv[1:])
