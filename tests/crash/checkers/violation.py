"""What a checker reports."""

from __future__ import annotations

from typing import NamedTuple


class Violation(NamedTuple):
    """A promise that is broken."""

    invariant: str
    text: str
