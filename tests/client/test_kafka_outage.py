"""The stager while its broker is away, frozen or killed: it decides in time and tells the truth (S7, S9)."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from devtools.kafka import Cluster
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import ErrorClass, StagingRefused, StagingUnavailable, is_caller_error
from tests.broker_fixtures import skipping
from tests.client.broker_rules import AUTHORISE, delete_topic, no_rules, rule
from tests.client.client_events import settings
from tests.kafka_client import create_topic, read_all

LATE_S = 0.8
"""How much later than a limit an answer may come on a busy machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A broker that these tests freeze, kill and start again; each leaves it running."""
    with skipping(), Cluster(extra_config=AUTHORISE) as started:
        yield started


@pytest.fixture
async def stager(cluster: Cluster, namespace: str) -> AsyncIterator[KafkaStager]:
    """A stager that has staged one event, `first`."""
    async with open_stager(cluster, namespace) as started:
        await staged_again(started, "first")
        yield started


def open_stager(cluster: Cluster, namespace: str, **changes: object) -> KafkaStager:
    """A stager on that broker whose limits a test can wait for."""
    fields: dict[str, object] = {"stage_timeout_s": 0.5, "close_timeout_s": 1, "topic_partitions": 1}
    given = settings(brokers=cluster.bootstrap, namespace=namespace, **{**fields, **changes})
    return KafkaStager(given)


def ids(cluster: Cluster, namespace: str) -> Counter[str]:
    """How often each event is on the staging topic, but for `first`."""
    records = read_all(cluster.bootstrap, f"{namespace}.staging")
    found = Counter(record.header["stage-id"].decode() for record in records)
    del found["first"]
    return found


async def failure(stager: KafkaStager, name: str, *, thread: bool = False) -> StagingUnavailable:
    """The error of an event that cannot be staged; it came in time and is no caller error."""
    began = time.monotonic()
    with pytest.raises(StagingUnavailable) as caught:
        await (_in_thread if thread else _in_task)(stager, name)
    limit = stager._settings.stage_timeout_s
    assert limit - 0.05 < time.monotonic() - began < limit + LATE_S
    assert caught.value.id == name
    assert f"id={name!r}" in str(caught.value)
    assert not is_caller_error(caught.value)
    return caught.value


async def _in_task(stager: KafkaStager, name: str) -> None:
    await stager.stage("thing.happened", 1, tenant="t", id=name)


async def _in_thread(stager: KafkaStager, name: str) -> None:
    await asyncio.to_thread(stager.stage_blocking, "thing.happened", 1, tenant="t", id=name)


async def staged_again(stager: KafkaStager, name: str) -> int:
    """Stage on a stager whose broker is back, calling again with the same id as long as it takes.

    Out: how often the event is on staging at most, for a call that ended in doubt may have staged it too.
    """
    most = 1
    async with asyncio.timeout(20):
        while True:
            try:
                await stager.stage("thing.happened", 1, tenant="t", id=name)
            except StagingUnavailable as error:
                most += error.unknown
                continue
            return most


async def test_nobody_listens() -> None:
    """No broker at all: decided within the default 2 s, never sent, down, and closed at once (S7, S9)."""
    async with KafkaStager(settings()) as stager:
        error, other, health = await asyncio.gather(
            failure(stager, "task"), failure(stager, "thread", thread=True), stager.health()
        )
        began = time.monotonic()
    assert time.monotonic() - began < LATE_S
    for found in (error, other):
        assert (found.error_class, found.unknown) == (ErrorClass.BROKER_UNAVAILABLE, False)
        assert "127.0.0.1" in str(found)
        assert "it was not sent" in str(found)
    assert health.state == "down"
    assert "127.0.0.1" in health.reason


def test_the_end_without_a_broker(program_env: dict[str, str]) -> None:
    """A program whose broker is away ends as promptly and cleanly as any other (S9)."""
    program = """
import asyncio, time, pipeline
for way in (pipeline.stage_blocking, lambda *a: asyncio.run(pipeline.stage(*a))):
    try:
        way("thing.happened", 1)
    except pipeline.StagepostError as error:
        assert not error.unknown
    else:
        raise AssertionError("staged")
