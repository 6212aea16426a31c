"""Each fault, made: it blocks for as long as it lasts, and leaves things whole again.

Owns: how each is done to a rig. Must not know: when, or what the outcome has to be.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic

from devtools.kafka.door import Door
from tests.chaos.rig import PARTITIONS, Rig
from tests.chaos.schedule import Strike
from tests.chaos.witness import Witness
from tests.kafka_client import partition_count, wait_until

__all__ = ["FAULTS", "can_strike"]

_READY_S = 90.0
_FROZEN_S = 9.0
"""Longer than the brokers' session, 6 s: the controller gives its partitions to others."""
_HALF_DONE_S = 1.0
"""Less than `TARGET_SOFT_TIMEOUT_S`, after which a worker parks what it cannot deliver."""
_STOP_S = 60.0
_WORK_S = 20.0
_ADMIN_S = 30.0
_EVERYBODY = "User:ANONYMOUS"
_DELETED_PLAIN = 1
"""Which of the plain targets is the one that is deleted."""
_REVOKED_PLAIN = 2


def can_strike(rig: Rig, fault: str) -> bool:
    """Whether this machine lets us make that fault."""
    return rig.disks or "disk" not in fault


# --- our own processes


def _kill_worker(rig: Rig, strike: Strike) -> None:
    _let_it_work(rig)
    with rig.restarting("worker"):
        rig.worker.kill()
        rig.worker.start()


def _terminate_worker(rig: Rig, strike: Strike) -> None:
    _let_it_work(rig)
    with rig.restarting("worker"):
        rig.worker.signal(signal.SIGTERM)
        rig.worker.wait(_STOP_S)
        rig.worker.start()


def _let_it_work(rig: Rig) -> None:
    """A worker that is still starting holds nothing that could be lost; but faults of others may keep it from it."""
    deadline = time.monotonic() + _WORK_S
    while "Worker ready" not in rig.worker.log_text() and time.monotonic() < deadline:
        time.sleep(0.1)


def _kill_service(rig: Rig, strike: Strike) -> None:
    with rig.restarting("service"):
        rig.service.send(signal.SIGKILL)
        rig.service.wait(_STOP_S)
        rig.service.start()


def _kill_gunicorn(rig: Rig, strike: Strike) -> None:
    rig.gunicorn.kill_workers(2)


def _fill_outbox_disk(rig: Rig, strike: Strike) -> None:
    door = rig.kafka.doors["services"]
    rig.outbox_disk.fill()
    door.cut()  # now the outbox is asked for
    time.sleep(strike.for_s)
    rig.outbox_disk.free()
    time.sleep(1.0)  # the disk has room again before the broker answers: the outbox must take events
    door.heal()


def _fill_worker_disk(rig: Rig, strike: Strike) -> None:
    rig.worker_disk.fill()
    time.sleep(strike.for_s)
    rig.worker_disk.free()


# --- brokers, and the ways to them


def _kill_broker(rig: Rig, strike: Strike) -> None:
    node = rig.kafka.nodes[strike.choice % 3]
    node.kill()
    time.sleep(strike.for_s)
    node.start()
    rig.kafka.wait_ready(_READY_S)


def _freeze_broker(rig: Rig, strike: Strike) -> None:
    node = rig.kafka.nodes[strike.choice % 3]
    node.pause()
    time.sleep(_FROZEN_S)
    node.resume()
    rig.kafka.wait_ready(_READY_S)


def _freeze_broker_and_kill_worker(rig: Rig, strike: Strike) -> None:
    """What goes to other brokers is delivered by then, and what is before it in staging is not."""
    node = rig.kafka.nodes[strike.choice % 3]
    node.pause()
    time.sleep(_HALF_DONE_S)
    with rig.restarting("worker"):
        rig.worker.kill()
        rig.worker.start()
    time.sleep(_FROZEN_S)
    node.resume()
    rig.kafka.wait_ready(_READY_S)


