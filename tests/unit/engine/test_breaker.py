"""A breaker opens for an outage and not for poison, and closes as soon as an event is applied."""

from __future__ import annotations

import pytest

from headrace import DeadLetter, Event
from headrace.engine.breaker import Breaker, OutageError
from headrace.errors import HandlerError
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Handler, Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import StoredRecord


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str


def note(event: Noted) -> None: ...


def make_handler(name: str) -> Handler:
    subscription = Subscription("notes", service="shop")
    subscription.on(Noted)(note)
    made = subscription.handlers["noted"]
    made.name = name
    return made


NOTE, OTHER = make_handler("note"), make_handler("other")


def policy_of(handler: Handler | None) -> Policy:
    return Policy(3, 1.0, 2.0, permanent=(KeyError,), outage=(ConnectionError,))


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("notes", 10, clock)


def ran(*keys: str, error: Exception | None = None, handler: Handler = NOTE) -> list[Item]:
    """Items of these keys, applied or failed with the error."""
    items = []
    for key in keys:
        item = Item(StoredRecord("pages", 0, 0, 0, None, None, ()), Outcome.APPLIED, handler=handler, key=key)
        if error is not None:
            wrapped = HandlerError("note raised", "note")
            wrapped.__cause__ = error
            item.failed(Outcome.HANDLER_ERROR, wrapped)
        items.append(item)
    return items


def keys(first: int, end: int) -> list[str]:
    return [f"key-{number}" for number in range(first, end)]


def judge(breaker: Breaker, *items: Item, is_of_log: bool = True) -> bool:
    """Tell whether the run was undone, since it met an outage."""
    try:
        breaker.judge(items, policy_of, is_of_log=is_of_log)
    except OutageError:
        return True
    return False


def test_many_different_keys_open_it(breaker: Breaker) -> None:
    """They may fail in several runs."""
    assert not judge(breaker, *ran(*keys(0, 9), error=ValueError("x")))
    assert judge(breaker, *ran("key-9", error=ValueError("x")))
    assert breaker.outage is not None and breaker.outage.handler == "note"


@pytest.mark.parametrize(
    "items",
    [
        ran(*["key-1"] * 50, error=ValueError("x")),
        ran(*keys(0, 9), error=ValueError("x")),
        ran(*keys(0, 20), error=ValueError("x")) + ran(*keys(20, 40)),
        ran(*keys(0, 9), error=ValueError("x")) + ran(*keys(9, 18), error=ValueError("x"), handler=OTHER),
        ran(*keys(0, 50), error=KeyError("x")),
        ran(*keys(0, 50), error=DeadLetter("x")),
    ],
    ids=["one key", "few keys", "half of the keys", "of two handlers", "permanent", "given up"],
)
def test_poison_does_not_open_it(breaker: Breaker, items: list[Item]) -> None:
    assert not judge(breaker, *items)
    assert breaker.outage is None


def test_failures_that_are_far_apart_do_not_open_it(breaker: Breaker, clock: Clock) -> None:
    for key in keys(0, 40):
        assert not judge(breaker, *ran(key, error=ValueError("x")))
        clock.now += 4.0


def test_retries_of_failing_keys_do_not_open_it(breaker: Breaker) -> None:
    assert not judge(breaker, *ran(*keys(0, 50), error=ValueError("x")), is_of_log=False)


@pytest.mark.parametrize("is_of_log", [True, False])
def test_declared_outage_opens_it_at_once(breaker: Breaker, is_of_log: bool) -> None:
    assert judge(breaker, *ran("key-1", error=ConnectionResetError()), is_of_log=is_of_log)
    assert breaker.outage is not None


def test_zero_keys_leave_it_to_declared_outages(clock: Clock) -> None:
    breaker = Breaker("notes", 0, clock)
    assert not judge(breaker, *ran(*keys(0, 500), error=ValueError("x")))
    assert judge(breaker, *ran("key-1", error=ConnectionResetError()))


def test_open_breaker_undoes_runs_of_the_handler_alone(breaker: Breaker) -> None:
    judge(breaker, *ran("key-1", error=ConnectionResetError()))
    assert judge(breaker, *ran("key-2", error=ValueError("x")))
    assert not judge(breaker, *ran("key-2", error=ValueError("x"), handler=OTHER))
    assert not judge(breaker, *ran("key-2"))


def test_probes_become_rarer_until_one_is_applied(breaker: Breaker, clock: Clock) -> None:
    judge(breaker, *ran("key-1", error=ConnectionResetError()))
    waits: list[float] = []
    for _ in range(8):
        waits.append(breaker.seconds_to_probe())
        assert not breaker.take_probe()
        clock.now += waits[-1]
        assert breaker.take_probe() and not breaker.take_probe()
        breaker.probed(ran("key-1", error=ValueError("x")))
    assert 0.8 <= waits[0] <= 1.0 and 24.0 <= waits[-1] <= 30.0
    breaker.probed(ran("key-1", handler=OTHER))
    assert breaker.take_probe(), "an event of another handler tells nothing, so the next one is asked at once"
    breaker.probed(ran("key-2"))
    assert breaker.outage is None
    judge(breaker, *ran("key-1", error=ConnectionResetError()))
    assert breaker.seconds_to_probe() <= 1.0


def test_outage_of_a_handler_without_events_comes_to_an_end(breaker: Breaker, clock: Clock) -> None:
    """Its last event was given up on: the other handlers' events are not tried one at a time for ever."""
    judge(breaker, *ran("key-1", error=ConnectionResetError()))
    clock.now += 1.0
    breaker.probed(ran("key-1", error=ConnectionResetError()))
    for _ in range(61):
        assert breaker.outage is not None
        clock.now += 1.0
        breaker.probed(ran("key-2", handler=OTHER))
    assert breaker.outage is None


def test_outage_may_be_told_from_as_many_keys_as_a_team_says(clock: Clock) -> None:
    breaker = Breaker("notes", 8_000, clock)
    assert judge(breaker, *ran(*keys(0, 8_000), error=ValueError("x")))


def test_nothing_is_known_of_a_probe_without_an_outage(breaker: Breaker) -> None:
    """Another partition's probe has closed it meanwhile."""
    breaker.probed(ran("key-1", error=ValueError("x")))
    assert breaker.outage is None
