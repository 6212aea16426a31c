"""Everything that pages, API and commands ask of dead letters, as one protocol.

Owns: the promises of each call. Must not know: how any of it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.redrive.job import Job, JobKind
from pipeline.redrive.model import FullRecord, Groups, LetterPage, Overview, Preview
from pipeline.redrive.selection import Selection

__all__ = ["DeadLetters"]


class DeadLetters(Protocol):
    """What pages, API and commands ask for. None of it blocks the loop; what changes something is durable in
    `<ns>.jobs`, with its audit record, when it returns. Raises `WrongSelection`, `NoSuchLetter`, `LetterGone`,
    `NoSuchJob`, and where Kafka does not answer a `KafkaError`."""

    async def overview(self) -> Overview:
        """Counts by topic and class."""
        ...

    async def groups(self, selection: Selection) -> Groups:
        """The failures selected, by kind; the thousand with most are told."""
        ...

    async def letters(self, selection: Selection, cursor: str | None = None, limit: int = 50) -> LetterPage:
        """The letters selected, newest first; `limit` from 1 to 1,000."""
        ...

    async def record(self, topic: str, partition: int, offset: int) -> FullRecord:
        """One letter, and its record from its topic."""
        ...

    async def preview(self, selection: Selection) -> Preview:
        """What a job would do; changes nothing."""
        ...

    async def start(
        self, kind: JobKind, selection: Selection, *, by: str, rate: float = 0.0, reason: str = ""
    ) -> Job:
        """Start a job; some worker takes it. `by`: the name that the audit record is to have."""
        ...

    def jobs(self) -> Sequence[Job]:
        """All jobs, newest first."""
        ...

    def job(self, job_id: str) -> Job:
        """One job."""
        ...

    async def pause(self, job_id: str, *, by: str) -> Job:
        """Let a job wait; what it has under way ends first."""
        ...

    async def resume(self, job_id: str, *, by: str) -> Job:
        """Let a paused job go on."""
        ...

    async def cancel(self, job_id: str, *, by: str) -> Job:
        """End a job; what it has done stays done."""
        ...
