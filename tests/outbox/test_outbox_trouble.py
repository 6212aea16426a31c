"""The outbox of a real stager in trouble: no topic, no room, a store that fails, a breaker that is not let close."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog import Catalog, OwnTopics
from devtools.kafka import Brokers
from pipeline.breaker import State
from pipeline.client.call import Call
from pipeline.client.fallback import Fallback
from pipeline.client.kafka_stager import KafkaStager
from pipeline.clock import SystemClock
from pipeline.errors import StagingUnavailable
from pipeline.outbox.errors import OutboxFull, OutboxUnavailable
from pipeline.outbox.protocol import Stored
from pipeline.outbox.store import RocksStore
from tests.client.broker_rules import delete_topic
from tests.client.wire import Wire
from tests.kafka_client import create_topic, read_all
from tests.outbox.test_outbox_kafka import EVENT, numbers_by_key, settings_of, stage, stager_of, until

pytestmark = pytest.mark.kafka

GIB = 1 << 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_one_key_alone_finds_its_topic_at_last(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """S6: what waited because the staging topic was missing is shipped once it is there, though no other event
    asks for it: every event of the one key there is queues behind its rows."""
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topics_autocreate=False)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "outbox"
        assert (await stage(stager, "k", 1)).via == "outbox"
        await asyncio.to_thread(create_topic, kafka.bootstrap, OwnTopics(namespace).staging, 3)
        await until(stager, lambda health: health == ("healthy", ""))
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1]}


async def test_a_delete_that_fails_is_made_good(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: a row that was shipped but could not be deleted, for the disk was full, is deleted later: it is not
    shipped again and again, and does not hold its key back for ever."""
    failures = iter([OutboxFull("slot", "the disk is full")] * 2)
    delete = RocksStore.delete

    def full_at_first(store: RocksStore, rows: list[Stored]) -> None:
        for failure in failures:
            raise failure
        delete(store, rows)

    monkeypatch.setattr(RocksStore, "delete", full_at_first)
    always = {"outbox": "always"}
    async with stager_of(settings_of(kafka.bootstrap, namespace, tmp_path)) as stager:
        for number in range(3):
            await stage(stager, "k", number, policy=always)
        await until(stager, lambda health: health == ("healthy", ""))
        assert (await stage(stager, "k", 3)).via == "topic"
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1, 2, 3]}


async def stage_without_end(stager: KafkaStager, payload: object) -> None:
    """Into the outbox, until one is refused."""
    while True:
        await stager.stage("thing.done", payload, tenant="filler", policy={"outbox": "always"})


async def test_a_full_disk_refuses_at_once_and_staging_resumes_without_a_restart(
    kafka: Brokers, namespace: str, small_disk: Path
) -> None:
    """S2: with the disk really full an event is refused at once with the cause, and is not stored in part; what was
    stored is shipped while the disk is still full; once there is room the same stager goes on."""
    always = {"outbox": "always"}
    settings = settings_of(kafka.bootstrap, namespace, small_disk / "outbox", topics_autocreate=False)
    async with stager_of(settings) as stager:
        for number in range(10):
            await stage(stager, "k", number, policy=always)
        ballast = fill(small_disk)
        payload = {"n": -1, "pad": os.urandom(300_000).hex()}
        async with asyncio.timeout(20):
            with pytest.raises(StagingUnavailable, match="free some space") as refused:
                await stage_without_end(stager, payload)
        assert not refused.value.unknown
        assert (await stager.health()).state != "healthy"
        await asyncio.to_thread(create_topic, kafka.bootstrap, OwnTopics(namespace).staging, 3)
        async with asyncio.timeout(30):
            found: dict[str, list[int]] = {}
            while found.get("k") != [*range(10)]:
                found = await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace)
        ballast.unlink()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(StagingUnavailable):
                    await stage(stager, "k", 10, policy=always)
                    break
        await until(stager, lambda health: health == ("healthy", ""))
    found = await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace)
    assert found["k"] == [*range(11)]


def fill(disk: Path) -> Path:
    """Leave no room, in a file."""
    ballast = disk / "more"
    with contextlib.suppress(OSError), ballast.open("ab") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    return ballast


