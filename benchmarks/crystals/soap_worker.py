"""Averaged SOAP descriptors of crystals by DScribe.

    python soap_worker.py train.xyz test.xyz output.npz

runs in an environment with DScribe and exchanges files with its caller. The output has
``train`` and ``test`` (n, n_features), the means over the atoms of each crystal, the
``seconds`` that the descriptors of a crystal took, and the version of DScribe.
"""

import sys
import time
from importlib.metadata import version

import ase.io
import numpy as np
from dscribe.descriptors import SOAP

# As in the worker of GAP. DScribe has another radial basis.
SETTING = {"r_cut": 5.0, "n_max": 8, "l_max": 8, "sigma": 0.5}


def main(train: str, test: str, target: str) -> None:
    """Describe the frames of two files."""
    frames = {"train": ase.io.read(train, ":"), "test": ase.io.read(test, ":")}
    species = sorted({s for atoms in frames["train"] for s in atoms.symbols})
    soap = SOAP(species=species, periodic=True, **SETTING)
    means, seconds = {}, []
    for name, part in frames.items():
        means[name] = []
        for atoms in part:
            begin = time.perf_counter()
            means[name].append(soap.create(atoms).mean(axis=0))
            seconds.append(time.perf_counter() - begin)
    np.savez(
        target,
        **means,
        step_seconds=np.median(seconds),
        setting=str(SETTING),
        version=version("dscribe"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
