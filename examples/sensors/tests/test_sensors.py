"""What sensors make of their readings, without any server."""

from datetime import timedelta

import pytest

from headrace.testing import Handlers, Timer, assert_exactly_once
from sensors import AlertEnded, AlertRaised, Days, ReadingTaken, Room, Sensor, SilenceNoticed, app


def reading(celsius: float, sensor: str = "s1") -> ReadingTaken:
    return ReadingTaken(sensor=sensor, room="cellar", celsius=celsius)


def test_three_hot_readings_raise_one_alert(handlers: Handlers) -> None:
    handlers.given(reading(80), reading(81))
    assert handlers.when(reading(82)).emits == [AlertRaised(room="cellar", sensor="s1", what="82 °C")]
    assert handlers.when(reading(83)).emits == [], "it was told"


def test_cool_reading_between_begins_anew(handlers: Handlers) -> None:
    handlers.given(reading(80), reading(81), reading(20))
    assert handlers.when(reading(82)).emits == []


def test_cool_reading_ends_the_alert(handlers: Handlers) -> None:
    handlers.given(reading(80), reading(80), reading(80))
    then = handlers.when(reading(20))
    assert then.emits == [AlertEnded(room="cellar", sensor="s1")]
    assert then.state(Sensor).alert is None


def test_silence_is_an_alert(handlers: Handlers) -> None:
    then = handlers.when(reading(20))
    assert then.timers == [Timer(SilenceNoticed(sensor="s1"), after=timedelta(minutes=10), name="silence")]
    handlers.move(minutes=9)
    handlers.when(reading(20))
    handlers.move(minutes=9)
    assert handlers.states(Room) == {}, "the second reading has moved the timer"
    handlers.move(minutes=1)
    assert handlers.state(Room, "cellar") == Room(alerts={"s1": "silent"})
    handlers.run(reading(20))
    assert handlers.state(Room, "cellar") == Room()


def test_days_are_counted(handlers: Handlers) -> None:
    handlers.move(days=3)
    assert handlers.state(Days, "UTC").count == 3


@pytest.mark.parametrize("celsius", [-101.0, 1_001.0])
def test_reading_of_a_broken_sensor_is_refused(celsius: float) -> None:
    with pytest.raises(ValueError, match="celsius"):
        reading(celsius)


def test_sensors_are_exactly_once() -> None:
    """Whatever is rolled back, killed, doubled and shuffled."""
    degrees = (20, 81, 82, 83, 84, 20)
    assert_exactly_once(app, [reading(celsius, sensor) for celsius in degrees for sensor in ("s1", "s2", "s3")])
