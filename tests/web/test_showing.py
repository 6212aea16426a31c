"""What comes from a record is shown harmlessly, whatever it is (O1)."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pipeline.web.rendering import duration, environment, number, size
from pipeline.web.showing import MOST_BYTES, harmless, show_bytes, show_text


@given(st.text())
def test_harmless_text_has_nothing_that_acts(text: str) -> None:
    """O1: no control or format character is left, and nothing that is visible is lost."""
    shown = harmless(text)
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\t\n"]
    assert harmless(shown) == shown
    shown.encode()


def test_terminal_escapes_and_turned_text_are_written_out() -> None:
    """O1: escape sequences, directions of writing and invisible characters stand there as what they are."""
    assert (
        harmless("\x1b[31mred\x07 a\u202eb \u200bc\ud800\r\n")
        == r"\x1b[31mred\x07 a\u202eb \u200bc\ud800\x0d" + "\n"
    )


@given(st.binary(max_size=2_000))
def test_any_bytes_can_be_shown(raw: bytes) -> None:
    """O1: whatever the payload is, it is shown as text that can be encoded, and its size is told."""
    shown = show_bytes(raw)
    assert shown.size == len(raw)
    assert harmless(shown.text) == shown.text
    show_text(raw).encode()


def test_payloads_are_shown_as_what_they_are() -> None:
    """O1: JSON is indented, text is text, anything else a hex dump; no data is told from empty data."""
    assert show_bytes(b'{"a":"\\u001b<script>"}').text == '{\n  "a": "\\u001b<script>"\n}'
    assert show_bytes(b"plain").kind == "text"
    assert show_bytes(b"\xff\x00A").text == "00000000  ff 00 41                                         ..A"
    assert show_bytes(None).kind == "none"
    assert show_bytes(b"").kind == "text"
    assert show_bytes(b"\x00" * 100).kind == "hex"
    assert show_bytes(b"[" * 50_000).kind == "text"


def test_long_payloads_are_cut_and_counted() -> None:
    """O1: a line of a megabyte is cut on a character, and the page says how much it left out."""
    raw = "é".encode() * 500_000
    shown = show_bytes(raw)
    assert len(shown.text.encode()) == MOST_BYTES
    assert shown.left_out == len(raw) - MOST_BYTES
    assert show_bytes(b"\xff" * 1_000_000).left_out == 1_000_000 - 4_096
    assert show_text(b"x" * 300, 10) == "xxxxxxxxxx… (300 bytes)"


def test_payloads_can_be_hidden() -> None:
    """O3: where payloads must not be shown, only their size is."""
    assert show_bytes(b"secret", may_show=False)[:2] == ("hidden", "")


def test_a_template_cannot_forget_to_escape() -> None:
    """O1: everything a template prints is made harmless and escaped, in an attribute too."""
    made = environment().from_string('<a title="{{ x }}">{{ x }}</a>{{ none }}')
    text = made.render(x='"><script>alert(1)</script>\x1b[2J', none=None)
    assert "<script" not in text
    assert "\x1b" not in text
    assert text.count("&lt;script&gt;") == 2


def test_a_field_keeps_what_it_was_given() -> None:
    """O1: the value of a field is escaped and no more: written out, it would come back as another one."""
    template = "{% from 'macros.html' import conditions_fields %}{{ conditions_fields(given) }}"
    text = environment().from_string(template).render(given={"tenant": 'a‌b"><script>'})
    assert text == '<input type="hidden" name="tenant" value="a‌b&#34;&gt;&lt;script&gt;">'


def test_numbers_are_for_people() -> None:
    """O1: numbers, durations and sizes are readable, and what is not known is no zero."""
    assert [number(x) for x in (None, 0, 1234567, 12.34)] == ["–", "0", "1,234,567", "12.3"]
    assert [duration(x) for x in (None, 0.0123, 59, 3_720, 200_000)] == [
        "–",
        "12.3 ms",
        "59 s",
        "1 h 2 min",
        "2 d 7 h",
    ]
    assert [size(x) for x in (None, 0, 1023, 1024, 5 * 1024**4)] == [
        "–",
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 TiB",
    ]
