from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.engine import check_accuracy
from skscatharm.engine.accuracy import (
    SMOOTHING,
    Accuracy,
    check_signs,
    exponent_classes,
    weight_classes,
)
from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform

TOLS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
SOFTNESSES = (0.0, 1e-3, 0.05, 0.1, 0.2, 0.4)
DEGREES = (0, 1, 2, 3, 4, 7, 12, 20)
ORDERS = (1, 2)


def rises(values) -> bool:
    return bool(np.all(np.diff(values) >= 0)) and values[-1] > values[0]


def falls(values) -> bool:
    return rises(values[::-1])


@pytest.mark.parametrize("softness", SOFTNESSES)
@pytest.mark.parametrize("degree", DEGREES)
class TestTolerance:
    """A smaller tolerance never makes a grid coarser or smaller."""

    @staticmethod
    def rules(softness):
        return [Accuracy(tol, softness) for tol in TOLS]

    @pytest.mark.parametrize("order", ORDERS)
    def test_steps(self, order, degree, softness) -> None:
        rules = self.rules(softness)
        for crowding in (0.5, 2.0, 5.0):
            assert rises([r.step(order, degree, crowding) for r in rules])
            outer = [r.outer_step(order, degree, crowding) for r in rules]
            # With softening, one of two rules decides, and the other may be stricter.
            assert softness > 0 or rises(outer[:-1])
            for r, step in zip(rules, outer, strict=True):
                largest = 0.85 if order == 2 else 2.4 * 0.85
                assert r.step(order, degree, crowding) <= step <= largest

    def test_reaches(self, degree, softness) -> None:
        rules = self.rules(softness)
        assert falls([r.margin(degree) for r in rules])
        assert falls([r.cut(degree) for r in rules])
        assert falls([r.wavelet_cut(degree) for r in rules])
        assert falls([r.smoothing_cut(degree) for r in rules])
        assert falls([r.coarse_margin(degree, 0.5) for r in rules])

    def test_coarse_and_spectral_steps(self, degree, softness) -> None:
        rules = self.rules(softness)
        assert rises([r.spectral_step(degree) for r in rules])
        for width in (0.31, 0.5, 1.0):
            assert rises([r.coarse_step(degree, width, 0.44) for r in rules])


