"""A way into a cluster that can be shut: TCP proxies in front of its brokers, all of them one network to its users.

Owns: forwarding bytes, and what a sick network does with them. Must not know: brokers, the Kafka protocol.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any

_CHUNK = 65_536
_START_S = 10.0


class Door:
    """Proxies on 127.0.0.1, from the ports that `ports` has as keys to those it has as values; open until told
    otherwise. `close` ends it. Its methods block until done, and may be called from any thread."""

    def __init__(self, name: str, ports: Mapping[int, int]) -> None:
        self.name = name
        self._ports = dict(ports)
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._servers: list[asyncio.Server] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"door {name}", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_S)
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """`host:port` of every proxy, separated by commas."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        self._do(self._cut)

    def stall(self) -> None:
        """Let nothing through, and keep connections open: nobody notices but by waiting."""
        self._do(self._passing.clear)

    def heal(self) -> None:
        """Let everything through again, also what was held up."""
        self._do(self._heal)

    def close(self) -> None:
        """Stop listening and break all connections. Can be repeated."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, change: Callable[[], None]) -> None:
        async def do() -> None:
            change()

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(_START_S)

    def _cut(self) -> None:
        self._refusing = True
        _abort(self._writers)

    def _heal(self) -> None:
        self._refusing = False
        self._passing.set()

    async def _listen(self) -> None:
        for port, to in self._ports.items():
            self._servers.append(await asyncio.start_server(self._serve(to), "127.0.0.1", port))

    def _serve(self, to: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._keep(self._connect(reader, writer, to))

        return accepted

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: int) -> None:
        self._writers.add(writer)
        if self._refusing:
            _abort([writer])
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            _abort([writer])
            return
        self._writers.add(inner_writer)
        self._keep(self._pump(reader, inner_writer, writer))
        self._keep(self._pump(inner_reader, writer, inner_writer))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(_CHUNK):
                    await self._passing.wait()
                    sink.write(data)
                    await sink.drain()
        finally:
            _abort([sink, other])
            self._writers -= {sink, other}

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        _abort(self._writers)
        pumps = list(self._pumps)
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def _abort(writers: Iterable[asyncio.StreamWriter]) -> None:
    for writer in list(writers):
        writer.transport.abort()
