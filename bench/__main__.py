"""`python -m bench [peers|growth|soak|document] ...`; without a verb it is `peers`."""

from __future__ import annotations

import sys

from bench.commands import document, growth, peers, soak

VERBS = {"peers": peers.main, "growth": growth.main, "soak": soak.main, "document": document.main}


def main() -> None:
    """Run the verb that the first argument names."""
    arguments = sys.argv[1:]
    verb = arguments.pop(0) if arguments[:1] and arguments[0] in VERBS else "peers"
    VERBS[verb](arguments)


if __name__ == "__main__":
    main()
