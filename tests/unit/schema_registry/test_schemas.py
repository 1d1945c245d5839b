"""How long a process waits for a schema that its registry does not have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.errors import DecodeError, SchemaNotFetchedError, SchemaRegistryError
from headrace.schema_registry.schemas import REFUSED_SECONDS, Schemas
from headrace.settings import SchemaRegistrySettings
from tests.support.registry.small import SmallRegistry

TEXT = '{"type": "record", "name": "A", "fields": []}'


class Process:
    """One process's schemas, with a clock of its own."""

    def __init__(self, registry: SmallRegistry, patience_seconds: float) -> None:
        self.now = 1_000.0
        settings = SchemaRegistrySettings(url=registry.url, patience_seconds=patience_seconds)
        self.schemas = Schemas(lambda: settings, lambda: self.now)

    async def is_patient(self, schema: int) -> bool:
        """Ask for a schema; True if it is to be waited for, False if it is refused."""
        try:
            await self.schemas.fetch([schema])
        except SchemaRegistryError:
            return True
        with pytest.raises(DecodeError):
            self.schemas.reader(schema)
        return False


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    made = SmallRegistry()
    made.start()
    yield made
    made.stop()


async def test_schema_is_waited_for_as_long_as_the_settings_say(registry: SmallRegistry) -> None:
    process = Process(registry, patience_seconds=30)
    assert await process.is_patient(1)
    process.now += 29
    assert await process.is_patient(1)
    process.now += 2
    assert not await process.is_patient(1)


async def test_process_that_waited_in_vain_does_not_wait_again_at_once(registry: SmallRegistry) -> None:
    process = Process(registry, patience_seconds=30)
    await process.is_patient(1)
    process.now += 31
    await process.is_patient(1)
    assert [await process.is_patient(schema) for schema in (2, 3, 4)] == [False, False, False]
    process.now += 301
    assert await process.is_patient(5)


async def test_refused_schema_is_asked_for_again_later(registry: SmallRegistry) -> None:
    process = Process(registry, patience_seconds=0)
    assert not await process.is_patient(1)
    registry.keep(1, TEXT)
    assert not await process.is_patient(1)
    process.now += REFUSED_SECONDS
    with pytest.raises(SchemaNotFetchedError) as lacking:
        process.schemas.reader(1)
    await lacking.value.fetch()
    assert process.schemas.reader(1)(b"") == ("A", {})


async def test_references_are_asked_for_with_the_schema(registry: SmallRegistry) -> None:
    """Those of references as well; one that the registry lacks is waited for like the schema itself."""
    process = Process(registry, patience_seconds=30)
    b, c = ('{"type": "record", "name": "%s", "fields": %s}' % each for each in (("B", "[]"), ("C", "[]")))  # noqa: UP031
    a = '{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}, {"name": "c", "type": "C"}]}'
    refer = [{"name": "C", "subject": "c/v", "version": 2}]
    registry.keep(1, a, references=[{"name": "B", "subject": "b", "version": 1}])
    registry.answers["/subjects/b/versions/1"] = (200, {"schema": b, "references": refer})
    assert await process.is_patient(1)
    registry.answers["/subjects/c%2Fv/versions/2"] = (200, {"schema": c})
    await process.schemas.fetch([1])
    assert process.schemas.reader(1)(b"") == ("A", {"b": {}, "c": {}})


@pytest.mark.parametrize(
    "references",
    [[{"name": "a\0b", "subject": "b", "version": 1}], [{"subject": "b", "version": 1}], ["b"], 5],
    ids=["no name of a file", "no name", "no reference", "no list"],
)
async def test_odd_schema_is_refused_instead_of_asked_for_ever(registry: SmallRegistry, references: object) -> None:
    process = Process(registry, patience_seconds=30)
    registry.answers["/subjects/b/versions/1"] = (200, {"schema": 'syntax = "proto3";'})
    registry.keep(1, 'syntax = "proto3"; message A {}', "PROTOBUF", references=references)
    assert not await process.is_patient(1)
    with pytest.raises(DecodeError, match=r"the schema 1 of the registry cannot be used: [A-Za-z]+Error: "):
        process.schemas.reader(1)


async def test_unique_id_is_unknown_to_a_registry_without_such(registry: SmallRegistry) -> None:
    from uuid import UUID

    process = Process(registry, patience_seconds=0)
    registry.otherwise = (404, {"error_code": 404, "message": "HTTP 404 Not Found"})
    await process.schemas.fetch([UUID(int=5)])
    with pytest.raises(DecodeError, match="has no schema 00000000-"):
        process.schemas.reader(UUID(int=5))
