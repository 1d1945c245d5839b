"""Imports go one way: no module, and no folder of the platform, imports itself through others; none imports a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app"
FILES = {
    ".".join(file.relative_to(APP).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((APP / "headrace").rglob("*.py"))
}
ROOT = "headrace"
OF_A_TEST = re.compile(r"^ *(?:from|import) tests\b.*\btest_\w+", re.MULTILINE)


def test_modules_import_each_other_one_way() -> None:
    refuse_cycles({module: set(imported(module)) - {module} for module in FILES})


def test_folders_import_each_other_one_way() -> None:
    graph: dict[str, set[str]] = {}
    for module in FILES:
        graph.setdefault(folder(module), set()).update(folder(other) for other in imported(module))
    refuse_cycles({name: others - {name} for name, others in graph.items()})


def test_cycle_is_named() -> None:
    with pytest.raises(AssertionError, match="one imports two, two imports one"):
        refuse_cycles({"one": {"two"}, "two": {"one"}})


def test_no_test_module_is_imported_by_another_module() -> None:
    """What tests share is in a module of its own: in `tests/support/`, or beside them if it is of one folder only."""
    files = [file for folder in ("tests", "bench") for file in sorted((APP.parent / folder).rglob("*.py"))]
    found = {str(file.relative_to(APP.parent)): OF_A_TEST.findall(file.read_text()) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}


def refuse_cycles(graph: Mapping[str, set[str]]) -> None:
    """Fail with the cycle, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1][::-1]
        steps = ", ".join(f"{one} imports {other}" for one, other in pairwise(cycle))
        raise AssertionError(f"a cycle: {steps}") from None


def folder(module: str) -> str:
    """Return the part of the platform that a module belongs to: a folder, or a file beside them."""
    return ".".join(module.split(".")[:2])


def imported(module: str) -> Iterator[str]:
    """Yield the platform's modules that a module imports when it runs, those inside functions included."""
    tree = ast.parse(FILES[module].read_text())
    typing = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for inner in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in names if node.module.split(".")[0] == ROOT)
