"""Looks at a request that came in one piece without making anything of it: what it takes to refuse it.

uvicorn's parser makes a scope, a list of headers and a cycle of each request, which takes ten times as long. A flood
brings many times what is accepted, so what a refusal takes decides how much still is.
"""

from __future__ import annotations

import httptools


class Glance:
    """Reads whole requests, one at a time; anything else is left to the parser of the connection."""

    def __init__(self) -> None:
        self._begin()

    def path_of_post(self, data: bytes) -> str | None:
        """Return the path, with its query if it has one, if the bytes are one whole POST on a connection that stays."""
        self._begun = self._complete = 0
        self._url = b""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._begin()
            return None
        if self._begun == self._complete == 1 and self._is_post and self._stays:
            return self._url.decode("ascii", "replace")
        self._begin()
        return None

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._url += url

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._is_post = self._parser.get_method() == b"POST"
        self._stays = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._complete += 1
