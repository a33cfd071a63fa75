from math import hypot

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skscatharm.engine.shared_grid import shared_grid
from skscatharm.structures import Structure
from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform


@pytest.mark.parametrize(("J", "tol"), [(0, 1e-5), (2, 1e-5), (3, 1e-4)])
def test_gaussians_of_all_widths_are_integrated(J: int, tol: float) -> None:
    positions = np.array([[-3.0, 0.2, 0], [0, -0.2, 0.1], [3.0, 0.1, -0.1]])
    structure = Structure(np.array([6, 6, 8]), positions)
    paths = tuple(scattering_paths(J, L=2, max_order=2))
    exponents = (0.5, 1.0, 4.0)
    transform = Transform(paths, exponents, 0.3, tol, 4.0, "float64", "separable")
    axes = shared_grid(structure, np.array([[6.0, 6.0, 8.0]]), transform)
    for path in paths:
        width = hypot(0.3, *(0.3 * 2**j for j in path.scales))
        for q in exponents:
            integral = 0.0
            for position in positions:
                integral += np.prod(
                    [
                        axis.weights
                        @ np.exp(-q * (axis.points - along) ** 2 / (2 * width**2))
                        for axis, along in zip(axes, position, strict=True)
                    ]
                )
            expected = 3 * (2 * np.pi * width**2 / q) ** 1.5
            if path.degree == 0:
                assert_allclose(integral, expected, rtol=tol)


def test_steps_grow_away_from_the_atoms() -> None:
    structure = Structure(np.array([1, 1]), np.array([[-0.4, 0, 0], [0.4, 0, 0]]))
    paths = tuple(scattering_paths(3, L=2, max_order=2))
    transform = Transform(paths, (1.0, 2.0), 0.3, 1e-5, 4.0, "float64", "separable")
    x, _, _ = shared_grid(structure, np.ones((1, 2)), transform)
    steps = np.diff(x.points)
    assert steps.max() > 4 * steps.min()
    assert np.all(np.diff(steps[len(steps) // 2 :]) > -1e-9)
