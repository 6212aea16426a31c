"""`python -m pipeline outbox list|drain|export`, as an operator of a service runs them (O2)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from pipeline.outbox.slots import Slot, take_slot
from pipeline.outbox.store import RocksStore
from tests.client import client_events
from tests.kafka_client import read_all

ROOT = Path(__file__).resolve().parents[2]
SECRET = b'{"card": "4111"}'
WITHOUT_FAUST = """
import runpy, sys
sys.modules["faust"] = None  # as in a service's install
runpy.run_module("pipeline", run_name="__main__")
"""


def row(event_id: str) -> bytes:
    """The row of an event."""
    checker = client_events.checker(outbox_dir="unused")
    return checker.check("thing.happened", SECRET, tenant="acme", id=event_id).row()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Path]:
    """A folder with the slot of a living process that holds one row, and one of a dead process: three rows that
    wait, of which one is of a newer version, and one that was set aside."""
    slots = [take_slot(tmp_path), take_slot(tmp_path)]
    living, dead = [RocksStore(slot.folder, 1 << 30) for slot in slots]
    living.append([row("living")])
    dead.append([row("refused"), row("first"), b"\x09 of a newer version", row("second")])
    dead.set_aside(dead.read(0, 1)[0], "refused by the staging broker")
    dead.close()
    slots[1].release()
    yield tmp_path
    living.close()
    slots[0].release()


def run(outbox: Path, *words: str, **settings: str) -> tuple[int, str, str]:
    """Run the command; exit status, stdout, stderr."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    env |= {
        "STREAMING_BROKERS": "127.0.0.1:1",
        "STREAMING_CATALOG": client_events.NAME,
        "STREAMING_CLOUDEVENTS_SOURCE": client_events.SOURCE,
        "STREAMING_OUTBOX_DIR": str(outbox),
        **{f"STREAMING_{name.upper()}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-c", WITHOUT_FAUST, "outbox", *words]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_list(outbox: Path) -> None:
    """Rows with id, age and reason, of living and dead processes, and no payload unless it is asked for."""
    status, out, _ = run(outbox, "list", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["slots"] == [
        {"name": "slot-0000", "held": True, "waiting": 1, "set_aside": 0},
        {"name": "slot-0001", "held": False, "waiting": 3, "set_aside": 1},
    ]
    rows = document["rows"]
    assert [(item["id"], item["reason"]) for item in rows] == [
        ("living", None),
        ("first", None),
        (None, None),
        ("second", None),
        ("refused", "refused by the staging broker"),
    ]
    assert all(0 <= item["age_s"] < 60 for item in rows)
    status, text, _ = run(outbox, "list", "--limit", "4")
    assert status == 0
    assert "slot-0001: 3 waiting, 1 set aside; held by nobody" in text
    assert "id=first" in text
    assert "and 1 more" in text
    for answer in (out, text):
        assert base64.b64encode(SECRET).decode() not in answer
        assert "4111" not in answer
    _, out, _ = run(outbox, "list", "--json", "--payloads")
    assert base64.b64decode(json.loads(out)["rows"][1]["payload_base64"]) == SECRET


def test_export(outbox: Path, tmp_path: Path) -> None:
    """Every row as a line of JSON, byte for byte, also one that this version cannot read."""
    status, out, _ = run(outbox, "export")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [base64.b64decode(line["row_base64"])[:1] for line in lines] == [
        b"\x01",
        b"\x01",
        b"\x09",
        b"\x01",
        b"\x01",
    ]
    assert [line["id"] for line in lines] == ["living", "first", None, "second", "refused"]
    assert base64.b64decode(lines[1]["payload_base64"]) == SECRET
    assert ["stage-id", base64.b64encode(b"first").decode()] in lines[1]["headers"]
    assert lines[4]["reason"] == "refused by the staging broker"
    file = tmp_path / "rows.jsonl"
    status, out, _ = run(outbox, "export", "--output", str(file), "--json")
    assert (status, json.loads(out)) == (0, {"rows": 5, "unreadable": []})
    assert [json.loads(line) for line in file.read_text().splitlines()] == lines


def test_drain_without_a_broker(outbox: Path) -> None:
    """The exit status is 0 only when all is done: nothing is, and nothing is lost."""
    status, out, err = run(outbox, "drain", "--timeout-s", "1", "--json")
    assert status == 1
    assert json.loads(out) == {"shipped": 0, "set_aside": 0, "left": 3, "held": {"slot-0000": 1}}
    assert "within 1 s" in err


def test_what_cannot_be_looked_into(tmp_path: Path) -> None:
    """Without an outbox, or with one whose files cannot be read, the error says so and the exit status is 1."""
    status, _, err = run(tmp_path, "list", outbox_dir="")
    assert (status, "STREAMING_OUTBOX_DIR" in err) == (1, True)
    (tmp_path / "slot-0000" / "rows").mkdir(parents=True)
    for words in (("list",), ("export",), ("drain",)):
        status, _, err = run(tmp_path, *words)
        assert (status, "cannot be read" in err) == (1, True), (words, err)


@pytest.mark.kafka
def test_drain(kafka: Brokers, namespace: str, outbox: Path) -> None:
    """What dead processes left is shipped in order; a row that cannot be is set aside, so that not all is done (O2);
    the living are left alone."""
    status, out, err = run(outbox, "drain", "--json", brokers=kafka.bootstrap, namespace=namespace)
    assert (status, json.loads(out)) == (
        1,
        {"shipped": 2, "set_aside": 1, "left": 0, "held": {"slot-0000": 1}},
    ), err
    status, out, err = run(outbox, "drain", "--json", brokers=kafka.bootstrap, namespace=namespace)
    assert (status, json.loads(out)["shipped"]) == (0, 0), err
    records = read_all(kafka.bootstrap, f"{namespace}.staging")
    assert [record.header["stage-id"] for record in records] == [b"first", b"second"]
    assert [record.value for record in records] == [SECRET, SECRET]
    _, out, _ = run(outbox, "list", "--json")
    reasons = [item["reason"] for item in json.loads(out)["rows"]]
    assert [reason is not None for reason in reasons] == [False, True, True]
    assert any("newer" in reason for reason in reasons if reason)
    held = Slot.lock(outbox / "slot-0001")
    assert held is not None
    held.release()
