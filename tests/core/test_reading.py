"""Header names of any bytes: read without a stop, and written back as they were (S10, Q2)."""

from __future__ import annotations

import struct

import pytest
from aiokafka.consumer import fetcher
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.encoding import COMPRESSIONS, Identity, encode
from pipeline.kafka.reading import read_any_header_name
from pipeline.record import OutRecord, RawHeader
from pipeline.staging import batch_bytes

HOSTILE = b"\xff\xfename".decode(errors="surrogateescape")
AT = TopicPartition("t", 0)
Read = tuple[int, bytes | None, bytes | None, list[RawHeader]]


@pytest.fixture(autouse=True)
def _reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read any header name in this test, and give aiokafka its own parts back afterwards."""
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    read_any_header_name()


def batch(records: list[OutRecord], offset: int, compression: str = "none") -> bytes:
    """A record batch as a broker returns it, its first record at `offset`."""
    data = encode(records, compression, Identity(-1, -1), -1, 1_700_000_000_000)
    return struct.pack(">q", offset) + bytes(data[8:])


def read(data: bytes, from_offset: int = 0) -> list[Read]:
    """All records of a fetch, the way aiokafka's consumer reads them."""
    records = fetcher.MemoryRecords(data)
    assert records.size_in_bytes() == len(data)
    found = fetcher.PartitionRecords(AT, records, None, from_offset, None, None, True, 0)
    return [(r.offset, r.key, r.value, list(r.headers)) for r in found]


def record(number: int, *headers: RawHeader) -> OutRecord:
    """A record with these headers."""
    return (b"k%d" % number, b"v%d" % number, list(headers))


@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
def test_reads_on_behind_a_hostile_name(compression: str) -> None:
    """S10: nothing of the fetch is lost or doubled: before, in and behind the batch with the hostile name."""
    hostile: OutRecord = (None, None, [("a", b"1"), (HOSTILE, b"2"), ("null", None)])
    data = (
        batch([record(0), record(1, ("x", b"y"))], 10, compression)
        + batch([record(2), hostile, record(4)], 12, compression)
        + batch([record(5)], 15, compression)
    )
    assert read(data, 11) == [
        (11, b"k1", b"v1", [("x", b"y")]),
        (12, b"k2", b"v2", []),
        (13, None, None, [("a", b"1"), (HOSTILE, b"2"), ("null", None)]),
        (14, b"k4", b"v4", []),
        (15, b"k5", b"v5", []),
    ]


def test_times_survive_the_slow_way() -> None:
    """S10: a record read the slow way has its own timestamp, and the type that the broker set."""
    data = batch([record(0, (HOSTILE, b"")), record(1)], 0)
    slow = fetcher.PartitionRecords(AT, fetcher.MemoryRecords(data), None, 0, None, None, True, 0)
    fast = fetcher.PartitionRecords(
        AT, fetcher.MemoryRecords(batch([record(0), record(1)], 0)), None, 0, None, None, True, 0
    )
    for one, other in zip(slow, fast, strict=True):
        assert (one.timestamp, one.timestamp_type) == (other.timestamp, other.timestamp_type)


def test_aiokafka_alone_stops() -> None:
    """What the repair is for: aiokafka 0.14 raises, and the consumer that asks again gets no further."""
    from aiokafka.record.memory_records import MemoryRecords

    records = MemoryRecords(batch([record(0), record(1, (HOSTILE, b""))], 0))
    parsed = iter(records.next_batch())
    assert next(parsed).offset == 0
    with pytest.raises(UnicodeDecodeError):
        next(parsed)


_NAMES = st.binary(max_size=8).map(lambda raw: raw.decode(errors="surrogateescape"))
_RECORDS = st.tuples(
    st.none() | st.binary(max_size=5),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(_NAMES, st.none() | st.binary(max_size=5)), max_size=4),
)


@given(st.lists(_RECORDS, min_size=1, max_size=8), st.sampled_from(sorted(COMPRESSIONS)))
def test_any_record_survives_writing_and_reading(records: list[OutRecord], compression: str) -> None:
    """Q2: key, value and headers of any bytes, null ones too, come back byte for byte, in order."""
    found = read(batch(records, 3, compression), 3)
    assert found == [(3 + index, key, value, headers) for index, (key, value, headers) in enumerate(records)]


@given(_RECORDS)
def test_the_estimate_is_an_upper_bound(one: OutRecord) -> None:
    """S5: a batch never grows over its limit by what the estimate overlooked; header names of ASCII are meant."""
    key, value, headers = one
    ascii_only: OutRecord = (key, value, [(ascii(name), content) for name, content in headers])
    size = len(encode([ascii_only], "none", Identity(-1, -1), -1, 0)) - 61
    assert size <= batch_bytes(*ascii_only)
