"""Partial charges of the atoms of molecules of QM9."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skscatharm.datasets._qm9 import _DATA, load_qm9_sample

_N_MOLECULES = 500


def load_qm9_charges(*, return_X_y: bool = False) -> Any:
    """Load 500 molecules of QM9 with the partial charges of their atoms.

    The molecules are the first ones of :func:`load_qm9_sample`. The charges are the
    Mulliken charges of GFN2-xTB [1]_, a fast approximation of electronic structure:
    the nuclear charge and the core electrons, minus the valence electrons that the
    basis functions of an atom hold. They add up to zero in each molecule.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes:

        data : ndarray of shape (500, 27, 4)
            Molecules in random order, with columns Z, x, y, z. Positions are in Å. Rows
            of zeros are padding.
        target : ndarray of shape (9006,)
            Charges of the atoms of all molecules in units of e, in the order of the
            rows of :class:`~skscatharm.LocalScattering`: first the atoms of the first
            molecule, then those of the next.
        molecule_ids : ndarray of shape (9006,)
            Index of the molecule of each atom.
        atomic_numbers : ndarray of shape (9006,)
            Nuclear charge of each atom.
        DESCR : str
            Description of the data and their sources.

    (data, target) : tuple, if ``return_X_y=True``
        The molecules and the charges of their atoms.

    See Also
    --------
    skscatharm.LocalScattering : Coefficients of atoms.
    load_qm9_sample : More molecules, with properties of each.

    References
    ----------
    .. [1] C. Bannwarth, S. Ehlert, S. Grimme, "GFN2-xTB - an accurate and broadly
       parametrized self-consistent tight-binding quantum chemical method with multipole
       electrostatics and density-dependent dispersion contributions", Journal of
       Chemical Theory and Computation 15, 1652-1671 (2019).
       https://doi.org/10.1021/acs.jctc.8b01176

    Examples
    --------
    >>> from skscatharm.datasets import load_qm9_charges
    >>> molecules = load_qm9_charges()
    >>> molecules.data.shape, molecules.target.shape
    ((500, 27, 4), (9006,))
    """
    data = load_qm9_sample(return_X_y=True)[0][:_N_MOLECULES]
    with (_DATA / "qm9_charges.npz").open("rb") as file:
        target = np.load(file, allow_pickle=False)["charges"] / 1e5
    if return_X_y:
        return data, target
    occupied = data[..., 0] > 0
    return Bunch(
        data=data,
        target=target,
        molecule_ids=np.nonzero(occupied)[0],
        atomic_numbers=data[occupied, 0].astype(np.int64),
        DESCR="".join(
            (_DATA / name).read_text(encoding="utf-8")
            for name in ("qm9_charges.rst", "qm9_common.rst")
        ),
    )
