import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skscatharm.engine import find_engine, scattering_batch
from skscatharm.engine.arrays import Library
from skscatharm.engine.spectral import SpectralFields
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform

CPU = Library("numpy", "cpu")
DEVICE = Library("numpy", "a device, as far as batches are concerned")


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("auto", "separable"),
        ("separable", "separable"),
        ("fourier", "fourier"),
    ],
)
def test_find_engine(engine, expected) -> None:
    assert find_engine(engine) == expected


@pytest.fixture(scope="module")
def batch(molecules):
    structures = check_structures(molecules)
    weights = channel_weights(resolve_channels(["nuclear"]), structures)
    return structures, weights


def compute(batch, library, engine="fourier"):
    paths = tuple(scattering_paths(1, 1, 2))
    transform = Transform(paths, (1.0, 2.0), 0.8, 1e-3, 0.0, "float64", engine)
    return scattering_batch(*batch, transform, library)


@pytest.mark.parametrize("engine", ["separable", "fourier"])
def test_settings_of_numpy_for_errors_do_not_matter(engine, batch) -> None:
    part = batch[0][:2], batch[1][:2]
    expected = compute(part, CPU, engine)
    with np.errstate(all="raise"):
        assert_array_equal(compute(part, CPU, engine), expected)


class TestBatches:
    """On a device, as many molecules at a time as there is memory for."""

    @pytest.fixture(scope="class")
    @staticmethod
    def expected(batch):
        return compute(batch, CPU)

    @pytest.fixture
    def sizes(self, monkeypatch):
        """Sizes of the batches that are computed from now on."""
        return self.limit(monkeypatch, np.inf)

    @staticmethod
    def limit(monkeypatch, largest):
        """Let memory run out for batches larger than this; return sizes of batches."""
        sizes = []
        original = SpectralFields.coefficients

        def record(fields):
            sizes.append(len(fields.source.positions))
            if sizes[-1] > largest:
                raise MemoryError
            return original(fields)

        monkeypatch.setattr(SpectralFields, "coefficients", record)
        return sizes

    def test_cpu_takes_one_after_another(self, batch, sizes) -> None:
        compute(batch, CPU)
        assert sizes == [1] * 20

    @pytest.mark.parametrize("free", [2**36, 2**24, 2**22, 0])
    def test_memory_decides(self, free, batch, expected, sizes, monkeypatch) -> None:
        monkeypatch.setattr(Library, "free_memory", lambda library: free)
        assert_allclose(compute(batch, DEVICE), expected, rtol=1e-9)
        assert sum(sizes) == 20
        if free == 0:
            assert sizes == [1] * 20
        elif free == 2**36:
            # Molecules of like spacing.
            assert max(sizes) > 5
        else:
            assert 1 <= max(sizes) <= free / 2**20

    def test_running_out_of_memory(self, batch, expected, monkeypatch) -> None:
        sizes = self.limit(monkeypatch, 3)
        monkeypatch.setattr(Library, "free_memory", lambda library: 2**36)
        assert_allclose(compute(batch, DEVICE), expected, rtol=1e-9)
        assert sum(size for size in sizes if size <= 3) == 20
        assert max(sizes) > 3

    def test_molecule_too_large_for_the_memory(self, batch, monkeypatch) -> None:
        self.limit(monkeypatch, 0)
        monkeypatch.setattr(Library, "free_memory", lambda library: 2**36)
        with pytest.raises(MemoryError):
            compute(batch, DEVICE)
