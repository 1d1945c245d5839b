"""The steps of effects in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from headrace.effects.steps import Steps
from headrace.emits.emitter import Emitter
from headrace.item import Item
from headrace.testing.kept import Kept


class KeptSteps:
    """The `Step` of whichever event is being handled; answers are kept at once, as they are outside of a batch."""

    def __init__(self, group: str, emitter: Emitter, kept: Kept) -> None:
        self._group = group
        self._emitter = emitter
        self._kept = kept
        self._item: Item | None = None
        self._steps: Steps | None = None

    @property
    def key(self) -> str:
        """See `Step`."""
        return self._of_event.key

    def key_of(self, name: str) -> str:
        """See `Step`."""
        return self._of_event.key_of(name)

    async def __call__(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """See `Step`."""
        return await self._of_event(name, call, *args, **options)

    async def keep(self, identity: bytes, name: str, answer: str) -> None:
        """Do nothing more: the answers of `Kept` have it."""

    async def settle(self, identity: bytes, name: str) -> None:
        """Do nothing: none is on its way."""

    @property
    def _of_event(self) -> Steps:
        item = self._emitter.cause
        assert item is not None
        if self._steps is None or item is not self._item:
            answers = self._kept.answers.setdefault(item.identity, {})
            self._item, self._steps = item, Steps(self._group, item.identity, answers, self)
        return self._steps
