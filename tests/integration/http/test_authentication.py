"""Who may publish what: internal types, scopes of single types, and a team's own authentication."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import jwt
import pytest
from fastapi import Depends, Header, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from pydantic import SecretStr

from headrace import Caller, Event, Headrace
from headrace.errors import ConfigurationError
from headrace.http.access import refuse_exposure
from headrace.http.asyncapi import build_asyncapi
from headrace.http.guard import require
from headrace.http.openapi import extend_openapi
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.platform import running, settings_for
from tests.support.routes import application, caller

CALLERS = {
    "ops": Caller("ops", ["read", "operate"]),
    "till": Caller("till", ["publish:order.*"]),
    "gateway": Caller("gateway", ["publish", "read"]),
}
closed: list[str] = []
SECRET = "thirty-two bytes of a test's secret"


def open_users() -> Iterator[dict[str, Caller]]:
    """A dependency of the dependency, with something to close."""
    yield CALLERS
    closed.append("users")


async def verify(
    token: Annotated[str, Depends(OAuth2PasswordBearer("token"))],
    users: Annotated[dict[str, Caller], Depends(open_users)],
    request: Request,
    tenant: Annotated[str, Header(alias="X-Tenant")],
) -> Caller | None:
    """Anything that FastAPI can inject may be asked for."""
    if tenant != "mill" or request.url.path == "/nowhere":
        raise HTTPException(403, "another tenant")
    return users.get(token)


class OrderPlaced(Event, type="order.placed", topic="orders"):
    total: int


class WalletCredited(Event, type="wallet.credited", topic="wallets"):
    amount: int


class PaymentTaken(Event, type="payment.taken", topic="payments", internal=True):
    amount: int


def service(settings: Settings, authenticate: Any = None) -> Headrace:
    platform = Headrace("shop", settings, authenticate=authenticate)
    platform.declare(OrderPlaced, WalletCredited, PaymentTaken)
    return platform


@asynccontextmanager
async def served(platform: Headrace) -> AsyncIterator[httpx.AsyncClient]:
    """Run the platform, with a route of the team's own that is guarded like its."""
    app = application(platform)

    @app.get("/reports", dependencies=[Depends(require("read"))])
    async def get_reports() -> list[str]:
        return []

    async with running(platform, MemoryLog(), is_waiting=True), caller(app) as client:
        yield client


def headers(token: str, tenant: str = "mill") -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "X-Tenant": tenant}


async def test_the_teams_own_dependency_says_who_asks(database_url: str) -> None:
    platform = service(settings_for(database_url), Depends(verify))
    closed.clear()
    async with served(platform) as client:

        async def post(type_name: str, data: object, **sent: str) -> int:
            return (await client.post(f"/events/{type_name}", json=data, headers=sent)).status_code

        assert await post("order.placed", {"total": 1}, **headers("till")) == 202
        assert await post("wallet.credited", {"amount": 1}, **headers("till")) == 403
        assert await post("wallet.credited", {"amount": 1}, **headers("gateway")) == 202
        assert await post("order.placed", {"total": 1}, **headers("ops")) == 403
        assert await post("order.placed", {"total": 1}, **headers("nobody")) == 401
        assert await post("order.placed", {"total": 1}, **headers("till", "other")) == 403
        assert await post("order.placed", {"total": 1}) == 401
        assert len(closed) == 5, "what a dependency opened is closed, unless the other one raised"
        for path in ("/subscriptions", "/docs", "/openapi.json", "/reports"):
            for token, status in (("ops", 200), ("till", 403), ("nobody", 401)):
                answer = await client.get(path, headers=headers(token))
                assert answer.status_code == status, (path, token)
        assert (await client.get("/health/live")).status_code == 200
        answer = await client.get("/subscriptions", headers={"Authorization": "Bearer ops"})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert "header.X-Tenant" in answer.json()["detail"]


def verify_token(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> Caller:
    """What the page on access shows, with a secret instead of a public key."""
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="shop")
    except jwt.PyJWTError as error:
        raise HTTPException(401, str(error)) from error
    return Caller(claims["sub"], claims["scope"].split())


