"""A batch holds as many events as the setting says, and not one more."""

from __future__ import annotations

import json

import pytest
from starlette.datastructures import Headers

from headrace.http.problems import Problem
from headrace.ingest.parsing import parse_request
from headrace.settings import IngestSettings

LIMITS = IngestSettings(max_batch_events=3)
HEADERS = Headers({"content-type": "application/cloudevents-batch+json"})


def batch(events: int) -> bytes:
    """Return the body of a batch."""
    made = [{"specversion": "1.0", "id": str(n), "source": "/tests", "type": "noted"} for n in range(events)]
    return json.dumps(made).encode()


def test_batch_of_the_most_events_is_taken() -> None:
    assert len(parse_request("batched", HEADERS, batch(3), plain=None, limits=LIMITS)) == 3


def test_batch_of_one_more_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        parse_request("batched", HEADERS, batch(4), plain=None, limits=LIMITS)
    assert caught.value.status_code == 413
