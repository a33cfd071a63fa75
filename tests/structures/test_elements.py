import ase.data
import numpy as np
from numpy.testing import assert_array_equal

from skscatharm.structures.elements import (
    COVALENT_RADII,
    N_ELEMENTS,
    NOBLE_GASES,
    SYMBOLS,
)


def test_symbols() -> None:
    assert N_ELEMENTS == 118
    assert list(SYMBOLS) == ase.data.chemical_symbols


def test_noble_gases() -> None:
    symbols = [SYMBOLS[Z] for Z in NOBLE_GASES]
    assert symbols == ["He", "Ne", "Ar", "Kr", "Xe", "Rn", "Og"]


def test_covalent_radii() -> None:
    # Cordero et al. list no element above Cm, where ASE has a value of its own.
    assert_array_equal(COVALENT_RADII[1:97], ase.data.covalent_radii[1:97])
    assert np.isnan(COVALENT_RADII[[0, *range(97, 119)]]).all()
