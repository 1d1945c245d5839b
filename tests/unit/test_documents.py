"""The documents say what is.

Names in the pages and in the strings of the code exist, the Python of a page runs, its shell names commands that exist,
and the pages of docs/reference are the code's.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import typer
from fastapi import FastAPI
from starlette.routing import Match
from typer.main import get_command

from headrace.cli import cli
from headrace.platform import Headrace
from headrace.reference import pages as reference_pages
from headrace.settings import variables
from headrace.telemetry.metrics import catalogue
from shop.service import app
from tests.support.pages import ROOT, blocks, python_files, read

DOCS = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS]
MODULES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "app" / "headrace").rglob("*.py"))
PROGRAMS = {
    *(".", "cat", "cd", "curl", "export", "git", "kill", "mkdir", "printf", "sha256sum", "sleep", "wait"),
    *("alembic", "grep", "kafka-topics.sh", "pg_dump", "pip", "psql", "pytest", "python", "python3", "uvicorn"),
}
"""What pages may use in a shell beside `headrace` and `make`."""

SETTINGS = {name for name, _ in variables()}
GROUPS = {name[: end + 1] for name in SETTINGS for end, letter in enumerate(name) if letter == "_"}
"""Beginnings of settings; `HEADRACE_KAFKA_` stands for a group."""
METRICS = tuple(f"headrace_{metric.name}" for metric in catalogue())
COMMAND = get_command(cli)

pages = pytest.mark.parametrize("page", PAGES)


@pages
def test_every_test_that_is_named_exists(page: str) -> None:
    for path, *names in (named.split("::") for named in re.findall(r"[\w/]+\.py(?:::\w+)+", read(page))):
        source = (ROOT / path).read_text()
        for name in names:
            assert re.search(rf"\b(def|class) {name}\b", source), f"{path} has no {name}"


@pages
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for target in links(page):
        path, _, heading = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked.read_text()), target


def test_every_page_is_reached_from_the_readme() -> None:
    found, waiting = set(), {ROOT / "README.md"}
    while waiting:
        page = waiting.pop()
        found.add(page)
        targets = (link.partition("#")[0] for link in links(str(page.relative_to(ROOT))))
        waiting |= {(page.parent / target).resolve() for target in targets if target.endswith(".md")} - found
    assert {ROOT / page for page in PAGES} <= found


def test_the_site_lists_every_page_once() -> None:
    listed = re.findall(r"(?::|-) ([\w/-]+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    assert sorted(f"docs/{page}" for page in listed) == DOCS


@pages
def test_every_file_that_is_named_in_code_exists(page: str) -> None:
    for name in spans(read(page)):
        if re.fullmatch(r"(app|tests|bench|docs|\.ci)/[\w./-]*", name):
            assert (ROOT / name).exists(), name


@pages
def test_every_setting_that_is_named_exists(page: str) -> None:
    assert unknown_settings(read(page)) == []


@pages
def test_every_metric_that_is_named_exists(page: str) -> None:
    assert unknown_metrics(read(page)) == []


@pages
def test_every_command_that_is_shown_exists(page: str) -> None:
    assert wrong_commands(headrace_commands(read(page))) == []


@pages
def test_every_option_that_is_named_alone_exists(page: str) -> None:
    known = set(options_of(COMMAND))
    for name in spans(read(page)):
        if name.startswith("--"):
            assert name.split()[0] in known, name


@pages
def test_every_make_target_that_is_named_exists(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE)
    named = [span.split()[1] for span in spans(read(page)) if span.startswith("make ")]
    named += [words[1] for words in shell_commands(read(page)) if words[0] == "make"]
    assert set(named) <= set(targets)


@pages
def test_every_program_in_a_shell_block_is_known(page: str) -> None:
    for words in shell_commands(read(page)):
        program = words[0].removeprefix(".venv/bin/")
        assert program in PROGRAMS | {"headrace", "make"}, " ".join(words)
        if program.startswith("python") and words[1:2] == ["-m"]:
            assert importlib.util.find_spec(words[2]), words[2]


@pages
def test_every_route_that_is_named_exists(page: str) -> None:
    text = read(page)
    named: list[tuple[str | None, str]] = [
        ("GET", s) for s in spans(text) if re.match(r"/(health|metrics|asyncapi)", s)
    ]
    own = set(re.findall(r'"(/\w+)', "".join(blocks(text, "python"))))
    shown = re.findall(r"localhost:[89]000((/[^\s'\"?/]*)[^\s'\"?]*)", text)
    named += [(None, path) for path, first in shown if first not in own]
    named += [(method, path) for span in spans(text) for method, path in routes(span)]
    assert unknown_routes(named) == []


@pages
def test_every_table_in_a_query_exists(page: str) -> None:
    migrations = "".join(file.read_text() for file in (ROOT / "app").rglob("migrations/*/*.sql"))
    for name in re.findall(r"\bheadrace\.\w+", "\n".join(blocks(read(page), "sql"))):
        assert re.search(rf"\b{name}\b", migrations), name


@pages
@pytest.mark.filterwarnings("ignore:Using `httpx`")  # Starlette's test client asks for its successor
def test_the_python_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the page is imported, in their order, and what it declares is complete."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name, text in python_files(page).items():
        code = compile(text, f"{page}: {name}.py", "exec")
        if not is_importable(text):
            continue
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(code, module.__dict__)  # noqa: S102 - our own page
        for value in list(vars(module).values()):
            if isinstance(value, Headrace):
                value.registry.complete()


def test_the_readme_is_short_and_begins_with_a_handler() -> None:
    assert len(read("README.md").splitlines()) <= 150
    first, *_ = blocks(read("README.md"), "python")
    assert len([line for line in first.splitlines() if line]) <= 17, "a first handler takes about fifteen lines"


@pytest.mark.parametrize("name", [Path(page).name for page in DOCS if page.startswith("docs/reference/")])
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert read(f"docs/reference/{name}") == reference()[name], "write it again: make docs"


def test_every_setting_in_a_string_exists() -> None:
    assert faults(unknown_settings) == {}


def test_every_metric_in_a_string_exists() -> None:
    assert faults(unknown_metrics) == {}


def test_every_command_in_a_string_exists() -> None:
    assert faults(lambda text: wrong_commands(commands_in_prose(text))) == {}


def test_every_route_in_a_string_exists() -> None:
    assert faults(lambda text: unknown_routes(routes(text))) == {}


def faults(find: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """Return what is wrong with the strings of the code, by module."""
    found = {module: [name for text in strings(module) for name in find(text)] for module in MODULES}
    return {module: names for module, names in found.items() if names}


def unknown_settings(text: str) -> list[str]:
    """Return the settings that are named and do not exist."""
    return [name for name in re.findall(r"HEADRACE_(?!TEST_)[A-Z0-9_]*", text) if name not in SETTINGS | GROUPS]


def unknown_metrics(text: str) -> list[str]:
    """Return the metrics that are named and do not exist; the beginning of a name stands for a group."""
    named = set(re.findall(r"\bheadrace_[a-z0-9_]+", text)) - attributes()
    return [name for name in sorted(named) if not any(other.startswith(name) for other in METRICS)]


def wrong_commands(commands: Iterable[list[str]]) -> list[str]:
    """Return the commands that do not exist, or have no such option; each is the words behind `headrace`."""
    return [f"headrace {' '.join(words)}" for words in commands if not is_command(words)]


def is_command(words: list[str]) -> bool:
    """True if the words name a command, and its options are ones that it has."""
    command = COMMAND
    while isinstance(command, typer.core.TyperGroup):
        if not words:
            return command.name != "headrace"
        if words[0] not in command.commands:
            return words[0] in own_options(command)
        command, words = command.commands[words[0]], words[1:]
    return all(word in own_options(command) for word in words if word.startswith("--"))


def own_options(command: object) -> set[str]:
    """Return the options of a command itself."""
    return {option for each in getattr(command, "params", ()) for option in (*each.opts, *each.secondary_opts)}


def commands_in_prose(text: str) -> Iterator[list[str]]:
    """Yield the words of every command that a string names: the whole span, or the verb outside of a span."""
    for span in spans(text):
        if span.startswith("headrace ") and not span.startswith("headrace …"):
            yield span.split()[1:]
    for verb in re.findall(r"\bheadrace ([a-z][a-z-]*)", re.sub(r"`[^`]*`", "", text)):
        yield [verb]


def unknown_routes(named: Iterable[tuple[str | None, str]]) -> list[str]:
    """Return the routes that the platform does not serve."""
    return [f"{method or ''} {path}" for method, path in named if not is_served(method, path.partition("?")[0])]


def strings(module: str) -> list[str]:
    """Return the string constants of a module that hold prose."""
    return [text for text in constants(module) if " " in text]


@cache
def attributes() -> set[str]:
    """Return the names of attributes that the code gives to objects of others, such as log records."""
    found = {text for module in MODULES for text in constants(module)}
    return {text for text in found if re.fullmatch(r"headrace_\w+", text)}


@cache
def constants(module: str) -> list[str]:
    """Return the string constants of a module; `…` stands for what an f-string fills in."""
    found: list[str] = []
    waiting: list[ast.AST] = [ast.parse(read(module))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        else:
            waiting += ast.iter_child_nodes(node)
    return found


def spans(text: str) -> list[str]:
    """Return what stands between single backticks in the prose, line ends as blanks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def links(page: str) -> list[str]:
    """Return what a page links to in this repository."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", read(page))


def headings(text: str) -> set[str]:
    """Return the anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def routes(text: str) -> list[tuple[str | None, str]]:
    """Return (method, path) of every `GET /...` and `POST /...` in a text."""
    return re.findall(r"\b(GET|POST) (/[\w{}…./-]*[\w}…])", text)


