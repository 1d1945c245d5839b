"""`headrace` and `python -m headrace`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from headrace.database.early import begin_early, end_early
from headrace.errors import ConfigurationError, HeadraceError


def main() -> None:
    """Run the command line; a fault that a person can correct is one sentence, not a traceback."""
    try:
        if isinstance(sys.stdout, TextIOWrapper):  # a key that the terminal's encoding lacks is escaped, as in stderr
            sys.stdout.reconfigure(errors="backslashreplace")
        _refuse_what_is_no_text(sys.argv[1:])
        begin_early(sys.argv[1:])
        from headrace.cli import cli  # behind the beginning of the database: most of a start's imports

        cli(prog_name="headrace")
    except HeadraceError as error:
        _end(error)
    except Exception as error:
        from headrace.database.failures import CLIENT_ERRORS, classify

        fault = classify(error) if isinstance(error, CLIENT_ERRORS) else None
        if fault is None:
            raise
        _end(fault)
    finally:
        end_early()


def _refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """Python passes bytes that are not UTF-8 on as half surrogates, which no database and no address holds."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"the argument {argument!a} is not in UTF-8; write it so.") from None


def _end(error: HeadraceError) -> NoReturn:
    sys.stderr.write(f"headrace: {error}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
