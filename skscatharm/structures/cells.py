r"""Cells of crystals: reduced lattice vectors, and the primitive cell.

A crystal can be written down in many ways: by other lattice vectors, as a supercell,
with its atoms anywhere. All of them have the same primitive cell, up to its origin.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from skscatharm.structures.structure import Structure

__all__ = [
    "PrimitiveCell",
    "coordinates_along",
    "images_within",
    "nearest_images",
    "periodic_vectors",
    "primitive_cell",
    "reduce_lattice",
    "wrap",
]

_Array = NDArray[np.float64]

#: How far, in Å, a translation may leave an atom from the place of its image.
_TOLERANCE = 1e-6
#: Lengths and products of lattice vectors are equal if they differ relatively by less.
_EQUAL = 1e-6
#: Of the atoms that lack an image by one translation, how many are tried on the others.
_WITNESSES = 8


class PrimitiveCell(NamedTuple):
    """The smallest cell that a crystal, slab or wire repeats.

    Attributes
    ----------
    vectors : ndarray of shape (k, 3)
        Lattice vectors in Å, of the k = 1, 2 or 3 periodic directions. They are the
        shortest ones, shortest first, and right-handed if there are three.
    positions : ndarray of shape (n_atoms, 3)
        Positions in Å of the atoms of the cell: in the parallelepiped that the vectors
        span, as far as directions are periodic.
    members : ndarray of shape (n_copies, n_atoms), dtype int64
        The atoms of the structure that are images of each atom of the cell. The atoms
        of the first row have these positions, up to lattice vectors.
    """

    vectors: _Array
    positions: _Array
    members: NDArray[np.int64]


def primitive_cell(structure: Structure) -> PrimitiveCell:
    """Find the primitive cell of a periodic structure.

    A translation belongs to the lattice if it is along the periodic directions and
    brings each atom to within 1e-6 Å of one of the same element.

    Parameters
    ----------
    structure : Structure
        A crystal, slab or wire.

    Returns
    -------
    PrimitiveCell

    Notes
    -----
    Two descriptions of a crystal lead to the same vectors up to its rotation, except
    for the choice among lattice vectors whose lengths and angles are equal.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from skscatharm.structures import check_structures
    >>> from skscatharm.structures.cells import primitive_cell
    >>> [salt] = check_structures([bulk("NaCl", "rocksalt", 5.64, cubic=True)])
    >>> vectors, positions, members = primitive_cell(salt)
    >>> members.shape
    (4, 2)
    >>> round(float(np.linalg.norm(vectors[0])), 3)
    3.988
    """
    lattice = reduce_lattice(periodic_vectors(structure))
    finder = _Translations(structure.charges, structure.positions, lattice)
    permutations = []
    shifts = finder.candidates()
    while len(shifts):
        shift, shifts = shifts[0], shifts[1:]
        snapped = _snap(shift, lattice, finder.largest_order)
        if snapped is None:
            continue
        step, order = snapped
        images = finder.images(step)
        lacking = np.flatnonzero(images < 0)
        if len(lacking) == 0:
            permutations.append(images)
            lattice = _refine(lattice, step, order)
            shifts = shifts[~_is_lattice_vector(shifts, lattice)]
        # An atom that is out of place lacks all of its images.
        for atom in lacking[:_WITNESSES]:
            shifts = shifts[finder.images(shifts, atom) >= 0]
    members = _orbits(permutations, len(structure.charges))
    positions = wrap(structure.positions[members[0]], lattice)
    return PrimitiveCell(lattice, positions, members)


def periodic_vectors(structure: Structure) -> _Array:
    """Return the cell vectors of the periodic directions, of shape (k, 3)."""
    assert structure.cell is not None
    return structure.cell[list(structure.pbc)]


def reduce_lattice(vectors: _Array) -> _Array:
    """Find the shortest vectors that span a lattice.

    Parameters
    ----------
    vectors : ndarray of shape (k, 3)
        One, two or three linearly independent vectors.

    Returns
    -------
    ndarray of shape (k, 3)
        A Minkowski-reduced basis of the same lattice, shortest vector first. Among
        bases of equal lengths, the one with the smallest angles.
    """
    reduced = np.array(vectors, dtype=np.float64)
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for i in np.argsort(-np.linalg.norm(reduced, axis=1)):
            others = np.delete(reduced, i, axis=0)
            nearest = np.rint(coordinates_along(others, reduced[i]))
            shifts = (nearest + _integers(1, len(others))) @ others
            candidates = reduced[i] - shifts
            lengths = np.linalg.norm(candidates, axis=1)
            best = lengths.argmin()
            if lengths[best] < (1 - 1e-12) * np.linalg.norm(reduced[i]):
                reduced[i], is_shorter = candidates[best], True
    return _shortest(_integers(2, len(reduced)) @ reduced, len(reduced))


def _shortest(vectors: _Array, k: int) -> _Array:
    """Choose the shortest basis among all short vectors of a lattice.

    In up to three dimensions, independent vectors that are as short as possible are a
    basis.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    vectors = vectors[np.argsort(lengths, kind="stable")]
    lengths = np.sort(lengths)
    chosen: list[int] = []
    for i in np.flatnonzero(lengths > _EQUAL * lengths[-1]).tolist():
        rows = vectors[[*chosen, i]] / lengths[[*chosen, i], np.newaxis]
        if np.linalg.det(rows @ rows.T) > 1e-3:
            chosen.append(i)
        if len(chosen) == k:
            break
    # Among bases with these lengths, that with the largest products of its vectors.
    tied = [np.flatnonzero(np.abs(lengths / lengths[i] - 1) < _EQUAL) for i in chosen]
    bases = vectors[np.array(list(product(*tied)))]
    unit = bases / lengths[chosen][:, np.newaxis]
    cosines = unit @ unit.swapaxes(1, 2)
    bases, cosines = (a[np.linalg.det(cosines) > 1e-3] for a in (bases, cosines))
    above = np.triu_indices(k, 1)
    keys = np.rint(cosines[:, above[0], above[1]] / _EQUAL)
    basis = bases[np.lexsort(-keys.T[::-1])[0]] if k > 1 else bases[0]
    return -basis if k == 3 and np.linalg.det(basis) < 0 else basis


