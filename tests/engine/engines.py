"""Engines called as functions of atoms."""

from types import SimpleNamespace

import numpy as np

from skscatharm.engine import make_engine
from skscatharm.engine.protocol import Atoms
from skscatharm.transform.transform import Transform

ENGINES = ("separable", "fourier")


def engine_of(
    paths,
    Q=(0.5, 1, 2, 3),
    sigma=0.6,
    tol=1e-5,
    softening=4.0,
    dtype="float64",
    engine="separable",
    xp=np,
    on_device=False,
    pairs=(),
):
    """Make an engine that computes with the arrays of a namespace.

    With `on_device`, it is the one for devices.
    """
    transform = Transform(
        tuple(paths),
        tuple(map(float, Q)),
        sigma,
        tol,
        softening,
        dtype,
        engine,
        pairs=tuple(pairs),
    )
    return make_engine(transform, library_of(xp, on_device))


def library_of(xp, on_device=False):
    """Make a library that computes with the arrays of a namespace."""
    return SimpleNamespace(
        namespace=lambda: xp,
        on_device=on_device,
        free_memory=lambda: 2**32 if on_device else 0,
        out_of_memory=lambda: (MemoryError,),
    )


def scatter_batch(positions, weights, paths, **options):
    """Coefficients, of shape (n_molecules, n_integrands, n_channels, n_exponents)."""
    batch = [
        Atoms(np.asarray(r, float), np.ones(len(r)), np.asarray(w, float))
        for r, w in zip(positions, weights, strict=True)
    ]
    with np.errstate(all="ignore"):
        return engine_of(paths, **options).coefficients(batch)


def scatter(positions, weights, paths, **options):
    """Coefficients of a molecule, of shape (n_paths, n_channels, n_exponents)."""
    return scatter_batch([positions], [weights], paths, **options)[0]
