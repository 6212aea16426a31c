"""A broker that does not answer keeps nobody from the others, and is not asked without end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata

from devtools.kafka import Brokers
from devtools.kafka.door import Door
from pipeline.kafka import client as client_module
from pipeline.kafka.client import Client
from pipeline.kafka.connection import Connection
from pipeline.kafka.session import Session

pytestmark = pytest.mark.kafka

HUNG = 99
"""The node id of a broker whose network may stall."""
JOIN_S = 60.0
"""As long as a consumer waits for other members: no other request may take so long."""
QUESTION = MetadataRequest([])


@pytest.fixture
def door(kafka: Brokers) -> Iterator[Door]:
    """The way to that broker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    way = Door("hung", {port: int(kafka.bootstrap.rpartition(":")[2])})
    yield way
    way.close()


@asynccontextmanager
async def client_of(kafka: Brokers, door: Door) -> AsyncIterator[tuple[Client, int]]:
    """A consumer's client that knows of two brokers, and the node id of the one that is well."""
    client = Connection((kafka.bootstrap,), "client-test").client(join_s=JOIN_S)
    await client.bootstrap()
    try:
        (well,) = (broker.nodeId for broker in client.cluster.brokers())
        host, port = door.bootstrap.split(":")
        client.cluster._brokers[HUNG] = BrokerMetadata(HUNG, host, int(port), None)
        yield client, well
    finally:
        await client.close()


async def test_connecting_to_a_hung_broker_holds_nobody_up(kafka: Brokers, door: Door) -> None:
    """C3: while a connection to a hung broker is waited for, another broker is connected to and answers."""
    door.stall()
    async with client_of(kafka, door) as (client, well):
        waiting = asyncio.create_task(client.send(HUNG, QUESTION))
        await asyncio.sleep(0)  # it begins to connect
        async with asyncio.timeout(5):
            assert (await client.send(well, QUESTION)).brokers
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_hung_broker_is_given_up(kafka: Brokers, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: neither connecting nor a request takes longer than REQUEST_TIMEOUT_S, however long joining a group may
    take; the connection without an answer is closed, and what is known of brokers is got from another."""
    monkeypatch.setattr(client_module, "REQUEST_TIMEOUT_S", 0.5)
    async with client_of(kafka, door) as (client, _), asyncio.timeout(20):
        await client.send(HUNG, QUESTION)
        connection = client._conns[HUNG, ConnectionGroup.DEFAULT]
        door.stall()
        with pytest.raises(RequestTimedOutError):
            await client.send(HUNG, QUESTION)
        assert not connection.connected()
        with pytest.raises(NodeNotReadyError):
            await client.send(HUNG, QUESTION)
        assert await client.force_metadata_update()


async def test_what_any_broker_answers_is_asked_of_one_that_lives(
    kafka: Brokers, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3: one broker of several being down keeps no worker from starting: which topics there are is asked of another.
    aiokafka asks any, and fails where it is that one."""
    door.close()
    async with client_of(kafka, door) as (client, well):
        monkeypatch.setattr(random, "sample", lambda nodes, _: sorted(nodes, reverse=True))
        await client.reach()
        assert {client.get_random_node() for _ in range(20)} == {well}
        del client.cluster._brokers[well]
        client._conns.pop((well, ConnectionGroup.DEFAULT)).close()
        with pytest.raises(KafkaConnectionError, match=str(HUNG)):
            await client.reach()


async def test_an_address_that_is_none_keeps_nobody_from_the_others(kafka: Brokers, door: Door) -> None:
    """C3: a broker that gives an address which cannot be looked up is as one that is down. Python says `UnicodeError`
    to it, which ended the task that asks for metadata: a client never learnt of a new leader again."""
    async with client_of(kafka, door) as (client, well), asyncio.timeout(20):
        client.cluster._brokers[HUNG] = BrokerMetadata(HUNG, "no..host", 9092, None)
        for _ in range(10):
            assert await client.force_metadata_update()
            client.cluster._brokers[HUNG] = BrokerMetadata(HUNG, "no..host", 9092, None)
        with pytest.raises(NodeNotReadyError):
            await client.send(HUNG, QUESTION)
        assert (await client.send(well, QUESTION)).brokers


async def test_what_keeps_a_client_from_being_made_is_tried_again(
    kafka: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7, C3: a client certificate is read from a file, and a full disk has no room for that. Who connects goes on
    trying, as where no broker answers."""
    failures = iter([OSError("no room for the certificate")] * 2)
    make = Connection.client

    def fail_at_first(connection: Connection) -> Client:
        for failure in failures:
            raise failure
        return make(connection)

    monkeypatch.setattr(Connection, "client", fail_at_first)
    session = Session(Connection((kafka.bootstrap,), "client-test"), lambda: None)
    async with asyncio.timeout(10):
        await session.connected()
    await session.close()


async def test_a_fetch_that_failed_is_not_asked_again_at_once(kafka: Brokers, door: Door) -> None:
    """C3: a fetch from a broker that does not lead the partition returns after a pause: its caller asks again without
    one, for as long as the new leader is not known."""
    fetch = FetchRequest(0, 0, 1_000, 0, [("nobody.has.this.topic", [(0, 0, 1_000)])])
    async with client_of(kafka, door) as (client, well):
        await client.send(well, QUESTION)
        began = asyncio.get_running_loop().time()
        answer = await client.send(well, fetch)
        assert answer.topics[0][1][0][1] != 0
        assert asyncio.get_running_loop().time() - began >= client._retry_backoff


async def test_who_is_cancelled_while_a_client_closes_is_told(kafka: Brokers) -> None:
    """A worker that stops cancels what it has begun, once, also where that is closing a client just then: it must end,
    and the client's connections with it. aiokafka drops the cancellation, and the worker waits until it is killed."""
    client = Connection((kafka.bootstrap,), "client-test").client()
    await client.bootstrap()
    await client.reach()
    connections = list(client._conns.values())
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)  # now it waits for the task that keeps the metadata young
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert connections
    assert not any(connection.connected() for connection in connections)


def test_a_connection_that_broke_in_this_turn_is_broken_for_all(kafka: Brokers, door: Door) -> None:
    """C3: several requests written in the turn in which a connection breaks all fail as `KafkaConnectionError`, and
    metadata comes again. uvloop says `RuntimeError` to all but the first, which ended aiokafka's own tasks: a worker
    whose broker was killed did not find it again."""

    async def write_on() -> None:
        async with client_of(kafka, door) as (client, well), asyncio.timeout(20):
            await client.send(well, QUESTION)
            connection = client._conns[well, ConnectionGroup.DEFAULT]
            descriptor = connection._writer.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(descriptor)) as same:
                same.shutdown(socket.SHUT_RDWR)
            first = asyncio.ensure_future(connection.send(QUESTION))
            assert not connection.connected()
            with pytest.raises(KafkaConnectionError):
                connection.send(QUESTION)
            with pytest.raises(KafkaConnectionError):
                connection._send_sasl_token(b"")
            with pytest.raises(KafkaConnectionError):
                await first
            assert await client.force_metadata_update()

    uvloop.run(write_on())