@pytest.mark.parametrize("tol", TOLS)
class TestOtherArguments:
    @pytest.mark.parametrize("softness", SOFTNESSES)
    def test_degree(self, tol, softness) -> None:
        r = Accuracy(tol, softness)
        degrees = DEGREES[1:]  # degree 0 is not softened
        assert rises([r.margin(degree) for degree in degrees])
        assert rises([r.cut(degree) for degree in degrees])
        assert rises([r.wavelet_cut(degree) for degree in degrees])
        assert rises([r.coarse_margin(degree, 0.5) for degree in degrees])
        assert falls([r.spectral_step(degree) for degree in degrees])
        assert falls([r.coarse_step(degree, 0.5, 0.44) for degree in degrees])
        assert r.cut(3) > r.margin(3)
        assert r.cut(0) == r.margin(0)

    @pytest.mark.parametrize(("order", "degree"), [*product(ORDERS, DEGREES)])
    def test_softness(self, tol, order, degree) -> None:
        rules = [Accuracy(tol, softness) for softness in SOFTNESSES]
        steps = [r.step(order, degree, np.inf) for r in rules]
        margins = [r.margin(degree) for r in rules]
        if degree == 0:
            assert len(set(steps)) == len(set(margins)) == 1
        else:
            assert np.all(np.diff(steps) >= 0)
            assert falls(margins)

    @pytest.mark.parametrize(("order", "degree"), [*product(ORDERS, DEGREES)])
    def test_exponent(self, tol, order, degree) -> None:
        rules = [Accuracy(tol, 0.4, exponent) for exponent in (4.0, 8.0, 16.0, 32.0)]
        steps = np.array([r.step(order, degree, np.inf) for r in rules])
        # Powers of a Gaussian are narrower Gaussians.
        assert_allclose(steps, steps[0] / np.sqrt([1, 2, 4, 8]))
        low = Accuracy(tol, 0.4, 1.0)
        assert low.step(order, degree, np.inf) == steps[0]

    @pytest.mark.parametrize(("order", "degree"), [*product(ORDERS, DEGREES)])
    def test_crowding(self, tol, order, degree) -> None:
        steps = [Accuracy(tol).step(order, degree, c) for c in (1.0, 2.0, 5.0, np.inf)]
        assert np.all(np.diff(steps) >= 0)

    def test_kinks(self, tol) -> None:
        r = Accuracy(tol, signed=True)
        near, far = (r.kink_step(0.16, np.array([d])) for d in (0.5, 3.0))
        assert far < near
        # The worst decides; without opposite signs there are no kinks.
        assert r.kink_step(0.16, np.array([0.5, 3.0])) == far
        assert r.kink_step(0.16, np.array([])) == r.kink_step(0.16, np.array([1e-3]))
        # What is rounded less asks for more points.
        assert_allclose(r.kink_step(0.04, np.array([3.0])), far / 4)

    def test_width_of_kinks(self, tol) -> None:
        r = Accuracy(tol, signed=True)
        order, largest = r.kink_kernel
        assert order >= 3
        far, near = np.array([[0, 0, 0], [0, 0, 60.0]]), np.diag([0, 0, 0.5])[1:]
        # Where one sign rules, it is that of the kernel.
        assert_allclose(r.kink_width(far, np.array([1.0, -1]), 1.0), largest)
        weights = np.array([1.0, -1.0])
        widths = [r.kink_width(near, weights, width) for width in (0.2, 1, 2, 4, 100)]
        assert falls(widths)
        assert r.kink_width(near, -3 * weights, 1.0) == widths[1]


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_kink_steps_shrink_with_the_tolerance(distance) -> None:
    steps = [
        Accuracy(tol).kink_step(0.16, np.array([distance]))
        for tol in (1e-8, 1e-6, 1e-5)
    ]
    assert rises(steps)


def test_softening_allows_larger_steps() -> None:
    for order, degree in product(ORDERS, (1, 2, 3, 4)):
        hard, soft = (Accuracy(1e-5, s).step(order, degree, np.inf) for s in (0.0, 0.4))
        assert soft > 1.3 * hard


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("degree", [0, 1, 3, 8])
def test_margin_leaves_a_small_share_outside(degree, tol) -> None:
    r = np.linspace(0, 60, 600_001)
    field = r ** (2 + degree / 2) * np.exp(-(r**2) / 4)  # q = 0.5
    outside = field[r > Accuracy(tol).margin(degree)].sum() / field.sum()
    assert outside == pytest.approx(0.05 * tol, rel=1e-2)


@pytest.mark.parametrize("softness", [1e-3, 0.1, 0.4])
@pytest.mark.parametrize("degree", [1, 3, 6, 12])
def test_margin_leaves_a_small_share_of_softened_moduli(degree, softness) -> None:
    # The modulus of an atom of weight 1 has a maximum of 1.
    r = np.linspace(0, 20, 200_001)
    x = np.where(r > 0, r / np.sqrt(degree), 1e-9)
    squared = np.exp(2 * degree * np.log(x) + degree - r**2)
    for q in (0.5, 1, 3):
        powers = r**2 * np.expm1(q / 2 * np.log1p(squared / softness**2))
        margin = Accuracy(1e-5, softness).margin(degree)
        assert powers[r > margin].sum() / powers.sum() < 0.05 * 1e-5


def test_smoothing_leaves_a_wavelet() -> None:
    # It is a part of the wavelet that follows.
    assert 0 < SMOOTHING < 1


def test_exponent_classes() -> None:
    Q = np.array([3.0, 0.5, 32, 4, 4.1, 16, 1, 8, 8.5])
    classes = exponent_classes(Q)
    assert [largest for largest, _ in classes] == [4, 8, 16, 32]
    assert [Q[i].tolist() for _, i in classes] == [
        [3, 0.5, 4, 1],
        [4.1, 8],
        [16, 8.5],
        [32],
    ]


