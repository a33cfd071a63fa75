"""Progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    verbose: int, unit: str, total: int | None = None
) -> Iterator[Callable[..., object]]:
    """Show a progress bar, unless `verbose` is 0.

    Parameters
    ----------
    verbose : int
        Show a bar if not 0. Otherwise no thread is started either; even a disabled bar
        of tqdm starts one, which watches its bars.
    unit : str
        Name of one step.
    total : int or None, default=None
        Number of steps, if known.

    Yields
    ------
    update : callable
        Advances the bar by the given number of steps, by default one.
    """
    if verbose:
        with tqdm(total=total, unit=unit) as bar:
            yield bar.update
    else:
        yield lambda n=1: None
