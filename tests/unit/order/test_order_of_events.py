"""What a subscription with an order makes of events that come late, or too early, by its handlers in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace import DeadLetter, Event, Headrace, InSequence, Latest, Skip, State
from headrace.errors import ConfigurationError
from headrace.testing import Handlers
from tests.support.numbers import Numbered, Numbers


class Other(Event, type="other", topic="numbers", key="owner"):
    """An event of another type."""

    owner: str
    number: int


def service(order: Latest | InSequence) -> Headrace:
    """Return a service with one subscription of that order."""
    events = Headrace("numbers")
    numbers = events.subscription("numbers", order=order)

    @numbers.on(Numbered)
    def note(event: Numbered, kept: State[Numbers]) -> None:
        if event.says == "skip":
            raise Skip("nothing to do")
        if event.says == "give up":
            raise DeadLetter("it is wrong")
        kept.numbers.append(event.number)

    @numbers.on(Other)
    async def note_other(event: Other, kept: State[Numbers]) -> None:
        kept.numbers.append(event.number)

    return events


class Kit:
    """Handlers that take numbers."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def when(self, *numbers: int, owner: str = "ada", says: str = "") -> list[str]:
        """Let events with these numbers arrive, one by one; return what became of each as it came."""
        allow: Any = DeadLetter
        return [
            self.handlers.when(Numbered(owner=owner, number=each, says=says), sequence=each, allow=allow).steps[0].fate
            for each in numbers
        ]

    @property
    def applied(self) -> list[int]:
        """What was applied to the key, in order."""
        return self.handlers.state(Numbers, "ada").numbers


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """Return handlers of a subscription whose order the test's parameter names."""
    with Handlers(service(request.param)) as handlers:
        yield Kit(handlers)


in_sequence = pytest.mark.parametrize("kit", [InSequence()], indirect=True)
latest = pytest.mark.parametrize("kit", [Latest()], indirect=True)


@latest
def test_event_before_the_latest_is_skipped_as_stale(kit: Kit) -> None:
    assert kit.when(3, 9, 7, 10) == ["applied", "applied", "skipped", "applied"]
    assert kit.applied == [3, 9, 10]


@latest
def test_sequences_are_compared_as_numbers(kit: Kit) -> None:
    kit.when(9, 10)
    assert kit.applied == [9, 10]


@latest
def test_second_event_of_a_sequence_is_stale(kit: Kit) -> None:
    assert kit.when(4, 4) == ["applied", "skipped"]


@latest
def test_keys_and_types_have_orders_of_their_own(kit: Kit) -> None:
    kit.when(9)
    kit.when(1, owner="bob")
    assert kit.handlers.when(Other(owner="ada", number=2), sequence=2).fate == "applied"


@latest
def test_event_that_is_given_up_makes_no_other_stale(kit: Kit) -> None:
    assert kit.when(9, says="give up") == ["dead_letter"]
    assert kit.when(7) == ["applied"]


@pytest.mark.parametrize("kit", [Latest(by="time")], indirect=True)
def test_events_are_ordered_by_time_and_equal_ones_are_applied(kit: Kit) -> None:
    def at(second: int) -> str:
        time = datetime(2026, 5, 1, 12, 0, second, tzinfo=UTC)
        return kit.handlers.when(Numbered(owner="ada", number=second), time=time).fate

    assert [at(5), at(5), at(4), at(6)] == ["applied", "applied", "skipped", "applied"]


@pytest.mark.parametrize("kit", [Latest(by=lambda event: event.number)], indirect=True)
def test_a_function_of_the_event_tells_its_place(kit: Kit) -> None:
    fates = [kit.handlers.when(Numbered(owner="ada", number=each)).fate for each in (2, 1)]
    assert fates == ["applied", "skipped"]


@in_sequence
def test_early_event_is_held_until_the_gap_is_filled(kit: Kit) -> None:
    assert kit.when(1, 3, 4, 2, 5) == ["applied", "waits", "waits", "waits", "applied"]
    assert kit.applied == [1, 2, 3, 4, 5]


@in_sequence
def test_several_gaps_are_filled_in_any_order(kit: Kit) -> None:
    kit.when(12, 5, 3, 11, 1, 2, 10, 9, 6, 8, 7, 4)
    assert kit.applied == list(range(1, 13))


