"""The outbox behind a real stager and a real broker that comes, goes and stays away."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from catalog import Catalog, EventDefinition, OwnTopics
from devtools.kafka import Brokers, Cluster
from pipeline.client import adoption, relay
from pipeline.client.fallback import Fallback
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import StagingUnavailable
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.topics import TopicSpecs, create
from pipeline.outbox import process
from pipeline.outbox.row import BadRow
from pipeline.outbox.store import RocksStore
from pipeline.settings import Settings
from pipeline.types import Health, Staged
from tests.kafka.producing import Wire
from tests.kafka_client import read_all

pytestmark = pytest.mark.kafka

GIB = 1 << 30
EVENT = EventDefinition(key="thing.done", resource_type="thing", event_type="done")


def settings_of(bootstrap: str, namespace: str, folder: Path, **more: object) -> Settings:
    """Settings with an outbox, quick to open and to probe."""
    values: dict[str, object] = {
        "brokers": bootstrap,
        "catalog": "unused",
        "cloudevents_source": "test",
        "namespace": namespace,
        "outbox_dir": str(folder),
        "cb_timeout_s": 0.5,
        "stage_timeout_s": 1,
        "topic_partitions": 3,
        **more,
    }
    return Settings.model_validate(values)


@asynccontextmanager
async def stager_of(settings: Settings) -> AsyncIterator[KafkaStager]:
    """A started stager with one definition."""
    stager = KafkaStager(settings, catalog=Catalog([EVENT], namespace=settings.namespace))
    async with stager:
        yield stager


async def stage(stager: KafkaStager, key: str, number: int, **more: object) -> Staged:
    """One event of a key with its number, so that order can be told."""
    return await stager.stage("thing.done", {"n": number}, tenant=key, **more)  # type: ignore[arg-type]


async def until(stager: KafkaStager, is_so: Callable[[Health], bool], timeout_s: float = 30) -> None:
    """Wait until the stager's health is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so(await stager.health()):  # noqa: ASYNC110 -- it asks broker and disk
            await asyncio.sleep(0.05)


