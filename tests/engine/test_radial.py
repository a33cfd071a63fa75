import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import one_atom

from skscatharm.engine.protocol import Atoms
from skscatharm.engine.radial import RadialEngine
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

EXPONENTS = (0.5, 1.0, 1.5, 3.0, 7.0)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize(
    "path", [Path((), 0), Path((1,), 2), Path((2,), 12), Path((0, 1), 1)]
)
def test_atoms(path, softening) -> None:
    transform = Transform((path,), EXPONENTS, 0.5, 1e-6, softening, "float64", "any")
    atoms = [
        Atoms(np.ones((1, 3)), np.array([8]), np.array([[w], [0.0]]))
        for w in (8.0, -2.0)
    ]
    found = RadialEngine(transform).coefficients(atoms)
    assert found.shape == (2, 1, 2, 5)
    assert np.all(found[:, :, 1] == 0)
    for values, weight in zip(found[:, 0, 0], (8.0, 2.0), strict=True):
        expected = [
            one_atom(weight, path.scales, path.degree, q, 0.5, softening)
            for q in EXPONENTS
        ]
        assert_allclose(values, expected, rtol=1e-8)


def test_order_2_is_split_where_it_vanishes() -> None:
    # Degree 3 without softening: kinks on a whole sphere.
    transform = Transform(
        (Path((0, 1), 3),), (0.5, 1.0), 0.5, 1e-6, 0.0, "float64", "any"
    )
    atoms = Atoms(np.zeros((1, 3)), np.array([8]), np.array([[8.0]]))
    found = RadialEngine(transform).coefficients([atoms])[0, 0, 0]
    expected = [one_atom(8.0, (0, 1), 3, q, 0.5) for q in (0.5, 1.0)]
    assert_allclose(found, expected, rtol=1e-9)
