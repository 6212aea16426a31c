"""The ledger over any history whatever: the books find what the rules, said plainly, find (T5, T6, S7)."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ledger.findings import At, Findings, Spot
from tests.ledger.ledger_world import World


@dataclass(frozen=True)
class _History:
    """Staged events by (tenant, definition, id), the deliveries by index, and what else became of each."""

    staged: list[tuple[int, int, int]]
    deliveries: list[int]
    dead: set[int]
    parked: set[int]
    committed: int


@st.composite
def _histories(draw: st.DrawFn) -> _History:
    small = st.integers(0, 2)
    staged = draw(st.lists(st.tuples(small, small, st.integers(0, 5)), min_size=1, max_size=12))
    index = st.integers(0, len(staged) - 1)
    orderly = draw(st.booleans())
    deliveries = list(range(len(staged))) if orderly else []
    deliveries += draw(st.lists(index, max_size=12))
    return _History(
        staged, deliveries, draw(st.sets(index)), draw(st.sets(index)), draw(st.integers(0, len(staged)))
    )


def _world_of(history: _History) -> tuple[World, list[At], list[Spot]]:
    world = World()
    places = [
        world.stage(f"i{event}", tenant=f"t{tenant}", definition=f"thing.e{kind}")
        for tenant, kind, event in history.staged
    ]
    spots = [world.deliver(places[index]) for index in history.deliveries]
    for index in history.dead:
        world.dead_letter(places[index])
    for index in history.parked:
        world.park(places[index])
    return world, places, spots


@settings(max_examples=300)
@given(_histories())
def test_any_history_is_judged_as_the_rules_say(history: _History) -> None:
    """T5, T6: over histories of every kind the books find what the rules, said plainly, find."""
    world, places, spots = _world_of(history)
    cut = {
        partition: sum(at.partition == partition for at in places[: history.committed])
        for partition in world.staging
    }
    with tempfile.TemporaryDirectory() as folder:
        found = world.judged(Path(folder), cut)
    missing, double = _missing_and_double(history, places, cut)
    assert (found.counts.missing, found.counts.double) == (missing, double)
    assert {disorder.came for disorder in found.out_of_order} == _disorders(history, places, spots)
    assert _sums_up(found, history)


def _missing_and_double(history: _History, places: list[At], cut: dict[int, int]) -> tuple[int, int]:
    copies: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (_, kind, event) in enumerate(history.staged):
        copies[kind, event].append(index)
    came = Counter(history.staged[index][1:] for index in history.deliveries)
    missing = double = 0
    for identity, indices in copies.items():
        alive = [index for index in indices if index not in history.dead]
        must = [
            index
            for index in alive
            if index not in history.parked and places[index].offset < cut[places[index].partition]
        ]
        missing += max(0, len(must) - came[identity])
        double += max(0, came[identity] - len(alive))
    return missing, double


def _disorders(history: _History, places: list[At], spots: list[Spot]) -> set[Spot]:
    alive: defaultdict[tuple[int, int], list[At]] = defaultdict(list)
    partitions: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for index, (_, kind, event) in enumerate(history.staged):
        partitions[kind, event].add(places[index].partition)
        if index not in history.dead:
            alive[kind, event].append(places[index])
    seen: set[object] = set()
    latest: dict[object, At] = {}
    late: set[Spot] = set()
    for index, spot in zip(history.deliveries, spots, strict=True):
        tenant, kind, event = history.staged[index]
        if (kind, event, spot.partition) in seen:
            continue
        seen.add((kind, event, spot.partition))
        if not alive[kind, event] or len(partitions[kind, event]) > 1:
            continue
        place, lane = min(alive[kind, event]), (kind, tenant, spot.partition)
        if lane in latest and place < latest[lane]:
            late.add(spot)
        latest[lane] = max(place, latest.get(lane, place))
    return late


def _sums_up(found: Findings, history: _History) -> bool:
    counts = found.counts
    return (
        counts.staged == len(history.staged)
        and counts.delivered == len(history.deliveries)
        and counts.dead_lettered == len(history.dead)
    )
