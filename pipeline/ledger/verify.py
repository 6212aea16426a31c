"""Verifying a namespace: take a cut, read everything up to it, have the books judge.

Owns: the order of reading, which makes the cut hold on a live system, and finding out what each event is called.
Must not know: what makes an event missing or double, how the answer is printed.

The order: committed offsets first, then the ends of all topics with ends, then the end of staging. So whatever is
committed has its end within what is read, and whatever stands on a target was staged within what is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from catalog import Catalog, OwnTopics
from pipeline import staging
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errors import StagepostError
from pipeline.kafka.admin import committed
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Bounds, Place, Reader
from pipeline.ledger.books import Books
from pipeline.ledger.findings import At, Ledger, Name, StagingRange

__all__ = ["DEFAULT_LIMIT", "PartitionStuck", "verify"]

DEFAULT_LIMIT = 10_000

_PLACES_AT_ONCE = 16
"""So many partitions are read side by side: each may hold a megabyte or two that is fetched ahead."""
_RECORDS = 2_000
_WAIT_S = 1.0
_PATIENCE_S = 60.0
_PROGRESS_S = 2.0
_NEAR = 5_000
"""Records that are this near are read through; to those further off the reader jumps."""

Progress = Callable[[str], None]


class PartitionStuck(StagepostError):
    """A partition says that it holds more, and does not give it."""

    def __init__(self, place: Place, offset: int, end: int) -> None:
        self.place = place
        self.offset = offset
        self.end = end
        super().__init__(
            f"{place.topic}, partition {place.partition}: nothing came from offset {offset} on in {_PATIENCE_S:g} s, "
            f"though it should reach to {end}; was the topic deleted meanwhile? Check that its leader is up, run again"
        )


async def verify(
    own: Connection,
    targets: Connection,
    catalog: Catalog,
    *,
    limit: int = DEFAULT_LIMIT,
    progress: Progress = lambda _: None,
) -> Ledger:
    """Read back all that the catalog's namespace holds, and judge it: a million events take some 30 s of a processor.

    In: the clusters of staging and of the targets; how many findings of each kind to name. Changes nothing,
    and may run beside workers and services. Memory does not grow with the number of events; the system's
    folder for temporary files must take some 90 bytes for each. Raises a `KafkaError` where a cluster does
    not answer, `PartitionStuck`, or an `OSError` where that folder is full.
    """
    topics = OwnTopics(catalog.namespace)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stagepost-ledger-")))
        on_own = await stack.enter_async_context(Reader(own))
        on_targets = await stack.enter_async_context(Reader(targets))
        reached = await committed(own, topics.group, topics.staging)
        books = Books(catalog, topics, folder, reached, limit)
        delivered = await on_targets.all_bounds(books.targets)
        kept = await on_own.all_bounds(books.kept)
        staged = await on_own.all_bounds([topics.staging])

        await _enter_ends(books, on_own, kept, progress)
        await _enter_staging(books, on_own, staged, progress)
        await _enter_targets(books, on_targets, delivered, progress)
        progress("judging")
        findings = books.judge()
        names = await _names(on_own, topics.staging, findings.places())
    ranges = {
        place.partition: StagingRange(
            bounds.first, max(bounds.first, reached.get(place.partition, 0)), bounds.end
        )
        for place, bounds in staged.items()
    }
    return Ledger(ranges, findings, names)


async def _enter_ends(
    books: Books, reader: Reader, bounds: Mapping[Place, Bounds], progress: Progress
) -> None:
    read = _read(reader, bounds, _Told("dead letters, parked and audit records", bounds, progress))
    async for place, records in read:
        for record in records:
            books.add_end(place.topic, place.partition, record)


async def _enter_staging(
    books: Books, reader: Reader, bounds: Mapping[Place, Bounds], progress: Progress
) -> None:
    told = _Told("staging records", bounds, progress)
    if any(one.first for one in bounds.values()):
        books.staging_deleted()
    for at, one in sorted(bounds.items()):  # one after another: the books want them so
        async for place, records in _read(reader, {at: one}, told):
            for record in records:
                books.add_staged(place.partition, record)


async def _enter_targets(
    books: Books, reader: Reader, bounds: Mapping[Place, Bounds], progress: Progress
) -> None:
    deleted = {place for place, one in bounds.items() if one.first}
    for place in deleted:
        if bounds[place].first == bounds[place].end:
            books.target_deleted(place.topic, None)
    async for place, records in _read(reader, bounds, _Told("records on targets", bounds, progress)):
        if place in deleted:
            deleted.discard(place)
            books.target_deleted(place.topic, records[0].timestamp)
        for record in records:
            books.add_delivered(place.topic, place.partition, record)


async def _read(
    reader: Reader, bounds: Mapping[Place, Bounds], told: _Told
) -> AsyncIterator[tuple[Place, Sequence[Any]]]:
    """Every record within the bounds, some at a time; of each partition in order."""
    filled = [(place, one) for place, one in bounds.items() if one.first < one.end]
    for start in range(0, len(filled), _PLACES_AT_ONCE):
        left = dict(filled[start : start + _PLACES_AT_ONCE])
        reader.read_from({place: one.first for place, one in left.items()})
        heard = SYSTEM_CLOCK.monotonic()
        while left:
            fetched = await reader.fetch(_RECORDS, _WAIT_S)
            for place, records in fetched.items():
                heard = SYSTEM_CLOCK.monotonic()
                if place not in left:
                    continue
                end = left[place].end
                within = records if records[-1].offset < end else [r for r in records if r.offset < end]
                if within:
                    yield place, within
                    told.add(len(within))
                if records[-1].offset + 1 >= end:
                    reader.pause(place)
                    del left[place]
            if not fetched:
                await _pass_markers(reader, left, heard)


async def _pass_markers(reader: Reader, left: dict[Place, Bounds], heard: float) -> None:
    """Where nothing came: partitions whose rest is markers of transactions are done."""
    for place, one in list(left.items()):
        position = await reader.position(place)
        if position >= one.end:
            del left[place]
        elif SYSTEM_CLOCK.monotonic() - heard > _PATIENCE_S:
            raise PartitionStuck(place, position, one.end)


async def _names(reader: Reader, topic: str, places: Iterable[At]) -> dict[At, Name]:
    """Read again what is to be named."""
    wanted = sorted(places)
    names: dict[At, Name] = {}
    while len(names) < len(wanted):
        first = wanted[len(names)]
        last = first
        for at in wanted[len(names) :]:
            if at.partition != first.partition or at.offset - last.offset > _NEAR:
                break
            last = at
        bounds = {Place(topic, first.partition): Bounds(first.offset, last.offset + 1)}
        among = {at for at in wanted if first <= at <= last}
        async for place, records in _read(reader, bounds, _Told("", bounds, lambda _: None)):
            for record in records:
                at = At(place.partition, record.offset)
                if at in among:
                    names[at] = _name(record)
        for at in among - names.keys():  # deleted meanwhile
            names[at] = Name("", "", "", "")
    return names


def _name(record: Any) -> Name:
    fields = dict(record.headers)
    texts = (fields.get(staging.ID), fields.get(staging.SOURCE), fields.get(staging.DEFINITION), record.key)
    return Name(*((text or b"").decode(errors="replace") for text in texts))


class _Told:
    """Says now and then how much has been read."""

    def __init__(self, what: str, bounds: Mapping[Place, Bounds], progress: Progress) -> None:
        self._what = what
        self._total = sum(one.end - one.first for one in bounds.values())
        self._progress = progress
        self._count = 0
        self._next = SYSTEM_CLOCK.monotonic() + _PROGRESS_S

    def add(self, count: int) -> None:
        """So many more are read."""
        self._count += count
        now = SYSTEM_CLOCK.monotonic()
        if now >= self._next:
            self._next = now + _PROGRESS_S
            self._progress(f"{self._what}: {self._count:,} of {self._total:,} read")