def _rolling_restart(rig: Rig, strike: Strike) -> None:
    for node in rig.kafka.nodes:
        node.stop(_STOP_S)
        node.start()
        rig.kafka.wait_ready(_READY_S)


def _cut_targets(rig: Rig, strike: Strike) -> None:
    _shut(rig, "targets", strike.for_s, lambda door: door.cut())


def _stall_targets(rig: Rig, strike: Strike) -> None:
    _shut(rig, "targets", strike.for_s, lambda door: door.stall())


def _stall_staging(rig: Rig, strike: Strike) -> None:
    _shut(rig, "services", strike.for_s, lambda door: door.stall())


def _shut(rig: Rig, name: str, seconds: float, how: Callable[[Door], None]) -> None:
    door = rig.kafka.doors[name]
    how(door)
    time.sleep(seconds)
    door.heal()


def _revoke_acl(rig: Rig, strike: Strike) -> None:
    topic = rig.topic(f"chaos.e{_REVOKED_PLAIN}")
    admin = AdminClient({"bootstrap.servers": rig.kafka.bootstrap, "log_level": 0})
    wanted = [
        _acl(topic, AclOperation.WRITE, AclPermissionType.DENY),
        # A topic with any rule is closed to all that no rule allows.
        _acl(topic, AclOperation.READ, AclPermissionType.ALLOW),
    ]
    for future in admin.create_acls(wanted, request_timeout=_ADMIN_S).values():
        future.result(_ADMIN_S)
    time.sleep(strike.for_s)
    every = AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        None,  # type: ignore[arg-type]  # of anybody
        None,  # type: ignore[arg-type]  # from anywhere
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for gone in admin.delete_acls([every], request_timeout=_ADMIN_S).values():
        assert len(gone.result(_ADMIN_S)) == len(wanted)


def _acl(topic: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, _EVERYBODY, "*", operation, permission
    )


def _delete_target(rig: Rig, strike: Strike) -> None:
    """Deleted while the worker cannot reach it, so that the reader all along has seen all that was there."""
    topic = rig.topic(f"chaos.e{_DELETED_PLAIN}")
    witness = Witness(rig.kafka.bootstrap, topic, "ce_id")
    witness.start()
    door = rig.kafka.doors["targets"]
    door.stall()
    try:
        time.sleep(1.0)  # what had passed the door is on the topic by now
        witness.catch_up()
        witness.stop()
        rig.deleted.setdefault(topic, set()).update(witness.seen)
        admin = AdminClient({"bootstrap.servers": rig.kafka.bootstrap, "log_level": 0})
        admin.delete_topics([topic], operation_timeout=_ADMIN_S)[topic].result(_ADMIN_S)
        wait_until(lambda: partition_count(rig.kafka.bootstrap, topic) == 0, _ADMIN_S, "the deletion")
        time.sleep(strike.for_s / 4)
        new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=3)
        wait_until(lambda: _created(admin, new), _ADMIN_S, f"{topic} again")
    finally:
        door.heal()


def _created(admin: AdminClient, new: NewTopic) -> bool:
    try:
        admin.create_topics([new])[new.topic].result(_ADMIN_S)
    except KafkaException as error:
        return bool(error.args[0].name() == "TOPIC_ALREADY_EXISTS")  # the worker may be quicker
    return True


FAULTS: Mapping[str, Callable[[Rig, Strike], None]] = {
    "kill worker": _kill_worker,
    "terminate worker": _terminate_worker,
    "kill service": _kill_service,
    "kill two gunicorn processes": _kill_gunicorn,
    "fill outbox disk": _fill_outbox_disk,
    "fill worker disk": _fill_worker_disk,
    "kill broker": _kill_broker,
    "freeze broker": _freeze_broker,
    "freeze broker, kill worker": _freeze_broker_and_kill_worker,
    "restart brokers in turn": _rolling_restart,
    "cut targets off": _cut_targets,
    "stall targets": _stall_targets,
    "stall staging": _stall_staging,
    "revoke ACL": _revoke_acl,
    "delete target": _delete_target,
}
