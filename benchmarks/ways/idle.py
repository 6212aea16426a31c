"""A service that staged one event and has nothing to do: `python -m benchmarks.ways.idle SERVERS NAMESPACE`."""

from __future__ import annotations

import asyncio
import sys
import tempfile

from benchmarks.load import event
from benchmarks.ways.emit import settings_of
from pipeline.client.stager import Stager


async def _main(servers: str, namespace: str) -> None:
    folder = tempfile.mkdtemp(prefix="stagepost-bench-")
    async with Stager(settings_of(servers, namespace, stage_timeout_s=20, outbox_dir=folder)) as stager:
        one = event(0)
        await stager.stage(one.definition, one.payload, tenant=one.tenant)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