print(time.time())
"""
    env = {**program_env, "STREAMING_BROKERS": "127.0.0.1:1", "STREAMING_STAGE_TIMEOUT_S": "0.3"}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert time.time() - float(done.stdout) < 2
    assert not [sign for sign in ("Traceback", "ResourceWarning", "was destroyed") if sign in done.stderr], (
        done.stderr
    )


@pytest.mark.kafka
async def test_a_frozen_broker(cluster: Cluster, namespace: str, stager: KafkaStager) -> None:
    """Frozen: what is in flight is unknown, what waits behind it was not sent; afterwards all goes on (S7)."""
    assert await stager.health() == ("healthy", "")
    cluster.nodes[0].pause()
    try:
        in_flight = await failure(stager, "in-flight")
        behind, thread = await asyncio.gather(
            failure(stager, "behind"), failure(stager, "thread", thread=True)
        )
        health = await stager.health()
    finally:
        cluster.nodes[0].resume()
    assert (in_flight.unknown, behind.unknown, thread.unknown) == (True, False, False)
    assert "may still arrive" in str(in_flight)
    assert health.state == "down"
    await staged_again(stager, "in-flight")
    assert (await stager.health()).state == "healthy"
    found = ids(cluster, namespace)
    assert found.keys() == {"in-flight"}
    assert found["in-flight"] >= 2


@pytest.mark.kafka
async def test_a_broker_that_is_killed(cluster: Cluster, namespace: str, stager: KafkaStager) -> None:
    """Killed: an event that met no connection was not sent; the same stager goes on once a broker is back (S7)."""
    cluster.nodes[0].kill()
    try:
        await asyncio.sleep(0.05)  # the end of the connection is on its way
        error = await failure(stager, "unsent")
        health = await stager.health()
    finally:
        cluster.nodes[0].start()
        await asyncio.to_thread(cluster.wait_ready)
    assert (error.error_class, error.unknown) == (ErrorClass.BROKER_UNAVAILABLE, False)
    assert health.state == "down"
    await staged_again(stager, "after")
    assert ids(cluster, namespace) == {"after": 1}


@pytest.mark.kafka
async def test_delivery_timeout_and_close(cluster: Cluster, namespace: str) -> None:
    """RECORD_DELIVERY_TIMEOUT_S: till then a record in doubt is sent again, later never; close is bounded (S7, E)."""
    patient = open_stager(cluster, namespace, record_delivery_timeout_s=60)
    hasty = open_stager(cluster, namespace, record_delivery_timeout_s=0.6)
    leaving = open_stager(cluster, namespace)
    for stager in (patient, hasty, leaving):
        await stager.start()
        await staged_again(stager, "first")
    cluster.nodes[0].pause()
    errors = await asyncio.gather(
        failure(patient, "patient"), failure(hasty, "hasty"), failure(leaving, "leaving", thread=True)
    )
    assert [error.unknown for error in errors] == [True] * 3
    began = time.monotonic()
    await leaving.close()
    assert time.monotonic() - began < 1 + LATE_S
    cluster.nodes[0].kill()  # what it had not read yet is gone
    cluster.nodes[0].start()
    await asyncio.to_thread(cluster.wait_ready)
    most = {
        "patient": 1,
        "patient-next": await staged_again(patient, "patient-next"),
        "hasty-next": await staged_again(hasty, "hasty-next"),
    }
    await patient.close()
    await hasty.close()
    found = ids(cluster, namespace)
    assert found.keys() == most.keys()
    assert found <= Counter(most)


@pytest.mark.kafka
async def test_a_broker_that_refuses_writes(cluster: Cluster, namespace: str, stager: KafkaStager) -> None:
    """Not allowed to write: refused, certainly not sent, a caller error; degraded until it may again (C2, S9)."""
    await asyncio.to_thread(rule, cluster.bootstrap, f"{namespace}.staging", "ALLOW", "DESCRIBE")
    refused = asyncio.create_task(stager.stage("thing.happened", 1, tenant="t", id="refused"))
    await asyncio.sleep(0.25)
    during = await stager.health()
    with pytest.raises(StagingRefused) as caught:
        await refused
    after = await stager.health()
    assert caught.value.error_class is ErrorClass.AUTH
    assert is_caller_error(caught.value)
    assert (during.state, after.state) == ("degraded", "degraded")
    assert "TopicAuthorizationFailed" in during.reason
    await asyncio.to_thread(no_rules, cluster.bootstrap)
    async with asyncio.timeout(20):
        while (await stager.health()).state != "healthy":
            with contextlib.suppress(StagingRefused):
                await stager.stage("thing.happened", 1, tenant="t", id="allowed")
    assert ids(cluster, namespace) == {"allowed": 1}


@pytest.mark.kafka
async def test_a_topic_that_may_not_be_seen(cluster: Cluster, namespace: str) -> None:
    """Not allowed to see or create the staging topic: refused at once, naming the topic, a caller error (C2)."""
    await asyncio.to_thread(rule, cluster.bootstrap, f"{namespace}.staging", "DENY", "ALL")
    async with open_stager(cluster, namespace) as stager:
        with pytest.raises(StagingRefused, match=rf"{namespace}\.staging") as caught:
            await stager.stage("thing.happened", 1)
        assert is_caller_error(caught.value)
        assert (await stager.health()).state == "down"
    await asyncio.to_thread(no_rules, cluster.bootstrap)


@pytest.mark.kafka
async def test_a_topic_that_is_deleted(cluster: Cluster, namespace: str, stager: KafkaStager) -> None:
    """The staging topic is gone: refused, a caller error; staging goes on once it is there again (C2)."""
    topic = f"{namespace}.staging"
    await asyncio.to_thread(delete_topic, cluster.bootstrap, topic)
    with pytest.raises(StagingRefused) as caught:
        await stager.stage("thing.happened", 1, tenant="t")
    assert caught.value.error_class is ErrorClass.TOPIC_NOT_FOUND
    assert is_caller_error(caught.value)
    await asyncio.to_thread(create_topic, cluster.bootstrap, topic)
    async with asyncio.timeout(20):
        while (await stager.health()).state != "healthy":
            with contextlib.suppress(StagingRefused, StagingUnavailable):
                await stager.stage("thing.happened", 1, tenant="t", id="again")
    assert ids(cluster, namespace)["again"] >= 1
