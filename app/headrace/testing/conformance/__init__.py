"""The promises of the ports as pytest suites: a backend subclasses the suite and says how it is opened.

```python
class TestMyLog(LogSuite):
    @pytest.fixture
    def open_log(self) -> OpenLog:
        return my_log  # an async context manager: yields a started log, stops it; opened again, it is the same log
```
A promise that the backend does not make is named in `unclaimed`, with the reason; its tests are skipped with that.
"""

import pytest

for suite in ("log_suite", "membership_suite"):
    pytest.register_assert_rewrite(f"headrace.testing.conformance.{suite}")

from headrace.testing.conformance.log_suite import LogSuite, OpenLog  # noqa: E402 (after the rewrite is registered)

__all__ = ["LogSuite", "OpenLog"]
