"""Time limits, room, cancellation and the end of the real stager (S7, S9)."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import pytest

from devtools.kafka import Brokers
from pipeline import Staged
from pipeline.client.call import Call
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import (
    ErrorClass,
    StagerClosed,
    StagingUnavailable,
    is_caller_error,
)
from tests.client.client_events import settings
from tests.client.kafka_staging import ids, opened
from tests.client.wire import Wire

pytestmark = pytest.mark.kafka

# --- time limits, room, cancellation


async def test_stage_timeout(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """Decided within STAGE_TIMEOUT_S: a record in flight is unknown, one that was not sent is not (S7, E)."""
    async with opened(kafka, namespace, stage_timeout_s=0.4) as stager:
        wire.answers.clear()
        began = time.monotonic()
        first = asyncio.create_task(stager.stage("thing.happened", 1, tenant="t", id="in-flight"))
        await wire.wait_for(1)
        second = asyncio.create_task(stager.stage("thing.happened", 2, tenant="t", id="behind"))
        third = asyncio.create_task(
            asyncio.to_thread(stager.stage_blocking, "thing.happened", 3, tenant="t", id="thread")
        )
        errors = await asyncio.gather(first, second, third, return_exceptions=True)
        assert time.monotonic() - began < 1.5
        for error, unknown in zip(errors, (True, False, False), strict=True):
            assert isinstance(error, StagingUnavailable)
            assert (error.error_class, error.unknown) == (ErrorClass.NETWORK_TIMEOUT, unknown)
            assert "STREAMING_STAGE_TIMEOUT_S" in str(error)
            assert not is_caller_error(error)
        assert (await stager.health()).state == "degraded"
        wire.answers.set()
        retried = await stager.stage("thing.happened", 1, tenant="t", id="in-flight")
        assert retried.offset == 1
        assert await stager.health() == ("healthy", "")
    assert ids(kafka, namespace) == {"in-flight": 2}


async def test_no_room(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """MAX_BUFFERED_RECORDS may wait; more callers wait for room, in order, and fail in time without it (E, S7)."""
    async with opened(
        kafka, namespace, max_buffered_records=4, stage_timeout_s=0.5, topic_partitions=1
    ) as stager:
        wire.answers.clear()
        tasks = [asyncio.create_task(stager.stage("thing.happened", n, id=f"early-{n}")) for n in range(7)]
        await wire.wait_for(1)
        await asyncio.sleep(0)
        assert stager._direct.in_lanes == 4
        wire.answers.set()
        offsets = [staged.offset for staged in await asyncio.gather(*tasks)]
        assert offsets == [*range(7)]
        wire.answers.clear()
        errors = await asyncio.gather(
            *(stager.stage("thing.happened", n, id=f"late-{n}") for n in range(6)), return_exceptions=True
        )
        assert [isinstance(error, StagingUnavailable) for error in errors] == [True] * 6
        assert [getattr(error, "unknown", None) for error in errors] == [True] * 4 + [False] * 2
        assert "4 (STREAMING_MAX_BUFFERED_RECORDS) wait" in str(errors[5])
        wire.answers.set()
        assert (await stager.stage("thing.happened", 1)).via == "topic"
    assert ids(kafka, namespace).keys() >= {f"early-{n}" for n in range(7)}
    assert not {"late-4", "late-5"} & ids(kafka, namespace).keys()


async def test_cancelled(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """Cancelled before it is sent, an event is nowhere; in flight it may be; a retry is the same event (S7)."""
    async with opened(kafka, namespace, topic_partitions=1) as stager:
        wire.answers.clear()
        in_flight = asyncio.create_task(stager.stage("thing.happened", 1, id="in-flight"))
        await wire.wait_for(1)
        queued = asyncio.create_task(stager.stage("thing.happened", 2, id="queued"))
        after = asyncio.create_task(stager.stage("thing.happened", 3, id="after"))
        await asyncio.sleep(0)
        for task in (in_flight, queued):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        wire.answers.set()
        assert (await after).offset == 1
        assert (await stager.stage("thing.happened", 1, id="in-flight")).id == "in-flight"
        assert stager._direct.in_lanes == 0
    assert ids(kafka, namespace) == {"in-flight": 2, "after": 1}


async def test_cancelled_while_the_topic_is_not_known(kafka: Brokers, namespace: str) -> None:
    """Cancelled before the staging topic is known, an event is nowhere (S7)."""
    given = settings(brokers=kafka.bootstrap, namespace=namespace)
    async with KafkaStager(given) as stager:
        tasks = [asyncio.create_task(stager.stage("thing.happened", n, id=str(n))) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
    assert ids(kafka, namespace) == {"0": 1, "2": 1}


# --- its end, and other loops


async def test_close_waits_for_what_is_under_way(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """Closing sends what was staged, also what waits for the topic or for room, and answers it (S9)."""
    given = settings(brokers=kafka.bootstrap, namespace=namespace, max_buffered_records=2)
    stager = KafkaStager(given)
    await stager.start()
    tasks = [asyncio.create_task(stager.stage("thing.happened", n, id=str(n))) for n in range(5)]
    await asyncio.sleep(0)
    await stager.close()
    assert [staged.id for staged in await asyncio.gather(*tasks)] == [*"01234"]
    assert ids(kafka, namespace) == {str(n): 1 for n in range(5)}


async def test_close_timeout(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """CLOSE_TIMEOUT_S bounds it; who still waits is told, and whether the record may be there (S9, E)."""
    given = settings(brokers=kafka.bootstrap, namespace=namespace, close_timeout_s=0.3, stage_timeout_s=5)
    stager = KafkaStager(given)
    await stager.start()
    await stager.stage("thing.happened", 0, tenant="t")
    wire.answers.clear()
    count = len(wire.sent)
    in_flight = asyncio.create_task(stager.stage("thing.happened", 1, tenant="t"))
    await wire.wait_for(count + 1)
    queued = asyncio.create_task(stager.stage("thing.happened", 2, tenant="t"))
    await asyncio.sleep(0)
    began = time.monotonic()
    await stager.close()
    assert time.monotonic() - began < 1.5
    for task, unknown in ((in_flight, True), (queued, False)):
        with pytest.raises(StagingUnavailable, match="closed") as caught:
            await task
        assert caught.value.unknown is unknown
    with pytest.raises(StagerClosed):
        await stager.stage("thing.happened", 3)


async def test_the_wrong_loop_or_thread(kafka: Brokers, namespace: str) -> None:
    """A stager says so when it is used before its start, on another loop, or so that its loop would block (S9)."""
    stager = KafkaStager(settings(brokers=kafka.bootstrap, namespace=namespace))
    with pytest.raises(StagerClosed, match="not started"):
        await stager.stage("thing.happened", 1)
    async with stager:
        with pytest.raises(StagerClosed, match="would block its own event loop"):
            stager.stage_blocking("thing.happened", 1)
        with pytest.raises(StagerClosed, match="belongs to another event loop"):
            await asyncio.to_thread(asyncio.run, stager.stage("thing.happened", 1))
        health = await asyncio.to_thread(asyncio.run, stager.health())
        assert health.state == "down"
        assert (await asyncio.to_thread(stager.stage_blocking, "thing.happened", 1)).via == "topic"


def test_a_loop_that_does_not_run(kafka: Brokers, namespace: str) -> None:
    """A thread is told that nobody will answer, instead of waiting for it (S7)."""
    stager = KafkaStager(settings(brokers=kafka.bootstrap, namespace=namespace))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(stager.start())
    with pytest.raises(StagerClosed, match="not running"):
        stager.stage_blocking("thing.happened", 1)
    loop.run_until_complete(stager.close())
    loop.close()
    with pytest.raises(StagerClosed, match="closed"):
        stager.stage_blocking("thing.happened", 1)


async def test_a_loop_that_is_too_busy(kafka: Brokers, namespace: str) -> None:
    """A thread whose event loop does not get round to it is answered a second after the limit (S7)."""
    async with opened(kafka, namespace, stage_timeout_s=0.2) as stager:
        began = time.monotonic()
        waiting = asyncio.create_task(asyncio.to_thread(stager.stage_blocking, "thing.happened", 1))
        await asyncio.sleep(0)
        time.sleep(1.6)  # noqa: ASYNC251 -- the loop is blocked, that is the point
        with pytest.raises(StagingUnavailable, match="too busy") as caught:
            await waiting
        assert caught.value.unknown
        assert time.monotonic() - began < 2.5


async def test_a_thread_that_comes_as_the_loop_has_looked(kafka: Brokers, namespace: str) -> None:
    """A call posted between the loop's last look and its return is not forgotten (S7)."""
    async with opened(kafka, namespace) as stager:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Staged] = loop.create_future()

        class Inbox(deque[Call]):
            """Where a call comes in right after the loop has found it empty."""

            def __bool__(self) -> bool:
                if len(self) or not late:
                    return len(self) > 0
                stager._inbox.post(late.pop(), loop)
                return False

        event = stager._checker.check("thing.happened", 1, id="late")
        late = [Call(event.id, event.key, event.packed, "never", outcome, stager._left_lane)]
        stager._inbox._calls = Inbox()
        await asyncio.to_thread(stager.stage_blocking, "thing.happened", 1)
        assert (await asyncio.wait_for(outcome, 5)).id == "late"
