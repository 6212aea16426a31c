"""The example service, in a master process that has staged an event itself before gunicorn forks it.

So everything that a fork can spoil is there: threads, sockets, an open RocksDB, a lock on a slot.
"""

from __future__ import annotations

from examples.gunicorn_service import application
from pipeline import stage_blocking

__all__ = ["application"]

stage_blocking("thing.happened", {"n": 0}, tenant="master", id="master", policy={"outbox": "always"})
