"""Makes the data of events from a JSON template, fast: it is cut into pieces once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from headrace.errors import ConfigurationError

_PLACE = re.compile(r'"\{integer (-?\d+) (-?\d+)\}"|\{(\w[^{}"\\]*)\}')
_MEMBER = re.compile(r"\{integer (-?\d+) (-?\d+)\}")


class Template:
    """The data of one kind of event.

    ```python
    Template({"customer": "{key}", "amount": "{integer 1 100}"})
    ```
    `{key}` and `{n}` (a running number) stand within any text; `"{integer A B}"`, alone as a value, becomes a whole
    number from A to B.
    Raises when made: ConfigurationError (another name in braces).
    """

    def __init__(self, data: Any) -> None:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        self._pieces: list[str] = []
        self._fills: list[str | tuple[int, int]] = []
        end = 0
        for found in _PLACE.finditer(text):
            self._pieces.append(text[end : found.start()])
            self._fills.append(_fill(found))
            end = found.end()
        self._last = text[end:]
        self.has_key = "key" in self._fills
        self._integers = _integers_of(data)

    def render(self, key: str, number: int, chance: Random) -> tuple[str, list[int]]:
        """Return the data as JSON, and the numbers that were drawn, in order."""
        drawn: list[int] = []
        text = ""
        for piece, fill in zip(self._pieces, self._fills, strict=True):
            text += piece
            if fill == "key":
                text += key
            elif fill == "n":
                text += str(number)
            elif not isinstance(fill, str):
                low, high = fill
                value = low + int(chance.random() * (high - low + 1))
                drawn.append(value)
                text += str(value)
        return text + self._last, drawn

    def number_of(self, field: str, drawn: list[int]) -> int:
        """Return the value of a member of the data that is a whole number, for the numbers that were drawn."""
        place = self._integers[field]
        return place if isinstance(place, int) else drawn[place[0]]

    def check_number(self, field: str) -> None:
        """Raises: ConfigurationError (the data have no such member, or it is no whole number)."""
        if field not in self._integers:
            known = ", ".join(sorted(self._integers)) or "none"
            raise ConfigurationError(f"--expect adds up {field!r}, but the whole numbers of --data are: {known}.")


def _fill(found: re.Match[str]) -> str | tuple[int, int]:
    low, high, name = found.groups()
    if name is None:
        if int(low) > int(high):
            raise ConfigurationError(f"--data: {found[0]} has no number in it; write the smaller one first.")
        return int(low), int(high)
    if name in ("key", "n"):
        return name
    raise ConfigurationError(
        f'--data: {{{name}}} stands for nothing; write {{key}}, {{n}}, or "{{integer 1 100}}" alone as a value.'
    )


def _integers_of(data: Any) -> dict[str, int | tuple[int]]:
    """Return the members that are whole numbers: the number, or the place among those that are drawn."""
    found: dict[str, int | tuple[int]] = {}
    if not isinstance(data, Mapping):
        return found
    before = 0
    for name, value in data.items():
        if isinstance(value, int) and not isinstance(value, bool):
            found[name] = value
        elif isinstance(value, str) and _MEMBER.fullmatch(value):
            found[name] = (before,)
        before += len(re.findall(r'"\{integer -?\d+ -?\d+\}"', json.dumps(value)))
    return found
