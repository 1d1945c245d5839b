"""Makes the calls of one partition: one of a key at a time, many keys at once."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace.effects.calls import Call, Calls
from headrace.effects.rows import Wait
from headrace.effects.steps import StepMemory, Steps
from headrace.emits.emitter import Emitter
from headrace.engine.breaker import OutageError
from headrace.engine.call_limits import Limiter
from headrace.engine.context import EngineContext
from headrace.engine.invoke import await_handler
from headrace.engine.lanes import reason_of
from headrace.engine.policies import Policies
from headrace.engine.report import Reporter
from headrace.engine.steady import SteadyClock
from headrace.engine.trace import call_facts
from headrace.engine.verdict import DeadLetter, Park, verdict
from headrace.errors import HandlerError, StateError
from headrace.handlers.subscription import Effect, Subscription
from headrace.handlers.verdicts import HandlerVerdict, Skip
from headrace.item import DEAD, Item, Outcome
from headrace.stopping import end_tasks, ends_the_task
from headrace.telemetry.failures import text_of

DIED = "the process died each time while this effect was waiting for its answer."


@dataclass(eq=False, slots=True)
class Ended:
    """A call that is done, or given up on (`attempts` runs have failed), and what it emits."""

    call: Call
    emitter: Emitter | None
    attempts: int = 0


class Runner:
    """The calls under way of one partition, and what came of those that ended since it was last written."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        calls: Calls,
        reporter: Reporter,
        emitter: Callable[[], Emitter],
    ) -> None:
        self.ended: list[Ended] = []
        self.waits: dict[Call, Wait] = {}
        """What failed calls wait for, as far as it is not written."""
        self.news = asyncio.Event()
        """Set when a call has ended."""
        self.is_paused = True
        self._context = context
        self._subscription = subscription
        self._calls = calls
        self._reporter = reporter
        self._emitter = emitter
        self._policies = Policies(subscription, context.settings.engine)
        self._memory = StepMemory(context.connection, subscription.group)
        self._ready: defaultdict[Effect, deque[Call]] = defaultdict(deque)
        self._now = SteadyClock().now
        self._failed: set[Call] = set()
        """Calls that wait for their next attempt, each at the front of its key."""
        self._tasks: set[asyncio.Task[None]] = set()
        keys = context.settings.engine.outage_keys
        self._limiters = {each: context.limiters.of(subscription, each, keys) for each in subscription.effects.values()}

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Calls that have failed, and wait for another attempt."""
        return len(self._failed)

    @property
    def pending(self) -> int:
        """Calls that are not done, without those that an operator's retry has to wake, and what is behind them."""
        return self._calls.total - sum(call.due == math.inf for call in self._failed)

    @property
    def is_idle(self) -> bool:
        """True if no call is under way, or may begin, or has ended and is not written."""
        calls = self._calls
        busy = self._tasks or self.ended or self.waits or calls.fronts or calls.wanted or any(self._ready.values())
        return not busy and not any(call.due <= self._now() for call in self._failed)

    def join(self, partitions: int) -> None:
        """Begin to count for the limits, as one of so many partitions."""
        for limiter in self._limiters.values():
            limiter.join(self, 1.0 / partitions)
        self._calls.on_push = self.pump

    def take_in(self, call: Call, error: str | None) -> None:
        """Take a call in that an earlier owner has left, unless it is given up on."""
        if call.item.outcome in DEAD:
            self.ended.append(Ended(call, None))
            return
        name = call.effect.handler.name
        decided = self._policies.of(call.effect.handler)
        if call.attempts >= decided.attempts:
            call.item.failed(Outcome.HANDLER_ERROR, HandlerError(f"{name}: {error or DIED}", name))
            if decided.at_end == "dead_letter":
                call.item.outcome = Outcome.GAVE_UP
                self.ended.append(Ended(call, None, call.attempts))
                return
            call.attempts, call.due = 0, math.inf
            self.waits[call] = Wait(0, math.inf, reason_of(call.item))
        self._calls.push([call])

    def pump(self) -> None:
        """Begin what may begin."""
        if self.is_paused:
            return
        fronts, self._calls.fronts = self._calls.fronts, []
        for call in fronts:
            self._place(call)
        for effect, ready in self._ready.items():
            while ready and self._limiters[effect].take(self.pump):
                call = ready.popleft()
                task = asyncio.get_running_loop().create_task(self._run(call, effect), name=effect.handler.name)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Begin nothing more, and wait so long for what is under way; the rest is cancelled: the next owner calls."""
        self.is_paused = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        await end_tasks(set(self._tasks), 1.0)
        self.abandon()

    def abandon(self) -> None:
        """Stop without waiting."""
        self.is_paused = True
        for task in self._tasks:
            task.cancel()
        for limiter in self._limiters.values():
            limiter.leave(self, self.pump)
        self._memory.stop()

    async def _run(self, call: Call, effect: Effect) -> None:
        limiter, handler, item = self._limiters[effect], effect.handler, call.item
        task = asyncio.current_task()
        assert task is not None
        emitter = self._emitter()
        emitter.cause = item
        started = time.perf_counter()
        try:
            await self._call(call, emitter)
        except BaseException as error:
            if task.cancelling() or ends_the_task(error, task):
                raise
            self._fail(call, limiter, error)
        else:
            item.outcome, item.error = Outcome.APPLIED, None
            self._judge(limiter, item)
            self._end(call, emitter)
        finally:
            limiter.give_back()
            self._reporter.handled(handler, time.perf_counter() - started, is_effect=True)
            self.news.set()

    async def _call(self, call: Call, emitter: Emitter) -> None:
        """Call the team's function, in a span. Raises: whatever it raises."""
        handler, item = call.effect.handler, call.item
        handler.follow()
        item.attempt = call.attempts + 1
        if call.may_have_answers:
            call.answers = await self._memory.recall(item.identity) | call.answers
            call.may_have_answers = False
        emitter.step = Steps(self._subscription.group, item.identity, call.answers, self._memory)
        limit = asyncio.timeout(self._policies.of(handler).timeout_seconds)
        tracing = self._context.tracing
        if not tracing.enabled:
            await await_handler(item, handler, (), None, emitter, limit)
            return
        skip: Skip | None = None
        with tracing.effect(call_facts(call, self._subscription.name)):
            try:
                await await_handler(item, handler, (), None, emitter, limit)
            except Skip as error:  # no failure
                skip = error
        if skip is not None:
            raise skip

    def _fail(self, call: Call, limiter: Limiter, error: BaseException) -> None:
        item, handler = call.item, call.effect.handler
        if isinstance(error, Skip):
            item.outcome = Outcome.SKIPPED_BY_HANDLER
            self._judge(limiter, item)
            self._end(call, None)
            return
        said = text_of(error)
        if not isinstance(error, HandlerVerdict):
            self._reporter.failed(item, error)
            said = f"raised {type(error).__name__}: {said}"
        failure = HandlerError(f"{handler.name}: {said}", handler.name)
        failure.__cause__ = error
        item.failed(Outcome.HANDLER_ERROR, failure)
        is_outage = self._judge(limiter, item) or self._memory.is_away
        decided = self._decide(call, call.attempts + 1, error, is_outage=is_outage)
        if decided is not None:
            item.outcome = decided.reason
            self._end(call, None, decided.attempts)
        else:
            self._place(call)
            self._reporter.effect_failed(item, error)

    def refuse(self, ended: Ended, error: StateError) -> None:
        """Let a call fail whose end Postgres does not keep; it is held if that is so of its dead letter as well.

        Calls of its key that were behind it have begun since: the next attempt waits for the one under way.
        """
        call, item, handler = ended.call, ended.call.item, ended.call.effect.handler
        was_given_up = item.outcome in DEAD
        what = "its dead letter" if was_given_up else "what it emits"
        failure = HandlerError(f"{handler.name}: {what} cannot be kept: {error}", handler.name)
        failure.__cause__ = error
        item.failed(Outcome.HANDLER_ERROR, failure)
        decided: DeadLetter | None = None
        if was_given_up:
            call.attempts, call.due = 0, math.inf
            self.waits[call] = Wait(0, math.inf, reason_of(item))
        else:
            decided = self._decide(call, call.attempts + 1, error, is_outage=False)
        if decided is not None:
            item.outcome = decided.reason
            self.ended.append(Ended(call, None, decided.attempts))
            return
        self._reporter.effect_failed(item, error)
        if item.event is not None:  # what cannot be read is the next owner's, which tries to give it up again
            self._calls.put_back(call)
            self.pump()

    def _judge(self, limiter: Limiter, item: Item) -> bool:
        """Tell the breaker what became of a call; return whether it met an outage."""
        breaker = limiter.breaker
        try:
            breaker.judge([item], self._policies.of, is_of_log=True)
        except OutageError:
            return True
        if breaker.outage is not None:
            limiter.probed(item)
        return False

    def _decide(self, call: Call, attempt: int, error: BaseException, *, is_outage: bool) -> DeadLetter | None:
        """Let a failed call wait as its policy says; return why, if it is given up on."""
        policy = self._policies.of(call.effect.handler)
        if is_outage:
            policy = policy.in_an_outage()
        decided = verdict(Outcome.HANDLER_ERROR, attempt, policy, error)
        if isinstance(decided, DeadLetter):
            return decided
        assert isinstance(decided, Park)
        call.attempts = decided.attempts
        call.due = self._now() + decided.delay * (1.0 - decided.jitter * random.random())  # noqa: S311 - no secret
        self.waits[call] = Wait(call.attempts, call.due, reason_of(call.item))
        return None

    def follow(self, due_times: Mapping[bytes, float]) -> None:
        """Follow what an operator changed: when failed calls may run again, by identity."""
        for call in [each for each in self._failed if each not in self.waits]:
            call.due = due_times.get(call.item.identity, call.due)
            self._place(call)
        self.pump()

    def move(self, seconds: float) -> None:
        """Let failed calls be due so much earlier, as if the time had passed; for tests."""
        for call in list(self._failed):
            call.due -= seconds
            self._place(call)
        self.pump()

    def _place(self, call: Call) -> None:
        """Let a call at the front of its key begin now, or when it is due."""
        seconds = call.due - self._now()
        if seconds <= 0:
            self._failed.discard(call)
            self._ready[call.effect].append(call)
            return
        self._failed.add(call)
        if seconds == math.inf:
            self._calls.hold(call)
        else:
            asyncio.get_running_loop().call_later(seconds, self._come_due, call, call.due)

    def _come_due(self, call: Call, due: float) -> None:
        if call in self._failed and call.due == due:
            call.due = 0.0
            self._place(call)
            self.pump()

    def _end(self, call: Call, emitter: Emitter | None, attempts: int = 0) -> None:
        self.ended.append(Ended(call, emitter, attempts))
        self._calls.end(call)
        self.pump()
