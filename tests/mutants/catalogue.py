"""The mutants, by the part of the engine that has the mistake."""

from __future__ import annotations

from tests.mutants.accepting import ACCEPTING
from tests.mutants.claims import CLAIMS
from tests.mutants.events import EVENTS
from tests.mutants.lanes import LANES
from tests.mutants.memory import MEMORY
from tests.mutants.patterns import PATTERNS
from tests.mutants.publishing import PUBLISHING
from tests.mutants.sequences import SEQUENCES

MUTANTS = (*CLAIMS, *MEMORY, *EVENTS, *LANES, *SEQUENCES, *PUBLISHING, *PATTERNS)
ON_SERVERS = (*MUTANTS, *ACCEPTING)
"""Those that the crash machine hunts."""
