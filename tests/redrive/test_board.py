"""Who leads which job, by the log alone: workers agree without asking each other (O2)."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from pipeline.redrive.board import LEASE_S, Board
from pipeline.redrive.coordinate import coordinate
from pipeline.redrive.job import Claim, JobKind, JobState, NoSuchJob, Order, Part, Progress, Wanted, read_told
from pipeline.redrive.lead import fitting
from pipeline.redrive.lease import Lease
from pipeline.redrive.pace import Pace, page_size, part_size
from pipeline.testing import SteppingClock

TOPIC = {"topic": "a.dlq"}


def order(job: str, selection: Mapping[str, str] = TOPIC, want: Wanted = Wanted.RUN) -> Order:
    """An order."""
    return Order(
        job=job, kind=JobKind.REDRIVE, selection=selection, rate=0, by="ann", reason="", at=1.0, want=want
    )


def claim(job: str, epoch: int, worker: str = "w1") -> Claim:
    """A claim."""
    return Claim(job=job, epoch=epoch, worker=worker)


def progress(job: str, epoch: int, state: JobState = JobState.RUNNING, worker: str = "w1") -> Progress:
    """A sign of life."""
    return Progress(job=job, epoch=epoch, worker=worker, state=state, total=10, done=4, at=2.0)


def told(*records: Order | Claim | Progress | Part, at: float = 0.0) -> Board:
    """A board that has read these."""
    board = Board()
    for record in records:
        board.take(record, at)
    return board


def test_the_first_claim_counts() -> None:
    """O2: of several claims to an epoch the first in the log leads, whoever reads it."""
    board = told(order("j"), claim("j", 1, "w1"), claim("j", 1, "w2"), claim("j", 3, "w3"))
    assert board.leads("j", 1, "w1")
    assert board.led_by("w1") == {"j": 1}
    assert not board.led_by("w2")
    assert board.job("j").state is JobState.RUNNING
    assert board.claimable(1.0) == {}


def test_a_leader_that_is_silent_is_followed() -> None:
    """O2: after the lease another may lead; the former one finds out from the log, and is not listened to."""
    board = told(order("j"), claim("j", 1, "w1"), progress("j", 1))
    assert board.claimable(LEASE_S - 0.1) == {}
    assert board.claimable(LEASE_S) == {"j": 2}
    board.take(claim("j", 2, "w2"), LEASE_S)
    assert not board.leads("j", 1, "w1")
    board.take(progress("j", 1, JobState.DONE, "w1"), LEASE_S + 1)
    assert board.job("j").state is JobState.RUNNING
    board.take(progress("j", 2, JobState.DONE, "w2"), LEASE_S + 2)
    assert board.job("j").state is JobState.DONE
    assert board.claimable(1_000.0) == {}


def test_jobs_that_may_meet_run_one_after_the_other() -> None:
    """Q5: two jobs that may select the same letters never run at once, in the order in which they were ordered;
    those of different topics do."""
    board = told(order("1"), order("2"), order("3", {"topic": "b.dlq"}), order("4", {}))
    assert board.claimable(0.0) == {"1": 1, "3": 1}
    for record in (claim("2", 1), claim("1", 1), claim("3", 1), claim("4", 1)):
        board.take(record, 0.0)
    assert board.led_by("w1") == {"1": 1, "3": 1}
    board.take(progress("1", 1, JobState.DONE), 1.0)
    assert board.claimable(1.0) == {"2": 1}
    board.take(claim("2", 1), 1.0)
    board.take(progress("2", 1, JobState.FAILED), 2.0)
    board.take(progress("3", 1, JobState.CANCELLED), 2.0)
    assert board.claimable(2.0) == {"4": 1}


def test_a_paused_job_lets_others_go() -> None:
    """O2: paused, it is led by nobody and stands in nobody's way; resumed, it waits until the way is free."""
    board = told(order("1"), claim("1", 1), order("1", want=Wanted.PAUSE), order("2"))
    assert board.job("1").state is JobState.RUNNING  # its leader has not come to it yet
    assert board.claimable(0.0) == {}
    board.take(progress("1", 1, JobState.PAUSED), 1.0)
    assert board.job("1").state is JobState.PAUSED
    assert board.claimable(1.0) == {"2": 1}
    board.take(claim("2", 1), 1.0)
    board.take(order("1"), 2.0)
    assert board.job("1").state is JobState.WAITING
    assert board.claimable(2.0) == {}
    board.take(progress("2", 1, JobState.DONE), 3.0)
    assert board.claimable(3.0) == {"1": 2}


