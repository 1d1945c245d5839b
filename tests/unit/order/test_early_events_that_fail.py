"""An event that runs without those before it, and fails: its next runs do not wait for them again."""

from __future__ import annotations

from typing import Any

from headrace import Headrace, InSequence, State
from headrace.testing import Handlers
from tests.support.numbers import Numbered, Numbers


def failing(broken: set[int], **options: Any) -> Headrace:
    """Return a service in sequence whose handler raises for the numbers of `broken`; it is tried three times."""
    events = Headrace("numbers")
    policy: dict[str, Any] = {"attempts": 3, "first_seconds": 1, "jitter": 0} | options
    numbers = events.subscription("numbers", order=InSequence(wait_seconds=60), **policy)

    @numbers.on(Numbered)
    def note(event: Numbered, kept: State[Numbers]) -> None:
        if event.number in broken:
            raise ValueError(f"number {event.number} is broken")
        kept.numbers.append(event.number)

    return events


def arrive(handlers: Handlers, *numbers: int) -> None:
    for each in numbers:
        handlers.when(Numbered(owner="ada", number=each), sequence=each, allow=ValueError)


def test_it_uses_up_its_attempts_and_waits_only_once() -> None:
    with Handlers(failing({3})) as handlers:
        arrive(handlers, 1, 3)
        steps = handlers.move(seconds=64, allow=ValueError).steps
        assert [step.fate for step in steps] == ["retry", "retry", "dead_letter"]
        arrive(handlers, 2, 4)
        handlers.move(seconds=59)
        assert handlers.state(Numbers, "ada").numbers == [1], "2 is late, and the dead letter is a gap of its own"
        handlers.move(seconds=2)
        assert handlers.state(Numbers, "ada").numbers == [1, 4]


def test_it_is_applied_by_its_next_attempt() -> None:
    broken = {3}
    with Handlers(failing(broken)) as handlers:
        arrive(handlers, 1, 3, 4)
        handlers.move(seconds=60, allow=ValueError)
        broken.clear()
        handlers.move(seconds=1)
        assert handlers.state(Numbers, "ada").numbers == [1, 3, 4]


def test_it_waits_only_once_when_it_meets_an_outage() -> None:
    """No attempt of it is counted, and what comes too late does not run before it."""
    broken = {3}
    with Handlers(failing(broken, outage=ValueError)) as handlers:
        arrive(handlers, 1, 3, 4)
        handlers.move(seconds=70, allow=ValueError)
        arrive(handlers, 2)
        broken.clear()
        handlers.move(seconds=10)
        assert handlers.state(Numbers, "ada").numbers == [1, 3, 4]
