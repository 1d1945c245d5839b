"""Puts the results of `bench/results` into the page on performance: its tables, and the plots that it shows."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.results import FOLDER

PAGE = Path(__file__).parents[2] / "docs" / "design" / "performance.md"
PLOTS = PAGE.parent / "plots"
BEGIN, END = "<!-- written by `make bench ARGS=document` -->", "<!-- end of what is written -->"


def main(words: Sequence[str]) -> None:
    """Rewrite the page's part and copy the plots that the page names."""
    argparse.ArgumentParser(prog="python -m bench document", description=__doc__).parse_args(words)
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{(FOLDER / 'peers.md').read_text()}\n{END}{after}")
    PLOTS.mkdir(exist_ok=True)
    for name in re.findall(r"\]\(plots/([\w-]+\.svg)\)", text):
        shutil.copyfile(FOLDER / name, PLOTS / name)
