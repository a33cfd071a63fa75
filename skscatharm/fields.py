"""Fields of a molecule at points: names and points checked, values in rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skscatharm.engine import fields_at
from skscatharm.engine.arrays import to_host
from skscatharm.engine.points import Lattice, Points, Scattered
from skscatharm.structures import Structure
from skscatharm.transform.columns import list_columns, path_names
from skscatharm.transform.transform import Transform

__all__ = ["choose_paths", "compute_fields", "read_points"]

_Array = NDArray[np.float64]

_LARGEST = 4 * 2**30  # bytes of the fields of a molecule
_FORMS = (
    "an array of shape (n_points, 3) in Å, or a tuple of three arrays with the "
    "coordinates of a lattice along x, y and z"
)


def read_points(points: Any) -> tuple[Points, list[NDArray[np.intp]]]:
    """Read points, and sort the coordinates of a lattice.

    Parameters
    ----------
    points : array-like of shape (n_points, 3) or tuple of three arrays

    Returns
    -------
    points : Points
    places : list of ndarray of int
        For each axis of a lattice, where each coordinate is among the sorted ones.

    Raises
    ------
    ValueError
        If points have another shape, are no finite numbers, or there are none.
    """
    is_lattice = isinstance(points, tuple) and all(
        np.ndim(to_host(p)) == 1 for p in points
    )
    arrays = [_numbers(p) for p in (points if is_lattice else [points])]
    shapes = [array.shape for array in arrays]
    if is_lattice and len(arrays) != 3:
        raise ValueError(f"points are a tuple of {len(arrays)} arrays; pass {_FORMS}.")
    if not is_lattice and (arrays[0].ndim != 2 or shapes[0][1] != 3):
        raise ValueError(f"points have shape {shapes[0]}; pass {_FORMS}.")
    if any(array.size == 0 for array in arrays):
        raise ValueError(f"points are empty, of shape {shapes[0]}; pass {_FORMS}.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("points have NaN or infinite coordinates; leave these out.")
    if not is_lattice:
        return Scattered(arrays[0]), []
    orders = [np.argsort(array, kind="stable") for array in arrays]
    x, y, z = (array[order] for array, order in zip(arrays, orders, strict=True))
    return Lattice((x, y, z)), [np.argsort(order) for order in orders]


def choose_paths(
    paths: Any, channels: Sequence[str], transform: Transform, style: str
) -> dict[str, tuple[int, int]]:
    """Look up paths by their names: return the index of the path and of the channel.

    Parameters
    ----------
    paths : sequence of str or None
        None are all.
    channels : sequence of str
    transform : Transform
    style : {"plain", "readable"}

    Raises
    ------
    TypeError
        If `paths` is not a sequence.
    ValueError
        If a name is unknown or repeated, or there is none.
    """
    known = {
        name: (column.path, column.channel)
        for name, column in zip(
            path_names(channels, transform.paths, style),
            list_columns(transform.paths, len(channels), 1),
            strict=True,
        )
    }
    if paths is None:
        return known
    if isinstance(paths, str | Mapping) or not hasattr(paths, "__iter__"):
        raise TypeError(
            f"paths must be a sequence of names, as in [{next(iter(known))!r}], or "
            f"None for all; got {paths!r}."
        )
    names = list(paths)
    for i, name in enumerate(names):
        if name not in known:
            raise ValueError(
                f"The path {name!r} is not computed with these parameters. "
                f"get_path_names_out() has the {len(known)} names, such as "
                f"{list(known)[-1]!r}; they have no exponent q. Change J, L, max_order "
                "or channels to compute others."
            )
        if name in names[:i]:
            raise ValueError(f"paths holds {name!r} twice; give each name once.")
    if not names:
        raise ValueError("paths is empty; pass names, or None for all.")
    return {name: known[name] for name in names}


def compute_fields(
    structure: Structure,
    weights: _Array,
    points: Any,
    chosen: Mapping[str, tuple[int, int]],
    transform: Transform,
    components: bool,
) -> _Array | dict[str, _Array]:
    """Compute the fields of a molecule on some paths.

    Parameters
    ----------
    structure : Structure
    weights : ndarray of shape (n_channels, n_atoms)
    points : array-like of shape (n_points, 3) or tuple of three arrays
    chosen : mapping
        From :func:`choose_paths`.
    transform : Transform
    components : bool

    Returns
    -------
    ndarray of shape (n_chosen, *shape of the points)
        With `components`, a dict of ndarray of shape (2 * degree + 1, *shape of the
        points).

    Raises
    ------
    ValueError
        As :func:`read_points`, or if the result would take too much memory.
    """
    where, places = read_points(points)
    paths = list(dict.fromkeys(transform.paths[path] for path, _ in chosen.values()))
    channels = list(dict.fromkeys(channel for _, channel in chosen.values()))
    values = sum(2 * path.degree + 1 if components else 1 for path in paths)
    size = 8.0 * values * len(channels) * np.prod(where.shape)
    if size > _LARGEST:
        raise ValueError(
            f"The fields of {len(paths)} paths in {len(channels)} channels at "
            f"{np.prod(where.shape)} points would take {size / 2**30:.3g} GiB "
            f"({_LARGEST / 2**30:g} GiB are allowed). Pass fewer points or paths."
        )
    found = fields_at(
        structure,
        weights[channels],
        where,
        replace(transform, paths=tuple(paths)),
        components,
    )

    def of(path: int, channel: int) -> _Array:
        field = found[transform.paths[path]]
        field = np.take(field, channels.index(channel), axis=-len(where.shape) - 1)
        for axis, place in enumerate(places):
            field = np.take(field, place, axis=axis - len(places))
        return field

    if components:
        return {name: of(*indices) for name, indices in chosen.items()}
    return np.stack([of(*indices) for indices in chosen.values()])


def _numbers(array: Any) -> _Array:
    try:
        return np.asarray(to_host(array), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"points are no numbers ({error}); pass {_FORMS}.") from error
