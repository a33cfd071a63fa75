"""Warnings about stores: one for each problem, at the line of the user."""

import sys
import warnings
from threading import Lock

__all__ = ["StoreWarning", "report", "report_once", "solved", "unlisted"]

_LIBRARIES = {"skscatharm", "sklearn", "joblib"}

_lock = Lock()
_reported: set[tuple[str, str]] = set()


class StoreWarning(UserWarning):
    """A store has a problem. Coefficients that it cannot read are computed."""


def report(message: str) -> None:
    """Warn, and show the line outside of this package and its callers in libraries."""
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        level += 1
        if frame.f_back is None:
            break
        frame = frame.f_back
    warnings.warn(message, StoreWarning, stacklevel=level)


def report_once(folder: str, problem: str, message: str) -> None:
    """Warn, unless this process has done so and the problem is not solved since."""
    with _lock:
        if (folder, problem) in _reported:
            return
        _reported.add((folder, problem))
    report(message)


def solved(folder: str, problem: str) -> None:
    """Forget a problem: it is reported again if it comes back."""
    with _lock:
        _reported.discard((folder, problem))


def unlisted(folder: str, error: OSError) -> str:
    """Say that a folder cannot be listed."""
    return (
        f"{folder} cannot be listed, and its coefficients cannot be used: {error}. "
        "Give this process the right to read the folder, or choose another one."
    )
