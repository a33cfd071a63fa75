import pytest
from stores import forget

from skscatharm import CoefficientStore


@pytest.fixture
def store(tmp_path) -> CoefficientStore:
    return CoefficientStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def _new_process() -> None:
    forget()
