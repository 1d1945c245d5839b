"""The SQL on Headrace's own tables is in `headrace.sql` and nowhere else, so a change of a column opens one module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "app/headrace"
QUERIES = sorted(file for file in (PACKAGE / "sql").glob("*.py") if file.name != "__init__.py")
OTHERS = sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "sql")
TABLES = {
    table
    for file in (PACKAGE / "database/migrations").rglob("*.sql")
    for table in re.findall(r"create table headrace\.(\w+)", file.read_text())
} | {"migration"}
VERB = re.compile(r"\b(select|insert\s+into|update|delete\s+from|create\s+table|drop\s+table)\b", re.IGNORECASE)
TABLE = re.compile(
    rf"\b(from|join|into|using|update|table)\s+headrace\.({'|'.join(sorted(TABLES))}|\{{\w*\}})(?!\w)", re.IGNORECASE
)


def test_every_table_is_known_to_this_test() -> None:
    assert {"claim", "lane", "parked", "ledger", "ledger_default", "log_record", "migration"} <= TABLES


def test_only_the_package_sql_has_queries_on_our_tables() -> None:
    found = [f"{file.relative_to(PACKAGE)}:{line}" for file in OTHERS for line in queries_in(file.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'X = "select owner from headrace.claim"',
        'def f(): run("UPDATE headrace.lane SET due_at = now()")',
        'X = f"delete from headrace.{table} where subscription = $1"',
        '"""Text."""\nX = """\nwith a as (\n    select 1 from headrace.log_record r\n) select 2\n"""',
    ],
)
def test_a_query_is_recognised(source: str) -> None:
    assert len(list(queries_in(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """Read what `select id from headrace.claim` says."""',
        'X = "if it is gone, delete the rows from headrace.state."',
        'X = "select count(*) from shop.claim"',
    ],
)
def test_prose_and_other_tables_are_no_queries(source: str) -> None:
    assert list(queries_in(source)) == []


@pytest.mark.parametrize("file", QUERIES, ids=lambda file: file.stem)
def test_each_query_has_a_docstring(file: Path) -> None:
    """A module of queries has its docstring, then pairs of a constant and its docstring: no imports, no code."""
    first, *pairs = ast.parse(file.read_text()).body
    assert purpose_of(first)
    assert len(pairs) % 2 == 0
    for constant, docstring in zip(pairs[::2], pairs[1::2], strict=True):
        assert isinstance(constant, ast.Assign), f"line {constant.lineno} is no constant"
        name = ast.unparse(constant.targets[0])
        assert name.isupper(), name
        assert purpose_of(docstring).endswith("."), f"{name} has no line of purpose"


def test_only_the_folder_database_imports_asyncpg() -> None:
    found = {
        file.relative_to(PACKAGE) for file in OTHERS if re.search(r"(?m)^\s*(import|from) asyncpg", file.read_text())
    }
    assert {str(file.parent) for file in found} == {"database"}


def queries_in(source: str) -> Iterator[int]:
    """Yield the line of each text in the code, docstrings apart, that reads or changes one of our tables."""
    tree = ast.parse(source)
    passed = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    passed |= {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node not in passed:
            text = text_of(node)
            if VERB.search(text) and TABLE.search(text):
                yield node.lineno


def text_of(node: ast.expr) -> str:
    """Return a text; what an f-string fills in is shown as `{}`."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "{}"


def purpose_of(node: ast.stmt) -> str:
    """Return the first paragraph of a docstring; empty for other code."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value.partition("\n")[0]
    return ""
