"""One suite for all stagers, so that the fake and the disabled one behave as the real one does (S8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from pipeline import NO_DATA, NoopStager, Stager
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import InvalidField, SettingsError, StagepostError, StagerClosed, StagingUnavailable
from pipeline.outbox.row import BadRow
from pipeline.testing import MemoryStager
from tests.client.client_events import Order, settings
from tests.kafka_client import read_all

NOON = datetime(2026, 5, 6, 12, tzinfo=UTC)
REFUSED: dict[str, dict[str, object]] = {
    "unknown": {"key": "thing.hapened"},
    "disabled": {"key": "thing.disabled"},
    "foreign": {"key": "thing.foreign"},
    "no-json": {"payload": b"{"},
    "no-fit": {"key": "thing.modelled", "payload": {"number": "x"}},
    "too-large": {"key": "thing.raw", "payload": b"x" * 1_000_001},
    "tenant": {"tenant": "x" * 257},
    "subject": {"subject": "a\nb"},
    "id": {"id": ""},
    "time": {"time": datetime(2026, 1, 1)},  # noqa: DTZ001 -- the point
    "policy": {"policy": {"direct": "skip"}},
    "headers": {"headers": {"ce_id": "x"}},
}
"""Calls that no stager which checks may take."""

ACCEPTED: tuple[dict[str, object], ...] = (
    {"key": "thing.happened", "payload": {"ä": [1, None]}, "tenant": "t", "subject": "s"},
    {"key": "thing.happened", "payload": None, "subject": "語"},
    {"key": "thing.happened", "payload": NO_DATA},
    {"key": "thing.modelled", "payload": Order(number=1, noteText="x"), "policy": {"outbox": "never"}},
    {"key": "thing.raw", "payload": b"\x00\xff", "headers": [("own", "1"), ("own", b"\xff")]},
    {"key": "clock.ticked", "payload": 1, "tenant": "t"},
)


@pytest.fixture(
    params=["memory", "noop", *(pytest.param(n, marks=pytest.mark.kafka) for n in ("kafka", "outbox"))]
)
async def stager(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> AsyncIterator[Stager]:
    """Each stager in turn, started; the real one without and with an outbox."""
    fields: dict[str, object] = {"namespace": namespace, "enabled": request.param != "noop"}
    if request.param in ("kafka", "outbox"):
        broker: Brokers = request.getfixturevalue("kafka")
        fields["brokers"] = broker.bootstrap
    if request.param != "kafka":
        fields["outbox_dir"] = str(tmp_path)
    given = settings(**fields)
    async with MemoryStager(given) if request.param == "memory" else Stager(given) as started:
        yield started


def call(arguments: dict[str, object], **defaults: object) -> dict[str, object]:
    """The arguments of a sound call but for what is given."""
    return {"key": "thing.happened", "payload": {"n": 1}, **defaults, **arguments}


def test_the_settings_choose() -> None:
    """`Stager(settings)` is the real one, or the one that does nothing while staging is disabled (S8, E: ENABLED)."""
    assert isinstance(Stager(settings()), KafkaStager)
    assert isinstance(Stager(settings(enabled=False)), NoopStager)


async def test_an_outbox_is_required_where_any_policy_may_use_it() -> None:
    """OUTBOX_DIR is required unless every definition says outbox=never; the error names both (E, S2)."""
    with pytest.raises(SettingsError) as caught:
        await Stager(settings(event_policies="thing.raw.outbox=never")).start()
    (problem,) = caught.value.problems
    assert problem.startswith("STREAMING_OUTBOX_DIR: required")
    assert "clock.ticked" in problem
    assert "thing.modelled" in problem
    for fine in ("thing.raw", "thing.never", "thing.disabled"):  # by variable, by definition, never staged
        assert fine not in problem


async def test_what_a_call_returns(stager: Stager) -> None:
    """The id given, or a new one; and by which way it is durable (S1, S2)."""
    given = await stager.stage("thing.happened", {"n": 1}, id="mine", tenant="t")
    assert given.id == "mine"
    assert len((await stager.stage("thing.happened", {"n": 1})).id) == 36
    if isinstance(stager, NoopStager):
        assert given == ("mine", "noop", None, None, None, None)
    else:
        following = await stager.stage("thing.happened", {"n": 2}, tenant="t")
        assert (given.via, given.topic) == ("topic", f"{stager._settings.namespace}.staging")
        assert given.offset == 0
        assert following.offset in (1, 2)  # the one between may share the partition
        assert given.partition == following.partition


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(stager: Stager, name: str) -> None:
    """The fake refuses what the real one refuses, with the same words, in a task and in a thread (S4, S8)."""
    if isinstance(stager, NoopStager):
        return
    reference = MemoryStager(stager._settings)
    arguments = call(REFUSED[name])
    with pytest.raises(StagepostError) as expected:
        reference.stage_blocking(**arguments)  # type: ignore[arg-type]
    with pytest.raises(type(expected.value)) as caught:
        await stager.stage(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == str(expected.value)
    with pytest.raises(type(expected.value)) as caught:
        await asyncio.to_thread(stager.stage_blocking, **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == str(expected.value)


async def test_the_record(stager: Stager, request: pytest.FixtureRequest) -> None:
    """The fake keeps the very record that stands on the topic: partition, key, value, headers (S8, S10)."""
    fake = MemoryStager(stager._settings)
    for number, arguments in enumerate(ACCEPTED):
        sound = call(arguments, id=f"id-{number}", time=NOON)
        await stager.stage(**sound)  # type: ignore[arg-type]
        await fake.stage(**sound)  # type: ignore[arg-type]
    expected = {
        (event.staged.partition, event.staged.offset, event.record_key, event.value, event.record_headers)
        for event in fake.events
    }
    assert len(expected) == len(ACCEPTED)
    if isinstance(stager, KafkaStager):
        bootstrap = request.getfixturevalue("kafka").bootstrap
        records = read_all(bootstrap, f"{stager._settings.namespace}.staging")
        assert {(r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in records} == expected


async def test_outbox_always(stager: Stager) -> None:
    """outbox=always is durable in the outbox, each row behind the one before; without an outbox it is refused (D6)."""
    if isinstance(stager, KafkaStager) and not stager._settings.outbox_dir:
        with pytest.raises(StagingUnavailable, match="OUTBOX_DIR"):
            await stager.stage("thing.happened", 1, policy={"outbox": "always"})
    else:
        first, second = [await stager.stage("thing.always", n, id=str(n)) for n in range(2)]
        if isinstance(stager, NoopStager):
            assert (first.via, second.sequence) == ("noop", None)
        else:
            assert (first.via, first.id, first.topic, first.offset) == ("outbox", "0", None, None)
            assert first.sequence is not None
            assert second.sequence == first.sequence + 1


async def test_prepared_rows(stager: Stager, request: pytest.FixtureRequest) -> None:
    """A prepared event is staged when its row is relayed, not before, as the record it would have been (S11)."""
    fake = MemoryStager(stager._settings)
    for number, arguments in enumerate(ACCEPTED):
        sound = call(
            {name: value for name, value in arguments.items() if name != "policy"},
            id=f"id-{number}",
            time=NOON,
        )
        prepared = stager.prepare(**sound)  # type: ignore[arg-type]
        assert prepared.id == f"id-{number}"
        if isinstance(stager, MemoryStager):
            stager.assert_staged_count(
                str(sound["key"]), sum(a["key"] == sound["key"] for a in ACCEPTED[:number])
            )
        staged = await stager.relay(prepared.bytes)
        assert staged.id == prepared.id
        assert staged[1:] == (await fake.stage(**sound))[1:] or isinstance(stager, NoopStager)  # type: ignore[arg-type]
    expected = {(event.record_key, event.value, event.record_headers) for event in fake.events}
    if isinstance(stager, MemoryStager):
        assert {(event.record_key, event.value, event.record_headers) for event in stager.events} == expected
        assert [(event.tenant, event.payload) for event in stager.events] == [
            (event.tenant, event.payload) for event in fake.events
        ]
    if isinstance(stager, KafkaStager):
        bootstrap = request.getfixturevalue("kafka").bootstrap
        records = read_all(bootstrap, f"{stager._settings.namespace}.staging")
        assert {(r.key, r.value, tuple(r.headers)) for r in records} == expected
    with pytest.raises(BadRow):
        await stager.relay(b"")
    if not isinstance(stager, NoopStager):
        with pytest.raises(InvalidField):
            stager.prepare("thing.happened", 1, id="")


async def test_many_at_once(stager: Stager) -> None:
    """Tasks and threads stage at once; each gets its own answer (S1)."""
    tasks = [stager.stage("thing.happened", n, id=f"task-{n}", tenant=f"t{n % 7}") for n in range(100)]
    threads = [
        asyncio.to_thread(stager.stage_blocking, "thing.happened", n, id=f"thread-{n}", tenant=f"t{n % 7}")
        for n in range(50)
    ]
    answers = await asyncio.gather(*tasks, *threads)
    assert [answer.id for answer in answers] == [f"task-{n}" for n in range(100)] + [
        f"thread-{n}" for n in range(50)
    ]
    if not isinstance(stager, NoopStager):
        assert len({(answer.partition, answer.offset) for answer in answers}) == 150


async def test_order(stager: Stager) -> None:
    """Calls of one key that do not overlap are staged in the order of the calls, from tasks and threads (S6)."""
    answers = []
    for number in range(20):
        answers.append(await stager.stage("thing.happened", number, tenant="t"))
        answers.append(await asyncio.to_thread(stager.stage_blocking, "thing.happened", number, tenant="t"))
    if not isinstance(stager, NoopStager):
        assert [answer.offset for answer in answers] == list(range(40))


async def test_life(stager: Stager) -> None:
    """Healthy while open; closing twice is once; afterwards nothing is taken and health says why (S9)."""
    await stager.stage("thing.happened", 1)
    assert await stager.health() == (
        "healthy",
        "staging is disabled" if isinstance(stager, NoopStager) else "",
    )
    await stager.close()
    await stager.close()
    with pytest.raises(StagerClosed):
        await stager.stage("thing.happened", 1)
    with pytest.raises(StagerClosed):
        await asyncio.to_thread(stager.stage_blocking, "thing.happened", 1)
    health = await stager.health()
    assert health.state == "down"
    assert "closed" in health.reason
