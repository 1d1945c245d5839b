"""What sensors make of their readings, without any server."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.testing import Handlers, Timer, assert_exactly_once
from sensors import AlertEnded, AlertRaised, Days, MinuteMeasured, ReadingTaken, Room, Sensor, SilenceNoticed, app

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def reading(celsius: float, seconds: float = 0, sensor: str = "s1") -> ReadingTaken:
    return ReadingTaken(sensor=sensor, room="cellar", celsius=celsius, at=NOON + timedelta(seconds=seconds))


def test_minute_is_measured_when_the_next_one_has_begun(handlers: Handlers) -> None:
    handlers.given(reading(20, 0), reading(30, 40), reading(25, 70))
    then = handlers.when(reading(25, 90))
    assert then.emits == [
        MinuteMeasured(sensor="s1", room="cellar", start=NOON, readings=2, lowest=20, highest=30, average=25)
    ]


def test_reading_that_comes_late_counts_for_its_minute(handlers: Handlers) -> None:
    handlers.given(reading(20, 0), reading(25, 70), reading(40, 59))
    (measured,) = handlers.when(reading(25, 95)).emits
    assert (measured.readings, measured.average) == (2, 30)


def test_reading_that_comes_too_late_is_counted(handlers: Handlers) -> None:
    handlers.given(reading(20, 0), reading(20, 100), reading(90, 30))
    assert handlers.windows("minutes", "s1").late == 1


def test_reading_from_the_future_is_given_up_on(handlers: Handlers) -> None:
    then = handlers.when(reading(20, timedelta(days=36_500).total_seconds()))
    assert {each.fate for each in then.steps} == {"dead_letter"}
    assert handlers.windows("minutes", "s1").open == []


def test_hot_minute_raises_one_alert(handlers: Handlers) -> None:
    then = handlers.run(reading(70), reading(94, 30), reading(90, 60), reading(90, 120), reading(90, 180))
    raised = [each for each in then.emits if isinstance(each, AlertRaised)]
    assert raised == [AlertRaised(room="cellar", sensor="s1", what="82 °C")], "it was told"
    assert handlers.state(Room, "cellar") == Room(alerts={"s1": "82 °C"})


def test_cool_minute_ends_the_alert(handlers: Handlers) -> None:
    then = handlers.run(reading(90), reading(20, 90), reading(20, 180))
    assert AlertEnded(room="cellar", sensor="s1") in then.emits
    assert handlers.state(Sensor, "s1").alert is None


def test_silence_is_an_alert(handlers: Handlers) -> None:
    then = handlers.when(reading(20))
    assert Timer(SilenceNoticed(sensor="s1"), after=timedelta(minutes=10), name="silence") in then.timers
    handlers.move(minutes=9)
    handlers.when(reading(20, 540))
    handlers.move(minutes=9)
    assert handlers.states(Room) == {}, "the second reading has moved the timer"
    handlers.move(minutes=1)
    assert handlers.state(Room, "cellar") == Room(alerts={"s1": "silent"})
    handlers.run(reading(20, 1_200))
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
    readings = ((20, 0), (81, 30), (99, 70), (99, 95), (40, 80), (20, 200))
    assert_exactly_once(app, [reading(*each, sensor) for each in readings for sensor in ("s1", "s2", "s3")])
