"""How to reach a Kafka cluster: one frozen description, and clients made from it.

Owns: turning settings into aiokafka's arguments. Must not know: what is sent.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient

from pipeline.settings import Settings

__all__ = ["REQUEST_TIMEOUT_S", "Connection", "staging_cluster", "target_cluster"]

REQUEST_TIMEOUT_S = 10.0
"""A request without an answer for this long is lost: its connection is closed, the request repeated on another."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster and the identity we show it."""

    servers: tuple[str, ...]
    client_id: str

    def arguments(self) -> Mapping[str, object]:
        """Keyword arguments that aiokafka's client, admin client and consumers share."""
        return {"bootstrap_servers": list(self.servers), "client_id": self.client_id}

    def client(self) -> AIOKafkaClient:
        """A client that is not connected yet; `await client.bootstrap()` connects it."""
        return _Client(
            **self.arguments(),
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
        )


class _Client(AIOKafkaClient):  # type: ignore[misc]
    """Leaves no connection open when it is cancelled while it bootstraps.

    aiokafka 0.14 keeps the connection it asks by in a local variable, where nobody else can close it.
    """

    async def bootstrap(self) -> None:
        """Connect to the first server that answers. Raises `KafkaConnectionError` where none does."""
        try:
            await super().bootstrap()
        except asyncio.CancelledError as cancelled:
            for frame, _ in traceback.walk_tb(cancelled.__traceback__):
                if connection := frame.f_locals.get("bootstrap_conn"):
                    await connection.close()
            raise


def staging_cluster(settings: Settings) -> Connection:
    """The cluster of staging and all own topics."""
    return Connection(settings.brokers, settings.client_id)


def target_cluster(settings: Settings) -> Connection:
    """The cluster of the target topics."""
    return Connection(settings.effective_target_brokers, settings.client_id)
