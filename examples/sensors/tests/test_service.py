"""The whole application: routes, log and Postgres."""

from headrace.testing import BlockingService
from sensors import AlertRaised, Room, Sensor


def hot(minute: int, sensor: str = "s1") -> dict[str, object]:
    return {"sensor": sensor, "celsius": 90.0, "at": f"2026-03-01T12:{minute:02}:00Z"}


def test_what_a_gateway_sends_reaches_the_room(service: BlockingService) -> None:
    readings = [hot(0), hot(2), {"sensor": "s2", "celsius": 20.0}]
    answer = service.http.post("/rooms/cellar/readings", json=readings)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 3})
    service.quiet()
    assert service.state(Sensor, "s1").average == 90.0
    assert service.state(Room, "cellar") == Room(alerts={"s1": "90 °C"})
    assert service.published(AlertRaised) == [AlertRaised(room="cellar", sensor="s1", what="90 °C")]


def test_one_wrong_reading_refuses_all(service: BlockingService) -> None:
    readings = [{"sensor": "s1", "celsius": 20.0}, {"sensor": "s2", "celsius": 5_000.0}]
    assert service.http.post("/rooms/cellar/readings", json=readings).status_code == 422
    service.quiet()
    assert service.state(Sensor, "s1").readings == 0


def test_minute_of_a_silent_sensor_is_measured(service: BlockingService) -> None:
    service.http.post("/rooms/cellar/readings", json=[hot(0)])
    service.quiet()
    assert service.state(Sensor, "s1").average is None
    service.move(minutes=2)
    service.quiet()
    assert service.state(Sensor, "s1").average == 90.0


def test_silence_is_noticed(service: BlockingService) -> None:
    service.http.post("/rooms/cellar/readings", json=[{"sensor": "s1", "celsius": 20.0}])
    service.quiet()
    service.move(minutes=10)
    service.quiet()
    assert service.state(Room, "cellar").alerts == {"s1": "silent"}
