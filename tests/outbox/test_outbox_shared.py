"""Several stagers of one process share its outbox: each is well again, and in order, whoever of them ships."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from pathlib import Path
from typing import Never

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.api import Request, Response

from catalog import Catalog, OwnTopics
from devtools.kafka import Brokers
from pipeline.client.fallback import Fallback
from pipeline.client.kafka_stager import KafkaStager
from pipeline.kafka.session import Session
from tests.kafka_client import create_topic
from tests.outbox.test_outbox_kafka import EVENT, numbers_by_key, settings_of, stage, stager_of, until

pytestmark = pytest.mark.kafka


async def test_a_stager_that_does_not_ship_asks_for_the_broker_too(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """B2: of two stagers of a process one ships; the breaker of the other closes all the same once the broker answers,
    and its events go straight again."""
    settings = settings_of(kafka.bootstrap, namespace, tmp_path)
    async with stager_of(settings) as ships, stager_of(settings) as other:
        for stager in (ships, other):
            await until(stager, lambda health: health == ("healthy", ""))
        assert isinstance(other._fallback, Fallback)
        other._fallback.breaker.trip(other._clock.monotonic(), "planted")
        assert (await stage(other, "k", 0)).via == "outbox"
        await until(other, lambda health: health == ("healthy", ""), timeout_s=10)
        assert (await stage(other, "k", 1)).via == "topic"
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1]}


async def test_rows_are_shipped_though_the_loop_of_who_shipped_was_closed_without_a_word(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """S9: an event loop that is closed under its stager, which then cannot let go of the outbox, takes no other
    stager of the process with it: that ships what waits."""
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topics_autocreate=False)

    left: list[KafkaStager] = []

    def one_that_just_ends() -> None:
        loop = asyncio.new_event_loop()
        left.append(KafkaStager(settings, catalog=Catalog([EVENT], namespace=namespace)))
        loop.run_until_complete(left[0].start())
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()

    thread = threading.Thread(target=one_that_just_ends)
    thread.start()
    await asyncio.to_thread(thread.join)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "outbox"
        await asyncio.to_thread(create_topic, kafka.bootstrap, OwnTopics(namespace).staging, 3)
        await until(stager, lambda health: health == ("healthy", ""), timeout_s=15)
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0]}


async def test_a_program_may_go_to_another_folder(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2, S9: OUTBOX_DIR as a path from where the program was started: rows are found again, and new ones lie beside
    them, after it went elsewhere and its files were opened anew, as after a fork."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = settings_of(kafka.bootstrap, namespace, Path("outbox"), topics_autocreate=False)
    async with stager_of(settings) as stager:
        assert (await stage(stager, "k", 0)).via == "outbox"
        monkeypatch.chdir(tmp_path / "elsewhere")
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        await asyncio.to_thread(child.join, 20)
        assert (await stage(stager, "k", 1)).via == "outbox"
        await asyncio.to_thread(create_topic, kafka.bootstrap, OwnTopics(namespace).staging, 3)
        await until(stager, lambda health: health == ("healthy", ""), timeout_s=15)
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1]}
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("ships", ["the one", "the other"])
async def test_what_was_cancelled_in_flight_is_ahead_of_what_follows_through_another_stager(
    ships: str, kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: order is that of a process: an event whose caller gave up while it was in flight, and whose request is then
    lost, does not come behind the next one of its key that another stager of the process was given."""
    settings = settings_of(kafka.bootstrap, namespace, tmp_path, topic_partitions=1, stage_timeout_s=20)
    sent, may_be_lost = asyncio.Event(), asyncio.Event()
    begin = Session.begin

    async def lose() -> Never:
        sent.set()
        await may_be_lost.wait()
        raise KafkaConnectionError("lost by the test")

    def begin_or_lose(session: Session, node: int, request: Request) -> asyncio.Future[Response]:
        if session is one._producer._session and not sent.is_set():
            return asyncio.ensure_future(lose())
        return begin(session, node, request)

    async with stager_of(settings) as first, stager_of(settings) as second:
        one, other = (first, second) if ships == "the one" else (second, first)
        for stager in (one, other):
            assert (await stage(stager, "k", 0, id="0")).via == "topic"
        monkeypatch.setattr(Session, "begin", begin_or_lose)
        given_up = asyncio.create_task(stage(one, "k", 1))
        await sent.wait()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert (await stage(other, "k", 2)).via == "outbox"
        may_be_lost.set()
        for stager in (one, other):
            await until(stager, lambda health: health == ("healthy", ""))
        assert (await stage(other, "k", 3)).via == "topic"
        assert isinstance(other._fallback, Fallback)
        assert other._fallback._outbox is not None
        assert not other._fallback._outbox.in_doubt.of_key
    assert await asyncio.to_thread(numbers_by_key, kafka.bootstrap, namespace) == {"k": [0, 1, 2, 3]}
