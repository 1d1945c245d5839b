"""`headrace` and `python -m headrace`."""

from __future__ import annotations

import sys
from typing import NoReturn

from headrace.database.early import begin_early, end_early
from headrace.errors import HeadraceError, StateUnavailableError


def main() -> None:
    """Run the command line; a fault that a person can correct is one sentence, not a traceback."""
    try:
        begin_early(sys.argv[1:])
        from headrace.cli import cli  # behind the beginning of the database: most of a start's imports

        cli(prog_name="headrace")
    except HeadraceError as error:
        _end(error)
    except Exception as error:
        from headrace.database.failures import CLIENT_ERRORS, classify

        fault = classify(error) if isinstance(error, CLIENT_ERRORS) else None
        if not isinstance(fault, StateUnavailableError):
            raise
        _end(fault)
    finally:
        end_early()


def _end(error: HeadraceError) -> NoReturn:
    sys.stderr.write(f"headrace: {error}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
