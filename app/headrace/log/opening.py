"""Makes the log that the settings name: the only module that names every log's class.

Kafka's is imported when it is named: its client takes a twentieth of a second.
"""

from __future__ import annotations

from headrace.database.pool import Pool
from headrace.log.embedded import EmbeddedLog
from headrace.log.memory import MemoryLog
from headrace.log.ports import Log
from headrace.settings import MEMORY, Settings


def new_log(settings: Settings, pool: Pool | None) -> Log:
    """Return the log that HEADRACE_LOG names, not yet started. Raises: ConfigurationError (password or TLS files)."""
    if settings.is_kafka:
        from headrace.log.kafka import KafkaLog

        return KafkaLog(settings)
    if settings.log == MEMORY:
        return MemoryLog()
    assert pool is not None, "the embedded log lives in the database"
    return EmbeddedLog(pool)
