"""The audit is read back to what was asked for, however much was written after it (O1, O3)."""

from __future__ import annotations

import json

import pytest

from devtools.kafka import Brokers
from pipeline.audit import Entry, record_of
from pipeline.kafka.connection import Connection
from pipeline.web.audit import Line, tail
from tests.kafka_client import OutRecord, create_topic, produce
from tests.web.asking import HTML, Site

pytestmark = pytest.mark.kafka


def written(number: int, action: str, partition: int) -> OutRecord:
    """The audit record with this number, of that second."""
    key, value, _ = record_of(Entry(action, "ann", 1_767_000_000.0 + number, f"subject-{number}"))
    return OutRecord(key, value, (), partition)


async def test_what_is_asked_for_is_found_behind_thousands_of_others(kafka: Brokers, namespace: str) -> None:
    """O3: a discard leaves a record for each dead letter; what was ordered before it is still found, newest first, and
    where reading was ended early it is said that not all was looked at."""
    topic = f"{namespace}.audit"
    create_topic(kafka.bootstrap, topic, 3)
    orders = {0: 0, 500: 1, 1_000: 2}
    produce(
        kafka.bootstrap,
        topic,
        [
            written(n, "discard.ordered" if n in orders else "discarded", orders.get(n, n % 3))
            for n in range(4_000)
        ],
    )
    connection = Connection((kafka.bootstrap,), "tests")
    found = await tail(connection, topic, 10, lambda entry: entry["action"] == "discard.ordered")
    assert [line.subject for line in found.lines] == ["subject-1000", "subject-500", "subject-0"]
    assert (found.looked_at, found.is_whole) == (4_000, True)

    latest = await tail(connection, topic, 10)
    assert [line.subject for line in latest.lines] == [f"subject-{n}" for n in range(3_999, 3_989, -1)]
    assert (latest.looked_at, latest.is_whole) == (30, True)

    part = await tail(connection, topic, 10, lambda entry: entry["by"] == "bob", most_records=1_000)
    assert (part.lines, part.is_whole) == ([], False)
    assert 1_000 <= part.looked_at < 4_000


@pytest.mark.parametrize(
    ("action", "subject", "link"),
    [
        ("redrive.ordered", "0190-1", "/jobs/0190-1/"),
        ("move-on.done", "0190-1", "/jobs/0190-1/"),
        ("job.pause", "0190-1", "/jobs/0190-1/"),
        ("breaker.reset", "ns.a", "/breakers/#ns.a"),
        ("discarded", "ns.a.dlq/0/12", "/dlq/ns.a.dlq/0/12/"),
        ("skipped", "an-id", ""),
        ("redrive.ordered", "//evil.example/<b>", "/jobs/%2F%2Fevil.example%2F%3Cb%3E/"),
    ],
)
def test_a_line_leads_to_what_was_changed(action: str, subject: str, link: str) -> None:
    """O1: from who did it to what became of it."""
    line = Line(at="", action=action, by="ann", subject=subject, facts={}, partition=0, offset=0)
    assert line.link == link


def test_the_page_finds_what_is_old(site: Site, kafka: Brokers) -> None:
    """O1: the page shows the latest of an action, not what of the latest records is of it."""
    topic = site.get("/catalog/").data["definitions"][0]["topic"]
    assert site.post(f"/breakers/{topic}/pause", {"reason": "an old one"}).status == 200
    assert site.post(f"/breakers/{topic}/resume").status == 200
    namespace = topic.partition(".")[0]
    noise = json.dumps({"action": "noise", "at": "2026-01-01T00:00:00Z", "by": "nobody"}).encode()
    produce(kafka.bootstrap, f"{namespace}.audit", [OutRecord(None, noise) for _ in range(200)])
    found = site.get("/audit/?action=breaker.pause&limit=1").data
    assert [line["facts"]["reason"] for line in found["lines"]] == ["an old one"]
    assert found["is_whole"]
    page = site.get("/audit/?action=breaker.pause&limit=1", HTML).text
    assert "an old one" in page
    assert f'href="/breakers/#{topic}"' in page