class TestWeightClasses:
    def test_without_softening(self) -> None:
        weights = np.array([[1.0, 8.0], [1, -1], [0, 0], [-2, -3], [100, -0.1]])
        groups = weight_classes(weights, 0.0)
        assert [(*key, channels.tolist()) for *key, channels in groups] == [
            (0.0, False, [0, 2, 3]),
            (0.0, True, [1]),  # each alone
            (0.0, True, [4]),
        ]

    def test_softness_is_that_of_the_largest_weight(self) -> None:
        largest = np.array([1e-3, 1, 9.9, 10.1, 19.9, 20.1, 1e3, 1e6])
        weights = np.stack([largest, 0.1 * largest], axis=1)
        found = {}
        for softness, signed, channels in weight_classes(weights, 4.0):
            assert not signed
            found |= dict.fromkeys(channels.tolist(), softness)
        assert sorted(found) == list(range(8))
        for channel, softness in found.items():
            exact = min(4 / largest[channel], 0.4)
            assert exact / 2 < softness <= exact * (1 + 1e-12)

    def test_other_channels_do_not_matter(self, rng) -> None:
        weights = rng.normal(size=(12, 5)) * 10 ** rng.uniform(-2, 4, size=(12, 1))
        together = {}
        for softness, signed, channels in weight_classes(weights, 4.0):
            together |= dict.fromkeys(channels.tolist(), (softness, signed))
        for channel, row in enumerate(weights):
            ((softness, signed, channels),) = weight_classes(row[np.newaxis], 4.0)
            assert_array_equal(channels, [0])
            assert together[channel] == (softness, signed)


class TestCheckAccuracy:
    TRANSFORM = Transform(
        tuple(scattering_paths(1, 3, 2)),
        (1.0,),
        0.5,
        1e-5,
        4.0,
        "float32",
        "separable",
    )

    def check(self, L=3, **changes) -> None:
        paths = tuple(scattering_paths(1, L, 2))
        check_accuracy(replace(self.TRANSFORM, paths=paths, **changes))

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"tol": 2e-6},
            {"tol": 1e-8, "dtype": "float64"},
            {"tol": 1e-8, "dtype": "float64", "L": 12},
            {"tol": 1e-6, "dtype": "float64", "engine": "fourier"},
            {"tol": 1e-2, "L": 20},
            {"tol": 1e-5, "L": 20, "dtype": "float64"},
        ],
    )
    def test_tolerances_that_are_kept(self, changes) -> None:
        self.check(**changes)

    def test_single_precision(self) -> None:
        message = (
            r"tol=1e-07 cannot be kept with dtype='float32' and L=3: the least is "
            r"2e-06\. Choose a larger tol or dtype='float64'\."
        )
        with pytest.raises(ValueError, match=message):
            self.check(tol=1e-7)

    def test_high_degrees(self) -> None:
        message = (
            r"tol=2e-06 .* L=12: the least is \de-06\. Choose a larger tol or a "
            r"smaller L or dtype='float64'\."
        )
        with pytest.raises(ValueError, match=message):
            self.check(tol=2e-6, L=12)
        self.check(tol=4e-6, L=12)

    def test_double_precision_and_high_degrees(self) -> None:
        message = r"dtype='float64' and L=3: the least is 1e-08\. Choose a larger tol\."
        with pytest.raises(ValueError, match=message):
            self.check(tol=9e-9, dtype="float64")

    def test_fourier_engine(self) -> None:
        message = (
            r"tol=1e-07 cannot be kept with engine='fourier': the least is 1e-06\. "
            r"Choose a larger tol, or engine='separable'\."
        )
        with pytest.raises(ValueError, match=message):
            self.check(tol=1e-7, dtype="float64", engine="fourier")


def test_densities_that_cancel_are_refused() -> None:
    pair = np.array([[0, 0, 0], [0, 0, 0.8]])
    weights = np.array([[1.0, 1.0], [1.0, -1.0]])
    paths = tuple(scattering_paths(1, 0, 1))
    transform = Transform(paths, (1.0,), 0.5, 1e-4, 0.0, "float64", "separable")
    check_signs(7, pair, weights, transform)
    with pytest.raises(ValueError, match=r"Molecule 7: in channel 1, .* smaller J"):
        check_signs(7, pair / 4, weights, transform)
