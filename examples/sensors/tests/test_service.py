"""The whole application: routes, log and Postgres."""

from headrace.testing import BlockingService
from sensors import AlertRaised, Room, Sensor


def test_what_a_gateway_sends_reaches_the_room(service: BlockingService) -> None:
    hot = [{"sensor": "s1", "celsius": 90.0}] * 3 + [{"sensor": "s2", "celsius": 20.0}]
    answer = service.http.post("/rooms/cellar/readings", json=hot)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 4})
    service.quiet()
    assert service.state(Sensor, "s1").readings == 3
    assert service.state(Room, "cellar") == Room(alerts={"s1": "90 °C"})
    assert service.published(AlertRaised) == [AlertRaised(room="cellar", sensor="s1", what="90 °C")]


def test_one_wrong_reading_refuses_all(service: BlockingService) -> None:
    readings = [{"sensor": "s1", "celsius": 20.0}, {"sensor": "s2", "celsius": 5_000.0}]
    assert service.http.post("/rooms/cellar/readings", json=readings).status_code == 422
    service.quiet()
    assert service.state(Sensor, "s1").readings == 0


def test_silence_is_noticed(service: BlockingService) -> None:
    service.http.post("/rooms/cellar/readings", json=[{"sensor": "s1", "celsius": 20.0}])
    service.quiet()
    service.move(minutes=10)
    service.quiet()
    assert service.state(Room, "cellar").alerts == {"s1": "silent"}
