"""A producer in another program that makes mistakes: poison of each kind, now and then, all through a run.

Owns: its records. Must not know: what becomes of them.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from tests.worker.shop_records import staged

__all__ = ["Stranger"]

_PAUSE_S = 0.2


class Stranger:
    """Writes a good record and three bad ones a round; a context manager that ends with all acknowledged."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.rounds = 0
        self._topic = topic
        self._over = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "delivery.timeout.ms": 600_000,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._write, name="stranger")

    def stop(self) -> None:
        """Write no more, and wait until all of it is on the topic."""
        self._over.set()
        self._thread.join()
        assert self._producer.flush(120) == 0

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._over.wait(_PAUSE_S):
            at = f"stranger-{self.rounds}"
            tenant = {"tenant": b"stranger"}
            for record in (
                staged(f"{at}-good", tenant | {"definition": b"chaos.strict"}, value=b'{"n": 1}'),
                staged(f"{at}-headless", tenant | {"definition": b"chaos.e1"}, without="time"),
                staged(f"{at}-strict", tenant | {"definition": b"chaos.strict"}, value=b'{"m": 1}'),
                staged(f"{at}-hint", tenant | {"definition": b"chaos.hint"}, value=b'{"m": 1}'),
            ):
                self._producer.produce(self._topic, record.value, record.key, headers=list(record.headers))
            self._producer.poll(0)
            self.rounds += 1
