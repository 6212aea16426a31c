"""A Kafka cluster: what its nodes answer to each request that our clients send.

Owns: the answers, as the structs that aiokafka would decode; which node leads what. Must not know: connections,
when an answer arrives, which faults are planned.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.simulation.kafka_group import Group
from tests.simulation.kafka_log import Log, Record, Topic

__all__ = ["VERSIONS", "Cluster", "Node"]

_PRODUCE, _FETCH, _LIST_OFFSETS, _METADATA, _COMMIT, _COMMITTED = 0, 1, 2, 3, 8, 9
_COORDINATOR, _JOIN, _HEARTBEAT, _LEAVE, _SYNC = 10, 11, 12, 13, 14
_CREATE, _DELETE_RECORDS, _PRODUCER_ID, _CONFIGS = 19, 21, 22, 32
VERSIONS = {
    key: (version, version)
    for key, version in {
        _PRODUCE: 7, _FETCH: 4, _LIST_OFFSETS: 2, _METADATA: 5, _COMMIT: 3, _COMMITTED: 3, _COORDINATOR: 1,
        _JOIN: 2, _HEARTBEAT: 1, _LEAVE: 1, _SYNC: 1, _CREATE: 2, _DELETE_RECORDS: 1, _PRODUCER_ID: 0, _CONFIGS: 0,
    }.items()
}  # fmt: skip
"""Of each request the one version that is spoken."""

_UNKNOWN_TOPIC, _LEADER_NOT_AVAILABLE, _NOT_LEADER, _TIMED_OUT, _NOT_COORDINATOR = 3, 5, 6, 7, 16
_NOT_ENOUGH, _NOT_ENOUGH_AFTER_APPEND, _DENIED, _EXISTS, _OUT_OF_RANGE = 19, 20, 29, 36, 1
BEFORE_APPEND = (_NOT_LEADER, _NOT_ENOUGH, _UNKNOWN_TOPIC, _DENIED)
AFTER_APPEND = (_NOT_LEADER, _NOT_ENOUGH_AFTER_APPEND, _TIMED_OUT)
"""A leader that steps down while it waits for its followers says that it is none."""
DEFAULT_LIMIT_BYTES = 1_048_588

Respond = Callable[..., None]


class Node:
    """A broker process."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.up = True
        self.hung = False


