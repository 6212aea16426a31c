"""The byte limits of rule S5, and which characters an identifier may not hold.

Owns: the numbers and the one check behind them. Must not know: definitions, events, Kafka.
Loads nothing but the standard library (rule N3), so that the client can use the same limits.
"""

from __future__ import annotations

import re
from typing import Final

KEY_BYTES: Final = 256
TENANT_BYTES: Final = 256
ID_BYTES: Final = 256
TYPE_BYTES: Final = 128
SUBJECT_BYTES: Final = 1024
SCHEMA_VERSION_BYTES: Final = 64
CONTENT_TYPE_BYTES: Final = 256
DATA_SCHEMA_BYTES: Final = 2048
# Not in S5, but nothing is unbounded.
SOURCE_BYTES: Final = 2048
OWNER_BYTES: Final = 256

# What CloudEvents 1.0 forbids in its String type: control characters, surrogates, noncharacters.
_FORBIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


def text_problem(text: str, limit: int) -> str | None:
    """Return what is wrong with `text` as an identifier or header of at most `limit` UTF-8 bytes.

    None where nothing is. The answer never repeats the text. Characters follow the String type of
    CloudEvents 1.0: no control characters, surrogates or noncharacters.
    """
    if text.isascii() and text.isprintable():
        return None if len(text) <= limit else _too_long(len(text), limit)
    if _FORBIDDEN.search(text):
        return "must not hold control characters, lone surrogates or Unicode noncharacters"
    size = len(text.encode())
    return None if size <= limit else _too_long(size, limit)


def _too_long(size: int, limit: int) -> str:
    return f"is {size} bytes long; the limit is {limit}"
