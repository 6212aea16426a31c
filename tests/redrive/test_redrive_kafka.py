"""Redrive, discard and scan on a real Kafka: what comes back, in which order, how often, and who is told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from pipeline.kafka.connection import Connection
from pipeline.kafka.topics import delete_before as delete_before_on
from pipeline.redrive import forget
from pipeline.redrive.entry import index_entry
from pipeline.redrive.job import JobKind, JobState, WrongJobState
from pipeline.redrive.model import Coordinates, NoSuchLetter
from pipeline.redrive.selection import LetterState, Selection, WrongSelection
from tests.kafka_client import OutRecord, create_topic, produce, record_count
from tests.redrive.bench import letter, running, staged_headers
from tests.redrive.letters import offsets

pytestmark = pytest.mark.kafka

FRAMED = [("content-type", b"application/json"), ("ce_specversion", b"1.0"), ("ce_id", b"a")]


async def test_a_redrive_gives_the_record_back(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """Q3, Q5, S3: key, bytes and headers as they were staged, but for the first failure and the count; what framing
    and failing had put on is gone. The letter is redriven then, and the same selection finds nothing."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        trace = [("traceparent", b"00-1"), ("x", b"\xff"), ("x", b"2")]
        ((partition, offset),) = await bench.put(
            [letter("a", more=trace, framed=FRAMED, value=b'{"a":  1}', source=(2, 77))]
        )
        full = await bench.redrive.record(bench.dlq, partition, offset)
        assert (full.value, full.message, full.letter.source_offset) == (b'{"a":  1}', "id is empty", 77)
        preview = await bench.redrive.preview(Selection(topic=bench.dlq))
        assert (preview.count, preview.groups[0].count) == (1, 1)

        job = await bench.run(JobKind.REDRIVE, Selection(topic=bench.dlq))
        assert (job.state, job.total, job.done, dict(job.held), job.left) == ("done", 1, 1, {}, 0)
        (record,) = bench.read("staging")
        assert (record.partition, record.key, record.value) == (2, b"acme", b'{"a":  1}')
        assert record.headers == [
            *staged_headers("a"),
            *trace,
            ("dlq-first-failure-at", b"2026-01-02T03:04:05.000000Z"),
            ("dlq-redrive-count", b"1"),
        ]
        again = await bench.run(JobKind.REDRIVE, Selection())
        assert (again.state, again.total, again.done) == ("done", 0, 0)
        assert len(bench.read("staging")) == 1
        (ended,) = (await bench.redrive.letters(Selection(state=LetterState.REDRIVEN))).letters
        assert ended.offset == offset
        (ordered,) = (one for one in bench.audit("redrive.ordered") if one["subject"] == job.id)
        (done,) = (one for one in bench.audit("redrive.done") if one["subject"] == job.id)
        assert (ordered["by"], ordered["subject"], ordered["count"]) == ("ann", job.id, 1)
        assert (done["by"], done["subject"], done["count"]) == ("ann", job.id, 1)
        assert ordered["selection"] == {"topic": bench.dlq, "state": "open"}


