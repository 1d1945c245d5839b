"""Free ports of this machine, for servers that tests start."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import ExitStack

FIRST, LAST = 10_000, 32_000
"""Below the ports that systems give to outgoing connections (from 32,768 on Linux). One of those would take a port away
before its server listens, or while the server is restarted: a client that tries to come back may even meet itself."""


def free_ports(count: int) -> list[int]:
    """Return distinct ports that nothing listened on a moment ago."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.randint(FIRST, LAST)  # by chance, since other processes look for ports at the same time
            opened = stack.enter_context(socket.socket())
            try:
                opened.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                found.append(port)
    return found
