"""64 callers whose events are fsynced in RocksDB: our outbox, and the least that any group commit has to do.

    python -m benchmarks.ways.outbox ours|bare FOLDER COUNT

`ours`: `stage()` with `outbox=always`, while no broker can be reached, so that nothing is shipped beside it.
`bare`: rows made beforehand, a future for each, one thread that writes what has come with one fsync. Prints JSON
as benchmarks.ways.emit does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import deque

from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from benchmarks.load import Event, catalog, event, staging_headers
from benchmarks.ways.emit import Meter, settings_of
from pipeline.client.stager import Stager
from pipeline.outbox.row import encode
from pipeline.packing import pack

_NOBODY = "127.0.0.1:9"


async def ours(folder: str, count: int) -> dict[str, float]:
    """Our stager and its outbox."""
    async with Stager(
        settings_of(_NOBODY, "bench", outbox="always", outbox_dir=folder, close_timeout_s=1)
    ) as stager:

        async def emit(one: Event) -> None:
            await stager.stage(one.definition, one.payload, tenant=one.tenant, id=one.id)

        return await Meter(0, count).run(emit)


class GroupCommit:
    """A thread that writes all rows that have come, with one fsync, and then answers their futures."""

    def __init__(self, folder: str) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self._database = Rdict(folder, options)
        self._sync = WriteOptions()
        self._sync.sync = True
        self._loop = asyncio.get_running_loop()
        self._rows: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._changed = threading.Condition()
        self._next = 0
        threading.Thread(target=self._run, daemon=True).start()

    def append(self, row: bytes) -> asyncio.Future[None]:
        """A future that is done once the row is fsynced."""
        done: asyncio.Future[None] = self._loop.create_future()
        with self._changed:
            self._rows.append((row, done))
            self._changed.notify()
        return done

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._rows:
                    self._changed.wait()
                rows, self._rows = self._rows, deque()
            batch = WriteBatch(raw_mode=True)
            for row, _ in rows:
                self._next += 1
                batch.put(self._next.to_bytes(8, "big"), row)
            self._database.write(batch, self._sync)
            self._loop.call_soon_threadsafe(self._answer, rows)

    @staticmethod
    def _answer(rows: deque[tuple[bytes, asyncio.Future[None]]]) -> None:
        for _, done in rows:
            done.set_result(None)


async def bare(folder: str, count: int) -> dict[str, float]:
    """The group commit alone."""
    fingerprint = catalog("bench").fingerprint
    rows = {
        one.number: encode(
            one.id, pack((one.tenant.encode(), one.payload, staging_headers(one, fingerprint)))
        )
        for one in (event(number) for number in range(count))
    }
    commit = GroupCommit(folder)

    async def emit(one: Event) -> None:
        await commit.append(rows[one.number])

    return await Meter(0, count).run(emit)


async def _main(way: str, folder: str, count: str) -> None:
    figures = await {"ours": ours, "bare": bare}[way](folder, int(count))
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
