"""Looking at dead letters without a worker: the index is read from Kafka into a folder that is deleted again.

Owns: answering as a worker's API would. Must not know: how an answer is printed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError
from pydantic_core import to_jsonable_python

from catalog import OwnTopics
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errors import StagepostError
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.topics import missing
from pipeline.redrive.index import Index
from pipeline.redrive.reading import Reading
from pipeline.redrive.selection import Selection
from pipeline.settings import Settings

__all__ = ["Direct", "NotReadable", "reading"]

_SAY_S = 1.0
_PAYLOAD_CHARS = 65_536


class NotReadable(StagepostError):
    """The index of dead letters cannot be read from Kafka."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"cannot read dead letters from STREAMING_BROKERS: {reason}")


class Direct:
    """Answers from an index that is complete."""

    def __init__(self, found: Reading) -> None:
        self._found = found

    async def topics(self) -> Any:
        """All topics with dead letters."""
        overview = await self._found.overview()
        return {
            "open": overview.open,
            "behind": overview.behind,
            "topics": to_jsonable_python(overview.topics),
        }

    async def topic(self, selection: Selection, cursor: str | None, limit: int) -> Any:
        """Failures by kind, and a page of letters."""
        page = await self._found.letters(selection, cursor, limit)
        groups = await self._found.groups(selection)
        return {
            "topic": selection.topic,
            "conditions": selection.as_text(),
            "count": groups.count,
            "kinds": groups.kinds,
            "groups": to_jsonable_python(groups.largest),
            "letters": to_jsonable_python(page.letters),
            "cursor": page.cursor,
        }

    async def preview(self, selection: Selection) -> Any:
        """What a job would meet."""
        found = to_jsonable_python(await self._found.preview(selection))
        return {**found, "conditions": selection.as_text()}

    async def record(self, topic: str, partition: int, offset: int) -> Any:
        """One dead letter in full."""
        found = await self._found.record(topic, partition, offset)
        value = found.value
        text = (value or b"")[:_PAYLOAD_CHARS].decode(errors="backslashreplace")
        size = len(value or b"")
        return {
            "letter": to_jsonable_python(found.letter),
            "message": found.message,
            "key": None if found.key is None else found.key.decode(errors="backslashreplace"),
            "headers": [
                {
                    "name": name.encode(errors="surrogateescape").decode(errors="backslashreplace"),
                    "value": (content or b"").decode(errors="backslashreplace"),
                    "meaning": "",
                }
                for name, content in found.headers
            ],
            "payload": ("none" if value is None else "text", text, size, max(0, size - _PAYLOAD_CHARS)),
            "payload_omitted": found.payload_omitted,
        }


@asynccontextmanager
async def reading(settings: Settings, progress: Callable[[str], None]) -> AsyncIterator[Direct]:
    """Read the whole index; takes minutes where there are millions. Raises `NotReadable`."""
    connection, topics = staging_cluster(settings), OwnTopics(settings.namespace)
    try:
        absent = await missing(connection, (topics.dlq_index, topics.dlq_state))
    except (KafkaError, OSError) as error:
        raise NotReadable(str(error) or type(error).__name__) from error
    if absent:
        raise NotReadable(f"{', '.join(absent)}: missing; no worker has run for this namespace yet")
    with tempfile.TemporaryDirectory(prefix="stagepost-dlq-") as folder:
        index = Index(connection, topics, Path(folder))
        found = Reading(index, connection, SYSTEM_CLOCK, settings.max_redrives)
        await found.open()
        try:
            await _whole(found, progress)
            yield Direct(found)
        except KafkaError as error:
            raise NotReadable(str(error) or type(error).__name__) from error
        finally:
            await found.close()


async def _whole(found: Reading, progress: Callable[[str], None]) -> None:
    task = asyncio.create_task(found.caught_up())
    while not (await asyncio.wait((task,), timeout=_SAY_S))[0]:
        progress(f"reading the index of dead letters, {found.behind:,} records to go")
    await task
