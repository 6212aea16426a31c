"""Event ids: UUID version 7, growing within a process, never the same twice (S3)."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid

import pytest

from pipeline import ids
from pipeline.ids import uuid7


def millis_of(identifier: str) -> int:
    """The first 48 bits: milliseconds since 1970 (RFC 9562, 5.7)."""
    return uuid.UUID(identifier).int >> 80


def test_form() -> None:
    """Version 7, the RFC's variant, the time of the call, written as `uuid` writes it (S3)."""
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(made)
    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= millis_of(made) <= after + 1


def test_they_grow() -> None:
    """Each is larger than the one before, as text and as a number, also within a millisecond (S3)."""
    made = [uuid7() for _ in range(20_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert [uuid.UUID(text).int for text in made] == sorted(uuid.UUID(text).int for text in made)


def test_a_clock_that_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on growing when the machine's clock is set back (S3)."""
    now = time.time_ns()
    readings = iter([now, now - 3_600_000_000_000, now - 3_600_000_000_000])
    monkeypatch.setattr("pipeline.ids.time.time_ns", lambda: next(readings))
    made = [uuid7(), uuid7(), uuid7()]
    assert made == sorted(made)


def test_threads() -> None:
    """Threads never get the same one, and each sees its own grow (S3)."""
    made: list[list[str]] = [[] for _ in range(8)]
    barrier = threading.Barrier(len(made))

    def run(own: list[str]) -> None:
        barrier.wait()
        own.extend(uuid7() for _ in range(3_000))

    threads = [threading.Thread(target=run, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    assert len({text for own in made for text in own}) == 24_000


def test_fork_while_a_thread_holds_the_lock() -> None:
    """A child can make ids even if another thread of the parent was making one at the fork, and other ones (S3)."""
    reader, writer = os.pipe()
    with ids._generator._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # a child that waits for the lock ends by this
            os.write(writer, "\n".join(uuid7() for _ in range(100)).encode())
            os._exit(0)
    ours = {uuid7() for _ in range(100)}
    assert os.waitpid(child, 0)[1] == 0
    theirs = set(os.read(reader, 65_536).decode().split())
    os.close(reader)
    os.close(writer)
    assert len(theirs) == 100
    assert not ours & theirs
    assert {uuid.UUID(text).version for text in theirs} == {7}
