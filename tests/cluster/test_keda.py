"""The rule by which the test scales: that of KEDA and of the HorizontalPodAutoscaler behind it."""

from __future__ import annotations

from tests.cluster.keda import Behaviour, Scaler

RULE = Behaviour(lag_per_replica=100)


def test_pods_double_until_there_are_enough_for_the_lag() -> None:
    scaler, current, seen = Scaler(RULE), 1, []

    for second in range(20):
        current = scaler.replicas(second, current, lag=450, partitions=6)
        seen.append(current)

    assert sorted(set(seen)) == [2, 4, 5]


def test_no_more_pods_than_partitions_and_none_for_a_tenth() -> None:
    assert Scaler(RULE).replicas(0, 3, lag=10_000, partitions=3) == 3
    assert Scaler(RULE).replicas(0, 2, lag=219, partitions=6) == 2
    assert Scaler(RULE).replicas(0, 2, lag=221, partitions=6) == 3


def test_pods_leave_one_by_one_and_only_after_a_while() -> None:
    scaler, current, changes = Scaler(RULE), 3, []

    for second in range(60):
        lag = 300 if second < 10 else 0
        wanted = scaler.replicas(second, current, lag, partitions=6)
        changes += [second] if wanted != current else []
        current = wanted

    assert current == 1
    assert changes[0] >= 9 + RULE.down_stable_seconds
    assert changes[1] - changes[0] == RULE.down_seconds
