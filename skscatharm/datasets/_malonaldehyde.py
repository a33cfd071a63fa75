"""Malonaldehyde: 300 frames of molecular dynamics with energies and forces."""

from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.utils import Bunch

_DATA = files("skscatharm.datasets") / "data"


def load_malonaldehyde_forces(*, as_atoms: bool = False) -> Bunch:
    """Load 300 frames of malonaldehyde with energies and forces.

    The frames come from molecular dynamics of one molecule at 500 K. Energies and
    forces are those of GFN2-xTB [1]_, a fast approximation of electronic structure, and
    not of density functional theory.

    Malonaldehyde, C3H4O2, is a small molecule with an interesting motion: the hydrogen
    atom between the two oxygen atoms goes from one to the other. Both sides have the
    same energy. The barrier between them is 0.16 eV, and the hydrogen atom changes
    sides 35 times from one frame to the next.

    Parameters
    ----------
    as_atoms : bool, default=False
        Return the frames as `ase.Atoms` with a calculator that holds the energy and
        the forces, as `ase.io.read` returns them. Requires ASE.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes:

        data : ndarray of shape (300, 9, 4), or list of `ase.Atoms`
            Frames in the order of time, 0.5 ps apart, with columns Z, x, y, z.
            Positions are in Å, relative to the centre of the atoms. Each frame has the
            same atoms in the same order. Energies of successive frames are independent,
            but the hydrogen atom stays on one side for some frames: shuffle the frames
            before a split.
        energies : ndarray of shape (300,)
            Total energies in eV. Their zero is that of GFN2-xTB.
        forces : ndarray of shape (300, 9, 3)
            Forces on the atoms in eV/Å.
        DESCR : str
            Description of the data and their sources.

    Raises
    ------
    ModuleNotFoundError
        If `as_atoms` is True and ASE is not installed.

    See Also
    --------
    load_qm9_sample : Many molecules, with properties of each.

    References
    ----------
    .. [1] C. Bannwarth, S. Ehlert, S. Grimme, "GFN2-xTB - an accurate and broadly
       parametrized self-consistent tight-binding quantum chemical method with multipole
       electrostatics and density-dependent dispersion contributions", Journal of
       Chemical Theory and Computation 15, 1652-1671 (2019).
       https://doi.org/10.1021/acs.jctc.8b01176

    Examples
    --------
    >>> from skscatharm.datasets import load_malonaldehyde_forces
    >>> frames = load_malonaldehyde_forces()
    >>> frames.data.shape, frames.energies.shape, frames.forces.shape
    ((300, 9, 4), (300,), (300, 9, 3))
    """
    with (_DATA / "malonaldehyde.npz").open("rb") as file:
        packed = np.load(file, allow_pickle=False)
        charges, energies = packed["charges"], packed["energies"]
        positions, forces = packed["positions"] / 1e5, packed["forces"] / 1e6
    return Bunch(
        data=_as_atoms(charges, positions, energies, forces)
        if as_atoms
        else np.dstack([np.broadcast_to(charges, positions.shape[:2]), positions]),
        energies=energies,
        forces=forces,
        DESCR=(_DATA / "malonaldehyde.rst").read_text(encoding="utf-8"),
    )


def _as_atoms(charges: Any, positions: Any, energies: Any, forces: Any) -> list[Any]:
    try:
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
    except ImportError as error:
        raise ModuleNotFoundError(
            "as_atoms=True requires ASE: pip install ase.", name="ase"
        ) from error
    frames = [Atoms(charges, frame) for frame in positions]
    for atoms, energy, force in zip(frames, energies, forces, strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=force)
    return frames
