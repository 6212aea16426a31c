"""How to reach a Kafka cluster: one frozen description, and clients made from it.

Owns: turning settings into aiokafka's arguments. Must not know: what is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.kafka.client import Client
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

    def client(self) -> Client:
        """A client that is not connected yet; `await client.bootstrap()` connects it."""
        return Client(
            **self.arguments(),
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
        )


def staging_cluster(settings: Settings) -> Connection:
    """The cluster of staging and all own topics."""
    return Connection(settings.brokers, settings.client_id)


def target_cluster(settings: Settings) -> Connection:
    """The cluster of the target topics."""
    return Connection(settings.effective_target_brokers, settings.client_id)
