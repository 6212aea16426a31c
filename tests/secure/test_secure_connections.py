"""TLS and SASL against a real broker: what fits works, what does not fails fast and names its variable (E)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.structs import BrokerMetadata

from devtools.kafka.door import Door
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import StagingRefused, is_caller_error
from pipeline.kafka.connection import Connection, staging_cluster, target_cluster
from pipeline.kafka.reader import Place, Reader
from pipeline.kafka.security import SecurityRefused
from pipeline.settings import Settings
from tests.client import client_events
from tests.kafka_client import create_topic
from tests.secure.certificates import Authority, base64_of
from tests.secure.secure_kafka import SecureKafka
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
FAST_S = 3.0
WRONG = "a-wrong-word-hunter2"
Env = dict[str, str]
MakesEnv = Callable[[SecureKafka, Authority], Env]


def settings_of(servers: str, env: Env, **more: str) -> Settings:
    """Settings that reach `servers` as `env` says."""
    base = {
        "STREAMING_BROKERS": servers,
        "STREAMING_CATALOG": client_events.NAME,
        "STREAMING_CLOUDEVENTS_SOURCE": client_events.SOURCE,
        "STREAMING_EVENT_POLICIES": client_events.NO_OUTBOX,
    }
    return Settings.from_env(base | env | more)


RIGHT: dict[str, tuple[str, MakesEnv]] = {
    "TLS": ("TLS", lambda kafka, _: kafka.tls()),
    "a certificate of our own": (
        "MUTUAL",
        lambda kafka, _: kafka.tls() | kafka.own(kafka.authority.sign("service")),
    ),
    "PLAIN": ("SASL", lambda kafka, _: kafka.tls() | kafka.sasl("service", "PLAIN")),
    "SCRAM-SHA-256": ("SASL", lambda kafka, _: kafka.tls() | kafka.sasl("service", "SCRAM-SHA-256")),
    "SCRAM-SHA-512": ("SASL", lambda kafka, _: kafka.tls() | kafka.sasl("service", "SCRAM-SHA-512")),
    "plaintext, allowed": (
        "OPEN",
        lambda kafka, _: kafka.sasl("service", "PLAIN") | {"STREAMING_SASL_ALLOW_PLAINTEXT": "true"},
    ),
}


@pytest.mark.parametrize("way", RIGHT)
async def test_what_fits(secure: SecureKafka, way: str) -> None:
    """Each way in that the broker offers, for clients, readers and administrators alike."""
    listener, env = RIGHT[way]
    settings = settings_of(secure.at(listener), env(secure, secure.authority))
    connection = staging_cluster(settings)
    await connection.check()
    async with Reader(connection) as reader:
        assert await reader.bounds("nothing") == {}
    assert all(word not in repr(settings) + repr(connection) for word in secure.passwords.values())


def test_a_reader_ends_at_once(secure: SecureKafka, namespace: str) -> None:
    """While a broker holds a fetch back it may not answer TLS's farewell: nobody waits for it, on the worker's event
    loop either (S9)."""
    topic = f"{namespace}.quiet"
    create_topic(secure.bootstrap, topic)
    connection = staging_cluster(
        settings_of(secure.at("SASL"), secure.tls() | secure.sasl("worker", "PLAIN"))
    )
    secure.allow("worker", {("TOPIC", topic, "LITERAL"): ("READ", "DESCRIBE")})

    async def read_and_end() -> float:
        async with Reader(connection) as reader:
            assert await reader.bounds(topic)  # it is connected then
            reader.read_from({Place(topic, 0): 0})
            assert await reader.fetch(1, 0.05) == {}
            began = time.monotonic()
        return time.monotonic() - began

    async def many() -> list[float]:
        return [await read_and_end() for _ in range(10)]

    assert sum(uvloop.run(many())) < FAST_S


@pytest.mark.parametrize("known", [False, True], ids=["the first", "to a known broker"])
async def test_a_connection_given_up_amid_its_handshake_is_closed(
    secure: SecureKafka, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """S9: who gives up a broker that hangs while a connection is made leaves none behind that waits for TLS's
    farewell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = secure.tls() | secure.sasl("worker", "PLAIN")
    with closing(Door("hung", {port: int(secure.at("SASL").rpartition(":")[2])})) as door:
        servers = secure.at("SASL") if known else door.bootstrap
        client = staging_cluster(settings_of(servers, env)).client()
        if known:
            await client.bootstrap()
            client.cluster._brokers[99] = BrokerMetadata(99, "127.0.0.1", port, None)
        amid: asyncio.Queue[AIOKafkaConnection] = asyncio.Queue()

        async def shake_hands(connection: AIOKafkaConnection) -> None:
            door.stall()
            amid.put_nowait(connection)
            await asyncio.Event().wait()

        monkeypatch.setattr(AIOKafkaConnection, "_do_sasl_handshake", shake_hands)
        connecting = asyncio.create_task(client.ready(99) if known else client.bootstrap())
        connection = await amid.get()
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        async with asyncio.timeout(FAST_S):
            await connection._closed_fut
        await client.close()


