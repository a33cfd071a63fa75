import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skscatharm import __main__ as demo


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search few candidates, whose coefficients are fast to compute."""
    grid = {"scattering__J": [0, 1], "scattering__L": [0, 1]}
    monkeypatch.setattr(
        demo,
        "GRID",
        [
            {**grid, "regression": [demo.RIDGE]},
            {
                "scattering__J": [1],
                "scattering__L": [1],
                "regression": [demo.QUADRATIC],
            },
        ],
    )
    fast = partial(demo.SolidHarmonicScattering, sigma=0.5, tol=1e-3)
    monkeypatch.setattr(
        demo,
        "SolidHarmonicScattering",
        lambda J=1, L=1, **options: fast(J, L, **options),
    )


def run(folder: Path) -> None:
    demo.main(["--molecules", "60", "--jobs", "1", "--output", str(folder)])


def table(text: str, last_column: str) -> list[list[str]]:
    """Split the rows of the table whose head ends with a column."""
    _, _, below = text.partition(last_column + "\n")
    rows, _, _ = below.partition("\n\n")
    return [re.split(r" {2,}", row.strip()) for row in rows.splitlines()]


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "new" / "folder")
    printed, progress = capsys.readouterr()

    candidates = table(printed, "time (ms/molecule)")
    assert sorted(tuple(row[:3]) for row in candidates) == [
        ("0", "0", "ridge"),
        ("0", "1", "ridge"),
        ("1", "0", "ridge"),
        ("1", "1", "quadratic"),
        ("1", "1", "ridge"),
    ]
    numbers = np.array([row[3:] for row in candidates], dtype=float)
    assert (np.diff(numbers[:, 0]) >= 0).all()
    assert (numbers > 0).all()

    rows = table(printed, f"15 other molecules  {demo.ERROR}")
    errors = {name: float(error) for name, error in rows}
    assert list(errors) == ["mean", "ridge", "best candidate"]
    assert 0 < errors["ridge"] < 0.5 * errors["mean"]
    assert 0 < errors["best candidate"] < 0.5 * errors["mean"]

    curve = np.array(table(printed, f"of the best candidate  {demo.ERROR}"), float)
    assert_array_equal(curve[:, 0], [9, 18, 36])
    assert (curve[:, 1] > 0).all()
    found = re.search(r"n\^(-\d\.\d+): with 90 molecules.* about (\d+\.\d+) ", printed)
    assert found is not None
    exponent, error = map(float, found.groups())
    expected = np.exp(np.log(curve[:, 1]).mean())
    expected *= (90 / np.exp(np.log(curve[:, 0]).mean())) ** exponent
    assert error == pytest.approx(expected, rel=0.02, abs=0.005)

    assert "60/60" in progress
    assert "5 folds for each of 5 candidates" in printed
    picture = tmp_path / "new" / "folder" / demo.PICTURE
    assert str(picture) in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_extrapolate() -> None:
    sizes = np.array([10, 20, 40, 80])
    exponent, error = demo.extrapolate(sizes, 7 * sizes**-0.6, 160)
    assert exponent == pytest.approx(-0.6)
    assert error == pytest.approx(7 * 160**-0.6)


def test_without_matplotlib(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(tmp_path)
    printed = capsys.readouterr().out
    assert "pip install matplotlib" in printed
    assert "best candidate" in printed
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