def test_a_cancelled_job_wants_a_leader_who_ends_it() -> None:
    """O2: also one that nobody leads ends, and says so."""
    board = told(order("1", want=Wanted.PAUSE), order("1", want=Wanted.CANCEL))
    assert board.claimable(0.0) == {"1": 1}


def test_all_workers_agree() -> None:
    """O2: whatever is told in whatever order, two readers of the log have the same leaders, at most one a topic."""
    chance = random.Random(5)
    for _ in range(300):
        mine, theirs = Board(), Board()
        for step in range(40):
            job, epoch, worker = chance.choice("123"), chance.randint(1, 4), chance.choice(["w1", "w2"])
            options: list[Order | Claim | Progress] = [
                order(job, chance.choice([TOPIC, {"topic": "b.dlq"}]), chance.choice(list(Wanted))),
                claim(job, epoch, worker),
                progress(job, epoch, chance.choice(list(JobState)), worker),
            ]
            record = chance.choice(options)
            mine.take(record, step)
            theirs.take(record, step * 100.0)
        assert [(job.id, job.leader, job.state) for job in mine.jobs()] == [
            (job.id, job.leader, job.state) for job in theirs.jobs()
        ]


def test_what_the_log_may_hold() -> None:
    """N4: records of the log come out as they went in; whatever else is there is passed over."""
    for record in (order("j"), claim("j", 2), progress("j", 2)):
        _, value, _ = record.record()
        assert read_told(value) == record
    for junk in (None, b"", b"{", b"[]", b'{"told":"order"}', b'{"told":"x"}', b"\xff"):
        assert read_told(junk) is None
    hostile = order("j", {"colour": "red"}).record()[1]
    assert read_told(hostile) is None
    with pytest.raises(NoSuchJob):
        told().job("j")
    assert len({record.key for record in (order("j"), claim("j", 1), claim("j", 2), progress("j", 1))}) == 4


def test_old_jobs_are_forgotten() -> None:
    """The board is bounded: of ended jobs the last few hundred are remembered, of others all."""
    board = told(order("open"))
    for number in range(500):
        board.take(order(f"j{number}", {"topic": f"{number}.dlq"}), 0.0)
        board.take(progress(f"j{number}", 1, JobState.DONE), 0.0)
    names = [job.id for job in board.jobs()]
    assert len(names) < 210
    assert names[0] == "j499"
    assert names[-1] == "open"


def test_how_much_a_leader_has_in_hand() -> None:
    """Q5: with a rate, a page is what goes in a quarter of a second, sent in twentieths; of large letters it has few,
    at least one."""
    assert [page_size(rate) for rate in (0.0, 0.5, 500.0, 1e6)] == [1_000, 1, 125, 1_000]
    assert [part_size(rate) for rate in (0.0, 0.5, 500.0, 1e6)] == [1_000, 1, 25, 1_000]
    assert [fitting(sizes, 10) for sizes in ([], [99], [4, 6, 1], [4, 7])] == [0, 1, 2, 1]


async def test_parts_have_their_place_in_the_time_of_a_page() -> None:
    """Q5: a part waits until its share of the time is over; one that is late, or of a job without a rate, waits for
    nothing, so that the rate is kept."""
    clock = SteppingClock()
    pace = Pace(clock, clock.monotonic(), 10.0)
    assert [pace.wait_s(share) for share in (0.0, 0.5, 1.0)] == [0.0, 5.0, 10.0]
    clock.step(7.0)
    assert [pace.wait_s(share) for share in (0.5, 1.0)] == [0.0, 3.0]
    assert Pace(clock, clock.monotonic() - 1.0, 0.0).wait_s(1.0) == 0.0
    await pace.reach(0.5)


