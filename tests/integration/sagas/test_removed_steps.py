"""A release without a step that open sagas wait for refuses their partition: their replies would be passed over."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace
from headrace.event import event_type_of
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.platform import record, running, settings_for, value
from tests.support.waiting import until


class Booked(Event, type="trip.booked", topic="trips", key="trip"):
    trip: str


class TakeSeat(Event, type="seat.take", topic="seats", key="trip"):
    trip: str


class SeatTaken(Event, type="seat.taken", topic="trips", key="trip"):
    trip: str


class GiveSeatBack(Event, type="seat.give_back", topic="seats", key="trip"):
    trip: str


class SeatGivenBack(Event, type="seat.given_back", topic="trips", key="trip"):
    trip: str


class TakeCar(Event, type="car.take", topic="cars", key="trip"):
    trip: str


class CarTaken(Event, type="car.taken", topic="trips", key="trip"):
    trip: str


class Cancelled(Event, type="trip.cancelled", topic="trips", key="trip"):
    trip: str


class Trip(BaseModel):
    trip: str


def agency(settings: Settings, *, has_car: bool = True, has_undo: bool = True, sends: bool = True) -> Headrace:
    """Return a service whose trips take a seat, then a car; other services answer."""
    platform = Headrace("agency", settings)
    saga = platform.saga("trips", Trip)

    @saga.start(Booked)
    def begin(event: Booked) -> Trip:
        return Trip(trip=event.trip)

    @saga.step(done=SeatTaken)
    def seat(trip: Trip) -> TakeSeat:
        return TakeSeat(trip=trip.trip)

    if has_undo:

        @seat.undo(done=SeatGivenBack)
        def give_seat_back(trip: Trip, reply: SeatTaken) -> GiveSeatBack:
            return GiveSeatBack(trip=trip.trip)

    if has_car:

        @saga.step(done=CarTaken)
        def car(trip: Trip) -> TakeCar | None:
            return TakeCar(trip=trip.trip) if sends else None

    saga.abandoned_by(Cancelled)
    platform.declare(TakeSeat, GiveSeatBack, TakeCar)
    return platform


def told(event: Event) -> NewRecord:
    event_type = event_type_of(event)
    assert event_type is not None
    data = event.model_dump()
    return record(event_type.topic, event_type.type, data, key=data["trip"])


STATUS = "select status || ' ' || coalesce(step, '') from headrace.saga where key = $1"


@pytest.mark.parametrize("what", ["a step", "an undo"])
async def test_step_that_open_sagas_wait_for_is_not_removed_in_silence(database_url: str, what: str) -> None:
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    is_undo = what == "an undo"
    async with running(agency(settings), log) as runtime:
        happened = [Booked(trip="one"), SeatTaken(trip="one"), *([Cancelled(trip="one")] if is_undo else [])]
        await log.publish(list(map(told, happened)))
        waits = "compensating seat" if is_undo else "running car"
        await until(lambda: _is(runtime, "one", waits), "the saga waits")
    without = agency(settings, has_car=is_undo, has_undo=not is_undo)
    async with running(without, log, is_refused=True) as runtime:
        await log.publish([told(SeatGivenBack(trip="one") if is_undo else CarTaken(trip="one"))])
        assert runtime.health.readiness() == (False, ["partition_refused:trips/0"])
        detail = runtime.health.ready_report().body.decode()
        name = "the undo of the step 'seat'" if is_undo else "the step 'car'"
        assert f"1 open sagas of partition 0 wait for {name}, which is not declared any more" in detail
        assert "Declare it" in detail or "Declare its undo" in detail
    async with running(agency(settings, sends=False), log) as runtime:
        end = "compensated " if is_undo else "completed "
        await until(lambda: _is(runtime, "one", end), "the saga has got its reply")
        await log.publish([told(Booked(trip="two")), told(SeatTaken(trip="two"))])
        await until(lambda: _is(runtime, "two", "completed "), "a new saga passes the step at once")
        await assert_promises_hold(database_url)
    if not is_undo:
        async with running(without, log) as runtime:
            assert runtime.health.readiness() == (True, [])


async def _is(runtime: Runtime, key: str, status: str) -> bool:
    return bool(await value(runtime, STATUS, key) == status)
