"""The page of the errors, made from their tree and from the problems that HTTP answers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import headrace
from headrace import errors
from headrace.errors import HeadraceError
from headrace.reference.tables import table

INTRODUCTION = """\
# Errors

Errors form a tree by what to do next, and every class is in `headrace.errors`. `str(error)` is one sentence that says
what happened, where, and what to do; facts are attributes.

`make docs` writes this page from the code.

## The tree
"""

PROBLEMS = """\
## Problems over HTTP

A refused request is answered with `application/problem+json`. Programs branch on `type`, people read `detail`. Beside
those below, any other status of HTTP has a problem named after it, such as `/problems/method-not-allowed`. Before the
application sees a request, `headrace run` may answer 408 (`/problems/request-timeout`) if it does not come in time, 431
(`/problems/headers-too-large`) and 503 (`/problems/unavailable`) if too many connections are open.
"""


def render() -> str:
    """Return the page."""
    drawn = (errors.__doc__ or "").partition("```\n")[2].partition("```")[0]
    classes = [(f"`{error.__name__}`", _base(error), _meaning(error)) for error in _tree(HeadraceError)]
    problems = [(f"`/problems/{slug}`", str(status), title) for slug, status, title in _problems()]
    return "\n".join(
        [
            INTRODUCTION,
            f"```\n{drawn}```\n",
            table(["class", "is a", "meaning"], classes),
            PROBLEMS,
            table(["type", "status", "title"], problems),
        ]
    )


def _tree(error: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    """Yield the class and those under it, as `headrace.errors` orders them."""
    yield error
    for under in error.__subclasses__():
        if under.__module__ == errors.__name__:
            yield from _tree(under)


def _base(error: type[HeadraceError]) -> str:
    return f"`{error.__bases__[0].__name__}`"


def _meaning(error: type[HeadraceError]) -> str:
    return " ".join((error.__doc__ or "").replace("``", "`").split())


def _problems() -> list[tuple[str, int, str]]:
    """Return (slug, status, title) of every problem that the platform's own code makes, sorted."""
    package = Path(next(iter(headrace.__path__)))
    trees = (ast.parse(file.read_text()) for file in sorted(package.rglob("*.py")))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    return sorted({found for call in calls if (found := _problem(call)) is not None})


def _problem(call: ast.Call) -> tuple[str, int, str] | None:
    if not (isinstance(call.func, ast.Name) and call.func.id == "Problem"):
        return None
    values = [argument.value for argument in call.args[:3] if isinstance(argument, ast.Constant)]
    match values:
        case [int(status), str(slug), str(title)]:
            return slug, status, title
    return None