class Cluster:
    """Nodes that share one truth. `on_append` and `on_commit` are told of everything that becomes durable.

    `name`: of its hosts, before their number.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        nodes: int,
        on_append: Callable[[Log, list[Record]], None],
        on_commit: Callable[[str, int, int], None],
    ) -> None:
        self.name = name
        self.nodes = [Node(self, number) for number in range(nodes)]
        self.topics: dict[str, Topic] = {}
        self.produce_errors = 0.0
        """How likely each batch of a request fails by itself."""
        self.denied: set[str] = set()
        """Topics nobody may write to at the moment."""
        self.limits: dict[str, int] = {}
        """`max.message.bytes` of topics that are created, where it is not what the creator asks for."""
        self._loop = loop
        self._chance = chance
        self.on_append = on_append
        self._group = Group(loop, on_commit)
        self._producer_ids = 0
        self._handlers: dict[int, Callable[[Node, Any, Respond], None]] = {
            _PRODUCE: self._produce,
            _FETCH: self._fetch,
            _LIST_OFFSETS: self._list_offsets,
            _METADATA: self._metadata,
            _COORDINATOR: self._find_coordinator,
            _CREATE: self._create_topics,
            _DELETE_RECORDS: self._delete_records,
            _PRODUCER_ID: self._init_producer_id,
            _CONFIGS: self._describe_configs,
            _COMMIT: self._of_group(self._group.commit),
            _COMMITTED: self._of_group(self._group.fetch),
            _JOIN: self._of_group(self._group.join),
            _HEARTBEAT: self._of_group(self._group.heartbeat),
            _LEAVE: self._of_group(self._group.leave),
            _SYNC: self._of_group(self._group.sync),
        }

    @property
    def committed(self) -> dict[tuple[str, int], int]:
        """What the group has committed."""
        return self._group.committed

    @property
    def alive(self) -> list[int]:
        """The nodes that are up."""
        return [node.node_id for node in self.nodes if node.up]

    def logs(self) -> Iterable[Log]:
        """Every partition."""
        for topic in self.topics.values():
            yield from topic.logs

    def create(self, name: str, partitions: int, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Topic:
        """Make a topic."""
        logs = [Log(name, number, self.on_append) for number in range(partitions)]
        for log in logs:
            log.leader = self._chance.choice(self.alive or [0])
        topic = self.topics[name] = Topic(name, logs, self.limits.get(name, limit_bytes))
        return topic

    def elect(self) -> None:
        """Every partition whose leader is gone gets another, if there is one."""
        for log in self.logs():
            if log.leader not in self.alive and self.alive:
                log.leader = self._chance.choice(self.alive)

    def handle(self, node: Node, request: Any, respond: Callable[[Any], None]) -> None:
        """Answer a request, now or later."""
        response = request.RESPONSE_TYPE
        self._handlers[request.API_KEY](node, request, lambda *fields: respond(response(*fields)))

    def _log(self, topic: str, partition: int) -> Log | None:
        found = self.topics.get(topic)
        return found.logs[partition] if found is not None and partition < len(found.logs) else None

    def _produce(self, node: Node, request: Any, respond: Respond) -> None:
        topics = []
        for topic, partitions in request.topics:
            answers = []
            for partition, data in partitions:
                code, offset = self._append(node, topic, partition, data)
                answers.append((partition, code, offset, -1, 0))
            topics.append((topic, answers))
        respond(topics, 0)

    def _append(self, node: Node, topic: str, partition: int, data: bytes) -> tuple[int, int]:
        log = self._log(topic, partition)
        if log is None:
            return _UNKNOWN_TOPIC, -1
        if log.leader != node.node_id:
            return _NOT_LEADER, -1
        if topic in self.denied:
            return _DENIED, -1
        fails = self._chance.random() < self.produce_errors
        if fails and self._chance.random() < 0.5:
            return self._chance.choice(BEFORE_APPEND), -1
        code, offset = log.append(data, self.topics[topic].limit_bytes)
        if fails and not code:
            return self._chance.choice(AFTER_APPEND), -1
        return code, offset

    def _fetch(self, node: Node, request: Any, respond: Respond) -> None:
        wanted = [
            (topic, partition, offset, limit)
            for topic, partitions in request.topics
            for partition, offset, limit in partitions
        ]
        logs = [log for topic, partition, *_ in wanted if (log := self._log(topic, partition)) is not None]

        def answer() -> None:
            timer.cancel()
            for log in logs:
                log.waiters.pop(answer, None)
            respond(0, _by_topic([(w[0], self._fetched(node, *w)) for w in wanted]))

        timer = self._loop.call_later(request.max_wait_time / 1000, answer)
        if any(self._has_something(node, *w) for w in wanted):
            answer()
            return
        for log in logs:
            log.waiters[answer] = None

    def _has_something(self, node: Node, topic: str, partition: int, offset: int, _: int) -> bool:
        log = self._log(topic, partition)
        return log is None or log.leader != node.node_id or offset != log.end

    def _fetched(self, node: Node, topic: str, partition: int, offset: int, limit: int) -> tuple[Any, ...]:
        log = self._log(topic, partition)
        if log is None or log.leader != node.node_id:
            return (partition, _UNKNOWN_TOPIC if log is None else _NOT_LEADER, -1, -1, [], b"")
        if not log.start <= offset <= log.end:
            return (partition, _OUT_OF_RANGE, -1, -1, [], b"")
        return (partition, 0, log.end, log.end, [], log.read(offset, limit))

    def _list_offsets(self, node: Node, request: Any, respond: Respond) -> None:
        answers = []
        for topic, partitions in request.topics:
            for partition, timestamp in partitions:
                log = self._log(topic, partition)
                if log is None or log.leader != node.node_id:
                    answers.append((topic, (partition, _NOT_LEADER, -1, -1)))
                else:
                    answers.append((topic, (partition, 0, -1, log.end if timestamp == -1 else log.start)))
        respond(0, _by_topic(answers))

    def _metadata(self, _: Node, request: Any, respond: Respond) -> None:
        names = list(self.topics) if request.topics is None else request.topics
        topics: list[Any] = []
        for name in names:
            topic = self.topics.get(name)
            if topic is None:
                topics.append((_UNKNOWN_TOPIC, name, False, []))
                continue
            everybody = [node.node_id for node in self.nodes]
            partitions: list[Any] = [
                (
                    _LEADER_NOT_AVAILABLE if log.leader < 0 else 0,
                    log.partition,
                    log.leader,
                    everybody,
                    everybody,
                    [],
                )
                for log in topic.logs
            ]
            topics.append((0, name, False, partitions))
        brokers = [(node, self._host(node), 9092, "") for node in self.alive]
        respond(0, brokers, "simulated", self.alive[0] if self.alive else -1, topics)

    def _find_coordinator(self, _: Node, __: Any, respond: Respond) -> None:
        node = self._coordinator()
        respond(0, 0, "", node, self._host(node), 9092)

    def _host(self, node_id: int) -> str:
        return f"{self.name}-{node_id}"

    def _coordinator(self) -> int:
        return self.alive[-1] if self.alive else 0

    def _of_group(self, handler: Callable[[Any, Respond], None]) -> Callable[[Node, Any, Respond], None]:
        def handle(node: Node, request: Any, respond: Respond) -> None:
            if node.node_id == self._coordinator():
                handler(request, respond)
            elif request.API_KEY == _JOIN:
                respond(0, _NOT_COORDINATOR, -1, "", "", "", [])
            elif request.API_KEY == _SYNC:
                respond(0, _NOT_COORDINATOR, b"")
            elif request.API_KEY in (_HEARTBEAT, _LEAVE):
                respond(0, _NOT_COORDINATOR)
            elif request.API_KEY == _COMMIT:
                codes = [(t, [(p, _NOT_COORDINATOR) for p, _, _ in parts]) for t, parts in request.topics]
                respond(0, codes)
            else:
                respond(
                    0, [(t, [(p, -1, "", _NOT_COORDINATOR) for p in parts]) for t, parts in request.topics], 0
                )

        return handle

    def _create_topics(self, _: Node, request: Any, respond: Respond) -> None:
        errors: list[Any] = []
        for name, partitions, _replication, _assignment, configs in request.create_topic_requests:
            if name in self.topics:
                errors.append((name, _EXISTS, "it is there"))
            else:
                limit = int(dict(configs).get("max.message.bytes", DEFAULT_LIMIT_BYTES))
                self.create(name, partitions, limit)
                errors.append((name, 0, None))
        respond(0, errors)

    def _delete_records(self, node: Node, request: Any, respond: Respond) -> None:
        answers = []
        for topic, partitions in request.topics:
            for partition, offset in partitions:
                log = self._log(topic, partition)
                if log is None or log.leader != node.node_id:
                    answers.append((topic, (partition, -1, _NOT_LEADER)))
                elif offset > log.end:
                    answers.append((topic, (partition, -1, _OUT_OF_RANGE)))
                else:
                    log.start = max(log.start, offset)
                    answers.append((topic, (partition, log.start, 0)))
        respond(0, _by_topic(answers))

    def _init_producer_id(self, _: Node, request: Any, respond: Respond) -> None:  # noqa: ARG002
        self._producer_ids += 1
        respond(0, 0, self._producer_ids, 0)

    def _describe_configs(self, _: Node, request: Any, respond: Respond) -> None:
        resources = []
        for kind, name, _names in request.resources:
            limit = str(self.topics[name].limit_bytes)
            resources.append((0, "", kind, name, [("max.message.bytes", limit, False, False, False)]))
        respond(0, resources)


def _by_topic(answers: Sequence[tuple[str, Any]]) -> list[tuple[str, list[Any]]]:
    found: dict[str, list[Any]] = {}
    for topic, answer in answers:
        found.setdefault(topic, []).append(answer)
    return list(found.items())
