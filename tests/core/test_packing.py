"""Records packed before their batch is made, against aiokafka's builder and parser."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.encoding import COMPRESSIONS, Identity, Unencodable, encode
from pipeline.packing import PACKED_OVERHEAD, header, join, pack, unpack
from pipeline.record import OutRecord, Record

SOME = Identity(4_711, 3)
NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
CONTENTS = st.none() | st.binary(max_size=150)
RECORDS: st.SearchStrategy[list[OutRecord]] = st.lists(
    st.tuples(CONTENTS, CONTENTS, st.lists(st.tuples(NAMES, CONTENTS), max_size=3)), min_size=1, max_size=150
)


@given(RECORDS, st.sampled_from(["none", "lz4"]), st.data())  # gzip writes the time
def test_a_packed_record_is_the_same_in_a_batch(
    records: list[OutRecord], compression: str, data: st.DataObject
) -> None:
    """S10: whether records are packed beforehand, by whoever makes them, or not, a batch has the same bytes; a packed
    one takes no more than is reckoned for it."""
    plain = encode(records, compression, SOME, 17, 1_700_000_000_000)
    packed = [pack(record) for record in records]
    assert encode(packed, compression, SOME, 17, 1_700_000_000_000) == plain
    pairs: list[tuple[Record, Record]] = list(zip(records, packed, strict=True))
    mixed = [data.draw(st.sampled_from(pair)) for pair in pairs]
    assert encode(mixed, compression, SOME, 17, 1_700_000_000_000) == plain
    assert [unpack(one) for one in packed] == records
    assert len(join(packed)) <= sum(len(record) + PACKED_OVERHEAD for record in packed)


@given(RECORDS, st.sampled_from(sorted(COMPRESSIONS)))
def test_a_batch_is_read_as_it_was_given(records: list[OutRecord], compression: str) -> None:
    """S10: aiokafka's parser, checksum included, finds every record again, and what stands in front of them."""
    batch = DefaultRecordBatch(bytes(encode([pack(one) for one in records], compression, SOME, 5, 99)))
    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4_711, 3, 5)
    assert (batch.first_timestamp, batch.max_timestamp, batch.last_offset_delta) == (99, 99, len(records) - 1)
    found = [(record.key, record.value, list(record.headers)) for record in batch]
    assert found == [(key, value, list(headers)) for key, value, headers in records]


def test_many_records_and_long_ones() -> None:
    """S10: numbers that take more than two bytes are written as Kafka reads them."""
    records: list[OutRecord] = [(b"k", b"x" * (number % 7), []) for number in range(20_000)]
    records.append((b"k" * 5_000, b"x" * 3_000_000, [("h", b"y" * 70_000)]))
    assert encode([pack(one) for one in records], "lz4", SOME, 0, 1) == encode(records, "lz4", SOME, 0, 1)


def test_the_name_of_a_header_that_is_not_utf8() -> None:
    """Q2: a name that was read with surrogate escapes becomes the bytes that it was, and that name again."""
    name = b"\xff\xfen".decode(errors="surrogateescape")
    assert header(name, b"v") == b"\x06\xff\xfen\x02v"
    assert unpack(pack((b"", None, [(name, b"v")]))) == (b"", None, [(name, b"v")])


@pytest.mark.parametrize("record", [("text", b"", []), (b"", b"", [(b"name", b"")]), (b"", b"", None)])
def test_what_is_no_record_is_said_so(record: OutRecord) -> None:
    """C3: what does not fit Kafka's format is one record's fault, also beside a packed one."""
    beside: list[Record] = [pack((b"k", b"v", [])), record]
    for records in ([record], beside):
        with pytest.raises(Unencodable):
            encode(records, "none", SOME, 0, 0)
