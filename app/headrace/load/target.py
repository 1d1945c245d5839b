"""What the deployment says of itself: its types and subscriptions, how far it is, one state, what it gave up on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import quote

from headrace.errors import ConfigurationError
from headrace.load.http_client import Answer, HttpClient, NoAnswerError

PAGE = 500
READ_ATTEMPTS = 5


class Progress(NamedTuple):
    """How far the slowest of the subscriptions is on the topics of the workload."""

    written: int
    """Records that the log has, in all."""
    applied: int
    """Records that are behind the claims of every subscription, in all."""
    parked: int
    """Events that wait in lanes."""
    is_known: bool = True
    """False if the deployment could not say where its log ends."""

    @property
    def lag(self) -> int:
        """Records that are not yet applied."""
        return max(0, self.written - self.applied)


class Described(NamedTuple):
    """One type as the AsyncAPI document has it."""

    type: str
    topic: str
    example: Any
    subscriptions: tuple[str, ...]


class Target:
    """Reads from one deployment; never writes."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.service = ""
        self.types: dict[str, Described] = {}

    async def learn(self) -> None:
        """Read what the deployment declares. Raises: ConfigurationError (away, no Headrace, no permission)."""
        document = await self._json("/asyncapi.json")
        try:
            self.service = str(document["info"]["title"])
            self.types = _types(document, self.service)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{self._client.url} is no Headrace: its asyncapi.json is another one.") from error

    async def progress(self, subscriptions: tuple[str, ...], topics: frozenset[str]) -> Progress:
        """Return how far the subscriptions are. Raises: NoAnswerError."""
        answer = await self._client.get("/subscriptions")
        if answer.status != 200:
            raise NoAnswerError(f"GET /subscriptions answered {answer.status}")
        try:
            found = [each for each in json.loads(answer.body)["subscriptions"] if each["name"] in subscriptions]
            read = [_progress(each, topics) for each in found]
        except (ValueError, KeyError, TypeError) as error:  # a proxy's, which says that it is back soon
            raise NoAnswerError("GET /subscriptions brought no answer of Headrace") from error
        if not read:
            return Progress(0, 0, 0, is_known=False)
        slowest = min(read, key=lambda each: each.applied)
        parked = sum(each.parked for each in read)
        return slowest._replace(parked=parked, is_known=all(each.is_known for each in read))

    async def state(self, path: str) -> dict[str, Any] | None:
        """Return a state, None if there is none yet. Raises: NoAnswerError."""
        answer = await self._client.get(path)
        if answer.status == 200:
            try:
                return dict(json.loads(answer.body))
            except (ValueError, TypeError) as error:
                raise NoAnswerError(f"GET {path} brought no answer of Headrace") from error
        if answer.status == 404:
            return None
        raise NoAnswerError(f"GET {path} answered {answer.status}")

    async def dead_letters(self, subscriptions: tuple[str, ...], source: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the open dead letters of the run's events. Raises: ConfigurationError."""
        for name in subscriptions:
            cursor: str | None = ""
            while cursor is not None:
                path = f"/dead-letters?subscription={quote(name, safe='')}&limit={PAGE}{cursor}"
                page = await self._json(path, "dead_letters", "next")
                for each in page["dead_letters"]:
                    if each["source"] == source:
                        yield each
                cursor = f"&cursor={quote(page['next'], safe='')}" if page["next"] else None

    async def has_lane(self, subscription: str, key: str) -> bool:
        """Return True if events of the key wait in its lane. Raises: ConfigurationError."""
        path = f"/subscriptions/{quote(subscription, safe='')}/lanes?limit=1&key={quote(key, safe='')}"
        return bool((await self._json(path, "lanes"))["lanes"])

    async def partitions(self, subscriptions: tuple[str, ...]) -> int:
        """Return how many partitions the subscriptions have, all topics together. Raises: ConfigurationError."""
        found = (await self._json("/subscriptions", "subscriptions"))["subscriptions"]
        return sum(len(each["partitions"]) for each in found if each["name"] in subscriptions)

    async def _json(self, path: str, *needed: str) -> dict[str, Any]:
        """Return an answer that is needed. Raises: ConfigurationError (none with these members after some attempts)."""
        answer = await self._patient(path)
        if answer.status in (401, 403):
            hint = "the key of --api-key-file needs the scopes read and publish"
            raise ConfigurationError(f"{self._client.url}{path} answered {answer.status}: {_detail(answer)}; {hint}.")
        if answer.status != 200:
            raise ConfigurationError(f"{self._client.url}{path} answered {answer.status}: {_detail(answer)}.")
        try:
            found = dict(json.loads(answer.body))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{self._client.url} is no Headrace: {path} is no JSON object.") from error
        if missing := [name for name in needed if name not in found]:
            raise ConfigurationError(f"{self._client.url} is no Headrace: {path} has no {missing[0]}.")
        return found

    async def _patient(self, path: str) -> Answer:
        for attempt in range(READ_ATTEMPTS):
            try:
                answer = await self._client.get(path)
            except NoAnswerError as error:
                if attempt + 1 == READ_ATTEMPTS:
                    raise ConfigurationError(f"{self._client.url} does not answer: {error}; is it running?") from error
            else:
                if answer.status != 503 or attempt + 1 == READ_ATTEMPTS:
                    return answer
            await asyncio.sleep(0.5)
        raise AssertionError("the last attempt returns or raises")


def state_path(subscription: str, state: str, key: str) -> str:
    """Return where a state is read."""
    return f"/state/{quote(subscription, safe='')}/{quote(state, safe='')}/{quote(key, safe='')}"


def _types(document: dict[str, Any], service: str) -> dict[str, Described]:
    """Return the types that producers may send; subscriptions are the operations that have a group."""
    messages = document["components"]["messages"]
    topics: dict[str, str] = {}
    public: set[str] = set()
    for channel in document["channels"].values():
        if str(channel["address"]).startswith("/"):
            public |= channel["messages"].keys()
        else:
            topics |= dict.fromkeys(channel["messages"], channel["address"])
    handled: dict[str, set[str]] = {name: set() for name in messages}
    for operation in document["operations"].values():
        group = operation.get("bindings", {}).get("kafka", {}).get("groupId", {}).get("const")
        for message in operation["messages"] if group else ():
            handled[message["$ref"].rpartition("/")[2]].add(str(group).removeprefix(f"{service}."))
    return {
        each["name"]: Described(
            each["name"],
            topics.get(name, ""),
            (each.get("examples") or [{"payload": {}}])[0]["payload"].get("data"),
            tuple(sorted(handled[name])),
        )
        for name, each in messages.items()
        if name in public
    }


def _progress(subscription: dict[str, Any], topics: frozenset[str]) -> Progress:
    partitions = [each for each in subscription["partitions"] if each["topic"] in topics]
    ends = [each["end_offset"] for each in partitions]
    return Progress(
        sum(end for end in ends if end is not None),
        sum(each["next_offset"] or 0 for each in partitions),
        sum(each["parked_events"] for each in partitions),
        is_known=bool(ends) and None not in ends,
    )


def _detail(answer: Answer) -> str:
    try:
        return str(json.loads(answer.body)["detail"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return "without a reason"
