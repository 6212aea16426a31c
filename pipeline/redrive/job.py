"""Jobs: what an operator has asked to be done with dead letters, and how far it is.

Owns: these types. Must not know: who leads a job, or how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pipeline.errors import StagepostError
from pipeline.redrive.selection import Selection

__all__ = ["Job", "JobKind", "JobState", "NoSuchJob", "Order"]

Order = Literal["run", "pause", "cancel"]
"""What an operator wants of a job."""


class JobKind(StrEnum):
    """What a job does with the dead letters that it selects; a scan puts those of a topic into the index."""

    REDRIVE = "redrive"
    DISCARD = "discard"
    SCAN = "scan"


class JobState(StrEnum):
    """How far a job is. `waiting`: no worker has taken it yet. The last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes of it."""
        return self in {JobState.DONE, JobState.CANCELLED, JobState.FAILED}


class NoSuchJob(StagepostError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id!r}: see the list of jobs")


@dataclass(frozen=True, slots=True)
class Job:
    """A redrive, discard or scan. `rate`: events a second at most; 0: as fast as it goes."""

    id: str
    kind: JobKind
    selection: Selection
    rate: float
    by: str
    reason: str
    created_at: float
    state: JobState
    total: int | None = None
    """How many were selected when it began; None: it has not begun."""
    done: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many were left as they are, by reason."""
    leader: str = ""
    updated_at: float | None = None
    error: str = ""
    """Why it failed, or what it is waiting for."""

    @property
    def left(self) -> int | None:
        """How many it has not come to yet."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - sum(self.refused.values()))
