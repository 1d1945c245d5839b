"""Bounds what one connection may take before the application sees a request: bytes and seconds of headers and bodies.

uvicorn reads headers of any size from a client of any slowness, before any key is looked at. This protocol counts while
it parses:
```
connected ──▶ head: HEADER_SECONDS, MAX_HEADER_BYTES ──▶ body: 16 KiB each BODY_SECONDS ──▶ answered ──▶ head again
     └─▶ 503 beyond MAX_CONNECTIONS         └─▶ 408, 431, 429          └─▶ 408, 400
```
A connection on which nothing is under way is closed after some seconds, whatever came behind the last answer, such as a
body that no route has read. One that brings more than MOST_PIPELINED requests ahead of their answers is closed.

An event that could not be begun in time is answered 429 before the application sees it (`pressure.py`).
Nor may a client leave an answer unread for ever: one that takes nothing for STALL_SECONDS, or for LEAVING_SECONDS while
the process stops, is disconnected.

The size of a body is the route's to bound (`http/body.py`), since an application may take uploads of any size.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from headrace.http.kernel import unread_bytes, waited_seconds
from headrace.http.one_write import OneWrite
from headrace.http.pressure import SCOPE_KEY, Arrival, Pressure
from headrace.http.problems import MEDIA_TYPE, Problem
from headrace.settings import IngestSettings
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.http")

SLICE_BYTES = 16_384
"""Bytes that are parsed at once; a limit is exceeded by less than this."""
BODY_STEP_BYTES = 16_384
"""What a body brings at least in `body_seconds`: 550 bytes a second by default, slower than any modem."""
ROUTE_FIRST_SECONDS = 1.0
"""A route that bounds the time of its body itself (`http/body.py`) answers before the connection is closed."""
MOST_PIPELINED = 100
"""How many requests may wait in a connection for the answer to the one before. Each takes a hundred times the memory
that it took on the wire, and after each answer more are read."""
STALL_SECONDS = 60.0
"""How long a client may take nothing of an answer, such as a stream of events, while more waits to be sent."""
LEAVING_SECONDS = 3.0
"""The same if the connection is about to end, so that a client which went to sleep does not hold up a stop."""


class BoundedProtocol(HttpToolsProtocol):
    """Reads HTTP/1.1 with limits; a connection that exceeds one is answered, if that is still possible, and closed."""

    limits: IngestSettings
    pressure: Pressure
    """Set by `bounded`, since uvicorn makes the protocols itself."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_in_head = True
        self._has_begun = False
        self._is_upgraded = False
        self._unparsed_bytes = 0
        self._body_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._is_leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, and expect a request; beyond the limit of connections answer 503 at once."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "unavailable", "too many connections are open (HEADRACE_INGEST_MAX_CONNECTIONS).")
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._cancel_deadline()
        self._cancel_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Stop writing: much waits to be sent."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Write on: the client has taken something."""
        super().resume_writing()
        if self._is_leaving:
            self._watch_writing()
        else:
            self._cancel_stall()

    def shutdown(self) -> None:
        """End the connection after the answer that is under way, if the client takes it."""
        super().shutdown()
        self._leave()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that has been idle, when the client has taken what it was sent."""
        if self._is_about_to_read():
            return
        super().timeout_keep_alive_handler()
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Parse in slices, so that no more than a slice beyond the limit is ever kept.

        What has begun and is not complete gets a deadline; a request that comes in one piece needs none.
        """
        if self._is_in_head and not self._has_begun and self.pressure.is_full() and self._is_refused_at_once(data):
            return
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing() or self._is_upgraded:
                return
            part = data[start : start + SLICE_BYTES]
            self._unparsed_bytes += len(part)
            super().data_received(part)
            if self.transport.is_closing():  # what uvicorn cannot read it answers itself
                self._leave()
                return
            if self._unparsed_bytes > self.limits.max_header_bytes:
                self._refuse_size()
                return
        if self._deadline is None and not self.transport.is_closing() and not self._is_upgraded:
            if not self._is_in_head:
                self._expect_body()
            elif self._has_begun:
                self._expect_head()
            elif self.cycle.response_complete:
                self._expect_another()

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._has_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body comes next; a client that sends ever more without waiting for answers is disconnected."""
        self._cancel_deadline()
        self._is_in_head = self._has_begun = False
        self._unparsed_bytes = 0
        self._body_bytes = 0
        super().on_headers_complete()
        if len(self.pipeline) > MOST_PIPELINED:
            self._end()

    def on_body(self, body: bytes) -> None:
        """Count the body, and what stands between its chunks from here."""
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Begin what is next; if that is the end of the connection, do not wait for ever for the client to read."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._leave()

    def on_message_complete(self) -> None:
        """Wait for the next request without a deadline: uvicorn closes an idle connection."""
        self._cancel_deadline()
        self._is_in_head = True
        self._unparsed_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the protocol of WebSockets."""
        self._cancel_deadline()
        self._is_upgraded = True
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Hand the request to the application, or answer it at once if it would wait too long."""
        scope = cycle.scope
        if scope["method"] != "POST":  # events come by nothing else
            super()._start_asgi_task(cycle, app)
            return
        arrival = self.pressure.admit(scope["path"], lambda: waited_seconds(self.transport))
        if arrival is not None:
            self.pressure.watch(self.loop)
            cast("dict[str, Any]", scope)[SCOPE_KEY] = arrival
            cycle.transport = cast("asyncio.Transport", OneWrite(cycle.transport))
            super()._start_asgi_task(cycle, _noted(arrival, cycle, app))
            return
        cycle.response_started = cycle.response_complete = True  # what comes of its body is thrown away
        self.transport.write(self.pressure.refusal)
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _is_refused_at_once(self, data: bytes) -> bool:
        """Refuse a request that came whole behind the last answer, without making anything of it (`glance.py`)."""
        if self._is_upgraded or self.transport.is_closing() or not self._may_answer():
            return False
        path = self.pressure.glance.path_of_post(data)
        if path is None or not self.pressure.refuses(path):
            return False
        self._cancel_deadline()
        self.transport.write(self.pressure.refusal)
        self.on_response_complete()
        return True

    def _expect_another(self) -> None:
        """Close the connection after a while, as uvicorn does after an answer, but not if more came after that."""
        if self.timeout_keep_alive_task is None:
            seconds = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _expect_head(self) -> None:
        self._set_deadline(self.limits.header_seconds, self._head_is_late)

    def _expect_body(self) -> None:
        self._set_deadline(self.limits.body_seconds + ROUTE_FIRST_SECONDS, self._body_is_late)

    def _head_is_late(self) -> None:
        if not self._unparsed_bytes:  # a connection that a browser opened in advance
            if self._is_about_to_read():
                self._deadline = None  # the next one begins with what is read
            else:
                self._end()
            return
        seconds = self.limits.header_seconds
        self._refuse(408, "request-timeout", f"no request within {seconds:g} s (HEADRACE_INGEST_HEADER_SECONDS).")

    def _is_about_to_read(self) -> bool:
        """True if a request is there that the loop has not read: it was late itself, and looks at its timers first."""
        return unread_bytes(self.transport) > 0

    def _body_is_late(self) -> None:
        waits_for_us = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if waits_for_us or self._body_bytes >= BODY_STEP_BYTES:
            self._body_bytes = 0
            self._expect_body()
            return
        seconds = self.limits.body_seconds
        self._refuse(408, "request-timeout", f"the body stalled for {seconds:g} s (HEADRACE_INGEST_BODY_SECONDS).")

    def _refuse_size(self) -> None:
        most = self.limits.max_header_bytes
        if self._is_in_head:
            detail = f"the headers have over {most} bytes (HEADRACE_INGEST_MAX_HEADER_BYTES)."
            self._refuse(431, "headers-too-large", detail)
        else:
            self._refuse(400, "malformed", f"there are over {most} bytes between two parts of the body.")

    def _refuse(self, status: int, slug: str, detail: str) -> None:
        """Answer and close. While another answer is on its way, or was given, the connection is only closed."""
        self._cancel_deadline()
        if self.transport.is_closing():
            return
        if self._may_answer():
            if not self._is_in_head:
                self.cycle.disconnected = True
            title = STATUS_LINE[status].decode().split(" ", 2)[2].strip()
            answer = Problem(status, slug, title, detail).response("")
            head = [STATUS_LINE[status], b"content-type: ", MEDIA_TYPE.encode(), b"\r\nconnection: close\r\n"]
            head += [b"retry-after: 1\r\n"] if status == 503 else []
            head += [b"content-length: %d\r\n\r\n" % len(answer.body), bytes(answer.body)]
            self.transport.write(b"".join(head))
        self._end()

    def _may_answer(self) -> bool:
        last: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its annotation says
        if self._is_in_head:
            return last is None or last.response_complete
        return not self.cycle.response_started and not self.pipeline

    def _end(self) -> None:
        """Close the connection once the client has taken what it was sent, or does not."""
        self.transport.close()
        self._leave()

    def _leave(self) -> None:
        if self in self.connections:
            self._is_leaving = True
            self._watch_writing()

    def _watch_writing(self) -> None:
        self._cancel_stall()
        seconds = LEAVING_SECONDS if self._is_leaving else STALL_SECONDS
        self._stall = self.loop.call_later(seconds, self._look_at_writing, self.transport.get_write_buffer_size())

    def _look_at_writing(self, before: int) -> None:
        if 0 < before <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._watch_writing()

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _set_deadline(self, seconds: float, late: Any) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, late)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _noted(arrival: Arrival, cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        arrival.begins(is_whole=not cycle.more_body)
        try:
            return await app(scope, receive, send)
        finally:
            arrival.ends()

    return answer


def bounded(limits: IngestSettings) -> type[asyncio.Protocol]:
    """Return the protocol of one server with these limits, for `uvicorn.Config(http=...)`."""
    members = {"limits": limits, "pressure": Pressure(limits.max_wait_seconds)}
    return type("BoundedProtocol", (BoundedProtocol,), members)
