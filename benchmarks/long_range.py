"""Binding energies of distant molecules: scattering beside SOAP.

    python benchmarks/long_range.py

runs in an environment with the package, ASE and Matplotlib, and makes the environments of
DScribe and tblite by itself. Everything runs on one thread, in ten minutes.

The samples are pairs of molecules, ions among them, whose closest atoms are 3 to 15 Å
apart. Orientations are random, and the molecules are rigid. The target is the energy of
the pair minus those of both molecules, by GFN2-xTB. Pairs of opposite charges, and anions
beside molecules with low empty orbitals, are left out: there, GFN2-xTB moves electrons
from one molecule to the other at any distance.

Each descriptor is of the pair, minus those of both molecules alone. The regressions are
the same for all: ridge regression and the quadratic form of `MultilinearRegressor`. They
are trained on the pairs up to 6 Å, or on pairs of all separations; the test pairs are the
same. Into ``doc/measured`` go

``long_range.csv``
    Mean absolute errors by kind of pair, range of separations, descriptor and training.
``long_range_settings.csv``
    The same for other settings of the scattering, over all kinds.
``long_range.svg``
    Errors by separation.

Energies and descriptors are kept in ``benchmarks/.results/long_range``, so that a run
that was stopped goes on; ``--fresh`` starts over.
"""

import argparse
import csv
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from skscatharm import CoefficientStore, MultilinearRegressor, SolidHarmonicScattering

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

from environments import environment  # noqa: E402

RESULTS = HERE / ".results" / "long_range"
MEASURED = HERE.parent / "doc" / "measured"

KCAL_MOL = 23.060548  # in one eV
# Names in ase.build, with the atom that is replaced, and charges.
MOLECULES = {
    "H2O": ("H2O", {}, 0),
    "HF": ("HF", {}, 0),
    "NH3": ("NH3", {}, 0),
    "CH3OH": ("CH3OH", {}, 0),
    "NH4+": ("CH4", {6: 7}, 1),
    "H3O+": ("NH3", {7: 8}, 1),
    "Cl-": ("Cl", {}, -1),
}
NEAREST, LIMIT, FARTHEST = 3.0, 6.0, 15.0  # Å
N_NEAR, N_FAR = 40, 40  # pairs of each two molecules, up to LIMIT and beyond
TEST_FRACTION = 0.2
EDGES = (3, 6, 9, 12, 15)
KINDS = ("ions", "ion and molecule", "molecules")
TRAININGS = ("up to 6 Å", "all")
