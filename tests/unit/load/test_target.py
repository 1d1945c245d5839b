"""A proxy that answers in place of the deployment, in the middle of a run, does not end the run."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import ConfigurationError
from headrace.load.counters import Counters
from headrace.load.http_client import Answer, HttpClient, NoAnswerError
from headrace.load.target import Target


class Proxy(HttpClient):
    """Answers everything with one body."""

    def __init__(self, body: bytes) -> None:
        self.url, self.path = "http://127.0.0.1:8000", ""
        self._answer = Answer(200, {}, body)

    async def get(self, path: str) -> Answer:
        return self._answer


@pytest.mark.parametrize("body", [b"<html>back soon</html>", b'{"status": "back soon"}', b"[7]", b"\xff", b""])
async def test_answer_of_another_is_none(body: bytes) -> None:
    client = Proxy(body)
    asked: list[Any] = [
        Target(client).progress(("wallets",), frozenset({"wallets"})),
        Target(client).state("/state/wallets/wallet/ada"),
    ]
    for answer in asked[: 1 if b"status" in body else 2]:  # a state may have any members
        with pytest.raises(NoAnswerError, match="no answer of Headrace"):
            await answer
    for answer in asked:
        answer.close()
    with pytest.raises(ConfigurationError, match="is no Headrace"):
        await anext(Target(client).dead_letters(("wallets",), "/load"))


async def test_page_that_is_no_metrics_counts_nothing() -> None:
    for body in (b"<html>back soon</html>", b"\xff"):
        assert await Counters([Proxy(body)], ("wallets",), frozenset(), 1).read() is None
