"""The Faust app with our consumer in it, and the settings that keep Faust from doing harm.

Owns: Faust's configuration. Must not know: catalog, delivery, agents.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable

import faust
from aiohttp.web import Application as WebApplication
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types.transports import TransportT
from faust.types.web import Web as WebT
from faust.web.drivers.aiohttp import Web
from mode import CrashingSupervisor, Service
from mode.types import ServiceT
from yarl import URL

from catalog import OwnTopics
from pipeline.kafka.closing import close_completely
from pipeline.kafka.connection import Connection, staging_cluster
from pipeline.kafka.reading import hand_out_as_parsed, read_any_header_name
from pipeline.kafka.security import tls_context
from pipeline.settings import Settings
from pipeline.transport.consumer import Consumer
from pipeline.transport.interpreter import suit_a_worker
from pipeline.transport.recovery import Tables
from pipeline.transport.tenant import Tenant
from pipeline.transport.watchdog import end_process_after

__all__ = ["App", "make_app"]

_FAUST_PREFIX = "STAGEPOST_FAUST_"
"""Variables that may override Faust's settings, for emergencies: STAGEPOST_FAUST_BROKER_SESSION_TIMEOUT=6."""
_BATCH_RECORDS = 500
"""Records in a batch at most, a few milliseconds of work, so that the loop stays free for everything else; while memory
is mostly free, up to twelve times as many of a backlog."""
_STOP_S = 10.0
"""What a stop may take beyond `DRAIN_TIMEOUT_S`: the last commit, closing producers, leaving the group."""


class _BareWeb(Web):
    """Faust's web server without the pages that Faust puts on it."""

    default_blueprints = debug_blueprints = optional_blueprints = production_blueprints = ()


class _Preparations(Service):
    """What has to be there before anything of Faust connects; may wait for a broker."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    async def on_start(self) -> None:
        """Wait for them."""
        if self._app.prepare is not None:
            await self._app.prepare()


class _PagesFirst(BootStrategy):
    """Faust's order, but the web server before everything: a worker that waits for a broker is alive, and says so."""

    def server(self) -> Iterable[ServiceT]:
        """What is started, in this order, and stopped in the reverse."""
        assert isinstance(self.app, App)
        pages = list(self.web_server())
        others = [service for service in super().server() if service not in pages]
        return [*pages, _Preparations(self.app), *others]


class App(faust.App):
    """A Faust app whose staging topic arrives in batches.

    `prepare` is awaited once the pages answer, and before anything of Faust connects; `tenant` is told what becomes of
    the partitions.
    """

    BootStrategy = _PagesFirst
    prepare: Callable[[], Awaitable[None]] | None = None
    connection: Connection
    batch_topics: frozenset[str] = frozenset()
    drain_timeout_s: float = 10.0
    tenant: Tenant = Tenant()
    serve: Callable[[WebApplication], None] | None = None
    """Puts our pages on the web server, before it starts."""

    @property
    def batches(self) -> Consumer:
        """The consumer, as what it is."""
        consumer = self.consumer
        assert isinstance(consumer, Consumer)
        return consumer

    async def on_start(self) -> None:
        """Before the pages, the consumer and the agents start."""
        await super().on_start()
        if self.in_worker:
            self.add_future(suit_a_worker())

    async def stop(self) -> None:
        """Stop everything. A worker process whose stop takes too long is ended with exit status 1."""
        if self.in_worker:
            end_process_after(self.drain_timeout_s + _STOP_S)
        await super().stop()

    def on_webserver_init(self, web: WebT) -> None:
        """Before the web server starts, on the event loop."""
        assert isinstance(web, Web)
        if self.serve is not None:
            self.serve(web.web_app)

    def _new_web(self) -> WebT:
        return _BareWeb(self)

    def _new_transport(self) -> TransportT:
        return self._transport_with_batches(self.conf.broker_consumer)

    def _new_producer_transport(self) -> TransportT:
        return self._transport_with_batches(self.conf.broker_producer)

    def _transport_with_batches(self, urls: list[URL]) -> TransportT:
        app = self

        class _Consumer(Consumer):
            connection = app.connection
            batch_topics = app.batch_topics
            drain_timeout_s = app.drain_timeout_s
            tenant = app.tenant

        class _Transport(driver.Transport):
            Consumer = _Consumer

        return _Transport(urls, self)


def _credentials(settings: Settings) -> faust.types.auth.CredentialsT | None:
    """What Faust's own consumer and producer say who they are with. Raises `SettingsError`."""
    security = settings.security
    context = tls_context(security) if security.tls else None
    if security.sasl:
        return faust.SASLCredentials(
            username=security.username,
            password=security.password.get_secret_value(),
            mechanism=security.mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def make_app(settings: Settings) -> App:
    """A Faust app for these settings, without agents or pages."""
    read_any_header_name()
    close_completely()
    own = OwnTopics(settings.namespace)
    hand_out_as_parsed(own.staging)
    url = [URL(f"aiokafka://{server}") for server in settings.brokers]
    app = App(
        own.group,
        broker=url,
        broker_credentials=_credentials(settings),
        # Faust lets environment variables override these arguments: APP_VERSION would stop the start. And
        # APP_ENV_PREFIX overrides the prefix.
        env_prefix=_FAUST_PREFIX,
        env={name: value for name, value in os.environ.items() if name.startswith(_FAUST_PREFIX)},
        origin="pipeline",
        autodiscover=False,
        broker_client_id=settings.client_id,
        broker_commit_interval=0.5,
        # A killed worker's partitions are given away after this; heartbeats have a thread of their own.
        broker_session_timeout=15.0,
        broker_rebalance_timeout=60.0,
        broker_request_timeout=40.0,
        broker_max_poll_interval=300.0,
        broker_max_poll_records=_BATCH_RECORDS,
        # Of each partition this much lies ready, compressed. A larger record comes too, alone (KIP-74).
        consumer_max_fetch_size=262_144,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_request_timeout=20.0,
        topic_allow_declare=settings.topics_autocreate,
        topic_replication_factor=max(1, settings.topic_replication),
        topic_partitions=settings.topic_partitions,
        topic_disable_leader=True,
        # Keeps the group protocol "faust" from the first release on, with or without tables.
        table_standby_replicas=1,
        TableManager=Tables,
        store="memory://",
        datadir=settings.effective_data_dir,
        stream_buffer_maxsize=4_096,
        web_bind=settings.web_bind,
        web_port=settings.web_port,
        web_tables_enabled=False,
        web_router_enabled=False,
        # An agent that breaks must stop the worker: its supervisor starts a new one, which replays.
        agent_supervisor=CrashingSupervisor,
    )
    app.connection = staging_cluster(settings)
    app.batch_topics = frozenset({own.staging})
    app.drain_timeout_s = settings.drain_timeout_s
    return app
