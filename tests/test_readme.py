"""The code that README and the documentation show runs."""

import doctest
import re
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def test_first_search(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    (block,) = re.findall(r"^\.\. code-block:: python\n((?:\n|    .*\n)+)", text, re.M)
    names: dict[str, object] = {}
    exec(dedent(block), names)
    printed = capsys.readouterr().out
    assert "'scattering__J'" in printed
    assert "kcal/mol" in printed
    search, y = names["search"], names["y"]
    assert -search.best_score_ < 0.3 * np.abs(y - y.mean()).mean()


@pytest.mark.parametrize("page", ["quickstart", "searches"])
def test_documentation(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testfile(
        str(ROOT / "doc" / f"{page}.rst"),
        module_relative=False,
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
        encoding="utf-8",
    )
    assert results.attempted > 0
    assert results.failed == 0
