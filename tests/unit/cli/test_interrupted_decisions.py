"""A command that decides about many dead letters, and is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from headrace.cli.dead_letter_decisions import _decide_matching
from headrace.cli.dead_letter_sources import Source
from headrace.dead_letters.search import Filter
from headrace.errors import ConfigurationError, StateUnavailableError


@pytest.mark.parametrize("error", [ConfigurationError, StateUnavailableError, asyncio.CancelledError])
async def test_interrupted_decisions_say_how_far_they_came(
    error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        async def decide_many(self, *_: Any) -> AsyncIterator[int]:
            yield 500
            raise error

    with pytest.raises(error):
        await _decide_matching(cast("Source", Interrupted()), Filter(), "replay", None, 900)
    assert "stopped after 500 dead letters; the same command continues there" in capsys.readouterr().err
