"""A test's name is a sentence that fits into a line of a report; its docstring says the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 60


def test_names_of_tests_have_at_most_60_characters() -> None:
    assert [name for name in names_of_tests() if len(name) > LONGEST] == []


def names_of_tests() -> Iterator[str]:
    """Yield the name of every test, those of the suites that ship with the platform included."""
    for folder in ("tests", "app"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield from re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
