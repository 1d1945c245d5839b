"""The identity of an event: what the dedupe window knows it by."""

from __future__ import annotations

import tracemalloc
from itertools import product

from headrace.cloudevents.attributes import check_name
from headrace.envelope import Envelope, identity


def test_identity_stands_for_source_type_and_id() -> None:
    texts = ("", "a", "ab", "abc", "1:a", "a1:b", "é")
    triples = list(product(texts, repeat=3))
    assert len({identity(*triple) for triple in triples}) == len(triples)
    assert all(len(identity(*triple)) == 16 for triple in triples)


def test_same_id_under_two_types_is_two_events() -> None:
    placed = Envelope(id="key-1", source="/shop", type="order.placed")
    paid = Envelope(id="key-1", source="/shop", type="order.paid")
    assert placed.identity != paid.identity
    assert paid.identity == identity("/shop", "order.paid", "key-1")


def test_identity_does_not_depend_on_the_cache() -> None:
    long = "/s" * 5_000
    assert identity(long, "t", "1") == identity(long, "t", "1") != identity(long, "u", "1")
    assert identity("/s", "t" * 5_000, "1") == identity("/s", "t" * 5_000, "1")


def test_what_producers_send_is_not_kept_in_memory() -> None:
    """Sources, types and extension names of a megabyte, and many short ones, leave at most 3 MB behind."""
    tracemalloc.start()
    try:
        for number in range(5_000):
            identity(f"/{number}".ljust(190, "\U0001f600"), "t", "1")
            check_name(f"{number}".ljust(190, "n"))
        for number in range(20):
            identity(f"/{number}".ljust(1_000_000, "s"), "t", "1")
            identity("/s", f"{number}".ljust(1_000_000, "t"), "1")
            check_name(f"{number}".ljust(1_000_000, "n"))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3_000_000
