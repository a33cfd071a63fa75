"""Cholesky factorisation of large matrices by block rows."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from skscatharm.regression.whitening import Array


class BlockCholesky:
    """Lower triangular factor of a positive definite matrix, in block rows.

    Only the lower triangle is stored, and the matrix is never held beside it. LAPACK of
    SciPy's wheels fails on matrices of more than about 20,000 rows.

    Parameters
    ----------
    n_blocks : int
        Number of blocks.
    block : callable
        ``block(i, j)`` returns the block of block row i and block column j <= i.
    progress : callable
        Called after each block row.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite.
    """

    def __init__(
        self,
        n_blocks: int,
        block: Callable[[int, int], Array],
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self._rows: list[list[Array]] = []
        for i in range(n_blocks):
            row: list[Array] = []
            for j in range(i + 1):
                part = block(i, j)
                above = row if j == i else self._rows[j]
                for left, right in zip(row[:j], above[:j], strict=True):
                    part -= left @ right.T
                if j == i:
                    row.append(np.asarray(np.linalg.cholesky(part), np.float64))
                else:
                    corner = self._rows[j][j]
                    row.append(
                        solve_triangular(
                            corner, part.T, lower=True, check_finite=False
                        ).T
                    )
            self._rows.append(row)
            progress()

    def solve(self, sides: Array) -> Array:
        """Solve for right-hand sides of shape (n_rows, n_sides)."""
        ends = np.cumsum([len(row[-1]) for row in self._rows])
        parts = np.split(sides, ends[:-1])
        for i, row in enumerate(self._rows):
            for j, left in enumerate(row[:-1]):
                parts[i] = parts[i] - left @ parts[j]
            parts[i] = solve_triangular(row[-1], parts[i], lower=True)
        for i in reversed(range(len(parts))):
            parts[i] = solve_triangular(
                self._rows[i][-1], parts[i], lower=True, trans=1
            )
            for j, left in enumerate(self._rows[i][:-1]):
                parts[j] = parts[j] - left.T @ parts[i]
        return np.concatenate(parts)
