"""The books: every record read is entered here as a few bytes, sorted on disk, and judged in the end.

Owns: what each kind of record is an entry of, the two passes of the judgement. Must not know: Kafka clients.
Memory does not grow with the number of records: entries are sorted on disk, and one event is judged at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from catalog import Catalog, OwnTopics
from catalog.names import dlq_of
from pipeline import dlq, park, staging
from pipeline.audit import entry_of
from pipeline.ledger.entries import (
    DELIVERED,
    END,
    EVENT,
    MOVE,
    STAGED,
    Flags,
    Identities,
    check_of,
)
from pipeline.ledger.events import Arrival, Event
from pipeline.ledger.findings import At, Disorder, Double, Findings, Spot
from pipeline.ledger.sorter import RUN_ENTRIES, Sorter
from pipeline.record import ReadRecord

__all__ = ["Books"]

_PARKED_PLACE = (park.PARTITION, park.OFFSET)
_DEAD_PLACE = (dlq.STAGING_PARTITION, dlq.STAGING_OFFSET)
_SHOWN_ENDS = 10
_ORDER_BYTES = MOVE.size - 16
"""What comes before the two offsets: deliveries with this in common have an order."""


class Books:
    """What was read of one namespace. Enter the ends on topics of ours first, then staging, then the targets.

    `folder`: where entries are sorted, some 90 bytes for each event. `committed`: the group's offset by
    staging partition. `limit`: how many findings of each kind are named. `run_entries`: how many entries of each
    kind may be in memory.
    """

    def __init__(
        self,
        catalog: Catalog,
        own: OwnTopics,
        folder: Path,
        committed: Mapping[int, int],
        limit: int,
        *,
        run_entries: int = RUN_ENTRIES,
    ) -> None:
        self.targets = catalog.topics
        self.kept = (own.staging_dlq, *map(dlq_of, self.targets), own.parked, own.audit)
        """The topics of ours that hold ends."""
        self._own = own
        self._committed = committed
        self._topics = (*self.targets, *self.kept)
        self._numbers = {topic: number for number, topic in enumerate(self._topics)}
        self._identities = Identities(catalog, self._numbers)
        self._ends = Sorter(folder, "ends", END.size, run_entries=run_entries)
        self._events = Sorter(folder, "events", EVENT.size, run_entries=run_entries)
        self._moves = Sorter(folder, "moves", MOVE.size, run_entries=run_entries)
        self._next_end: tuple[int, ...] | None = None
        self._sorted_ends: Iterator[bytes] | None = None
        self._deleted_before: dict[int, int] = {}
        self._staging_is_cut = False
        self.findings = Findings(limit)

    # --- entering

    def add_end(self, topic: str, partition: int, record: ReadRecord) -> None:
        """A dead letter, a parked record, or an audit record; what says of no staging record is passed over."""
        found = self._end_of(topic, record)
        if found is not None:
            at, flag, check = found
            number = self._numbers[topic]
            self._ends.add(END.pack(*at, flag, number, partition, record.offset, check))

    def staging_deleted(self) -> None:
        """Staging no longer holds all that was ever staged."""
        self._staging_is_cut = True

    def target_deleted(self, topic: str, oldest_ms: int | None) -> None:
        """A partition of a target has deleted records; the oldest it still has is of `oldest_ms` (None: has none)."""
        number = self._numbers[topic]
        before = (1 << 64) - 1 if oldest_ms is None else oldest_ms
        self._deleted_before[number] = max(self._deleted_before.get(number, 0), before)

    def add_staged(self, partition: int, record: ReadRecord) -> None:
        """A staging record; partition by partition, each in the order of its offsets."""
        fields = dict(record.headers)
        at = At(partition, record.offset)
        flags = Flags.COMMITTED if record.offset < self._committed.get(partition, 0) else Flags(0)
        if dlq.REDRIVE_COUNT in fields or dlq.FIRST_FAILURE_AT in fields:
            flags |= Flags.REDRIVEN
        flags |= self._flags_of_ends(at, fields)
        identity, topic = self._identities.staged(fields, partition, record.offset)
        self.findings.counts.staged += 1
        self._events.add(
            EVENT.pack(identity, STAGED, topic, partition, record.offset, flags, max(0, record.timestamp))
        )

    def add_delivered(self, topic: str, partition: int, record: ReadRecord) -> None:
        """A record on a target."""
        identity = self._identities.delivered(topic, dict(record.headers))
        if identity is None:
            self.findings.counts.foreign += 1
            return
        key = hash(record.key or b"") & 0xFFFF_FFFF_FFFF_FFFF  # good for this process alone, as entries are
        number = self._numbers[topic]
        self._events.add(EVENT.pack(identity, DELIVERED, number, partition, record.offset, 0, key))

    def _end_of(self, topic: str, record: ReadRecord) -> tuple[At, Flags, int] | None:
        if topic == self._own.audit:
            return self._audited(record.value)
        fields = dict(record.headers)
        parked = topic == self._own.parked
        place = [fields.get(name) or b"" for name in (_PARKED_PLACE if parked else _DEAD_PLACE)]
        if not all(number.isdigit() for number in place):
            return None
        flag = Flags.PARKED if parked else Flags.DEAD_LETTERED
        return At(int(place[0]), int(place[1])), flag, check_of(fields.get(staging.ID))

    def _audited(self, value: bytes | None) -> tuple[At, Flags, int] | None:
        entry = entry_of(value)
        partition, offset = entry.get("partition"), entry.get("offset")
        if entry.get("action") != "skipped" or entry.get("topic") != self._own.staging:
            return None
        if not isinstance(partition, int) or not isinstance(offset, int):
            return None
        return At(partition, offset), Flags.SKIPPED, check_of(str(entry.get("id")).encode())

    def _flags_of_ends(self, at: At, fields: Mapping[str, bytes | None]) -> Flags:
        """The ends of this staging record on topics of ours: both are read in the same order."""
        if self._sorted_ends is None:
            self._sorted_ends = iter(self._ends)
            self._read_end()
        flags, ends = Flags(0), []
        while self._next_end is not None and self._next_end[:2] <= at:
            _, _, flag, topic, partition, offset, check = self._next_end
            if self._next_end[:2] == at and check == check_of(fields.get(staging.ID)):
                flags |= Flags(flag)
                if flag & Flags.ENDED:
                    ends.append(Spot(self._topics[topic], partition, offset))
            self._read_end()
        if len(ends) > 1:
            self.findings.add_double(Double(at, tuple(ends[:_SHOWN_ENDS])), len(ends) - 1)
        self.findings.counts.dead_lettered += bool(flags & Flags.DEAD_LETTERED)
        self.findings.counts.skipped += bool(flags & Flags.SKIPPED)
        return flags

    def _read_end(self) -> None:
        assert self._sorted_ends is not None
        packed = next(self._sorted_ends, None)
        self._next_end = END.unpack(packed) if packed is not None else None

    # --- judging

    def judge(self) -> Findings:
        """What all that was entered comes to. Once, in the end."""
        for _, entries in groupby(map(EVENT.unpack, self._events), key=lambda entry: entry[0]):
            self._judge_event(entries)
        self._judge_order()
        self.findings.sort()
        return self.findings

    def _judge_event(self, entries: Iterator[tuple[int, ...]]) -> None:
        event: Event | None = None
        for _, kind, topic, partition, offset, flags, extra in entries:
            event = event or Event(topic)
            if kind == STAGED:
                event.add_staged(At(partition, offset), flags, extra)
            else:
                event.add_delivered(Arrival(partition, offset, extra))
        assert event is not None
        counts = self.findings.counts
        if event.last is None:
            counts.foreign += event.deliveries
            return
        counts.delivered += event.deliveries
        counts.staged_again += event.copies - 1
        total = event.sum()
        counts.parked += total.parked
        counts.pending += total.pending
        if total.missing and event.oldest_ms < self._deleted_before.get(event.topic, 0):
            counts.unjudged += total.missing
        elif total.missing:
            self.findings.add_missing(list(event.open_places)[-total.missing :], total.missing)
        if total.again and not event.redriven:
            ends = tuple(
                Spot(self._topics[event.topic], arrival.partition, arrival.offset)
                for arrival in event.arrivals[:_SHOWN_ENDS]
            )
            self.findings.add_double(Double(event.first or event.last, ends), total.again)
            if self._staging_is_cut:
                return  # the first delivery may be of a time it was staged that staging has deleted
        self._note_order(event)

    def _note_order(self, event: Event) -> None:
        for arrival in event.first_arrivals():
            assert event.first is not None
            place = (event.topic, arrival.partition, arrival.key, event.first.partition)
            self._moves.add(MOVE.pack(*place, arrival.offset, event.first.offset))

    def _judge_order(self) -> None:
        """Per key and target partition, first deliveries keep the staging order (T5)."""
        for _, moves in groupby(self._moves, key=lambda packed: packed[:_ORDER_BYTES]):
            latest = -1
            for topic, partition, _, staged_in, came, staged_at in map(MOVE.unpack, moves):
                if staged_at < latest:
                    spot = Spot(self._topics[topic], partition, came)
                    self.findings.add_disorder(
                        Disorder(At(staged_in, staged_at), spot, At(staged_in, latest))
                    )
                latest = max(latest, staged_at)
