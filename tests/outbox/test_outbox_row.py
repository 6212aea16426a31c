"""The format of an outbox row: byte-exact, versioned, and never read wrongly."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.outbox.row import BadRow, Row, decode, encode, key_of
from pipeline.packing import pack
from pipeline.record import OutRecord

text = st.text(st.characters(codec="utf-8"), max_size=40)
records = st.tuples(
    st.binary(max_size=200),
    st.none() | st.binary(max_size=200),
    st.lists(st.tuples(text, st.binary(max_size=40)), max_size=12),
)


@given(text, records)
def test_round_trip(event_id: str, record: tuple[bytes, bytes | None, list[tuple[str, bytes]]]) -> None:
    """S3, S11: id, key, value and headers come back byte for byte; no value stays no value."""
    packed = pack(record)
    data = encode(event_id, packed)
    assert decode(data) == Row(event_id, *record, packed)
    assert key_of(data) == record[0]


@given(text, records, st.data())
def test_a_cut_row_is_refused(event_id: str, record: OutRecord, data: st.DataObject) -> None:
    """S11: a row that ends too early is refused, wherever it ends, and so is one with more behind it."""
    row = encode(event_id, pack(record))
    with pytest.raises(BadRow):
        decode(row[: data.draw(st.integers(0, len(row) - 1))])
    with pytest.raises(BadRow):
        decode(row + data.draw(st.binary(min_size=1, max_size=3)))


@given(st.binary(max_size=300))
@example(b"\x01\x02i\x02k\x01\x00")
@example(b"\x01\x02i\x02k\x01\x02\x02n\x01")
@example(b"\x01\x02i\x02k\x01\x02\x04\xc3\x28\x00")
@example(b"\x01\x01\x02k\x01\x00")
@example(b"\x01\x02i\x01\x01\x00")
@example(b"\x01\x02i\x03\x01\x00")
@example(b"\x01\x02i\x02k\x01\x01")
@example(b"\x01\x82\x00i\x02k\x01\x00")
@example(b"\x01\x02i\xff\xff\xff\xff\xff\xff\xff\xff\xff")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """S11: hostile bytes never raise anything but BadRow, and what is read is a row that we could have written:
    what lies in it reaches the broker as it is."""
    key_of(data)
    try:
        row = decode(data)
    except BadRow:
        return
    assert encode(row.id, pack((row.key, row.value, row.headers))) == data
    assert key_of(data) == row.key


@pytest.mark.parametrize(
    "record",
    [
        b"\x01\x01\x00",
        b"\x02k\x03\x00",
        b"\x02k\x01\x01",
        b"\x02k\x01\x02\x01\x00",
        b"\x02k\x01\x02\x02n\x01",
        b"\x02k\x01\x02\x04\xc3\x28\x00",
        b"\x82\x00k\x01\x00",
        b"\x02k\x01\x80\x80\x80\x80\x80\x80",
    ],
    ids=[
        "no key",
        "a length below none",
        "less than no headers",
        "a header without a name",
        "a header without a value",
        "a name that is not UTF-8",
        "a length longer than it needs to be",
        "a number without an end",
    ],
)
def test_what_is_no_staging_record_is_refused(record: bytes) -> None:
    """S11: bytes that are no record as a stager packs one never reach a batch."""
    assert decode(encode("id", b"\x02k\x01\x00")).key == b"k"
    with pytest.raises(BadRow, match="damaged"):
        decode(encode("id", record))


def test_a_newer_version_is_named() -> None:
    """A row of an unknown version says so: it was written by a newer program."""
    with pytest.raises(BadRow, match="version 2"):
        decode(b"\x02rest")
    assert key_of(b"\x02rest") is None
