"""SOAP descriptors of molecules by DScribe, and kernels between the molecules.

    python dscribe_worker.py input.npz output.npz

runs in an environment with DScribe (see ``dscribe_requirements.txt``) and exchanges
arrays with whoever calls it by files. The input holds

``molecules``
    (n, n_atoms, 4): nuclear charge, x, y, z (Å) of each atom; rows of zeros pad.
``r_cut``, ``n_max``, ``l_max``, ``sigma``
    the descriptor, by DScribe's names: each atom has one, of its surroundings.
``zeta``
    the powers of the kernels; none to leave them out.

The output holds ``features`` (n, n_features), the sums over the atoms of a molecule;
``kernels`` (zeta, n, n), the sums over pairs of atoms of one element, one in each
molecule, of the cosine between their descriptors to the power zeta; the ``seconds``
that the descriptors of each molecule took, and the version of DScribe.
"""

import sys
import time
from importlib.metadata import version

import numpy as np
from ase import Atoms
from dscribe.descriptors import SOAP

ROWS = 1000  # atoms that are compared with all others at once


def descriptors(
    molecules: np.ndarray, **parameters: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Descriptors (n_atoms, n_features) of the atoms of each molecule, and seconds."""
    atoms = [Atoms(m[:, 0], m[:, 1:]) for m in (m[m[:, 0] > 0] for m in molecules)]
    # Zero is the charge of padding.
    species = np.unique(molecules[..., 0])[1:].astype(int).tolist()
    soap = SOAP(species=species, **parameters)
    soap.create(atoms[0])
    found, seconds = [], []
    for molecule in atoms:
        start = time.perf_counter()
        found.append(soap.create(molecule))
        seconds.append(time.perf_counter() - start)
    return found, np.array(seconds)


def kernels(
    found: list[np.ndarray], molecules: np.ndarray, zeta: np.ndarray
) -> np.ndarray:
    """Sums over pairs of atoms of one element of their cosines to the powers zeta."""
    elements = molecules[..., 0][molecules[..., 0] > 0]
    owners = np.repeat(np.arange(len(found)), [len(f) for f in found])
    rows = np.concatenate([f.astype(np.float32) for f in found])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result = np.zeros((len(zeta), len(found), len(found)))
    for element in np.unique(elements):
        own, owner = rows[elements == element], owners[elements == element]
        columns, starts = np.unique(owner, return_index=True)
        for block in np.array_split(np.arange(len(own)), -(-len(own) // ROWS)):
            cosines = own[block] @ own.T
            for kernel, power in zip(result, zeta, strict=True):
                sums = np.add.reduceat(cosines**power, starts, axis=1)
                np.add.at(kernel, np.ix_(owner[block], columns), sums)
    return result


def main(source: str, target: str) -> None:
    """Read a file of molecules, write a file of features and kernels."""
    with np.load(source) as file:
        arguments = {name: file[name] for name in file.files}
    molecules, zeta = arguments.pop("molecules"), arguments.pop("zeta")
    parameters = {name: value.item() for name, value in arguments.items()}
    found, seconds = descriptors(molecules, **parameters)
    np.savez(
        target,
        features=np.array([f.sum(axis=0) for f in found]),
        kernels=kernels(found, molecules, zeta) if len(zeta) else [],
        seconds=seconds,
        version=version("dscribe"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
