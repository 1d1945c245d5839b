"""Readings of sensors come in; a minute that is too hot on average is an alert, and so is silence."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from pydantic import AwareDatetime, BaseModel, Field

from headrace import (
    CallNext,
    DeadLetter,
    Emit,
    Envelope,
    Event,
    Handling,
    Headrace,
    Publisher,
    State,
    Window,
    require,
)

events = Headrace("sensors")
app = FastAPI(title="sensors", lifespan=events.lifespan)
app.include_router(events.router)

HOT_CELSIUS = 80.0
MINUTE, LATENESS = timedelta(minutes=1), timedelta(seconds=30)
SILENCE, SILENT = timedelta(minutes=10), "silent"
AHEAD = timedelta(minutes=5)
"""So much may the clock of a sensor differ from that of the service."""

Celsius = Annotated[float, Field(ge=-100, le=1_000)]


class ReadingTaken(Event, type="reading.taken", topic="readings", key="sensor"):
    """A sensor has measured."""

    sensor: Annotated[str, Field(min_length=1)]
    room: str
    celsius: Celsius
    at: AwareDatetime


class MinuteMeasured(Event, type="minute.measured", topic="readings", key="sensor", internal=True):
    """What a sensor has read in a minute, by its own clock."""

    sensor: str
    room: str
    start: datetime
    readings: int
    lowest: float
    highest: float
    average: float


class SilenceNoticed(Event, type="silence.noticed", topic="readings", key="sensor", internal=True):
    """A sensor has not been heard for a while."""

    sensor: str


class DayEnded(Event, type="day.ended", topic="days", key="zone", internal=True):
    """It is midnight."""

    zone: str


class AlertRaised(Event, type="alert.raised", topic="alerts", key="room", internal=True):
    """Something is wrong in a room."""

    room: str
    sensor: str
    what: str


class AlertEnded(Event, type="alert.ended", topic="alerts", key="room", internal=True):
    """It is over."""

    room: str
    sensor: str


class Sensor(BaseModel):
    """What is known of one sensor."""

    room: str = ""
    readings: int = 0
    average: float | None = None
    """Of the last minute that is complete."""
    alert: str | None = None


class Minute(BaseModel):
    """The readings of one minute."""

    room: str = ""
    lowest: float = 0.0
    highest: float = 0.0
    total: float = 0.0
    readings: int = 0


class Room(BaseModel):
    """The alerts of one room, by sensor."""

    alerts: dict[str, str] = {}


class Days(BaseModel):
    """The days that have ended."""

    count: int = 0
    last: date | None = None


@events.middleware
async def refuse_the_future(handling: Handling, call_next: CallNext) -> Any:
    """Give up on a reading whose sensor's clock is ahead: it would close the windows of the minutes before."""
    event, sent = handling.event, handling.envelope.time
    if isinstance(event, ReadingTaken) and sent is not None and event.at > sent + AHEAD:
        raise DeadLetter(f"the clock of {event.sensor} is ahead: {event.at} was sent at {sent}")
    return await call_next(handling)


minutes = events.windows(
    "minutes", Minute, size=MINUTE, lateness=LATENESS, ttl=timedelta(days=7), time=lambda reading: reading.at
)
sensors = events.subscription("sensors")
rooms = events.subscription("rooms")
days = events.subscription("days")
days.schedule(DayEnded(zone="UTC"), "0 0 * * *")


@minutes.on(ReadingTaken)
def add(minute: Minute, event: ReadingTaken) -> None:
    """Add a reading to its minute, in whatever order they come."""
    minute.room = event.room
    minute.lowest = min(minute.lowest, event.celsius) if minute.readings else event.celsius
    minute.highest = max(minute.highest, event.celsius) if minute.readings else event.celsius
    minute.total += event.celsius
    minute.readings += 1


@minutes.closed
def measure(minute: Minute, window: Window) -> MinuteMeasured:
    """Tell what the minute came to."""
    return MinuteMeasured(
        sensor=window.key,
        room=minute.room,
        start=window.start,
        readings=minute.readings,
        lowest=minute.lowest,
        highest=minute.highest,
        average=minute.total / minute.readings,
    )


@sensors.on(ReadingTaken)
def take(event: ReadingTaken, sensor: State[Sensor], emit: Emit) -> None:
    """Take a reading in, and be told if none follows."""
    sensor.room = event.room
    sensor.readings += 1
    if sensor.alert == SILENT:
        sensor.alert = None
        emit(AlertEnded(room=sensor.room, sensor=event.sensor))
    emit(SilenceNoticed(sensor=event.sensor), after=SILENCE, name="silence")  # moves the one before


@sensors.on(MinuteMeasured)
def judge(event: MinuteMeasured, sensor: State[Sensor]) -> AlertRaised | AlertEnded | None:
    """Raise an alert if a whole minute was too hot; a cooler one ends it."""
    sensor.average = event.average
    if event.average >= HOT_CELSIUS and sensor.alert is None:
        sensor.alert = f"{event.average:g} °C"
        return AlertRaised(room=event.room, sensor=event.sensor, what=sensor.alert)
    if event.average < HOT_CELSIUS and sensor.alert not in (None, SILENT):
        sensor.alert = None
        return AlertEnded(room=event.room, sensor=event.sensor)
    return None


@sensors.on(SilenceNoticed)
def miss(event: SilenceNoticed, sensor: State[Sensor]) -> AlertRaised:
    """Raise an alert, which the next reading ends."""
    sensor.alert = SILENT
    return AlertRaised(room=sensor.room, sensor=event.sensor, what=sensor.alert)


@rooms.on(AlertRaised)
def raise_alert(event: AlertRaised, room: State[Room]) -> None:
    """Note the alert; a sensor has one at a time."""
    room.alerts[event.sensor] = event.what


@rooms.on(AlertEnded)
def end_alert(event: AlertEnded, room: State[Room]) -> None:
    """Forget the alert."""
    room.alerts.pop(event.sensor, None)


@days.on(DayEnded)
def end_day(event: DayEnded, envelope: Envelope, days: State[Days]) -> None:
    """Count the day; its time is the event's, whenever it is handled."""
    days.count += 1
    days.last = envelope.time.date() if envelope.time is not None else None


class Measured(BaseModel):
    """One reading of a gateway."""

    sensor: str
    celsius: Celsius
    at: AwareDatetime | None = None
    """When it was taken; now, if the gateway does not say."""


@app.post("/rooms/{room}/readings", status_code=202, dependencies=[Depends(require("publish"))])
async def publish(room: str, readings: list[Measured], publisher: Publisher) -> dict[str, int]:
    """Take what the gateway of a room has collected: all of it, or nothing."""
    now = datetime.now(UTC)
    taken = [ReadingTaken(sensor=each.sensor, room=room, celsius=each.celsius, at=each.at or now) for each in readings]
    return {"accepted": len(await publisher.publish(taken))}
