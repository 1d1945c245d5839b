"""Calls to the outside of one partition number: loaded with the claim, their results written through it by set."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from headrace import sql
from headrace.database.pool import Connection
from headrace.effects.calls import Call
from headrace.effects.rows import Kept, Wait, end, load, load_behind, wait
from headrace.engine.batch import Batch, BatchProcessor, Holding, emitter_of
from headrace.engine.calling import Ended, Runner
from headrace.engine.effects import Effects
from headrace.engine.transact import PATIENCE, Portions
from headrace.errors import BatchTooLargeError, DataRefusedError, FencedError, StateError, UnknownTypeError
from headrace.handlers.effect import EffectLimits
from headrace.handlers.subscription import Effect
from headrace.item import DEAD, Outcome
from headrace.ledger.moves import read_quiet
from headrace.ledger.rows import Kind

WRITE_SECONDS = 0.05
"""Calls that end within this time are written together."""
MOST_CALLS = 1_000
"""Calls whose end is written in one transaction."""
MOST_BEHIND = 100
"""Calls of a key that are read at a time, behind one that was held."""
FINISH_SECONDS = 5.0
"""A stop waits so long for calls under way; the next owner makes the others again."""


async def _gone() -> None: ...


GONE = Effect(_gone, {}, EffectLimits(1, None))
"""Stands for the effect of a call that an earlier release has left, where this one has no effect at all."""
GONE.handler.name = "-"


class Outside:
    """The effects of one partition number; nothing happens if its subscription has none."""

    def __init__(self, processor: BatchProcessor) -> None:
        context, subscription = processor.context, processor.subscription
        self._processor = processor
        self._written_at = 0.0
        self._portions = Portions(MOST_CALLS)
        self._taken: tuple[list[Ended], dict[Call, Wait]] = ([], {})
        """What the latest attempt writes."""
        self._refusals = 0
        """How often in a row the end of a single call was refused."""
        self._limit = context.settings.engine.effects_pending
        most_bytes = context.settings.kafka.max_record_bytes
        self.runner = Runner(
            context,
            subscription,
            processor.memory.calls,
            processor.reporter,
            lambda: emitter_of(context.registry, subscription, most_bytes),
        )
        self._has_effects = bool(subscription.effects)
        """True if there are calls, were it only those of an earlier release."""

    @property
    def is_full(self) -> bool:
        """True if so many calls wait that no further events are taken."""
        return self._has_effects and self.runner.pending >= self._limit

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way, or to be written."""
        return not self._has_effects or self.runner.is_idle

    @property
    def seconds(self) -> float:
        """Seconds after which to look for calls that have ended; infinity if there is none."""
        return WRITE_SECONDS if not self.is_idle else float("inf")

    async def load(self) -> None:
        """Take over what the former owner left. Raises: StateError."""
        processor = self._processor
        async with processor.context.connection() as connection:
            place = processor.subscription.group, processor.partition
            kept = await load(connection, *place)
            if self._has_effects:
                processor.memory.quiet = await read_quiet(connection, *place)
        self._has_effects = self._has_effects or bool(kept)
        for each in kept:
            processor.memory.calls.number_from(each.last_number + 1)
            self.runner.take_in(await self._call(each), each.error)
        self.runner.join(processor.reporter.partition_count)

    async def turn(self, holding: Holding, *, is_paused: bool) -> None:
        """Begin calls unless paused, and write what has ended. Raises: StateUnavailableError, FencedError."""
        if not self._has_effects:
            return
        if self.runner.is_paused != is_paused:
            self.runner.is_paused = is_paused
            self.runner.pump()
        await self._read_on()
        runner = self.runner
        is_due = len(runner.ended) >= MOST_CALLS or time.monotonic() - self._written_at >= WRITE_SECONDS
        if is_due and (runner.ended or runner.waits):
            await self._write(holding)

    async def _read_on(self) -> None:
        """Take in what is behind held calls that have ended since. Raises: StateUnavailableError."""
        processor, calls = self._processor, self._processor.memory.calls
        group, partition = processor.subscription.group, processor.partition
        for key in list(calls.wanted):
            async with processor.turn():  # nothing of the key is committed meanwhile
                async with processor.context.connection() as connection:
                    kept = await load_behind(connection, group, partition, key, calls.beyond[key], MOST_BEHIND)
                read = [(await self._call(each), each.error) for each in kept]
                known = {each.call.item.identity for each in self.runner.ended}
                known.update(each.item.identity for each in calls.by_key[key])
                calls.resume(key)
                for call, error in read:
                    if call.item.identity not in known:
                        self.runner.take_in(call, error)
                calls.resumed(key, read[-1][0].place if len(read) == MOST_BEHIND else None)

    async def wait(self, stopped: asyncio.Task[bool], seconds: float) -> None:
        """Return when a call has ended, or at a stop, or after some seconds."""
        self.runner.news.clear()
        ended = asyncio.create_task(self.runner.news.wait())
        await asyncio.wait({ended, stopped}, timeout=min(seconds, WRITE_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()

    async def read_due_times(self, connection: Connection) -> None:
        """Read what an operator changed. Raises: asyncpg's errors."""
        if self._has_effects:
            processor = self._processor
            rows = await connection.fetch(sql.effect.DUE_TIMES, processor.subscription.group, processor.partition)
            self.runner.follow({row["identity"]: row["due"] for row in rows})

    async def close(self, holding: Holding | None, *, is_polite: bool) -> None:
        """Wait for calls under way if the end is polite, and write what has ended, if this is still the owner."""
        if not self._has_effects:
            return
        await self.runner.finish(FINISH_SECONDS if is_polite else 0.0)
        with suppress(StateError, FencedError):
            while holding is not None and (self.runner.ended or self.runner.waits):
                await self._write(holding)

    def abandon(self) -> None:
        """Stop without waiting."""
        if self._has_effects:
            self.runner.abandon()

    async def _call(self, kept: Kept) -> Call:
        """Return the call of a row; its item is a dead letter if the event cannot be read any more."""
        processor = self._processor
        (item,) = await processor.off_loop(lambda: processor.decoder.decode([kept.record], {}), large=False)
        effect = processor.subscription.effects.get(item.envelope.type)
        if effect is None:
            effect = next(iter(processor.subscription.effects.values()), GONE)
            item.failed(Outcome.UNKNOWN_TYPE, UnknownTypeError(f"{item.envelope.type!r} has no effect here any more."))
        item.identity = kept.identity
        return Call(item, effect, kept.number, kept.attempts, kept.due, kept.answers)

    async def _write(self, holding: Holding) -> None:
        batch = Batch(Kind.EFFECT, holding, 0, 0, list)
        try:
            if await self._portions.transact(self._processor, batch, self._attempt):
                self._forget_taken()
                self._refusals = 0
        except (DataRefusedError, BatchTooLargeError) as error:  # of a single call
            if not self._taken[0] or not self._is_its_fault(error):
                raise
            self._refusals = 0
            (refused,) = self._taken[0]
            self.runner.ended.remove(refused)
            self.runner.refuse(refused, error)
        self._written_at = time.monotonic()

    def _is_its_fault(self, error: StateError) -> bool:
        """True if the call is at fault; a limit may be somebody else's, so the caller waits before it tries again."""
        self._refusals += 1
        return isinstance(error, DataRefusedError) or self._refusals >= PATIENCE

    async def _attempt(self, batch: Batch) -> Effects:
        processor, runner, group = self._processor, self.runner, self._processor.subscription.group
        most = self._portions.most
        ended = runner.ended[:most]
        waits = {} if ended and most == 1 else dict(list(runner.waits.items())[:most])
        self._taken = ended, waits
        await processor.take_turn(batch)
        effects = _effects(batch, ended)
        async with processor.context.transaction() as connection:
            if waits:
                await wait(connection, group, waits)
            if ended:
                done = [each.call for each in ended if each.call.item.outcome not in DEAD]
                await end(connection, group, [each.call for each in ended], forgets=done)
            await processor.write(connection, batch, effects)
        processor.remember(batch, effects)
        return effects

    def _forget_taken(self) -> None:
        """Follow what the latest attempt has committed, whether or not its COMMIT was answered."""
        ended, waits = self._taken
        del self.runner.ended[: len(ended)]
        for call, written in waits.items():
            if self.runner.waits.get(call) is written:
                del self.runner.waits[call]
        self._count(ended)

    def _count(self, ended: list[Ended]) -> None:
        name, counter = self._processor.subscription.name, self._processor.context.metrics.effects_ended_total
        for each in ended:
            outcome = "given_up" if each.call.item.outcome in DEAD else "done"
            counter.labels(subscription=name, effect=each.call.effect.handler.name, outcome=outcome).inc()


def _effects(batch: Batch, ended: list[Ended]) -> Effects:
    """Return what is written of calls that have ended."""
    dead = [(each.call.item, each.attempts) for each in ended if each.call.item.outcome in DEAD]
    effects = Effects(Kind.EFFECT, [item for item, _ in dead], batch.next_offset, batch.last, dead=dead)
    for each in ended:
        if each.emitter is not None:
            effects.emits += each.emitter.emitted
            effects.timers += each.emitter.timers
    effects.count()
    return effects
