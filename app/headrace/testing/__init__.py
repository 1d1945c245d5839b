"""For teams that test what they built: handlers in milliseconds, the whole application, exactly once proved.

```python
from headrace.testing import Handlers, assert_exactly_once

def test_overdrawing_a_wallet_is_told(handlers: Handlers) -> None:
    handlers.given(WalletCredited(customer="ada", amount=70))
    then = handlers.when(WalletDebited(customer="ada", amount=100))
    assert then.state(Wallet) == Wallet(balance=-30)
    assert then.emits == [WalletOverdrawn(customer="ada", balance=-30)]

def test_wallets_are_exactly_once(build: Build) -> None:
    assert_exactly_once(app, [build(WalletCredited, customer=name) for name in ("ada", "bob", "ada")])
```
| to test | take | it is | takes |
| --- | --- | --- | --- |
| one handler | call it | a function | nothing |
| events and what follows | `handlers`, `Handlers(app)` | the engine's code without log and Postgres | milliseconds |
| that nothing is done twice | `assert_exactly_once` | the same, in every way that may happen | a second |
| routes, SQL, the outbox | `service`, `running(app)` | all of it, on a log in memory and a real Postgres | 0.3 s |

**What is promised.** Decoding, keys, states and their proof that they come back from JSON, dependencies and
`dependency_overrides`, ids of emits, policies and verdicts, sagas and timers are those of production: the same modules
run (`engine/decode.py`, `engine/run.py`, `engine/settle.py`, `state/`, `emits/`), with dictionaries in the place of
Postgres. What a handler raises is raised in the test, as it is.

**What is not.** Two events at the same time, a Postgres that is away, a log of several processes: `handlers` has one
owner, one partition and no server. SQL in handlers needs a real database: the fixture `handlers` brings one if a
handler takes a Transaction.

`plugin.py` is the pytest plugin (fixtures, settings of a run), `handlers.py` runs handlers (`owner.py` one
subscription, `kept.py` what survives, `then.py` what came of it), `exactly_once/` proves, `service.py` and
`blocking.py` run the application, `postgres.py` lends databases, `factories.py` builds events, and `own.py` tells whose
code an error is of. `conformance` holds the promises of the ports as suites that any backend can run.

Rejected: a test double of the platform (what passes there proves nothing), a mode of the engine for tests (production
would pay for it), `asyncio` fixtures (they need a plugin of the team's choice; a thread needs none).
"""

from headrace.testing.blocking import BlockingService
from headrace.testing.exactly_once import NotExactlyOnceError, assert_exactly_once
from headrace.testing.factories import Build
from headrace.testing.handlers import Handlers
from headrace.testing.service import NotQuietError, Service, running
from headrace.testing.then import Sent, Step, Then, Timer

__all__ = [
    "BlockingService",
    "Build",
    "Handlers",
    "NotExactlyOnceError",
    "NotQuietError",
    "Sent",
    "Service",
    "Step",
    "Then",
    "Timer",
    "assert_exactly_once",
    "running",
]
