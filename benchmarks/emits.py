"""What makes events durable: each contender's program, run over more events of one topic, and verified.

Owns: the contenders' commands and what is read out of them. Must not know: how often, or what is made of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import golang
from benchmarks.programs import environment, python, result_of
from benchmarks.relays import Figure
from benchmarks.topics import Topics

__all__ = ["EMITS", "OUTBOXES", "Emits"]

EMITS = {
    "stage": "`stage()`, 64 callers",
    "aiokafka": "plain aiokafka `send()`, 64 callers, finished records",
    "confluent": "confluent-kafka behind asyncio, 64 callers, finished records",
    "franz-go": "franz-go (Go) `ProduceSync`, 64 goroutines, finished records",
}
OUTBOXES = {
    "outbox": "`stage()` into the outbox, 64 callers",
    "group-commit": "a bare asyncio group commit of prebuilt rows, 64 callers",
}
_NAMESPACE = "emit"
_TOPIC = f"{_NAMESPACE}.staging"


class Emits:
    """The emitting contenders on one cluster. Each run stages the events that follow those of the last one."""

    def __init__(self, topics: Topics, folder: Path) -> None:
        self._topics = topics
        self._folder = folder
        self._next = 0
        topics.create([_TOPIC])

    def measure(self, way: str, count: int) -> Figure:
        """One verified run. Raises `Absent`, `ProgramFailed` or `Lost`."""
        numbers = range(self._next, self._next + count)
        program: Callable[[], dict[str, Any]]
        if way == "franz-go":
            command = [str(golang.build()), self._topics.servers, _TOPIC, str(count)]
            feed = b"".join(golang.records(numbers))
            program = lambda: result_of(command, environment(), feed=feed)  # noqa: E731
        else:
            arguments = (way, self._topics.servers, _NAMESPACE, str(numbers.start), str(count))
            program = lambda: result_of(python("benchmarks.ways.emit", *arguments), environment())  # noqa: E731
        before = self._topics.ends([_TOPIC])
        figure = _figure(program())
        self._next += count
        self._topics.verify(before, self._topics.ends([_TOPIC]), numbers)
        return figure

    def lone(self, calls: int) -> dict[str, dict[str, float]]:
        """Microseconds of single calls: for `stage`, `stage_blocking`, `send_and_wait` each p50 and p99."""
        command = python("benchmarks.ways.lone", self._topics.servers, _NAMESPACE, str(calls))
        return result_of(command, environment())

    def outbox(self, way: str, count: int) -> Figure:
        """One run of an outbox, in a fresh folder on this disk."""
        rows = self._folder / way
        name = {"outbox": "ours", "group-commit": "bare"}[way]
        try:
            return _figure(
                result_of(python("benchmarks.ways.outbox", name, str(rows), str(count)), environment())
            )
        finally:
            shutil.rmtree(rows, ignore_errors=True)


def _figure(took: dict[str, Any]) -> Figure:
    return Figure(took["cpu"] / took["events"] * 1e6, took["events"] / took["wall"])
