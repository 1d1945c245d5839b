"""What a trial changes around the handlers, and what it sees of them: the clock, chance, files and connections."""

from __future__ import annotations

import datetime as real_datetime
import os
import random
import sys
import time as real_time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Watched = Callable[[], str | None]
"""Returns the handler that is being called, or None."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_SEEN = {
    "socket.connect": "connects to",
    "socket.sendto": "sends to",
    "subprocess.Popen": "starts",
    "os.system": "starts",
    "os.remove": "removes",
    "os.rename": "renames",
    "os.mkdir": "makes",
    "sqlite3.connect": "opens the database",
}
_watched: Watched | None = None
_did: Counter[str] = Counter()
_is_installed = False


@contextmanager
def watching(running: Watched) -> Iterator[Counter[str]]:
    """Count what handlers do to files and connections, as sentences; `running` names the one that is called."""
    global _watched, _is_installed, _did  # noqa: PLW0603 - an audit hook cannot be removed, so there is one
    if not _is_installed:
        sys.addaudithook(_hear)
        _is_installed = True
    _watched, _did = running, Counter()
    try:
        yield _did
    finally:
        _watched = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None or (event != "open" and event not in _SEEN):
        return
    handler = _watched()
    if handler is None:
        return
    if event == "open":
        file, _, flags = arguments
        is_compiled = "__pycache__" in str(file) or str(file) == os.devnull
        if not isinstance(flags, int) or not flags & _WRITES or is_compiled:
            return
        _did[f"{handler} writes the file {file}"] += 1
    else:
        what = arguments[1] if event.startswith("socket.") else arguments[0]
        _did[f"{handler} {_SEEN[event]} {what}"] += 1


@contextmanager
def another_time(scopes: Sequence[dict[str, Any]], days: int) -> Iterator[None]:
    """Let the clock that the functions of some modules read be some days ahead, and chance be another one."""
    if days == 0:
        yield
        return
    put_back: list[tuple[dict[str, Any], str, Any]] = []
    shifted = _Shifted(days)
    for scope in scopes:
        for name, value in list(scope.items()):
            if (other := shifted.of(value)) is not None:
                put_back.append((scope, name, value))
                scope[name] = other
    chance = random.getstate()
    random.seed(days)
    try:
        yield
    finally:
        random.setstate(chance)
        for scope, name, value in put_back:
            scope[name] = value


class _Shifted:
    """Stand-ins for `datetime`, `date` and `time`, by the day."""

    def __init__(self, days: int) -> None:
        by = real_datetime.timedelta(days=days, seconds=days)

        class Meta(type):
            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, cls.__mro__[1])

        class datetime(real_datetime.datetime, metaclass=Meta):  # noqa: N801 - it stands for the original
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return real_datetime.datetime.now(tz) + by

            @classmethod
            def today(cls) -> Any:
                return real_datetime.datetime.today() + by  # noqa: DTZ002

            @classmethod
            def utcnow(cls) -> Any:
                return real_datetime.datetime.now(real_datetime.UTC).replace(tzinfo=None) + by

        class date(real_datetime.date, metaclass=Meta):  # noqa: N801
            @classmethod
            def today(cls) -> Any:
                return real_datetime.date.today() + by  # noqa: DTZ011

        def time() -> float:
            return real_time.time() + by.total_seconds()

        def time_ns() -> int:
            return real_time.time_ns() + round(by.total_seconds() * 1e9)

        self._by_id: dict[int, Any] = {
            id(real_datetime.datetime): datetime,
            id(real_datetime.date): date,
            id(real_time.time): time,
            id(real_time.time_ns): time_ns,
            id(real_datetime): _module(real_datetime, datetime=datetime, date=date),
            id(real_time): _module(real_time, time=time, time_ns=time_ns),
        }

    def of(self, value: Any) -> Any:
        """Return the stand-in of a value, or None."""
        return self._by_id.get(id(value))


def _module(original: types.ModuleType, **others: Any) -> types.ModuleType:
    module = types.ModuleType(original.__name__)
    module.__dict__.update(vars(original), **others)
    return module
