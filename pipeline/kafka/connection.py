"""How to reach a Kafka cluster: one frozen description, and clients made from it.

Owns: turning settings into aiokafka's arguments. Must not know: what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from pipeline.kafka import security
from pipeline.kafka.client import Client
from pipeline.setting_security import SecuritySet, SecuritySettings
from pipeline.settings import Settings

__all__ = ["REQUEST_TIMEOUT_S", "Connection", "staging_cluster", "target_cluster"]

REQUEST_TIMEOUT_S = 10.0
"""A request without an answer for this long is lost: its connection is closed, the request repeated on another."""


_PLAIN = SecuritySettings().security
_TRUST_S = 5.0


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster and the identity we show it."""

    servers: tuple[str, ...]
    client_id: str
    security: SecuritySet = _PLAIN

    def arguments(self) -> Mapping[str, object]:
        """Keyword arguments that aiokafka's client, admin client and consumers share. They hold secrets.

        Raises `SettingsError` where a certificate cannot be used.
        """
        return {
            "bootstrap_servers": list(self.servers),
            "client_id": self.client_id,
            **security.arguments(self.security),
        }

    def client(self) -> Client:
        """A client that is not connected yet; `await client.bootstrap()` connects it."""
        return Client(
            **self.arguments(),
            security=self.security,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
        )

    async def check(self) -> None:
        """Connect once. Raises `KafkaConnectionError`, or `SecurityRefused` where the settings are at fault."""
        client = self.client()
        try:
            await client.bootstrap()
        finally:
            await client.close()

    async def check_trust(self) -> None:
        """Raise `SecurityRefused` where the settings are at fault; a cluster that is down says nothing. Waits 5 s."""
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(_TRUST_S):
                await self.check()


def staging_cluster(settings: Settings) -> Connection:
    """The cluster of staging and all own topics."""
    return Connection(settings.brokers, settings.client_id, settings.security)


def target_cluster(settings: Settings) -> Connection:
    """The cluster of the target topics."""
    return Connection(settings.effective_target_brokers, settings.client_id, settings.target_security)
