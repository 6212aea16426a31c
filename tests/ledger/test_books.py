"""The ledger's rules, over namespaces made in memory: missing, double, out of order, or none of it (T5, T6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cloudevents import Dialect
from pipeline.ledger.findings import Disorder, Double
from pipeline.ledger.sorter import Sorter
from tests.ledger.ledger_world import World


@pytest.mark.parametrize("dialect", ["ce_", "ce-"])
def test_all_is_well(tmp_path: Path, dialect: Dialect) -> None:
    """T6: what reached its target, a dead-letter topic or the audit topic is accounted for, in either dialect."""
    world = World(dialect, first_offset=1_000)
    places = [world.stage(f"e{number}", tenant=f"t{number % 3}") for number in range(30)]
    for number, at in enumerate(places):
        if number == 7:
            world.dead_letter(at)
        elif number == 8:
            world.audit(at)
        else:
            world.deliver(at)
    found = world.judged(tmp_path)
    assert found.sound
    counts = found.counts
    assert (counts.staged, counts.delivered, counts.dead_lettered, counts.skipped) == (30, 28, 1, 1)
    assert (counts.missing, counts.double, counts.foreign, counts.pending) == (0, 0, 0, 0)


def test_a_lost_event_is_named(tmp_path: Path) -> None:
    """T6: one that is committed and has no end is missing, and named by its place on staging."""
    world = World()
    places = [world.stage(f"e{number}") for number in range(30)]
    world.deliver(*(at for at in places if at != places[13]))
    assert world.judged(tmp_path).missing == [places[13]]


def test_behind_the_commit_it_is_pending(tmp_path: Path) -> None:
    """T6: what no worker has committed is pending, not missing; delivered already, it is neither."""
    world = World()
    places = [world.stage(f"e{number}") for number in range(10)]
    world.deliver(*places[:5], places[8])
    found = world.judged(tmp_path, {places[0].partition: places[5].offset})
    assert found.sound
    assert (found.counts.pending, found.counts.delivered) == (4, 6)
    assert world.judged(tmp_path, {}).counts.pending == 4


def test_parked_is_pending_until_it_is_delivered(tmp_path: Path) -> None:
    """T6: a parked event is not missing; delivered from there, in order, it is neither parked nor double."""
    world = World()
    places = [world.stage(f"e{number}") for number in range(4)]
    for at in places:
        world.park(at)
    assert world.judged(tmp_path).counts.parked == 4
    world.deliver(*places[:3])
    found = world.judged(tmp_path)
    assert (found.sound, found.counts.parked, found.counts.double) == (True, 1, 0)


def test_doubles_are_counted_and_placed(tmp_path: Path) -> None:
    """T5: a delivery too many, a dead letter too many, and both of one event are doubles; no fault by themselves."""
    world = World()
    first, second, third = (world.stage(f"e{number}") for number in range(3))
    came = world.deliver(first)
    again = world.deliver(first)
    dead, dead_again = world.dead_letter(second), world.dead_letter(second)
    world.dead_letter(third)
    both = world.deliver(third)
    found = world.judged(tmp_path)
    assert found.sound
    assert found.counts.double == 3
    assert sorted(found.double) == sorted(
        [Double(first, (came, again)), Double(second, (dead, dead_again)), Double(third, (both,))]
    )


def test_out_of_order_is_named(tmp_path: Path) -> None:
    """T5: first deliveries of one key keep the staging order; other keys have none with it, repeats none at all."""
    world = World()
    a, b, c, d = (world.stage(f"a{number}", tenant="t1") for number in range(4))
    other = world.stage("x", tenant="t3")
    world.deliver(other, a, d)
    late = [Disorder(at, world.deliver(at), d) for at in (b, c)]
    world.deliver(a, b, c, d)  # all of it again, after a crash
    found = world.judged(tmp_path)
    assert (found.sound, found.out_of_order) == (False, late)


def test_a_dead_letter_has_no_place_in_the_order(tmp_path: Path) -> None:
    """T5: staged again after its first record was dead-lettered, an event comes in the order of the second."""
    world = World()
    bad = world.stage("same")
    between = world.stage("between")
    good = world.stage("same")
    world.dead_letter(bad)
    world.deliver(between, good)
    found = world.judged(tmp_path)
    assert (found.sound, found.counts.staged_again, found.counts.double) == (True, 1, 0)


def test_staged_twice_is_one_event(tmp_path: Path) -> None:
    """S7: an id staged twice is one event that may come twice; but each record must have an end (T6)."""
    world = World()
    first, between, second = world.stage("same"), world.stage("between"), world.stage("same")
    world.deliver(first, between, second)
    found = world.judged(tmp_path)
    assert (found.sound, found.counts.double, found.counts.staged_again) == (True, 0, 1)
    world = World()
    first, second = world.stage("same"), world.stage("same")
    world.deliver(first)
    assert world.judged(tmp_path).missing == [second]


def test_one_id_for_two_definitions_is_two_events(tmp_path: Path) -> None:
    """T6: the definition is part of an event's identity, so one event does not stand in for the other."""
    world = World()
    one = world.stage("same", definition="thing.e1")
    world.stage("same", definition="thing.e2")
    world.deliver(one)
    assert world.judged(tmp_path).counts.missing == 1


