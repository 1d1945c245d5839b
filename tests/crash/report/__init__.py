"""What a person and a program read of the runs: `report.html` with a timeline of each, and `report.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.crash.report.figures import figures
from tests.crash.report.page import page
from tests.crash.run import Result


def write_report(results: Sequence[Result], folder: Path) -> tuple[Path, Path]:
    """Write both files; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    summaries = [figures(result) for result in results]
    as_json, as_page = folder / "report.json", folder / "report.html"
    as_json.write_bytes(msgspec.json.format(msgspec.json.encode(summaries)))
    as_page.write_text(page(results, summaries))
    return as_page, as_json