async def test_the_order_of_a_key_is_that_of_staging(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """Q3, T5: among the redriven, the events of a key come in the order in which they were staged, also where they
    were dead-lettered in another, and over the borders of pages."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        staged = [(f"{tenant}-{number:04}", tenant) for number in range(700) for tenant in ("a", "b")]
        letters = [
            letter(event, tenant=tenant, source=(ord(tenant) % 3, int(event[2:]))) for event, tenant in staged
        ]
        await bench.put(sorted(letters, key=lambda record: hash(str(record.headers))))
        job = await bench.run(JobKind.REDRIVE, Selection())
        assert job.done == 1_400
        for tenant in ("a", "b"):
            ids = [r.header["stage-id"].decode() for r in bench.read("staging") if r.key == tenant.encode()]
            assert ids == [event for event, of in staged if of == tenant]


async def test_who_stops_in_good_order_records_what_is_sent(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """Q3: where a leader stops within a page, no letter that is back on staging stands open, but for the one whose
    acknowledgement had not come: the next leader would send it again."""

    def unrecorded() -> int:
        staging, state = (
            record_count(kafka.bootstrap, f"{namespace}.{name}") for name in ("staging", "dlq.state")
        )
        return staging - state

    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        await bench.put(letter(f"e{number}", source=(0, number)) for number in range(100))
        await bench.redrive.start(JobKind.REDRIVE, Selection(), by="ann", rate=20.0)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(unrecorded) < 2:
                pass
        await bench.redrive.close()
        assert unrecorded() <= 1
        assert len(bench.read("staging")) < 100


async def test_what_must_not_or_cannot_go_back(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """Q2, Q3: redriven `MAX_REDRIVES` times already; payload left out, and staging has it no more or has another
    record there. They stay open, counted by reason. A payload that staging still has is read from there."""
    async with running(kafka.bootstrap, namespace, tmp_path, max_redrives=2) as bench:
        omitted = [("dlq-payload-omitted", b"true"), ("dlq-payload-bytes", b"7")]
        original = OutRecord(b"acme", b"payload", staged_headers("kept"), 1)
        ((_, offset),) = produce(bench.bootstrap, f"{namespace}.staging", [original])
        await bench.put(
            [
                letter("often", more=[("dlq-redrive-count", b"2")]),
                letter("once", more=[("dlq-redrive-count", b"1")]),
                letter("kept", value=None, source=(1, offset), last=omitted),
                letter("other", value=None, source=(1, offset), last=omitted),
                letter("gone", value=None, source=(1, 99), last=omitted),
            ]
        )
        assert (await bench.redrive.preview(Selection())).too_often == 1
        job = await bench.run(JobKind.REDRIVE, Selection())
        assert (job.done, dict(job.held)) == (2, {"redriven_too_often": 1, "payload_not_kept": 2})
        back = {record.header["stage-id"]: record for record in bench.read("staging")}
        assert back[b"once"].header["dlq-redrive-count"] == b"2"
        assert back[b"kept"].value == b"payload"
        assert len(bench.read("staging")) == 3
        left = (await bench.redrive.letters(Selection())).letters
        assert {one.id for one in left} == {"often", "other", "gone"}


async def test_a_discard_leaves_an_audit_record_of_each(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T6, Q5, O3: what is discarded is ended, with a record of its id, its place, who, and why; nothing is staged."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        places = await bench.put([letter("a"), letter("b", tenant="other")])
        job = await bench.run(JobKind.DISCARD, Selection(tenant="acme"))
        assert (job.done, job.total) == (1, 1)
        (entry,) = bench.audit("discarded")
        assert (entry["id"], entry["by"], entry["reason"], entry["job"]) == ("a", "ann", "because", job.id)
        assert (entry["topic"], entry["partition"], entry["offset"]) == (bench.dlq, *places[0])
        assert not bench.read("staging")
        (topic,) = (await bench.redrive.overview()).topics
        assert (topic.open, topic.redriven, topic.discarded) == (1, 0, 1)


async def test_a_job_is_paused_goes_on_and_is_cancelled(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """O2, O3: a job at its rate; paused it rests, resumed it goes on where it was, cancelled it ends and what is done
    stays done; an ended one takes no more orders. Each order is audited."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        await bench.put([letter(f"e{number}", source=(0, number)) for number in range(100)])
        job = await bench.redrive.start(JobKind.REDRIVE, Selection(), by="ann", rate=20)
        await bench.redrive.pause(job.id, by="bob")
        async with asyncio.timeout(20):
            while bench.redrive.job(job.id).state is not JobState.PAUSED:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        paused = bench.redrive.job(job.id)
        assert paused.done < 100
        resumed = await bench.redrive.resume(job.id, by="bob")
        assert resumed.state in {JobState.WAITING, JobState.RUNNING}
        async with asyncio.timeout(20):
            while bench.redrive.job(job.id).done <= paused.done:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await bench.redrive.cancel(job.id, by="cid")
        ended = await bench.ended(job.id)
        assert ended.state is JobState.CANCELLED
        assert 0 < ended.done < 100
        assert len(bench.read("staging")) == ended.done
        with pytest.raises(WrongJobState, match="cancelled already"):
            await bench.redrive.resume(job.id, by="bob")
        assert [entry["by"] for entry in bench.audit("job.pause")] == ["bob"]
        assert bench.audit("redrive.cancelled")[0]["count"] == ended.done
        assert not bench.audit("redrive.done")


async def test_a_pause_of_a_target_stands_over_restarts(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """O3: each worker is told of a pause, also one that starts later; a reset is told once, to those that run."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        await bench.redrive.order_target("t1", "pause", by="ann")
        await bench.redrive.order_target("t2", "pause", by="ann")
        await bench.redrive.order_target("t2", "resume", by="bob")
        await bench.redrive.order_target("t1", "reset", by="ann")
        told = [(order.target, order.want, order.by) for order in bench.orders]
        assert told[-2:] == [("t2", "resume", "bob"), ("t1", "reset", "ann")]
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        told = [(order.target, order.want, order.by) for order in bench.orders]
        assert told[-1:] == [("t2", "resume", "bob")]
        assert ("t1", "pause", "ann") in told
        assert ("t1", "reset", "ann") not in told


async def test_a_scan_finds_the_copy_that_a_crash_left_unindexed(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """Q5: a worker that dies between a dead letter and its entry in the index dead-letters the record again: the first
    copy is known to nobody until a scan; it then tells the same staging record, and can be discarded alone."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        create_topic(kafka.bootstrap, f"{namespace}.crash.dlq", 1)
        topic = f"{namespace}.crash.dlq"
        copy, known = letter("a", source=(1, 7)), letter("a", source=(1, 7))
        produce(kafka.bootstrap, topic, [copy, known])
        entry = index_entry(
            Coordinates(topic, 0, 1), known.key, known.value, list(known.headers), failed_at=1.0
        )
        produce(kafka.bootstrap, f"{namespace}.dlq.index", [OutRecord(entry[0], entry[1])])
        await bench.redrive.caught_up()
        assert [one.offset for one in (await bench.redrive.letters(Selection(topic=topic))).letters] == [1]

        scan = await bench.run(JobKind.SCAN, Selection(topic=topic))
        assert (scan.total, scan.done) == (2, 1)
        found = (await bench.redrive.letters(Selection(topic=topic))).letters
        assert {(one.offset, one.id, one.source_partition, one.source_offset) for one in found} == {
            (0, "a", 1, 7),
            (1, "a", 1, 7),
        }
        copies = Selection(topic=topic, partition=0, first_offset=0, last_offset=0)
        assert (await bench.run(JobKind.DISCARD, copies)).done == 1
        assert (await bench.run(JobKind.REDRIVE, Selection(topic=topic))).done == 1
        assert len(bench.read("staging")) == 1


async def test_a_scan_takes_in_only_dead_letters(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """O2: dead letters that the index does not know get known, once; what is no dead letter is counted and left out.
    A topic of our own is not scanned, and what is not known is told so."""
    async with running(kafka.bootstrap, namespace, tmp_path) as bench:
        create_topic(kafka.bootstrap, f"{namespace}.old.dlq", 2)
        topic = f"{namespace}.old.dlq"
        produce(kafka.bootstrap, topic, [letter("a"), letter("b"), OutRecord(b"k", b"no letter")])
        with pytest.raises(NoSuchLetter, match="dlq scan"):
            await bench.redrive.record(topic, 0, 0)
        job = await bench.run(JobKind.SCAN, Selection(topic=topic))
        assert (job.total, job.done, dict(job.held)) == (3, 2, {"not_a_dead_letter": 1})
        again = await bench.run(JobKind.SCAN, Selection(topic=topic))
        assert (again.total, again.done) == (3, 0)
        assert len((await bench.redrive.letters(Selection(topic=topic))).letters) == 2
        for wrong in (None, f"{namespace}.staging", f"{namespace}.jobs"):
            with pytest.raises(WrongSelection, match="topic"):
                await bench.redrive.start(JobKind.SCAN, Selection(topic=wrong), by="ann")
        with pytest.raises(WrongSelection, match="rate"):
            await bench.redrive.start(JobKind.REDRIVE, Selection(), by="ann", rate=float("nan"))


async def test_what_was_deleted_is_not_redriven(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q5, O1: a job does not meet dead letters that their topic has deleted and the index has forgotten; of those that
    are deleted under way it says so, and its letters are each met once."""
    monkeypatch.setattr(forget, "_EVERY_S", 0.05)
    async with running(kafka.bootstrap, namespace, tmp_path, partitions=1) as bench:
        await bench.put([letter(f"e{number:02}", source=(0, number)) for number in range(60)])

        async def delete_before(offset: int) -> None:
            await delete_before_on(Connection((kafka.bootstrap,), "tests"), bench.dlq, {0: offset})

        async def known() -> list[int]:
            return offsets((await bench.redrive.letters(Selection(state=None), limit=100)).letters)

        async def forgotten(offset: int) -> None:
            async with asyncio.timeout(30):
                while (await known())[-1] < offset:  # noqa: ASYNC110 -- a thread does it
                    await asyncio.sleep(0.02)

        await delete_before(20)
        await forgotten(20)
        assert (await bench.redrive.preview(Selection())).count == 40
        job = await bench.redrive.start(JobKind.REDRIVE, Selection(), by="ann", rate=40)
        async with asyncio.timeout(20):
            while bench.redrive.job(job.id).done < 10:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await delete_before(50)
        ended = await bench.ended(job.id)
        assert (ended.state, ended.total) == ("done", 40)
        assert set(ended.held) <= {"deleted_from_its_topic"}
        ids = [record.header["stage-id"].decode() for record in bench.read("staging")]
        assert ids == sorted(set(ids))
        assert len(ids) == ended.done
        assert set(ids) >= {f"e{number}" for number in range(50, 60)}
        await forgotten(50)
        assert bench.audit("redrive.done")[0]["count"] == ended.done