def coordinates_along(vectors: _Array, positions: _Array) -> _Array:
    """Return the coordinates of positions along one to three vectors.

    Parameters
    ----------
    vectors : ndarray of shape (k, 3)
    positions : ndarray of shape (..., 3)
        Components orthogonal to the vectors are ignored.

    Returns
    -------
    ndarray of shape (..., k)
    """
    return positions @ np.linalg.pinv(vectors)


def wrap(positions: _Array, lattice: _Array) -> _Array:
    """Move positions by lattice vectors into the cell that these span.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
    lattice : ndarray of shape (k, 3)

    Returns
    -------
    ndarray of shape (n_atoms, 3)
    """
    return positions - np.floor(coordinates_along(lattice, positions)) @ lattice


def nearest_images(
    positions: _Array, lattice: _Array
) -> tuple[_Array, NDArray[np.int64]]:
    """Find the nearest neighbour of each atom of a periodic structure.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3)
    lattice : ndarray of shape (k, 3)
        From :func:`reduce_lattice`.

    Returns
    -------
    distances : ndarray of shape (n_atoms,)
        Distance from the nearest image of another atom or of the atom itself.
    neighbours : ndarray of shape (n_atoms,)
        The atom whose image it is.
    """
    positions = wrap(positions, lattice)
    n_atoms = len(positions)
    reach = float(np.linalg.norm(lattice[0]))
    if n_atoms > 1:
        within = np.asarray(KDTree(positions).query(positions, k=2)[0])
        reach = min(reach, float(within[:, 1].max()))
    # All images that are not farther than this from the cell, along each vector.
    margins = 1.001 * reach * np.linalg.norm(np.linalg.pinv(lattice), axis=0)
    ranges = [range(-n, n + 1) for n in np.ceil(margins).astype(int).tolist()]
    # The atoms themselves come first.
    numbers = np.array(sorted(product(*ranges), key=lambda n: any(n)), dtype=float)
    coordinates = coordinates_along(lattice, positions)
    images = coordinates + numbers[:, np.newaxis]
    cell, atom = np.nonzero(((images >= -margins) & (images <= 1 + margins)).all(2))
    points = positions[atom] + numbers[cell] @ lattice
    distances, found = map(np.asarray, KDTree(points).query(positions, k=2))
    # Of two atoms at one place, either may be listed first.
    is_itself = found[:, 1] == np.arange(n_atoms)
    return distances[:, 1], atom[np.where(is_itself, found[:, 0], found[:, 1])]


