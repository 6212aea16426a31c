"""When a worker is ready: the pure judgement (O1)."""

from __future__ import annotations

from dataclasses import replace

from pipeline.transport.readiness import Facts, PartitionFacts, Watch

IDLE = PartitionFacts(0, "", None, None, 0)
WELL = Facts("", recovering=False, silent_s=0.5, partitions=(IDLE,))


def test_a_member_whose_partitions_are_idle_is_ready() -> None:
    """O1: member of the group, tables recovered, nothing unfinished: ready; a spare without partitions too."""
    assert Watch().look(WELL, 0.0).ready
    assert Watch().look(replace(WELL, partitions=()), 0.0).ready


def test_what_keeps_a_worker_from_being_ready_is_said() -> None:
    """O1: no member, recovering, a consumer whose thread is stuck: not ready, each with its reason."""
    said = Watch().look(Facts("no broker answers", recovering=True, silent_s=20.0), 0.0).reasons
    assert len(said) == 3
    assert "no broker answers" in said[0]
    assert "recovered" in said[1]
    assert "20 s" in said[2]


def test_a_partition_that_stands_still_without_a_cause_is_not_ready() -> None:
    """O1: unfinished work that does not move for a minute, or commits that do not happen, are no health."""
    for stuck in (replace(IDLE, unfinished_from=7), replace(IDLE, uncommitted_to=7)):
        watch = Watch()
        facts = replace(WELL, partitions=(stuck,))
        assert watch.look(facts, 0.0).ready
        assert watch.look(facts, 60.0).ready
        (said,) = watch.look(facts, 61.0).reasons
        assert "offset 7" in said
        moved = replace(stuck, unfinished_from=8)
        assert watch.look(replace(WELL, partitions=(moved,)), 62.0).ready


def test_a_named_cause_is_health() -> None:
    """O1: a partition that waits for something with a name is ready and named, its own cause before another's."""
    watch = Watch()
    waits = replace(IDLE, cause="target topic not known yet", unfinished_from=3)
    behind = replace(IDLE, partition=1, unfinished_from=3)
    facts = replace(WELL, partitions=(waits, behind))
    watch.look(facts, 0.0, "t.a does not take records")
    found = watch.look(facts, 100.0, "t.a does not take records")
    assert found.ready
    assert found.waiting == ((0, "target topic not known yet"), (1, "t.a does not take records"))
    assert not watch.look(facts, 200.0).ready
