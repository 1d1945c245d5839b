"""The documents say what is: names in them exist, their Python declares itself, the page of settings is the code's."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from fastapi import FastAPI
from starlette.routing import Match
from typer.main import get_command

from headrace.cli import cli
from headrace.platform import Headrace
from headrace.settings import variables
from headrace.settings_reference import render
from headrace.telemetry.metrics import catalogue

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/operations.md", "docs/settings.md"]

pages = pytest.mark.parametrize("page", PAGES)


@pages
def test_every_test_that_is_named_exists(page: str) -> None:
    for path, *names in (named.split("::") for named in re.findall(r"[\w/]+\.py(?:::\w+)+", read(page))):
        source = (ROOT / path).read_text()
        for name in names:
            assert re.search(rf"\b(def|class) {name}\b", source), f"{path} has no {name}"


@pages
def test_every_file_and_heading_that_is_linked_exists(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read(page)):
        path, _, heading = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked.read_text()), target


@pages
def test_every_file_that_is_named_in_code_exists(page: str) -> None:
    for name in spans(read(page)):
        if re.fullmatch(r"(app|tests|bench|docs|\.ci)/[\w./-]*", name):
            assert (ROOT / name).exists(), name


@pages
def test_every_setting_that_is_named_exists(page: str) -> None:
    known = {name for name, _ in variables()}
    for name in re.findall(r"HEADRACE_[A-Z0-9_]*", read(page)):
        is_group = name.endswith("_") and any(other.startswith(name) for other in known)
        assert name in known or is_group or name.startswith("HEADRACE_TEST_"), name


@pages
def test_every_metric_that_is_named_exists(page: str) -> None:
    known = {f"headrace_{metric.name}" for metric in catalogue()}
    for name in re.findall(r"\bheadrace_[a-z0-9_]+", read(page)):
        assert any(other.startswith(name) for other in known), name


@pages
def test_every_command_that_is_shown_has_its_verb_and_options(page: str) -> None:
    for words in headrace_commands(read(page)):
        command = get_command(cli)
        while isinstance(command, typer.core.TyperGroup) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert not isinstance(command, typer.core.TyperGroup), f"no such verb: {words}"
        options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        for word in words:
            assert not word.startswith("--") or word in options, f"{command.name} has no {word}"


@pages
def test_every_option_that_is_named_alone_exists(page: str) -> None:
    known = set(options_of(get_command(cli)))
    for name in spans(read(page)):
        if name.startswith("--"):
            assert name.split()[0] in known, name


@pages
def test_every_make_target_that_is_named_exists(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [span.split()[1] for span in spans(read(page)) if span.startswith("make ")]
    named += re.findall(r"^make ([a-z-]+)", "\n".join(blocks(read(page), "bash")), re.MULTILINE)
    assert set(named) <= set(targets)


@pages
def test_every_route_that_is_named_exists(page: str) -> None:
    text = read(page)
    routes = [span.split() for span in spans(text) if re.fullmatch(r"(GET|POST) /\S+", span)]
    named: list[tuple[str | None, str]] = [(method, path) for method, path in routes]
    named += [("GET", span) for span in spans(text) if re.fullmatch(r"/(health|metrics|asyncapi)\S*", span)]
    named += [(None, path) for path in re.findall(r"localhost:[89]000(/[^\s'\"?]*)", text)]
    for method, path in named:
        assert is_served(method, path.partition("?")[0]), path


def test_the_examples_of_the_readme_declare_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("demo")
    monkeypatch.setitem(sys.modules, "demo", module)
    first, *others = blocks(read("README.md"), "python")
    assert len([line for line in first.splitlines() if line]) <= 16, "a first handler takes about fifteen lines"
    for example in (first, *others):
        exec(compile(example, "README.md", "exec"), module.__dict__)  # noqa: S102 - our own page
        module.events.registry.complete()


def test_the_page_of_settings_is_what_the_code_says() -> None:
    how = "rewrite it: python -m headrace.settings_reference > docs/settings.md"
    assert read("docs/settings.md") == render(), how


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Return what stands between single backticks in the prose, line ends as blanks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def headings(text: str) -> set[str]:
    """Return the anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def headrace_commands(text: str) -> Iterator[list[str]]:
    """Yield the words after `headrace` of every command that is shown."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    for shown in (*lines, *spans(text)):
        found = re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?headrace (.*)", shown)
        if found:
            yield shlex.split(found[1], comments=True)


def options_of(command: object) -> Iterator[str]:
    """Yield every option of a command and of those under it."""
    for parameter in getattr(command, "params", ()):
        yield from parameter.opts
    for under in getattr(command, "commands", {}).values():
        yield from options_of(under)


def is_served(method: str | None, path: str) -> bool:
    """True where an application that includes the platform's router has a route for it."""
    app = FastAPI()
    app.include_router(Headrace("documents").router)
    scope = {"type": "http", "method": method or "GET", "path": path, "root_path": "", "headers": []}
    wanted = (Match.FULL,) if method else (Match.FULL, Match.PARTIAL)
    return any(route.matches(scope)[0] in wanted for route in app.routes)
