"""Every setting, read once from the environment (`HEADRACE_...`): one frozen class per component.

`platform.py` the platform as a whole; `kafka.py`, `database.py`, `engine.py`, `ingest.py`, `schema_registry.py` its
components;
`environment.py` reads them. All faults are reported at once, each with its variable, its value and what is valid.
Unknown `HEADRACE_` variables are faults too, except those that Kubernetes injects for a Service named `headrace...`
(service links).
"""

from headrace.settings.database import DatabaseSettings
from headrace.settings.engine import EngineSettings
from headrace.settings.environment import COMPONENTS, load_settings, variables
from headrace.settings.ingest import IngestSettings
from headrace.settings.kafka import KafkaSettings
from headrace.settings.platform import EMBEDDED, LOOPBACK, MEMORY, PREFIX, Settings
from headrace.settings.schema_registry import SchemaRegistrySettings

__all__ = [
    "COMPONENTS",
    "EMBEDDED",
    "LOOPBACK",
    "MEMORY",
    "PREFIX",
    "DatabaseSettings",
    "EngineSettings",
    "IngestSettings",
    "KafkaSettings",
    "SchemaRegistrySettings",
    "Settings",
    "load_settings",
    "variables",
]
