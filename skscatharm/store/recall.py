"""Fill gaps in a store: compute missing coefficients, plus cheap neighbours, save both.

This is the only module that uses both a store and an engine.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache, partial
from hashlib import blake2b
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine import scattering_batch
from skscatharm.engine.arrays import Library
from skscatharm.store.files import CoefficientStore
from skscatharm.store.segments import DIGEST_SIZE, canonical
from skscatharm.structures import Structure
from skscatharm.transform.paths import Pair, Path
from skscatharm.transform.transform import Transform

__all__ = [
    "Store",
    "density_keys",
    "fill_gaps",
    "jacobian_names",
    "known_keys",
    "recall",
    "recall_arrays",
]

_Array = NDArray[np.float64]
_Keys = NDArray[np.void]
_Molecules = tuple[Sequence[Structure], Sequence[_Array]]

# Keys that are remembered: enough for all folds of a search over all of QM9.
_KNOWN_ARRAYS = 256
_KNOWN_BYTES = 2**27

_known_keys: OrderedDict[bytes, _Keys] = OrderedDict()  # the last used ones last
_lock = Lock()


class Store(Protocol):
    """Anything that keeps coefficients, such as a `CoefficientStore`."""

    def read(
        self,
        keys: _Keys,
        paths: Sequence[Path | Pair],
        exponents: Sequence[float],
        settings: Mapping[str, Any],
    ) -> _Array:
        """Return coefficients of shape (*keys.shape, n_paths, n_exponents), or NaN."""

    def write(
        self,
        keys: _Keys,
        paths: Sequence[Path | Pair],
        exponents: Sequence[float],
        coefficients: _Array,
        settings: Mapping[str, Any],
    ) -> None:
        """Keep coefficients of the same shape; NaN where nothing is to be kept."""


def recall(
    store: Store,
    X: Any,
    check: Callable[[], _Molecules],
    tables: Mapping[str, Mapping[int, float]],
    transform: Transform,
    wider: Transform,
    library: Library,
    in_batches: Callable[..., _Array],
    limits: Mapping[str, Any] | None = None,
) -> _Array:
    """Read coefficients from a store, after those that are missing were computed.

    Parameters
    ----------
    store : Store
    X : array-like or sequence
        Molecules, as a user passes them.
    check : callable
        Checks `X` and returns the structures and the weights of their atoms.
    tables : mapping of str to mapping
        The channels, from :func:`~skscatharm.structures.channels.resolve_channels`.
    transform : Transform
        The coefficients to return.
    wider : Transform
        The same settings with more paths and exponents, which are computed and saved
        where they cost little.
    library : Library
        The array library that computes, and where.
    in_batches : callable
        Calls a function with batches of sequences, as
        :func:`~skscatharm.batches.in_batches`.
    limits : mapping or None, default=None
        All that `check` depends on and coefficients do not.

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    """
    check = cache(check)
    keys = known_keys(X, check, tables, transform.settings, limits)
    coefficients = store.read(
        keys, transform.integrands, transform.exponents, transform.settings
    )
    coefficients = np.where(
        _needed(transform.integrands, transform.exponents, transform), coefficients, 0.0
    ).swapaxes(1, 2)
    lacking = np.flatnonzero(np.isnan(coefficients).any(axis=(1, 2, 3)))
    if len(lacking) == 0:
        return coefficients

    structures, weights = check()
    # Each molecule once; and in random order, as other processes that start with the
    # same ones then find most of each other's work done.
    first = {keys[i].tobytes(): i for i in lacking[::-1]}
    chosen = np.random.default_rng().permutation(list(first.values()))
    compute = partial(
        fill_gaps, transform=transform, wider=wider, library=library, store=store
    )
    try:
        coefficients[chosen] = in_batches(
            compute,
            [structures[i] for i in chosen],
            [weights[i] for i in chosen],
            keys[chosen],
        )
    except BrokenProcessPool as error:
        raise type(error)(
            f"{error}\nThe coefficients that were computed before are in {store!r}: "
            "started again, the computation continues from there. If memory ran out, "
            "choose a smaller n_jobs."
        ) from error
    coefficients[lacking] = coefficients[[first[keys[i].tobytes()] for i in lacking]]
    return coefficients


def recall_arrays(
    store: CoefficientStore | None,
    names: Sequence[str],
    settings: Mapping[str, Any],
    compute: Callable[[list[int]], Sequence[_Array]],
) -> list[_Array]:
    """Read arrays of three dimensions from a store, or compute and save them.

    Parameters
    ----------
    store : CoefficientStore or None
    names : sequence of str
        Such as from :func:`jacobian_names`.
    settings : mapping
        Of their :class:`~skscatharm.transform.transform.Transform`.
    compute : callable
        Returns the arrays of some indices.

    Returns
    -------
    list of ndarray
    """
    if store is None:
        return list(compute(list(range(len(names)))))
    known = store.read_arrays(names, settings)
    found = {i: array for i, array in enumerate(known) if array is not None}
    lacking = [i for i in range(len(names)) if i not in found]
    if lacking:
        for i, array in zip(lacking, compute(lacking), strict=True):
            found[i] = array
            store.write_array(names[i], array, settings)
    return [found[i] for i in range(len(names))]


def known_keys(
    X: Any,
    check: Callable[[], _Molecules],
    tables: Mapping[str, Mapping[int, float]],
    settings: Mapping[str, Any],
    limits: Mapping[str, Any] | None = None,
) -> _Keys:
    """Check molecules and return their keys.

    A search passes the same arrays many times. The keys of an array are remembered by
    its content, the weights of the channels, the settings and the limits, and it is not
    checked again.

    Parameters
    ----------
    X, check, tables, limits
        As in :func:`recall`.
    settings : mapping
        Those of a transform.

    Returns
    -------
    ndarray of shape (n_molecules, n_channels)
    """
    # Other types, such as masked arrays, hold more than their bytes.
    if type(X) not in (np.ndarray, np.memmap) or X.dtype.kind not in "fiu":
        return density_keys(*check(), settings)
    common = [X.shape, X.dtype.str, canonical(settings), canonical(limits or {})]
    common += map(len, tables.values())
    digest = blake2b(repr(common).encode())
    for table in tables.values():
        digest.update(np.array([*table, *table.values()], dtype=np.float64).tobytes())
    digest.update(np.ascontiguousarray(X).reshape(-1).data)
    token = digest.digest()
    with _lock:
        keys = _known_keys.pop(token, None)
    if keys is None:
        keys = density_keys(*check(), settings)
    with _lock:
        _known_keys[token] = keys
        while (
            len(_known_keys) > _KNOWN_ARRAYS
            or sum(known.nbytes for known in _known_keys.values()) > _KNOWN_BYTES
        ):
            _known_keys.popitem(last=False)
    return keys


def density_keys(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    settings: Mapping[str, Any],
) -> _Keys:
    """Digest everything that the coefficients of molecules depend on.

    Parameters
    ----------
    structures : sequence of Structure
    weights : sequence of ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    settings : mapping
        Everything else, such as the width, that JSON can write.

    Returns
    -------
    ndarray of shape (n_molecules, n_channels)
    """
    common = blake2b(canonical(settings).encode(), digest_size=DIGEST_SIZE)
    joined = settings.get("joins_channels", False)
    signed = settings.get("signed", ())
    digests = []
    for structure, rows in zip(structures, weights, strict=True):
        molecule = common.copy()
        molecule.update(structure.charges.tobytes())
        molecule.update(structure.positions.tobytes())
        if structure.reference is not None:
            molecule.update(structure.reference.tobytes())
        if structure.cell is not None:
            pbc = np.array(structure.pbc)
            molecule.update(pbc.tobytes() + structure.cell[pbc].tobytes())
        if signed:
            # The weights of these atoms may all be of one sign.
            rows = np.column_stack([rows, np.isin(range(len(rows)), signed)])
        for c, row in enumerate(rows):
            density = molecule.copy()
            # A shift leads from a channel to those after it.
            density.update((np.roll(rows, -c, axis=0) if joined else row).tobytes())
            digests.append(density.digest())
    keys = np.frombuffer(b"".join(digests), dtype=f"V{DIGEST_SIZE}")
    return keys.reshape(len(structures), -1)


def jacobian_names(keys: _Keys, transform: Transform) -> list[str]:
    """Name the Jacobian of each molecule.

    Parameters
    ----------
    keys : ndarray of shape (n_molecules, n_channels)
    transform : Transform
        Of the coefficients, in this order.

    Returns
    -------
    list of str
        Hexadecimal digests.
    """
    # Derivatives with respect to strain stand beside those to positions.
    layout = [list(transform.integrands), list(transform.exponents), "strain"]
    if transform.pairs:
        layout.append(tuple(transform.kept))
    common = repr(tuple(layout)).encode()
    return [
        blake2b(common + row.tobytes(), digest_size=DIGEST_SIZE).hexdigest()
        for row in keys
    ]


def fill_gaps(
    structures: Sequence[Structure],
    weights: Sequence[_Array],
    keys: _Keys,
    transform: Transform,
    wider: Transform,
    library: Library,
    store: Store,
) -> _Array:
    """Compute the missing coefficients of a batch, and save them.

    Another process may have computed them by now: the store is read first.

    Parameters
    ----------
    structures, weights
        As for :func:`~skscatharm.engine.scattering_batch`.
    keys : ndarray of shape (n_molecules, n_channels)
        Keys of the molecules, made with these settings.
    transform, wider, library, store
        As for :func:`recall`. Of the wider transform, paths are computed only if they
        reuse a first-order field that is computed anyway, up to the largest scale that
        is stored already if this is enough for `transform`.

    Returns
    -------
    ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
    """
    paths, Q = transform.paths, transform.exponents
    first_order = set(map(_first_field, paths))
    extra = [
        path
        for path in wider.paths
        if path not in paths and _first_field(path) in first_order
    ]
    all_paths: list[Path | Pair] = [*paths, *extra, *transform.pairs]
    wanted = np.array([path not in extra for path in all_paths])
    # Always in this order, so that rounding does not depend on earlier calls.
    all_exponents = sorted({*Q, *wider.exponents})
    asked = [all_exponents.index(q) for q in Q]
    values = store.read(keys, all_paths, all_exponents, transform.settings)
    needed = _needed(all_paths, all_exponents, wider)
    lacking = np.isnan(values) & _allowed(values, all_paths, wanted) & needed
    groups = _alike(lacking, all_paths, wanted, asked)
    joined = transform.joins_channels
    for lacks, rows, channels in groups:
        on_path, of_q = lacks.any(axis=1), lacks.any(axis=0)
        new_paths = [all_paths[i] for i in np.flatnonzero(on_path)]
        new_exponents = [all_exponents[i] for i in np.flatnonzero(of_q)]
        computed = scattering_batch(
            [structures[i] for i in rows],
            [weights[i] if joined else weights[i][channels] for i in rows],
            replace(
                transform,
                paths=tuple(path for path in new_paths if isinstance(path, Path)),
                exponents=tuple(new_exponents),
                pairs=tuple(path for path in new_paths if isinstance(path, Pair)),
                path_exponents=None,
                signed=tuple(
                    np.flatnonzero(np.isin(channels, transform.signed)).tolist()
                ),
            ),
            library,
        ).swapaxes(1, 2)
        if joined:
            computed = computed[:, channels]
        # Stored coefficients stay as they are.
        computed[..., ~lacks[np.ix_(on_path, of_q)]] = np.nan
        # Paths and pairs have different exponents: together, they would leave gaps.
        for kind in (Path, Pair):
            of_kind = [i for i, path in enumerate(new_paths) if isinstance(path, kind)]
            part = computed[:, :, of_kind]
            found = np.flatnonzero(~np.isnan(part).all(axis=(0, 1, 2)))
            if len(found):
                store.write(
                    keys[np.ix_(rows, channels)],
                    [new_paths[i] for i in of_kind],
                    [new_exponents[i] for i in found],
                    part[..., found],
                    transform.settings,
                )
        where = np.ix_(rows, channels, on_path, of_q)
        values[where] = np.where(np.isnan(computed), values[where], computed)
    # Channels of equal weights have the same key: the store keeps the first.
    equal = keys[:, :, np.newaxis] == keys[:, np.newaxis, :]
    first = equal.argmax(axis=2)[..., np.newaxis, np.newaxis]
    values = np.where(needed, np.take_along_axis(values, first, axis=1), 0.0)
    return values[:, :, wanted][..., asked].swapaxes(1, 2)


def _needed(
    paths: Sequence[Path | Pair],
    exponents: Sequence[float],
    transform: Transform,
) -> NDArray[np.bool_]:
    """Find which exponents paths and pairs need: all but those of the others alone.

    Returns
    -------
    ndarray of shape (n_paths, n_exponents)
    """
    for_paths, for_pairs = (
        [chosen is None or q in chosen for q in exponents]
        for chosen in (transform.path_exponents, transform.pair_exponents)
    )
    return np.array([for_pairs if isinstance(p, Pair) else for_paths for p in paths])


def _first_field(path: Path | Pair) -> Path | str:
    """Return the path of the field that a path starts from.

    All pairs share their fields.
    """
    return "pairs" if isinstance(path, Pair) else Path(path.scales[:1], path.degree)


def _allowed(
    values: _Array, paths: Sequence[Path | Pair], wanted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Find the paths that do not go beyond the scales that are in use already.

    Parameters
    ----------
    values : ndarray of shape (n_molecules, n_channels, n_paths, n_exponents)
        The stored coefficients, and NaN.
    paths : sequence of Path or Pair
    wanted : ndarray of bool of shape (n_paths,)
        Which are needed now.

    Returns
    -------
    ndarray of shape (n_molecules, n_channels, n_paths, 1)
    """
    last = np.array(
        [
            path.scales[-1] if isinstance(path, Path) and len(path.scales) == 2 else 0
            for path in paths
        ]
    )
    stored = ~np.isnan(values).all(axis=3)
    largest = np.max(stored * last, axis=2, keepdims=True)
    enough = largest >= max(1, last[wanted].max())
    allowed = ~enough | (last <= largest)
    return allowed[..., np.newaxis]


def _alike(
    lacking: NDArray[np.bool_],
    paths: Sequence[Path | Pair],
    wanted: NDArray[np.bool_],
    asked_exponents: Sequence[int],
) -> list[tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]]:
    """Group the molecules and channels that lack the same coefficients.

    Fields of order 1 of which nothing is needed now are left alone.

    Parameters
    ----------
    lacking : ndarray of shape (n_molecules, n_channels, n_paths, n_exponents)
    paths : sequence of Path or Pair
    wanted : ndarray of bool of shape (n_paths,)
        Which are needed now.
    asked_exponents : sequence of int
        Indices of the exponents that are needed now.

    Returns
    -------
    list of tuple
        A mask of missing coefficients, of shape (n_paths, n_exponents), and indices of
        molecules and of channels.
    """
    fields: dict[Any, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        fields[_first_field(path)].append(i)
    for of_field in fields.values():
        asked = [i for i in of_field if wanted[i]]
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
