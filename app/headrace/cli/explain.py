"""`headrace explain`: what became of an event."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from headrace.cli.api import Api, KeyFile, api_of
from headrace.cli.output import harmless, stdout

DEFAULT_URL = "http://127.0.0.1:8000"


def explain_event(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    source: Annotated[str | None, typer.Option(help="Its source, if it was not posted as plain JSON.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Its type.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    url: Annotated[str, typer.Option(metavar="URL", help="The deployment to ask.")] = DEFAULT_URL,
    api_key_file: KeyFile = None,
) -> None:
    """Say for each subscription what became of an event; exit code 1 if none knows it."""

    async def ask(api: Api) -> dict[str, Any]:
        return await api.ask("GET", "/events", {"id": event_id, "source": source, "type": event_type})

    api = api_of(url, api_key_file)
    assert api is not None, "a URL is always there"
    answer = asyncio.run(ask(api))
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        for fate in answer["fates"]:
            _print(fate)
    if all(fate["outcome"] == "unknown" for fate in answer["fates"]):
        raise typer.Exit(1)


def _print(fate: dict[str, Any]) -> None:
    place = f" {fate['topic']}/{fate['partition']}/{fate['offset']}" if fate["topic"] else ""
    stdout.print(harmless(f"{fate['subscription']}: {fate['outcome'].replace('_', ' ')}{place}"))
    if fate["accepted_at"]:
        stdout.print(f"    accepted at {fate['accepted_at']}")
    stdout.print(harmless(f"    {fate['detail']}"))
    for each in fate["emitted"]:
        state = "published" if each["published"] else "not yet published"
        stdout.print(harmless(f"    emitted {each['type']} {each['id']} on {each['topic']} ({state})"))
    if effect := fate["effect"]:
        answered = f" Its answered steps: {', '.join(effect['steps'])}." if effect["steps"] else ""
        stdout.print(harmless(f"    effect {effect['name']} ({effect['stage']}): {effect['detail']}{answered}"))
