"""`python -m bench VERB ...`; VERB is one of `VERBS`, and without one it is `peers`."""

from __future__ import annotations

import sys

from bench.commands import audit, backlog, dashboards, document, growth, http, peers, soak, standstill, start, tax

VERBS = {
    "peers": peers.main,
    "audit": audit.main,
    "backlog": backlog.main,
    "dashboards": dashboards.main,
    "document": document.main,
    "standstill": standstill.main,
    "start": start.main,
    "growth": growth.main,
    "http": http.main,
    "soak": soak.main,
    "tax": tax.main,
}


def main() -> None:
    """Run the verb that the first argument names."""
    arguments = sys.argv[1:]
    verb = arguments.pop(0) if arguments[:1] and arguments[0] in VERBS else "peers"
    VERBS[verb](arguments)


if __name__ == "__main__":
    main()
