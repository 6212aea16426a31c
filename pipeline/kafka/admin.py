"""A cluster's admin client, and what a consumer group has committed.

Owns: connecting it so that nothing is left open. Must not know: which topics or groups there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)

from pipeline.kafka.connection import REQUEST_TIMEOUT_S, Connection

__all__ = ["admin_client", "committed"]

_NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
_ATTEMPTS = 50
_PAUSE_S = 0.2


@asynccontextmanager
async def admin_client(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client. Raises a `KafkaError` where no broker answers."""
    admin = AIOKafkaAdminClient(request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
    admin._client = client = connection.client()  # noqa: SLF001 -- its own would leave a connection open when cancelled
    try:
        await admin.start()
        await client.reach()
        yield admin
    finally:
        await admin.close()


async def committed(connection: Connection, group: str, topic: str) -> dict[int, int]:
    """The offset that a consumer group has committed, by partition of the topic; partitions without one are left out.

    Waits some seconds for a coordinator, which a fresh cluster has to choose first. Raises a `KafkaError`
    where no broker answers, or one refuses.
    """
    async with admin_client(connection) as admin:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                offsets = await admin.list_consumer_group_offsets(group)
                break
            except _NOT_YET:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S)
    return {
        place.partition: at.offset for place, at in offsets.items() if place.topic == topic and at.offset >= 0
    }
