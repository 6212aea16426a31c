"""Kafka Connect on the JVM: MirrorMaker 2's source connector, with transforms that do what Connect can of our job.

Owns: its jars (by Maven, into the project's cache), its configuration, keeping it warm. Must not know: other
contenders. It inserts the six constant headers and renames the topic; it cannot choose a topic by a header, nor
check anything, so its job is easier than the worker's. It keeps the staging partition.

One JVM lives through all rounds, stopped while others run, so that its figures are those of compiled code.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.programs import ROOT, Absent, Program, environment
from benchmarks.relays import Figure, free_port, watch
from benchmarks.topics import Topics
from devtools.kafka.errors import NoBroker
from devtools.kafka.jars import find_java

__all__ = ["TITLE", "Connect"]

TITLE = "Kafka Connect (JVM): MirrorSourceConnector, InsertHeader, RegexRouter"
_POM = Path(__file__).with_name("ways") / "connect" / "pom.xml"
_JARS = ROOT / ".cache" / "connect"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_STAGING, _TARGET = "connect.staging", "connect.target"
_CONSTANT = {
    "content-type": "application/json",
    "ce_specversion": "1.0",
    "ce_type": "bench.flight.departed",
    "ce_schemaversion": "1.0.0",
    "ce_resourcetype": "flight",
    "ce_eventtype": "departed",
}


class Connect:
    """The running contender. A context manager; raises `Absent` where Java or Maven's artifacts are missing."""

    def __init__(self, topics: Topics, folder: Path) -> None:
        self._topics = topics
        self._folder = folder
        self._moved = 0

    def __enter__(self) -> Self:
        """Fetch what is missing, start the JVM, stop it until the first round."""
        java, jars = _java(), _jars()
        self._topics.create([_STAGING, _TARGET])
        worker, connector = self._configure()
        command = [java, "-Xmx1g", "-cp", f"{jars}/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        command += ["org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(connector)]
        self._program = Program(command, environment(), self._folder / "connect.log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the JVM."""
        self._program.__exit__(kind, error, trace)

    def measure(self, count: int) -> Figure:
        """One verified round over `count` more events."""
        self._program.pause()
        numbers = range(self._moved, self._moved + count)
        self._topics.fill(_STAGING, numbers)
        before = self._topics.ends([_TARGET])
        self._program.resume()
        figure = watch(self._topics, self._program, [_TARGET], before, count)
        self._program.pause()
        self._moved += count
        self._topics.verify(before, self._topics.ends([_TARGET]), numbers)
        return figure

    def _configure(self) -> tuple[Path, Path]:
        servers = self._topics.servers
        worker = {
            "bootstrap.servers": servers,
            "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
            "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
            "offset.storage.file.filename": str(self._folder / "connect.offsets"),
            "connector.client.config.override.policy": "All",
            "listeners": f"http://127.0.0.1:{free_port()}",
            "plugin.discovery": "hybrid_warn",
        }
        names = {name: f"header{index}" for index, name in enumerate(_CONSTANT)}
        connector = {
            "name": "bench",
            "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
            "tasks.max": "1",
            "source.cluster.alias": "source",
            "target.cluster.alias": "target",
            "source.cluster.bootstrap.servers": servers,
            "target.cluster.bootstrap.servers": servers,
            "topics": _STAGING,
            "replication.factor": "1",
            "offset-syncs.topic.replication.factor": "1",
            "sync.topic.configs.enabled": "false",
            "sync.topic.acls.enabled": "false",
            "refresh.topics.enabled": "false",
            "producer.override.acks": "all",
            "producer.override.enable.idempotence": "true",
            "producer.override.compression.type": "lz4",
            "producer.override.linger.ms": "5",
            "producer.override.batch.size": "1048576",
            "transforms": ",".join([*names.values(), "route"]),
            "transforms.route.type": "org.apache.kafka.connect.transforms.RegexRouter",
            "transforms.route.regex": ".*",
            "transforms.route.replacement": _TARGET,
        }
        for name, transform in names.items():
            connector[f"transforms.{transform}.type"] = "org.apache.kafka.connect.transforms.InsertHeader"
            connector[f"transforms.{transform}.header"] = name
            connector[f"transforms.{transform}.value.literal"] = _CONSTANT[name]
        return self._write("connect-worker", worker), self._write("connect-connector", connector)

    def _write(self, name: str, properties: dict[str, str]) -> Path:
        path = self._folder / f"{name}.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        return path


def _java() -> str:
    try:
        return find_java().program
    except NoBroker as error:
        raise Absent(str(error)) from error


def _jars() -> Path:
    if _JARS.is_dir():
        return _JARS
    maven = shutil.which("mvn")
    if maven is None:
        raise Absent("Maven is not installed")
    scratch = _JARS.with_name("connect-fetching")
    shutil.rmtree(scratch, ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(_POM), _COPY, f"-DoutputDirectory={scratch}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not list(scratch.glob("connect-mirror-*.jar")):
        raise Absent(f"Maven has not all of Kafka Connect: {(done.stdout + done.stderr)[:300]}")
    scratch.rename(_JARS)
    return _JARS
