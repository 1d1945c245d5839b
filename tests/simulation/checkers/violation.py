"""A broken promise."""

from __future__ import annotations


class Violation(Exception):  # noqa: N818 - it is a finding
    """What was found: the name of the invariant, and a sentence."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(invariant, text)
        self.invariant = invariant
        self.text = text

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"
