"""What commands print: tables and lines, with every character of foreign data harmless."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

WIDE = 400
"""Columns of output that does not go to a terminal: grep needs whole lines."""


class _Output(Console):
    """A console that is as wide as its terminal, and does not fold or colour what goes to a file."""

    def __init__(self, *, is_error: bool) -> None:
        is_terminal = (sys.stderr if is_error else sys.stdout).isatty()
        super().__init__(
            stderr=is_error, highlight=False, markup=False, emoji=False, width=None if is_terminal else WIDE
        )


stdout = _Output(is_error=False)
stderr = _Output(is_error=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return a table without lines: its rows can be read by eye and by awk."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    return made


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; call what is given with (done, in all). It is gone afterwards."""
    with Progress(console=stderr, transient=True) as shown:
        task = shown.add_task(text, total=None)

        def report(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)

        yield report


def harmless(text: object) -> str:
    """Return the text with every character that a terminal would act on written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))


def record_text(holder: dict[str, Any], name: str) -> str:
    """Return bytes of a record, as the API shows them, as text; bytes that are not UTF-8 as Python writes them."""
    packed = holder.get(f"{name}_base64")
    if packed is not None:
        return repr(base64.b64decode(packed))
    value = holder[name]
    return "-" if value is None else str(value)


def count_of(number: int, name: str) -> str:
    """Return a number of things: `1 lane`, `2 lanes`."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def age(since: datetime | None) -> str:
    """Return how long ago it was, in the largest unit that fits: `12 s`, `3 min`, `5 h`, `2 d`."""
    if since is None:
        return "-"
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
