"""What goes wrong in a world, and for how long.

Owns: each fault and its undoing. Must not know: what is right while it lasts.

A fault is a coroutine on the world's own time. When the world is healed it is cancelled, and undoes itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.disk import Disk
from tests.simulation.staged_events import TARGETS
from tests.simulation.virtual_time import TIME

if TYPE_CHECKING:
    from tests.simulation.kafka_cluster import Cluster
    from tests.simulation.world import World

__all__ = [
    "BROKER_FAULTS",
    "CALM",
    "CLUSTER_FAULTS",
    "DISK_FAULTS",
    "PROCESS_FAULTS",
    "Fault",
    "a_cluster_is_lost",
    "find",
    "lose",
    "targets_are_denied",
]

Fault = Callable[["World"], Awaitable[None]]

_DEAD_LETTERS = tuple(f"{target}.dlq" for target in TARGETS)
_SINKS = ("sim.staging", *TARGETS, *_DEAD_LETTERS, "sim.audit", "sim.parked", "sim.parked.cursors")


async def requests_get_lost(world: World) -> None:
    """Connections turn into black holes."""
    world.network.weather.lost = world.chance.choice([0.02, 0.1, 0.5])
    try:
        await world.a_while(0.2, 4)
    finally:
        world.network.weather.lost = 0.0


async def answers_get_lost(world: World) -> None:
    """What was asked is done, and nobody hears of it: the connection breaks, or nothing more comes."""
    weather = world.network.weather
    weather.unanswered, weather.swallowed = world.chance.choice(
        [(0.05, 0.0), (0.4, 0.0), (0.0, 0.1), (0.1, 0.1)]
    )
    try:
        await world.a_while(0.2, 4)
    finally:
        weather.unanswered = weather.swallowed = 0.0


async def answers_come_late(world: World) -> None:
    """Some answers take seconds, some longer than anybody waits."""
    world.network.weather.late = world.chance.choice([0.05, 0.3])
    try:
        await world.a_while(0.5, 5)
    finally:
        world.network.weather.late = 0.0


async def all_is_slow(world: World) -> None:
    """Every way takes up to a twentieth of a second; no fault. Were it a fifth, a process that has only just started
    would not reach its topic within STAGE_TIMEOUT_S (seeds 613, 5768), and what it then sends twice is as promised."""
    world.network.weather.slow_s = world.chance.choice([0.02, 0.05])
    try:
        await world.a_while(0.5, 5)
    finally:
        world.network.weather.slow_s = 0.0


async def batches_fail(world: World) -> None:
    """Some batches of a request fail, others do not, some of them after they were appended."""
    cluster = world.some_cluster()
    cluster.produce_errors = world.chance.choice([0.1, 0.5])
    try:
        await world.a_while(0.2, 4)
    finally:
        cluster.produce_errors = 0.0


async def a_broker_dies(world: World) -> None:
    """One is gone, and its partitions have no leader for a while."""
    cluster = world.some_cluster()
    node = world.chance.choice(cluster.nodes)
    node.up = False
    world.network.node_died(node)
    try:
        await world.a_while(0.05, 3)
        cluster.elect()
        await world.a_while(0, 6)
    finally:
        node.up = True
        cluster.elect()


async def a_broker_hangs(world: World) -> None:
    """One is stopped; when it goes on it reads what was sent to it meanwhile."""
    node = world.chance.choice(world.some_cluster().nodes)
    node.hung = True
    try:
        await world.a_while(0.5, 14)
    finally:
        node.hung = False
        world.network.node_goes_on(node)


async def leaders_are_unknown(world: World) -> None:
    """Some partitions have no leader."""
    cluster = world.some_cluster()
    logs = [log for log in cluster.logs() if world.chance.random() < 0.5]
    for log in logs:
        log.leader = -1
    try:
        await world.a_while(0.1, 4)
    finally:
        cluster.elect()


async def leaders_move(world: World) -> None:
    """Some partitions get another leader, in good order; no fault."""
    cluster = world.some_cluster()
    for log in cluster.logs():
        if world.chance.random() < 0.5:
            log.leader = -1
    cluster.elect()


async def a_topic_is_denied(world: World) -> None:
    """Nobody may write to a target, a dead-letter topic or the audit topic for a while."""
    await _deny(world, [world.chance.choice(_SINKS)], 0.5, 7)


async def producers_are_forgotten(world: World) -> None:
    """The brokers no longer know any sequence number."""
    for log in world.some_cluster().logs():
        log.forget_producers()


async def a_cluster_is_lost(world: World) -> None:
    """All nodes of one are gone, or stopped."""
    cluster, stopped = world.some_cluster(), world.chance.random() < 0.5
    lose(world, cluster, stopped=stopped)
    try:
        await world.a_while(0.5, 12)
    finally:
        find(world, cluster)


def lose(world: World, cluster: Cluster, *, stopped: bool) -> None:
    """Let all nodes die, or stop."""
    for node in cluster.nodes:
        if stopped:
            node.hung = True
        else:
            node.up = False
            world.network.node_died(node)


def find(world: World, cluster: Cluster) -> None:
    """Let all nodes be well."""
    for node in cluster.nodes:
        node.up, node.hung = True, False
        world.network.node_goes_on(node)
    cluster.elect()


async def targets_are_denied(world: World) -> None:
    """Nobody may write to two of the targets for long."""
    await _deny(world, world.chance.sample(TARGETS, 2), 3, 12)


async def _deny(world: World, topics: Sequence[str], least_s: float, most_s: float) -> None:
    for cluster in world.clusters:
        cluster.denied.update(topics)
    try:
        await world.a_while(least_s, most_s)
    finally:
        for cluster in world.clusters:
            cluster.denied.difference_update(topics)


async def a_row_rots(world: World) -> None:
    """Its process dies, and a row that waits will be damaged when the database is opened next."""
    disk = _disk(world)
    disk.rotten += 1
    while (owner := disk.owner_of_rows()) is None:
        await world.a_while(0.01, 0.1)
    owner.kill()


async def a_process_is_killed(world: World) -> None:
    """`kill -9`, and another one comes sooner or later."""
    program = world.some_program()
    if program is not None:
        program.process.kill()
        await world.a_while(0, 8)


async def a_process_dies_between_two_effects(world: World) -> None:
    """It dies right before one of the next things it does to network or disk."""
    program = world.some_program()
    if program is not None:
        program.process.crash_at = program.process.effects + world.chance.randint(1, 60)


async def a_process_is_deployed(world: World) -> None:
    """SIGTERM, and another one comes; no fault."""
    program = world.some_program()
    if program is not None:
        await asyncio.wait([program.stop()])
        await world.a_while(0, 2)


async def another_process_joins(world: World) -> None:
    """One more, which makes the group rebalance; no fault."""
    if len(world.programs) < 3:
        world.start_program()


async def the_machine_sleeps(world: World) -> None:
    """Everything stands still, then all timers are due at once."""
    world.oracle.on_time = False
    TIME.now += world.chance.choice([0.5, 3.0, 11.0, 45.0])


async def the_calendar_jumps(world: World) -> None:
    """Somebody sets the clock, forward or back; no fault."""
    TIME.skew += world.chance.choice([-86_400.0, -3_600.0, -1.0, 1.0, 3_600.0])


async def the_disk_is_full(world: World) -> None:
    """No room for a while."""
    disk = _disk(world)
    disk.full = True
    try:
        await world.a_while(0.2, 6)
    finally:
        disk.full = False


async def the_disk_is_slow(world: World) -> None:
    """A write takes up to seconds."""
    disk = _disk(world)
    disk.slow_s = world.chance.choice([0.05, 1.0, 4.0])
    try:
        await world.a_while(0.5, 5)
    finally:
        disk.slow_s = 0.0


def _disk(world: World) -> Disk:
    disk = getattr(world, "disk", None)
    assert isinstance(disk, Disk), "this kind of world has no disk"
    return disk


CALM: tuple[Fault, ...] = (
    all_is_slow,
    leaders_move,
    a_process_is_deployed,
    another_process_joins,
    the_calendar_jumps,
)
"""After these alone nothing comes twice."""

CLUSTER_FAULTS: tuple[Fault, ...] = (
    requests_get_lost,
    answers_get_lost,
    answers_come_late,
    batches_fail,
    a_broker_dies,
    a_broker_hangs,
    leaders_are_unknown,
    a_topic_is_denied,
    producers_are_forgotten,
    the_machine_sleeps,
)

PROCESS_FAULTS: tuple[Fault, ...] = (a_process_is_killed, a_process_dies_between_two_effects)

DISK_FAULTS: tuple[Fault, ...] = (the_disk_is_full, the_disk_is_slow, a_row_rots)

BROKER_FAULTS: tuple[Fault, ...] = (
    batches_fail,
    a_broker_dies,
    a_broker_hangs,
    leaders_are_unknown,
    producers_are_forgotten,
    a_cluster_is_lost,
)
"""What may happen to one cluster alone, while another is well."""
