"""The membership of a log that one process has for itself."""

from __future__ import annotations

import pytest

from headrace.log.memory import MemoryLog
from headrace.testing.conformance.log_suite import Seat


async def test_listener_that_fails_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Seat):
        calls = 0

        async def assigned(self, partitions: object, *, was_removed: bool = False) -> None:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("the first time fails")
            await super().assigned(partitions)  # type: ignore[arg-type]

    log = MemoryLog()
    await log.create("pages", 2)
    seat = Failing(log, "notes", ["pages"])
    await seat.start()

    await seat.owns(lambda owned: len(owned) == 2)
    assert "the first time fails" in caplog.text
    await seat.stop()
