"""How a run of handlers fails: a handler raised, or did not return. Both undo the run."""

from __future__ import annotations

from headrace.errors import HandlerError
from headrace.handlers.subscription import Handler
from headrace.handlers.verdicts import HandlerVerdict
from headrace.item import Item
from headrace.telemetry.failures import text_of


class HandlerFailedError(Exception):
    """A handler raised in the quick run: undo everything and run again with care."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__()
        self.item = item
        """The item whose handler raised; None if that is not known."""


class OverdueError(Exception):
    """A call was given up on: undo the run, which goes on without the event."""

    def __init__(self, item: Item, seconds: float, *, is_cut: bool) -> None:
        super().__init__(f"the handler did not return for {seconds:.3g} seconds.")
        self.item = item
        self.seconds = seconds
        self.is_cut = is_cut
        """True if its own time limit is longer: then it has not failed."""

    def failure(self) -> HandlerError:
        """Return why the event waits. An async handler has raised something when it was cancelled at its limit."""
        cause, handler = self.__cause__, self.item.handler
        if self.is_cut or cause is None or handler is None:
            return HandlerError(str(self), "")
        return failure_of(handler, cause)


def failure_of(handler: Handler, error: BaseException) -> HandlerError:
    """Return why an event waits whose handler raised the error; a verdict speaks for itself."""
    text = text_of(error)
    said = f": {text}" if isinstance(error, HandlerVerdict) else f" raised {type(error).__name__}: {text}"
    failure = HandlerError(f"{handler.name}{said}", handler.name)
    failure.__cause__ = error
    return failure
