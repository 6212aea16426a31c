"""The parts of real fire that decide whether a run is believed: schedule, journal, small disk, reckoning."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.journal import Journal, durable_ids, staged_ids
from tests.chaos.run import Outcome, late_ids
from tests.chaos.schedule import BROKER_FAULTS, PROCESS_FAULTS, strikes
from tests.chaos.small_disk import SmallDisk, can_mount

_FAULTS = len(BROKER_FAULTS)


def test_a_seed_replays_its_schedule() -> None:
    """The same seed draws the same strikes, another one others; every fault strikes once in each round."""
    first = [list(islice(strikes(seed, BROKER_FAULTS, gap_s=(1, 2)), 2 * _FAULTS)) for seed in (7, 7, 8)]
    assert first[0] == first[1] != first[2]
    assert {strike.fault for strike in first[0][:_FAULTS]} == set(BROKER_FAULTS)
    assert all(1 <= strike.after_s <= 2 for strike in first[0])
    assert set(FAULTS) == {*BROKER_FAULTS, *PROCESS_FAULTS}


def test_a_journal_is_there_when_its_writer_is_killed(tmp_path: Path) -> None:
    """Each line is with the kernel when the call returns; nobody appends to another's journal."""
    path = tmp_path / "s1.journal"
    journal = Journal(path)
    journal.begins("a")
    journal.durable("a", "topic")
    journal.begins("b")
    journal.refused("b", TimeoutError())
    assert durable_ids(tmp_path) == {"a": "topic"}
    assert staged_ids(tmp_path) == {"a", "b"}
    with pytest.raises(FileExistsError):
        Journal(path)
    with journal:
        pass


def test_late_events_are_found() -> None:
    """S6: of one tenant of one process, an event that stands before an earlier one is late; others are not compared."""
    seen = {"s1/0/0": (0, 5), "s1/0/1": (0, 9), "s1/0/2": (0, 7), "s1/1/0": (0, 8), "3-1": (0, 1)}
    assert late_ids(seen) == ["s1/0/2"]
    assert late_ids({**seen, "s1/0/2": (0, 10)}) == []


@pytest.mark.parametrize(
    ("name", "bad"), [("missing", ["x"]), ("absent", ["x"]), ("late", ["x"]), ("counts", 1)]
)
def test_what_fails_a_run(name: str, bad: object) -> None:
    """A run is sound only where nothing is missing, unstaged, late or pending; it counts only from five hits and one
    duplicate on."""
    kinds = ("out_of_order", "pending", "parked", "unjudged", "foreign", "double", "staged_again")
    outcome = Outcome(ledger={"counts": dict.fromkeys(kinds, 0)})
    assert (outcome.sound, outcome.counting) == (True, False)
    outcome.hits = 5
    outcome.ledger["counts"]["double"] = 1
    assert outcome.counting
    if name == "counts":
        outcome.ledger["counts"]["pending"] = bad
    else:
        setattr(outcome, name, bad)
    assert not outcome.sound


@pytest.mark.skipif(not can_mount(), reason="may not mount a tmpfs here")
def test_a_small_disk_fills_and_is_freed(tmp_path: Path) -> None:
    """A full small disk takes no byte, and takes some again once freed."""
    with SmallDisk(tmp_path / "disk", 2) as disk:
        file = disk.folder / "file"
        disk.fill()
        with pytest.raises(OSError, match="No space"):
            file.write_bytes(b"x" * 10_000)
        disk.free()
        file.write_bytes(b"x" * 10_000)
