"""The whole application: the saga's answers come over HTTP, and its time-outs from Postgres."""

from conftest import FakeProvider

from headrace.testing import BlockingService
from shipping.events import ShipmentRejected, VanAdded
from shipping.payments import ProviderAwayError
from shipping.vans import Vans

SHIPMENT = {"shipment": "1", "customer": "ada", "city": "Ulm", "cents": 500}


def test_shipment_over_http(service: BlockingService, provider: FakeProvider) -> None:
    service.publish(VanAdded(city="Ulm", places=1))
    assert service.http.post("/events/shipment.booked", json=SHIPMENT).status_code == 202
    service.quiet()
    saga = service.http.get("/sagas/shipping/1").json()
    assert (saga["status"], provider.taken) == ("completed", 500)


def test_provider_that_stays_away_times_out(service: BlockingService, provider: FakeProvider) -> None:
    provider.is_away = True
    service.publish(VanAdded(city="Ulm", places=1))
    service.http.post("/events/shipment.booked", json=SHIPMENT)
    service.quiet(allow=ProviderAwayError)
    service.move(minutes=15)
    service.quiet(allow=ProviderAwayError)
    assert service.saga("shipping", "1").status == "timed_out"
    assert service.state(Vans, "Ulm") == Vans(free=1)
    reason = "take_payment was not answered in time"
    assert service.published(ShipmentRejected) == [ShipmentRejected(shipment="1", reason=reason)]
    assert provider.taken == 0
