"""Kafka's jars: resolved once by Maven into a cache folder, from the `pom.xml` beside this module.

Owns: the Kafka version, the cache folder, the check for Java and Maven. Must not know: brokers and clusters.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devtools.kafka.errors import NoBroker

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
JAVA_NEEDED = 17
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def kafka_version() -> str:
    """Return the version of Apache Kafka that the `pom.xml` names, such as `4.4.0`."""
    root = ET.parse(POM).getroot()  # noqa: S314 - our own file
    version = root.findtext("{*}properties/{*}kafka.version")
    if version is None:
        raise NoBroker(f"{POM} names no kafka.version; put the property back")
    return version


@dataclass(frozen=True, slots=True)
class Java:
    """A `java` program that will do, and its full version, such as `17.0.15`."""

    program: str
    version: str


def find_java() -> Java:
    """Return the `java` to run: that of `JAVA_HOME`, else of `PATH`. Raises `NoBroker` if it will not do."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        raise NoBroker(f"{program!r} does not run; install a Java {JAVA_NEEDED} or newer runtime") from None
    found = re.search(r'version "((\d+)[^"]*)"', said)
    if found is None or int(found[2]) < JAVA_NEEDED:
        was = found[1] if found else "of unknown version"
        raise NoBroker(f"{program!r} is Java {was}; install Java {JAVA_NEEDED} or newer (JAVA_HOME counts)")
    return Java(program, found[1])


def resolve(cache: Path = CACHE) -> Path:
    """Return the folder that holds Kafka's jars, filling it first if need be (blocks; some 15 s, once).

    Of several processes at once, one resolves and the others wait for it; a folder is there either in
    full or not at all. Raises `NoBroker` where Maven is missing or fails.
    """
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    libs = cache / f"{kafka_version()}-{digest}"
    if libs.is_dir():
        return libs
    cache.mkdir(parents=True, exist_ok=True)
    with locked(libs):
        if not libs.is_dir():
            _fill(libs)
    return libs


@contextmanager
def locked(libs: Path) -> Iterator[int]:
    """Hold the lock of a jar folder, so that one process at a time fills it; yields the lock's descriptor."""
    with libs.with_name(f"{libs.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _fill(libs: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoBroker("'mvn' is not on the PATH; install Apache Maven 3.6 or newer, or start Docker")
    print(f"kafka: fetching Apache Kafka {kafka_version()} by Maven into {libs} (once)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=libs.parent) as scratch:
        jars = Path(scratch) / "jars"
        command = [maven, "-q", "-B", "-f", str(POM), _COPY, f"-DoutputDirectory={jars}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0 or not list(jars.glob("kafka_*.jar")):
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise NoBroker(f"Maven could not fetch Kafka; look at its network and settings. It said:\n{tail}")
        jars.rename(libs)
