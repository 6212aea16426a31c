"""`dlq list|show|redrive|discard|scan` and `jobs ...` against a worker and Kafka; how answers are shown (O2, O3)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from devtools.kafka import Brokers
from pipeline.cli.dlq_reports import job_line, job_text, plain, preview_text
from tests.cli.command_line import Answer, run
from tests.kafka_client import OutRecord, create_topic, produce, wait_until
from tests.web.asking import TOKEN, TOKENS, Site
from tests.worker.shop_records import CATALOG, staged, wait_committed
from tests.worker_harness import WorkerProcess

JOB = {
    "id": "j",
    "kind": "redrive",
    "state": "running",
    "total": 8,
    "done": 3,
    "held": {"redriven_too_often": 1},
    "error": "",
}


def test_how_far_a_job_is() -> None:
    """O2: a bar for people, and what was left as it is, by reason."""
    assert job_line(JOB) == "[###############...............] 4 of 8  running"
    assert job_line({**JOB, "total": None, "done": 0, "held": {}}).endswith("0 of ?  running")
    assert job_text(JOB).splitlines() == [
        "job j: redrive running, 3 of 8 done",
        "1 left as they are: redriven too often",
    ]


def test_a_terminal_obeys_nothing_that_a_record_says() -> None:
    """O2: whatever stands in a record, its escapes are shown, not carried out."""
    assert plain("a\x1b[2Jb\r\u202ec\n\té") == "a\\x1b[2Jb\\r\\u202ec\n\té"


def steer_a_job(site: Site, settings: Mapping[str, str]) -> None:
    """A redrive that somebody else ordered, so slow that it does not end by itself: found, paused, resumed, ended."""

    def jobs(*words: str) -> Answer:
        return run("jobs", *words, "--token", TOKEN, **settings)

    def becomes(state: str) -> None:
        wait_until(
            lambda: site.get(f"/jobs/{job}/").data["job"]["state"] == state, 20, f"the job to be {state}"
        )

    order = {"kind": "redrive", "tenant": "t3", "rate": 0.001}
    job = site.post("/jobs/", order).data["job"]["id"]
    becomes("running")
    listed = jobs("list")
    assert (listed.status, listed.out.splitlines()[0].split()) == (
        0,
        ["JOB", "KIND", "STATE", "DONE", "OF", "BY", "ORDERED", "SELECTED"],
    )
    assert listed.row(job)[1:3] + listed.row(job)[-1:] == ["redrive", "running", "tenant t3, state open"]
    assert jobs("pause", job).status == 0
    becomes("paused")
    shown = jobs("show", job, "--json")
    assert (shown.status, shown.document["state"], shown.document["total"]) == (0, "paused", 2)
    assert jobs("resume", job).status == 0
    becomes("running")
    assert jobs("cancel", job).status == 0
    followed = jobs("show", job, "--follow")
    assert (followed.status, "redrive cancelled" in followed.out) == (1, True), followed.err
    again = jobs("cancel", job)
    assert (again.status, "cancelled already" in again.err) == (1, True)
    assert "no-such-job" in jobs("pause", "no-such-job").err


def test_what_is_cut_is_seen_to_be_cut() -> None:
    """O2: a long message ends with an ellipsis in a table; so no one takes half of it for all."""
    group = {
        "count": 1_200,
        "topic": "t.dlq",
        "fingerprint": "f",
        "error_class": "validation_error",
        "message": "x" * 61,
        "definition": "a",
        "schema_version": "",
        "tenant_count": 3,
        "first_at": 0.0,
        "last_at": 0.0,
    }
    shown = preview_text(
        {
            "histogram": [],
            "groups": [group, {**group, "message": "y" * 60}],
            "count": 2,
            "too_often": 0,
            "kinds": 2,
        }
    )
    assert f" {'x' * 59}…  a " in shown
    assert f" {'y' * 60}  a " in shown


@pytest.mark.kafka
def test_the_operators_way(kafka: Brokers, namespace: str) -> None:
    """O2, O3: list, show, look before, be refused without a token, discard, redrive, scan; programs get JSON, and the
    exit status is 0 only where all that was asked is done. Reading ones say the same straight from Kafka."""
    topic = f"{namespace}.order.created.dlq"
    settings = {
        "BROKERS": kafka.bootstrap,
        "NAMESPACE": namespace,
        "CATALOG": CATALOG,
        "MAX_REDRIVES": "1",
        "ADMIN_TOKENS": TOKENS,
    }
    create_topic(kafka.bootstrap, f"{namespace}.staging", 2)
    create_topic(kafka.bootstrap, f"{namespace}.foreign", 1)
    poison = [
        staged("a", {"tenant": b"t1", "time": b"never"}, value=b"\x1b[2J"),
        staged("b", {"tenant": b"t2", "time": b"never"}),
        staged("c", {"tenant": b"t2", "time": b"never"}),
        staged("d", {"tenant": b"t3", "time": b"never"}),
        staged("e", {"tenant": b"t3", "time": b"never"}),
    ]
    env = {f"STREAMING_{name}": value for name, value in settings.items()}
    with WorkerProcess(kafka.bootstrap, namespace, catalog=CATALOG, env=env) as worker:
        worker.wait_ready()
        wait_committed(
            worker, kafka.bootstrap, namespace, produce(kafka.bootstrap, f"{namespace}.staging", poison)
        )

        def dlq(*words: str, token: str = "") -> Answer:
            given = ("--token", token) if token else ()
            return run("dlq", *words, *given, **settings, WEB_PORT=str(worker.web_port))

        listed = dlq("list", "--topic", topic, "--json")
        assert (listed.status, len(listed.document["letters"])) == (0, 5)
        direct = dlq("list", "--topic", topic, "--direct", "--json")
        assert direct.document == listed.document
        one = next(letter for letter in listed.document["letters"] if letter["id"] == "a")
        place = f"{topic}/{one['partition']}/{one['offset']}"
        shown = dlq("show", place)
        assert shown.status == 0, shown.err
        assert "\x1b" not in shown.out
        assert "stage-time is not an RFC 3339 timestamp" in shown.out

        assert "5 dead letters" in dlq("redrive", "--all", "--dry-run").out
        refused = dlq("redrive", "--tenant", "t1")
        assert (refused.status, refused.out) == (1, "")
        assert "STAGEPOST_TOKEN" in refused.err
        assert "--all" in dlq("discard", token=TOKEN).err

        discarded = dlq("discard", "--tenant", "t1", "--reason", "old", "--json", token=TOKEN)
        assert (discarded.status, discarded.document["done"]) == (0, 1)
        again = dlq("redrive", "--tenant", "t2", token=TOKEN)
        assert (again.status, "2 of 2 done" in again.out) == (0, True), again.err
        assert "[##############################] 2 of 2  done" in again.err
        assert TOKEN not in again.err + again.out

        steer_a_job(Site(worker), {**settings, "WEB_PORT": str(worker.web_port)})

        connect = [("__connect.errors.topic", b"orders"), ("__connect.errors.partition", b"0")]
        produce(kafka.bootstrap, f"{namespace}.foreign", [OutRecord(b"k", b"v", connect)])
        scanned = dlq("scan", "--topic", f"{namespace}.foreign", token=TOKEN)
        assert (scanned.status, "1 of 1 done" in scanned.out) == (0, True), scanned.err
        held = dlq("redrive", "--topic", f"{namespace}.foreign", "--json", token=TOKEN)
        assert (held.status, held.document["held"]) == (1, {"topic_missing": 1})
