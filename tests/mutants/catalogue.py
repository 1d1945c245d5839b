"""The mutants, by the part of the engine that has the mistake."""

from __future__ import annotations

from tests.mutants.accepting import ACCEPTING
from tests.mutants.calls import CALLS
from tests.mutants.claims import CLAIMS
from tests.mutants.events import EVENTS
from tests.mutants.lanes import LANES
from tests.mutants.memory import MEMORY
from tests.mutants.outbox import OUTBOX
from tests.mutants.patterns import PATTERNS
from tests.mutants.publishing import PUBLISHING
from tests.mutants.sagas import SAGAS
from tests.mutants.sequences import SEQUENCES
from tests.mutants.timing import DUE_ORDER, TIMING

BOTH = (*CLAIMS, *MEMORY, *EVENTS, *LANES, *SEQUENCES, *PUBLISHING, *TIMING, *PATTERNS, *CALLS)
MUTANTS = (*BOTH, *DUE_ORDER)
"""Those that the simulation hunts."""
ON_SERVERS = (*BOTH, *ACCEPTING, *OUTBOX, *SAGAS)
"""Those that the crash machine hunts."""
ALL = (*ON_SERVERS, *DUE_ORDER)
