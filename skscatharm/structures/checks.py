"""Checks of charges and positions; errors name the molecule."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from skscatharm.structures.elements import N_ELEMENTS
from skscatharm.structures.readers import AtomTable

__all__ = ["check_atoms"]

#: The least distance of two atoms, in Å. Potential curves of H2 begin at 0.2 Å, and the
#: shortest bonds between other elements, if in nm, are below 0.15.
_CLOSEST = 0.15
#: The largest extent of a molecule along an axis, in Å: ten times that of a virus. The
#: time to compute a molecule grows with its extent.
_WIDEST = 1e4
#: The largest coordinate, in Å. Double precision resolves 1e-10 Å there.
_FARTHEST = 1e6


def check_atoms(atoms: AtomTable) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check charges and positions.

    Parameters
    ----------
    atoms : AtomTable

    Returns
    -------
    distances : ndarray of shape (n_atoms_in_total,)
        Distance of each atom from the nearest other one of its molecule; infinite for
        a single atom.
    neighbours : ndarray of shape (n_atoms_in_total,)
        Row of that other atom; meaningless for a single atom.

    Raises
    ------
    ValueError
        If a molecule has no atoms, a NaN or infinite coordinate, a charge that is no
        element, coordinates or an extent that are too large, or atoms that are too
        close.
    """
    charges, positions = atoms.charges, atoms.positions
    molecules, starts = atoms.molecules, atoms.starts

    def name(row: int) -> str:
        return f"Molecule {molecules[row]}, atom {row - starts[molecules[row]]}"

    empty = np.flatnonzero(atoms.n_atoms == 0)
    if len(empty):
        raise ValueError(f"Molecule {empty[0]} has no atoms; leave it out.")

    infinite = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(infinite):
        row = infinite[0]
        raise ValueError(
            f"{name(row)} has NaN or infinite coordinates {positions[row].tolist()}; "
            "give it a position or leave the molecule out."
        )

    is_element = (
        (charges == np.rint(charges)) & (charges >= 1) & (charges <= N_ELEMENTS)
    )
    if not is_element.all():
        row = np.flatnonzero(~is_element)[0]
        raise ValueError(
            f"{name(row)} has the charge {charges[row]:g}, which is no element: "
            f"nuclear charges are integers from 1 to {N_ELEMENTS}. Are the columns Z, "
            "x, y, z? A row of padding holds zeros only."
        )

    far = np.flatnonzero((np.abs(positions) > _FARTHEST).any(axis=1))
    if len(far):
        row = far[0]
        raise ValueError(
            f"{name(row)} has coordinates {positions[row].tolist()} beyond "
            f"{_FARTHEST:g} Å. Are they in Å? If so, move the molecule to the origin."
        )
    extents = np.maximum.reduceat(positions, starts) - np.minimum.reduceat(
        positions, starts
    )
    wide = np.flatnonzero((extents > _WIDEST).any(axis=1))
    if len(wide):
        raise ValueError(
            f"Molecule {wide[0]} extends over {extents[wide[0]].max():.6g} Å (at most "
            f"{_WIDEST:g} Å are allowed). Are the coordinates in Å, not in pm, and do "
            "all atoms belong to one molecule?"
        )

    distances, neighbours = _nearest(positions, molecules)
    close = np.flatnonzero(distances < _CLOSEST)
    if len(close):
        row = close[0]
        raise ValueError(
            f"{name(row)} and atom {neighbours[row] - starts[molecules[row]]} are only "
            f"{_below(distances[row], _CLOSEST)} Å apart (the least allowed is "
            f"{_CLOSEST} Å). Are the coordinates in Å, not in nm, and is no atom given "
            "twice?"
        )
    return distances, neighbours


def _nearest(
    positions: NDArray[np.float64], molecules: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the nearest other atom of the same molecule."""
    # One tree for all molecules is linear in memory and time. A fourth coordinate keeps
    # them apart, by more than the largest distance within one.
    largest = 2 * _WIDEST
    points = np.column_stack([positions, 2 * largest * molecules])
    distances, neighbours = map(
        np.asarray, KDTree(points).query(points, k=2, distance_upper_bound=largest)
    )
    # Of two atoms at one place, either may be listed first.
    is_itself = neighbours[:, 1] == np.arange(len(points))
    return distances[:, 1], np.where(is_itself, neighbours[:, 0], neighbours[:, 1])


def _below(value: float, limit: float) -> str:
    """Format a number with as many digits as show that it is below a limit."""
    texts = (f"{value:.{digits}g}" for digits in range(5, 18))
    return next(text for text in texts if float(text) < limit)
