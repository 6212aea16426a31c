"""The judge: every record that becomes durable and every commit is held against what the rules promise.

Owns: what was staged and where each event ended; nothing lost (T6), order per key and target (T5), no commit past
an unfinished event, nothing twice without a fault. Must not know: how anything was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from catalog import OwnTopics
from tests.simulation.kafka_log import Log, Record

__all__ = ["Event", "Oracle", "Violation"]


class Violation(AssertionError):
    """A rule was broken."""


@dataclass(frozen=True)
class Event:
    """One staged event, and the topic where it must end."""

    event_id: str
    end: str
    value: bytes | None


class Oracle:
    """Told of everything durable, in order. `on_violation` is told of the first rule that was broken."""

    def __init__(self, namespace: str, on_violation: Callable[[Violation], None]) -> None:
        own = OwnTopics(namespace)
        self.staging = own.staging
        self._audit = own.audit
        self._parked = own.parked
        self._on_violation = on_violation
        self.events: dict[str, Event] = {}
        """What was, or may be, staged, by id."""
        self.doubles = 0
        """Records on a target beyond the first of their event."""
        self.exactly_once = False
        """Whether nothing may come twice."""
        self.on_time = True
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._at: dict[tuple[int, int], str] = {}
        self._ended: set[tuple[int, int]] = set()
        self._kept: set[tuple[int, int]] = set()
        """What is parked, or was: it may be committed, and must end all the same."""
        self._delivered: set[str] = set()
        self._last: dict[tuple[str, bytes | None], tuple[int, int]] = {}
        self._verified: dict[int, int] = {}
        self._trace = hashlib.sha256()

    @property
    def digest(self) -> str:
        """What happened, in one word: the same for the same seed."""
        return self._trace.hexdigest()[:16]

    @property
    def unfinished(self) -> list[str]:
        """The events on the staging topic that have not reached an end."""
        return [event_id for place, event_id in self._at.items() if place not in self._ended]

    def at(self, partition: int, offset: int) -> Event | None:
        """The first event of a staging partition from this offset on."""
        found = [at for place, at in sorted(self._at.items()) if place >= (partition, offset)]
        return self.events[found[0]] if found else None

    def appended(self, log: Log, records: list[Record]) -> None:
        """Records are on a topic."""
        self._trace.update(f"{log.topic}-{log.partition}:{records[0].offset}+{len(records)}".encode())
        for record in records:
            headers = {name: value or b"" for name, value in record.headers}
            if log.topic == self.staging:
                self._staged(log.partition, record, headers.get("stage-id", b"").decode())
            elif log.topic == self._audit:
                entry = json.loads(record.value or b"{}")
                self._end(log.topic, entry["partition"], entry["offset"])
            elif log.topic == self._parked:
                self._kept.add((int(headers["park-staging-partition"]), int(headers["park-staging-offset"])))
            elif log.topic.endswith(".dlq"):
                place = int(headers["dlq-staging-partition"]), int(headers["dlq-staging-offset"])
                self._end(log.topic, *place)
            elif "ce_id" in headers:
                self._arrived(log.topic, record, headers["ce_id"].decode())

    def committed(self, topic: str, partition: int, offset: int) -> None:
        """The group has committed this offset."""
        self._trace.update(f"commit {topic}-{partition}:{offset}".encode())
        if topic != self.staging:
            return
        for at in range(self._verified.get(partition, 0), offset):
            if (
                (partition, at) in self._at
                and (partition, at) not in self._ended
                and (partition, at) not in self._kept
            ):
                self._broken(
                    f"T6: {self._at[partition, at]} at {partition}/{at} is committed and not finished"
                )
        self._verified[partition] = max(offset, self._verified.get(partition, 0))

    def _staged(self, partition: int, record: Record, event_id: str) -> None:
        place = partition, record.offset
        self._at[place] = event_id
        self._places.setdefault(event_id, []).append(place)
        if event_id in self._delivered:
            self._ended.add(place)
        if event_id not in self.events:
            self._broken(f"{event_id!r} was never staged")

    def _end(self, topic: str, partition: int, offset: int) -> None:
        event_id = self._at.get((partition, offset))
        if event_id is None:
            self._broken(f"{topic}: nothing was staged at {partition}/{offset}")
            return
        if self.events[event_id].end != topic:
            self._broken(f"C3: {event_id} ended on {topic}, not on {self.events[event_id].end}")
        if (partition, offset) in self._ended:
            self._double(event_id, topic)
        self._ended.add((partition, offset))

    def _arrived(self, topic: str, record: Record, event_id: str) -> None:
        event, places = self.events.get(event_id), self._places.get(event_id)
        if event is None or places is None:
            self._broken(f"{topic}: {event_id!r} was never staged")
            return
        if event.end != topic or event.value != record.value:
            self._broken(f"{event_id} is on {topic} with other bytes: it is not what was staged")
        if event_id in self._delivered:
            self._double(event_id, topic)
            return
        self._delivered.add(event_id)
        self._ended.update(places)
        place = places[0]
        last = self._last.get((topic, record.key))
        if last is not None and last > place:
            self._broken(f"T5: {event_id} from {place} came after {self._at[last]} from {last} on {topic}")
        self._last[topic, record.key] = max(place, last or place)

    def _double(self, event_id: str, topic: str) -> None:
        self.doubles += 1
        if self.exactly_once:
            self._broken(f"T5: {event_id} is twice on {topic}, and nothing had failed")

    def _broken(self, what: str) -> None:
        self._on_violation(Violation(what))
