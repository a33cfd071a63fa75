"""What a store lacks is computed, with what costs little at the same time, and kept."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine import scattering_batch
from skscatharm.engine.arrays import Library
from skscatharm.store.files import CoefficientStore
from skscatharm.structures import Structure
from skscatharm.transform.paths import Path
from skscatharm.transform.transform import Transform

__all__ = ["stored_batch"]

_Array = NDArray[np.float64]

_USUAL_EXPONENTS = (0.5, 1.0, 2.0, 3.0)


def stored_batch(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    keys: NDArray[np.void],
    transform: Transform,
    library: Library,
    store: CoefficientStore,
    further_paths: Sequence[Path],
) -> _Array:
    """Compute of a batch what a store lacks, and keep it there.

    Another process may have computed it by now: the store is read first.

    Parameters
    ----------
    structures, weights
        As for :func:`~skscatharm.engine.scattering_batch`.
    keys : ndarray of shape (n_molecules, n_channels)
        Of the molecules, made with these settings.
    transform : Transform
        What is needed now. The usual exponents are computed as well.
    library : Library
        What computes, and where.
    store : CoefficientStore
    further_paths : sequence of Path
        What is computed as well if the fields of order 1 that it takes are, up to the
        largest scale that is stored already, if that is enough for what is needed now.

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    """
    paths, Q = transform.paths, transform.exponents
    all_paths = [*paths, *further_paths]
    # In this order always, so that rounding does not depend on what came first.
    all_exponents = sorted({*Q, *_USUAL_EXPONENTS})
    asked = [all_exponents.index(q) for q in Q]
    values = store.read(keys, all_paths, all_exponents)
    lacking = np.isnan(values) & _allowed(values, all_paths, len(paths))
    groups = _alike(lacking, all_paths, len(paths), asked)
    for lacks, rows, channels in groups:
        on_path, of_q = lacks.any(axis=1), lacks.any(axis=0)
        new_paths = [all_paths[i] for i in np.flatnonzero(on_path)]
        new_exponents = [all_exponents[i] for i in np.flatnonzero(of_q)]
        computed = scattering_batch(
            [structures[i] for i in rows],
            [weights[i][channels] for i in rows],
            replace(transform, paths=tuple(new_paths), exponents=tuple(new_exponents)),
            library,
        ).swapaxes(1, 2)
        # What the store holds already stays as it is.
        computed[..., ~lacks[np.ix_(on_path, of_q)]] = np.nan
        store.write(
            keys[np.ix_(rows, channels)],
            new_paths,
            new_exponents,
            computed,
            transform.settings,
        )
        where = np.ix_(rows, channels, on_path, of_q)
        values[where] = np.where(np.isnan(computed), values[where], computed)
    # Channels of equal weights have the same key: the store keeps the first.
    equal = keys[:, :, np.newaxis] == keys[:, np.newaxis, :]
    first = equal.argmax(axis=2)[..., np.newaxis, np.newaxis]
    values = np.take_along_axis(values, first, axis=1)
    return values[:, :, : len(paths), asked].swapaxes(1, 2)


def _allowed(values: _Array, paths: Sequence[Path], n_asked: int) -> NDArray[np.bool_]:
    """Find the paths that do not go beyond the scales that are in use already.

    Parameters
    ----------
    values : ndarray of shape (n_molecules, n_channels, n_paths, n_exponents)
        What is stored, and NaN.
    paths : sequence of Path
    n_asked : int
        Number of paths, the first ones, that are needed now.

    Returns
    -------
    ndarray of shape (n_molecules, n_channels, n_paths, 1)
    """
    last = np.array([path.scales[-1] if len(path.scales) == 2 else 0 for path in paths])
    stored = ~np.isnan(values).all(axis=3)
    largest = np.max(stored * last, axis=2, keepdims=True)
    enough = largest >= max(1, last[:n_asked].max())
    allowed = ~enough | (last <= largest)
    return allowed[..., np.newaxis]


def _alike(
    lacking: NDArray[np.bool_],
    paths: Sequence[Path],
    n_asked: int,
    asked_exponents: Sequence[int],
) -> list[tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]]:
    """Group the molecules and channels that lack the same.

    Fields of order 1 of which nothing is needed now are left alone.

    Parameters
    ----------
    lacking : ndarray of shape (n_molecules, n_channels, n_paths, n_exponents)
    paths : sequence of Path
    n_asked : int
        Number of paths, the first ones, that are needed now.
    asked_exponents : sequence of int
        Indices of the exponents that are needed now.

    Returns
    -------
    list of tuple
        What is lacking, of shape (n_paths, n_exponents), and indices of molecules and
        of channels.
    """
    fields: dict[Any, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        fields[path.scales[:1], path.degree].append(i)
    for of_field in fields.values():
        asked = [i for i in of_field if i < n_asked]
        urgent = lacking[:, :, asked][..., asked_exponents]
        lacking[:, :, of_field] &= np.any(urgent, axis=(2, 3), keepdims=True)

    groups = defaultdict(list)
    for i, molecule in enumerate(lacking):
        channels = defaultdict(list)
        for k in np.flatnonzero(molecule.any(axis=(1, 2))).tolist():
            channels[molecule[k].tobytes()].append(k)
        for pattern, alike in channels.items():
            groups[pattern, tuple(alike)].append(i)
    return [
        (lacking[rows[0], channels[0]], np.array(rows), np.array(channels))
        for (_, channels), rows in groups.items()
    ]
