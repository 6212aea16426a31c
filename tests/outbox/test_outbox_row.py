"""The format of an outbox row: byte-exact, versioned, and never read wrongly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outbox.row import BadRow, Row, decode, encode

text = st.text(max_size=40).filter(lambda value: value.encode(errors="ignore").decode() == value)
rows = st.builds(
    Row,
    id=text,
    key=st.binary(max_size=40),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(text, st.binary(max_size=40)), max_size=12),
)


@given(rows)
def test_round_trip(row: Row) -> None:
    """S3, S11: id, key, value and headers come back byte for byte; no value stays no value."""
    assert decode(encode(row)) == row


@given(rows, st.data())
def test_a_damaged_row_is_refused_or_another_row(row: Row, data: st.DataObject) -> None:
    """A cut row is refused; nothing but BadRow ever escapes."""
    encoded = encode(row)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(BadRow):
        decode(encoded[:cut])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Hostile bytes never raise anything but BadRow."""
    try:
        row = decode(data)
    except BadRow:
        return
    assert encode(row) == data


def test_a_newer_version_is_named() -> None:
    """A row of an unknown version says so: it was written by a newer program."""
    with pytest.raises(BadRow, match="version 2"):
        decode(b"\x02rest")
