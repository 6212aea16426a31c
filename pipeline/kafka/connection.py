"""How to reach a Kafka cluster: one frozen description, and clients made from it.

Owns: turning settings into aiokafka's arguments. Must not know: what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from pipeline.kafka import security
from pipeline.kafka.client import REQUEST_TIMEOUT_S, Client
from pipeline.setting_security import SecuritySet, SecuritySettings
from pipeline.settings import Settings

__all__ = ["REQUEST_TIMEOUT_S", "Connection", "staging_cluster", "target_cluster"]


_PLAIN = SecuritySettings().security
_TRUST_S = 5.0


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster and the identity we show it."""

    servers: tuple[str, ...]
    client_id: str
    security: SecuritySet = _PLAIN

    def client(self, *, metadata_age_s: float = 60.0, join_s: float = 0.0) -> Client:
        """A client that is not connected yet; `await client.bootstrap()` connects it.

        `metadata_age_s`: how old what is known of topics may get. `join_s`: how long to wait for the other
        members of a group. Raises `SettingsError` where a certificate cannot be used.
        """
        return Client(
            bootstrap_servers=list(self.servers),
            client_id=self.client_id,
            **security.arguments(self.security),
            security=self.security,
            request_timeout_ms=int(max(join_s, REQUEST_TIMEOUT_S) * 1000),
            retry_backoff_ms=100,
            metadata_max_age_ms=int(metadata_age_s * 1000),
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
