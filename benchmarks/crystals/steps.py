"""How much finer crystals have to be sampled than molecules, where fields overlap.

    python benchmarks/crystals/steps.py

In a crystal, the fields of many atoms overlap at large scales and cancel in many
places, where the softening helps less. For each path of some crystals, with the grid
shifted against the atoms, this finds the largest factor of the step that keeps the
error below a share of the tolerance. It prints the factor beside that of
``Accuracy.overlap``, with x, the number of overlapping fields divided by the square
root of the softness. The reference is the same engine with a grid that is three times
as fine: ``tests/test_crystals.py`` compares the engine with sums over pairs.
"""

from unittest import mock

import numpy as np
from ase.build import bulk

from skscatharm import SolidHarmonicScattering
from skscatharm.engine.accuracy import Accuracy

TOL, SHARE = 1e-5, 0.6
FACTORS = (1.0, 0.85, 0.72, 0.6, 0.5, 0.42)
CHANNELS = {
    name: {z: weight(z) for z in range(1, 90)}
    for name, weight in (
        ("charge", float),
        ("four", lambda z: 4.0),
        ("one", lambda z: 1.0),
    )
}


def crystals():
    """Yield crystals with more than the atoms of a small cell, slightly disordered."""
    for name, atoms in (
        ("Si", bulk("Si", cubic=True)),
        ("NaCl", bulk("NaCl", "rocksalt", 5.64, cubic=True)),
        ("C", bulk("C", cubic=True)),
        ("Cu", bulk("Cu", cubic=True)),
        ("MgO", bulk("MgO", "rocksalt", 4.21, cubic=True)),
    ):
        atoms = atoms.repeat((2, 1, 1))
        atoms.rattle(0.02, seed=0)
        yield name, atoms


def coefficients(atoms, factor):
    """Coefficients of two copies, by (copy, path, channel), with other steps."""
    scattering = SolidHarmonicScattering(
        Q=(0.5, 1.0),
        channels=CHANNELS,
        tol=TOL,
        dtype="float64",
        mixed_moments=False,
    )
    shifted = atoms.copy()
    shifted.positions += [0.123, 0.31, 0.7]
    with mock.patch.object(Accuracy, "overlap", return_value=factor):
        found = scattering.transform([atoms, shifted])
    names = scattering.get_feature_names_out()
    return {
        name: found[:, i]
        for i, name in enumerate(names)
        if not name.startswith("S0") and "_l0_" not in name
    }


def rule(atoms):
    """Factors of the rule, by degree and width, as the engine asks for them."""
    seen = {}
    original = Accuracy.overlap

    def record(accuracy, degree, density):
        factor = original(accuracy, degree, density)
        seen[accuracy.softness, degree, round(density, 6)] = factor
        return factor

    with mock.patch.object(Accuracy, "overlap", record):
        SolidHarmonicScattering(
            Q=(0.5,), channels=CHANNELS, mixed_moments=False
        ).transform([atoms])
    return seen


def main():
    for crystal, atoms in crystals():
        reference = coefficients(atoms, 1 / 3)
        largest = dict.fromkeys(reference, 0.0)
        for factor in FACTORS:
            for name, values in coefficients(atoms, factor).items():
                error = np.abs(values / reference[name] - 1).max()
                if error < SHARE * TOL and largest[name] == 0:
                    largest[name] = factor
        for name, factor in largest.items():
            if factor < 1:
                print(f"{crystal:5} {name:28} {factor or '< 0.42'}", flush=True)
        for (softness, degree, density), factor in sorted(rule(atoms).items()):
            if factor < 1:
                print(
                    f"{crystal:5} rule: softness {softness:.2f}, degree {degree}, "
                    f"density {density:.3f}: {factor:.2f}"
                )


if __name__ == "__main__":
    main()
