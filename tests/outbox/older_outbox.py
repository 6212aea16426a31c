"""An outbox as a release left it on disk: `tests/outbox/older/` has one of each.

    python -m tests.outbox.older_outbox tests/outbox/older/VERSION.tar.gz    # with each release, once

Owns: which events lie in it, and making it with the program at hand. Must not know: who reads it.
"""

from __future__ import annotations

import asyncio
import sys
import tarfile
import tempfile
from pathlib import Path

from catalog import Catalog, EventDefinition
from pipeline.client.kafka_stager import KafkaStager
from pipeline.settings import Settings

__all__ = ["EVENTS", "FOLDER", "definitions"]

FOLDER = Path(__file__).with_name("older")
EVENTS = [
    # definition, tenant, subject, id, payload
    *(("thing.done", "acme", "", f"acme-{number}", {"n": number}) for number in range(5)),
    *(
        ("thing.done", "Zoë & Söhne", "42", f"zoe-{number}", {"text": f"\u2028🎉{number}"})
        for number in range(5)
    ),
    *(("device.seen", "", f"device-{number % 2}", f"seen-{number}", {"n": number}) for number in range(6)),
]
"""Never changed: they lie in every archive."""


def definitions(namespace: str) -> Catalog:
    """What they are events of."""
    made = [
        EventDefinition(key="thing.done", resource_type="thing", event_type="done"),
        EventDefinition(key="device.seen", resource_type="device", event_type="seen", system=True),
    ]
    return Catalog(made, namespace=namespace)


async def leave(folder: Path) -> None:
    """Stage them all where no broker answers."""
    settings = Settings(
        brokers=("127.0.0.1:9",),
        catalog="unused",
        cloudevents_source="//older/service",
        namespace="unused",
        outbox_dir=str(folder),
        stage_timeout_s=1,
    )
    async with KafkaStager(settings, catalog=definitions("unused")) as stager:
        for key, tenant, subject, event_id, payload in EVENTS:
            staged = await stager.stage(
                key, payload, tenant=tenant, subject=subject, id=event_id, headers=[("x-note", "kept")]
            )
            assert staged.via == "outbox"


def main(archive: str) -> None:
    """Make it."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w:gz") as tar:
        asyncio.run(leave(Path(folder)))
        tar.add(folder, ".", filter=_kept)


def _kept(file: tarfile.TarInfo) -> tarfile.TarInfo | None:
    file.uid = file.gid = file.mtime = 0
    file.uname = file.gname = ""
    return None if file.name.endswith("/LOG") else file  # RocksDB's, for people


if __name__ == "__main__":
    main(*sys.argv[1:])
