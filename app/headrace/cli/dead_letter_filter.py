"""The options that say which dead letters a command means, shared by all commands that take several."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_type_hints

import typer

from headrace.dead_letters.search import Filter

_AGE = re.compile(r"(\d{1,6})(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """Return the time that an option names: `2026-05-01T12:00`, in local time without a zone, or an age: `90min`.

    Raises: BadParameter.
    """
    age = _AGE.fullmatch(text)
    try:
        if age is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter("write a time, such as 2026-05-01T12:00, or an age: 90s, 30min, 2h, 7d.") from error


def _options(
    subscription: Annotated[
        str | None, typer.Option(help="Those of one subscription: its name, or in a database SERVICE.NAME.")
    ] = None,
    type: Annotated[str | None, typer.Option(help="Those of one event type.")] = None,
    key: Annotated[str | None, typer.Option(help="Those of one key.")] = None,
    reason: Annotated[str | None, typer.Option(help="Those of one reason, such as decode, schema or gave_up.")] = None,
    error_type: Annotated[str | None, typer.Option(help="Those of one class of error, such as KeyError.")] = None,
    handler: Annotated[str | None, typer.Option(help="Those of one handler.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="Given up at this time or later: a time, or an age (2h, 7d)."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="Given up before this time, or this long ago."),
    ] = None,
) -> Filter:
    return Filter(None, subscription, type, key, reason, error_type, handler, since, until)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the filter; it is called with the `wanted` that they make."""
    options = inspect.signature(_options).parameters
    others = [each for name, each in inspect.signature(command).parameters.items() if name != "wanted"]
    hints = get_type_hints(_options, include_extras=True) | get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def call(**given: Any) -> None:
        wanted = _options(**{name: given.pop(name) for name in options})
        command(wanted=wanted, **given)

    positional = [each for each in others if each.name == "ids"]
    parameters = [*positional, *options.values(), *(each for each in others if each.name != "ids")]
    keyword = [each.replace(kind=each.KEYWORD_ONLY, annotation=hints[each.name]) for each in parameters]
    call.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: hints[each.name] for each in parameters}
    return call
