import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skscatharm import __main__ as demo


@pytest.fixture(autouse=True)
def _small_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    scattering = {"sigma": [0.5], "J": [0, 1], "L": [0, 1], "Q": [(1, 2)]}
    monkeypatch.setattr(demo, "SCATTERING_GRID", scattering)
    monkeypatch.setattr(demo, "REGRESSION_GRID", {"degree": [1, 2]})


def run(folder: Path) -> None:
    demo.main(["--molecules", "60", "--jobs", "1", "--output", str(folder)])


def table(text: str, last_column: str) -> list[list[str]]:
    """The rows of the table whose head ends with a column."""
    _, _, below = text.partition(last_column + "\n")
    rows, _, _ = below.partition("\n\n")
    return [re.split(r" {2,}", row.strip()) for row in rows.splitlines()]


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "new" / "folder")
    printed, progress = capsys.readouterr()

    candidates = table(printed, "time (ms/molecule)")
    assert {tuple(row[:5]) for row in candidates} == {
        ("0.5", J, L, "1, 2", regression)
        for J in "01"
        for L in "01"
        for regression in demo.REGRESSIONS
    }
    numbers = np.array([row[5:] for row in candidates], dtype=float)
    assert numbers.shape == (8, 2)
    assert np.isfinite(numbers).all()
    assert (np.diff(numbers[:, 0]) >= 0).all()

    regressions = table(printed, "fit (s)")
    assert {row[0] for row in regressions} == {
        "ridge",
        "multilinear degree=1",
        "multilinear degree=2",
    }
    assert np.isfinite([[float(x) for x in row[1:]] for row in regressions]).all()

    errors = {
        name: float(error) for name, error in table(printed, "error (kcal/mol)")[-3:]
    }
    assert list(errors) == ["mean", "ridge", "best of the search"]
    assert 0 < errors["ridge"] < 0.5 * errors["mean"]
    assert 0 < errors["best of the search"] < 0.5 * errors["mean"]

    assert "24/24" in progress
    assert "15/15" in progress
    picture = tmp_path / "new" / "folder" / demo.PICTURE
    assert str(picture) in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(tmp_path)
    printed = capsys.readouterr().out
    assert "pip install matplotlib" in printed
    assert "best of the search" in printed
    assert list(tmp_path.iterdir()) == []


def test_help() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "skscatharm", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for option in ("--molecules", "--output", "--jobs"):
        assert option in result.stdout


@pytest.mark.parametrize("number", ["59", "2001", "many"])
def test_number_of_molecules(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--molecules", number])
    assert "--molecules" in capsys.readouterr().err
