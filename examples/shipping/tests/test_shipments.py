"""Shipments end with a van and a payment, or with neither; without any server."""

import pytest
from conftest import FakeProvider
from fastapi import FastAPI

from headrace.testing import Handlers, assert_exactly_once
from shipping.events import ShipmentBooked, ShipmentConfirmed, ShipmentRejected, TakePayment, VanAdded
from shipping.payments import ProviderAwayError
from shipping.vans import Vans


def booked(shipment: str, customer: str = "ada", cents: int = 500) -> ShipmentBooked:
    return ShipmentBooked(shipment=shipment, customer=customer, city="Ulm", cents=cents)


@pytest.fixture
def ulm(handlers: Handlers) -> Handlers:
    """A service with one place in Ulm."""
    handlers.given(VanAdded(city="Ulm", places=1))
    return handlers


def test_shipment_is_confirmed(ulm: Handlers, provider: FakeProvider) -> None:
    assert ulm.run(booked("1")).emits[-1] == ShipmentConfirmed(shipment="1")
    assert ulm.state(Vans, "Ulm") == Vans(free=0, taken=["1"])
    assert provider.taken == 500
    assert ulm.timers == [], "no time-out is left"


def test_full_vans_take_no_money(ulm: Handlers, provider: FakeProvider) -> None:
    ulm.run(booked("1"))
    assert ulm.run(booked("2")).emits[-1] == ShipmentRejected(shipment="2", reason="no van in Ulm")
    assert provider.taken == 500


def test_refused_card_gives_the_place_back(ulm: Handlers, provider: FakeProvider) -> None:
    then = ulm.run(booked("1", "mallory"))
    assert ShipmentRejected(shipment="1", reason="the card of mallory was refused") in then.emits
    assert ulm.state(Vans, "Ulm") == Vans(free=1)
    assert (ulm.saga("shipping", "1").status, provider.taken) == ("compensated", 0)


def test_provider_that_comes_back_in_time_is_waited_for(ulm: Handlers, provider: FakeProvider) -> None:
    provider.is_away = True
    ulm.run(booked("1"), allow=ProviderAwayError)
    assert ulm.saga("shipping", "1").step == "take_payment"
    ulm.move(minutes=5, allow=ProviderAwayError)
    provider.is_away = False
    ulm.move(minutes=5)
    assert ulm.saga("shipping", "1").status == "completed"
    assert provider.taken == 500


def test_late_payment_is_given_back(ulm: Handlers, provider: FakeProvider) -> None:
    provider.is_away = True
    ulm.run(booked("1"), allow=ProviderAwayError)
    ulm.move(minutes=15, allow=ProviderAwayError)
    assert ulm.saga("shipping", "1").status == "timed_out"
    assert ulm.state(Vans, "Ulm") == Vans(free=1)
    provider.is_away = False
    ulm.move(minutes=1)
    assert (len(provider.charged), provider.taken) == (1, 0)


def test_payments_are_asked_for_by_a_key(handlers: Handlers, provider: FakeProvider) -> None:
    """A question that is asked again has the same key, and the provider has one payment."""
    provider.is_silent = True
    handlers.when(TakePayment(shipment="1", customer="ada", cents=500), allow=ProviderAwayError)
    assert len(provider.charged) == 1, "it was taken, and the answer is lost"
    provider.is_silent = False
    (taken,) = handlers.move(minutes=1).emits
    assert [taken.receipt] == list(provider.charged)


def test_shipping_is_exactly_once(headrace_app: FastAPI) -> None:
    places = [VanAdded(city=city, places=2) for city in ("Ulm", "Bonn")]
    parcels = [booked(f"{number}", customer) for number, customer in enumerate(("ada", "bob", "mallory", "ada"))]
    assert_exactly_once(headrace_app, [*places, *parcels])
