"""The job as everybody writes it in Faust: `async for event`, `await topic.send()`. Deliveries are not awaited.

Runs until it is ended: `python -m benchmarks.ways.naive_faust SERVERS STAGING TARGETS-PREFIX`
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from typing import Any

import faust

from catalog.examples.flights import DEFINITIONS


def make_app(servers: str, staging: str, prefix: str) -> faust.App:
    """The app and its one agent."""
    app = faust.App(
        f"{prefix}-{uuid.uuid4()}",
        broker=f"kafka://{servers}",
        autodiscover=False,
        datadir=tempfile.mkdtemp(prefix="bench-"),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_compression_type="lz4",
        producer_linger=0.005,
        producer_max_batch_size=1_048_576,
    )
    source = app.topic(
        staging, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    routes = {
        one.key.encode(): (
            app.topic(
                f"{prefix}.{one.key}",
                key_type=bytes,
                value_type=bytes,
                key_serializer="raw",
                value_serializer="raw",
            ),
            one,
        )
        for one in DEFINITIONS
    }

    @app.agent(source)
    async def route(stream: Any) -> None:
        async for event in stream.events():
            headers = event.headers
            topic, one = routes[headers["stage-definition"]]
            tenant = headers["stage-tenant"]
            await topic.send(
                key=tenant,
                value=event.value,
                headers=[
                    ("content-type", b"application/json"),
                    ("ce_specversion", b"1.0"),
                    ("ce_id", headers["stage-id"]),
                    ("ce_source", headers["stage-source"]),
                    ("ce_type", f"bench.{one.key}".encode()),
                    ("ce_time", headers["stage-time"]),
                    ("ce_partitionkey", tenant),
                    ("ce_tenantid", tenant),
                    ("ce_schemaversion", one.schema_version.encode()),
                    ("ce_resourcetype", one.resource_type.encode()),
                    ("ce_eventtype", one.event_type.encode()),
                ],
            )

    return app


if __name__ == "__main__":
    app = make_app(*sys.argv[1:])
    sys.argv[1:] = ["worker", "-l", "info"]
    app.main()
