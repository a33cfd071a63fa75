import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from skscatharm.display.planes import best_view, side_views, view_of_atoms
from skscatharm.structures import Structure, check_structures


def turned(name: str, seed: int = 0) -> Structure:
    atoms = Atoms(name) if name == "Ne" else molecule(name)
    (structure,) = check_structures([atoms])
    rotation = Rotation.random(random_state=seed)
    return structure._replace(
        positions=rotation.apply(structure.positions) + np.arange(3.0)
    )


@pytest.mark.parametrize(
    ("name", "n_in_plane"),
    [
        ("C6H6", 12),  # all of a planar molecule
        ("CH4", 3),  # all planes are equally good; this one has three nuclei
        ("CH3CH2OH", 5),  # the mirror plane: C, C, O and two H
        ("NH3", 0),  # between N and the plane of the H
        ("CO2", 3),
        ("H2", 2),
        ("Ne", 1),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_best_plane(name: str, n_in_plane: int, seed: int) -> None:
    structure = turned(name, seed)
    view = best_view(structure)
    heights = view.structure.positions[:, 2]
    assert (np.abs(heights) < 0.05).sum() == n_in_plane
    assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-12)
    assert_allclose(np.linalg.det(view.axes), 1)
    assert_allclose(
        view.to_given(view.structure.positions), structure.positions, atol=1e-12
    )
    # The longer side is along x.
    spread = view.structure.positions.std(axis=0)
    assert spread[0] >= spread[1] - 1e-6


def test_no_plane_is_better() -> None:
    structure = turned("CH3CH2OH")
    heights = best_view(structure).structure.positions[:, 2]
    centre = structure.charges @ structure.positions / structure.charges.sum()
    normals = np.random.default_rng(0).normal(size=(2000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    others = (normals @ (structure.positions - centre).T) ** 2 @ structure.charges
    assert heights**2 @ structure.charges <= others.min()


def test_plane_of_three_atoms() -> None:
    structure = turned("CH3CH2OH")
    view = view_of_atoms(structure, [0, 2, 7])
    assert_allclose(view.structure.positions[[0, 2, 7], 2], 0, atol=1e-12)
    for plane in ([0, 1], [0, 1, 1], [0, 1, 9], [0.0, 1.0, 2.0], [-1, 0, 1]):
        with pytest.raises(ValueError, match=r"three atoms, each from 0 to 8"):
            view_of_atoms(structure, plane)
    with pytest.raises(ValueError, match=r"atoms \[0, 1, 2\] are in a line"):
        view_of_atoms(turned("CO2"), [0, 1, 2])


def test_side_views() -> None:
    view = best_view(turned("CH3CH2OH"))
    top, front, side = side_views(view)
    x, y, z = view.structure.positions.T
    assert_allclose(top.structure.positions.T, [x, y, z])
    assert_allclose(front.structure.positions.T[:2], [x, z])
    assert_allclose(side.structure.positions.T[:2], [y, z])
    for other in (front, side):
        given = other.to_given(other.structure.positions)
        assert_allclose(given, view.to_given(view.structure.positions))
