"""The start of an embedded PostgreSQL that begins before the application is imported.

`initdb` takes as long as the imports do, and needs none of them: on a machine with two cores a first start takes the
longer of the two instead of both. Which settings an application has is known only once it is imported, so what begins
is what the environment asks for, in an empty folder alone, and it is taken back if the application asks for something
else or does not come up. Whatever is wrong is told by the start itself: here nothing is raised.

```
begin_early ─▶ keep_early_for (the application's settings) ─▶ take ─▶ EmbeddedPostgres.start
                     └──────────── end_early: nothing is left ◀──┘ if it comes to nothing
```
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from headrace.database.embedded import EmbeddedPostgres, embedded_folder
from headrace.errors import HeadraceError
from headrace.settings import MEMORY, Settings, load_settings

_begun: dict[Path, EmbeddedPostgres] = {}
"""What has begun and was not taken, by its folder."""


def begin_early(arguments: Sequence[str]) -> None:
    """Let the database of `headrace run` begin, if the environment names an embedded one and its folder is empty."""
    if arguments[:1] != ["run"] or "--help" in arguments:
        return
    with suppress(HeadraceError, OSError):
        folder = _folder(load_settings())
        if folder is not None:
            server = EmbeddedPostgres(folder)
            server.begin()
            _begun[folder] = server


def keep_early_for(settings: Settings) -> None:
    """Take back what has begun unless these settings name it."""
    if _folder(settings) not in _begun:
        end_early()


def take(folder: Path) -> EmbeddedPostgres:
    """Return the server of the folder, whose database may be in the making; it is the caller's from now on."""
    return _begun.pop(folder.absolute(), None) or EmbeddedPostgres(folder)


def end_early() -> None:
    """Take back what has begun and was not taken. Never raises."""
    while _begun:
        _, server = _begun.popitem()
        server.take_back()


def _folder(settings: Settings) -> Path | None:
    """Return where the settings want a database that stays; None if it is elsewhere, or thrown away."""
    is_kept = settings.is_database_embedded and settings.log != MEMORY
    return embedded_folder(settings).absolute() if is_kept else None
