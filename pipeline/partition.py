"""Where a key goes: Kafka's default partitioner (T4), and a bounded memory of keys already hashed.

Owns: murmur2 of a key, the per-key facts that framing needs. Must not know: records, topics, Kafka clients.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pipeline import packing
from pipeline.record import Header

__all__ = ["Key", "KeyCache", "key_hash", "partition_of"]

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF
_WORDS = [struct.Struct(f"<{count}I").unpack_from for count in range(64)]


def key_hash(key: bytes) -> int:
    """The positive murmur2 hash of Kafka's default partitioner; the partition is this modulo the count.

    Source: `Utils.murmur2` and `Utils.toPositive` of Apache Kafka's Java client.
    """
    length = len(key)
    count = length >> 2
    words = _WORDS[count](key) if count < 64 else struct.unpack_from(f"<{count}I", key)
    h = _SEED ^ length
    for word in words:
        k = word * _M & _MASK
        h = h * _M & _MASK ^ (k ^ k >> 24) * _M & _MASK
    tail = key[count << 2 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return (h ^ h >> 15) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition every Kafka client with the default murmur2 partitioner would choose (T4)."""
    return key_hash(key) % partitions


class Key:
    """A partition key in use: its hash, itself and the headers that repeat it as a batch has them, their number."""

    __slots__ = ("hash", "header_count", "packed", "packed_data")

    def __init__(self, data: bytes, headers: tuple[Header, ...]) -> None:
        self.hash = key_hash(data)
        self.packed_data = packing.VARINTS[len(data)] + data
        self.packed = packing.headers(headers)
        self.header_count = len(headers)


class KeyCache:
    """Remembers keys, at most `2 * limit` of them, the recently used for sure.

    Two generations: what is used moves to the young one; when that is full the old one is forgotten. This
    costs one dict lookup for a hit, where an LRU would cost a reordering too.
    """

    def __init__(self, make: Callable[[bytes], Key], limit: int = 65_536) -> None:
        self._make = make
        self._limit = limit
        self._young: dict[bytes, Key] = {}
        self._old: dict[bytes, Key] = {}

    def get(self, data: bytes) -> Key:
        """The key's facts, made on first use; `make` may raise for bytes that are no legal key."""
        found = self._young.get(data)
        if found is None:
            found = self._old.pop(data, None) or self._make(data)
            if len(self._young) >= self._limit:
                self._old, self._young = self._young, {}
            self._young[data] = found
        return found
