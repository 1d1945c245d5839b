"""Who may do what: by key where there is a file of keys, from this machine only where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from headrace.errors import ConfigurationError
from headrace.http.guard import install_guard
from headrace.settings import Settings
from tests.integration.http.conftest import Opener
from tests.support.web import http_client

DATA = {"customer": "ada", "amount": 5}
NEEDS = {
    "publish": [("POST", "/events"), ("POST", "/events/wallet.credited")],
    "read": [
        ("GET", "/state/wallets/wallet/ada"),
        ("GET", "/state/wallets/wallet"),
        ("GET", "/state/wallets"),
        ("GET", "/subscriptions"),
        ("GET", "/subscriptions/wallets"),
        ("GET", "/subscriptions/wallets/lanes"),
        ("GET", "/subscriptions/wallets/effects"),
        ("GET", "/subscriptions/wallets/moves"),
        ("GET", "/dead-letters"),
        ("GET", "/dead-letters/groups"),
        ("GET", "/dead-letters/0190a3c4-5d6e-7f80-9a1b-2c3d4e5f6071"),
        ("GET", "/asyncapi.json"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/metrics"),
    ],
    "operate": [
        ("PUT", "/state/wallets/wallet/ada"),
        ("DELETE", "/state/wallets/wallet/ada"),
        ("POST", "/subscriptions/wallets/pause"),
        ("POST", "/subscriptions/wallets/rewind"),
        ("POST", "/subscriptions/wallets/lanes/retry"),
        ("POST", "/subscriptions/wallets/effects/retry"),
        ("POST", "/dead-letters/replay"),
        ("POST", "/dead-letters/0190a3c4-5d6e-7f80-9a1b-2c3d4e5f6071/replay"),
        ("POST", "/dead-letters/0190a3c4-5d6e-7f80-9a1b-2c3d4e5f6071/edit"),
    ],
}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps([{"name": scope, "key": f"k-{scope}", "scopes": [scope]} for scope in NEEDS]))
    return path


@pytest.mark.parametrize("scope", NEEDS)
async def test_every_route_needs_its_scope(platform: Opener, keys: Path, scope: str) -> None:
    shop = await platform(keys=keys)
    async with shop.client("203.0.113.9") as client:
        for method, path in NEEDS[scope]:
            missing = await client.request(method, path)
            assert missing.status_code == 401, path
            assert missing.headers["www-authenticate"].startswith("Bearer")
            assert missing.headers["content-type"] == "application/problem+json"
            unknown = await client.request(method, path, headers={"X-API-Key": "k-nobody"})
            assert (unknown.status_code, unknown.json()["type"]) == (401, "/problems/unauthorised")
            for other in NEEDS.keys() - {scope}:
                wrong = await client.request(method, path, headers={"Authorization": f"Bearer k-{other}"})
                assert (wrong.status_code, wrong.json()["type"]) == (403, "/problems/forbidden"), path
            for right in ({"Authorization": f"bearer k-{scope}"}, {"X-API-Key": f"k-{scope}"}):
                answer = await client.request(method, path, headers=right)
                assert answer.status_code not in (401, 403), path


async def test_refused_publishers_are_counted(platform: Opener, keys: Path) -> None:
    shop = await platform(keys=keys)
    async with shop.client() as client:
        await client.post("/events", headers={"X-API-Key": "k-read"})
    assert shop.sample("ingest_rejected_total", reason="unauthorised") == 1


async def test_every_route_of_the_platform_is_guarded(platform: Opener, keys: Path) -> None:
    shop = await platform(keys=keys)
    async with shop.client() as client:
        document = (await client.get("/openapi.json", headers={"X-API-Key": "k-read"})).json()
        assert len(document["paths"]) >= 10
        for path, operations in document["paths"].items():
            for method in operations:
                assert (await client.request(method, path)).status_code == 401, path


async def test_without_keys_only_this_machine_is_served(platform: Opener) -> None:
    shop = await platform()
    async with shop.client("203.0.113.9") as client:
        for method, path in (route for routes in NEEDS.values() for route in routes):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden"), path
            assert "HEADRACE_API_KEYS_FILE" in answer.json()["detail"]
    async with shop.client("::1") as client:
        assert (await client.post("/events/wallet.credited", json=DATA)).status_code == 202
        assert (await client.get("/docs")).status_code == 200


async def test_without_keys_pages_of_other_sites_are_refused(platform: Opener) -> None:
    shop = await platform()
    async with shop.client() as client:
        for origin in ("https://evil.example", "null", "http://[::1", "http://localhost.evil.example"):
            answer = await client.post("/events/wallet.credited", json=DATA, headers={"Origin": origin})
            assert answer.status_code == 403, origin
        own = await client.post("/events/wallet.credited", json=DATA, headers={"Origin": "http://127.0.0.1:8000"})
        assert own.status_code == 202


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "[::2]"]
)
async def test_without_keys_a_foreign_host_is_refused(platform: Opener, host: str) -> None:
    """DNS rebinding: a page of evil.example asks this machine, and the browser sends evil.example as Host."""
    shop = await platform()
    async with shop.client() as client:
        for method, path in (route for routes in NEEDS.values() for route in routes):
            answer = await client.request(method, path, headers={"Host": host})
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden"), path
            assert "http://localhost" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "app.localhost:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000"]
)
async def test_without_keys_names_of_this_machine_are_served(platform: Opener, host: str) -> None:
    shop = await platform()
    async with shop.client() as client:
        assert (await client.get("/docs", headers={"Host": host})).status_code == 200
        assert (await client.get("/metrics", headers={"Host": host})).status_code == 200


async def test_with_keys_or_an_open_door_any_host_is_served(platform: Opener, keys: Path) -> None:
    for shop in (await platform(keys=keys), await platform(allow_unauthenticated=True)):
        async with shop.client(headers={"X-API-Key": "k-read"}) as client:
            assert (await client.get("/docs", headers={"Host": "shop.example"})).status_code == 200


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("X-Forwarded-For", "10.0.0.7", 403),
        ("X-Forwarded-For", "127.0.0.1, 10.0.0.7:4000", 403),
        ("X-Forwarded-For", "", 403),
        ("X-Forwarded-Host", "shop.example", 403),
        ("X-Forwarded-For", "127.0.0.1, ::1, [::1]:4000, 127.0.0.1:4000", 200),
        ("X-Forwarded-Host", "localhost:3000", 200),
    ],
)
async def test_without_keys_a_proxy_lets_nobody_else_in(platform: Opener, header: str, value: str, status: int) -> None:
    """It asks for localhost, from this machine, whoever has asked it, and by whatever name."""
    shop = await platform()
    async with shop.client() as client:
        assert (await client.get("/metrics", headers={header: value})).status_code == status


async def test_a_foreign_host_is_refused_on_a_real_socket(platform: Opener) -> None:
    shop = await platform()
    async with shop.served() as address, http_client(base_url=address) as client:
        assert (await client.get("/metrics", headers={"Host": "evil.example"})).status_code == 403
        forged = {"X-Forwarded-For": "testclient", "Host": "testserver"}
        assert (await client.get("/metrics", headers=forged)).status_code == 403
        assert (await client.get("/metrics")).status_code == 200


async def test_a_client_inside_the_process_is_served_under_any_name(platform: Opener) -> None:
    """Starlette's TestClient and httpx's ASGITransport, as FastAPI's own pages on testing use them."""
    shop = await platform()
    transport = httpx.ASGITransport(shop.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/metrics", headers={"Host": "evil.example"})).status_code == 403


async def test_every_route_under_a_prefix_is_guarded(platform: Opener, keys: Path) -> None:
    shop = await platform(keys=keys, prefix="/platform")
    async with shop.client() as client:
        document = (await client.get("/openapi.json", headers={"X-API-Key": "k-read"})).json()
        paths = [(method, path) for path, operations in document["paths"].items() for method in operations]
        assert len(paths) >= 12
        for method, path in [*paths, ("GET", "/platform/metrics")]:
            assert path.startswith("/platform/")
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), path
        assert (await client.get("/platform/metrics", headers={"X-API-Key": "k-read"})).status_code == 200
        assert (await client.get("/platform/health/live")).status_code != 401


