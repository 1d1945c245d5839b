"""A member of a group in a process of its own, which a test can kill: writes its partitions whenever they change.

python -m tests.integration.log.member URL GROUP TOPIC SESSION_SECONDS
"""

from __future__ import annotations

import asyncio
import sys

from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import kafka_log


async def main(url: str, group: str, topic: str, session_seconds: str) -> None:
    async with kafka_log(url, session_timeout_seconds=float(session_seconds), heartbeat_seconds=0.5) as log:
        seat = Seat(log, group, [topic])
        await seat.start()
        known: frozenset[object] = frozenset()
        while True:
            await seat.owns(lambda owned, before=known: owned != before)  # type: ignore[misc]
            known = seat.owned
            sys.stdout.write(" ".join(str(number) for _, number in sorted(seat.owned)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
