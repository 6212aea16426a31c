"""What is in flight through one stager of the process whose caller has gone on: rows of its key have it ahead (S6).

Owns: who has what in flight, by key. Must not know: lanes, how a row is stored. Stagers on any threads share it.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["InDoubt"]

T = TypeVar("T")


class InDoubt(Generic[T]):
    """Calls by key, each with its stager. Safe from any thread. Whether there are any, `of_key` tells at once."""

    def __init__(self) -> None:
        self.of_key: dict[bytes, list[tuple[object, T]]] = {}
        self._lock = threading.Lock()

    def add(self, stager: object, key: bytes, call: T) -> None:
        """From now on it may be on the topic, or come there, with nobody waiting for it."""
        with self._lock:
            self.of_key.setdefault(key, []).append((stager, call))

    def forget(self, key: bytes, call: T) -> None:
        """It has ended. Nothing happens where somebody has taken it over."""
        with self._lock:
            self._keep(key, [item for item in self.of_key.get(key, ()) if item[1] is not call])

    def is_elsewhere(self, stager: object, key: bytes) -> bool:
        """Whether another stager than this one has any of the key."""
        return any(other is not stager for other, _ in self.of_key.get(key, ()))

    def take_over(self, stager: object, key: bytes) -> list[T]:
        """What other stagers have of the key, in order; to be made rows."""
        with self._lock:
            items = self.of_key.get(key, [])
            self._keep(key, [item for item in items if item[0] is stager])
        return [call for other, call in items if other is not stager]

    def _keep(self, key: bytes, items: list[tuple[object, T]]) -> None:
        if items:
            self.of_key[key] = items
        else:
            self.of_key.pop(key, None)
