"""Records that differ from a plain one in a single thing: nothing else hides what that does."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.cloudevents.record import OWN_HEADER
from headrace.log.ports import Headers, StoredRecord
from tests.support.records import PIECES, TIMES, TRACE, VALUES

TYPES = ["drawn", "torn", "bound", "glued", "inked", "dyed", "framed", "loose", "burnt", "strange"]
LONG = ["", "a", "a" * 256, "a" * 257, "a" * 512, "a" * 513, "a" * 1_024, "a" * 1_025, "a" * 2_048, "a" * 2_049]
WIDE = ["ä" * size for size in (128, 129, 512, 513, 1_024, 1_025, 2_048, 2_049)]
ODD = ["\x7f", "\u2028"]
NAMES = ["id", "source", "type", "subject", "datacontenttype", "dataschema", "partitionkey", "sequence", "traceparent"]
NAMES += ["tracestate", "correlationid", "causationid", "time", "specversion", "own", "data_base64", "extensions"]
SCHEMAS = ["bound/v1", "bound/v2", "bound/v3", "glued/v1", "glued/v2", "drawn/v1", "https://example.org/drawn"]
REST = [
    *(f'"time":"{text}"' for text in [*TIMES, "1000-01-01T00:00:00Z", "0999-01-01T00:00:00Z", "2026-04-31T00:00:00Z"]),
    *(f'"{name}":{value}' for name in NAMES for value in ("null", "1", "true", "[]", '"\\u0041"')),
    *(f'"{name}":"{text}"' for name in NAMES for text in LONG + WIDE + ODD),
    *(f'"traceparent":"{TRACE[:-1]}{digit}"' for digit in "0123456789abcdefABCDEFä\x7f"),
    f'"traceparent":"{TRACE[:54]}"',
    f'"traceparent":"{TRACE}-more"',
    '"datacontenttype":"application/cloudevents+json"',
    '"subject":"a","subject":"b"',
    '"data":{"page":"b"}',
]
"""Members of an event: each as it is, too long, too often, of another type, or of a name that nobody knows."""
TRACES: list[list[tuple[str, bytes | None]]] = [
    [("traceparent", TRACE.encode())],
    [("traceparent", f"{TRACE[:-1]}0".encode())],
    [("traceparent", b"\xff")],
    [("traceparent", None)],
    [("tracestate", b"a=b")],
    [("traceparent", TRACE.encode()), ("tracestate", b"a=b")],
    [("traceparent", TRACE.encode()), ("traceparent", f"{TRACE[:-1]}0".encode())],
    [("tracestate", b"a=b"), ("traceparent", TRACE.encode()), ("traceparent", TRACE.encode())],
    [("own", b"header")],
    [("ce_id", b"2")],
    [("content-type", b"text/plain")],
    [OWN_HEADER],
]


def changes() -> Iterator[StoredRecord]:
    """Yield the records."""
    for kind in TYPES:
        for value in ('"a"', '"red"', *VALUES):
            yield _record(_event(f'"type":"{kind}"', f'{{"page":{value}}}'))
            yield _record(_event(f'"type":"{kind}"', f'{{"page":"red","other":{value}}}'))
            yield _record(_event(f'"type":"{kind}"', value))
        for schema in SCHEMAS:
            yield _record(_event(f'"type":"{kind}","dataschema":"{schema}"'))
    for member in REST:
        for kind in ("loose", "inked", "torn"):
            name = member.partition(":")[0]
            parts = ['"specversion":"1.0"', '"id":"1"', '"source":"/s"', f'"type":"{kind}"']
            here = [part for part in parts if not part.startswith(f"{name}:")]
            yield _record(_event(",".join([*here, member]), head=""))
            yield _record(_event(",".join([member, *parts]), head=""))
            yield _record(_event(",".join(here), head=""))
    for headers in TRACES:
        for more in ("", f',"traceparent":"{TRACE}"', f',"traceparent":"{TRACE}","tracestate":"a=b"'):
            yield _record(_event(f'"type":"torn"{more}'), [OWN_HEADER, *headers])
            yield _record(_event(f'"type":"torn"{more}'), (*headers, OWN_HEADER))
            yield _record(_event(f'"type":"torn"{more}'), headers)
    for kind in ("loose", "torn"):
        yield from _with_other_bytes(_event(f'"type":"{kind}"'))
    yield from _with_other_bytes(_event(f'"type":"inked","subject":"s","time":"{TIMES[1]}","traceparent":"{TRACE}"'))


def _with_other_bytes(value: bytes) -> Iterator[StoredRecord]:
    for at in range(len(value) + 1):
        yield _record(value[:at])
        for piece in PIECES:
            yield _record(value[:at] + piece + value[at:])
            yield _record(value[:at] + piece + value[at + 1 :])
        if at < len(value):
            yield _record(value[:at] + b"\\u%04x" % value[at] + value[at + 1 :])


def _event(
    members: str, data: str = '{"page":"red"}', head: str = '"specversion":"1.0","id":"1","source":"/s",'
) -> bytes:
    return f'{{{head}{members},"data":{data}}}'.encode()


def _record(value: bytes, headers: Headers = (OWN_HEADER,)) -> StoredRecord:
    return StoredRecord("pages", 3, 7, 1_000, b"k", value, headers)
