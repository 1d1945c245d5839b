"""The end of a run: what is in doubt is settled, the lag drains, and every state is compared with the expected one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from headrace.errors import ConfigurationError
from headrace.load.http_client import NoAnswerError
from headrace.load.plan import Plan
from headrace.load.results import Exactness
from headrace.load.sender import Sender
from headrace.load.target import Target, state_path
from headrace.load.watching import Watching
from headrace.load.workload import Expected, Made, counting_field

READERS = 16
READ_ATTEMPTS = 20
NAMED_FAULTS = 5

Report = Callable[[str, int, int], None]
"""Tells what is being done, how much of it is done, and of how much."""


async def settle(
    sender: Sender, doubtful: Sequence[Made], expected: Expected, seconds: float, report: Report, *, batch: int
) -> int:
    """Send what is in doubt again, so many at once under the same ids, until it is accepted; return what stays so.

    An event that is refused now may have been accepted before, so it stays in doubt as well.
    """
    deadline = time.monotonic() + seconds
    waiting = list(doubtful)
    while waiting and time.monotonic() < deadline:
        events = waiting[-batch:]
        outcome = await sender.send(events)
        if outcome.is_accepted:
            del waiting[-batch:]
            expected.accept(events)
            report("sending again what was in doubt", len(doubtful) - len(waiting), len(doubtful))
        else:
            await asyncio.sleep(min(outcome.retry_after_seconds or 0.2, 5.0))
    return len(waiting)


class Proof:
    """What is compared once everything is applied."""

    def __init__(self, plan: Plan, target: Target, expected: Expected, report: Report) -> None:
        self._plan = plan
        self._target = target
        self._expected = expected
        self._report = report
        self._applied = 0
        self._keys_read = 0
        self._differences: list[str] = []

    async def complete(
        self, watching: Watching, *, sent_again: int, unresolved: int, counted: Counter[str] | None, is_drained: bool
    ) -> Exactness:
        """Return what became of the accepted events."""
        plan, expected = self._plan, self._expected
        source = f"/headrace-load/{plan.run}"
        is_compared = plan.state is not None and any(kind.effects for kind in plan.kinds)
        field = counting_field(plan.kinds) if is_compared else None
        dead = Counter[str]()
        try:
            dead_letters = self._target.dead_letters(plan.subscriptions, source)
            dead.update([each["key"] async for each in dead_letters if self._is_counted(each)])
        except ConfigurationError as error:  # whoever does not answer this is not asked for thousands of states
            self._differences.append(f"the dead letters could not be read, so no state was: {error}")
        else:
            if is_compared:
                await self._compare(field, dead)
        first, last = watching.first, watching.last
        parked = max(0, last.parked - first.parked) if first is not None and last is not None else 0
        found = Exactness(
            is_exact=False,
            basis="states" if is_compared else "positions",
            accepted=expected.events,
            applied=self._applied if field is not None and self._keys_read == len(expected.by_key) else None,
            parked=parked,
            dead=dead.total(),
            lag=last.lag if last is not None else None,
            sent_again=sent_again,
            unresolved=unresolved,
            keys=len(expected.by_key),
            keys_read=self._keys_read,
            records=last.written - first.written if first is not None and last is not None else None,
            counted=dict(counted) if counted is not None else None,
            faults=[],
        )
        found.faults = [*_faults(found, is_drained=is_drained), *self._differences[:NAMED_FAULTS]]
        found.is_exact = not found.faults
        return found

    def _is_counted(self, dead_letter: dict[str, object]) -> bool:
        """One subscription's dead letters explain missing effects in its own states; without states, all count."""
        return self._plan.state is None or dead_letter["subscription"] == self._plan.state[0]

    async def _compare(self, field: str | None, dead: Counter[str]) -> None:
        keys = list(self._expected.by_key)
        waiting = deque(keys)

        async def read_some() -> None:
            while waiting:
                key = waiting.popleft()
                if not await self._is_read(key, field, dead[key]):
                    waiting.clear()
                    return
                self._keys_read += 1
                if self._keys_read % 100 == 0 or self._keys_read == len(keys):
                    self._report("comparing states", self._keys_read, len(keys))

        await asyncio.gather(*(read_some() for _ in range(READERS)))

    async def _is_read(self, key: str, field: str | None, dead: int) -> bool:
        """Compare one state; return False if it could not be read after all attempts."""
        assert self._plan.state is not None
        path = state_path(*self._plan.state, key)
        for attempt in range(READ_ATTEMPTS):
            try:
                state = await self._target.state(path) or {}
                break
            except NoAnswerError as error:
                if attempt + 1 == READ_ATTEMPTS:
                    self._differences.append(f"the state of {key} could not be read: {error}.")
                    return False
                await asyncio.sleep(0.25)
        self._applied += int(state.get(field, 0)) if field is not None else 0
        expected = self._expected.states[key]
        found = {name: state.get(name, 0) for name in expected}
        if found != expected and not dead and not await self._is_parked(key):
            self._differences.append(f"{key} has {found}, and the events come to {expected}.")
        return True

    async def _is_parked(self, key: str) -> bool:
        """True if events of the key wait in its lane, which explains a state that lacks them."""
        assert self._plan.state is not None
        try:
            return await self._target.has_lane(self._plan.state[0], key)
        except ConfigurationError:
            return False


def _faults(found: Exactness, *, is_drained: bool) -> list[str]:
    """Return what speaks against the run, in sentences."""
    faults = []
    if found.unresolved:
        faults.append(f"{found.unresolved} events stayed in doubt, so nothing can be said of them.")
    if not is_drained:
        faults.append(f"a lag of {found.lag} was left when the time to drain was over; give it more: --drain-seconds.")
    if found.applied is not None and found.applied + found.parked + found.dead != found.accepted:
        faults.append(
            f"{found.accepted:,} events were accepted, but {found.applied:,} are applied, {found.parked:,} parked and "
            f"{found.dead:,} dead letters."
        )
    if found.records is not None and found.records < found.accepted:
        faults.append(f"the log took {found.records:,} records for {found.accepted:,} accepted events.")
    if found.counted is not None and found.records is not None and is_drained and not found.parked:
        total = sum(found.counted.values())
        if found.applied is None and total < found.accepted:
            faults.append(f"the deployment counted {total:,} outcomes for {found.accepted:,} accepted events.")
        elif found.applied is not None and found.counted.get("applied", 0) < found.applied:
            faults.append(f"the deployment counted {found.counted.get('applied', 0):,} applied events.")
    return faults
