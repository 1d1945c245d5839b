"""Reads a request's body up to a limit."""

from __future__ import annotations

from starlette.requests import Request

from headrace.problems import Problem


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body. Raises: Problem 413 as soon as it is known to be larger, before the rest is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(
            f"the body has {declared} bytes; at most {max_bytes} are taken (HEADRACE_INGEST_MAX_BODY_BYTES)."
        )
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise too_large(
                f"the body has over {max_bytes} bytes, the most that is taken (HEADRACE_INGEST_MAX_BODY_BYTES)."
            )
        chunks.append(chunk)
    return b"".join(chunks)


def too_large(detail: str) -> Problem:
    """Return the answer for more than is taken at once."""
    return Problem(413, "too-large", "Too large", detail)
