import tracemalloc

import numpy as np
import pytest
from engines import engine_of
from numpy.testing import assert_allclose

from skscatharm.engine.lattice import Lattice
from skscatharm.engine.protocol import Atoms
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import scattering_paths


def test_wavevectors_of_an_oblique_box() -> None:
    cell = np.array([[4.0, 0, 0], [1.0, 3.0, 0], [-0.5, 0.7, 5.0]])
    lattice = Lattice(cell, (6, 5, 8), np.zeros(3), (5, 5, 7))
    k = np.stack(np.broadcast_arrays(*lattice.wavevectors()), axis=-1)
    assert k.shape == (5, 5, 4, 3)
    # A wavevector turns by a whole number of cycles along each edge.
    cycles = k @ cell.T / (2 * np.pi)
    assert_allclose(cycles, np.round(cycles), atol=1e-12)
    assert_allclose(cycles[-1, 1, 3], [-1, 1, 3], atol=1e-12)
    # Seen from any position, as the phases of the atoms have it.
    r = np.array([0.3, -1.2, 0.8])
    phases = np.exp(-2j * np.pi * (cycles @ lattice.fractional(r)))
    assert_allclose(phases, np.exp(-1j * k @ r), atol=1e-12)


@pytest.mark.parametrize("softening", [0.0, 4.0])
@pytest.mark.parametrize("Q", [(0.5, 1, 2, 3), (1, 2, 3)])
def test_memory_is_estimated(Q, softening, molecules) -> None:
    structures = check_structures(molecules[:1])
    tables = resolve_channels(["nuclear", "valence", "core", "bonding"])
    (weights,) = channel_weights(tables, structures)
    atoms = Atoms(structures[0].positions, structures[0].charges, weights)
    engine = engine_of(
        scattering_paths(1, 2, 2),
        Q=Q,
        tol=2e-4,
        softening=softening,
        dtype="float32",
        engine="fourier",
    )
    tracemalloc.start()
    engine.coefficients([atoms])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.4 < peak / engine.memory(atoms) < 1.05
