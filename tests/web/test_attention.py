"""What the overview says first (O1)."""

from __future__ import annotations

from dataclasses import replace

from pipeline.breaker import State
from pipeline.park import ParkedState
from pipeline.parking.breakers import TargetState
from pipeline.redrive.job import Job, JobKind, JobState
from pipeline.redrive.model import TopicSummary
from pipeline.redrive.selection import Selection
from pipeline.transport.readiness import Readiness
from pipeline.web.attention import Attention, attention

NOW = 10_000_000.0
READY = Readiness((), ())
SHUT = TargetState("ns.a", State.OPEN, NOW - 90, "no answer", 1.0, 3.0, "", (), parked_records=1_200)
PAUSED = TargetState("ns.b", State.OPEN, NOW - 30, "paused by ann", 0.0, None, "ann", ())
WELL = TargetState("ns.c", State.CLOSED, NOW - 30, "", 0.0, None, "", (), parked_records=5)
UNKNOWN = ParkedState("definition:new.kind", 1, 3, 9, 4, 100, NOW - 3_600, "no worker knows it")
OLD = TopicSummary("ns.a.dlq", 9_000, 0, 0, 0.0, {"validation_error": 9_000}, NOW - 9_000, NOW - 8_000)
NEW = TopicSummary("ns.b.dlq", 70, 0, 0, 2.4, {"validation_error": 70}, NOW - 9_000, NOW - 1)
DEALT_WITH = TopicSummary("ns.c.dlq", 0, 10, 5, 0.0, {}, None, None)
JOB = Job(
    "0190",
    JobKind.REDRIVE,
    Selection(topic="ns.a.dlq"),
    0.0,
    "ann",
    "",
    NOW - 60,
    JobState.FAILED,
    updated_at=NOW - 5,
    error="OSError: disk full",
)


def found(
    readiness: Readiness = READY,
    targets: tuple[TargetState, ...] = (),
    parked: tuple[ParkedState, ...] = (),
    topics: tuple[TopicSummary, ...] = (),
    jobs: tuple[Job, ...] = (),
) -> list[Attention]:
    """What is said of these."""
    return list(attention(readiness, targets, parked, topics, jobs, NOW))


def test_nothing_is_said_of_what_is_well() -> None:
    """O1: a closed breaker that drains, dead letters that are dealt with, and jobs that go on or are done need nobody;
    nor does a job that failed the day before yesterday."""
    jobs = (
        replace(JOB, state=JobState.DONE),
        replace(JOB, state=JobState.RUNNING),
        replace(JOB, updated_at=NOW - 2 * 86_400),
    )
    assert found(targets=(WELL,), topics=(DEALT_WITH,), jobs=jobs) == []


def test_the_worst_comes_first() -> None:
    """O1: the worker itself, what waits, targets that take nothing before paused ones, unknown events, failed jobs,
    dead letters; each says since when or how many, why, and where to look."""
    readiness = Readiness(("it is stuck",), ((3, "PARK_MAX_BYTES"), (1, "PARK_MAX_BYTES")))
    items = found(readiness, (PAUSED, WELL, SHUT), (UNKNOWN,), (OLD, NEW), (JOB,))
    assert [(item.level, item.text, item.facts, item.detail, item.link) for item in items] == [
        ("bad", "This worker is not ready", "", "it is stuck", "/health/ready"),
        ("bad", "Staging partitions 1, 3 wait", "", "PARK_MAX_BYTES", ""),
        ("bad", "ns.a takes nothing", "for 1 min 30 s, 1,200 events parked", "no answer", "/breakers/#ns.a"),
        ("warning", "ns.b is paused by ann", "for 30 s", "", "/breakers/#ns.b"),
        (
            "warning",
            "Events wait for a worker that knows what they are",
            "4 events parked, for 1 h 0 min",
            "definition:new.kind",
            "/breakers/#unknown",
        ),
        ("warning", "A redrive ordered by ann failed", "5 s ago", "OSError: disk full", "/jobs/0190/"),
        ("warning", "New dead letters on ns.b.dlq", "12 in five minutes, 70 open", "", "/dlq/ns.b.dlq/"),
        (
            "warning",
            "Dead letters wait to be redriven or discarded",
            "9,000 on 1 topic, none new in five minutes",
            "",
            "/dlq/ns.a.dlq/",
        ),
    ]


def test_hundreds_of_a_kind_do_not_hide_the_rest() -> None:
    """O1: where hundreds of targets and topics are in trouble at once, the first are named and the others counted."""
    targets = tuple(replace(SHUT, target=f"ns.t{n}", parked_records=n) for n in range(300))
    topics = tuple(replace(NEW, topic=f"ns.t{n}.dlq", per_minute=float(n + 1)) for n in range(300))
    texts = [item.text for item in found(targets=targets, topics=topics)]
    assert len(texts) == 18
    assert texts[0] == "ns.t299 takes nothing"
    assert texts[8] == "292 more targets are shut too"
    assert texts[9] == "New dead letters on ns.t299.dlq"
    assert texts[-1] == "New dead letters on 292 more topics"


def test_the_words_stay_the_same_while_it_lasts() -> None:
    """O1: what a screen reader announces does not change with every second and every event."""
    later = replace(SHUT, parked_records=9_999, since=SHUT.since - 1_000)
    assert found(targets=(SHUT,))[0].text == found(targets=(later,))[0].text
    more = replace(NEW, open=99, per_minute=20.0)
    assert found(topics=(NEW,))[0].text == found(topics=(more,))[0].text