async def test_documents_at_the_root_are_guarded(keys: Path) -> None:
    app = FastAPI(docs_url="/", redoc_url="/help/")
    install_guard(app, Settings(api_keys_file=keys))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for path in ("/", "/help/"):
            assert (await client.get(path)).status_code == 401


async def test_an_operator_may_open_the_door_to_everybody(platform: Opener) -> None:
    shop = await platform(allow_unauthenticated=True)
    async with shop.client("203.0.113.9") as client:
        assert (await client.post("/events/wallet.credited", json=DATA)).status_code == 202


def test_a_broken_file_of_keys_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_API_KEYS_FILE"):
        install_guard(FastAPI(), Settings(api_keys_file=tmp_path / "absent"))


async def test_an_application_that_starts_again_has_its_new_keys(keys: Path, tmp_path: Path) -> None:
    """The API keys are those of the second start."""
    app = FastAPI()
    install_guard(app, Settings(api_keys_file=keys))
    other = tmp_path / "other.json"
    other.write_text('[{"key": "k-new", "scopes": ["read"]}]')
    install_guard(app, Settings(api_keys_file=other))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/docs", headers={"X-API-Key": "k-new"})).status_code == 200
        assert (await client.get("/docs", headers={"X-API-Key": "k-read"})).status_code == 401