async def test_a_token_says_who_asks(database_url: str) -> None:
    async with served(service(settings_for(database_url), Depends(verify_token))) as client:

        async def status(**claims: object) -> int:
            token = jwt.encode({"sub": "ada", "aud": "shop", **claims}, SECRET, "HS256")
            return (await client.get("/subscriptions", headers={"Authorization": f"Bearer {token}"})).status_code

        assert await status(scope="openid read") == 200
        assert await status(scope="openid profile") == 403
        assert await status(scope="read", aud="other") == 401
        assert await status(scope="read", exp=1) == 401


async def test_keys_of_the_file_count_beside_it(database_url: str, tmp_path: Path) -> None:
    """Operators keep their keys: what is not in the file is for the dependency to judge."""
    keys = tmp_path / "keys.json"
    keys.write_text('[{"key": "k-ops", "scopes": ["read"]}]')
    settings = settings_for(database_url).model_copy(update={"api_keys_file": keys})
    async with served(service(settings, verify)) as client:
        assert (await client.get("/subscriptions", headers={"X-API-Key": "k-ops"})).status_code == 200
        assert (await client.get("/subscriptions", headers={"X-API-Key": "k-no"})).status_code == 401
        assert (await client.get("/subscriptions", headers={"Authorization": "Bearer k-ops"})).status_code == 200
        assert (await client.get("/subscriptions", headers={"Authorization": "Bearer k-no"})).status_code == 401
        assert (await client.get("/subscriptions", headers=headers("ops"))).status_code == 200


async def test_a_key_may_be_for_some_types_only(database_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('[{"name": "till", "key": "k", "scopes": ["publish:order.placed"]}]')
    settings = settings_for(database_url).model_copy(update={"api_keys_file": keys})
    async with served(service(settings)) as client:
        batch = [
            {"specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed", "data": {"total": 1}},
            {"specversion": "1.0", "id": "2", "source": "/s", "type": "wallet.credited", "data": {"amount": 1}},
        ]
        sent = {"X-API-Key": "k", "content-type": "application/cloudevents-batch+json"}
        answer = await client.post("/events", content=json.dumps(batch[:1]), headers=sent)
        assert answer.status_code == 202
        answer = await client.post("/events", content=json.dumps(batch), headers=sent)
        assert answer.status_code == 403
        assert answer.json()["detail"] == "'till' lacks the scope publish:wallet.credited."


async def test_an_internal_type_comes_from_the_service_alone(database_url: str) -> None:
    platform = service(settings_for(database_url))
    async with served(platform) as client:
        answer = await client.post("/events/payment.taken", json={"amount": 5})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unknown-type")
        assert answer.json()["detail"] == "the type 'payment.taken' is internal: the service alone publishes it."
        unknown = (await client.post("/events/payment.token", json={"amount": 5})).json()["detail"]
        assert unknown == "the type 'payment.token' is not declared; declared are: order.placed, wallet.credited."
        assert (await platform.publish(PaymentTaken(amount=5))).position.topic == "payments"
        async with platform.transaction() as tx:
            tx.emit(PaymentTaken(amount=5))
        document = extend_openapi((await client.get("/openapi.json")).json(), platform.registry)
        assert "payment.taken" not in json.dumps(document["paths"])
        asyncapi = build_asyncapi(platform.registry, "/events")
        assert "payment.taken" not in asyncapi["channels"]["http-ingest"]["messages"]
        assert "topic.payments" in asyncapi["channels"]


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"authenticate= takes Depends\(function\)"):
        Headrace("shop", authenticate="secret")


def test_with_authentication_every_address_may_be_served() -> None:
    settings = Settings(database=SecretStr("postgresql://shop@db/shop"))
    refuse_exposure(settings, "0.0.0.0", is_authenticated=True)  # noqa: S104
    with pytest.raises(ConfigurationError, match="would let anybody publish"):
        refuse_exposure(settings, "0.0.0.0")  # noqa: S104


async def test_a_result_that_is_no_caller_is_a_fault_of_the_server(database_url: str) -> None:
    def wrong() -> str:
        return "ada"

    async with served(service(settings_for(database_url), Depends(wrong))) as client:
        assert (await client.get("/subscriptions")).status_code == 500
