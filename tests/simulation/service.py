"""The service of the simulation: its handlers keep a list of numbers for each page, so that every mistake shows.

`notes` takes the events of the stream and emits an `Echoed` for each; `echoes` takes those (`sinks.py`). If the plan
says so, `steps` takes a stream that comes in a wrong order, and applies it in sequence. What a handler does with an
event is in the event's plan; how often it has run is known to the world outside of the processes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from pydantic import BaseModel, SecretStr

from headrace import Emit, Event, Headrace, InSequence, Skip, State, States, Transaction
from headrace.settings import DatabaseSettings, EngineSettings, KafkaSettings, Settings
from tests.simulation.plan import Plan, PlannedEvent
from tests.simulation.sinks import Echoed, Outside, declare
from tests.simulation.store.statements.journal import NOTE

SERVICE = "simulated"
GROUPS = {name: f"{SERVICE}.{name}" for name in ("notes", "echoes", "steps")}
ABORTED = 2_000_000
"""Is added to the numbers of events whose transaction is aborted: nobody ever sees them."""
LATER = 1_000_000
"""Is added to the number of an event that is emitted with a delay."""
EARLIER_SECONDS = 30.0
"""Such an event is about a time so long ago: some come too late for their window."""


class Noted(Event, type="noted", topic="notes", key="page"):
    """An event of the stream."""

    page: str
    number: int


class Stepped(Event, type="stepped", topic="steps", key="page"):
    """An event of the stream that comes in a wrong order; its `sequence` is its number."""

    page: str
    number: int


class Notes(BaseModel):
    """What was applied to a page, in order."""

    numbers: list[int] = []


class Steps(BaseModel):
    """What was applied to a page, in sequence."""

    numbers: list[int] = []


def identity_of(page: str, number: int) -> tuple[str, str]:
    """Return source and id of an event: two sources use the same ids."""
    return f"/simulation/{number % 2}", f"{page}/{(number + 1) // 2}"


def place_of(source: str, id_: str) -> tuple[str, int]:
    """Return page and number of an event of that source and id."""
    page, _, count = id_.rpartition("/")
    return page, 2 * int(count) - int(source.rpartition("/")[2])


class World:
    """What handlers meet: the plan of each event, and how often it was tried. Outlives every process."""

    def __init__(self) -> None:
        self.plans: dict[tuple[str, int], PlannedEvent] = {}
        self.tries: Counter[tuple[str, int]] = Counter()
        self.deaths: Counter[tuple[str, int]] = Counter()
        """How many processes each event has ended."""
        self.outside = Outside()
        self.mended: set[tuple[str, int]] = set()
        self.kill: Callable[[], None] = lambda: None
        """Ends the process that calls it."""

    def seconds(self, event: Noted) -> float:
        """Say what happens to an event: return how long its handler takes. Raises: what the handler raises."""
        place = (event.page, event.number)
        plan = self.plans[place]
        self.tries[place] += 1
        tries = self.tries[place]
        match plan.kind:
            case "flaky" if tries <= plan.times:
                raise RuntimeError(f"not yet: try {tries}")
            case "poison" if place not in self.mended:
                raise ValueError("poison")
            case "skipped":
                raise Skip("nothing to do")
            case "kills" if tries <= plan.times:
                self.deaths[place] += 1
                self.kill()
                return 1_000.0
            case "hangs" if tries <= plan.times:
                return 1_000.0
            case "slow":
                return float(plan.times)
        return 0.0


world = World()
"""The world of the simulation that runs; `run.py` begins each with a new one."""


def begin_world() -> World:
    """Forget the last simulation."""
    global world  # noqa: PLW0603 - handlers are declared once, and find the world of their run here
    world = World()
    return world


def _apply(event: Noted, notes: Notes, emit: Any) -> None:
    plan = world.plans[event.page, event.number]
    notes.numbers.append(event.number)
    emit(Echoed(page=event.page, number=event.number, at=plan.at))
    if plan.kind == "later":
        echo = Echoed(page=event.page, number=LATER + event.number, at=plan.at - EARLIER_SECONDS)
        emit(echo, after=plan.times)


def _platform(style: str, sink: str, *, has_steps: bool) -> Headrace:
    platform = Headrace(SERVICE, settings(Plan(0)))
    notes = platform.subscription("notes")

    if style == "sync":

        @notes.on(Noted)
        def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
            if world.seconds(event) > 100:
                raise RuntimeError("a thread cannot wait here")
            _apply(event, kept, emit)

    elif style == "transaction":

        @notes.on(Noted)
        async def note_in_transaction(event: Noted, kept: State[Notes], emit: Emit, tx: Transaction) -> None:
            seconds = world.seconds(event)
            await tx.execute(NOTE, event.page, event.number)
            _apply(event, kept, emit)
            await asyncio.sleep(seconds)

    elif style == "lists":

        @notes.on(Noted)
        async def note_many(events: list[Noted], kept: States[Notes], emit: Emit) -> None:
            for event in events:
                _apply(event, kept.of(event), partial(emit, cause=event))
                await asyncio.sleep(world.seconds(event))

    else:

        @notes.on(Noted)
        async def note_slowly(event: Noted, kept: State[Notes], emit: Emit) -> None:
            _apply(event, kept, emit)
            await asyncio.sleep(world.seconds(event))

    declare(platform, sink, lambda: world.outside)
    if has_steps:
        steps = platform.subscription("steps", order=InSequence(wait_seconds=1_000_000))

        @steps.on(Stepped)
        async def step(event: Stepped, kept: State[Steps]) -> None:
            kept.numbers.append(event.number)

    platform.registry.complete()
    return platform


def settings(plan: Plan) -> Settings:
    """Return the settings of a run."""
    return _settings(plan.batch_records, plan.window_ids, plan.cache_keys, plan.outage_keys, plan.emits_pending)


@lru_cache
def _settings(batch_records: int, window_ids: int, cache_keys: int, outage_keys: int, emits_pending: int) -> Settings:
    """Return settings with small limits, so that all of them are reached."""
    return Settings(
        log="kafka://simulated:9092",
        database=SecretStr("postgresql://simulated/simulated"),
        kafka=KafkaSettings(session_timeout_seconds=6, heartbeat_seconds=1.5),
        database_options=DatabaseSettings(idle_in_transaction_seconds=5, pool_size=4),
        engine=EngineSettings(
            batch_records=batch_records,
            batch_seconds=10,
            handler_seconds=6,
            stuck_seconds=30,
            drain_seconds=10,
            dedupe_window_ids=window_ids,
            state_cache_keys=cache_keys,
            retry_attempts=4,
            retry_first_seconds=0.3,
            retry_max_seconds=3,
            outage_keys=outage_keys,
            emits_pending=emits_pending,
        ),
    )


@lru_cache
def platform(style: str, sink: str, *, has_steps: bool) -> Headrace:
    """Return the service whose handlers are written in a style (async, sync, transaction, lists), with that sink."""
    return _platform(style, sink, has_steps=has_steps)
