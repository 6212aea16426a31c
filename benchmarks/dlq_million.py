"""A million dead letters: how long every question takes from a cold process, and reading the index anew.

    make dlq-million

Owns: the letters, and the measuring. Must not know: how the index finds anything. Fails where an answer takes more
than 300 ms of a cold process' own time (the wall's is printed beside it), or reading anew over 10 minutes or 1 GiB.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from catalog import OwnTopics
from devtools.kafka import Cluster as Broker
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection
from pipeline.kafka.producer import ProducerOptions
from pipeline.kafka.topics import TopicSpecs
from pipeline.record import OutRecord
from pipeline.redrive.entry import state_entry
from pipeline.redrive.index import Index
from pipeline.redrive.model import Coordinates
from pipeline.redrive.queries import Queries
from pipeline.redrive.selection import LetterState, Selection
from pipeline.redrive.ship import ship_all
from pipeline.settings import Settings

COUNT = 1_000_000
_NAMESPACE = "million"
_TOPICS, _FAILURES, _TENANTS = 5, 40, 100
_BEGAN = 1_767_323_000.0
_PER_S = 100.0
_CHUNK = 20_000
_LIMIT_MS, _REBUILD_S, _REBUILD_MIB = 300.0, 600.0, 1_024
CONDITIONS = {
    "topic": f"{_NAMESPACE}.t0.dlq",
    "fingerprint": f"{3:016x}",
    "tenant": "tenant-7",
    "error_class": "class_3",
    "definition": "t0.made",
    "since_at": _BEGAN + 0.1 * COUNT / _PER_S,
    "until_at": _BEGAN + 0.8 * COUNT / _PER_S,
}
_PLACE = {"partition": 2, "first_offset": 1_000, "last_offset": 50_000}
STATES = (LetterState.OPEN, LetterState.REDRIVEN, None)


def letters(count: int) -> Iterator[tuple[Coordinates, OutRecord]]:
    """Index records: a few topics and kinds of failure have most of them, as a disaster does."""
    chance = random.Random(1)
    offsets: dict[tuple[int, int], int] = {}
    weights = [1 / (number + 1) for number in range(_FAILURES)]
    for number in range(count):
        topic = min(int(chance.expovariate(0.7)), _TOPICS - 1)
        partition = number % 6
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + 1
        (failure,) = chance.choices(range(_FAILURES), weights)
        failed_at = _BEGAN + number / _PER_S + chance.random()
        place = Coordinates(f"{_NAMESPACE}.t{topic}.dlq", partition, offset)
        document = {
            "topic": place.topic,
            "partition": partition,
            "offset": offset,
            "class": f"class_{failure % 6}",
            "message": f"the payload does not match the definition: field # of kind {failure}",
            "fingerprint": f"{failure:016x}",
            "definition": f"t{topic}.made",
            "schema_version": "1.0.0",
            "disposition": "poison",
            "tenant": f"tenant-{int(chance.random() ** 2 * _TENANTS)}",
            "id": f"0192ab34-0000-7000-8000-{number:012x}",
            "source": "/shop/orders",
            "first_failure_at": failed_at,
            "failed_at": failed_at,
            "redrives": number % 50 == 0,
            "size": 700,
            "dialect": "stagepost",
            "source_topic": f"{_NAMESPACE}.t{topic}",
            "source_partition": partition,
            "source_offset": number // 6,
        }
        key = f"{place.topic}/{partition}/{offset}".encode()
        yield place, (key, json.dumps(document).encode(), [])


async def fill(bootstrap: str, count: int) -> None:
    """Write the topics: every letter, and what became of a tenth of them."""
    connection = Connection((bootstrap,), "dlq-million")
    settings = Settings(
        brokers=(bootstrap,), catalog="c", cloudevents_source="/", namespace=_NAMESPACE, topic_partitions=6
    )
    own = await Cluster.start(connection, ProducerOptions(), settings)
    topics, specs = OwnTopics(_NAMESPACE), TopicSpecs(settings)
    for spec in (specs.dlq_index(topics), specs.dlq_state(topics)):
        await own.know(spec)
    source = letters(count)
    while chunk := list(itertools.islice(source, _CHUNK)):
        await ship_all(own, topics.dlq_index, [record for _, record in chunk])
        ended = [place for place, _ in chunk[::10]]
        await ship_all(
            own,
            topics.dlq_state,
            [state_entry(place, LetterState.REDRIVEN, at=_BEGAN, by="ann", job="j") for place in ended],
        )
    await own.close(10.0)


async def rebuild(bootstrap: str, folder: str) -> None:
    """Read the index anew in this process; print seconds and peak memory."""
    index = Index(Connection((bootstrap,), "dlq-million"), OwnTopics(_NAMESPACE), Path(folder))
    began = time.perf_counter()
    await index.start()
    await index.caught_up()
    seconds = time.perf_counter() - began
    await index.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    size = _size_of(folder) / 1_048_576
    print(json.dumps({"seconds": seconds, "cpu_s": time.process_time(), "mib": peak, "disk_mib": size}))


def _size_of(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def selections() -> list[Selection]:
    """Every combination of conditions, in three states; those of place with a topic."""
    found = []
    for count in range(len(CONDITIONS) + 1):
        for names in itertools.combinations(CONDITIONS, count):
            given = {name: CONDITIONS[name] for name in names}
            for state in STATES:
                found.append(Selection(**given, state=state))  # type: ignore[arg-type]
                if "topic" in names:
                    found.append(Selection(**given, **_PLACE, state=state))  # type: ignore[arg-type]
    return found


def ask(folder: str, number: int) -> dict[str, float]:
    """Answer one selection; the milliseconds of each question, opening the files included."""
    selection = selections()[number]
    took = {}
    questions: dict[str, Callable[[Queries], object]] = {
        "list": lambda queries: queries.letters(selection, None, 50),
        "groups": lambda queries: queries.groups(selection),
        "preview": lambda queries: queries.preview(selection, 3),
    }
    if number == 0:
        questions["overview"] = lambda queries: queries.topics(_BEGAN + COUNT / _PER_S)
        questions["page 1,000"] = lambda queries: queries.letters(
            selection, _cursor_of_page(folder, 1_000), 50
        )
    for name, question in questions.items():
        queries = Queries(Path(folder) / f"dlq-index-{_NAMESPACE}.sqlite")
        if name == "page 1,000":
            _cursor_of_page(folder, 1_000)  # the way there is not measured
        began, cpu = time.perf_counter(), time.process_time()
        question(queries)
        took[name] = 1_000 * (time.perf_counter() - began)
        took[f"{name}, CPU"] = 1_000 * (time.process_time() - cpu)
        queries.close()
    return took


_cursors: dict[int, str] = {}


def _cursor_of_page(folder: str, number: int) -> str:
    """The cursor that a list reaches page `number` with, found page by page, as a reader would."""
    if number not in _cursors:
        queries, cursor = Queries(Path(folder) / f"dlq-index-{_NAMESPACE}.sqlite"), ""
        for _ in range(number - 1):
            cursor = queries.letters(Selection(), cursor, 50).cursor or ""
        queries.close()
        _cursors[number] = cursor
    return _cursors[number]


def _in_a_process_of_its_own(*words: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.dlq_million", *words]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main(count: int) -> int:
    """Fill, read anew, ask everything; 1 where something takes too long."""
    with Broker() as broker, tempfile.TemporaryDirectory() as folder:
        asyncio.run(fill(broker.bootstrap, count))
        print(f"{count:,} dead letters written, a tenth of them redriven", flush=True)
        anew = _in_a_process_of_its_own("rebuild", broker.bootstrap, folder)
        print(
            f"read anew in {anew['seconds']:.0f} s ({anew['cpu_s']:.0f} s of CPU), {anew['mib']:.0f} MiB of memory, "
            f"{anew['disk_mib']:.0f} MiB on disk",
            flush=True,
        )
        asked = selections()
        worst: dict[str, tuple[float, str]] = {}
        times: dict[str, list[float]] = {}
        # A new process for each, forked from one that has opened nothing of the index.
        with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
            for number, selection in enumerate(asked):
                for name, took in pool.apply(ask, (folder, number)).items():
                    times.setdefault(name, []).append(took)
                    worst[name] = max(worst.get(name, (0.0, "")), (took, str(selection.as_text())))
        print(f"{len(asked)} selections, each in a new process")
        for name, (took, of) in worst.items():
            middle = sorted(times[name])[len(times[name]) // 2]
            print(f"{name:16} {middle:8.1f} ms in the middle, {took:8.1f} ms at worst: {of}")
    too_slow = max(took for name, (took, _) in worst.items() if name.endswith("CPU")) > _LIMIT_MS
    return int(too_slow or anew["seconds"] > _REBUILD_S or anew["mib"] > _REBUILD_MIB)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rebuild", bootstrap, folder]:
            asyncio.run(rebuild(bootstrap, folder))
        case [count]:
            sys.exit(main(int(count)))
        case _:
            sys.exit(main(COUNT))
