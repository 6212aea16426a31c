"""The stager for tests: what it keeps, what its assertions say, waiting without polling (S8)."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from pipeline import NO_DATA, StagepostError
from pipeline.errors import ErrorClass, InvalidField, StagerClosed, StagingUnavailable, UnknownDefinition
from pipeline.testing import MemoryStager, SteppingClock
from tests.client.client_events import Order, settings

NOON = datetime(2026, 5, 6, 12, tzinfo=UTC)


@pytest.fixture
def memory() -> MemoryStager:
    """A stager whose clock stands at noon."""
    return MemoryStager(settings(outbox_dir="unused"), clock=SteppingClock(NOON))


async def test_what_is_kept(memory: MemoryStager) -> None:
    """An event is kept with all that was given, as a consumer will see it, and where it would be (S8)."""
    staged = await memory.stage(
        "thing.modelled",
        Order(number=1, noteText="x"),
        tenant="t",
        subject="s",
        policy={"dlq": "never"},
        headers={"own": "1"},
    )
    (event,) = memory.events
    assert event.payload == {"number": 1, "total": 0.0, "noteText": "x"}
    assert event.value == b'{"number":1,"total":0.0,"noteText":"x"}'
    assert (event.key, event.id, event.tenant, event.subject) == ("thing.modelled", staged.id, "t", "s")
    assert (event.time, event.policy.dlq, event.headers) == (NOON, "never", (("own", b"1"),))
    assert (event.record_key, event.staged) == (b"t", staged)
    assert ("stage-policy", b"dlq=never") in event.record_headers
    assert (staged.via, staged.topic, staged.offset) == ("topic", "streaming.staging", 0)
    assert (await memory.stage("thing.happened", 1, tenant="t")).offset == 1
    outbox = await memory.stage("thing.always", 1)
    assert (outbox.via, outbox.sequence, outbox.topic) == ("outbox", 1, None)


async def test_nothing_is_shared(memory: MemoryStager) -> None:
    """What the code under test, or the test, changes afterwards does not change what was staged (S8)."""
    payload = {"items": [1]}
    headers: dict[str, str | bytes] = {"own": "1"}
    await memory.stage("thing.happened", payload, headers=headers)
    payload["items"].append(2)
    headers["own"] = "2"
    before = memory.events
    seen = before[0].payload
    assert isinstance(seen, dict)
    seen.clear()
    await memory.stage("thing.happened", None)
    assert len(before) == 1
    assert memory.events[0].payload == {"items": [1]}
    assert memory.events[0].headers == (("own", b"1"),)
    memory.clear()
    memory.assert_nothing_staged()


async def test_failing(memory: MemoryStager) -> None:
    """Told to fail, it raises just that and keeps nothing; what cannot be staged is told first (S8)."""
    down = StagingUnavailable("x", ErrorClass.BROKER_UNAVAILABLE, "told to", unknown=False)
    memory.fail_with(down)
    with pytest.raises(StagingUnavailable) as caught:
        await memory.stage("thing.happened", 1)
    assert caught.value is down
    with pytest.raises(InvalidField):
        memory.stage_blocking("thing.happened", 1, id="")
    assert (await memory.health()).state == "down"
    memory.assert_nothing_staged()
    memory.fail_with(None)
    await memory.stage("thing.happened", 1)
    memory.assert_staged_count("thing.happened", 1)
    assert (await memory.health()).state == "healthy"


async def test_assert_staged(memory: MemoryStager) -> None:
    """It finds the first event whose named fields are as given; a payload is compared as a consumer sees it (S8)."""
    await memory.stage("thing.modelled", Order(number=1), tenant="t", id="one")
    await memory.stage(
        "thing.modelled", {"number": 2}, tenant="u", subject="s", time=NOON, headers={"own": "1"}
    )
    await memory.stage("thing.raw", b"\x00")
    await memory.stage("thing.happened", NO_DATA)
    assert memory.assert_staged("thing.modelled").id == "one"
    found = memory.assert_staged("thing.modelled", subject="s")
    assert memory.assert_staged("thing.modelled", payload=Order(number=1)).id == "one"
    assert (
        memory.assert_staged("thing.modelled", payload={"total": 0.0, "number": 1, "noteText": None}).id
        == "one"
    )
    assert memory.assert_staged("thing.modelled", payload=b'{"number":2}') == found
    assert memory.assert_staged("thing.modelled", tenant="u", time=NOON, headers=[("own", b"1")]) == found
    assert memory.assert_staged("thing.modelled", subject=None).id == "one"
    assert memory.assert_staged("thing.raw", payload=b"\x00").is_json is False
    assert memory.assert_staged("thing.happened", payload=NO_DATA).value is None


async def test_what_a_failure_says(memory: MemoryStager) -> None:
    """A failing assertion says what was staged instead, and in which field it differs (S8)."""
    with pytest.raises(AssertionError, match=r"no event 'thing\.raw' was staged; nothing was staged"):
        memory.assert_staged("thing.raw")
    await memory.stage("thing.happened", {"n": 1}, tenant="t")
    with pytest.raises(AssertionError) as caught:
        memory.assert_staged("thing.happened", tenant="u", payload={"n": 1})
    assert "1. thing.happened: id=" in str(caught.value)
    assert "its tenant is 't', not 'u'" in str(caught.value)
    assert "its payload" not in str(caught.value)
    with pytest.raises(AssertionError, match="was staged 1 times, not 2; 1 event was staged:"):
        memory.assert_staged_count("thing.happened", 2)
    with pytest.raises(AssertionError, match="not all events are of tenant 'u'"):
        memory.assert_tenant("u")
    with pytest.raises(AssertionError, match="none was expected; 1 event was staged:"):
        memory.assert_nothing_staged()


async def test_tenants(memory: MemoryStager) -> None:
    """All events must be of the tenant, and there must be one: a leak into another tenant is found (S8)."""
    with pytest.raises(AssertionError, match="nothing was staged"):
        memory.assert_tenant("t")
    await memory.stage("thing.happened", 1, tenant="t")
    memory.assert_tenant("t")
    await memory.stage("thing.happened", 1)
    with pytest.raises(AssertionError):
        memory.assert_tenant("t")
    memory.clear()
    await memory.stage("thing.happened", 1)
    memory.assert_tenant(None)


@pytest.mark.parametrize("name", ["assert_staged", "assert_staged_count"])
def test_a_misspelt_key_is_not_an_empty_result(memory: MemoryStager, name: str) -> None:
    """Asserting over a key that does not exist is a mistake in the test (S8)."""
    arguments = ("thing.hapened", 0) if name == "assert_staged_count" else ("thing.hapened",)
    with pytest.raises(UnknownDefinition):
        getattr(memory, name)(*arguments)


async def test_waiting(memory: MemoryStager) -> None:
    """It waits for an event from a thread or a task, by key or predicate; one already there counts (S8)."""
    threading.Timer(0.05, memory.stage_blocking, ("thing.raw", b"1")).start()
    assert (await memory.wait_for_staged("thing.raw")).value == b"1"
    assert (await memory.wait_for_staged(lambda event: event.value == b"1", timeout_s=0)).key == "thing.raw"

    async def later() -> None:
        for number in range(3):
            await memory.stage("thing.happened", number)

    waiting = asyncio.create_task(memory.wait_for_staged(lambda event: event.payload == 2))
    await asyncio.gather(later(), waiting)
    assert waiting.result().payload == 2


async def test_waiting_in_vain(memory: MemoryStager) -> None:
    """At the limit it fails and says what was staged; what the predicate raises reaches the test (S8)."""
    await memory.stage("thing.happened", 1)
    with pytest.raises(
        AssertionError, match=r"no event 'thing.raw' was staged within 0.01 s; 1 event was staged:"
    ):
        await memory.wait_for_staged("thing.raw", timeout_s=0.01)
    with pytest.raises(ZeroDivisionError):
        await memory.wait_for_staged(lambda _: bool(1 / 0))
    with pytest.raises(UnknownDefinition):
        await memory.wait_for_staged("thing.hapened")
    assert not memory._waiting


def test_threads(memory: MemoryStager) -> None:
    """Threads stage into it at once; none is lost, and offsets are as they would be (S8)."""

    def run(name: int) -> None:
        for number in range(200):
            memory.stage_blocking("thing.happened", number, tenant=f"t{name}")

    threads = [threading.Thread(target=run, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.assert_staged_count("thing.happened", 1_600)
    places = {(event.staged.partition, event.staged.offset) for event in memory.events}
    assert len(places) == 1_600


async def test_closed(memory: MemoryStager) -> None:
    """Once closed it takes nothing, as the real one (S8, S9)."""
    async with memory:
        await memory.stage("thing.happened", 1)
    with pytest.raises(StagerClosed):
        await memory.stage("thing.happened", 1)
    assert isinstance(StagerClosed(), StagepostError)


def test_stepping_clock() -> None:
    """It goes forward by what it is told, and never by itself."""
    clock = SteppingClock(NOON)
    assert (clock.time(), clock.monotonic()) == (NOON.timestamp(), 0.0)
    clock.step(1.5)
    assert (clock.time(), clock.monotonic()) == (NOON.timestamp() + 1.5, 1.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.step(-1)
    with pytest.raises(ValueError, match="no time zone"):
        SteppingClock(datetime(2026, 1, 1))  # noqa: DTZ001 -- the point