def images_within(
    structure: Structure, low: _Array, high: _Array
) -> tuple[NDArray[np.int64], _Array]:
    """Find all images of the atoms of a periodic structure in a box.

    Parameters
    ----------
    structure : Structure
    low, high : ndarray of shape (3,)
        Corners of the box, whose edges are along x, y and z.

    Returns
    -------
    atoms : ndarray of int of shape (n_images,)
        The atom of each image.
    positions : ndarray of shape (n_images, 3)
    """
    vectors = periodic_vectors(structure)
    corners = np.array(list(product(*np.transpose([low, high]))))
    along = coordinates_along(vectors, corners)
    of_atoms = coordinates_along(vectors, structure.positions)
    first = np.ceil(along.min(axis=0) - of_atoms.max(axis=0)).astype(int)
    last = np.floor(along.max(axis=0) - of_atoms.min(axis=0)).astype(int)
    ranges = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
    shifts = np.array(list(product(*ranges))).reshape(-1, len(vectors)) @ vectors
    positions = (structure.positions + shifts[:, np.newaxis]).reshape(-1, 3)
    inside = np.flatnonzero(((positions >= low) & (positions <= high)).all(axis=1))
    return inside % len(structure.positions), positions[inside]


class _Translations:
    """Translations that may bring a structure to itself, modulo a lattice."""

    def __init__(
        self, charges: NDArray[np.int64], positions: _Array, lattice: _Array
    ) -> None:
        self.charges = charges
        self.positions = positions
        self.lattice = lattice
        self.frame = _frame(lattice)
        # Coordinates along the vectors, in Å: nearly those of space for short vectors.
        self.lengths = np.linalg.norm(self.frame, axis=1)
        self.sizes = np.where(np.arange(3) < len(lattice), self.lengths, 0)
        self.tree = KDTree(self._points(positions), boxsize=self.sizes)
        _, counts = np.unique(charges, return_counts=True)
        #: All orbits of a group of translations are as large as the group.
        self.largest_order = int(np.gcd.reduce(counts))

    def candidates(self) -> _Array:
        """Return translations that structure factors do not exclude, shortest first.

        A translation t of the structure has F(k) = exp(i k t) F(k) for all k.
        """
        if self.largest_order == 1:
            return np.empty((0, 3))
        elements, counts = np.unique(self.charges, return_counts=True)
        rarest = self.positions[self.charges == elements[counts.argmin()]]
        shifts = rarest[1:] - rarest[0]
        k = len(self.lattice)
        coordinates = shifts @ np.linalg.inv(self.frame)
        shifts = shifts - np.rint(coordinates[:, :k]) @ self.lattice
        is_along = (np.abs(coordinates[:, k:]) <= 2 * _TOLERANCE).all(axis=1)

        rng = np.random.default_rng(0)
        waves = rng.integers(-20, 21, size=(64, 3)).astype(np.float64)
        waves[:, k:] = 1 / (2 * np.pi)  # the other directions are in Å, not periodic
        waves = 2 * np.pi * waves @ np.linalg.inv(self.frame).T
        factors = np.exp(1j * self.positions @ waves.T).T @ self.charges
        changes = factors * (np.exp(1j * shifts @ waves.T) - 1)
        # An atom that is off by 3 tolerances changes the phase of its term.
        allowed = 3 * _TOLERANCE * np.linalg.norm(waves, axis=1) + 1e-9
        is_possible = (np.abs(changes) <= allowed * self.charges.sum()).all(axis=1)
        shifts = shifts[is_along & is_possible]
        return shifts[np.argsort(np.linalg.norm(shifts, axis=1), kind="stable")]

    def images(self, shifts: _Array, atoms: Any = slice(None)) -> NDArray[np.int64]:
        """Find the atoms of the same elements at shifted positions, or -1."""
        shifted = self.positions[atoms] + shifts
        _, found = self.tree.query(
            self._points(shifted), distance_upper_bound=10 * _TOLERANCE
        )
        found = np.where(found < len(self.charges), found, -1)
        gaps = shifted - self.positions[found]
        gaps -= np.rint(coordinates_along(self.lattice, gaps)) @ self.lattice
        is_image = np.linalg.norm(gaps, axis=1) <= _TOLERANCE
        is_image &= self.charges[found] == self.charges[atoms]
        return np.where(is_image, found, -1)

    def _points(self, positions: _Array) -> _Array:
        points = positions @ np.linalg.inv(self.frame) * self.lengths
        sizes = self.sizes[: len(self.lattice)]
        wrapped = points[:, : len(sizes)] % sizes
        # The remainder of a tiny negative number is rounded to the size itself.
        points[:, : len(sizes)] = np.where(wrapped < sizes, wrapped, 0)
        return points


