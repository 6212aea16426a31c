"""A stager whose topic is known, and what is on that topic."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from devtools.kafka import Brokers
from pipeline.client.kafka_stager import KafkaStager
from tests.client.client_events import settings
from tests.kafka_client import read_all


@asynccontextmanager
async def opened(kafka: Brokers, namespace: str, **changes: object) -> AsyncIterator[KafkaStager]:
    """A stager whose topic is known, closed at the end."""
    given = settings(brokers=kafka.bootstrap, namespace=namespace, **changes)
    async with KafkaStager(given) as stager:
        async with asyncio.timeout(30):
            while (await stager.health()).state != "healthy":  # each probe is bounded by STAGE_TIMEOUT_S
                pass
        yield stager


def staging(namespace: str) -> str:
    """The staging topic of a namespace."""
    return f"{namespace}.staging"


def ids(kafka: Brokers, namespace: str) -> Counter[str]:
    """How often each event is on the staging topic."""
    return Counter(
        record.header["stage-id"].decode() for record in read_all(kafka.bootstrap, staging(namespace))
    )
