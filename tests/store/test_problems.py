"""Warnings about stores."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skscatharm import SolidHarmonicScattering, StoreWarning


@pytest.fixture
def blocked(tmp_path) -> SolidHarmonicScattering:
    """A fast transformer with a store that cannot be written."""
    (tmp_path / "file").touch()
    return SolidHarmonicScattering(0, 0, (1,), 0.8, memory=tmp_path / "file" / "store")


def warn_at(action) -> warnings.WarningMessage:
    with pytest.warns(StoreWarning, match="cannot be kept") as caught:
        action()
    assert len(caught) == 1
    return caught[0]


def test_a_warning_shows_the_line_of_the_user(blocked, molecules) -> None:
    found = warn_at(lambda: blocked.transform(molecules[:3]))
    line = Path(found.filename).read_text().splitlines()[found.lineno - 1]
    assert "blocked.transform(molecules[:3])" in line


def test_a_search_gives_one_warning_at_the_line_of_the_user(blocked, molecules) -> None:
    search = GridSearchCV(
        make_pipeline(blocked, Ridge()),
        {"solidharmonicscattering__sigma": [0.8, 0.9, 1.0]},
        cv=2,
    )
    found = warn_at(lambda: search.fit(molecules, range(20)))
    line = Path(found.filename).read_text().splitlines()[found.lineno - 1]
    assert "search.fit(molecules" in line


def test_one_warning_for_many_batches(blocked, molecules) -> None:
    # Each of these molecules is a batch of its own.
    warn_at(lambda: blocked.transform(molecules[:7]))


def test_a_warning_without_lines_of_a_user() -> None:
    # As in a worker process, where all that calls is a library.
    script = """
import skscatharm.store.problems as problems
exec(compile("report('lost')", "x", "exec"), problems.__dict__)
"""
    script = "import warnings; warnings.simplefilter('always')" + script
    namespace = "{'__name__': 'sklearn.worker'}"
    command = [sys.executable, "-c", f"exec({script!r}, {namespace})"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "StoreWarning: lost" in result.stderr