def _snap(
    shift: _Array, lattice: _Array, largest_order: int
) -> tuple[_Array, int] | None:
    """Replace a translation by the exact fraction of lattice vectors that it is near.

    Its order, the number of times after which it is a lattice vector, divides the
    number of atoms of each element. None is returned if there is no such fraction.
    """
    coordinates = coordinates_along(lattice, shift)
    for order in range(2, largest_order + 1):
        if largest_order % order:
            continue
        fraction = np.rint(order * coordinates) / order
        if np.linalg.norm((fraction - coordinates) @ lattice) <= 2 * _TOLERANCE:
            return fraction @ lattice, order
    return None


def _is_lattice_vector(shifts: _Array, lattice: _Array) -> NDArray[np.bool_]:
    shifts = shifts - np.rint(coordinates_along(lattice, shifts)) @ lattice
    return np.linalg.norm(shifts, axis=1) <= 2 * _TOLERANCE


def _refine(lattice: _Array, step: _Array, order: int) -> _Array:
    """Add a fraction of lattice vectors to a lattice."""
    steps = np.arange(order)[:, np.newaxis] * step
    steps -= np.rint(coordinates_along(lattice, steps)) @ lattice
    shifts = _integers(2, len(lattice)) @ lattice
    return _shortest((steps[:, np.newaxis] + shifts).reshape(-1, 3), len(lattice))


def _orbits(permutations: list[NDArray[np.int64]], n_atoms: int) -> NDArray[np.int64]:
    """Group the atoms that permutations exchange: an array (n_copies, n_orbits)."""
    if not permutations:
        return np.arange(n_atoms)[np.newaxis]
    rows = np.tile(np.arange(n_atoms), len(permutations))
    ends = rows, np.concatenate(permutations)
    graph = coo_array((np.ones(len(rows)), ends), (n_atoms, n_atoms))
    n_orbits, labels = connected_components(graph, directed=False)
    members = np.argsort(labels, kind="stable").reshape(n_orbits, -1)
    return members[np.argsort(members[:, 0])].T


def _frame(lattice: _Array) -> _Array:
    """Complete vectors to three, by unit vectors that are orthogonal to them."""
    _, _, axes = np.linalg.svd(lattice)
    return np.concatenate([lattice, axes[len(lattice) :]])


def _integers(largest: int, k: int) -> _Array:
    """Return all vectors of k integers from -largest to largest."""
    vectors = list(product(range(-largest, largest + 1), repeat=k))
    return np.array(vectors, dtype=np.float64).reshape(len(vectors), k)
