import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.regression.derivatives import check_derivatives, reduce_derivatives
from skscatharm.regression.whitening import find_whitening


def test_none() -> None:
    assert check_derivatives(None, None, 3, 2) is None


def test_axes_of_coordinates_are_joined(rng) -> None:
    jacobian, gradients = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(3, 4, 5))
    found = check_derivatives(jacobian.tolist(), gradients, 3, 2)
    assert found is not None
    assert_array_equal(found[0], jacobian.reshape(3, 2, 20))
    assert_array_equal(found[1], gradients.reshape(3, 20))


@pytest.mark.parametrize(
    ("jacobian", "gradients", "message"),
    [
        (np.ones((3, 2, 4)), None, "jacobian needs gradients"),
        (None, np.ones((3, 4)), "gradients needs jacobian"),
        (np.ones((2, 2, 4)), np.ones((2, 4)), r"jacobian has shape \(2, 2, 4\)"),
        (np.ones((3, 2)), np.ones(3), r"jacobian has shape \(3, 2\)"),
        (np.ones((3, 2, 4)), np.ones((3, 5)), r"gradients of shape \(3, 4\)"),
        (np.ones((3, 2, 4)), np.ones((3, 2, 2)), r"gradients of shape \(3, 4\)"),
        (1j * np.ones((3, 2, 4)), np.ones((3, 4)), "Complex data not supported"),
    ],
)
def test_bad_shapes(jacobian, gradients, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_derivatives(jacobian, gradients, 3, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["jacobian", "gradients"])
def test_not_finite(name, value) -> None:
    arrays = {"jacobian": np.ones((3, 2, 4)), "gradients": np.ones((3, 4))}
    arrays[name][1, 1] = value
    with pytest.raises(ValueError, match=f"{name} has NaN .* for sample 1"):
        check_derivatives(*arrays.values(), 3, 2)


def test_directions(rng) -> None:
    # Three features of five coordinates, of which one is padding.
    jacobian = rng.normal(size=(4, 3, 5))
    jacobian[:, :, 2] = 0
    jacobian[1, 2] = jacobian[1, 0]  # there, two directions are left
    jacobian[3] = 0
    slopes = rng.normal(size=(4, 3))
    gradients = np.einsum("npc,np->nc", jacobian, slopes)
    whitening = find_whitening(rng.normal(size=(10, 3)), np.ones(10))
    found = reduce_derivatives(jacobian, gradients, whitening)
    assert np.bincount(found.owners, minlength=4).tolist() == [3, 2, 3, 0]
    for sample in range(4):
        own = found.owners == sample
        # No length and no angle has changed.
        white = jacobian[sample].T @ whitening.matrix
        assert_allclose(
            found.features[own].T @ found.features[own], white.T @ white, atol=1e-12
        )
        assert_allclose(
            found.features[own].T @ found.targets[own],
            white.T @ gradients[sample],
            atol=1e-12,
        )
