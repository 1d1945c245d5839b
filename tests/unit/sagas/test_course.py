"""What each event does to a saga, without any server: steps in order, and undone in reverse."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace
from headrace.emits.emitter import Emitter
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import event_type_of
from headrace.sagas import Saga
from headrace.sagas.kept import Kept, Receipt
from headrace.timers.changes import CancelTimers, SetTimer
from tests.support.emitting import begin as at
from tests.support.emitting import cause


class TripEvent(Event):
    trip: str
    place: str = ""
    reason: str | None = None


class Booked(TripEvent, type="trip.booked", topic="trips", key="trip"): ...


class Cancelled(TripEvent, type="trip.cancelled", topic="trips", key="trip"): ...


class TakeRoom(TripEvent, type="room.take", topic="rooms", key="place"): ...


class RoomTaken(TripEvent, type="room.taken", topic="trips", key="trip"): ...


class RoomRefused(TripEvent, type="room.refused", topic="trips", key="trip"): ...


class GiveRoomBack(TripEvent, type="room.give_back", topic="rooms", key="place"): ...


class RoomGivenBack(TripEvent, type="room.given_back", topic="trips", key="trip"): ...


class TakeSeat(TripEvent, type="seat.take", topic="seats", key="trip"): ...


class SeatTaken(TripEvent, type="seat.taken", topic="trips", key="trip"): ...


class SeatRefused(TripEvent, type="seat.refused", topic="trips", key="trip"): ...


class GiveSeatBack(TripEvent, type="seat.give_back", topic="seats", key="trip"): ...


class Ended(TripEvent, type="trip.ended", topic="trips", key="trip"): ...


class Trip(BaseModel):
    """What the saga knows."""

    trip: str
    seats: int = 0


class Journey:
    """One saga, as its events come in; `sent` are the commands and ends so far, by type and place."""

    def __init__(self, *, waits_for_undo: bool = False) -> None:
        self.platform = Headrace("agency")
        self.saga = trips(self.platform, waits_for_undo=waits_for_undo)
        self.kept: Kept = self.saga._kept()
        self.emit = Emitter("agency", "trips", self.platform.registry.types, 10_000)
        self.number = 0

    def takes(self, *events: TripEvent) -> Journey:
        """Handle the events, one after the other, each of another cause."""
        for event in events:
            event_type = event_type_of(event)
            assert event_type is not None
            self.number += 1
            at(self.emit, cause(str(self.number)))
            envelope = Envelope(id=str(self.number), source="/tests", type=event_type.type)
            handler = self.saga.subscription.handlers[event_type.type]
            handler.call(event, SimpleNamespace(envelope=envelope), (self.kept,), self.emit, None, ())
        return self

    @property
    def sent(self) -> list[str]:
        """The commands and ends so far: type, and place if it has one."""
        events = [json.loads(record.value or b"") for _, record in self.emit.emitted]
        return [" ".join(filter(None, [each["type"], *list(each["data"].values())[1:]])) for each in events]

    @property
    def timers(self) -> list[str]:
        """What was set and cancelled, by step."""
        kinds = {SetTimer: "set", CancelTimers: "cancel"}
        return [f"{kinds[type(change)]} {change.name}" for _, change in self.emit.timers]

    def time_is_up(self, step: str) -> Journey:
        """Let the time of a step be up."""
        model: Any = self.saga.course.timed_out_model
        return self.takes(model(saga="t1", step=step))


def trips(platform: Headrace, *, waits_for_undo: bool) -> Saga[Trip]:
    """Declare a trip: rooms in two places, then a seat."""
    saga = platform.saga("trips", Trip)

    @saga.start(Booked)
    def begin(event: Booked) -> Trip:
        return Trip(trip=event.trip)

    @saga.step(done=RoomTaken, failed=RoomRefused, within=60)
    def rooms(trip: Trip) -> list[TakeRoom]:
        return [TakeRoom(trip=trip.trip, place=place) for place in ("rome", "oslo")]

    @rooms.undo(done=RoomGivenBack if waits_for_undo else None)
    def give_back(trip: Trip, reply: RoomTaken) -> GiveRoomBack:
        return GiveRoomBack(trip=trip.trip, place=reply.place)

    @saga.step(done=SeatTaken, failed=SeatRefused, within=60)
    def seat(trip: Trip) -> TakeSeat:
        return TakeSeat(trip=trip.trip)

    @seat.done
    def count(trip: Trip, reply: SeatTaken) -> None:
        trip.seats += 1

    @seat.undo
    def give_seat_back(trip: Trip, reply: SeatTaken) -> GiveSeatBack:
        return GiveSeatBack(trip=trip.trip)

    @saga.completed
    def complete(trip: Trip) -> Ended:
        return Ended(trip=trip.trip, reason=f"went well with {trip.seats} seat")

    @saga.compensated
    def give_up(trip: Trip, reason: str) -> Ended:
        return Ended(trip=trip.trip, reason=reason)

    saga.abandoned_by(Cancelled)
    platform.declare(TakeRoom, GiveRoomBack, TakeSeat, GiveSeatBack, Ended)
    platform.registry.complete()
    return saga


BOOKED, CANCELLED = Booked(trip="t1"), Cancelled(trip="t1", reason="ill")
ROME, OSLO = RoomTaken(trip="t1", place="rome"), RoomTaken(trip="t1", place="oslo")
NO_ROOM = RoomRefused(trip="t1", reason="full")
SEAT, NO_SEAT = SeatTaken(trip="t1"), SeatRefused(trip="t1", reason="no seat")
ROOMS_ASKED = ["room.take rome", "room.take oslo"]


def test_steps_follow_one_another_to_the_end() -> None:
    journey = Journey().takes(BOOKED)
    assert journey.sent == ROOMS_ASKED
    journey.takes(OSLO)
    assert journey.sent == ROOMS_ASKED, "the step waits for both"
    journey.takes(ROME)
    assert journey.sent == [*ROOMS_ASKED, "seat.take"]
    journey.takes(SEAT)
    assert journey.sent[3:] == ["trip.ended went well with 1 seat"]
    assert journey.timers == ["set rooms", "cancel rooms", "set seat", "cancel seat"]
    assert journey.kept.status == "completed"


def test_refusal_undoes_what_was_done_in_reverse_order() -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME, NO_SEAT)
    assert journey.sent[3:] == ["room.give_back rome", "room.give_back oslo", "trip.ended no seat"]
    assert (journey.kept.status, journey.kept.reason) == ("compensated", "no seat")


def test_what_was_refused_is_not_undone() -> None:
    """Of one step a part may be done, and only that is undone."""
    journey = Journey().takes(BOOKED, OSLO, NO_ROOM)
    assert journey.sent[2:] == ["room.give_back oslo", "trip.ended full"]


def test_success_that_comes_too_late_is_undone_once() -> None:
    journey = Journey().takes(BOOKED, NO_ROOM)
    assert journey.sent[2:] == ["trip.ended full"]
    journey.takes(OSLO)
    assert journey.sent[3:] == ["room.give_back oslo"]
    assert journey.kept.status == "compensated"


def test_time_that_is_up_undoes_the_saga() -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME).time_is_up("seat")
    assert journey.sent[3:5] == ["room.give_back rome", "room.give_back oslo"]
    assert (journey.kept.status, journey.kept.reason) == ("timed_out", "seat was not answered in time")
    journey.takes(SEAT)
    assert journey.sent[6:] == ["seat.give_back"], "the seat that was taken after all is given back"


def test_undo_that_is_waited_for_comes_before_the_next_one() -> None:
    journey = Journey(waits_for_undo=True).takes(BOOKED, OSLO, ROME, NO_SEAT)
    assert journey.sent[3:] == ["room.give_back rome"]
    assert (journey.kept.status, journey.kept.step) == ("compensating", "rooms")
    journey.takes(RoomGivenBack(trip="t1", place="rome"))
    assert journey.sent[4:] == ["room.give_back oslo"]
    journey.takes(RoomGivenBack(trip="t1", place="oslo"))
    assert journey.sent[5:] == ["trip.ended no seat"]


def test_success_that_comes_while_undoing_is_undone_too() -> None:
    journey = Journey(waits_for_undo=True).takes(BOOKED, OSLO, NO_ROOM, ROME)
    assert journey.sent[2:] == ["room.give_back oslo"]
    journey.takes(*(RoomGivenBack(trip="t1") for _ in range(2)))
    assert journey.sent[3:] == ["room.give_back rome", "trip.ended full"]


def test_abandoned_saga_is_undone() -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME, CANCELLED)
    assert journey.sent[3:] == ["room.give_back rome", "room.give_back oslo", "trip.ended ill"]
    assert journey.timers[-1] == "cancel seat"


@pytest.mark.parametrize(
    "late", [BOOKED, OSLO, NO_ROOM, SEAT, NO_SEAT, CANCELLED], ids=lambda each: type(each).__name__
)
def test_nothing_changes_a_saga_that_is_completed(late: TripEvent) -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME, SEAT)
    before, sent = journey.kept.model_copy(deep=True), journey.sent
    journey.takes(late).time_is_up("seat").time_is_up("rooms")
    assert (journey.kept, journey.sent) == (before, sent)


def test_reply_without_a_saga_starts_none() -> None:
    journey = Journey().takes(OSLO, NO_ROOM, SEAT, NO_SEAT, CANCELLED).time_is_up("seat")
    assert (journey.kept.status, journey.sent) == ("new", [])


def test_time_of_a_step_that_is_over_is_of_no_interest() -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME).time_is_up("rooms")
    assert (journey.kept.status, journey.kept.step) == ("running", "seat")


def test_history_tells_how_it_came_to_its_end() -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME, NO_SEAT)
    assert [entry.what for entry in journey.kept.history] == [
        "started by trip.booked",
        "rooms: sends room.take, room.take",
        "rooms: room.taken",
        "rooms: room.taken",
        "seat: sends seat.take",
        "seat: seat.refused (no seat)",
        "rooms: undo sends room.give_back",
        "rooms: undo sends room.give_back",
        "compensated: no seat",
    ]


def test_diagram_is_drawn_from_the_code() -> None:
    assert Journey(waits_for_undo=True).saga.diagram.splitlines() == [
        "stateDiagram-v2",
        "    [*] --> rooms: trip.booked",
        "    rooms --> seat: room.taken",
        "    rooms --> undo_rooms: room.refused",
        "    rooms --> undo_rooms: after 60 s",
        "    rooms --> undo_rooms: trip.cancelled",
        "    seat --> completed: seat.taken",
        "    seat --> undo_seat: seat.refused",
        "    seat --> undo_seat: after 60 s",
        "    seat --> undo_seat: trip.cancelled",
        "    undo_seat --> undo_rooms",
        "    undo_rooms --> compensated: room.given_back",
        "    completed --> [*]",
        "    compensated --> [*]",
    ]


def test_saga_that_is_not_complete_is_refused() -> None:
    platform = Headrace("agency")
    saga = platform.saga("trips", Trip)
    with pytest.raises(ConfigurationError, match="no start or no step"):
        platform.registry.complete()
    with pytest.raises(ConfigurationError, match="waits for nothing"):
        saga.step(within=1)(lambda trip: None)
    with pytest.raises(ConfigurationError, match=r"its data are a pydantic.BaseModel"):
        platform.saga("others", dict)  # type: ignore[type-var]


def test_command_that_the_service_does_not_know_is_refused() -> None:
    platform = Headrace("agency")
    saga = platform.saga("trips", Trip)
    saga.start(Booked)(lambda event: Trip(trip=event.trip))

    @saga.step(done=SeatTaken)
    def seat(trip: Trip) -> TakeSeat:
        return TakeSeat(trip=trip.trip)

    with pytest.raises(ConfigurationError, match=r"saga 'trips': it returns TakeSeat.*events.declare\(TakeSeat\)"):
        platform.registry.complete()


def test_step_that_is_declared_no_more_is_not_left_in_silence() -> None:
    journey = Journey().takes(Booked(trip="t1"))
    journey.kept.receipts.insert(0, Receipt(step="car", reply='{"trip": "t1"}'))
    with pytest.raises(ValueError, match=r"step 'car' was carried out .* has no step of this name any more"):
        journey.takes(RoomRefused(trip="t1"))
    assert journey.kept.status == "compensating"


def test_undo_that_is_declared_no_more_is_not_left_out() -> None:
    journey = Journey().takes(BOOKED, OSLO, ROME)
    rooms = journey.saga.course.step("rooms")
    assert rooms is not None
    rooms.undo = None
    with pytest.raises(ValueError, match=r"step 'rooms' was carried out .* has no undo of it any more"):
        journey.takes(NO_SEAT)


def test_step_that_never_had_an_undo_is_left_out() -> None:
    journey = Journey()
    rooms = journey.saga.course.step("rooms")
    assert rooms is not None
    rooms.undo = None
    journey.takes(BOOKED, OSLO, ROME, NO_SEAT)
    assert journey.sent[3:] == ["trip.ended no seat"]
