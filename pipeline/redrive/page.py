"""Dealing with one page of dead letters: send back or discard, then say so in `<ns>.dlq.state` (Q3, Q5, T6).

Owns: the order of these writes, which decides what a crash can repeat. Must not know: jobs, pages of a list,
how fast it is to go.

What is written last is the state, after the copies' acknowledgement: a crash in between repeats this page, never
loses a letter of it. A worker that stops in good order writes what it has sent, and repeats no more than a part.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from catalog import OwnTopics
from pipeline.audit import Entry, record_of
from pipeline.clock import Clock
from pipeline.errors import StagerClosed
from pipeline.kafka.cluster import Cluster
from pipeline.record import OutRecord
from pipeline.redrive.entry import state_entry
from pipeline.redrive.job import Job, JobKind
from pipeline.redrive.model import Coordinates, Letter
from pipeline.redrive.pace import Pace
from pipeline.redrive.records import Records
from pipeline.redrive.restore import Held, NotRedriven, WayBack, omitted_from, way_back
from pipeline.redrive.selection import LetterState
from pipeline.redrive.ship import ship, ship_all

__all__ = ["Pages"]

_STEP = 100
"""How many letters are made ready in one turn of the event loop: more would hold live events up."""
_READ, _SENT, _RECORDED = 0.04, 0.08, 0.9
"""The shares of its time after which a page is read, its first part is sent, and it is recorded: the worker has
delivered what was sent, and slow brokers may still take their time. A live event takes turns of the event loop with
each of these steps: one that meets them all, one behind the other, is some milliseconds late."""
_LAST_S = 1.0
"""How long recording may take where the page was not dealt with to its end."""

Outcome = tuple[int, Mapping[str, int]]
"""How many letters were ended, and how many were left, by reason."""


class Pages:
    """Deals with pages for one leader. `records` reads the letters."""

    def __init__(
        self, own: Cluster, topics: OwnTopics, clock: Clock, records: Records, max_redrives: int
    ) -> None:
        self._own = own
        self._topics = topics
        self._clock = clock
        self._records = records
        self._max_redrives = max_redrives

    async def deal_with(self, job: Job, letters: Sequence[Letter], pace: Pace, at_once: int) -> Outcome:
        """Do what the job says with these letters, in their order, a redrive `at_once` letters at a time at this pace;
        all of it is durable when this returns."""
        if job.kind is JobKind.DISCARD:
            await self._discard(job, letters)
            await self._end(self._entries(job, map(_place, letters), LetterState.DISCARDED))
            return len(letters), {}
        await pace.reach(_READ)
        records = await self._records.read(map(_place, letters))
        originals = await self._originals(records)
        held: Counter[str] = Counter()
        ended: list[tuple[int, OutRecord]] = []
        try:
            for begin in range(0, len(letters), at_once):
                part = letters[begin : begin + at_once]
                await pace.reach(_SENT + (_RECORDED - _SENT) * begin / len(letters))
                ways = await self._ways_back(part, records, originals, held)
                for topic, of_topic in ways.items():
                    sent = await self._send(topic, of_topic, held)
                    ended += self._entries(job, sent, LetterState.REDRIVEN)
            await pace.reach(_RECORDED)
        except BaseException:  # the worker stops, say: what is sent is not to be sent by the next leader
            with suppress(TimeoutError, KafkaError, StagerClosed):
                async with asyncio.timeout(_LAST_S):
                    await self._end(ended)
            raise
        await self._end(ended)
        return len(ended), held

    async def _ways_back(
        self,
        letters: Sequence[Letter],
        records: Mapping[Coordinates, Any],
        originals: Mapping[Coordinates, Any],
        held: Counter[str],
    ) -> dict[str, list[tuple[Coordinates, WayBack]]]:
        """The way back of these letters, by topic; why there is none is added to what is held."""
        ways: dict[str, list[tuple[Coordinates, WayBack]]] = {}
        for number, letter in enumerate(letters, 1):
            place = _place(letter)
            try:
                way = self._way_back(letter, records.get(place), originals.get(place))
            except NotRedriven as error:
                held[error.why] += 1
            else:
                ways.setdefault(way.topic, []).append((place, way))
            if number % _STEP == 0:
                await asyncio.sleep(0)
        return ways

    async def _send(
        self, topic: str, ways: Sequence[tuple[Coordinates, WayBack]], held: Counter[str]
    ) -> list[Coordinates]:
        """Send these letters back to a topic, and wait. Out: those that are there; why others are not is added to what
        is held."""
        try:
            refusals = await ship(self._own, topic, [(way.partition, way.record) for _, way in ways])
        except UnknownTopicOrPartitionError:
            held[Held.NO_TOPIC] += len(ways)
            return []
        if refusals:
            held[Held.REFUSED] += len(refusals)
        return [place for index, (place, _) in enumerate(ways) if index not in refusals]

    def _way_back(self, letter: Letter, record: Any, original: Any) -> WayBack:
        if record is None:
            raise NotRedriven(Held.GONE)
        return way_back(
            record,
            original,
            staging_topic=self._topics.staging,
            failed_at=letter.failed_at,
            max_redrives=self._max_redrives,
        )

    async def _originals(self, found: Mapping[Coordinates, Any]) -> dict[Coordinates, Any]:
        """Of the letters without their payload, the records that still have it."""
        wanted = {}
        for place, record in found.items():
            try:
                origin = omitted_from(record.headers, self._topics.staging)
            except NotRedriven:
                continue
            if origin is not None:
                wanted[place] = origin
        if not wanted:
            return {}
        originals = await self._records.read(wanted.values())
        return {place: originals[origin] for place, origin in wanted.items() if origin in originals}

    async def _discard(self, job: Job, letters: Sequence[Letter]) -> None:
        """An audit record for each: a discard is an end, and must say whose (T6)."""
        now = self._clock.time()
        entries = [
            Entry(
                "discarded",
                job.by,
                now,
                f"{letter.topic}/{letter.partition}/{letter.offset}",
                {
                    "id": letter.id,
                    "definition": letter.definition,
                    "topic": letter.topic,
                    "partition": letter.partition,
                    "offset": letter.offset,
                    "error_class": letter.error_class,
                    "reason": job.reason,
                    "job": job.id,
                },
            )
            for letter in letters
        ]
        await ship_all(self._own, self._topics.audit, map(record_of, entries))

    def _entries(
        self, job: Job, places: Iterable[Coordinates], state: LetterState
    ) -> list[tuple[int, OutRecord]]:
        # To the partition with the letter's own number: a page is then one batch and not one for each partition, its
        # keys need no hash, and a letter's entries still lie in one partition, to be compacted.
        now = self._clock.time()
        return [
            (place.partition, state_entry(place, state, at=now, by=job.by, job=job.id)) for place in places
        ]

    async def _end(self, entries: Sequence[tuple[int, OutRecord]]) -> None:
        for error in (await ship(self._own, self._topics.dlq_state, entries)).values():
            raise error


def _place(letter: Letter) -> Coordinates:
    return Coordinates(letter.topic, letter.partition, letter.offset)
