"""No credential that a worker, a command or a service is given comes out of it again (E, O3)."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog import OwnTopics
from tests.kafka_client import OutRecord, produce, read_all, wait_until
from tests.process_harness import ROOT
from tests.secure.secure_kafka import SecureKafka
from tests.service import own_transactions
from tests.web.asking import HTML, JSON, TOKEN, TOKENS, Site
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

WRONG_TOKEN = "a-wrong-token-0815"
COMMANDS = (
    ("catalog", "show"),
    ("topics", "check"),
    ("ledger", "verify"),
    ("dlq", "list"),
    ("dlq", "list", "--direct"),
    ("status",),
)
FAILING = (("topics", "check"), ("status",))
SERVICE = """
import asyncio, logging, os, sys
from pipeline import Settings, Stager
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
async def main():
    settings = Settings.from_env(os.environ)
    print(settings, repr(settings), settings.model_dump(), settings.model_dump_json())
    async with Stager(settings) as stager:
        try:
            print("staged", await stager.stage("order.placed", {"order": 1}, tenant="acme"))
        except Exception as error:
            logging.exception("not staged: %r", error)
        print(await stager.health())
asyncio.run(main())
"""


def planted(secure: SecureKafka, env: Mapping[str, str]) -> list[str]:
    """Everything secret, in each form in which it might come out."""
    key = env["STREAMING_TLS_CLIENT_KEY"]
    body = base64.b64decode(key).decode().splitlines()[1]
    passwords = [*secure.passwords.values(), TOKEN, WRONG_TOKEN]
    return [*passwords, *(base64.b64encode(word.encode()).decode() for word in passwords), key, body]


def shown(text: str, secrets: Sequence[str]) -> list[str]:
    """The secrets that stand in a text, with what is around the first of each."""
    found = []
    for secret in secrets:
        before, there, _ = text.partition(secret)
        if there:
            found.append(f"{before[-100:]}>>{secret[:6]}...")
    return found


@pytest.fixture
def env(secure: SecureKafka, namespace: str) -> dict[str, str]:
    """The settings of a worker with every credential there is, for each of the two clusters."""
    for user in ("service", "worker"):
        secure.allow(user, {(kind, namespace, "PREFIXED"): ("ALL",) for kind in ("TOPIC", "GROUP")})
    return {
        **secure.tls(),
        **secure.own(secure.authority.sign("worker")),
        **secure.sasl("worker", "PLAIN"),
        **secure.sasl("service", "SCRAM-SHA-512", "STREAMING_TARGET_"),
        "STREAMING_ADMIN_TOKENS": TOKENS,
        "STREAMING_BROKERS": secure.at("SASL"),
        "STREAMING_CATALOG": own_transactions.NAME,
        "STREAMING_CLOUDEVENTS_SOURCE": "//tests/orders",
        "STREAMING_NAMESPACE": namespace,
        "STREAMING_TARGET_BROKERS": secure.at("SASL"),
        "STREAMING_TOPIC_PARTITIONS": "2",
    }


def run(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Everything that a program of ours prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**inherited, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout


def every_page(site: Site, values: Mapping[str, str]) -> dict[str, str]:
    """What each GET route answers, as a page and as JSON."""
    answers = {}
    for path, operations in site.get("/openapi.json").data["paths"].items():
        if "get" in operations:
            full = re.sub(r"\{(\w+)\}", lambda name: values[name[1]], path)
            for accept in (HTML, JSON):
                answer = site.get(full, accept)
                assert answer.status == 200, f"{full}: {answer.text}"
                answers[f"{full} {accept}"] = answer.text
    return answers


def test_a_worker_and_its_commands_show_no_credential(
    secure: SecureKafka, namespace: str, env: dict[str, str]
) -> None:
    """E, O3: not in a debug log, on no page, in no JSON, metric, refusal or audit record, and in no command's output,
    also of one that fails."""
    secrets = planted(secure, env)
    topics, target = OwnTopics(namespace), f"{namespace}.order.placed"
    with WorkerProcess(
        secure.at("SASL"), namespace, catalog=own_transactions.NAME, env=env, level="debug"
    ) as worker:
        worker.wait_ready()
        poison = [("stage-version", b"1"), ("stage-definition", b"order.placed"), ("stage-id", b"bad")]
        produce(secure.bootstrap, topics.staging, [OutRecord(b"k", b"{", poison)])
        site = Site(worker)
        wait_until(lambda: bool(site.get("/dlq/").data["topics"]), 30, f"a dead letter\n{worker.log_tail()}")
        (letter,) = read_all(secure.bootstrap, f"{target}.dlq")
        refused = [
            site.post("/jobs/", {"kind": "scan"}, token=WRONG_TOKEN).text,
            site.submit("/login", {"token": WRONG_TOKEN, "next": "/"}).text,
            site.post(f"/breakers/{target}/pause", {"reason": 1}).text,
        ]
        assert site.post(f"/breakers/{target}/pause", {"reason": "test"}).status == 200
        job = site.post("/jobs/", {"kind": "redrive", "topic": f"{target}.dlq"}).data["job"]["id"]
        site.log_in()
        values = {"topic": f"{target}.dlq", "partition": str(letter.partition), "offset": str(letter.offset)}
        pages = every_page(site, {**values, "job": job, "key": "order.placed", "target": target})
        for name, text in [*pages.items(), *((f"refusal {number}", it) for number, it in enumerate(refused))]:
            assert not shown(text, secrets), name
        given = {**env, "STREAMING_WEB_PORT": str(worker.web_port), "STAGEPOST_TOKEN": TOKEN}
        wrong = {**given, "STAGEPOST_TOKEN": WRONG_TOKEN, "STREAMING_SASL_PASSWORD": WRONG_TOKEN}
        faust = ("-m", "faust", "--debug", "--loglevel", "debug", "-A", "pipeline")
        calls = [((*faust, *words), given) for words in COMMANDS]
        calls += [((*faust, *words), wrong) for words in FAILING]
        with ThreadPoolExecutor(2) as pool:
            said = [*pool.map(lambda call: run(*call), calls)]
        for (command, _), text in zip(calls, said, strict=True):
            assert text
            assert not shown(text, secrets), command
        assert worker.terminate() == 0
        log = worker.log_text()
        assert "DEBUG" in log
        assert not shown(log, [*secrets, *site.cookies.values()])
    for topic in (topics.audit, topics.jobs, topics.dlq_index):
        for record in read_all(secure.bootstrap, topic):
            assert not shown((record.value or b"").decode(), secrets), topic


def test_a_service_shows_no_credential(
    secure: SecureKafka, namespace: str, env: dict[str, str], tmp_path: Path
) -> None:
    """E: not in its settings, its debug log or its health; with the right password, a wrong one, and no broker; nor in
    what `outbox list` prints."""
    given = {**env, "STREAMING_OUTBOX_DIR": str(tmp_path), "STREAMING_STAGE_TIMEOUT_S": "2"}
    ways = {
        "right": given,
        "wrong": {**given, "STREAMING_SASL_PASSWORD": WRONG_TOKEN},
        "away": {**given, "STREAMING_BROKERS": "127.0.0.1:9"},
    }
    for way, settings in ways.items():
        text = run(["-c", SERVICE], settings)
        assert "DEBUG:" in text, way
        assert "Health(" in text, text
        assert not shown(text, planted(secure, env)), way
    listed = run(["-m", "pipeline", "outbox", "list", "--payloads", "--json"], given)
    assert json.loads(listed)
    assert not shown(listed, planted(secure, env))
