"""Asks a schema registry: the routes of Confluent's API that other registries have as well."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from headrace.errors import ConfigurationError, SchemaRegistryError
from headrace.schema_registry.framing import SchemaId
from headrace.schema_registry.registered import Registered
from headrace.settings import SchemaRegistrySettings

if TYPE_CHECKING:
    import httpx

NOT_FOUND = frozenset({(404, 40401), (404, 40402), (404, 40403)})
"""A registry's answer for a subject, a version and a schema that it does not have: the status and its own code."""

REFUSED = frozenset({401, 403})


class RegistryClient:
    """A connection to one registry; `open_client` makes it."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def schema(self, schema: SchemaId) -> Registered | None:
        """Return a schema and all that it refers to; None if the registry lacks a part. Raises: SchemaRegistryError."""
        found = await self._get(f"schemas/ids/{schema}" if isinstance(schema, int) else f"schemas/guids/{schema}")
        if found is None:
            return None
        references: dict[str, str] = {}
        is_whole = await self._add_references(found, references)
        return Registered(found.get("schemaType") or "AVRO", found["schema"], references) if is_whole else None

    async def check(self) -> None:
        """Return if the registry answers as one does. Raises: SchemaRegistryError."""
        if not isinstance(await self._ask("schemas/types"), list):
            raise self._error("answers, but not as a schema registry does")

    async def _add_references(self, found: dict[str, Any], known: dict[str, str]) -> bool:
        """Add what a schema refers to, each behind what it refers to itself. False if the registry lacks one."""
        for each in found.get("references") or ():
            name = str(each["name"])
            if name in known:
                continue
            referred = await self._get(f"subjects/{quote(each['subject'], safe='')}/versions/{each['version']}")
            if referred is None or not await self._add_references(referred, known):
                return False
            known[name] = referred["schema"]
        return True

    async def _get(self, path: str) -> dict[str, Any] | None:
        answer = await self._ask(path)
        if answer is not None and not (isinstance(answer, dict) and isinstance(answer.get("schema"), str)):
            raise self._error(f"answers {path}, but not with a schema")
        return answer

    async def _ask(self, path: str) -> Any:
        """Return the JSON of an answer; None if the registry says that it has no such thing."""
        import httpx

        try:
            answer = await self._http.get(f"{self._url}/{path}")
        except httpx.TimeoutException as error:
            raise self._error("does not answer in time") from error
        except httpx.HTTPError as error:
            raise self._error(f"cannot be reached ({str(error) or type(error).__name__})") from error
        if answer.status_code in REFUSED:
            raise self._error(
                f"answers {answer.status_code}: set HEADRACE_SCHEMA_REGISTRY_USERNAME and "
                "HEADRACE_SCHEMA_REGISTRY_PASSWORD_FILE to a user who may read schemas"
            )
        try:
            body = answer.json()
        except ValueError as error:
            raise self._error(f"answers {path} with {answer.status_code} and no JSON: is this its address?") from error
        if answer.status_code == httpx.codes.OK:
            return body
        if _is_missing(path, answer.status_code, body):
            return None
        raise self._error(f"answers {path} with {answer.status_code}")

    def _error(self, what: str) -> SchemaRegistryError:
        return SchemaRegistryError(f"the schema registry {self._url} {what}.")


def _is_missing(path: str, status: int, body: Any) -> bool:
    """Tell whether a registry says that it has no such thing; what else it says would be true of every schema."""
    if path.startswith("schemas/guids/") and status == 404:
        return True  # also from a registry that names no schema so: no record is to stop its partition
    return isinstance(body, dict) and (status, body.get("error_code")) in NOT_FOUND


@asynccontextmanager
async def open_client(settings: SchemaRegistrySettings) -> AsyncIterator[RegistryClient]:
    """Open a client for a few questions. Raises: SchemaRegistryError (no address, a missing file)."""
    if settings.url is None:
        raise SchemaRegistryError("no schema registry is named to ask; set HEADRACE_SCHEMA_REGISTRY_URL.")
    url = settings.url.rstrip("/")
    try:  # in a thread, since importing httpx and reading the machine's certificates takes tens of milliseconds
        http = await asyncio.to_thread(_new_http, settings, url)
    except (ConfigurationError, OSError) as error:
        raise SchemaRegistryError(f"the schema registry {url} cannot be asked: {error}") from error
    async with http:
        yield RegistryClient(http, url)


def _new_http(settings: SchemaRegistrySettings, url: str) -> httpx.AsyncClient:
    import httpx

    password = settings.read_password()
    return httpx.AsyncClient(
        auth=httpx.BasicAuth(settings.username or "", password or "") if settings.username or password else None,
        timeout=settings.timeout_seconds,
        verify=ssl.create_default_context(cafile=settings.tls_ca_file) if url.startswith("https:") else False,
        headers={"Accept": "application/vnd.schemaregistry.v1+json, application/json"},
        follow_redirects=True,
    )
