"""The page of the command line, made from its commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from headrace.cli import cli
from headrace.reference.tables import table

INTRODUCTION = """\
# Command line

This page lists every command of `headrace` with its options. The commands read the same
[settings](settings.md) as the service, so run them with the environment of the service.

| exit code | meaning |
| --- | --- |
| 0 | The command did what it was asked to do. `headrace run` was asked to stop and finished its work. |
| 1 | Something is wrong that a person has to mend. One sentence on standard error says what. |
| 2 | The command line itself is wrong. The usage is printed. |
| 70 | `headrace run` ended itself because a part of it no longer worked. Start the process again. |

`make docs` writes this page from the code.
"""


def render() -> str:
    """Return the page."""
    commands = list(_commands("headrace", get_command(cli)))
    rows = [(_link(name), _summary(command)) for name, command in commands]
    options: list[Any] = get_command(cli).params
    rows += [(f"`headrace {option.opts[0]}`", option.help) for option in options]
    listed = table(["command", "what it does"], rows)
    return "\n".join([INTRODUCTION, listed, *(_section(name, command) for name, command in commands)])


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name in full, command) of every command that does something."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for verb, under in command.commands.items():
        yield from _commands(f"{name} {verb}", under)


def _section(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if not parameter.opts[0].startswith("-")]
    usage = " ".join([name, "[OPTIONS]", *(_name(argument) for argument in arguments)])
    rows = [(f"`{_name(argument)}`", _default(argument), argument.help or "") for argument in arguments]
    rows += [
        (_option(option), _default(option), option.help or "") for option in command.params if option not in arguments
    ]
    lines = [f"## {name}", "", _paragraph(command.help), "", "```", usage, "```", ""]
    return "\n".join([*lines, table(["argument or option", "default", "meaning"], rows)])


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {_name(option)}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default in (None, [], ()) or callable(default):
        return "none"
    if parameter.opts[0].startswith("-") and parameter.is_flag:
        return "on" if default else "off"
    return f"`{getattr(default, 'value', default)}`"


def _summary(command: Any) -> str:
    return _paragraph(command.help).partition(". ")[0].removesuffix(".") + "."


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _link(name: str) -> str:
    return f"[`{name}`](#{name.replace(' ', '-')})"