async def test_a_service_starts_again_on_a_full_disk_that_has_taken_its_reserve(
    kafka: Brokers, namespace: str, small_disk: Path
) -> None:
    """S2, S9: a restart on a full disk drains, also where the room that was kept for it is somebody else's by now: what
    waits arrives, what follows goes straight behind it, health() says so, and nothing is lost at the next start."""
    folder = small_disk / "outbox"
    async with stager_of(settings_of("127.0.0.1:1", namespace, folder)) as stager:
        for number in range(10):
            await stage(stager, "k", number, policy={"outbox": "always"})
    fill(small_disk)
    (folder / "slot-0000" / "reserve").unlink()
    fill(small_disk)
    settings = settings_of(kafka.bootstrap, namespace, folder, stage_timeout_s=5)
    async with stager_of(settings) as stager:
        with pytest.raises(StagingUnavailable, match="the disk is still full, free some space"):
            await stage(stager, "new", 0, policy={"outbox": "always"})
        await stager.drain_outbox()
        assert (await stage(stager, "k", 10)).via == "topic"
        await until(stager, lambda health: health.reason.startswith("the disk of the outbox is full"))
        (small_disk / "more").unlink()
        await until(stager, lambda health: health == ("healthy", ""))
    async with stager_of(settings) as stager:
        await stage(stager, "k", 11, policy={"outbox": "always"})
        await stager.drain_outbox()
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [*range(12)]}


async def test_a_service_starts_for_the_first_time_on_a_full_disk(
    kafka: Brokers, namespace: str, small_disk: Path
) -> None:
    """S2, S9: a service whose disk has no room for an outbox starts and stages straight to Kafka; health() and what
    needs the outbox say so; it closes, and starts again; once there is room, the outbox is there without a
    restart, and order holds from the direct way to it."""
    always = {"outbox": "always"}
    ballast = fill(small_disk)
    settings = settings_of(kafka.bootstrap, namespace, small_disk / "outbox", stage_timeout_s=20)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "topic"
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 1)).via == "topic"
        with pytest.raises(StagingUnavailable, match="no room for it, free some space") as refused:
            await stage(stager, "k", 2, policy=always)
        assert not refused.value.unknown
        state, reason = await stager.health()
        assert state == "degraded"
        assert "no room for it, free some space" in reason
        await stager.drain_outbox()
        ballast.unlink()
        await until(stager, lambda health: health == ("healthy", ""))
        assert (await stage(stager, "k", 2, policy=always)).via == "outbox"
        await stage(stager, "k", 3)
        await stager.drain_outbox()
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1, 2, 3]}


async def test_without_room_for_an_outbox_and_without_a_broker(
    kafka: Brokers, namespace: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7, B: with neither way open a call fails in time, with what is wrong with the broker; as many as would open the
    breaker leave it closed, for nobody would close it, and staging goes on once the broker answers."""
    fill(small_disk)
    wire = Wire(monkeypatch)
    settings = settings_of(
        kafka.bootstrap, namespace, small_disk / "outbox", cb_min_requests=1, stage_timeout_s=5
    )
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "topic"
        wire.answers.clear()
        began = time.monotonic()
        with pytest.raises(StagingUnavailable, match="no acknowledgement"):
            await stage(stager, "k", 1)
        assert time.monotonic() - began < settings.stage_timeout_s + 0.8
        wire.answers.set()
        assert (await stage(stager, "k", 2)).via == "topic"
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1, 2]}


class _WrongClock(SystemClock):
    """A clock that may go ahead."""

    ahead_s = 0.0

    def time(self) -> float:
        """Seconds since 1970, and more."""
        return super().time() + self.ahead_s


async def test_a_clock_that_jumps_ahead_and_back(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """C3, S6: brokers refuse what is said to be of a time to come, for no fault of the events: they wait in the outbox,
    none is set aside, and all are shipped, in order, once the clock is right."""
    clock = _WrongClock()
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topics_autocreate=False, topic_partitions=1)
    hour = {"message.timestamp.after.max.ms": "3600000"}
    await asyncio.to_thread(create_topic, kafka.bootstrap, OwnTopics(namespace).staging, 1, config=hour)
    stager = KafkaStager(settings, catalog=Catalog([EVENT], namespace=namespace), clock=clock)
    async with stager:
        await until(stager, lambda health: health == ("healthy", ""))
        assert (await stage(stager, "k", 0)).via == "topic"
        clock.ahead_s = 7_200.0
        assert (await stage(stager, "k", 1)).via == "outbox"
        await until(stager, lambda health: "InvalidTimestampError" in health.reason)
        assert (await stage(stager, "k", 2)).via == "outbox"
        clock.ahead_s = 0.0
        await until(stager, lambda health: health == ("healthy", ""))
        assert (await stage(stager, "k", 3)).via == "topic"
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1, 2, 3]}


async def test_what_was_cancelled_in_flight_is_stored_ahead_of_what_follows(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: an event whose caller gave up while it was in flight goes to the outbox ahead of the next one of its key
    that becomes a row: where its lane is emptied later, it must not come behind that."""
    wire = Wire(monkeypatch)
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topic_partitions=1, stage_timeout_s=3)
    async with stager_of(settings) as stager:
        await until(stager, lambda health: health == ("healthy", ""))
        assert (await stage(stager, "k", 0)).via == "topic"
        wire.requests.clear()
        given_up = [asyncio.create_task(stage(stager, "k", number)) for number in (1, 2)]
        await wire.wait_for(2)
        for call in given_up:
            call.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        assert (await stage(stager, "k", 3, policy={"outbox": "always"})).via == "outbox"
        assert (await stage(stager, "other", 0)).via == "outbox", "its time limit empties the lane"
        wire.loses_held = True
        wire.requests.set()
        await until(stager, lambda health: health == ("healthy", ""))
    found = await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace)
    assert found == {"k": [0, 1, 2, 3], "other": [0]}


