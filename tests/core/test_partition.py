"""Keys and partitions: Kafka's default murmur2 (T4), and a memory of keys that stays bounded."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidField
from pipeline.partition import Key, KeyCache, key_hash, partition_of

# The table of `UtilsTest.testMurmur2` in Apache Kafka (Apache-2.0), as 32-bit signed hashes.
_OF_KAFKA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), _OF_KAFKA.items())
def test_kafkas_own_examples(key: bytes, signed: int) -> None:
    """T4: the hashes that Kafka's own test expects, made positive as its partitioner does."""
    assert key_hash(key) == signed & 0x7FFFFFFF


def _reference(data: bytes) -> int:
    """murmur2 in Kafka's flavour, written anew: plainly, byte by byte."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        (k,) = struct.unpack_from("<I", data, at)
        k = k * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    for shift in reversed(range(len(tail))):
        h ^= tail[shift] << (8 * shift)
    if tail:
        h = h * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF


@given(st.binary(max_size=600))
def test_any_key(key: bytes) -> None:
    """T4: equal to the plain algorithm for keys of any bytes and length, also past 256 bytes."""
    assert key_hash(key) == _reference(key)
    assert partition_of(key, 7) == _reference(key) % 7


def test_the_memory_is_bounded_and_right() -> None:
    """T3: at most twice the limit is remembered, the recently used for sure; an answer never depends on it."""
    made: list[bytes] = []

    def make(data: bytes) -> Key:
        made.append(data)
        return Key(data, ())

    cache = KeyCache(make, limit=10)
    for number in range(1000):
        assert cache.get(b"hot").packed_data == b"\x06hot"
        assert cache.get(b"%d" % number).hash == key_hash(b"%d" % number)
        assert len(cache._young) + len(cache._old) <= 20
    assert made.count(b"hot") == 1
    assert len(made) == 1001


def test_an_illegal_key_is_not_remembered() -> None:
    """S5: what `make` refuses is refused each time."""

    def make(_: bytes) -> Key:
        raise InvalidField("tenant", "is bad")

    cache = KeyCache(make)
    for _ in range(2):
        with pytest.raises(InvalidField):
            cache.get(b"x")
