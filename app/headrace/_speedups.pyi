from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.engine.taken import Taken
from headrace.event import EventType
from headrace.item import Item, Outcome
from headrace.log.ports import Headers
from headrace.log.ports import Record as AnyRecord

class Record:
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...

class Plain:
    skipped: int
    def __init__(
        self,
        item: type[Item],
        ready: Outcome,
        declared_key: Callable[[EventType, Any], str | None],
        is_own: Callable[[Headers], bool],
        foreign_topics: frozenset[str],
        taken: tuple[Taken, ...],
        /,
    ) -> None: ...
    def items(
        self, records: Sequence[AnyRecord], begin: int, seen: Mapping[bytes, int], fresh: dict[bytes, int], /
    ) -> list[Item]: ...

def read_records(
    batch: bytes,
    begin: int,
    count: int,
    topic: str,
    partition: int,
    base_offset: int,
    first_timestamp: int,
    append_timestamp: int,
    since: int,
    /,
) -> list[AnyRecord] | None: ...
def sizes(records: Sequence[AnyRecord], header_bytes: int, /) -> list[int] | None: ...
