"""The code in README and in the documentation runs, and the files named exist."""

import doctest
import re
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
PAGES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("", "how-to", "explanation", "developers")
    for path in sorted((ROOT / "doc" / folder).glob("*.rst"))
]
PAGES_WITH_EXAMPLES = [
    page for page in PAGES if ">>> " in (ROOT / page).read_text(encoding="utf-8")
]


def code_blocks(text: str) -> list[str]:
    pattern = r"^\.\. code-block:: python\n((?:\n|    .*\n)+)"
    return [dedent(block) for block in re.findall(pattern, text, re.M)]


def test_code_of_readme(capsys: pytest.CaptureFixture[str]) -> None:
    first, search, crystals, potential = code_blocks(README)
    assert len(first.strip().splitlines()) <= 10
    names: dict[str, object] = {}
    exec(first, names)
    assert "kcal/mol" in capsys.readouterr().out
    y = names["y"]
    spread = np.abs(y - y.mean()).mean()
    assert names["errors"].mean() < 0.1 * spread

    exec(search, names)
    printed = capsys.readouterr().out
    assert "'scattering__J'" in printed
    assert "kcal/mol" in printed
    assert -names["search"].best_score_ < 0.3 * spread

    exec(crystals, names)
    assert "(2, 764)" in capsys.readouterr().out

    exec(potential, names)
    expected = names["frames"][100]
    energies = [frame.get_potential_energy() for frame in names["frames"]]
    error = names["atoms"].get_potential_energy() - expected.get_potential_energy()
    assert abs(error) < np.std(energies)
    errors = names["atoms"].get_forces() - expected.get_forces()
    assert np.abs(errors).mean() < 0.3 * np.abs(expected.get_forces()).mean()


@pytest.mark.parametrize("name", ["README.rst", "CONTRIBUTING.rst"])
def test_files_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    files = re.findall(r"\b(?:doc|skscatharm|tests)/[\w./-]+\.\w+\b", text)
    files += re.findall(r"``([A-Z]{3,}(?:\.rst)?)``", text)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("page", ["README.rst", "CONTRIBUTING.rst", *PAGES])
def test_code_fits_the_page(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = [block.split("\n") for block in code_blocks(text)]
    examples.append(re.findall(r"^(?:>>> |\.\.\. ).*", text, re.M))
    assert [line for lines in examples for line in lines if len(line) > 88] == []


@pytest.mark.parametrize("page", PAGES_WITH_EXAMPLES)
def test_documentation(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testfile(
        str(ROOT / page),
        module_relative=False,
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
        encoding="utf-8",
    )
    assert results.attempted > 0
    assert results.failed == 0
