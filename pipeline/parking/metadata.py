"""Targets whose partition count is not known: learning it, and shutting those that nobody can tell about (B2).

Owns: how long is waited for a topic's metadata. Must not know: who waits, with what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.kafka.cluster import Cluster
from pipeline.kafka.topics import TopicSpecs
from pipeline.parking.breakers import Breakers

__all__ = ["Metadata"]

_UNKNOWN = "its metadata is not known"


class Metadata:
    """Asks for what is missing, until it is there. Bound to one event loop; `soft_s`: TARGET_SOFT_TIMEOUT_S."""

    def __init__(self, targets: Cluster, specs: TopicSpecs, breakers: Breakers, soft_s: float) -> None:
        self._targets = targets
        self._specs = specs
        self._breakers = breakers
        self._soft_s = soft_s
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def need(self, topic: str, then: Callable[[], None] = lambda: None) -> bool:
        """Whether a target's partition count is known. Where not, `then` is called once it is, or once the target
        is shut for want of it: after `soft_s`, or at once where its cluster cannot be reached."""
        if topic in self._targets.partitions:
            return True
        if topic in self._waiting:
            self._waiting[topic].append(then)
            return False
        self._waiting[topic] = [then]
        self._targets.learn(self._specs.target(topic), lambda: self._known(topic))
        down = self._targets.producer.trouble is not None
        self._timers[topic] = asyncio.get_running_loop().call_later(
            0 if down else self._soft_s, self._give_up, topic
        )
        return False

    def close(self) -> None:
        """Call nobody any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._waiting.clear()

    def _known(self, topic: str) -> None:
        if self._breakers.reason(topic) == _UNKNOWN:
            self._breakers.reset(topic)
        self._tell(topic)

    def _give_up(self, topic: str) -> None:
        self._breakers.trip(topic, _UNKNOWN)
        self._tell(topic)

    def _tell(self, topic: str) -> None:
        timer = self._timers.pop(topic, None)
        if timer is not None:
            timer.cancel()
        for then in self._waiting.pop(topic, ()):
            then()
