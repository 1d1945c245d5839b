"""One entry a minute of each kind, with the number of those that were held back."""

from __future__ import annotations

from headrace.telemetry.rate_limit import MAX_KEYS, OncePerMinute


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_first_entry_of_a_minute_is_written_with_those_before() -> None:
    clock = Clock()
    limit = OncePerMinute(clock)
    assert [limit.held_back("a") for _ in range(3)] == [0, None, None]
    assert limit.held_back("b") == 0
    clock.now = 59.9
    assert limit.held_back("a") is None
    clock.now = 60.0
    assert limit.held_back("a") == 3
    assert limit.held_back("a") is None


def test_endless_keys_take_a_bounded_amount_of_memory() -> None:
    limit = OncePerMinute(Clock())
    for key in range(3 * MAX_KEYS):
        assert limit.held_back(key) == 0
    assert len(limit._written) <= MAX_KEYS + 1
