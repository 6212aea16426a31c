"""What comes from a record, made harmless: text without control characters, payloads as text or hex. Pure.

Owns: how bytes nobody vouches for are shown. Must not know: HTML (templates escape), which page shows them.
"""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

__all__ = ["MOST_BYTES", "Shown", "harmless", "show_bytes", "show_text"]

MOST_BYTES = 65_536
"""Of a payload so much is shown; the rest is counted."""
_HEX_BYTES = 4_096
_ROW = 16
# Control characters (terminal escapes), what turns the direction of text or has no width, lone surrogates.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


class Shown(NamedTuple):
    """Bytes as they are shown. `size`: how many there are; `left_out`: how many of them are not shown."""

    kind: Literal["none", "json", "text", "hex", "hidden"]
    text: str
    size: int
    left_out: int


def harmless(text: str) -> str:
    r"""The text with every character that is not plainly visible written out, such as `\x1b` or `\u202e`.

    Tabs and line feeds stay.
    """
    return _HARMFUL.sub(lambda found: _written_out(found[0]), text)


def show_text(raw: bytes, most: int = MOST_BYTES) -> str:
    r"""Bytes as one harmless text; what is not UTF-8 is written as `\xff`, what is too long is cut."""
    text = harmless(raw[:most].decode(errors="backslashreplace"))
    return text if len(raw) <= most else f"{text}… ({len(raw):,} bytes)"


def show_bytes(raw: bytes | None, *, may_show: bool = True) -> Shown:
    """A payload for people: JSON indented, other UTF-8 text as it is, anything else as a hex dump; cut."""
    if raw is None:
        return Shown("none", "", 0, 0)
    if not may_show:
        return Shown("hidden", "", len(raw), len(raw))
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _hex(raw)
    if len(raw) > MOST_BYTES:
        cut = raw[:MOST_BYTES].decode(errors="ignore")
        return Shown("text", harmless(cut), len(raw), len(raw) - len(cut.encode()))
    try:
        return Shown(
            "json", harmless(json.dumps(json.loads(text), indent=2, ensure_ascii=False)), len(raw), 0
        )
    except (ValueError, RecursionError):
        pass
    if sum(map(len, _HARMFUL.findall(text))) * 10 > len(text):
        return _hex(raw)
    return Shown("text", harmless(text), len(raw), 0)


def _hex(raw: bytes) -> Shown:
    shown = raw[:_HEX_BYTES]
    rows = (shown[at : at + _ROW] for at in range(0, len(shown), _ROW))
    lines = (
        f"{number * _ROW:08x}  {row.hex(' '):<{_ROW * 3 - 1}}  {''.join(map(_ascii, row))}"
        for number, row in enumerate(rows)
    )
    return Shown("hex", "\n".join(lines), len(raw), len(raw) - len(shown))


def _ascii(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else "."


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
