"""Each part of the package imports only from the parts below it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import skscatharm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skscatharm"

# From the bottom to the top. The developers' page of the documentation describes them.
ROOMS = (
    "_compat",
    "_parts",
    "_progress",
    "_threads",
    "regression",
    "structures",
    "transform",
    "engine",
    "batches",
    "store",
    "derivatives",
    "fields",
    "scattering",
    "local",
    "planar",
    "images",
    "voxels",
    "atomic",
    "slopes",
    "potentials",
    "ase",
    "datasets",
    "display",
    "__main__",
    "__init__",
)


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for package, *inside in (name.split(".") for name in names):
            if package == "skscatharm":
                yield inside[0] if inside and inside[0] in ROOMS else "__init__"


def test_every_part_has_a_place() -> None:
    assert {room for room, _ in _modules()} <= set(ROOMS)


def test_no_import_goes_back_up() -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for room, path in _modules()
        for imported in _imported_rooms(path)
        if imported != room and ROOMS.index(imported) > ROOMS.index(room)
    ]
    assert upward == []


def test_engines_alone_know_array_libraries() -> None:
    pattern = r"^\s*(?:import|from) (?:torch|cupy|numba)\b"
    found = [room for room, path in _modules() if re.search(pattern, _text(path), re.M)]
    assert set(found) <= {"engine"}


def test_developers_page_names_files_that_exist() -> None:
    page = _text(ROOT / "doc" / "developers" / "index.rst")
    names = set(re.findall(r"``([\w/-]+(?:\.py|/))``", page))
    missing = {
        name
        for name in names
        if not (ROOT / name).exists() and not any(PACKAGE.rglob(name))
    }
    assert missing == set()


def test_names_for_type_checkers_are_those_at_runtime() -> None:
    (block,) = [
        node
        for node in ast.parse(_text(PACKAGE / "__init__.py")).body
        if isinstance(node, ast.If)
    ]
    declared = {
        alias.name: node.module.removeprefix("skscatharm").removeprefix(".")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == skscatharm._HOMES
    assert {*skscatharm.__all__} == {*declared, "__version__"}
    for name in skscatharm.__all__:
        assert name in dir(skscatharm)
        assert getattr(skscatharm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Scattering'"):
        skscatharm.Scattering  # noqa: B018


def test_import_loads_no_large_library() -> None:
    script = """
import sys
import skscatharm
print(*{"numpy", "scipy", "sklearn", "numba", "joblib"} & set(sys.modules))
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []
