"""Coefficients of one to three atoms, kept in ``tests/data/few_atoms.json``.

    cd tests; python -m references.few_atoms

writes the file, in about ten minutes. Each entry has ``atoms`` (rows Z, x, y, z),
``weights`` (by Z), ``sigma``, ``softening`` and ``coefficients``: rows of path, degree,
exponent and value.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np

from references import dense, one_atom, planar, two_atoms

FILE = Path(__file__).parents[1] / "data" / "few_atoms.json"
WATER = [[8, 0.0, 0.12, 0.0], [1, 0.76, -0.48, 0.0], [1, -0.76, -0.48, 0.0]]
TRIANGLE = [[8, 0.1, 0.0, 0.0], [6, 0.9, 0.8, 0.3], [1, -0.5, 0.7, -0.4]]
EXPONENTS = (0.5, 1, 1.5, 2, 3, 4, 7, 10)


def one(softening, paths, degrees, exponents):
    """One oxygen atom away from the origin."""
    keys = list(product(paths, degrees, exponents))
    return entry(
        [[8, 0.3, -0.2, 0.1]],
        {8: 8.0},
        0.22,
        softening,
        {key: one_atom(8.0, *key, 0.22, softening) for key in keys},
    )


def two(distance, weights, softening, paths, degrees, exponents, sigma=0.3):
    """Two atoms along an oblique direction."""
    direction = np.array([2.0, -1.0, 2.0]) / 3
    atoms = [[6, 0, 0, 0], [1, *(distance * direction)]]
    keys = list(product(paths, degrees, exponents))
    return entry(
        atoms,
        {6: weights[0], 1: weights[1]},
        sigma,
        softening,
        {key: two_atoms(distance, weights, *key, sigma, softening) for key in keys},
    )


def flat(atoms, weights, paths, exponents, sigma=0.3):
    """Atoms in a plane, degree 0."""
    w = [weights[atom[0]] for atom in atoms]
    positions = np.array(atoms)[:, 1:]
    keys = list(product(paths, [0], exponents))
    values = {
        (path, degree, q): planar(positions, w, path, q, sigma)
        for path, degree, q in keys
    }
    return entry(atoms, weights, sigma, 0.0, values)


def three(atoms, weights, softening, paths, degrees, exponents, steps, sigma=0.3):
    """Three atoms on dense grids, averages over shifts."""
    w = [[weights[atom[0]] for atom in atoms]]
    positions = np.array(atoms)[:, 1:]
    shifts = ((0.25, 0.4, 0.1), (0.75, 0.9, 0.6))
    values = {}
    for degree in degrees:
        step = steps[min(degree, len(steps) - 1)]
        runs = [
            dense(
                positions, w, paths, degree, exponents, sigma, softening, step,
                shift=shift,
            )
            for shift in shifts
        ]  # fmt: skip
        for path in paths:
            ends = np.array([run[path][0] for run in runs])
            print(degree, path, step, np.ptp(ends, axis=0) / ends[0], flush=True)
            for q, value in zip(exponents, ends.mean(axis=0), strict=True):
                values[path, degree, q] = value
    return entry(atoms, weights, sigma, softening, values)


def entry(atoms, weights, sigma, softening, values):
    """What is kept."""
    print(len(values), "coefficients of", len(atoms), "atoms", flush=True)
    return {
        "atoms": atoms,
        "weights": weights,
        "sigma": sigma,
        "softening": softening,
        "coefficients": [[*key, float(value)] for key, value in values.items()],
    }


def entries():
    """All that is kept."""
    order_1 = [(0,), (1,), (3,)]
    yield one(0.0, [()], [0], EXPONENTS)
    yield one(0.0, order_1, [0, 1, 2, 3, 6, 12], EXPONENTS)
    yield one(0.5, order_1, [1, 3, 6, 12], EXPONENTS)
    yield one(4.0, order_1, [1, 2, 3, 6, 12], EXPONENTS)
    for softening in (0.0, 0.5, 4.0):
        yield one(softening, [(0, 1), (0, 2)], [0, 1, 2, 3, 5], (0.5, 1, 3, 7))
        yield one(softening, [(0, 1)], [8, 12], (0.5, 1, 3))
    for softening, distance in product((0.0, 4.0), (0.4, 1.1, 3.0)):
        for weights in ((6.0, 1.0), (6.0, 6.0), (1.0, -0.5)):
            degrees = [0, 1, 2, 3, 6] if distance == 1.1 else [0, 1, 3]
            yield two(distance, weights, softening, [(0,), (2,)], degrees, EXPONENTS)
    for weights in ((1.0, -1.0), (1.0, -0.01)):
        yield two(0.9, weights, 0.0, [(), (0,), (1,)], [0], EXPONENTS)
    yield two(1.1, (6.0, 1.0), 0.0, [(0,)], [9, 12], EXPONENTS)
    paths = [(), (0,), (1,), (0, 1)]
    for weights in ({8: 8, 1: 1}, {8: -1, 1: 0.5}, {8: 1, 1: -0.2}):
        yield flat(WATER, weights, paths, (0.5, 1, 1.5, 3, 7))
    signed = {8: 1.0, 6: -0.7, 1: 0.4}
    plain = {8: 8.0, 6: 6.0, 1: 1.0}
    softened = (0.2, 0.16, 0.18, 0.18)
    for weights in (plain, signed):
        yield three(
            TRIANGLE, weights, 4.0, [(0,), (1,), (0, 1), (0, 2)], [1, 2, 3, 5],
            (0.5, 1, 1.5, 3, 7), softened,
        )  # fmt: skip
        yield three(
            TRIANGLE, weights, 0.0, [(0,), (1,)], [1, 2, 3, 5], (0.5, 1, 3, 7),
            (0.1, 0.06, 0.08, 0.1),
        )  # fmt: skip
        yield three(
            TRIANGLE, weights, 0.0, [(0, 1)], [1, 2, 3], (1, 3), (0.1, 0.08, 0.1, 0.1),
        )  # fmt: skip


if __name__ == "__main__":
    FILE.write_text(
        "[\n" + ",\n".join(json.dumps(entry) for entry in entries()) + "\n]\n"
    )
