"""The reference pages, made from the code: `python -m headrace.reference FOLDER MODULE:APP` (here: `make docs`).

| page | made from |
| --- | --- |
| settings.md | the settings and their descriptions |
| cli.md | the commands and their options |
| http.md | the OpenAPI document of the application |
| metrics.md | the catalogue of metrics |
| errors.md | the tree of errors, and the problems that HTTP answers |

A description that a page lacks is written in the code, never in the page: tests/unit/test_documents.py compares both.
"""

from __future__ import annotations

from fastapi import FastAPI

from headrace.reference import cli, errors, http, metrics, settings

__all__ = ["pages"]


def pages(app: FastAPI) -> dict[str, str]:
    """Return every page's text by its file name; the routes are those of the application."""
    return {
        "settings.md": settings.render(),
        "cli.md": cli.render(),
        "http.md": http.render(app),
        "metrics.md": metrics.render(),
        "errors.md": errors.render(),
    }
