"""Jobs: what an operator has asked to be done with dead letters, and how far it is; and orders about targets.

Owns: these types, and the records of `<ns>.jobs` that they are told by. Must not know: who leads a job, or how.

Each kind of record that tells a job has a key of its own, so that none overwrites another's: the order, which is the
operator's; the claim of a worker that wants to lead it; the progress, which is the leader's; and of a job about what
is parked the part of each staging partition, which is its owner's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from pipeline.errors import StagepostError
from pipeline.redrive.model import Coordinates
from pipeline.redrive.selection import Selection, WrongSelection

__all__ = [
    "Claim",
    "Job",
    "JobKind",
    "JobState",
    "NoSuchJob",
    "Order",
    "Part",
    "Progress",
    "TargetOrder",
    "Told",
    "Wanted",
    "WrongJobState",
    "read_told",
]


class JobKind(StrEnum):
    """What a job does with the dead letters that it selects; a scan puts those of a topic into the index.

    The last two are about what is parked: a release delivers it now, a move-on makes dead letters of it.
    """

    REDRIVE = "redrive"
    DISCARD = "discard"
    SCAN = "scan"
    RELEASE = "release"
    MOVE_ON = "move-on"

    @property
    def is_about_parked(self) -> bool:
        """Whether it is carried out by the owners of the staging partitions, each its part."""
        return self in {JobKind.RELEASE, JobKind.MOVE_ON}


class JobState(StrEnum):
    """How far a job is. `waiting`: no worker leads it now. The last three are final."""

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


class Wanted(StrEnum):
    """What the operator wants of a job."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class NoSuchJob(StagepostError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id!r}: see the list of jobs")


class WrongJobState(StagepostError):
    """The job has ended: nothing can be asked of it any more."""

    def __init__(self, job_id: str, state: JobState) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"job {job_id} is {state} already: start another one with the same selection")


class _Told(BaseModel):
    """Base of the records of the jobs topic."""

    model_config = ConfigDict(frozen=True)

    @property
    def key(self) -> str:
        """The key of the record: the last one told under it counts."""
        raise NotImplementedError

    def record(self) -> tuple[bytes, bytes, list[tuple[str, bytes | None]]]:
        """Key, value and headers."""
        headers: list[tuple[str, bytes | None]] = [("content-type", b"application/json")]
        return self.key.encode(), self.model_dump_json().encode(), headers


class Order(_Told):
    """A job as it was ordered, and what is wanted of it now."""

    told: Literal["order"] = "order"
    job: str
    kind: JobKind
    selection: Mapping[str, str]
    rate: float
    by: str
    reason: str
    at: float
    want: Wanted = Wanted.RUN
    count: int | None = None
    """How many it was seen to meet when it was ordered; None where nobody looked."""

    @property
    def key(self) -> str:
        """Of the job's order there is one."""
        return f"{self.job}/order"


class Claim(_Told):
    """A worker wants to lead a job, as its leader number `epoch`. The first claim to an epoch counts."""

    told: Literal["claim"] = "claim"
    job: str
    epoch: int
    worker: str

    @property
    def key(self) -> str:
        """Each worker's claim to an epoch has its own."""
        return f"{self.job}/claim/{self.epoch}/{self.worker}"


class Progress(_Told):
    """How far a job's leader is; also the sign that it lives."""

    told: Literal["progress"] = "progress"
    job: str
    epoch: int
    worker: str
    state: JobState
    total: int | None = None
    done: int = 0
    held: Mapping[str, int] = {}
    after: tuple[str, int, int] | None = None
    """Everything selected up to this letter has been dealt with."""
    at: float
    error: str = ""

    @property
    def key(self) -> str:
        """Of a job's progress there is one."""
        return f"{self.job}/progress"


class Part(_Told):
    """How far the owner of a staging partition is with its part of a job about what is parked.

    `upto`: the job ends before this offset of the partition of `<ns>.parked`. `total`: None where it is not known.
    """

    told: Literal["part"] = "part"
    job: str
    partition: int
    worker: str
    state: JobState
    upto: int
    total: int | None
    done: int = 0
    held: Mapping[str, int] = {}
    error: str = ""

    @property
    def key(self) -> str:
        """Of each partition there is one."""
        return f"{self.job}/part/{self.partition}"


class TargetOrder(_Told):
    """What every worker is to do about a target. A pause stands until it is ended; a reset is done once."""

    told: Literal["target"] = "target"
    target: str
    want: Literal["pause", "resume", "reset"]
    by: str
    at: float

    @property
    def key(self) -> str:
        """A reset leaves a pause as it is."""
        return f"target/{self.target}/{'reset' if self.want == 'reset' else 'pause'}"


Told = Order | Claim | Progress | Part | TargetOrder
_KINDS: dict[str, type[Told]] = {
    "order": Order,
    "claim": Claim,
    "progress": Progress,
    "part": Part,
    "target": TargetOrder,
}


def read_told(value: bytes | None) -> Told | None:
    """What a record of the jobs topic tells; None for what is none of ours."""
    try:
        document = from_json(value or b"null")
        told = _KINDS[document["told"]].model_validate(document)
        if isinstance(told, Order):
            Selection.parse(told.selection)
    except (ValueError, ValidationError, KeyError, TypeError, WrongSelection):
        return None
    return told


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. `rate`: events a second at most; 0: as fast as it goes."""

    id: str
    kind: JobKind
    selection: Selection
    rate: float
    by: str
    reason: str
    created_at: float
    state: JobState
    want: Wanted = Wanted.RUN
    total: int | None = None
    """How many were selected when it began; None: it has not begun. Of what is parked, until its end, how many were
    seen when it was ordered, where its parts cannot tell."""
    done: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
    """How many were left as they are, by reason."""
    after: Coordinates | None = None
    leader: str = ""
    updated_at: float | None = None
    error: str = ""
    """Why it failed, or what it is waiting for."""

    @property
    def conditions(self) -> dict[str, str]:
        """What it selects. What is parked has none of the states of dead letters."""
        given = self.selection.as_text()
        return {
            name: value for name, value in given.items() if name != "state" or not self.kind.is_about_parked
        }

    @property
    def left(self) -> int | None:
        """How many it has not come to yet."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - sum(self.held.values()))
