"""Checks of charges, positions and cells; errors name the molecule."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from skscatharm.structures.cells import nearest_images, reduce_lattice, wrap
from skscatharm.structures.elements import N_ELEMENTS
from skscatharm.structures.readers import AtomTable

__all__ = ["check_atoms"]

#: The least distance of two atoms, in Å. Potential curves of H2 begin at 0.2 Å, and the
#: shortest bonds between other elements, if in nm, are below 0.15.
_CLOSEST = 0.15
#: The largest extent of a molecule along an axis, and the longest cell vector, in Å:
#: ten times a virus. The time to compute a molecule grows with its extent.
_WIDEST = 1e4
#: The largest coordinate, in Å. Double precision resolves 1e-10 Å there.
_FARTHEST = 1e6
#: The least volume of a cell, in units of the product of its vectors' lengths.
_FLATTEST = 1e-6


def check_atoms(atoms: AtomTable) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check charges, positions and cells.

    Parameters
    ----------
    atoms : AtomTable

    Returns
    -------
    distances : ndarray of shape (n_atoms_in_total,)
        Distance of each atom from the nearest other one of its molecule; infinite for
        a single atom. In a periodic structure, images are other atoms.
    neighbours : ndarray of shape (n_atoms_in_total,)
        Row of that other atom; meaningless for a single atom without images.

    Raises
    ------
    ValueError
        If a molecule has no atoms, a NaN or infinite coordinate, a charge that is no
        element, coordinates or an extent that are too large, or atoms that are too
        close. If the cell of a periodic structure has no volume, or is too large.
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
    lattices = _lattices(atoms)
    if lattices:
        # The atoms of a crystal may be those of any images: take those in one cell.
        positions = positions.copy()
        for i, lattice in lattices.items():
            positions[atoms.rows(i)] = wrap(positions[atoms.rows(i)], lattice)
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
    for i, lattice in lattices.items():
        rows = atoms.rows(i)
        distances[rows], nearest = nearest_images(positions[rows], lattice)
        neighbours[rows] = starts[i] + nearest
    close = np.flatnonzero(distances < _CLOSEST)
    if len(close):
        row = close[0]
        other = f"atom {neighbours[row] - starts[molecules[row]]}"
        hint = ""
        if molecules[row] in lattices:
            other += " or an image of it"
            hint = " An atom on a face of the cell is given once, not on both faces."
        raise ValueError(
            f"{name(row)} and {other} are only {_below(distances[row], _CLOSEST)} Å "
            f"apart (the least allowed is {_CLOSEST} Å). Are the coordinates in Å, not "
            f"in nm, and is no atom given twice?{hint}"
        )
    return distances, neighbours


def _lattices(atoms: AtomTable) -> dict[int, NDArray[np.float64]]:
    """Check the cells of periodic structures, and return their shortest vectors."""
    lattices = {}
    for i in np.flatnonzero(atoms.pbc.any(axis=1)).tolist():
        pbc = atoms.pbc[i]
        vectors = atoms.cells[i][pbc]
        which = f"Molecule {i} is periodic (pbc={pbc.tolist()}), and its cell"
        remedy = (
            "Set the vectors of the cell, in Å, or pbc = False for a direction that is "
            "not periodic."
        )
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"{which} has NaN or infinite entries {vectors.tolist()}. {remedy}"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        if not lengths.all():
            zero = np.flatnonzero(pbc)[lengths == 0][0]
            raise ValueError(f"{which} vector {zero} is zero. {remedy}")
        if lengths.max() > _WIDEST:
            raise ValueError(
                f"{which} has a vector of {lengths.max():.6g} Å (at most {_WIDEST:g} Å "
                f"are allowed). Is it in Å, not in pm? {remedy}"
            )
        unit = vectors / lengths[:, np.newaxis]
        if np.prod(np.linalg.svd(unit, compute_uv=False)) < _FLATTEST:
            raise ValueError(
                f"{which} has no volume: the vectors {vectors.tolist()} depend on each "
                f"other. {remedy}"
            )
        lattices[i] = reduce_lattice(vectors)
    return lattices


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
