"""Readings of sensors come in; too hot for three readings in a row is an alert, and so is silence."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

from headrace import Emit, Envelope, Event, Headrace, Publisher, State, require

events = Headrace("sensors")
app = FastAPI(title="sensors", lifespan=events.lifespan)
app.include_router(events.router)

HOT_CELSIUS, HOT_READINGS = 80.0, 3
SILENCE = timedelta(minutes=10)

Celsius = Annotated[float, Field(ge=-100, le=1_000)]


class ReadingTaken(Event, type="reading.taken", topic="readings", key="sensor"):
    """A sensor has measured."""

    sensor: Annotated[str, Field(min_length=1)]
    room: str
    celsius: Celsius


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
    celsius: float | None = None
    readings: int = 0
    hot: int = 0
    """Readings in a row that were too hot."""
    alert: str | None = None


class Room(BaseModel):
    """The alerts of one room, by sensor."""

    alerts: dict[str, str] = {}


class Days(BaseModel):
    """The days that have ended."""

    count: int = 0
    last: date | None = None


sensors = events.subscription("sensors")
rooms = events.subscription("rooms")
days = events.subscription("days")
days.schedule(DayEnded(zone="UTC"), "0 0 * * *")


@sensors.on(ReadingTaken)
def take(event: ReadingTaken, sensor: State[Sensor], emit: Emit) -> None:
    """Take a reading in, and be told if none follows."""
    sensor.room, sensor.celsius = event.room, event.celsius
    sensor.readings += 1
    sensor.hot = sensor.hot + 1 if event.celsius >= HOT_CELSIUS else 0
    if sensor.hot == HOT_READINGS:
        sensor.alert = f"{event.celsius:g} °C"
        emit(AlertRaised(room=sensor.room, sensor=event.sensor, what=sensor.alert))
    elif sensor.hot == 0 and sensor.alert is not None:
        sensor.alert = None
        emit(AlertEnded(room=sensor.room, sensor=event.sensor))
    emit(SilenceNoticed(sensor=event.sensor), after=SILENCE, name="silence")  # moves the one before


@sensors.on(SilenceNoticed)
def miss(event: SilenceNoticed, sensor: State[Sensor]) -> AlertRaised:
    """Raise an alert, which the next reading ends."""
    sensor.alert = "silent"
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


@app.post("/rooms/{room}/readings", status_code=202, dependencies=[Depends(require("publish"))])
async def publish(room: str, readings: list[Measured], publisher: Publisher) -> dict[str, int]:
    """Take what the gateway of a room has collected: all of it, or nothing."""
    taken = [ReadingTaken(sensor=each.sensor, room=room, celsius=each.celsius) for each in readings]
    return {"accepted": len(await publisher.publish(taken))}