@pytest.mark.parametrize("moment", ["in flight", "in the turn of its acknowledgement"])
async def test_what_was_cancelled_and_arrives_is_forgotten(
    moment: str, kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: an event whose caller gave up and that was acknowledged is not stored ahead of the next one of its key: it
    does not come twice."""
    wire = Wire(monkeypatch)
    acked = Call.acked

    def give_up_and_ack(call: Call, first: int, count: int, offset: int) -> None:
        if call.key == b"k":
            given_up.cancel()
        acked(call, first, count, offset)

    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topic_partitions=1, stage_timeout_s=20)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "other", 0)).via == "topic"
        wire.answers.clear()
        given_up = asyncio.create_task(stage(stager, "k", 1))
        await wire.wait_for(2)
        if moment == "in flight":
            given_up.cancel()
        else:
            monkeypatch.setattr(Call, "acked", give_up_and_ack)
            wire.answers.set()
        await asyncio.gather(given_up, return_exceptions=True)
        assert given_up.cancelled()
        wire.answers.set()
        assert (await stage(stager, "other", 1)).via == "topic"
        assert (await stage(stager, "k", 2, policy={"outbox": "always"})).via == "outbox"
        await until(stager, lambda health: health == ("healthy", ""))
    records = await asyncio.to_thread(read_all, kafka.bootstrap, OwnTopics(namespace).staging)
    assert [record.value for record in records if record.key == b"k"] == [b'{"n":1}', b'{"n":2}']


async def test_rows_of_an_earlier_process_do_not_keep_new_ones_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7: after a restart with many rows new events are stored at once, while the keys of the old are counted."""
    store = RocksStore(tmp_path / "slot-0000", GIB)
    data = b"\x01" + b"x" * 50  # not even readable: only that there are many matters
    for _ in range(40):
        store.append([data] * 1_000)
    store.close()
    read = RocksStore.read

    def slowly(store: RocksStore, after: int, limit: int) -> list[Stored]:
        time.sleep(limit / 20_000)  # a slow disk: 2 s for all
        return read(store, after, limit)

    monkeypatch.setattr(RocksStore, "read", slowly)
    settings = settings_of("127.0.0.1:1", "unused", tmp_path)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "outbox"


@pytest.mark.parametrize("moment", ["before they are sent", "in flight"])
async def test_no_cancellation_opens_the_breaker(
    moment: str, kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2: callers that give up open nothing, however many, whether their events were sent or not."""
    wire = Wire(monkeypatch)
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, stage_timeout_s=20)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "topic"
        assert isinstance(stager._fallback, Fallback)
        breaker = stager._fallback.breaker
        wire.answers.clear()
        calls = [asyncio.create_task(stage(stager, f"key-{n}", n)) for n in range(200)]
        await (asyncio.sleep(0) if moment == "before they are sent" else wire.wait_for(len(wire.sent) + 1))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        wire.answers.set()
        assert (await stage(stager, "k", 1)).via == "topic"
        assert breaker.is_closed
        assert breaker.failure_ratio(stager._clock.monotonic()) == 0.0


async def test_the_breaker_stays_open_while_its_probe_fails(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """B2: once open, the breaker stays open for as long as its probe fails, and closes when one succeeds."""
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topics_autocreate=False, cb_timeout_s=0.2)
    topic = OwnTopics(namespace).staging
    await asyncio.to_thread(create_topic, kafka.bootstrap, topic, 3)
    async with stager_of(settings) as stager:
        await until(stager, lambda health: health == ("healthy", ""))
        assert isinstance(stager._fallback, Fallback)
        breaker = stager._fallback.breaker
        await asyncio.to_thread(delete_topic, kafka.bootstrap, topic)
        breaker.trip(stager._clock.monotonic(), "planted")
        assert (await stage(stager, "k", 0)).via == "outbox"
        states: set[State] = set()
        async with asyncio.timeout(10):
            for _ in range(3):
                since = breaker.since
                while breaker.since == since:
                    states.add(breaker.state)
                    await asyncio.sleep(0.01)  # a probe is due every 0.2 s
        assert State.CLOSED not in states
        await asyncio.to_thread(create_topic, kafka.bootstrap, topic, 3)
        await until(stager, lambda health: health == ("healthy", ""))
        assert breaker.is_closed


async def test_overdue_events_that_may_not_go_to_the_outbox_open_the_breaker_too(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2, D6: what fails under outbox=never counts like any other event; while the breaker is open the next one raises
    at once, and a probe closes it though no row waits."""
    wire = Wire(monkeypatch)
    settings = settings_of(
        kafka.bootstrap, namespace, tmp_path, stage_timeout_s=1, cb_min_requests=2, cb_timeout_s=0.5
    )
    async with stager_of(settings) as stager:
        await until(stager, lambda health: health == ("healthy", ""))
        wire.answers.clear()
        late = [stage(stager, f"key-{n}", n, policy={"outbox": "never"}) for n in range(2)]
        failures = await asyncio.gather(*late, return_exceptions=True)
        assert {type(failure) for failure in failures} == {StagingUnavailable}
        with pytest.raises(StagingUnavailable, match="the circuit breaker is open"):
            await stage(stager, "key-2", 2, policy={"outbox": "never"})
        wire.answers.set()
        assert isinstance(stager._fallback, Fallback)
        breaker = stager._fallback.breaker
        await until(stager, lambda _: breaker.is_closed)
        assert (await stage(stager, "key-3", 3, policy={"outbox": "never"})).via == "topic"


class _Stuck:
    """A disk that answers no more: whoever calls `append` or `read` waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        for name in ("append", "read"):
            monkeypatch.setattr(RocksStore, name, self._waiting(getattr(RocksStore, name)))

    def _waiting(self, call: Callable[..., object]) -> Callable[..., object]:
        def wait(*arguments: object) -> object:
            self.free.wait()
            return call(*arguments)

        return wait


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Stuck]:
    """A disk that can stop answering; it answers again at the end."""
    disk = _Stuck(monkeypatch)
    yield disk
    disk.free.set()


async def test_health_has_one_limit_for_both_ways(tmp_path: Path, stuck: _Stuck) -> None:
    """S9: the probe of the broker and that of the outbox, neither of which answers, take STAGE_TIMEOUT_S together."""
    settings = settings_of("127.0.0.1:1", "unused", tmp_path, stage_timeout_s=1)
    async with stager_of(settings) as stager:
        stuck.free.clear()
        began = time.monotonic()
        health = await stager.health()
        took = time.monotonic() - began
        stuck.free.set()
    assert health.state == "down"
    assert took < 1.6


async def test_a_disk_that_does_not_answer_holds_up_no_close(tmp_path: Path, stuck: _Stuck) -> None:
    """S9: close() is bounded also where the outbox takes nothing; a caller whose event it was to store hears that it
    may be stored or not."""
    settings = settings_of("127.0.0.1:1", "unused", tmp_path, stage_timeout_s=1, close_timeout_s=0.4)
    stager = KafkaStager(settings, catalog=Catalog([EVENT], namespace="unused"))
    await stager.start()
    stuck.free.clear()
    call = asyncio.create_task(stage(stager, "k", 0))
    await asyncio.sleep(0)
    began = time.monotonic()
    await stager.close()
    assert time.monotonic() - began < 0.4 + 0.6
    with pytest.raises(StagingUnavailable, match="the outbox has not answered") as caught:
        await call
    assert caught.value.unknown
    stuck.free.set()


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """E: start() raises where the outbox cannot be used, naming the setting."""
    (tmp_path / "file").write_text("no folder")
    settings = settings_of("127.0.0.1:1", "unused", tmp_path / "file")
    stager = KafkaStager(settings, catalog=Catalog([EVENT], namespace="unused"))
    with pytest.raises(OutboxUnavailable, match="STREAMING_OUTBOX_DIR"):
        await stager.start()
