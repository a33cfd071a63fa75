"""Scattering of images by kymatio.

    python kymatio_images_worker.py input.npz output.npz

runs in an environment with kymatio and PyTorch (see ``kymatio_requirements.txt``) and
exchanges arrays with its caller by files. The input holds ``images`` of shape (n,
height, width), ``J``, ``L``, ``max_order`` and ``threads``, the threads of PyTorch. The
output holds ``coefficients`` of shape (n, n_paths, height', width') in float32, and the
``seconds`` that they took, without the time for the filters.
"""

import sys
from time import perf_counter

import numpy as np
import torch
from kymatio.torch import Scattering2D

BATCH = 128  # images; kymatio is slower with many more or fewer


def main(source: str, target: str) -> None:
    with np.load(source) as file:
        images = torch.from_numpy(file["images"].astype(np.float32))
        J, L, max_order, threads = (
            int(file[name]) for name in ("J", "L", "max_order", "threads")
        )
    torch.set_num_threads(threads)
    scattering = Scattering2D(J, tuple(images.shape[1:]), L=L, max_order=max_order)
    scattering(images[:8])
    start = perf_counter()
    coefficients = torch.cat([scattering(part) for part in images.split(BATCH)])
    seconds = perf_counter() - start
    np.savez(target, coefficients=coefficients.numpy(), seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