def _wrong_password(mechanism: str) -> MakesEnv:
    return lambda kafka, _: (
        kafka.tls() | kafka.sasl("service", mechanism) | {"STREAMING_SASL_PASSWORD": WRONG}
    )


REFUSED: dict[str, tuple[str, MakesEnv, str, str]] = {
    # listener, settings, the variable that the error names, what it says
    **{
        f"wrong password, {mechanism}": (
            "SASL",
            _wrong_password(mechanism),
            "STREAMING_SASL_PASSWORD",
            "accept",
        )
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    },
    "no such mechanism": (
        "OPEN",
        lambda kafka, _: kafka.sasl("service", "SCRAM-SHA-256") | {"STREAMING_SASL_ALLOW_PLAINTEXT": "true"},
        "STREAMING_SASL_MECHANISM",
        "does not offer",
    ),
    "SASL where none is": (
        "TLS",
        lambda kafka, _: kafka.tls() | kafka.sasl("service", "PLAIN"),
        "STREAMING_SASL_MECHANISM",
        "expects no SASL",
    ),
    "unknown authority": (
        "TLS",
        lambda _, other: {"STREAMING_TLS_ENABLED": "true", "STREAMING_TLS_CA_CERT": base64_of(other.pem)},
        "STREAMING_TLS_CA_CERT",
        "issuer",
    ),
    "not one of the system's": (
        "TLS",
        lambda *_: {"STREAMING_TLS_ENABLED": "true"},
        "STREAMING_TLS_CA_CERT",
        "issuer",
    ),
    "expired": ("EXPIRED", lambda kafka, _: kafka.tls(), "STREAMING_TLS_CA_CERT", "expired"),
    "another host": ("ELSEWHERE", lambda kafka, _: kafka.tls(), "STREAMING_BROKERS", "mismatch"),
    "no certificate of ours": ("MUTUAL", lambda kafka, _: kafka.tls(), "STREAMING_TLS_CLIENT_CERT", "our"),
    "ours of an unknown authority": (
        "MUTUAL",
        lambda kafka, other: kafka.tls() | kafka.own(other.sign("service")),
        "STREAMING_TLS_CLIENT_CERT",
        "our",
    ),
    "ours expired": (
        "MUTUAL",
        lambda kafka, _: kafka.tls() | kafka.own(kafka.authority.sign("service", expired=True)),
        "STREAMING_TLS_CLIENT_CERT",
        "our",
    ),
}


async def refusal_of(connection: Connection) -> SecurityRefused:
    """The error of a connection that is refused, fast."""
    began = time.monotonic()
    with pytest.raises(SecurityRefused) as caught:
        await connection.check()
    assert time.monotonic() - began < FAST_S
    return caught.value


