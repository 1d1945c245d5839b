"""What the kernel knows of a connection while the event loop has not read from it."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

TCP_INFO = getattr(socket, "TCP_INFO", None)
LAST_DATA_RECEIVED = struct.Struct("=52xI")
"""`tcpi_last_data_recv` in Linux' `struct tcp_info`, in milliseconds."""
READABLE = struct.Struct("i")
"""What `FIONREAD` tells."""


def waited_seconds(transport: asyncio.Transport) -> float:
    """Return how long ago the last bytes of a connection arrived, read or not; 0 where the kernel does not tell."""
    connection = transport.get_extra_info("socket")
    if TCP_INFO is None or connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    (milliseconds,) = LAST_DATA_RECEIVED.unpack(connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 56))
    return float(milliseconds) / 1_000


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes of a connection have arrived and were not read."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return 0
    (count,) = READABLE.unpack(fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(READABLE.size)))
    return int(count)
