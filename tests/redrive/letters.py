"""Dead letters for tests of the index: index records as a worker writes them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import to_json

from pipeline.redrive.entry import state_entry
from pipeline.redrive.model import Coordinates
from pipeline.redrive.selection import LetterState

TOPIC = "shop.order.created.dlq"


def entry(offset: int, /, **changes: object) -> bytes:
    """The value of an index record; `error_class` stands for the field `class`."""
    failed_at = changes.get("failed_at", 1_767_323_000.0 + offset)
    fields: dict[str, object] = {
        "topic": TOPIC,
        "partition": 0,
        "offset": offset,
        "class": "validation_error",
        "message": "id is empty",
        "fingerprint": "f" * 16,
        "definition": "order.created",
        "schema_version": "1.0.0",
        "disposition": "poison",
        "tenant": "acme",
        "id": f"id-{offset}",
        "source": "/shop",
        "first_failure_at": failed_at,
        "failed_at": failed_at,
        "redrives": 0,
        "size": 512,
        "dialect": "stagepost",
        "source_topic": "shop.order.created",
        "source_partition": 0,
        "source_offset": offset,
    }
    if "error_class" in changes:
        changes["class"] = changes.pop("error_class")
    return to_json({**fields, **changes})


def ending(
    offset: int, state: LetterState = LetterState.REDRIVEN, *, partition: int = 0, topic: str = TOPIC
) -> bytes:
    """The value of a state record."""
    place = Coordinates(topic, partition, offset)
    _, value, _ = state_entry(place, state, at=1_767_323_999.0, by="ann", job="j-1")
    assert value is not None
    return value


def offsets(letters: Iterable[object]) -> list[int]:
    """The offsets of letters."""
    return [letter.offset for letter in letters]  # type: ignore[attr-defined]