def numbers_by_key(bootstrap: str, namespace: str) -> dict[str, list[int]]:
    """First occurrences of each event on the staging topic, by key, in their order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    seen: set[bytes] = set()
    for record in read_all(bootstrap, OwnTopics(namespace).staging):
        event_id = dict(record.headers)["stage-id"]
        assert record.key is not None
        assert record.value is not None
        if event_id not in seen:
            seen.add(event_id)
            found[record.key.decode()].append(int(record.value.split(b":")[1].rstrip(b"}")))
    return found


async def test_an_outage_keeps_every_event_and_the_order_of_each_key(
    own_kafka: Cluster, namespace: str, tmp_path: Path
) -> None:
    """S2, S6, S7: through an outage each call is answered in time, from the topic or the outbox; afterwards all
    events are on the topic, each key in call order, with the ids they were given."""
    settings = settings_of(own_kafka.bootstrap, namespace, tmp_path)
    given: defaultdict[str, list[int]] = defaultdict(list)
    ways: set[str] = set()
    over = asyncio.Event()

    async def caller(stager: KafkaStager, key: str) -> None:
        number = 0
        while not over.is_set():
            async with asyncio.timeout(settings.stage_timeout_s + 0.5):
                ways.add((await stage(stager, key, number)).via)
            given[key].append(number)
            number += 1
            await asyncio.sleep(0.002)

    async with stager_of(settings) as stager:
        await stage(stager, "first", 0)
        given["first"].append(0)
        async with asyncio.TaskGroup() as callers:
            for number in range(12):
                callers.create_task(caller(stager, f"key-{number}"))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(own_kafka.nodes[0].kill)
            await asyncio.sleep(4)
            await asyncio.to_thread(own_kafka.nodes[0].start)
            await asyncio.to_thread(own_kafka.wait_ready)
            await asyncio.sleep(2)
            over.set()
        await until(stager, lambda health: health.state == "healthy")
    assert ways == {"topic", "outbox"}
    assert await asyncio.to_thread(numbers_by_key, own_kafka.bootstrap, namespace) == given


_EARLY = """
import asyncio, sys
from pathlib import Path
from catalog import Catalog
from tests.outbox.test_outbox_kafka import EVENT, settings_of, stage
from pipeline.client.kafka_stager import KafkaStager
async def main():
    settings = settings_of(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    stager = KafkaStager(settings, catalog=Catalog([EVENT], namespace=settings.namespace))
    await stager.start()
    async def caller(key):
        for number in range(int(sys.argv[4])):
            await stage(stager, key, number)
            print(key, number, flush=True)
    await asyncio.gather(*(caller(f"key-{n}") for n in range(20)))
    print("done", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def rows_folders(folder: Path) -> list[Path]:
    """The databases of all slots."""
    return list(folder.glob("*/rows"))


def staged_by_a_killed_service(
    bootstrap: str, namespace: str, folder: Path, each: int = 300
) -> defaultdict[str, list[int]]:
    """What a service of its own staged, `each` events of 20 keys, before it was killed."""
    arguments = [bootstrap, namespace, str(folder), str(each)]
    process = subprocess.Popen([sys.executable, "-c", _EARLY, *arguments], stdout=subprocess.PIPE, text=True)
    given: defaultdict[str, list[int]] = defaultdict(list)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "done\n":
            break
        key, number = line.split()
        given[key].append(int(number))
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    return given


@pytest.mark.parametrize("each", [300, pytest.param(2_500, marks=pytest.mark.long)])
async def test_staged_while_no_broker_exists_killed_restarted_and_delivered(
    own_kafka: Cluster, namespace: str, tmp_path: Path, each: int
) -> None:
    """S2, S9: events staged with no broker at all survive kill -9 of the service, and go out in order, before
    new ones of their keys, once a broker is there."""
    await asyncio.to_thread(own_kafka.nodes[0].kill)
    given = await asyncio.to_thread(
        staged_by_a_killed_service, own_kafka.bootstrap, namespace, tmp_path, each
    )
    assert sum(map(len, given.values())) == 20 * each  # more than the relay has under way at a time
    async with stager_of(settings_of(own_kafka.bootstrap, namespace, tmp_path)) as stager:

        async def one_more(key: str) -> str:
            number = given[key][-1] + 1
            given[key].append(number)
            return (await stage(stager, key, number)).via

        assert await one_more("key-0") == "outbox"  # it queues behind the rows of its key
        await asyncio.to_thread(own_kafka.nodes[0].start)
        while (await stager.health()).state != "healthy":
            await asyncio.gather(*map(one_more, list(given)))
        assert await one_more("key-0") == "topic"
    assert await asyncio.to_thread(numbers_by_key, own_kafka.bootstrap, namespace) == given


@pytest.mark.parametrize("whose", ["its own", "of a dead process"])
async def test_a_clean_stop_sends_no_row_twice(
    whose: str, kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9, S6: a row that is on its way when its stager closes is waited for: left in the outbox it would come again
    with the next one."""
    monkeypatch.setattr(adoption, "_LOOK_EVERY_S", 0.05)
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, stage_timeout_s=10)
    async with stager_of(settings) as stager:
        await stage(stager, "k", 0)
        wire = Wire(stager._producer, monkeypatch)
        wire.answers.clear()
        if whose == "its own":
            assert (await stage(stager, "k", 1, policy={"outbox": "always"})).via == "outbox"
        else:
            left = RocksStore(tmp_path / "slot-0001", GIB)
            left.append([stager.prepare("thing.done", {"n": 1}, tenant="k").bytes])
            left.close()
        await wire.seen(1)
        closing = asyncio.create_task(stager.close())
        done, _ = await asyncio.wait([closing], timeout=0.5)
        assert not done, "it did not wait for the answer"
        wire.answers.set()
        await closing
    async with stager_of(settings) as stager:
        async with asyncio.timeout(10):
            await stager.drain_outbox()
    records = await asyncio.to_thread(read_all, kafka.bootstrap, OwnTopics(namespace).staging)
    assert sorted(record.value for record in records if record.value) == [b'{"n":0}', b'{"n":1}']


async def test_few_large_rows_are_on_their_way_at_once(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: rows go out while those before them take less than a bound in memory, and all of them do, in order. A service
    with a gigabyte waiting took two of them, and was ended for it at each start."""
    monkeypatch.setattr(relay, "_WINDOW_BYTES", 1_500)
    monkeypatch.setattr(process, "_AT_ONCE_BYTES", 1_000)
    async with stager_of(settings_of(kafka.bootstrap, namespace, tmp_path)) as stager:
        await until(stager, lambda health: health == ("healthy", ""))
        wire = Wire(stager._producer, monkeypatch)
        wire.answers.clear()
        calls = [
            stager.stage("thing.done", {"n": n, "pad": "x" * 600}, tenant="k", policy={"outbox": "always"})
            for n in range(12)
        ]
        await asyncio.gather(*calls)
        await wire.seen(1)
        assert isinstance(stager._fallback, Fallback)
        assert stager._fallback._relay is not None
        assert 1 <= len(stager._fallback._relay._flying) <= 4
        wire.answers.set()
        await stager.drain_outbox()
    records = await asyncio.to_thread(read_all, kafka.bootstrap, OwnTopics(namespace).staging)
    assert [json.loads(record.value or b"")["n"] for record in records] == [*range(12)]


async def test_a_drain_waits_for_what_is_stored_since_the_last(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """S6: drain_outbox() returns when no row waits, also where none waited before; so it does while no broker
    answers, and for a stager that leaves the shipping to another of its process."""
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, stage_timeout_s=10)
    always = {"outbox": "always"}
    staged = 0
    async with stager_of(settings) as stager, stager_of(settings) as another:
        for _ in range(3):
            for one in (stager, another):
                await one.drain_outbox()
                for number in range(staged, staged + 20):
                    await stage(stager, "k", number, policy=always)
                staged += 20
                await one.drain_outbox()
                found = await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace)
                assert found == {"k": [*range(staged)]}
    async with asyncio.timeout(10), stager_of(settings_of("127.0.0.1:9", namespace, tmp_path)) as alone:
        await alone.drain_outbox()


async def test_always_never_and_what_a_broker_refuses(
    own_kafka: Cluster, namespace: str, tmp_path: Path
) -> None:
    """D6: outbox=always is stored first and shipped; outbox=never raises while its key has rows. A row that the
    broker refuses for good is set aside with its reason, its key goes on, and health() says so."""
    settings = settings_of(own_kafka.bootstrap, namespace, tmp_path)
    topic = OwnTopics(namespace).staging
    spec = TopicSpecs(settings).staging(topic)
    await create(staging_cluster(settings), [type(spec)(topic, 3, {"max.message.bytes": "20000"})], 1)
    async with stager_of(settings) as stager:
        always = {"outbox": "always"}
        assert (await stage(stager, "k", 0, policy=always)).via == "outbox"
        poison = await stager.stage(
            "thing.done",
            {"n": 1, "pad": [str(n * 7919 % 10_007) for n in range(20_000)]},
            tenant="k",
            policy=always,
        )
        assert (await stage(stager, "k", 2, policy=always)).via == "outbox"
        await until(stager, lambda health: health.reason == "1 rows are set aside and need a look")
        assert (await stage(stager, "k", 3)).via == "topic"
        await asyncio.to_thread(own_kafka.nodes[0].kill)
        assert (await stage(stager, "k", 4)).via == "outbox"
        with pytest.raises(StagingUnavailable, match="outbox=never") as raised:
            await stage(stager, "k", 5, policy={"outbox": "never"})
        assert raised.value.unknown is False
        await asyncio.to_thread(own_kafka.nodes[0].start)
        await asyncio.to_thread(own_kafka.wait_ready)
        await until(stager, lambda health: "wait in the outbox" not in health.reason)
    assert (await asyncio.to_thread(numbers_by_key, own_kafka.bootstrap, namespace))["k"] == [0, 2, 3, 4]
    store = RocksStore(tmp_path / "slot-0000", GIB)
    ((_, reason, data),) = store.aside()
    store.close()
    assert "refused by the staging broker" in reason
    assert poison.id.encode() in data


async def test_a_living_process_drains_what_a_dead_one_left(
    own_kafka: Cluster, namespace: str, tmp_path: Path
) -> None:
    """S9: processes of a service share OUTBOX_DIR, each with its slot; a live one adopts the slot of a dead one and
    ships its rows in order, beside its own."""
    await asyncio.to_thread(own_kafka.nodes[0].kill)
    async with stager_of(settings_of(own_kafka.bootstrap, namespace, tmp_path)) as stager:
        given = await asyncio.to_thread(staged_by_a_killed_service, own_kafka.bootstrap, namespace, tmp_path)
        assert (await stage(stager, "mine", 0)).via == "outbox"
        given["mine"].append(0)
        await asyncio.to_thread(own_kafka.nodes[0].start)
        await asyncio.to_thread(own_kafka.wait_ready)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(numbers_by_key, own_kafka.bootstrap, namespace) != given:  # noqa: ASYNC110
                await asyncio.sleep(0.5)  # it reads a topic
    assert {slot.parent.name for slot in await asyncio.to_thread(rows_folders, tmp_path)} == {
        "slot-0000",
        "slot-0001",
    }


async def test_an_event_commits_or_vanishes_with_the_services_own_transaction(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """S11: prepare() gives a row for the application's own table; what its transaction rolls back is never staged,
    what it commits is relayed with the id and bytes it had."""
    database = sqlite3.connect(":memory:")
    database.execute("create table outbox (id text primary key, row blob)")
    async with stager_of(settings_of(kafka.bootstrap, namespace, tmp_path)) as stager:
        for number, commit in enumerate((True, False, True)):
            prepared = stager.prepare("thing.done", {"n": number}, tenant="k")
            database.execute("insert into outbox values (?, ?)", prepared)
            (database.commit if commit else database.rollback)()
        rows = database.execute("select id, row from outbox order by rowid").fetchall()
        for event_id, row in rows:
            staged = await stager.relay(row)
            assert (staged.id, staged.via) == (event_id, "topic")
        with pytest.raises(BadRow, match="newer"):
            await stager.relay(b"\x09" + rows[0][1][1:])
    database.close()
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 2]}