def part(partition: int, state: JobState = JobState.RUNNING, worker: str = "w1", done: int = 3) -> Part:
    """What the owner of a staging partition tells of a job about what is parked."""
    return Part(job="p", partition=partition, worker=worker, state=state, upto=9, total=5, done=done)


def test_the_owners_of_partitions_tell_their_parts() -> None:
    """P6: a job about what is parked is an errand while it is led; of each partition the last word counts, but an end
    is an end, whatever a former owner says; it stands in no way of jobs about dead letters of any topic."""
    release = order("p").model_copy(update={"kind": JobKind.RELEASE})
    board = told(release, order("1", {}))
    assert board.errands() == []
    assert board.claimable(0.0) == {"p": 1, "1": 1}
    for record in (claim("p", 1), part(0), part(1), part(0, JobState.DONE, "w2", 5), part(0)):
        board.take(record, 0.0)
    assert [job.id for job in board.errands()] == ["p"]
    parts = board.parts("p")
    assert (parts[0].state, parts[0].done, parts[1].state) == (JobState.DONE, 5, JobState.RUNNING)
    assert read_told(part(1).record()[1]) == parts[1]
    board.take(progress("p", 1, JobState.DONE), 1.0)
    assert board.errands() == []


async def test_a_job_about_what_is_parked_ends_with_its_last_part() -> None:
    """P6, O3: its leader adds up what the owners tell, in whatever order, and audits the end once; paused it leads no
    longer, and with a part that was cancelled the whole is."""
    board = told(order("p").model_copy(update={"kind": JobKind.MOVE_ON}), claim("p", 1))
    said: list[Progress] = []
    audited: list[tuple[JobState, int, dict[str, int]]] = []
    wanted = [Wanted.RUN]

    async def tell(word: Progress) -> None:
        said.append(word)
        if word.state is JobState.RUNNING:
            held = {"still_parked": 2}
            board.take(part(len(board.parts("p")), JobState.DONE).model_copy(update={"held": held}), 0.0)

    async def audit(state: JobState, done: int, held: Mapping[str, int]) -> None:
        audited.append((state, done, dict(held)))

    async def lead() -> None:
        clock = SteppingClock()

        def parts() -> Mapping[int, Part]:
            clock.step(1.0)
            return board.parts("p")

        lease = Lease(board.job("p"), 1, "w1", clock, lambda: wanted[0], tell, audit)
        await coordinate(lease, range(2), parts)

    await lead()
    assert audited == [(JobState.DONE, 6, {"still_parked": 4})]
    assert (said[-1].state, said[-1].total, said[-1].done) == (JobState.DONE, 10, 6)
    board = told(order("p").model_copy(update={"kind": JobKind.MOVE_ON}), claim("p", 1), part(0))
    wanted[0] = Wanted.PAUSE
    await lead()
    assert said[-1].state is JobState.PAUSED
    wanted[0] = Wanted.CANCEL
    board.take(part(0, JobState.DONE), 0.0)
    board.take(part(1, JobState.CANCELLED, done=0), 0.0)
    await lead()
    assert audited[1:] == [(JobState.CANCELLED, 3, {})]


def test_of_what_is_parked_it_is_told_how_many_were_seen() -> None:
    """O2: where the owners of partitions cannot tell how many a choice meets, progress is of as many as were seen when
    the job was ordered, until the end says how many there were."""
    counted = order("p").model_copy(update={"kind": JobKind.MOVE_ON, "count": 12})
    silent = progress("p", 1).model_copy(update={"total": None})
    board = told(counted, claim("p", 1), silent)
    assert (board.job("p").total, board.job("p").left) == (12, 8)
    board.take(progress("p", 1, JobState.DONE), 1.0)
    assert board.job("p").total == 10
    redrive = order("r").model_copy(update={"count": 12})
    assert told(redrive, claim("r", 1)).job("r").total is None