@in_sequence
def test_events_of_one_batch_are_applied_in_sequence(kit: Kit) -> None:
    kit.when(1)
    events = [Numbered(owner="ada", number=each) for each in (4, 2, 3)]
    with Handlers(service(InSequence(by=lambda event: event.number))) as handlers:
        handlers.when([*events, Numbered(owner="ada", number=1)])
        assert handlers.state(Numbers, "ada").numbers == [1, 2, 3, 4]


@in_sequence
def test_key_goes_on_without_what_is_missing_too_long(kit: Kit) -> None:
    kit.when(1, 4, 5, 7)
    kit.handlers.move(seconds=59)
    assert kit.applied == [1]
    kit.handlers.move(seconds=2)
    assert kit.applied == [1, 4, 5]
    kit.handlers.move(seconds=61)
    assert kit.applied == [1, 4, 5, 7]
    assert kit.when(2) == ["skipped"]


@in_sequence
def test_what_joins_a_lane_does_not_make_it_wait_longer(kit: Kit) -> None:
    kit.when(1, 4)
    kit.handlers.move(seconds=40)
    kit.when(2)
    kit.handlers.move(seconds=40)
    kit.when(6, 1)
    assert kit.applied == [1, 2]
    kit.handlers.move(seconds=21)
    assert kit.applied == [1, 2, 4]


@pytest.mark.parametrize("kit", [InSequence(at_end="dead_letter")], indirect=True)
def test_what_waits_too_long_becomes_dead_letters_if_asked(kit: Kit) -> None:
    kit.when(1, 3, 4)
    fates = [step.fate for step in kit.handlers.move(seconds=61).steps]
    assert fates == ["dead_letter", "dead_letter"]
    assert kit.when(2) == ["applied"]
    assert kit.applied == [1, 2]


@in_sequence
def test_late_event_and_second_of_a_number_are_stale(kit: Kit) -> None:
    assert kit.when(1, 2, 2, 1) == ["applied", "applied", "skipped", "skipped"]


@in_sequence
def test_all_types_of_a_key_are_one_sequence(kit: Kit) -> None:
    kit.when(1)
    kit.handlers.when(Other(owner="ada", number=3), sequence=3)
    kit.when(2)
    assert kit.applied == [1, 2, 3]


@in_sequence
def test_skipped_event_leaves_no_gap_and_a_dead_letter_does(kit: Kit) -> None:
    kit.when(1)
    assert kit.when(2, says="skip") == ["skipped"]
    assert kit.when(3) == ["applied"]
    assert kit.when(4, says="give up") == ["dead_letter"]
    assert kit.when(5) == ["waits"]


@pytest.mark.parametrize("kit", [InSequence(first=None)], indirect=True)
def test_key_without_a_first_number_begins_with_what_comes(kit: Kit) -> None:
    assert kit.when(17, 18, 16) == ["applied", "applied", "skipped"]


@in_sequence
@pytest.mark.parametrize("sequence", [None, "x1"], ids=["none", "text"])
def test_event_without_a_number_is_a_dead_letter(kit: Kit, sequence: Any) -> None:
    then = kit.handlers.when(Numbered(owner="ada", number=1), sequence=sequence)
    assert then.fate == "dead_letter"
    assert "sequence" in (then.steps[0].reason or "")


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("sequence", "Latest"),
        (Latest(by="age"), "by='age'"),  # type: ignore[arg-type]
        (InSequence(by="time"), "by='time'"),  # type: ignore[arg-type]
        (InSequence(first=-1), "first=-1"),
        (InSequence(wait_seconds=0), "wait_seconds=0"),
        (InSequence(wait_seconds=1e15), "up to a hundred years"),
        (InSequence(at_end="stop"), "at_end='stop'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_order_is_refused_with_what_is_valid(order: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Headrace("numbers").subscription("numbers", order=order)


def test_batch_handler_cannot_have_an_order() -> None:
    numbers = Headrace("numbers").subscription("numbers", order=Latest())
    with pytest.raises(ConfigurationError, match="batch handler"):

        @numbers.on(Numbered)
        def note(events: list[Numbered]) -> None: ...
