"""What is wrong with a set-up, as a value: `headrace run` refuses it, and `headrace doctor` shows it."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that a person must change."""

    what: str
    """What it is about, such as `topic wallets`."""
    found: str
    """What is wrong with it; it completes the sentence that `what` begins."""
    advice: str
    """What to do about it."""
    stops_start: bool = True
    """False if a start goes ahead: only what is at fault does not work, and readiness says so."""

    @property
    def sentence(self) -> str:
        """The fault as one sentence: what, what is wrong, what to do."""
        return f"{self.what} {self.found}; {self.advice}."
