"""A run calls handlers in order per key: what waits behind a failed event does not run, and a failure leaves no trace.

Sync and async handlers run in loops of their own, so each promise is tested for both.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from headrace import Emit, Event, State
from headrace.cloudevents import decode_record
from headrace.emits.emitter import Emitter
from headrace.engine.failures import HandlerFailedError, OverdueError
from headrace.engine.lanes import Lane, Lanes
from headrace.engine.patience import CALLS_FOR_EACH, MOST, Patience
from headrace.engine.run import Run
from headrace.engine.settle import changed_states
from headrace.engine.threads import HandlerThreads
from headrace.envelope import Envelope
from headrace.event import EventType
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import StoredRecord
from headrace.state.cache import StateCache
from headrace.telemetry.trace_context import is_sampled
from headrace.telemetry.tracing import Tracing
from tests.support.platform import Notes
from tests.support.spans import SAMPLED, UNSAMPLED, Spans
from tests.support.waiting import until

APPLIED, FAILED, BEHIND, READY = Outcome.APPLIED, Outcome.HANDLER_ERROR, Outcome.BEHIND_KEY, Outcome.READY


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    number: int


class Echoed(Event, type="echoed", topic="echoes", key="page"):
    page: str
    number: int


TYPES: dict[str, EventType] = {"echoed": Echoed.__headrace_event_type__}


class Bench:
    """A notebook without its service: its handler notes, echoes twice, and then does what `act` does."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.act: Callable[[Noted], object] = lambda event: None
        self.act_async: Callable[[Noted], Awaitable[object]] = lambda event: asyncio.sleep(0)
        self.called: list[tuple[str, int]] = []
        self.subscription = Subscription("notes", service="notebook")
        self.threads = HandlerThreads("notes", 1)

        def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
            self.called.append((event.page, event.number))
            kept.numbers.append(event.number)
            for _ in range(2):
                emit(Echoed(page=event.page, number=event.number))
            self.act(event)

        async def note_async(event: Noted, kept: State[Notes], emit: Emit) -> None:
            note(event, kept, emit)
            await self.act_async(event)

        self.subscription.on(Noted)(note_async if is_async else note)
        self.cache = StateCache(self.subscription.states["notes"], 1_000)

    def item(self, page: str, number: int, offset: int = 0) -> Item:
        """Return the item of an event, with a fresh state unless its page has one."""
        record = StoredRecord("pages", 0, offset, 0, page.encode(), b"{}", ())
        envelope = Envelope(id=f"{page}-{number}", source="/tests", type="noted")
        if page not in self.cache.entries and page not in self.cache.unreadable:
            self.cache.put(page, b"", 0)
        item = Item(record, READY, envelope, key=page, identity=envelope.identity)
        item.event, item.handler = Noted(page=page, number=number), self.subscription.handlers["noted"]
        return item

    def items(self, *events: tuple[str, int]) -> list[Item]:
        """Return the items of events."""
        return [self.item(page, number, offset) for offset, (page, number) in enumerate(events)]

    async def run(self, items: Sequence[Item], **options: Any) -> Run:
        """Run the items and return the run; the options are those of `prepared`."""
        made = self.prepared(items, **options)
        await made.execute(self.threads, None)
        return made

    def prepared(
        self,
        items: Sequence[Item],
        *,
        careful: bool = True,
        seconds: float = math.inf,
        timeout_seconds: float = 30.0,
        patience: Patience | None = None,
        tracing: Tracing | None = None,
    ) -> Run:
        """Return the run of the items, before it has begun."""
        return Run(
            items,
            {"notes": self.cache},
            emitter=Emitter("notebook", "notes", TYPES, 100_000),
            careful=careful,
            timeout_seconds=timeout_seconds,
            patience=patience,
            observe=lambda handler, seconds: None,
            failed=lambda item, error: None,
            tracing=tracing or Tracing(service="notebook"),
            target_seconds=seconds,
        )

    @property
    def pages(self) -> dict[str, list[int]]:
        """What the states in memory hold."""
        return {page: entry.value.numbers for page, entry in self.cache.entries.items() if entry.value.numbers}