@pytest.mark.parametrize("header", ["dlq-redrive-count", "dlq-first-failure-at"])
def test_a_redrive_is_free_of_order_and_doubles(tmp_path: Path, header: str) -> None:
    """Q3: a redriven event comes out of order and perhaps twice; lost it may not be."""
    world = World()
    first = world.stage("again")
    behind = world.stage("behind")
    redriven = world.stage("again", more={header: b"1"})
    world.dead_letter(first)
    world.deliver(behind, redriven, redriven)
    found = world.judged(tmp_path)
    assert (found.sound, found.counts.double) == (True, 0)
    world.targets.clear()
    world.deliver(behind)
    assert world.judged(tmp_path).missing == [redriven]


def test_ends_of_other_records_do_not_count(tmp_path: Path) -> None:
    """T6: an end counts for the record it names, by place and id: not for what stands there now, nor a note of another
    kind."""
    world = World()
    one, two = world.stage("one"), world.stage("two")
    world.audit(one, event_id="of a topic that was deleted")
    world.audit(two, action="noted")
    world.kept.append(("led.audit", world.kept[0][1].__class__(99, None, b"no JSON", [])))
    world.kept.append(("led.thing.e0.dlq", world.kept[0][1].__class__(99, None, b"{}", [])))
    assert sorted(world.judged(tmp_path).missing) == [one, two]


def test_poison_without_an_id_is_judged_by_its_place(tmp_path: Path) -> None:
    """S10: records that lack the headers of an identity are different events, each with its own end."""
    world = World()
    places = [world.stage("x") for _ in range(3)]
    for at in places:
        world.at(at).headers[:] = [("stage-version", b"1"), ("stage-id", None)]
        if at != places[1]:
            world.dead_letter(at)
    found = world.judged(tmp_path)
    assert (found.missing, found.counts.staged_again) == ([places[1]], 0)


def test_foreign_records_are_only_counted(tmp_path: Path) -> None:
    """What stands on a target and was staged by nobody is counted as foreign, and is no fault."""
    world = World()
    at = world.stage("mine")
    world.deliver(at)
    stranger = World()
    stranger.deliver(stranger.stage("theirs"))
    (spot,) = stranger.targets
    world.targets[spot] += stranger.targets[spot]
    world.targets[spot].append(world.at(at))  # a record without CloudEvents headers
    found = world.judged(tmp_path)
    assert (found.sound, found.counts.foreign, found.counts.delivered) == (True, 2, 1)


def test_retention_is_no_loss(tmp_path: Path) -> None:
    """Within retention: what a target has deleted is not judged, what was staged later is; and what staging has
    deleted makes neither a loss nor a disorder."""
    world = World()
    old = world.stage("old", timestamp=1_000)
    young = world.stage("young", timestamp=2_000)
    world.target_deleted = [("led.thing.e0", 1_500)]
    found = world.judged(tmp_path)
    assert (found.missing, found.counts.unjudged) == ([young], 1)
    world.target_deleted = [("led.thing.e0", None)]  # it holds nothing any more
    assert world.judged(tmp_path).counts.unjudged == 2
    world = World()
    old, between, again = world.stage("same"), world.stage("between"), world.stage("same")
    world.deliver(old, between, again)
    world.deleted = 1
    assert world.judged(tmp_path).sound


def test_the_limit_cuts_names_not_counts(tmp_path: Path) -> None:
    """O2: at most `limit` findings are named, and the counts are complete."""
    world = World()
    for number in range(20):
        world.stage(f"e{number}")
    found = world.judged(tmp_path, limit=3)
    assert (len(found.missing), found.counts.missing) == (3, 20)


def test_a_sorter_sorts_in_little_memory(tmp_path: Path) -> None:
    """Entries come back in order, all of them, also where there are more runs than files that may be open at once."""
    sorter = Sorter(tmp_path, "s", 4, run_entries=3)
    numbers = [(number * 7_919) % 1_000 for number in range(1_000)]
    for number in numbers:
        sorter.add(number.to_bytes(4))
    assert list(sorter) == [number.to_bytes(4) for number in sorted(numbers)]
    assert len(list(tmp_path.iterdir())) <= 64
