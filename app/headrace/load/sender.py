"""Hands events to the deployment, over HTTP or straight to its topics in Kafka, and says what became of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from headrace.cloudevents.record import encode_record
from headrace.envelope import Envelope
from headrace.errors import HeadraceError
from headrace.load.http_client import HttpClient, NoAnswerError, NotSentError
from headrace.load.workload import Made
from headrace.log.ports import Log

BATCHED = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"


class Outcome(NamedTuple):
    """What became of one send. If it is neither accepted nor in doubt, it was refused and has no effect."""

    status: str
    """An HTTP status, or in words why there was none."""
    is_accepted: bool = False
    is_in_doubt: bool = False
    retry_after_seconds: float | None = None
    detail: str = ""


class Sender(Protocol):
    """Sends events and never raises: a failure is an outcome."""

    async def send(self, events: Sequence[Made]) -> Outcome:
        """Send the events as one request."""
        ...


class HttpSender:
    """`POST /events`: one event, or a batch."""

    def __init__(self, client: HttpClient, source: str, *, sets_key: bool) -> None:
        """`sets_key`: the key is sent as `partitionkey`, since the data do not hold it."""
        self._client = client
        self._head = f'{{"specversion":"1.0","source":{json.dumps(source)},"datacontenttype":"application/json","id":"'
        self._sets_key = sets_key

    async def send(self, events: Sequence[Made]) -> Outcome:
        """Send them; all are accepted, or none."""
        texts = [self._event(event) for event in events]
        media_type = STRUCTURED if len(texts) == 1 else BATCHED
        body = texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
        try:
            answer = await self._client.post("/events", media_type, body.encode())
        except NotSentError as error:
            return Outcome(str(error))
        except NoAnswerError as error:
            return Outcome(str(error), is_in_doubt=True)
        status = str(answer.status)
        if answer.status == 202:
            return Outcome(status, is_accepted=True)
        wait = _seconds(answer.headers.get("retry-after"))
        detail = answer.body[:500].decode(errors="replace")
        return Outcome(status, is_in_doubt=answer.status >= 500, retry_after_seconds=wait, detail=detail)

    def _event(self, event: Made) -> str:
        key = f'"partitionkey":"{event.key}",' if self._sets_key else ""
        return f'{self._head}{event.id}","type":{json.dumps(event.kind.type)},{key}"data":{event.data}}}'


class KafkaSender:
    """Records in the types' topics, on `acks=all`, as a producer of another team would write them."""

    def __init__(self, log: Log, source: str, *, sets_key: bool) -> None:
        self._log = log
        self._source = source
        self._sets_key = sets_key

    async def send(self, events: Sequence[Made]) -> Outcome:
        """Publish them; after a failure some of them may be in the log."""
        records = [
            encode_record(
                Envelope(
                    id=event.id,
                    source=self._source,
                    type=event.kind.type,
                    datacontenttype="application/json",
                    partitionkey=event.key if self._sets_key else None,
                ),
                event.data.encode(),
                topic=event.kind.topic,
                key=event.key,
            )
            for event in events
        ]
        try:
            await self._log.publish(records)
        except HeadraceError as error:
            return Outcome(type(error).__name__, is_in_doubt=True, detail=str(error))
        return Outcome("acknowledged", is_accepted=True)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 6 else None