@pytest_asyncio.fixture(params=[False, True], ids=["sync", "async"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = Bench(is_async=request.param)
    yield made
    made.threads.stop()


async def test_calls_for_sampled_events_and_those_that_fail_are_noted(bench: Bench) -> None:
    later_version = "cc" + SAMPLED[2:] + "-more"
    traceparents = [None, "", "01", UNSAMPLED, SAMPLED, later_version, UNSAMPLED]
    items = bench.items(*[(str(number), number) for number in range(len(traceparents))])
    for item, traceparent in zip(items, traceparents, strict=True):
        item.known_envelope = replace(item.envelope, traceparent=traceparent)
        item.is_sampled = is_sampled(traceparent)

    def fail_the_last(event: Noted) -> None:
        if event.number == 6:
            raise ValueError

    bench.act = fail_the_last
    run = await bench.run(items, tracing=Spans().tracing)
    assert [call.item.event.number for call in run.calls] == [4, 5, 6]
    assert [call.error_type for call in run.calls] == [None, None, "ValueError"]
    assert {call.handler for call in run.calls} == {items[0].handler}
    assert not (await bench.run(items, tracing=Tracing())).calls


def outcomes(items: Sequence[Item]) -> list[Outcome]:
    """Return what became of each item."""
    return [item.outcome for item in items]


def echoes(run: Run) -> list[tuple[int, str]]:
    """Return (offset of the cause, id) of what was emitted."""
    return [(item.record.offset, decode_record(record)[0].id) for item, record in run.emitter.emitted]


def fail_at(*events: tuple[str, int]) -> Callable[[Noted], None]:
    """Return what a handler does that fails for some events."""

    def act(event: Noted) -> None:
        if (event.page, event.number) in events:
            raise ValueError("not this one")

    return act


async def test_event_behind_a_failed_one_of_its_key_does_not_run(bench: Bench) -> None:
    """Not one of them, until the end of the run."""
    bench.act = fail_at(("a", 1))
    items = bench.items(("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3))
    await bench.run(items)
    assert outcomes(items) == [FAILED, APPLIED, BEHIND, APPLIED, BEHIND]
    assert bench.called == [("a", 1), ("b", 1), ("b", 2)]
    assert bench.pages == {"b": [1, 2]}


async def test_event_of_a_parked_key_does_not_run(bench: Bench) -> None:
    items = bench.items(("a", 1), ("b", 1), ("a", 2), ("slow", 1))
    lanes = Lanes(lambda handler: Policy(3, 1.0, 2.0))
    lanes.by_key["a"] = Lane(due=0.0, since=0.0)
    lanes.set_aside("slow")
    lanes.hold_back(items)
    await bench.run(items, careful=False)
    assert outcomes(items) == [BEHIND, APPLIED, BEHIND, Outcome.SLOW]
    assert bench.called == [("b", 1)]


async def test_failed_event_leaves_state_and_emits_as_they_were(bench: Bench) -> None:
    """Those of the events before it, of its key too, are kept."""
    bench.act = fail_at(("a", 2))
    run = await bench.run(bench.items(("a", 1), ("a", 2), ("b", 1)))
    assert bench.pages == {"a": [1], "b": [1]}
    assert [offset for offset, _ in echoes(run)] == [0, 0, 2, 2]
    assert changed_states({"notes": bench.cache}, run)["notes"] == [
        ("a", 1, b'{"numbers":[1]}'),
        ("b", 1, b'{"numbers":[1]}'),
    ]


async def test_quick_run_ends_at_the_first_failure_and_names_it(bench: Bench) -> None:
    bench.act = fail_at(("b", 1))
    items = bench.items(("a", 1), ("b", 1), ("c", 1))
    with pytest.raises(HandlerFailedError) as caught:
        await bench.run(items, careful=False)
    assert caught.value.item is items[1]
    assert bench.called == [("a", 1), ("b", 1)]


async def test_event_emits_under_the_same_ids_whatever_ran_before_it(bench: Bench) -> None:
    """So an event that is applied again, in another batch, emits what the log knows already."""
    both = await bench.run(bench.items(("a", 1), ("b", 1)))
    alone = await bench.run([bench.item("b", 1, offset=1)])
    assert echoes(both)[2:] == echoes(alone)
    assert len({event_id for _, event_id in echoes(both)}) == 4


async def test_run_takes_one_event_at_least_and_ends_after_its_time(bench: Bench) -> None:
    items = bench.items(("a", 1), ("a", 2), ("b", 1))
    run = await bench.run(items, seconds=-1.0)
    assert outcomes(items) == [APPLIED, READY, READY]
    assert run.touched() == {"notes": {"a"}}
    await bench.run(items[1:])
    assert outcomes(items) == [APPLIED] * 3
    assert bench.pages == {"a": [1, 2], "b": [1]}


async def test_run_that_ends_early_keeps_what_it_has_done(bench: Bench) -> None:
    items = bench.items(("a", 1), ("b", 1), ("c", 1))
    run = bench.prepared(items)

    def act(event: Noted) -> None:
        assert run.current is not None and run.current.event == event
        if event.page == "b":
            run.end_early()

    bench.act = act
    await run.execute(bench.threads, None)
    assert bench.called == [("a", 1), ("b", 1)]
    assert outcomes(items) == [APPLIED, APPLIED, READY]


async def test_states_are_written_in_the_order_of_their_keys(bench: Bench) -> None:
    """Whatever the order of the events: two writers that sort alike never wait for each other in a circle."""
    names = [f"page-{number * 37 % 101:03}" for number in range(1, 101)]
    run = await bench.run(bench.items(*((page, 1) for page in names)), careful=False)
    written = changed_states({"notes": bench.cache}, run)["notes"]
    assert [key for key, _, _ in written] == sorted(names)
    assert bench.cache.missing({f"new-{page}" for page in names}) == sorted(f"new-{page}" for page in names)


async def test_state_that_does_not_fit_holds_its_key_back(bench: Bench) -> None:
    """The first event of the key fails with the reason, the next ones wait behind it; nothing of the key runs."""
    bench.cache.put("a", b'{"numbers":"none"}', 3)
    items = bench.items(("a", 1), ("b", 1), ("a", 2))
    await bench.run(items, careful=False)
    assert outcomes(items) == [FAILED, APPLIED, BEHIND]
    assert "does not fit its class" in str(items[0].error)
    assert bench.called == [("b", 1)]


async def test_only_calls_that_were_made_are_a_credit(bench: Bench) -> None:
    """A run that ends early has made few: handlers that always take long are waited for from then on."""
    patience = Patience(30.0)
    for _ in range(int(MOST)):
        patience.given_up()
    items = bench.items(*((f"page-{number}", 1) for number in range(2 * CALLS_FOR_EACH)))
    await bench.run(items, seconds=0.0, patience=patience)
    assert outcomes(items[1:2]) == [Outcome.READY]
    assert not patience.wait(60.0).is_cut


@pytest.mark.parametrize("patience", [None, 0.1], ids=["at its limit", "when others wait"])
async def test_batch_gives_up_on_a_call_that_does_not_return(bench: Bench, patience: float | None) -> None:
    """Also a quick run, and it says whether the call had its whole time. The next event does not run."""
    opened = threading.Event()
    if not bench.is_async:
        bench.act = lambda event: event.page != "held" or opened.wait(60)
    else:
        bench.act_async = lambda event: asyncio.Event().wait() if event.page == "held" else asyncio.sleep(0)
    items = bench.items(("a", 1), ("held", 1), ("b", 1))
    options: dict[str, Any] = {"timeout_seconds": 0.1} if patience is None else {"patience": Patience(patience)}
    with pytest.raises(OverdueError) as caught:
        await bench.run(items, careful=False, **options)
    assert (caught.value.item, caught.value.is_cut) == (items[1], patience is not None)
    opened.set()
    await until(lambda: bench.threads.abandoned == 0, "its thread has returned")
    assert bench.called == [("a", 1), ("held", 1)]


async def test_handler_of_a_run_that_is_over_spoils_no_state(bench: Bench) -> None:
    """It raises late: what it would restore has been loaded anew meanwhile, by another run."""
    opened = threading.Event()

    def hang(event: Noted) -> None:
        assert opened.wait(60)
        raise ValueError("too late")

    bench.act = hang
    if bench.is_async:
        return  # a task that is cancelled ends before its states are loaded anew
    with pytest.raises(OverdueError):
        await bench.run(bench.items(("a", 1)), timeout_seconds=0.02)
    bench.cache.forget(["a"])
    bench.cache.put("a", b'{"numbers":[7]}', 3)
    opened.set()
    await until(lambda: bench.threads.abandoned == 0, "its thread has returned")
    assert bench.pages == {"a": [7]}


async def test_coroutine_that_is_too_slow_fails_alone() -> None:
    subscription = Subscription("notes", service="notebook")
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @subscription.on(Noted)
    async def note(event: Noted) -> None:
        if event.page == "slow":
            await never

    bench = Bench(is_async=True)
    bench.subscription = subscription
    items = bench.items(("slow", 1), ("a", 1))
    await bench.run(items, timeout_seconds=0.01)
    bench.threads.stop()
    assert outcomes(items) == [FAILED, APPLIED]
    assert "TimeoutError" in str(items[0].error)


async def test_cancelled_run_ends_whatever_its_handler_swallows() -> None:
    """Nothing of it is committed: the cancelled event does not count as applied."""
    subscription, entered = Subscription("notes", service="notebook"), asyncio.Event()
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @subscription.on(Noted)
    async def note(event: Noted) -> None:
        entered.set()
        with suppress(asyncio.CancelledError):
            await never

    bench = Bench(is_async=True)
    bench.subscription = subscription
    items = bench.items(("a", 1))
    running = asyncio.create_task(bench.run(items))
    await entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    bench.threads.stop()
    assert outcomes(items) == [READY]
