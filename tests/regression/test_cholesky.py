import numpy as np
import pytest
from numpy.testing import assert_allclose

from skscatharm.regression.cholesky import BlockCholesky


@pytest.mark.parametrize("sizes", [[7], [3, 4], [2, 5, 1, 4]])
def test_solve(rng, sizes) -> None:
    ends = np.cumsum(sizes)
    factor = rng.normal(size=(ends[-1], ends[-1]))
    matrix = factor @ factor.T + np.eye(ends[-1])
    places = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    found = BlockCholesky(len(sizes), lambda i, j: matrix[places[i], places[j]].copy())
    sides = rng.normal(size=(ends[-1], 2))
    assert_allclose(found.solve(sides), np.linalg.solve(matrix, sides))


def test_not_definite() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        BlockCholesky(1, lambda i, j: -np.eye(2))
