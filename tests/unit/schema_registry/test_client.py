"""How the registry is asked, and what `headrace doctor` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from headrace import Event, Headrace
from headrace.cli.service_checks import check_schemas
from headrace.schema_registry.client import open_client
from headrace.settings import SchemaRegistrySettings, Settings
from tests.support.registry.small import SmallRegistry


class Made(Event, type="made", topic="payments"): ...


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    made = SmallRegistry()
    yield made
    made.stop()


async def test_doctor_says_whether_the_registry_answers(registry: SmallRegistry) -> None:
    settings = Settings(schema_registry=SchemaRegistrySettings(url=registry.url))
    events = Headrace("bank", settings)
    events.decoder("payments", schemas={"bank.Made": Made})
    (check,) = await check_schemas(settings, events.registry)
    assert (check.state, check.name) == ("FAIL", "schema registry")
    assert f"the schema registry {registry.url} cannot be reached" in check.found
    registry.start()
    (check,) = await check_schemas(settings, events.registry)
    assert check == ("ok", "schema registry", f"{registry.url} answers; it has the schemas of payments", "")
    registry.answers["/schemas/types"] = (200, {"not": "a registry"})
    (check,) = await check_schemas(settings, events.registry)
    assert "answers, but not as a schema registry does" in check.found
    (check,) = await check_schemas(Settings(), events.registry)
    assert "set HEADRACE_SCHEMA_REGISTRY_URL" in check.found
    assert await check_schemas(Settings(), None) == []


async def test_password_is_sent_and_never_shown(registry: SmallRegistry, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("river-stone\n")
    from_file = SchemaRegistrySettings(url=registry.url, username="mill", password_file=tmp_path / "password")
    given = SchemaRegistrySettings(url=registry.url, username="mill", password=SecretStr("river-stone"))
    registry.start()
    for settings in (from_file, given):
        assert "river-stone" not in repr(settings)
        async with open_client(settings) as client:
            assert await client.schema(1) is None
    assert registry.authorization == ["Basic bWlsbDpyaXZlci1zdG9uZQ=="] * 2