@pytest.mark.parametrize("what", REFUSED)
async def test_what_does_not_fit(secure: SecureKafka, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fails fast, names the variable, and no secret is in error or log; for the targets' cluster by its own names."""
    listener, makes_env, variable, says = REFUSED[what]
    env = makes_env(secure, Authority("another authority"))
    caplog.set_level(logging.DEBUG)
    error = await refusal_of(staging_cluster(settings_of(secure.at(listener), env)))
    assert error.variable == variable
    assert str(error).startswith(f"{variable}: {secure.at(listener)} ")
    assert says in str(error)
    own = {name.replace("STREAMING_", "STREAMING_TARGET_"): value for name, value in env.items()}
    settings = settings_of(secure.bootstrap, own, STREAMING_TARGET_BROKERS=secure.at(listener))
    error = await refusal_of(target_cluster(settings))
    assert error.variable == variable.replace("STREAMING_", "STREAMING_TARGET_")
    shown = f"{error!r}{error}{settings!r}{caplog.text}"
    assert not [word for word in (WRONG, *secure.passwords.values()) if word in shown]


@pytest.mark.parametrize("what", ["SASL where none is", "wrong password, PLAIN", "ours expired", "right"])
def test_what_was_asked_once_leaves_nothing_open(secure: SecureKafka, what: str) -> None:
    """O2: a command whose loop ends right after it has asked leaves no connection behind that waits for TLS's
    farewell, whatever the answer was."""
    listener, makes_env, *_ = REFUSED.get(what, ("TLS", lambda kafka, _: kafka.tls()))
    settings = settings_of(secure.at(listener), makes_env(secure, secure.authority))

    async def ask() -> None:
        with contextlib.suppress(SecurityRefused):
            await staging_cluster(settings).check()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(5):
            asyncio.run(ask())
            gc.collect()
    assert [str(warning.message) for warning in seen if warning.category is ResourceWarning] == []


@pytest.mark.parametrize(("listener", "tls"), [("TLS", False), ("SASL", True), ("", True)])
async def test_a_connection_that_is_only_closed(secure: SecureKafka, listener: str, tls: bool) -> None:
    """A listener that expects what we do not do closes the connection, as a broker does that ends: no refusal, but
    the error asks."""
    servers = secure.at(listener) if listener else secure.bootstrap
    with pytest.raises(
        Exception, match=r"without an answer.*STREAMING_TLS_ENABLED and STREAMING_SASL_MECHANISM"
    ):
        await staging_cluster(settings_of(servers, secure.tls() if tls else {})).check()


async def test_a_service_with_a_wrong_password(secure: SecureKafka, tmp_path: Path) -> None:
    """stage() under outbox=never raises at once, the rest goes to the outbox, health() names the variable."""
    env = _wrong_password("SCRAM-SHA-512")(secure, secure.authority)
    settings = settings_of(
        secure.at("SASL"),
        env,
        STREAMING_OUTBOX_DIR=str(tmp_path),
        STREAMING_EVENT_POLICIES="",
        STREAMING_STAGE_TIMEOUT_S="10",
    )
    async with KafkaStager(settings) as stager:
        began = time.monotonic()
        with pytest.raises(StagingRefused, match="STREAMING_SASL_PASSWORD") as caught:
            await stager.stage("thing.never", 1)
        assert is_caller_error(caught.value)
        assert (await stager.stage("thing.happened", 1)).via == "outbox"
        health = await stager.health()
        assert time.monotonic() - began < FAST_S
        assert health.state == "degraded"
        assert "STREAMING_SASL_PASSWORD" in health.reason
        assert WRONG not in health.reason + str(caught.value)


@pytest.mark.parametrize("prefix", ["STREAMING_", "STREAMING_TARGET_"])
def test_a_worker_with_a_wrong_password(secure: SecureKafka, namespace: str, prefix: str) -> None:
    """It ends at once with an error that names the variable, for each of the two clusters; the password is not in
    its log."""
    env = (
        secure.tls(prefix)
        | secure.sasl("worker", "SCRAM-SHA-256", prefix)
        | {f"{prefix}SASL_PASSWORD": WRONG}
    )
    if prefix == "STREAMING_":
        env["STREAMING_BROKERS"] = secure.at("SASL")
    else:
        env["STREAMING_TARGET_BROKERS"] = secure.at("SASL")
    with WorkerProcess(secure.bootstrap, namespace, env=env) as worker:
        assert worker.wait(20) != 0
        assert f"{prefix}SASL_PASSWORD: {secure.at('SASL')} cannot be reached securely" in worker.log_text()
        assert WRONG not in worker.log_text()


def test_a_command_with_an_unknown_authority(secure: SecureKafka) -> None:
    """It says which variable to look at, in one line, and its exit status is not 0."""
    env = secure.tls() | {"STREAMING_TLS_CA_CERT": base64_of(Authority("another authority").pem)}
    settings = {
        "STREAMING_BROKERS": secure.at("TLS"),
        "STREAMING_CATALOG": "catalog.examples.flights",
        "STREAMING_CLOUDEVENTS_SOURCE": "//tests",
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "faust", "-A", "pipeline", "topics", "check"]
    done = subprocess.run(
        command, cwd=ROOT, env=settings | env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("STREAMING_TLS_CA_CERT: ")
    assert "Traceback" not in done.stderr
