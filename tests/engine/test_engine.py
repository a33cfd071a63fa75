import pytest
from numpy.testing import assert_allclose

from skscatharm.engine import find_engine, fourier, scattering_batch
from skscatharm.engine.arrays import Library
from skscatharm.structures import check_structures
from skscatharm.structures.channels import channel_weights, resolve_channels
from skscatharm.transform.paths import scattering_paths
from skscatharm.transform.transform import Transform

CPU = Library("numpy", "cpu")
DEVICE = Library("numpy", "a device, as far as batches are concerned")


@pytest.mark.parametrize(
    ("engine", "library", "expected"),
    [
        ("auto", CPU, "separable"),
        ("auto", Library("torch", "cpu"), "separable"),
        ("auto", Library("cupy", 0), "fourier"),
        ("auto", Library("torch", "cuda:1"), "fourier"),
        ("fourier", CPU, "fourier"),
        ("separable", Library("cupy", 0), "separable"),
    ],
)
def test_find_engine(engine, library, expected) -> None:
    assert find_engine(engine, library) == expected


class TestBatches:
    """On a device, as many molecules at a time as there is memory for."""

    @pytest.fixture(scope="class")
    @staticmethod
    def batch(molecules):
        structures = check_structures(molecules)
        weights = channel_weights(resolve_channels(["nuclear"]), structures)
        return structures, weights

    @pytest.fixture(scope="class")
    @staticmethod
    def expected(batch):
        return TestBatches.compute(batch, CPU)

    @staticmethod
    def compute(batch, library):
        transform = Transform(
            tuple(scattering_paths(1, 1, 2)),
            (1, 2),
            0.8,
            1e-3,
            0.0,
            "float64",
            "fourier",
        )
        return scattering_batch(*batch, transform, library)

    @pytest.fixture
    def sizes(self, monkeypatch):
        """Sizes of the batches that are computed from now on."""
        sizes = []
        compute = fourier.scattering

        def scattering(positions, *args, **options):
            sizes.append(len(positions))
            return compute(positions, *args, **options)

        monkeypatch.setattr(fourier, "scattering", scattering)
        return sizes

    def test_cpu_takes_one_after_another(self, batch, sizes) -> None:
        self.compute(batch, CPU)
        assert sizes == [1] * 20

    @pytest.mark.parametrize(
        ("free", "largest"), [(2**36, 20), (2**24, 10), (2**22, 2), (0, 1)]
    )
    def test_memory_decides(
        self, free, largest, batch, expected, sizes, monkeypatch
    ) -> None:
        monkeypatch.setattr(Library, "free_memory", lambda library: free)
        assert_allclose(self.compute(batch, DEVICE), expected, rtol=1e-6)
        assert max(sizes) <= largest
        assert sum(sizes) == 20

    def test_running_out_of_memory(self, batch, expected, monkeypatch) -> None:
        sizes = []
        compute = fourier.scattering

        def scattering(positions, *args, **options):
            sizes.append(len(positions))
            if len(positions) > 3:
                raise MemoryError
            return compute(positions, *args, **options)

        monkeypatch.setattr(fourier, "scattering", scattering)
        monkeypatch.setattr(Library, "free_memory", lambda library: 2**36)
        assert_allclose(self.compute(batch, DEVICE), expected, rtol=1e-6)
        assert sizes[:4] == [20, 10, 5, 2]

    def test_molecule_too_large_for_the_memory(self, batch, monkeypatch) -> None:
        def scattering(*args, **options):
            raise MemoryError

        monkeypatch.setattr(fourier, "scattering", scattering)
        monkeypatch.setattr(Library, "free_memory", lambda library: 2**36)
        with pytest.raises(MemoryError):
            self.compute(batch, DEVICE)
