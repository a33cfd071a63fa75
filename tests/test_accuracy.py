"""Coefficients against references that share no code with the package."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from skscatharm import SETTINGS, SolidHarmonicScattering

DATA = Path(__file__).parent / "data"
ENTRIES = json.loads((DATA / "few_atoms.json").read_text())
ENGINES = ["separable", "fourier"]
# Tolerances of few atoms, of which a coefficient may have three times.
PRECISIONS = [("float64", 1e-6), ("float32", 1e-5)]


def column(path, degree, q) -> str:
    """Name of a coefficient in a channel w."""
    if not path:
        return f"S0[w,q={q:g}]"
    j = path[0] if len(path) == 1 else f"({path[0]},{path[1]})"
    return f"S{len(path)}[w,j={j},l={degree},q={q:g}]"


def is_quick(entry, path, degree) -> bool:
    """Whether a coefficient is tested; together they take a minute."""
    atoms = np.array(entry["atoms"])
    if len(atoms) == 2 and not 0.5 < np.linalg.norm(atoms[1, 1:] - atoms[0, 1:]) < 2:
        return False
    if entry["softening"] == 0 and (len(path) == 2 or max(path, default=0) > 0):
        return degree == 0
    return degree <= 3


def cases():
    """List entries, of few atoms each, with engines and precisions."""
    result = []
    for i, entry in enumerate(ENTRIES):
        rows = [row for row in entry["coefficients"] if is_quick(entry, *row[:2])]
        kinks = entry["softening"] == 0 and any(degree > 0 for _, degree, *_ in rows)
        for engine, (dtype, tol) in product(ENGINES, PRECISIONS) if rows else ():
            # Boxes with the steps that kinks require take minutes.
            if engine == "fourier" and (kinks or tol < 1e-5):
                continue
            label = f"{i}-{len(entry['atoms'])}atoms-{entry['softening']:g}"
            result.append(
                pytest.param(
                    entry, rows, engine, dtype, tol, id=f"{label}-{engine}-{dtype}"
                )
            )
    return result


def worst_errors(entry, rows, engine, dtype, tol):
    """Relative errors of coefficients, by name."""
    paths = [path for path, *_ in rows]
    scattering = SolidHarmonicScattering(
        J=max(max(path, default=0) for path in paths),
        L=max(degree for _, degree, _, _ in rows),
        Q=sorted({q for *_, q, _ in rows}),
        max_order=max(map(len, paths)),
        sigma=entry["sigma"],
        softening=entry["softening"],
        mixed_moments=False,
        channels={"w": {int(Z): w for Z, w in entry["weights"].items()}},
        tol=tol,
        dtype=dtype,
        engine=engine,
        names="readable",
    )
    values = scattering.transform([np.array(entry["atoms"], float)])[0]
    found = dict(zip(scattering.get_feature_names_out(), values, strict=True))
    return {
        name: abs(found[name] / value - 1)
        for name, value in ((column(*key), value) for *key, value in rows)
    }


@pytest.mark.parametrize(("entry", "rows", "engine", "dtype", "tol"), cases())
def test_few_atoms(entry, rows, engine, dtype, tol) -> None:
    errors = worst_errors(entry, rows, engine, dtype, tol)
    wrong = {name: f"{error:.1e}" for name, error in errors.items() if error > 3 * tol}
    assert not wrong


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("setting", "engine", "n_molecules"),
    [
        ("soft", "separable", 20),
        ("soft", "fourier", 2),
        ("published", "separable", 5),
        ("published", "fourier", 1),
    ],
)
def test_qm9(setting, engine, n_molecules, dtype, molecules) -> None:
    parameters = SETTINGS[setting]
    expected = np.load(DATA / f"qm9_{setting}.npz")["values"][:n_molecules]
    scattering = SolidHarmonicScattering(**parameters, engine=engine)
    scattering.set_params(dtype=dtype)
    found = scattering.transform(molecules[: len(expected)])
    errors = np.abs(found / expected - 1)
    worst = errors.max(axis=1)
    name = scattering.get_feature_names_out()[errors.max(axis=0).argmax()]
    assert np.median(worst) <= scattering.tol, name
    assert worst.max() <= 5 * scattering.tol, name
