"""Writes the reference pages: `python -m headrace.reference docs/reference shop.service:app`."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.loading import load_app
from headrace.reference import pages


def main() -> None:
    """Write every page into the folder that the first argument names."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m headrace.reference FOLDER MODULE:APP")
    folder = Path(sys.argv[1])
    for name, text in pages(load_app(sys.argv[2])).items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
