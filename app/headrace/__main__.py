"""`headrace` and `python -m headrace`."""

from __future__ import annotations

import sys

from headrace.cli import cli
from headrace.errors import HeadraceError


def main() -> None:
    """Run the command line; a fault that a person can correct is one sentence, not a traceback."""
    try:
        cli(prog_name="headrace")
    except HeadraceError as error:
        sys.stderr.write(f"headrace: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