def shell_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command in the shell blocks, without what is assigned before it."""
    for block in blocks(text, "bash"):
        script = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
        script = re.sub(r"(^|\s)# .*$", "", script.replace("\\\n", " "), flags=re.MULTILINE)
        lexer = shlex.shlex(script, posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
        words: list[str] = []
        for word in (*lexer, "\n"):
            if set(word) <= set("();|&\n"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"\w+=", word):
                words.append(word)


def headrace_commands(text: str) -> Iterator[list[str]]:
    """Yield the words after `headrace` of every command that is shown."""
    for words in shell_commands(text):
        if words[0].removeprefix(".venv/bin/") == "headrace":
            yield words[1:]
    for span in spans(text):
        if found := re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?headrace (.*)", span):
            yield shlex.split(found[1])


def is_importable(text: str) -> bool:
    """True if everything that the text imports is installed or was shown before."""
    roots = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
    return all(root in sys.modules or importlib.util.find_spec(root) for root in roots)


def options_of(command: object) -> Iterator[str]:
    """Yield every option of a command and of those under it."""
    yield from own_options(command)
    for under in getattr(command, "commands", {}).values():
        yield from options_of(under)


def is_served(method: str | None, path: str) -> bool:
    """True if an application that includes the platform's router has a route for it."""
    scope = {"type": "http", "method": method or "GET", "path": path, "root_path": "", "headers": []}
    wanted = (Match.FULL,) if method else (Match.FULL, Match.PARTIAL)
    return any(route.matches(scope)[0] in wanted for route in served().routes)


@cache
def reference() -> dict[str, str]:
    """Return the pages of docs/reference as the code would write them, by name."""
    return reference_pages(app)


@cache
def served() -> FastAPI:
    """Return an application that includes the platform's router."""
    served = FastAPI()
    served.include_router(Headrace("documents").router)
    return served
