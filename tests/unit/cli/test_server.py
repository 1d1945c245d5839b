"""The sockets are bound before anything is started."""

from __future__ import annotations

import socket

import pytest

from headrace.cli.server import listen
from headrace.errors import ConfigurationError


def test_free_port_is_taken_where_0_is_asked_for() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.getsockname()[1] > 0


def test_every_address_of_a_name_gets_the_same_port() -> None:
    listeners = listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


def test_port_that_is_taken_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"--port {port} is taken by another process; choose another"):
            listen("127.0.0.1", port)


def test_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"--host 203\.0\.113\.7 cannot be served on: .*; name an address of"):
        listen("203.0.113.7", 0)


def test_client_is_not_refused_while_the_start_goes_on() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass
