"""Runs lanes that are due, beside the batches of their partition.

```
keeper ─▶ all that are due ──────────▶ one run of them ─┐
       ├▶ a key whose events took long ▶ a run alone ───┼▶ the turn ─▶ one transaction
       └▶ another such key ────────────▶ a run alone ───┘
```
Handlers run outside of the turn, so that whatever they do holds up neither the batches nor the other lanes. The keys of
a run are its own until it has ended. Of a lane whose head has failed, the head runs alone; what is behind it follows in
the next run.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from headrace.backoff import Backoff
from headrace.engine.batch import Batch, BatchProcessor, Holding
from headrace.engine.breaker import Outage, OutageError, held_up
from headrace.engine.claim import KILLED
from headrace.engine.failures import OverdueError
from headrace.engine.lanes import count_runs, read_heads
from headrace.engine.run import Run
from headrace.engine.transact import transact
from headrace.engine.verdict import Park
from headrace.errors import (
    BatchTooLargeError,
    DataRefusedError,
    HandlerError,
    SchemaRegistryError,
    StateUnavailableError,
)
from headrace.item import SKIPPED, Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.ports import StoredRecord
from headrace.log.stored import plain
from headrace.order.declared import gives_up
from headrace.stopping import CANCEL_SECONDS, end_tasks

MOST_LANES, MOST_EVENTS = 200, 100
"""Lanes, and events of each, in one run."""
MOST_WAITING = 10_000
"""Lanes that are taken at a time."""
MOST_ALONE = 16
"""Runs of single lanes at a time."""
COMMIT_SECONDS = 2.0
"""What a run may take to commit once its handlers have returned, when it is to end."""

Parked = tuple[str, int, StoredRecord]
"""(key, number, record) of an event in a lane."""


class Hung(NamedTuple):
    """An event of a lane whose handler did not return: its number, and the error that says so."""

    number: int
    error: str


class Retries:
    """The lanes of one partition number, while its claims are held."""

    def __init__(
        self,
        processor: BatchProcessor,
        holding: Callable[[], Holding],
        may_run: Callable[[], bool],
        is_cautious: Callable[[], bool],
    ) -> None:
        """`holding`: of the claim that the lanes are written under; `may_run`: whether a run may begin now.

        `is_cautious`: whether an event may have ended the previous owner, so that no more than one runs at a time.
        """
        self._processor = processor
        self._holding = holding
        self._may_run, self._is_cautious = may_run, is_cautious
        self._lanes = processor.memory.lanes
        self._hung: dict[str, Hung] = {}
        self._refused: dict[str, str] = {}
        """Keys whose head Postgres refused, alone in its run, with the error."""
        self._refused_again: set[str] = set()
        """Those of which it did not even take the failure."""
        self._failures: Counter[str] = Counter()
        """What `BatchProcessor.failures` counts, by the key of a run alone; "" is the run of all others."""
        self._lanes_limit, self._events_limit = MOST_LANES, MOST_EVENTS
        self._changed = asyncio.Event()
        self._busy: set[str] = set()
        """The keys that were taken: those of the runs, and those that wait for one."""
        self._aside: deque[str] = deque()
        self._others: deque[str] = deque()
        self._alone: dict[str, asyncio.Task[None]] = {}
        self._together: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._processors: set[BatchProcessor] = set()
        self.outage: Outage | None = None
        """What a run waits for before it can read its events."""
        self.failure: BaseException | None = None
        """What ends the tenure: another owner holds the claim, or a run failed as none should."""

    @property
    def running(self) -> list[Run]:
        """The runs whose handlers are being called."""
        return [each.running for each in self._processors if each.running is not None]

    @property
    def are_due(self) -> bool:
        """True if a lane waits for a run."""
        self._take_due()
        return bool(self._others or self._aside)

    def start(self) -> None:
        """Begin to run what is due."""
        self._keeper = asyncio.create_task(self._keep(), name="lanes")

    def changed(self) -> None:
        """Look again at what is due."""
        self._changed.set()

    def check(self) -> None:
        """Raise what has ended the lanes, if something has."""
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        """Begin no run any more. A run whose handler returns soon ends with its commit; the others are undone."""
        if self._keeper is not None:
            self._keeper.cancel()
        for run in self.running:
            run.end_early()
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=self._processor.context.pace.patience)
        if tasks and not self.running:  # what has not ended yet is about to commit
            await asyncio.wait(tasks, timeout=COMMIT_SECONDS)
        await end_tasks(self._tasks(), CANCEL_SECONDS)

    def abandon(self) -> None:
        """Stop without waiting for anything."""
        for task in self._tasks():
            task.cancel()

    def _tasks(self) -> set[asyncio.Task[None]]:
        tasks = (*self._alone.values(), self._together, self._keeper)
        return {task for task in tasks if task is not None and not task.done()}

    async def _keep(self) -> None:
        """Begin runs of what is due, until cancelled."""
        longest = self._processor.context.pace.fetch
        while True:
            self._changed.clear()
            if self.failure is None and self._may_run():
                self._begin_runs()
            due = self._lanes.seconds_to_next(self._lanes.now())
            seconds = longest if not due else min(longest, max(0.01, due))
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _begin_runs(self) -> None:
        self._take_due()
        while self._aside and len(self._alone) < MOST_ALONE:
            key = self._aside.popleft()
            self._alone[key] = self._begin([key], is_alone=True)
        if self._together is None and self._others and not self._is_cautious():
            keys = [self._others.popleft() for _ in range(min(self._lanes_limit, len(self._others)))]
            self._together = self._begin(keys, is_alone=False)

    def _take_due(self) -> None:
        """Take what is due; what no run can begin for waits."""
        for key in self._lanes.take_due(self._lanes.now(), MOST_WAITING, self._busy):
            self._busy.add(key)
            is_aside = key in self._lanes.aside or self._has_died(key)
            (self._aside if is_aside else self._others).append(key)

    def _has_died(self, key: str) -> bool:
        """True if the latest run of the lane's head ended with its process."""
        return self._lanes.by_key[key].error == KILLED

    def _begin(self, keys: Sequence[str], *, is_alone: bool) -> asyncio.Task[None]:
        return asyncio.create_task(self._run_beside(keys, is_alone=is_alone), name="lanes' run")

    async def _run_beside(self, keys: Sequence[str], *, is_alone: bool) -> None:
        backoff = Backoff(0.05, 5.0)
        try:
            while True:
                try:
                    await self._run(keys, is_alone=is_alone, events=self._events_limit)
                except (StateUnavailableError, SchemaRegistryError) as error:
                    self.outage = held_up(error, self.outage)
                    self._processor.reporter.waiting(error)
                    await asyncio.sleep(backoff.next_seconds())
                else:
                    return
        except OutageError:
            pass  # the breaker has told it, and is open from now on
        except Exception as error:
            self.failure = error
        finally:
            self.outage = None
            if is_alone:
                del self._alone[keys[0]]
            else:
                self._together = None
            self._end(keys)

    def _end(self, keys: Sequence[str]) -> None:
        self._busy.difference_update(keys)
        self._lanes.put_back(keys)

    async def run_here(self, *, is_probe: bool = False) -> bool:
        """Run a single event of a lane that is due, while nothing else runs. Returns False if none is.

        Raises: StateUnavailableError, SchemaRegistryError, OutageError, FencedError.
        """
        self._take_due()
        waiting = self._others or (self._aside if is_probe else ())
        if not waiting:
            return False
        keys = [waiting.popleft()]
        try:
            await self._run(keys, is_alone=is_probe, events=1, is_probe=is_probe)
        finally:
            self._end(keys)
        return True

    async def _run(self, keys: Sequence[str], *, is_alone: bool, events: int, is_probe: bool = False) -> None:
        """Run the lanes of the keys, in one transaction.

        Raises: StateUnavailableError, SchemaRegistryError, OutageError, FencedError.
        """
        processor, holding, name = self._processor.beside(is_patient=is_alone), self._holding(), keys[0] * is_alone
        processor.failures = self._failures.pop(name, 0)
        self._processors.add(processor)
        parked: list[Parked] = []
        now = self._lanes.now()
        try:
            # What joins from here on is not read.
            waited = {key: self._lanes.by_key[key].is_asked for key in keys if self._lanes.has_waited(key, now)}
            parked = await self._read(keys, events)
            keys = list(dict.fromkeys(key for key, _, _ in parked))
            if not keys:
                raise holding.claim.fenced()  # the lanes went back with the database
            size = sum([len(record.value or b"") for _, _, record in parked])
            batch = Batch(
                Kind.RETRY, holding, len(parked), size, lambda: self._decode(parked, waited), is_probe=is_probe
            )
            async with processor.context.company.enter(alone=any(map(self._has_died, keys))):
                began = time.monotonic()
                async with processor.turn():
                    await self._count(holding, keys)
                effects = await transact(processor, batch)
        except OverdueError as error:
            self._give_up(error)
        except (DataRefusedError, BatchTooLargeError) as error:
            self._shrink(keys, len(parked), plain(str(error.__cause__ or error)))
        else:
            self._follow(keys, (time.monotonic() - began) / max(1, len(effects.items)))
        finally:
            self._processors.discard(processor)
            if processor.failures:
                self._failures[name] = processor.failures

    async def _read(self, keys: Sequence[str], events: int) -> list[Parked]:
        """Read the events of a run. A head that has failed runs alone of its lane.

        Else what hangs behind it would hold up its commit, and its next attempt would be blamed for that one's end.
        """
        processor, lanes = self._processor, self._lanes.by_key
        async with processor.context.connection() as connection:
            return await read_heads(
                connection,
                processor.subscription.group,
                processor.partition,
                {key: 1 if lanes[key].attempts else events for key in keys},
                max_bytes=processor.context.settings.engine.batch_bytes,
            )

    def _give_up(self, error: OverdueError) -> None:
        """Go on without an event: it has failed if it had its whole time, else it runs alone next."""
        item = error.item
        assert item.key is not None
        self._lanes.set_aside(item.key)
        self._processor.reporter.gave_up(item, error)
        if not error.is_cut:
            self._hung[item.key] = Hung(item.number, str(error))

    def _follow(self, keys: Sequence[str], seconds_each: float) -> None:
        """Follow what was committed."""
        self._lanes_limit = min(MOST_LANES, self._lanes_limit * 2)
        self._events_limit = min(MOST_EVENTS, self._events_limit * 2)
        for key in keys:
            self._refused.pop(key, None)
            self._refused_again.discard(key)
            if self._hung.pop(key, None) is None and seconds_each < self._processor.context.pace.patience:
                self._lanes.aside.pop(key, None)

    async def _count(self, holding: Holding, keys: Sequence[str]) -> None:
        """Count a run of the heads before it starts, so that an event that ends its process comes to an end as well."""
        processor, lanes = self._processor, self._lanes.by_key
        fresh = {key: lanes[key].attempts + 1 for key in keys if not lanes[key].is_counted}
        if not fresh:
            return
        async with processor.context.transaction() as connection:
            await holding.claim.guard(connection)
            await count_runs(connection, processor.subscription.group, processor.partition, fresh)
        for key, attempts in fresh.items():
            lanes[key].attempts, lanes[key].is_counted = attempts, True

    def _decode(self, parked: Sequence[Parked], waited: Mapping[str, bool]) -> list[Item]:
        """Return the events of a run. `waited`: keys whose gap is waited for no longer, and if an operator says so."""
        lanes = self._lanes
        records = [record for _, _, record in parked]
        try:
            items = self._processor.decoder.decode(records, {})
        except MemoryError:
            if len(parked) > 1 or parked[0][0] not in self._refused:
                raise
            items = [Item(records[0])]  # its run fails below, for the same reason
        heads: set[str] = set()
        failed: set[str] = set()
        order = self._processor.subscription.order
        for item, (key, number, _) in zip(items, parked, strict=True):
            item.number, item.key, item.attempt = number, key, lanes.by_key[key].attempts
            if order is not None and key in waited:
                is_head, item.is_let_go = key not in heads, waited[key]
                item.wait_is_over = is_head or (gives_up(order) and not item.is_let_go)
            if item.outcome in SKIPPED:
                continue
            reason = self._failure(item, key, is_head=key not in heads)
            heads.add(key)
            if key in failed:
                item.outcome = Outcome.BEHIND_KEY
            elif reason is not None:
                error = HandlerError(reason, "")
                if key in self._refused_again:  # it may be its state that cannot be read: nothing can be asked of it
                    item.failed(Outcome.HANDLER_ERROR, error)
                else:
                    item.blame(Outcome.HANDLER_ERROR, error)
                if item.outcome is not Outcome.READY:
                    failed.add(key)
        return items

    def _failure(self, item: Item, key: str, *, is_head: bool) -> str | None:
        """Return why an event of a lane is not run, or None."""
        if (hung := self._hung.get(key)) is not None and hung.number == item.number:
            return hung.error
        if not is_head:
            return None
        if key in self._refused:
            return self._refused[key]
        lane = self._lanes.by_key[key]
        is_used_up = lane.attempts > self._lanes.policy_of(item.handler).attempts  # or the policy allowed more before
        return KILLED if is_used_up and lane.error == KILLED else None

    def _shrink(self, keys: Sequence[str], events: int, reason: str) -> None:
        """Take fewer lanes, then fewer events, until the one event is found that is at fault."""
        if len(keys) > 1:
            self._lanes_limit = len(keys) // 2
        elif events > 1:
            self._events_limit = events // 2
        else:
            if keys[0] in self._refused:  # not even its failure can be written: not at once again
                lanes = self._lanes
                lane = lanes.by_key[keys[0]]
                policy, attempts = lanes.policy_of(None), max(1, lane.attempts)
                lane.due = lanes.due_after(Park(attempts, policy.delay(attempts), policy.jitter))
                self._refused_again.add(keys[0])
            self._refused[keys[0]] = reason
