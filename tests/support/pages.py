"""The pages of the documentation, and the code that they show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(page: str) -> str:
    """Return the text of a page, named by its path in the repository."""
    return (ROOT / page).read_text()


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def python_files(page: str) -> dict[str, str]:
    """Return the Python of a page by its module: `# name.py` begins a file, and further blocks continue it."""
    files: dict[str, str] = {}
    name = "page"
    for block in blocks(read(page), "python"):
        if begins := re.match(r"# (?:\w+/)*(\w+)\.py\b", block):
            name = begins[1]
        files[name] = files.get(name, "") + block
    return files
